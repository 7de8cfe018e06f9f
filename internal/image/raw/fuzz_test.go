package raw

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// Only the envelope that was signed verifies, whatever its JSON looks like: the
// payload and the claims are those signed.
func FuzzVerify(f *testing.F) {
	// A fixed key: the fuzzer's workers are processes of their own, and must
	// trust the key that signed the seeds.
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	env := mustSign(f, key, options)
	f.Add(firmware, env)
	f.Add(firmware, mustSign(f, newP256(f), image.SignOptions{}))
	f.Add([]byte{}, []byte(`{"payload":"","payloadType":"`+PayloadType+`","signatures":[{"sig":"","keyid":""}]}`))
	f.Fuzz(func(t *testing.T, b, e []byte) {
		v, err := verifyBytes(b, e, key.Public())
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if !bytes.Equal(b, firmware) || v.Info.Version != options.Version {
			t.Fatalf("verified what nobody signed: %+v", v.Info)
		}
	})
}

// The statement reader sees attacker-made bytes only when a key holder is
// careless or hostile. It must still be total, and bounded in what it returns.
func FuzzStatement(f *testing.F) {
	key := newEd25519(f)
	payload, _, err := readEnvelope(mustSign(f, key, options))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readStatement(b)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if len(c.sha256) != 64 || len(c.product) > maxText || len(c.version) > maxText || len(c.hardware) > maxHardware {
			t.Fatalf("accepted %+v", c)
		}
	})
}

// Any bytes are a raw image.
func FuzzInspect(f *testing.F) {
	f.Add(firmware)
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
		if (err == nil) != (len(b) > 0) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err == nil && info.Size != int64(len(b)) {
			t.Fatalf("size %d of %d bytes", info.Size, len(b))
		}
	})
}
