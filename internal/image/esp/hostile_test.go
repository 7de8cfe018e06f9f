package esp

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"hash/crc32"
	"math"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// rehash puts the right checksum and digest on an unsigned image whose only
// digest is at its end.
func rehash(b []byte) []byte {
	n := len(b) - digestSize
	d := sha256.Sum256(b[:n])
	return append(bytes.Clone(b[:n]), d[:]...)
}

// recrc puts the right CRC into block i of a signed image.
func recrc(b []byte, i int) {
	blk := b[len(b)-sectorSize+i*blockSize:]
	le.PutUint32(blk[blockCRC:], crc32.ChecksumIEEE(blk[:blockCRC]))
}

// Attack: change one byte, anywhere, with the CRC of the block made right again.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	p384 := newEC(t, elliptic.P384())
	for name, b := range map[string][]byte{
		"rsa":  sample(t, "app-rsa3072.bin"),
		"p256": sample(t, "app-ecdsa256.bin"),
		"p384": mustSign(t, sample(t, "app-unsigned.bin"), p384, image.SignOptions{}),
	} {
		t.Run(name, func(t *testing.T) {
			keys := append(goldenKeys(t), p384.Public())
			for i := range b {
				if i > 0x110 && i < 4400 && i%16 != 0 { // inside the segment
					continue
				}
				if i > len(b)-sectorSize+200 && i%8 != 0 {
					continue
				}
				c := bytes.Clone(b)
				c[i] ^= 0x01
				for _, fixed := range []bool{false, true} {
					if fixed {
						recrc(c, 0)
						if bytes.Equal(c, b) { // it was the CRC
							continue
						}
					}
					_, err := verifyBytes(c, keys...)
					if _, ok := image.ReasonOf(err); !ok {
						t.Fatalf("byte %#x, CRC fixed %v: got error %v, want a refusal", i, fixed, err)
					}
				}
			}
		})
	}
}

// Attack: cut the image off, or put something behind it that a device would
// write to flash as well.
func TestVerifyRefusesOtherLengths(t *testing.T) {
	b := sample(t, "app-ecdsa256.bin")
	for n := range b {
		_, err := verifyBytes(b[:n], goldenKeys(t)...)
		if _, ok := image.ReasonOf(err); !ok {
			t.Fatalf("first %d bytes: got %v", n, err)
		}
	}
	sector := b[8192:]
	for name, tail := range map[string][]byte{
		"one byte": {0xff}, "erased": bytes.Repeat([]byte{0xff}, 4096), "another sector": sector, "a slot": make([]byte, 65536),
	} {
		_, err := verifyBytes(append(bytes.Clone(b), tail...), goldenKeys(t)...)
		if _, ok := image.ReasonOf(err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
		_, _, err = signBytes(append(bytes.Clone(b), tail...), newEC(t, elliptic.P256()), image.SignOptions{})
		wantReason(t, err, image.ErrMalformed)
	}
}

// Attack: lengths and counts that lie, with everything after them made to fit.
func TestInspectAndSignRefuseLyingHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(b []byte)
		want   image.ReasonError
	}{
		"magic":          {func(b []byte) { b[0] = 0xea }, image.ErrMalformed},
		"no segments":    {func(b []byte) { b[1] = 0 }, image.ErrMalformed},
		"17 segments":    {func(b []byte) { b[1] = 17 }, image.ErrMalformed},
		"flag":           {func(b []byte) { b[23] = 2 }, image.ErrMalformed},
		"more segments":  {func(b []byte) { b[1] = 16 }, ""},
		"huge segment":   {func(b []byte) { le.PutUint32(b[28:], math.MaxUint32-3) }, image.ErrTruncated},
		"odd segment":    {func(b []byte) { le.PutUint32(b[28:], 299) }, image.ErrMalformed},
		"big-endian":     {func(b []byte) { copy(b[28:], []byte{0, 0, 1, 0x2c}) }, image.ErrTruncated},
		"checksum":       {func(b []byte) { b[len(b)-digestSize-1] ^= 1 }, image.ErrBadDigest},
		"data":           {func(b []byte) { b[320] ^= 1 }, image.ErrBadDigest},
		"open version":   {func(b []byte) { copy(b[48:80], bytes.Repeat([]byte("1"), 32)) }, image.ErrMalformed},
		"open project":   {func(b []byte) { copy(b[80:112], bytes.Repeat([]byte("1"), 32)) }, image.ErrMalformed},
		"binary version": {func(b []byte) { b[48] = 7 }, image.ErrMalformed},
	} {
		b := build(app("1.2.3", 5, 300))
		tc.change(b)
		b = rehash(b)
		_, err := inspectBytes(b)
		_, _, serr := signBytes(b, newEC(t, elliptic.P256()), image.SignOptions{})
		for _, err := range []error{err, serr} {
			if _, ok := image.ReasonOf(err); !ok {
				t.Errorf("%s: got %v", name, err)
			} else if tc.want != "" {
				wantReason(t, err, tc.want)
			}
		}
	}
	// The appended digest.
	b := build(app("1.2.3", 5, 300))
	b[len(b)-1] ^= 1
	_, err := inspectBytes(b)
	wantReason(t, err, image.ErrBadDigest)
	_, _, err = signBytes(b, newEC(t, elliptic.P256()), image.SignOptions{})
	wantReason(t, err, image.ErrBadDigest)
	// A description that the segment is too short for.
	b = build(app("1.2.3", 5, 300)[:252])
	_, err = inspectBytes(b)
	wantReason(t, err, image.ErrTruncated)
	_, _, err = signBytes(b, newEC(t, elliptic.P256()), image.SignOptions{})
	wantReason(t, err, image.ErrTruncated)
}

