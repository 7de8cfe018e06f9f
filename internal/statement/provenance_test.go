package statement

import (
	"crypto"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

var built = fw.DigestOf([]byte("firmware"))

const (
	builder = "https://ci.example.com/builder@v3"
	source  = "git+https://example.com/fw.git"
)

// slsa returns provenance as a CI system writes it, with members that no rule
// looks at.
func slsa(kind string) string {
	subject := `"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"fw.bin","digest":{"sha256":"` + built.Hex() + `","sha512":"00"}}],"predicateType":"` + kind + `",`
	if kind == SLSAv02 {
		return `{` + subject + `"predicate":{"builder":{"id":"` + builder + `"},"buildType":"x","materials":[{"uri":"` + source + `@refs/tags/v1","digest":{"sha1":"ab"}}]}}`
	}
	return `{` + subject + `"predicate":{"buildDefinition":{"buildType":"x","externalParameters":{},"resolvedDependencies":[{"uri":"pkg:docker/gcc"},{"uri":"` + source + `@refs/tags/v1"}]},` +
		`"runDetails":{"builder":{"id":"` + builder + `"},"metadata":{"invocationId":"1"}}}}`
}

func ruleFor(key crypto.Signer) Rule {
	der := must(dsse.MarshalPublicKey(key.Public()))
	return Rule{Builder: builder, Source: source, Keys: []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}}
}

func TestProvenanceMeetsItsRuleAndNoOther(t *testing.T) {
	key, _ := keys(t)
	other, _ := keys(t)
	seal := func(doc string, k ...crypto.Signer) *Provenance {
		return must(OpenProvenance(must(dsse.Seal(PayloadType, []byte(doc), k...))))
	}
	rule := ruleFor(key)
	edit := func(change func(*Rule)) Rule { r := ruleFor(key); change(&r); return r }
	for _, c := range []struct {
		name    string
		p       *Provenance
		rule    Rule
		outputs []fw.Digest
		want    string
	}{
		{"v1", seal(slsa(SLSAv1), key), rule, []fw.Digest{built}, ""},
		{"v0.2", seal(slsa(SLSAv02), key), rule, []fw.Digest{built}, ""},
		{"signed by several", seal(slsa(SLSAv1), other, key), rule, []fw.Digest{built}, ""},
		{"no rule", seal(slsa(SLSAv1)), Rule{}, []fw.Digest{built}, ""},
		{"no rule, another build", seal(slsa(SLSAv1)), Rule{}, []fw.Digest{fw.DigestOf(nil)}, "not about"},
		{"another image beside", seal(slsa(SLSAv1), key), rule, []fw.Digest{built, fw.DigestOf(nil)}, "not about"},
		{"unsigned", seal(slsa(SLSAv1)), rule, []fw.Digest{built}, "not signed"},
		{"a stranger's", seal(slsa(SLSAv1), other), rule, []fw.Digest{built}, "not signed"},
		{"another builder", seal(slsa(SLSAv1), key), edit(func(r *Rule) { r.Builder += "x" }), []fw.Digest{built}, "builder"},
		{"another source", seal(slsa(SLSAv1), key), edit(func(r *Rule) { r.Source = "git+https://evil.example/fw.git" }), []fw.Digest{built}, "source"},
		{"a source that begins alike", seal(slsa(SLSAv1), key), edit(func(r *Rule) { r.Source = "git+https://example.com/f" }), []fw.Digest{built}, "source"},
	} {
		err := c.p.Meets(c.rule, c.outputs)
		if c.want == "" && err != nil || c.want != "" && (fw.KindOf(err) != fw.Forbidden || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for what, r := range map[string]Rule{
		"no keys":    edit(func(r *Rule) { r.Keys = nil }),
		"no builder": edit(func(r *Rule) { r.Builder = "" }),
		"no source":  edit(func(r *Rule) { r.Source = "" }),
		"no PEM":     edit(func(r *Rule) { r.Keys[0] = "key" }),
		"too many":   edit(func(r *Rule) { r.Keys = make([]string, 9) }),
	} {
		if r.Check() == nil {
			t.Errorf("%s: a rule that cannot be held to", what)
		}
	}
	if err := errOr(rule.Check(), Rule{}.Check()); err != nil {
		t.Error(err)
	}
}

func errOr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestOpenProvenanceRefuses(t *testing.T) {
	key, _ := keys(t)
	for what, doc := range map[string]string{
		"another predicate": strings.Replace(slsa(SLSAv1), SLSAv1, "https://example.com/x", 1),
		"twice":             strings.Replace(slsa(SLSAv1), `"predicate":{`, `"predicate":{},"predicate":{`, 1),
		"mistyped":          strings.Replace(slsa(SLSAv1), `"resolvedDependencies":[`, `"resolvedDependencies":7,"x":[`, 1),
		"no JSON":           "x",
	} {
		if _, err := OpenProvenance(must(dsse.Seal(PayloadType, []byte(doc), key))); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := OpenProvenance(make([]byte, MaxProvenance+1)); fw.KindOf(err) != fw.TooLarge {
		t.Errorf("oversized: %v", err)
	}
}

func FuzzOpenProvenance(f *testing.F) {
	key, _ := keys(f)
	for _, kind := range []string{SLSAv1, SLSAv02} {
		f.Add(must(dsse.Seal(PayloadType, []byte(slsa(kind)), key)))
	}
	other, _ := keys(f)
	rule := ruleFor(other)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := OpenProvenance(b); err == nil && p.Meets(rule, []fw.Digest{built}) == nil {
			t.Fatal("believed what nobody signed")
		}
	})
}
