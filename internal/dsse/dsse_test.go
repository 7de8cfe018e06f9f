package dsse

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"filippo.io/mldsa"

	"github.com/writ-project/writ/internal/fw"
)

const kind = "application/vnd.writ.test+json"

var most = Limits{Bytes: 1 << 16, Signatures: 4}

// The test vector of DSSE v1.0.2, protocol.md.
func TestPAEMatchesTheSpecification(t *testing.T) {
	got := string(PAE("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("PAE = %q, want %q", got, want)
	}
}

func newKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pub, key
}

func TestASealedEnvelopeOpensForItsKeysAlone(t *testing.T) {
	pubA, a := newKey(t)
	pubB, b := newKey(t)
	stranger, _ := newKey(t)
	doc := []byte(`{"x":1}`)
	env, err := Seal(kind, doc, a, b)
	if err != nil {
		t.Fatal(err)
	}
	e, payload, err := Open(env, kind, most)
	if err != nil || !bytes.Equal(payload, doc) {
		t.Fatalf("Open = %q, %v", payload, err)
	}
	if !e.SignedBy(pubA, payload) || !e.SignedBy(pubB, payload) {
		t.Error("a signer is not recognized")
	}
	if e.SignedBy(stranger, payload) || e.SignedBy(nil, payload) || e.SignedBy(pubA, []byte(`{"x":2}`)) {
		t.Error("a signature of nobody, or of something else, is believed")
	}
	swapped := e
	swapped.Signatures = []Signature{{KeyID: e.Signatures[0].KeyID, Sig: e.Signatures[1].Sig}}
	if swapped.SignedBy(pubA, payload) || swapped.SignedBy(pubB, payload) {
		t.Error("a signature under another key's id is believed")
	}
	swapped.PayloadType = "application/vnd.writ.other+json"
	swapped.Signatures = e.Signatures
	if swapped.SignedBy(pubA, payload) {
		t.Error("a signature for another type is believed")
	}
}

func TestEachKindOfKeySigns(t *testing.T) {
	_, ed := newKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pq, err := mldsa.GenerateKey(mldsa.MLDSA65())
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.Signer{ed, ec, pq}
	doc := []byte("{}")
	env, err := Seal(kind, doc, keys...)
	if err != nil {
		t.Fatal(err)
	}
	e, payload, err := Open(env, kind, most)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		der, err := MarshalPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ParsePublicKey(der)
		if err != nil {
			t.Fatal(err)
		}
		if !e.SignedBy(pub, payload) {
			t.Errorf("%T: not recognized", pub)
		}
		if IsPostQuantum(pub) != (i == 2) {
			t.Errorf("IsPostQuantum(%T) is wrong", pub)
		}
		bad := e
		bad.Signatures = slices.Clone(e.Signatures)
		bad.Signatures[i].Sig = e.Signatures[(i+1)%3].Sig
		if bad.SignedBy(pub, payload) {
			t.Errorf("%T: another's signature is believed", pub)
		}
	}
	weak, err := mldsa.GenerateKey(mldsa.MLDSA44())
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{weak, p384} {
		if _, err := Seal(kind, doc, k); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%T: %v", k.Public(), err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	_, key := newKey(t)
	env, err := Seal(kind, []byte(`{}`), key)
	if err != nil {
		t.Fatal(err)
	}
	good := string(env)
	many, err := Seal(kind, []byte(`{}`), key, key, key, key, key)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		env  string
		kind fw.Kind
	}{
		"another type":         {strings.Replace(good, kind, "text/plain", 1), fw.Invalid},
		"an unknown member":    {strings.Replace(good, "{", `{"x":1,`, 1), fw.Invalid},
		"a member twice":       {strings.Replace(good, "{", `{"payload":"",`, 1), fw.Invalid},
		"a member twice, case": {strings.Replace(good, "{", `{"PAYLOAD":"",`, 1), fw.Invalid},
		"trailing data":        {good + "{}", fw.Invalid},
		"not base64":           {strings.Replace(good, `"payload":"e30="`, `"payload":"e3 0="`, 1), fw.Invalid},
		"nothing":              {"", fw.Invalid},
		"too many signatures":  {string(many), fw.TooLarge},
		"too long":             {strings.Repeat(" ", most.Bytes+1), fw.TooLarge},
		"too deep":             {strings.Repeat("[", 100), fw.Invalid},
	} {
		if c.env == good {
			t.Fatalf("%s: nothing changed", what)
		}
		if _, _, err := Open([]byte(c.env), kind, most); fw.KindOf(err) != c.kind {
			t.Errorf("%s: %v, want %s", what, err, c.kind)
		}
	}
}

func FuzzOpen(f *testing.F) {
	pub, key := newKey(f)
	doc := []byte(`{"x":1}`)
	env, err := Seal(kind, doc, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Add([]byte(`{"payloadType":"` + kind + `","payload":"","signatures":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, payload, err := Open(b, kind, most)
		if err == nil && e.SignedBy(pub, payload) && !bytes.Equal(payload, doc) {
			t.Fatal("believed what nobody signed")
		}
	})
}
