package authz

import (
	"bytes"
	"crypto"
	"io"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/veraison/go-cose"

	"github.com/writ-project/writ/internal/fw"
)

func TestAuthorizationRoundTrip(t *testing.T) {
	want := testClaims()
	a, err := Decode(authorize(want, authzKey))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, a.Claims); diff != "" {
		t.Error(diff)
	}
	if a.KeyID != trustKey(authzKey).ID {
		t.Error("kid is not the key's id")
	}
	if err := a.Verify(authzKey.Public()); err != nil {
		t.Error(err)
	}
	if a.Verify(authzP256.Public()) == nil {
		t.Error("verifies under another key")
	}
}

// Other people's COSE reads ours.
func TestAuthorizationVerifiesWithPlainCOSE(t *testing.T) {
	for _, key := range []crypto.Signer{authzKey, authzP256} {
		var m cose.Sign1Message
		if err := m.UnmarshalCBOR(authorize(testClaims(), key)); err != nil {
			t.Fatal(err)
		}
		alg, err := m.Headers.Protected.Algorithm()
		if err != nil {
			t.Fatal(err)
		}
		v, err := cose.NewVerifier(alg, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(nil, v); err != nil {
			t.Error(err)
		}
	}
}

func TestCoreDigestLeavesOutTheDecision(t *testing.T) {
	c := testClaims()
	want := CoreDigest(c)
	c.Decision, c.Commitment = 99, fw.Digest{}
	if CoreDigest(c) != want {
		t.Error("the decision is part of the core digest")
	}
	c.Sequence++
	if CoreDigest(c) == want || want.IsZero() {
		t.Error("the sequence is not part of the core digest")
	}
}

func TestReceiptChangesNoSignedByte(t *testing.T) {
	payload := must(Encode(testClaims()))
	bare := must(Sign(payload, authzKey))
	full := must(AttachReceipt(bare, []byte("receipt")))
	a, b := must(Decode(bare)), must(Decode(full))
	if !bytes.Equal(a.msg.Protected, b.msg.Protected) || !bytes.Equal(a.Payload(), b.Payload()) || !bytes.Equal(a.msg.Signature, b.msg.Signature) {
		t.Error("attaching a receipt changed signed bytes")
	}
	if len(b.Receipts) != 1 || string(b.Receipts[0]) != "receipt" {
		t.Errorf("receipts %q", b.Receipts)
	}
	if _, err := AttachReceipt(bare, make([]byte, MaxAuthorization)); fw.KindOf(err) != fw.TooLarge {
		t.Errorf("oversized receipt: %v", err)
	}
	for range MaxReceipts - 1 {
		full = must(AttachReceipt(full, []byte("receipt")))
	}
	if _, err := AttachReceipt(full, []byte("receipt")); err == nil {
		t.Error("a receipt too many")
	}
}

func TestClaimsOutOfBoundsAreNotSigned(t *testing.T) {
	for what, change := range map[string]func(*Claims){
		"no device":           func(c *Claims) { c.Device = "" },
		"bad device":          func(c *Claims) { c.Device = "a b" },
		"no thumbprint":       func(c *Claims) { c.Thumbprint = fw.Digest{} },
		"no nonce":            func(c *Claims) { c.Nonce = Nonce{} },
		"no sequence":         func(c *Claims) { c.Sequence = 0 },
		"no plan":             func(c *Claims) { c.Plan = fw.Digest{} },
		"no commitment":       func(c *Claims) { c.Commitment = fw.Digest{} },
		"expires at issue":    func(c *Claims) { c.Expires = c.IssuedAt },
		"lives too long":      func(c *Claims) { c.Expires = c.IssuedAt + MaxLifetime + 1 },
		"valid later":         func(c *Claims) { c.NotBefore = c.IssuedAt + 1 },
		"no components":       func(c *Claims) { c.Components = nil },
		"component twice":     func(c *Claims) { c.Components = append(c.Components, c.Components[0]) },
		"too many components": func(c *Claims) { c.Components = make([]Component, MaxComponents+1) },
		"no digest":           func(c *Claims) { c.Components[0].Digest = fw.Digest{} },
		"no size":             func(c *Claims) { c.Components[0].Size = 0 },
		"no version":          func(c *Claims) { c.Components[0].Version = "" },
		"binary version":      func(c *Claims) { c.Components[0].Version = "1\n" },
		"no issuer":           func(c *Claims) { c.Issuer = "" },
	} {
		c := testClaims()
		change(&c)
		if _, err := Encode(c); err == nil {
			t.Errorf("%s: encoded", what)
		}
		// Nor are they read when somebody else encoded and signed them.
		payload := must(encMode.Marshal(wireClaims{wireCore: c.core(), Index: c.Decision, Commitment: c.Commitment}))
		if _, err := Decode(must(signMessage(payload, authzKey, TypeAuthorization))); err == nil {
			t.Errorf("%s: read", what)
		}
	}
}

// remake decodes the good authorization into generic maps, lets change edit
// them, and signs the result correctly, whatever it is.
func remake(t *testing.T, change func(head, claims map[any]any, unprot map[any]any)) []byte {
	t.Helper()
	m, _, err := decodeSign1(authorize(testClaims(), authzKey), TypeAuthorization, MaxAuthorization)
	if err != nil {
		t.Fatal(err)
	}
	var head, claims map[any]any
	if err := cbor.Unmarshal(m.Protected, &head); err != nil {
		t.Fatal(err)
	}
	if err := cbor.Unmarshal(m.Payload, &claims); err != nil {
		t.Fatal(err)
	}
	unprot := map[any]any{}
	change(head, claims, unprot)
	h, p := must(encMode.Marshal(head)), must(encMode.Marshal(claims))
	tbs := must(encMode.Marshal([]any{"Signature1", h, []byte{}, p}))
	sig := must(authzKey.Sign(nil, tbs, crypto.Hash(0)))
	return append([]byte{tagSign1}, must(encMode.Marshal([]any{h, unprot, p, sig}))...)
}

// Correctly signed messages of the wrong form are refused all the same.
func TestDecoderRefusesWhatItDoesNotKnow(t *testing.T) {
	type m = map[any]any
	for what, change := range map[string]func(head, claims, unprot m){
		"critical header":            func(h, _, _ m) { h[2] = []any{99}; h[99] = 1 },
		"critical header it knows":   func(h, _, _ m) { h[2] = []any{1} },
		"unknown header":             func(h, _, _ m) { h[33] = []byte{1} },
		"no typ":                     func(h, _, _ m) { delete(h, uint64(16)) },
		"other typ":                  func(h, _, _ m) { h[uint64(16)] = TypeReport },
		"no kid":                     func(h, _, _ m) { delete(h, uint64(4)) },
		"short kid":                  func(h, _, _ m) { h[uint64(4)] = []byte{1, 2} },
		"other algorithm":            func(h, _, _ m) { h[uint64(1)] = -257 },
		"unknown unprotected header": func(_, _, u m) { u[4] = []byte{1} },
		"unknown claim":              func(_, c, _ m) { c[-70000] = 1 },
		"text claim":                 func(_, c, _ m) { c["admin"] = true },
		"audience":                   func(_, c, _ m) { c[3] = "x" },
		"no expiry":                  func(_, c, _ m) { delete(c, uint64(4)) },
		"floating point expiry":      func(_, c, _ m) { c[uint64(4)] = 1.79e9 },
		"null nonce":                 func(_, c, _ m) { c[uint64(10)] = nil },
		"long nonce":                 func(_, c, _ m) { c[uint64(10)] = make([]byte, 17) },
		"short plan":                 func(_, c, _ m) { c[int64(-65541)] = make([]byte, 31) },
		"false rollback":             func(_, c, _ m) { c[int64(-65545)] = false },
		"other confirmation":         func(_, c, _ m) { c[uint64(8)] = m{3: []byte{1}} },
		"text id":                    func(_, c, _ m) { c[uint64(7)] = "aut_aaaabbbbccccddddeeee" },
		"negative sequence":          func(_, c, _ m) { c[int64(-65537)] = -1 },
		"tagged time":                func(_, c, _ m) { c[uint64(4)] = cbor.Tag{Number: 1, Content: testNow + 60} },
	} {
		if _, err := Decode(remake(t, change)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	good := remake(t, func(_, _, u m) { u[394] = [][]byte{[]byte("r")} })
	if _, err := Decode(good); err != nil {
		t.Errorf("the unchanged one: %v", err)
	}
}

// An encoding that is merely valid is not enough: the same claims with a
// member twice, keys out of order, a long-form or an indefinite length.
func TestDecoderTakesOneEncoding(t *testing.T) {
	payload := must(Encode(testClaims())).Bytes()
	if payload[0] != 0xb3 { // a map of 19
		t.Fatalf("payload begins with %x", payload[0])
	}
	dup := append([]byte{0xb4}, payload[1:]...)
	dup = append(dup, 0x01, 0x61, 'x') // iss again
	iss := must(encMode.Marshal(testClaims().Issuer))
	swapped := append([]byte{0xb3}, payload[2+len(iss):]...)
	swapped = append(append(swapped, 0x01), iss...)
	for what, b := range map[string][]byte{
		"duplicate":    dup,
		"out of order": swapped,
		"long form":    append([]byte{0xb8, 0x13}, payload[1:]...),
		"indefinite":   append(append([]byte{0xbf}, payload[1:]...), 0xff),
		"trailing":     append(bytes.Clone(payload), 0),
		"empty":        {},
		"null":         {0xf6},
	} {
		if _, err := DecodeClaims(b); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := DecodeClaims(payload); err != nil {
		t.Error(err)
	}
}

// A key that sees whole messages, as internal/signer has them, signs too.
type wholeMessage struct{ crypto.Signer }

func (w wholeMessage) SignMessage(r io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(w.Signer, r, msg, opts)
}

func TestSignWithMessageSigner(t *testing.T) {
	for _, key := range []crypto.Signer{authzKey, authzP256} {
		msg, err := Sign(must(Encode(testClaims())), wholeMessage{key})
		if err != nil {
			t.Fatal(err)
		}
		if err := must(Decode(msg)).Verify(key.Public()); err != nil {
			t.Error(err)
		}
	}
}
