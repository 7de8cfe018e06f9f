package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"github.com/writ-project/writ/internal/fw"
)

// sigStructure makes a Sig_structure with another encoder than the one under test.
func sigStructure(payload []byte) []byte {
	b, err := cbor.Marshal([]any{"Signature1", []byte{0xa1, 0x01, 0x27}, []byte{}, payload})
	if err != nil {
		panic(err)
	}
	return b
}

// permitSigner lets go-cose use a permit.
type permitSigner struct {
	s   *Signer
	p   *Permit
	alg cose.Algorithm
}

func (c permitSigner) Algorithm() cose.Algorithm { return c.alg }

func (c permitSigner) Sign(_ io.Reader, content []byte) ([]byte, error) {
	return c.s.SignAuthorization(c.p, content)
}

func TestAuthorizationIsACOSESignature(t *testing.T) {
	w := newWorld(t)
	if _, err := w.ks.Create(t.Context(), "authz-p256", fw.PurposeAuthorization, ECDSAP256, t0); err != nil {
		t.Fatal(err)
	}
	for key, alg := range map[fw.KeyName]cose.Algorithm{"authz-1": cose.AlgorithmEdDSA, "authz-p256": cose.AlgorithmES256} {
		// Lengths around each form of the CBOR length.
		for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
			payload := bytes.Repeat([]byte{7}, n)
			p := w.mint(t, Grant{Purpose: fw.PurposeAuthorization, Key: key, Subject: fw.DigestOf(payload), Evidence: 1})
			msg := cose.Sign1Message{Headers: cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: alg}}, Payload: payload}
			if err := msg.Sign(rand.Reader, nil, permitSigner{w.s, p, alg}); err != nil {
				t.Fatalf("%s %d: %v", key, n, err)
			}
			v, err := cose.NewVerifier(alg, w.public(t, key))
			if err != nil {
				t.Fatal(err)
			}
			if err := msg.Verify(nil, v); err != nil {
				t.Errorf("%s %d: %v", key, n, err)
			}
		}
	}
}

func TestAuthorizationSignerIsACryptoSigner(t *testing.T) {
	w := newWorld(t)
	if _, err := w.ks.Create(t.Context(), "authz-p256", fw.PurposeAuthorization, ECDSAP256, t0); err != nil {
		t.Fatal(err)
	}
	tbs := sigStructure([]byte("claims"))
	grant := Grant{Purpose: fw.PurposeAuthorization, Key: "authz-p256", Subject: fw.DigestOf([]byte("claims")), Evidence: 1}
	k, err := w.s.AuthorizationSigner(w.mint(t, grant))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	if _, err := k.Sign(rand.Reader, sum[:], crypto.SHA256); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a digest oracle: %v", err)
	}
	sig, err := k.SignMessage(rand.Reader, tbs, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if pub, ok := k.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, sum[:], sig) {
		t.Error("the signature does not verify")
	}
	if _, err := k.SignMessage(rand.Reader, tbs, crypto.SHA256); fw.KindOf(err) != fw.Conflict {
		t.Errorf("used twice: %v", err)
	}

	// What go-cose makes of a crypto.Signer, with Ed25519.
	grant.Key = "authz-1"
	if k, err = w.s.AuthorizationSigner(w.mint(t, grant)); err != nil {
		t.Fatal(err)
	}
	cs, err := cose.NewSigner(cose.AlgorithmEdDSA, k)
	if err != nil {
		t.Fatal(err)
	}
	msg := cose.Sign1Message{Headers: cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA}}, Payload: []byte("claims")}
	if err := msg.Sign(rand.Reader, nil, cs); err != nil {
		t.Fatal(err)
	}
}

func TestSigPayloadRefuses(t *testing.T) {
	good := sigStructure([]byte("claims"))
	enc := func(v ...any) []byte {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tbs := range map[string][]byte{
		"nothing":             nil,
		"COSE_Sign":           enc("Signature", []byte{}, []byte{}, []byte{}, []byte("claims")),
		"external data":       enc("Signature1", []byte{}, []byte("x"), []byte("claims")),
		"a text payload":      enc("Signature1", []byte{}, []byte{}, "claims"),
		"three elements":      enc("Signature1", []byte{}, []byte("claims")),
		"something after":     append(bytes.Clone(good), 0),
		"truncated":           good[:len(good)-1],
		"a long length":       append(bytes.Clone(sigPrefix), 0x58, 0x01, 0xa0, 0x40, 0x41, 'x'),
		"an indefinite one":   append(bytes.Clone(sigPrefix), 0x5f, 0x41, 0xa0, 0xff, 0x40, 0x41, 'x'),
		"a length over 4 GiB": append(bytes.Clone(sigPrefix), 0x5b, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0x40, 0x40),
	} {
		if p, err := sigPayload(tbs); err == nil {
			t.Errorf("%s: payload %q", name, p)
		}
	}
}

func FuzzSigPayload(f *testing.F) {
	f.Add(sigStructure([]byte("claims")))
	f.Add(sigStructure(bytes.Repeat([]byte{1}, 300)))
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, err := sigPayload(b)
		if err != nil {
			return
		}
		var got []any
		if err := cbor.Unmarshal(b, &got); err != nil {
			t.Fatalf("accepted what is not CBOR: %v", err)
		}
		if p, ok := got[3].([]byte); !ok || !bytes.Equal(p, payload) {
			t.Fatal("found another payload than a CBOR decoder")
		}
	})
}

func BenchmarkSignAuthorization(b *testing.B) {
	w := newWorld(b)
	tbs := sigStructure(bytes.Repeat([]byte{7}, 600))
	g := Grant{Purpose: fw.PurposeAuthorization, Key: "authz-1", Subject: fw.DigestOf(bytes.Repeat([]byte{7}, 600)), Verdict: VerdictAllow}
	for b.Loop() {
		g.Evidence++
		p, err := w.s.Mint(g)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.s.SignAuthorization(p, tbs); err != nil {
			b.Fatal(err)
		}
	}
}
