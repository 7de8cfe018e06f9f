package esp

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestWhatIsSignedVerifies(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		image.AlgRSA3072: rsaKeys()[0], image.AlgECDSAP256: newEC(t, elliptic.P256()), image.AlgECDSAP384: newEC(t, elliptic.P384()),
	} {
		for in, b := range map[string][]byte{
			"one segment":    build(app("1.2.3", 7, 300)),
			"many segments":  build(app("1.2.3", 7, 256), make([]byte, 70000), nil, []byte("code")),
			"ends a sector":  build(app("1.2.3", 7, 4096-24-8-16-32)),
			"starts a new":   build(app("1.2.3", 7, 4096-24-8-32)),
			"no description": build([]byte("bootload")),
		} {
			out := mustSign(t, b, key, image.SignOptions{})
			v, err := verifyBytes(out, key.Public())
			if err != nil {
				t.Errorf("%s, %s: %v", name, in, err)
				continue
			}
			if v.Algorithm != name || len(out)%sectorSize != 0 || len(v.Info.Signatures) != 1 {
				t.Errorf("%s, %s: got %+v", name, in, v)
			}
			if in == "no description" {
				if v.Info.Version != "" || v.Info.SecurityCounter != nil {
					t.Errorf("%s: claims out of nothing: %+v", in, v.Info)
				}
			} else if v.Info.Version != "1.2.3" || *v.Info.SecurityCounter != 7 {
				t.Errorf("%s: got %+v", in, v.Info)
			}
		}
	}
	// An image without an appended digest.
	b := build(app("1.2.3", 7, 300))
	b = b[:len(b)-digestSize]
	b[23] = 0
	if _, err := verifyBytes(mustSign(t, b, rsaKeys()[0], image.SignOptions{}), rsaKeys()[0].Public()); err != nil {
		t.Error(err)
	}
}

func TestAppendKeepsTheSignaturesThatAreThere(t *testing.T) {
	add := image.SignOptions{Layout: json.RawMessage(`{"append": true}`)}
	for name, keys := range map[string][]crypto.Signer{
		"rsa":  {rsaKeys()[0], rsaKeys()[1], rsaKeys()[2]},
		"p256": {newEC(t, elliptic.P256()), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())},
		"p384": {newEC(t, elliptic.P384()), newEC(t, elliptic.P384()), newEC(t, elliptic.P384())},
	} {
		t.Run(name, func(t *testing.T) {
			b := sample(t, "app-unsigned.bin")
			_, _, err := signBytes(b, keys[0], add)
			wantReason(t, err, image.ErrBadOptions) // nothing to append to
			var algs []string
			for i, k := range keys {
				opt := add
				if i == 0 {
					opt = image.SignOptions{}
				}
				before := b
				b = mustSign(t, b, k, opt)
				if i > 0 && !bytes.Equal(b[:8192+i*blockSize], before[:8192+i*blockSize]) {
					t.Errorf("signature %d changed what was there", i)
				}
				for _, k := range keys[:i+1] {
					v, err := verifyBytes(b, k.Public())
					if err != nil || len(v.Info.Signatures) != i+1 {
						t.Fatalf("with %d signatures: %v", i+1, err)
					}
					algs = append(algs, v.Algorithm)
				}
				_, _, err := signBytes(b, k, add)
				wantReason(t, err, image.ErrBadOptions) // it is there already, or the sector is full
			}
			_, err = verifyBytes(b, goldenKeys(t)...)
			wantReason(t, err, image.ErrUnknownKey)
			if d := cmp.Diff(1, len(mapOf(algs))); d != "" {
				t.Errorf("algorithms %v", algs)
			}
			// Without the option all of them go.
			b = mustSign(t, b, keys[1], image.SignOptions{})
			_, err = verifyBytes(b, keys[0].Public(), keys[2].Public())
			wantReason(t, err, image.ErrUnknownKey)
		})
	}
}

func mapOf(s []string) map[string]bool {
	m := map[string]bool{}
	for _, v := range s {
		m[v] = true
	}
	return m
}

func TestAppendRefusesWhatVerifyWould(t *testing.T) {
	add := image.SignOptions{Layout: json.RawMessage(`{"append": true}`)}
	p256, p384 := newEC(t, elliptic.P256()), newEC(t, elliptic.P384())
	signed := mustSign(t, sample(t, "app-unsigned.bin"), p256, image.SignOptions{})
	for _, key := range []crypto.Signer{rsaKeys()[0], p384} { // another algorithm
		_, _, err := signBytes(signed, key, add)
		wantReason(t, err, image.ErrBadOptions)
	}
	other := newEC(t, elliptic.P256())
	for off, want := range map[int]image.ReasonError{
		0:                image.ErrMalformed, // magic
		4:                image.ErrMalformed, // digest, under the CRC and the signature
		37:               image.ErrMalformed, // key
		110:              image.ErrBadSignature,
		200:              image.ErrMalformed, // zeros
		blockCRC:         image.ErrMalformed,
		blockSize - 1:    image.ErrMalformed,
		blockSize + 1:    image.ErrMalformed,
		blockSize * 2:    image.ErrMalformed,
		sectorSize - 1:   image.ErrMalformed,
		sectorSize - 300: image.ErrMalformed,
	} {
		b := bytes.Clone(signed)
		b[8192+off] ^= 0x01
		_, _, err := signBytes(b, other, add)
		wantReason(t, err, want)
	}
}

