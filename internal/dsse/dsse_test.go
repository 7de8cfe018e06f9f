package dsse

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

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
