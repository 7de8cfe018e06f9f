package approval

import (
	"errors"
	"fmt"

	"github.com/writ-project/writ/internal/fw"
)

// Approval is one person's signature over a document.
type Approval struct {
	Person  fw.PersonID `json:"person"`
	Armored string      `json:"signature"` // armored SSHSIG
}

// Result says whether enough people approved, and who. It is a value that
// goes into evidence; the zero Result denies.
type Result struct {
	Need     int        `json:"need"`
	Counted  []Counted  `json:"counted"`
	Rejected []Rejected `json:"rejected,omitempty"`
}

// Counted is an approval that counts.
type Counted struct {
	Person      fw.PersonID `json:"person"`
	Fingerprint string      `json:"fingerprint"` // of the key used
}

// Rejected is an approval that does not count. Index is its place in the list
// given to Quorum.
type Rejected struct {
	Index  int         `json:"index"`
	Person fw.PersonID `json:"person"`
	Reason string      `json:"reason"` // for people; not stable
}

// Met reports whether the quorum is met.
func (r Result) Met() bool { return r.Need >= 1 && len(r.Counted) >= r.Need }

// Quorum decides whether at least need distinct people of roster, none of them
// the proposer, approved exactly doc. A need below 1 is never met, and neither
// is a quorum without a proposer: who proposed must be known to be excluded.
func Quorum(doc []byte, approvals []Approval, roster *Roster, need int, proposer fw.PersonID) Result {
	res := Result{Need: need}
	counted := map[fw.PersonID]bool{}
	for i, a := range approvals {
		var key Key
		var reason string
		switch {
		case i >= MaxApprovals:
			reason = fmt.Sprintf("only the first %d approvals are looked at", MaxApprovals)
		case counted[a.Person]:
			reason = "this person has been counted"
		default:
			key, reason = judge(doc, a, roster, proposer)
		}
		if reason != "" {
			res.Rejected = append(res.Rejected, Rejected{Index: i, Person: a.Person, Reason: reason})
			continue
		}
		counted[a.Person] = true
		res.Counted = append(res.Counted, Counted{Person: a.Person, Fingerprint: key.Fingerprint()})
	}
	return res
}

// judge returns the key that makes a valid, or why it is not.
func judge(doc []byte, a Approval, roster *Roster, proposer fw.PersonID) (Key, string) {
	switch {
	case roster == nil:
		return Key{}, "there is no roster"
	case len(doc) == 0:
		return Key{}, "there is no document"
	case proposer == "":
		return Key{}, "the proposer is not known"
	case a.Person == proposer:
		return Key{}, "the proposer cannot approve"
	}
	keys := roster.keys[a.Person]
	if len(keys) == 0 {
		return Key{}, fmt.Sprintf("not on roster version %d", roster.Version())
	}
	claimed, err := SignatureKey([]byte(a.Armored))
	if err != nil {
		return Key{}, message(err)
	}
	for _, k := range keys {
		if k.Fingerprint() != claimed.Fingerprint() {
			continue
		}
		if err := Verify(doc, []byte(a.Armored), k); err != nil {
			return Key{}, message(err)
		}
		return k, ""
	}
	return Key{}, fmt.Sprintf("key %s is not one of this person's keys on roster version %d", claimed.Fingerprint(), roster.Version())
}

// message returns the part of err that is for people.
func message(err error) string {
	if e, ok := errors.AsType[*fw.Error](err); ok {
		return e.Msg
	}
	return err.Error()
}
