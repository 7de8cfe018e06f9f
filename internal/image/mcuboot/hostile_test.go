package mcuboot

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// Offsets in testdata/p256.bin and p256-seccnt.bin: header 0x200, payload 4099.
const (
	atProt = 0x200 + 4099
	atTLVs = atProt // when there is no protected area
)

// Attack: change one byte, anywhere. Header, padding, payload, protected TLVs,
// digest, key hash, signature and every length are covered.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	for _, name := range []string{"p256-seccnt.bin", "ed25519.bin", "p256-pubkey.bin", "rsa2048.bin"} {
		t.Run(name, func(t *testing.T) {
			b, keys := sample(t, name), allKeys(t)
			for i := range b {
				// In the payload, one byte in sixteen is enough.
				if i > 0x210 && i < atProt-16 && i%16 != 0 {
					continue
				}
				for _, mask := range []byte{0x01, 0x80, 0xff} {
					b[i] ^= mask
					_, err := verifyBytes(b, keys...)
					b[i] ^= mask
					if _, ok := image.ReasonOf(err); !ok {
						t.Fatalf("byte %#x xor %#02x: got error %v, want a refusal", i, mask, err)
					}
				}
			}
		})
	}
}

// Attack: cut the image off, anywhere.
func TestVerifyRefusesEveryPrefix(t *testing.T) {
	b, keys := sample(t, "p256-seccnt.bin"), allKeys(t)
	for n := range b {
		if _, err := verifyBytes(b[:n], keys...); !errors.Is(err, image.ErrTruncated) {
			t.Fatalf("first %d bytes: got %v, want truncated", n, err)
		}
	}
}

// Attack "IMG.EXTRA": a correct, signed image with something behind it that the
// device would write to flash as well. The last case adds the trailer of imgtool
// --confirm, which would make a device keep an update it should revert.
func TestVerifyRefusesTrailingBytes(t *testing.T) {
	b, keys := sample(t, "p256.bin"), allKeys(t)
	erased := bytes.Repeat([]byte{0xff}, 70_000)
	trailer := slices.Concat(erased, []byte{0x01}, bytes.Repeat([]byte{0xff}, 7), []byte{
		0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f, 0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80,
	})
	for name, extra := range map[string][]byte{
		"zero": {0}, "text": []byte("EXTRA"), "second image": b, "confirmed trailer": trailer,
		"late byte": append(bytes.Clone(erased), 0xfe),
	} {
		in := slices.Concat(b, extra)
		_, err := verifyBytes(in, keys...)
		if !errors.Is(err, image.ErrMalformed) {
			t.Errorf("%s: got %v, want malformed", name, err)
		}
		_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), int64(len(in)), newP256(t), image.SignOptions{})
		if !errors.Is(err, image.ErrMalformed) {
			t.Errorf("re-signing with %s: got %v, want malformed", name, err)
		}
	}
	v, err := verifyBytes(slices.Concat(b, erased), keys...)
	if err != nil || v.Info.Padding != int64(len(erased)) {
		t.Errorf("erased flash after the image: padding %d, error %v", v.Info.Padding, err)
	}
}

// Attack: lengths that lie, so that the verifier and the device look at
// different bytes.
func TestVerifyRefusesLyingLengths(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(b []byte)
		want image.ReasonError
	}{
		{"magic", func(b []byte) { b[0] = 0 }, image.ErrMalformed},
		{"header shorter than a header", func(b []byte) { le.PutUint16(b[8:], 31) }, image.ErrMalformed},
		{"header of zero", func(b []byte) { le.PutUint16(b[8:], 0) }, image.ErrMalformed},
		{"header longer than the image", func(b []byte) { le.PutUint16(b[8:], 0xffff) }, image.ErrTruncated},
		{"payload of zero", func(b []byte) { le.PutUint32(b[12:], 0) }, image.ErrMalformed},
		{"payload of 4 GiB", func(b []byte) { le.PutUint32(b[12:], math.MaxUint32) }, image.ErrTruncated},
		{"payload one byte longer", func(b []byte) { le.PutUint32(b[12:], 4100) }, image.ErrMalformed},
		{"protected size 0", func(b []byte) { le.PutUint16(b[10:], 0) }, image.ErrMalformed},
		{"protected size 1", func(b []byte) { le.PutUint16(b[10:], 1) }, image.ErrMalformed},
		{"protected size 0xffff", func(b []byte) { le.PutUint16(b[10:], 0xffff) }, image.ErrMalformed},
		{"protected total 3", func(b []byte) { le.PutUint16(b[atProt+2:], 3) }, image.ErrMalformed},
		{"protected total 0xffff", func(b []byte) { le.PutUint16(b[atProt+2:], 0xffff) }, image.ErrTruncated},
		{"protected TLV length", func(b []byte) { le.PutUint16(b[atProt+6:], 5) }, image.ErrMalformed},
		{"TLV total 4", func(b []byte) { le.PutUint16(b[atProt+14:], 4) }, image.ErrMalformed},
		{"TLV total 0", func(b []byte) { le.PutUint16(b[atProt+14:], 0) }, image.ErrMalformed},
		{"TLV total one more", func(b []byte) { b[atProt+14]++ }, image.ErrTruncated},
		{"TLV total one less", func(b []byte) { b[atProt+14]-- }, image.ErrMalformed},
		{"digest length", func(b []byte) { le.PutUint16(b[atProt+18:], 31) }, image.ErrMalformed},
		{"digest length 0xffff", func(b []byte) { le.PutUint16(b[atProt+18:], 0xffff) }, image.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := sample(t, "p256-seccnt.bin")
			tc.edit(b)
			_, err := verifyBytes(b, allKeys(t)...)
			wantReason(t, err, tc.want)
		})
	}
}