func TestSignRefusesOptionsThatContradictTheImage(t *testing.T) {
	key := newEC(t, elliptic.P256())
	desc, none := build(app("1.2.3", 5, 300)), build([]byte("bootload"))
	for name, tc := range map[string]struct {
		in  []byte
		opt image.SignOptions
	}{
		"version":        {desc, image.SignOptions{Version: "1.2.4"}},
		"counter":        {desc, image.SignOptions{SecurityCounter: new(uint64(6))}},
		"large counter":  {desc, image.SignOptions{SecurityCounter: new(uint64(5 + 1<<32))}},
		"zero counter":   {desc, image.SignOptions{SecurityCounter: new(uint64(0))}},
		"no description": {none, image.SignOptions{SecurityCounter: new(uint64(1))}},
		"chip":           {desc, image.SignOptions{Hardware: []string{"esp32c6"}}},
		"chip spelled":   {desc, image.SignOptions{Hardware: []string{"board-a", "ESP32-S3", "esp32"}}},
		"vendor":         {desc, image.SignOptions{Vendor: "example.com"}},
		"header":         {desc, image.SignOptions{HeaderSize: 0x200}},
		"layout":         {desc, image.SignOptions{Layout: json.RawMessage(`{"apend": true}`)}},
		"layout type":    {desc, image.SignOptions{Layout: json.RawMessage(`{"append": 1}`)}},
		"layout end":     {desc, image.SignOptions{Layout: json.RawMessage(`{} {}`)}},
		"layout twice":   {desc, image.SignOptions{Layout: json.RawMessage(`{"append": false, "append": true}`)}},
	} {
		if _, _, err := signBytes(tc.in, key, tc.opt); !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, tc := range map[string]struct {
		in  []byte
		opt image.SignOptions
	}{
		"all":             {desc, image.SignOptions{Version: "1.2.3", SecurityCounter: new(uint64(5)), Hardware: []string{"esp32", "ESP32-C3"}, Product: "thermostat"}},
		"hardware unlike": {desc, image.SignOptions{Hardware: []string{"board-a"}}},
		"no description":  {none, image.SignOptions{Version: "9", SecurityCounter: new(uint64(0)), Layout: json.RawMessage(`{}`)}},
	} {
		if _, _, err := signBytes(tc.in, key, tc.opt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := signBytes(desc, key, image.SignOptions{SlotSize: 8191})
	wantReason(t, err, image.ErrTooLarge)
}

func TestUnknownChipsAreNumbers(t *testing.T) {
	b := build(app("1.2.3", 5, 300))
	b[12] = 0x63
	b = rehash(b)
	info, err := inspectBytes(b)
	if err != nil || info.Hardware[0] != "chip-0x0063" {
		t.Errorf("got %v, %v", info.Hardware, err)
	}
	_, _, err = signBytes(b, newEC(t, elliptic.P256()), image.SignOptions{Hardware: []string{"esp32c3"}})
	wantReason(t, err, image.ErrBadOptions)
}

// endless is a damaged or lying source.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) {
	for i := range p {
		p[i] = imageMagic
	}
	return len(p), nil
}

func TestSignRefusesSizesAndKeys(t *testing.T) {
	key := newEC(t, elliptic.P256())
	_, err := Format{}.Sign(t.Context(), io.Discard, endless{}, MaxSize+1, key, image.SignOptions{})
	wantReason(t, err, image.ErrTooLarge)
	_, err = Format{}.Inspect(t.Context(), endless{}, MaxSize+1)
	wantReason(t, err, image.ErrTooLarge)
	for _, size := range []int64{-1, 0, 1, headerSize - 1} {
		_, err = Format{}.Sign(t.Context(), io.Discard, endless{}, size, key, image.SignOptions{})
		wantReason(t, err, image.ErrTruncated)
		_, err = Format{}.Inspect(t.Context(), endless{}, size)
		wantReason(t, err, image.ErrTruncated)
	}
	_, _, err = signBytes(sample(t, "app-unsigned.bin"), newEC(t, elliptic.P521()), image.SignOptions{})
	wantReason(t, err, image.ErrUnsupported)
}
