package policy

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
)

// TypePolicy is the "type" member of a policy document.
const TypePolicy = "writ-policy/v1"

// Policy is a compiled policy document. It is immutable and safe for
// concurrent use.
type Policy struct {
	Name  string
	rules []rule
}

// rule is one condition of a policy. Checks come one per conjunct, so that a
// refusal names the part that failed.
type rule struct {
	checks  []string // the name of each conjunct's check
	message string
	when    *Condition
}

// document is the JSON form.
type document struct {
	Type       string `json:"type"`
	Name       string `json:"name"`
	Conditions []struct {
		Name    string `json:"name"`
		Expr    string `json:"expr"`
		Message string `json:"message,omitempty"`
	} `json:"conditions"`
}

// maxMessageSize bounds the message of a condition, which is repeated in
// every refusal it causes.
const maxMessageSize = 500

// ParsePolicy reads and compiles a policy document. Its error, of kind Invalid
// or TooLarge, says which condition is wrong and how.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > MaxPolicySize {
		return nil, fw.Errorf(fw.TooLarge, "a policy may have at most %d bytes, not %d", MaxPolicySize, len(text))
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fw.Errorf(fw.Invalid, "the policy is empty: give a JSON document of type %s with a name and conditions", TypePolicy)
	}
	if !utf8.Valid(text) {
		return nil, fw.Errorf(fw.Invalid, "the policy is not UTF-8 text")
	}
	var doc document
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields() // a misspelt member would be a condition that never applies
	if err := dec.Decode(&doc); err != nil {
		return nil, fw.Errorf(fw.Invalid, "the policy is not valid JSON of type %s: %s", TypePolicy, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fw.Errorf(fw.Invalid, "the policy has more text after its JSON document")
	}
	if doc.Type != TypePolicy {
		return nil, fw.Errorf(fw.Invalid, "the policy's type is %q; it must be %q", doc.Type, TypePolicy)
	}
	if _, err := fw.ParseName("policy name", doc.Name); err != nil {
		return nil, err
	}
	if len(doc.Conditions) == 0 || len(doc.Conditions) > MaxConditions {
		return nil, fw.Errorf(fw.Invalid, "a policy has 1 to %d conditions, not %d", MaxConditions, len(doc.Conditions))
	}
	return compileDocument(&doc)
}

func compileDocument(doc *document) (*Policy, error) {
	p := &Policy{Name: doc.Name}
	names := make(map[string]bool, len(doc.Conditions))
	for _, c := range doc.Conditions {
		if _, err := fw.ParseName("condition name", c.Name); err != nil {
			return nil, err
		}
		if names[c.Name] {
			return nil, fw.Errorf(fw.Invalid, "two conditions are named %q", c.Name)
		}
		names[c.Name] = true
		if len(c.Message) > maxMessageSize {
			return nil, fw.Errorf(fw.Invalid, "the message of condition %q may have at most %d bytes", c.Name, maxMessageSize)
		}
		when, err := compileRule(c.Expr)
		if err != nil {
			return nil, fw.Wrap(fw.KindOf(err), err, "condition %q: %s", c.Name, messageOf(err))
		}
		r := rule{message: c.Message, when: when}
		for i := range when.conjuncts {
			name := "policy:" + c.Name
			if len(when.conjuncts) > 1 {
				name += "#" + strconv.Itoa(i+1)
			}
			r.checks = append(r.checks, name)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

// checks counts the checks the policy adds to a decision.
func (p *Policy) checks() int {
	n := 0
	for i := range p.rules {
		n += len(p.rules[i].checks)
	}
	return n
}
