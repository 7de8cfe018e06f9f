package statement

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"

	"filippo.io/mldsa"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func manifest() fw.Manifest {
	return fw.Manifest{
		Type: fw.TypeManifest, Release: "rel_1", Product: "gateway", Version: "1.2.0", ReleaseType: fw.ReleaseSecurity,
		Hardware: []fw.HardwareID{"gw-1"}, FromVersion: ">=1.0.0", SBOM: fw.DigestOf([]byte("sbom")), Advisory: "CVE-2026-1", ProposedBy: "rita",
		Components: []fw.ManifestComponent{
			{Name: "radio", Format: "raw", SecurityCounter: 9, InputDigest: fw.DigestOf([]byte("radio in")), InputSize: 5, Key: "image"},
			{Name: "main", Format: "mcuboot", SecurityCounter: 3, InputDigest: fw.DigestOf([]byte("main in")), InputSize: 7, Key: "image"},
		},
	}
}

func images() []fw.SignedImage {
	return []fw.SignedImage{
		{Component: "radio", Format: "raw", Version: "1.2.0", SecurityCounter: 9, Digest: fw.DigestOf([]byte("radio")), Size: 5, Envelope: fw.DigestOf([]byte("envelope")), KeyID: "aa"},
		{Component: "main", Format: "mcuboot", Version: "1.2.0", SecurityCounter: 3, Digest: fw.DigestOf([]byte("main")), Size: 700, KeyID: "bb"},
	}
}

func keys(tb testing.TB) (ed, pq crypto.Signer) {
	tb.Helper()
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := mldsa.GenerateKey(mldsa.MLDSA65())
	if err != nil {
		tb.Fatal(err)
	}
	return e, p
}

func TestAStatementSaysWhatWasApproved(t *testing.T) {
	doc := must(json.Marshal(manifest()))
	s := must(Make(doc, images()))
	b := must(s.Encode())
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Matches(doc); err != nil {
		t.Error(err)
	}
	c, d, ok := again.Image("main")
	if !ok || d != fw.DigestOf([]byte("main")) || c.SecurityCounter != 3 || again.Predicate.Advisory != fw.DigestOf([]byte("CVE-2026-1")) {
		t.Errorf("main is %+v, %s", c, d)
	}
	if _, _, ok := again.Image("modem"); ok {
		t.Error("there is no modem")
	}
	for what, change := range map[string]func(*fw.Manifest){
		"version":     func(m *fw.Manifest) { m.Version = "1.2.1" },
		"product":     func(m *fw.Manifest) { m.Product = "other" },
		"type":        func(m *fw.Manifest) { m.ReleaseType = fw.ReleaseFunctional },
		"hardware":    func(m *fw.Manifest) { m.Hardware = append(m.Hardware, "gw-2") },
		"from":        func(m *fw.Manifest) { m.FromVersion = "" },
		"sbom":        func(m *fw.Manifest) { m.SBOM = fw.Digest{} },
		"provenance":  func(m *fw.Manifest) { m.Provenance = fw.DigestOf(nil) },
		"advisory":    func(m *fw.Manifest) { m.Advisory = "" },
		"counter":     func(m *fw.Manifest) { m.Components[1].SecurityCounter++ },
		"format":      func(m *fw.Manifest) { m.Components[0].Format = "swu" },
		"a component": func(m *fw.Manifest) { m.Components = m.Components[:1] },
		"the nonce":   func(m *fw.Manifest) { m.Nonce = "1" },
	} {
		m := manifest()
		change(&m)
		if err := again.Matches(must(json.Marshal(m))); fw.KindOf(err) != fw.Forbidden {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

func TestSignaturesCountAsDemanded(t *testing.T) {
	ed, pq := keys(t)
	otherEd, otherPQ := keys(t)
	payload := must(must(Make(must(json.Marshal(manifest())), images())).Encode())
	seal := func(k ...crypto.Signer) *Signed { return must(Open(must(dsse.Seal(PayloadType, payload, k...)))) }
	trusted := []crypto.PublicKey{ed.Public(), pq.Public()}
	joined := must(Open(must(Join(must(dsse.Seal(PayloadType, payload, ed)), must(dsse.Seal(PayloadType, payload, pq))))))
	for _, c := range []struct {
		name string
		s    *Signed
		need Requirement
		want fw.Kind
	}{
		{"both", seal(ed, pq), NeedBoth, ""},
		{"both, joined", joined, NeedBoth, ""},
		{"both where one would do", seal(ed, pq), NeedClassical, ""},
		{"classical", seal(ed), NeedClassical, ""},
		{"classical where both are needed", seal(ed), NeedBoth, fw.Forbidden},
		{"post-quantum alone", seal(pq), NeedBoth, fw.Forbidden},
		{"post-quantum is not classical", seal(pq), NeedClassical, fw.Forbidden},
		{"strangers", seal(otherEd, otherPQ), NeedBoth, fw.Forbidden},
		{"a stranger's post-quantum key", seal(ed, otherPQ), NeedBoth, fw.Forbidden},
		{"nobody", seal(), NeedClassical, fw.Forbidden},
		{"no requirement", seal(ed, pq), "", fw.Invalid},
		{"an unknown requirement", seal(ed, pq), "none", fw.Invalid},
	} {
		if err := c.s.Verify(trusted, c.need); fw.KindOf(err) != c.want && (err != nil || c.want != "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := seal(ed, pq).Verify(nil, NeedClassical); err == nil {
		t.Error("verified under no key")
	}
	if _, err := Join(must(dsse.Seal(PayloadType, payload, ed)), must(dsse.Seal(PayloadType, []byte("{}"), pq))); fw.KindOf(err) != fw.Conflict {
		t.Errorf("joined two documents: %v", err)
	}
}

func TestParseTakesOneForm(t *testing.T) {
	good := string(must(must(Make(must(json.Marshal(manifest())), images())).Encode()))
	for what, b := range map[string]string{
		"space":          " " + good,
		"another type":   strings.Replace(good, StatementType, "https://in-toto.io/Statement/v0", 1),
		"predicate":      strings.Replace(good, PredicateType, "https://slsa.dev/provenance/v1", 1),
		"unknown member": strings.Replace(good, `"predicate":{`, `"predicate":{"x":1,`, 1),
		"two digests":    strings.Replace(good, `"digest":{`, `"digest":{"sha512":"00",`, 1),
		"other subject":  strings.Replace(good, `"subject":[{"name":"radio"`, `"subject":[{"name":"modem"`, 1),
		"twice":          strings.ReplaceAll(good, `"name":"main"`, `"name":"radio"`),
		"no size":        strings.Replace(good, `"size":700`, `"size":0`, 1),
		"no hardware":    strings.Replace(good, `"hardware":["gw-1"]`, `"hardware":[]`, 1),
		"too long":       strings.Repeat(" ", MaxSize+1),
		"nothing":        "",
	} {
		if b == good {
			t.Fatalf("%s: nothing changed", what)
		}
		if _, err := Parse([]byte(b)); fw.KindOf(err) != fw.Invalid && fw.KindOf(err) != fw.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	ed, pq := keys(f)
	payload := must(must(Make(must(json.Marshal(manifest())), images())).Encode())
	f.Add(must(dsse.Seal(PayloadType, payload, ed, pq)))
	f.Add(payload)
	trusted := []crypto.PublicKey{ed.Public(), pq.Public()}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Open(b)
		if err != nil {
			_, _ = Parse(b) // must not panic
			return
		}
		if s.Verify(trusted, NeedClassical) == nil && !bytes.Equal(s.Payload(), payload) {
			t.Fatal("believed what nobody signed")
		}
	})
}
