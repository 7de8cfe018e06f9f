package rauc

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

func seeds(f *testing.F) {
	f.Helper()
	for _, name := range []string{
		"plain.raucb", "verity.raucb", "plain-gzip.raucb", "plain-zstd.raucb", "plain-lz4.raucb", "plain-xz.raucb",
		"crypt.raucb", "crypt-encrypted.raucb",
	} {
		b := sample(f, name)
		f.Add(b)
		body, _ := parts(b)
		f.Add(body)
	}
}

// What is verified has the payload of a sample.
func FuzzVerify(f *testing.F) {
	seeds(f)
	signed := map[string]bool{}
	for _, name := range []string{"plain.raucb", "verity.raucb"} {
		body, _ := parts(sample(f, name))
		signed[string(body)] = true
	}
	keys := []crypto.PublicKey{image.CA{Certificate: certificate(f, "ca")}}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := verifyBytes(b, keys...)
		if err != nil {
			wantAReason(t, err)
			return
		}
		if body, _ := parts(b); !signed[string(body)] || v.Info.Version != "2026.11-1" {
			t.Fatalf("verified what nobody signed: %+v", v.Info)
		}
	})
}

// Inspect is total, and what it accepts without a signature can be signed.
func FuzzInspect(f *testing.F) {
	seeds(f)
	_, by := newSigner(f, cmstest.P256)
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := inspectBytes(b)
		if err != nil {
			wantAReason(t, err)
			return
		}
		if !(Format{}).Probe(bytes.NewReader(b), int64(len(b))) {
			t.Error("inspected, and not detected")
		}
		if info.Encrypted {
			return
		}
		if _, _, err := signBytes(b, by, image.SignOptions{}); err != nil {
			t.Errorf("inspected, and not signed: %v", err)
		}
	})
}

// Signing strangers' files either fails for a reason or makes a good bundle.
func FuzzSign(f *testing.F) {
	seeds(f)
	_, by := newSigner(f, cmstest.P256)
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := signBytes(b, by, image.SignOptions{})
		if err != nil {
			wantAReason(t, err)
			return
		}
		if _, err := verifyBytes(out, by.Public()); err != nil {
			t.Errorf("signed, and not verified: %v", err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("[update]\ncompatible=board-a\nversion=1.2\\s3\n\n[image.rootfs]\nsha256=" + rootfsSum + "\nsize=1\nfilename=a\n"))
	f.Add([]byte("[update]\ncompatible=b\n[bundle]\nformat=verity\n" + verityLines + "verity-size=4096\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readManifest(b)
		if err != nil {
			wantAReason(t, err)
			return
		}
		if m.compatible == "" || len(m.compatible) > maxText || len(m.version) > maxText || len(m.images) > maxImages {
			t.Fatalf("accepted %+v", m)
		}
		if m.format != formatPlain && (len(m.root) != veritySum || len(m.salt) != veritySum || m.treeSize < blockSize) {
			t.Fatalf("accepted %+v", m)
		}
	})
}

// The reader of squashfs, whatever surrounds it.
func FuzzSquashfs(f *testing.F) {
	for _, name := range []string{"plain.raucb", "plain-gzip.raucb", "plain-zstd.raucb", "plain-lz4.raucb"} {
		body, _ := parts(sample(f, name))
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := openSquash(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			var text []byte
			if text, err = s.readManifest(); len(text) > MaxManifest {
				t.Fatalf("%d bytes", len(text))
			}
		}
		if err != nil {
			wantAReason(t, err)
		}
	})
}

func FuzzLZ4(f *testing.F) {
	f.Add([]byte("\x1fa\x01\x00\x06Pabcde"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := unlz4(b, 1000); err == nil && len(out) > 1000 {
			t.Fatalf("%d bytes", len(out))
		}
	})
}

func wantAReason(tb testing.TB, err error) {
	tb.Helper()
	if _, ok := image.ReasonOf(err); !ok {
		tb.Fatalf("refused without a reason: %v", err)
	}
}
