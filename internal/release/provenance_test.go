package release_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/statement"
)

// A product demands to know who built its firmware from what: without that,
// nothing is proposed, approved or signed.
func TestAProductDemandsBuildProvenance(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		_, ci, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := dsse.MarshalPublicKey(ci.Public())
		if err != nil {
			t.Fatal(err)
		}
		rule := statement.Rule{
			Builder: "https://ci.example.com/b", Source: "git+https://example.com/fw.git",
			Keys: []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
		}
		p := release.Product{Product: "lock", Name: "Lock", Hardware: []fw.HardwareID{"lock-1"}, ImageKey: "image", Quorum: 2, Provenance: rule}
		half := p
		half.Provenance.Keys = nil
		if _, err := w.svc.CreateProduct(t.Context(), half, "rita"); fw.KindOf(err) != fw.Invalid {
			t.Errorf("a rule without a key: %v", err)
		}
		if _, err := w.svc.CreateProduct(t.Context(), p, "rita"); err != nil {
			t.Fatal(err)
		}
		built := func(b []byte, builder string) []byte {
			doc := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"fw","digest":{"sha256":"` + fw.DigestOf(b).Hex() + `"}}],` +
				`"predicateType":"` + statement.SLSAv1 + `","predicate":{"buildDefinition":{"resolvedDependencies":[{"uri":"git+https://example.com/fw.git@v1"}]},"runDetails":{"builder":{"id":"` + builder + `"}}}}`
			env, err := dsse.Seal(statement.PayloadType, []byte(doc), ci)
			if err != nil {
				t.Fatal(err)
			}
			return env
		}
		d := w.draft("1.0.0")
		d.Product, d.Hardware = "lock", nil
		for what, c := range map[string]struct {
			env  []byte
			kind fw.Kind
			say  string
		}{
			"none":            {nil, fw.Invalid, "--provenance"},
			"another builder": {built(payload, "https://laptop.example"), fw.Forbidden, "builder"},
			"another build":   {built([]byte("x"), rule.Builder), fw.Forbidden, "not about"},
			"not provenance":  {[]byte("{}"), fw.Invalid, "envelope"},
		} {
			d.Provenance = fw.Digest{}
			if c.env != nil {
				d.Provenance = w.upload(c.env)
			}
			if _, err := w.svc.Propose(t.Context(), d, "rita"); fw.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%s: %v", what, err)
			}
		}
		d.Provenance = w.upload(built(payload, rule.Builder))
		row := w.approve(w.propose(d), "ann", "ben")
		if row, err = w.svc.Publish(t.Context(), row.ID, "rita"); err != nil {
			t.Fatal(err)
		}
		var m fw.Manifest
		if err := json.Unmarshal(row.Manifest, &m); err != nil || m.Provenance != d.Provenance {
			t.Errorf("the manifest names provenance %s, %v", m.Provenance, err)
		}
		checkPublished(t, w, row)
	})
}