// item is a TLV for building images by hand. A nil data is filled in by build:
// digest, key hash or signature of the right value.
type item struct {
	typ  uint16
	data []byte
}

// build makes an image with exactly these TLVs, signed by key.
func build(t *testing.T, key *ecdsa.PrivateKey, prot, tlvs []item) []byte {
	t.Helper()
	put := func(b []byte, items []item) []byte {
		for _, i := range items {
			b = le.AppendUint16(b, i.typ)
			b = le.AppendUint16(b, uint16(len(i.data)))
			b = append(b, i.data...)
		}
		return b
	}
	b := make([]byte, 0x200+64)
	le.PutUint32(b, imageMagic)
	le.PutUint16(b[8:], 0x200)
	le.PutUint32(b[12:], 64)
	if prot != nil {
		area := put(make([]byte, 4), prot)
		le.PutUint16(area, tlvProtMagic)
		le.PutUint16(area[2:], uint16(len(area)))
		le.PutUint16(b[10:], uint16(len(area)))
		b = append(b, area...)
	}
	digest := sha256.Sum256(b)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(spki)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	fill := map[uint16][]byte{tlvSHA256: digest[:], tlvKeyHash: hash[:], tlvPubKey: spki, tlvECDSA: sig}
	tlvs = slices.Clone(tlvs)
	for i := range tlvs {
		if tlvs[i].data == nil {
			tlvs[i].data = fill[tlvs[i].typ]
		}
	}
	area := put(make([]byte, 4), tlvs)
	le.PutUint16(area, tlvInfoMagic)
	le.PutUint16(area[2:], uint16(len(area)))
	return append(b, area...)
}

