package minisign

import (
	"bytes"
	"context"
	"crypto"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func seed(f *testing.F) {
	f.Helper()
	for _, g := range both {
		f.Add(sampleEnvelope(f, g))
	}
	f.Add(sample(f, "minisign.pub"))
	f.Add([]byte(untrustedPrefix + "\n"))
	f.Add(bytes.Replace(sampleEnvelope(f, Format{}), []byte("version"), []byte("security_counter:7\tproduct:x\tversion"), 1))
}

// Whatever is read is described without contradiction, and refused with a reason
// otherwise.
func FuzzInspectEnvelope(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := InspectEnvelope(b)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		g, ok := DetectEnvelope(b)
		if !ok || g.Name() != info.Format || len(info.Signatures) != 1 || !g.Detect(b[:min(len(b), image.PrefixSize)]) && info.Format == "minisign" {
			t.Fatalf("detected %v, inspected %+v", g, info)
		}
	})
}

// Nothing verifies the sample's image but the sample's signatures: the fuzzer
// has no private key.
func FuzzVerify(f *testing.F) {
	seed(f)
	key, img := sampleKey(f), sample(f, "payload.bin")
	known := map[string]bool{}
	for _, g := range both {
		e, err := readEnvelope(sampleEnvelope(f, g))
		if err != nil {
			f.Fatal(err)
		}
		known[g.Name()+string(e.sig)+e.trusted] = true
	}
	f.Fuzz(func(t *testing.T, env []byte) {
		for _, g := range both {
			_, err := g.Verify(context.Background(), bytes.NewReader(img), int64(len(img)), env, []crypto.PublicKey{key})
			if err != nil {
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("refused without a reason: %v", err)
				}
				continue
			}
			e, err := readEnvelope(env)
			if err != nil || !known[g.Name()+string(e.sig)+e.trusted] {
				t.Fatalf("verified what nobody signed:\n%s", env)
			}
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		if again, err := ParsePublicKey(k.File()); err != nil || again.Number != k.Number || !again.Key.Equal(k.Key) {
			t.Fatalf("%q: got %v again, %v", b, again, err)
		}
	})
}