// Attack: a sector that different readers see differently.
func TestVerifyRefusesOddSectors(t *testing.T) {
	ec, ec2, rsaKey := newEC(t, elliptic.P256()), newEC(t, elliptic.P256()), rsaKeys()[0]
	keys := []crypto.PublicKey{ec.Public(), ec2.Public(), rsaKey.Public()}
	unsigned := sample(t, "app-unsigned.bin")
	a, b := mustSign(t, unsigned, ec, image.SignOptions{}), mustSign(t, unsigned, ec2, image.SignOptions{})
	r := mustSign(t, unsigned, rsaKey, image.SignOptions{})
	other := mustSign(t, build(app("1.2.3", 5, 4400)), ec2, image.SignOptions{})
	block := func(img []byte) []byte { return img[len(img)-sectorSize:][:blockSize] }
	put := func(blocks ...[]byte) []byte {
		img := bytes.Clone(a)
		for i := range sectorSize {
			img[8192+i] = 0xff
		}
		for i, blk := range blocks {
			copy(img[8192+i*blockSize:], blk)
		}
		return img
	}
	gap := bytes.Repeat([]byte{0xff}, blockSize)
	broken := bytes.Clone(block(b))
	broken[110] ^= 1
	le.PutUint32(broken[blockCRC:], crc32.ChecksumIEEE(broken[:blockCRC]))
	for name, tc := range map[string]struct {
		img  []byte
		want image.ReasonError
	}{
		"empty":                     {put(), image.ErrMalformed},
		"gap first":                 {put(gap, block(a)), image.ErrMalformed},
		"gap between":               {put(block(a), gap, block(b)), image.ErrMalformed},
		"same key twice":            {put(block(a), block(a)), image.ErrMalformed},
		"two algorithms":            {put(block(a), block(r)), image.ErrMalformed},
		"second for another image":  {put(block(a), block(other)), image.ErrBadDigest},
		"second with bad signature": {put(block(a), broken), image.ErrBadSignature},
		"first with bad signature":  {put(broken, block(a)), image.ErrBadSignature},
	} {
		_, err := verifyBytes(tc.img, keys...)
		if err == nil {
			t.Errorf("%s: verified", name)
		}
		wantReason(t, err, tc.want)
	}
	if _, err := verifyBytes(put(block(b), block(a)), keys...); err != nil {
		t.Errorf("two good blocks: %v", err)
	}
	_, err := verifyBytes(a, ec2.Public(), rsaKey.Public())
	wantReason(t, err, image.ErrUnknownKey)
	_, err = verifyBytes(a)
	wantReason(t, err, image.ErrUnknownKey)
	_, err = Format{}.Verify(t.Context(), bytes.NewReader(a), int64(len(a)), []byte("{}"), keys)
	wantReason(t, err, image.ErrMalformed)
}

// Attack: the chip computes with the two derived numbers in an RSA block, so a
// block with a good signature and wrong numbers is not what we checked.
func TestVerifyRefusesRSAKeysTheChipWouldReadDifferently(t *testing.T) {
	for name, tc := range map[string]struct {
		off  int
		want image.ReasonError
	}{
		"2^6144 mod n": {430, image.ErrMalformed}, "-1/n": {808, image.ErrMalformed}, "even n": {36, image.ErrMalformed},
		"even e": {420, image.ErrMalformed}, "large e": {423, image.ErrMalformed}, "reserved": {2, image.ErrMalformed}, "version": {1, image.ErrUnsupported},
	} {
		b := sample(t, "app-rsa3072.bin")
		if off := 8192 + tc.off; name == "large e" {
			b[off] = 0x80
		} else {
			b[off] ^= 1
		}
		if name == "version" {
			b[8192+1] = 9
		}
		recrc(b, 0)
		_, err := verifyBytes(b, goldenKeys(t)...)
		if err == nil {
			t.Errorf("%s: verified", name)
		}
		wantReason(t, err, tc.want)
	}
	b := sample(t, "app-ecdsa256.bin")
	b[8192+36] = curveP192
	recrc(b, 0)
	_, err := verifyBytes(b, goldenKeys(t)...)
	wantReason(t, err, image.ErrUnsupported)
}