// Attack: rearrange, repeat and add TLVs. The digest and the signature are right
// in each of these, so only the rules about TLVs stand in the way.
func TestVerifyRefusesAmbiguousTLVs(t *testing.T) {
	key := newP256(t)
	digest, hash, pub, sig := item{tlvSHA256, nil}, item{tlvKeyHash, nil}, item{tlvPubKey, nil}, item{tlvECDSA, nil}
	counter := item{tlvSecCnt, []byte{7, 0, 0, 0}}
	foreign := item{tlvKeyHash, make([]byte, 32)}
	junk := item{tlvECDSA, []byte{0x30, 0x00}}
	for _, tc := range []struct {
		name       string
		prot, tlvs []item
		want       image.ReasonError // "" accepts
	}{
		{"normal", nil, []item{digest, hash, sig}, ""},
		{"full key", nil, []item{digest, pub, sig}, ""},
		{"counter", []item{counter}, []item{digest, hash, sig}, ""},
		{"unknown protected TLV", []item{{0xa0, []byte("x")}}, []item{digest, hash, sig}, ""},
		{"empty protected area", []item{}, []item{digest, hash, sig}, ""},
		{"foreign signature first", nil, []item{digest, foreign, junk, hash, sig}, ""},
		{"foreign signature last", nil, []item{digest, hash, sig, foreign, junk}, ""},
		{"good then bad by our key", nil, []item{digest, hash, sig, hash, junk}, image.ErrBadSignature},
		{"bad then good by our key", nil, []item{digest, hash, junk, hash, sig}, image.ErrBadSignature},
		{"signature of another type", nil, []item{digest, hash, {tlvEd25519, make([]byte, 64)}}, image.ErrBadSignature},
		{"rsa type on an ec key", nil, []item{digest, hash, {tlvRSA2048, make([]byte, 256)}}, image.ErrBadSignature},
		{"padded signature", nil, []item{digest, hash, {tlvECDSA, make([]byte, 72)}}, image.ErrBadSignature},
		{"empty area", nil, nil, image.ErrUnsigned},
		{"digest only", nil, []item{digest}, image.ErrUnsigned},
		{"wrong digest", nil, []item{{tlvSHA256, make([]byte, 32)}, hash, sig}, image.ErrBadDigest},
		{"digest twice", nil, []item{digest, digest, hash, sig}, image.ErrMalformed},
		{"digest last", nil, []item{hash, sig, digest}, image.ErrMalformed},
		{"no digest", nil, []item{hash, sig}, image.ErrMalformed},
		{"key after signature", nil, []item{digest, sig, hash}, image.ErrMalformed},
		{"key without signature", nil, []item{digest, hash}, image.ErrMalformed},
		{"two keys", nil, []item{digest, hash, hash, sig}, image.ErrMalformed},
		{"signature without key", nil, []item{digest, hash, sig, sig}, image.ErrMalformed},
		{"short key hash", nil, []item{digest, {tlvKeyHash, make([]byte, 31)}, sig}, image.ErrMalformed},
		{"unprotected counter", nil, []item{digest, hash, sig, counter}, image.ErrMalformed},
		{"unprotected unknown", nil, []item{digest, hash, sig, {0xa0, nil}}, image.ErrMalformed},
		{"two counters", []item{counter, {tlvSecCnt, []byte{9, 0, 0, 0}}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"short counter", []item{{tlvSecCnt, []byte{7}}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"long counter", []item{{tlvSecCnt, make([]byte, 8)}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"short class id", []item{{tlvUUIDCid, make([]byte, 15)}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"protected key hash", []item{{tlvKeyHash, make([]byte, 32)}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"protected digest", []item{{tlvSHA256, make([]byte, 32)}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"encrypted key of a clear image", nil, []item{digest, hash, sig, {tlvEncEC256, make([]byte, 113)}}, image.ErrMalformed},
		{"pure with ecdsa", nil, []item{digest, {tlvSigPure, []byte{1}}, hash, sig}, image.ErrBadSignature},
		{"pure 0", nil, []item{digest, {tlvSigPure, []byte{0}}, hash, sig}, image.ErrMalformed},
		{"pure twice", nil, []item{digest, {tlvSigPure, []byte{1}}, {tlvSigPure, []byte{1}}, hash, sig}, image.ErrMalformed},
		{"pure without a value", nil, []item{digest, {tlvSigPure, []byte{}}, hash, sig}, image.ErrMalformed},
		{"short dependency", []item{{tlvDepend, make([]byte, 8)}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"boot record that is no CBOR", []item{{tlvBootRec, []byte{0xff}}}, []item{digest, hash, sig}, ""},
		{"two boot records", []item{{tlvBootRec, nil}, {tlvBootRec, nil}}, []item{digest, hash, sig}, image.ErrMalformed},
		{"many TLVs", slices.Repeat([]item{{0xa0, nil}}, maxTLVs), []item{digest, hash, sig}, ""},
		{"too many TLVs", slices.Repeat([]item{{0xa0, nil}}, maxTLVs+1), []item{digest, hash, sig}, image.ErrMalformed},
		{"too many signatures", nil, append([]item{digest}, slices.Repeat([]item{hash, sig}, maxSignatures+1)...), image.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := build(t, key, tc.prot, tc.tlvs)
			_, err := verifyBytes(b, key.Public())
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, tc.want)
		})
	}
}

// hugeReader claims any size and has only zeros; it must never be read far.
type hugeReader struct{ head []byte }

func (h hugeReader) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(h.head)) {
		copy(p, h.head[off:])
	}
	return len(p), nil
}

func TestSizesAreLimited(t *testing.T) {
	for _, size := range []int64{MaxSize + 1, math.MaxInt64} {
		for _, head := range [][]byte{nil, sample(t, "p256.bin")} {
			r := hugeReader{head}
			_, err := Format{}.Verify(t.Context(), r, size, nil, allKeys(t))
			wantReason(t, err, image.ErrTooLarge)
			_, err = Format{}.Sign(t.Context(), io.Discard, r, size, newP256(t), image.SignOptions{Version: "1.0.0"})
			wantReason(t, err, image.ErrTooLarge)
		}
	}
	for _, size := range []int64{math.MinInt64, -1, 0} {
		_, err := Format{}.Verify(t.Context(), hugeReader{}, size, nil, allKeys(t))
		wantReason(t, err, image.ErrTruncated)
		_, err = Format{}.Sign(t.Context(), io.Discard, hugeReader{}, size, newP256(t), image.SignOptions{Version: "1.0.0"})
		wantReason(t, err, image.ErrTruncated)
	}
}

// An I/O error says nothing about the image and must not look like a refusal.
func TestFailingDiskIsNotARefusal(t *testing.T) {
	disk := errors.New("input/output error")
	for _, at := range []int64{0, 0x300, atTLVs} {
		_, err := Format{}.Verify(t.Context(), failAt{sample(t, "p256.bin"), at, disk}, 4761, nil, allKeys(t))
		if reason, ok := image.ReasonOf(err); ok || !errors.Is(err, disk) {
			t.Errorf("failing at %#x: got %v with reason %q", at, err, reason)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Format{}.Verify(ctx, bytes.NewReader(sample(t, "p256.bin")), 4761, nil, allKeys(t))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

type failAt struct {
	b   []byte
	at  int64
	err error
}

func (f failAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, f.err
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}
