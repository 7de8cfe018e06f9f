package statement

import (
	"bytes"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// Predicate types of build provenance that are understood.
const (
	SLSAv1  = "https://slsa.dev/provenance/v1"   // SLSA 1.0 and later
	SLSAv02 = "https://slsa.dev/provenance/v0.2" // SLSA 0.2
)

// Bounds of provenance.
const (
	MaxProvenance = 1 << 20 // bytes of the envelope
	maxSubjects   = 1000
	maxSources    = 1000
	maxRuleKeys   = 8
	maxRuleText   = 500
)

// Provenance is what a build says of itself, as far as rules look at it.
type Provenance struct {
	Builder  string          // id of who built
	Sources  []string        // URIs of what it was built from
	Subjects map[string]bool // hexadecimal SHA-256 of what came out

	envelope dsse.Envelope
	payload  []byte
}

// Rule says which provenance a product demands. The zero Rule demands none.
type Rule struct {
	Builder string   `json:"builder,omitempty"` // the builder's id, exactly
	Source  string   `json:"source,omitempty"`  // a source's URI up to its revision, e.g. git+https://example.com/fw.git
	Keys    []string `json:"keys,omitempty"`    // SubjectPublicKeyInfo, PEM: one of them signed it
}

// IsZero reports whether r demands nothing.
func (r Rule) IsZero() bool { return r.Builder == "" && r.Source == "" && len(r.Keys) == 0 }

// Check reports whether r can be held to. A rule names builder, source and
// keys: provenance that anybody could have signed says nothing.
func (r Rule) Check() error {
	switch {
	case r.IsZero():
		return nil
	case r.Builder == "" || r.Source == "" || len(r.Keys) == 0:
		return fw.Errorf(fw.Invalid, "a provenance rule names a builder, a source and at least one key")
	case len(r.Builder) > maxRuleText || len(r.Source) > maxRuleText || len(r.Keys) > maxRuleKeys:
		return fw.Errorf(fw.TooLarge, "a provenance rule has at most %d keys, and names of at most %d bytes", maxRuleKeys, maxRuleText)
	}
	_, err := r.keys()
	return err
}

func (r Rule) keys() ([]crypto.PublicKey, error) {
	out := make([]crypto.PublicKey, len(r.Keys))
	for i, text := range r.Keys {
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fw.Errorf(fw.Invalid, "key %d of the provenance rule is no PUBLIC KEY in PEM", i+1)
		}
		var err error
		if out[i], err = dsse.ParsePublicKey(block.Bytes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// OpenProvenance reads SLSA provenance in a DSSE envelope. Nothing about it is
// verified: see [Provenance.Meets].
func OpenProvenance(b []byte) (*Provenance, error) {
	e, payload, err := dsse.Open(b, PayloadType, dsse.Limits{Bytes: MaxProvenance, Signatures: 8})
	if err != nil {
		return nil, err
	}
	if err := dsse.Unambiguous(payload); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed provenance")
	}
	var s struct {
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string          `json:"predicateType"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed provenance")
	}
	if len(s.Subject) > maxSubjects {
		return nil, fw.Errorf(fw.TooLarge, "the provenance has %d subjects, over the limit of %d", len(s.Subject), maxSubjects)
	}
	p := &Provenance{Subjects: make(map[string]bool), envelope: e, payload: payload}
	for _, sub := range s.Subject {
		if d := strings.ToLower(sub.Digest["sha256"]); d != "" {
			p.Subjects[d] = true
		}
	}
	if err := p.read(s.PredicateType, s.Predicate); err != nil {
		return nil, err
	}
	if len(p.Sources) > maxSources {
		return nil, fw.Errorf(fw.TooLarge, "the provenance names %d sources, over the limit of %d", len(p.Sources), maxSources)
	}
	return p, nil
}

func (p *Provenance) read(kind string, predicate []byte) error {
	type resource struct {
		URI string `json:"uri"`
	}
	var v1 struct {
		BuildDefinition struct {
			ResolvedDependencies []resource `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
		RunDetails struct {
			Builder struct {
				ID string `json:"id"`
			} `json:"builder"`
		} `json:"runDetails"`
	}
	var v02 struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Materials []resource `json:"materials"`
	}
	var list []resource
	var err error
	switch kind {
	case SLSAv1:
		err = json.Unmarshal(predicate, &v1)
		p.Builder, list = v1.RunDetails.Builder.ID, v1.BuildDefinition.ResolvedDependencies
	case SLSAv02:
		err = json.Unmarshal(predicate, &v02)
		p.Builder, list = v02.Builder.ID, v02.Materials
	default:
		return fw.Errorf(fw.Invalid, "the provenance has predicate type %.100q: use %s or %s", kind, SLSAv1, SLSAv02)
	}
	if err != nil {
		return fw.Wrap(fw.Invalid, err, "malformed provenance")
	}
	for _, r := range list {
		if r.URI != "" {
			p.Sources = append(p.Sources, r.URI)
		}
	}
	return nil
}

// Meets reports whether the provenance is what rule demands for the build
// outputs, which are the unsigned inputs of a release. An error of kind
// Forbidden says what is missing.
func (p *Provenance) Meets(rule Rule, outputs []fw.Digest) error {
	for _, d := range outputs {
		if !p.Subjects[d.Hex()] {
			return fw.Errorf(fw.Forbidden, "the provenance is not about %s: attach the one of this build", d)
		}
	}
	if rule.IsZero() {
		return nil
	}
	keys, err := rule.keys()
	if err != nil {
		return err
	}
	switch {
	case !slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { return p.envelope.SignedBy(k, p.payload) }):
		return fw.Errorf(fw.Forbidden, "the provenance is not signed by a key that the product trusts")
	case p.Builder != rule.Builder:
		return fw.Errorf(fw.Forbidden, "the provenance names builder %.200q and the product demands %q", p.Builder, rule.Builder)
	case !slices.ContainsFunc(p.Sources, func(s string) bool { return sameSource(s, rule.Source) }):
		return fw.Errorf(fw.Forbidden, "the provenance names no source %q, which the product demands", rule.Source)
	}
	return nil
}

// sameSource compares a URI, which may end in @ and a revision, with the one a
// rule names.
func sameSource(uri, want string) bool {
	rest, ok := strings.CutPrefix(uri, want)
	return ok && (rest == "" || rest[0] == '@')
}
