package verify

import (
	"bytes"
	"crypto"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// statementAllowed checks a decision that a key may sign a release statement:
// the statement says what was approved, and it was approved.
func (a *auditor) statementAllowed(it *item, d *keyUse) {
	st, err := statement.Parse(d.Document)
	if err != nil {
		a.fail(it, "the release statement in it cannot be read: %v", err)
		return
	}
	s := evidence.ReleaseStream(st.Predicate.Release)
	r := a.releases[st.Predicate.Release]
	if r == nil {
		a.failIn(s, it, "key %s was allowed to state release %s before it was proposed", d.Key, st.Predicate.Release)
		return
	}
	a.hold(sizeSmall + 2*len(d.Document))
	r.uses[it.frame.Index] = d
	if fw.DigestOf(d.Document) != d.Subject {
		a.failIn(s, it, "the key was allowed for another statement than the one in it")
	}
	if err := st.Matches(r.document); err != nil {
		a.failIn(s, it, "the statement about release %s: %v", st.Predicate.Release, err)
	}
	need := max(1, a.docs.products[r.manifest.Product].Quorum)
	if what := a.quorum(r.document, d.Approvals, need, r.manifest.ProposedBy); what != "" {
		a.failIn(s, it, "key %s was allowed to state release %s without approval: %s", d.Key, st.Predicate.Release, what)
	}
}

// stated checks the signatures of a release statement and the decisions they
// stand on.
func (a *auditor) stated(it *item, d *evidence.Stated) {
	s := evidence.ReleaseStream(d.Release)
	r := a.releases[d.Release]
	if r == nil {
		a.failIn(s, it, "release %s was stated before it was proposed", d.Release)
		return
	}
	signed, err := statement.Open(d.Envelope)
	if err != nil {
		a.failIn(s, it, "the release statement cannot be read: %v", err)
		return
	}
	a.hold(sizeSmall + 2*len(it.rec.Data))
	r.stated = d
	var trusted []crypto.PublicKey
	for _, u := range d.Uses {
		key := a.ring.keys[u.Key]
		use := r.uses[u.Decision]
		pub, err := dsse.ParsePublicKey(key.Public)
		switch {
		case err != nil || key.Purpose != fw.PurposeStatement || key.KeyID != u.KeyID:
			a.failIn(s, it, "key %s with id %s is no statement key of this log", u.Key, clip(u.KeyID))
			continue
		case use == nil || use.Key != u.Key || !bytes.Equal(use.Document, signed.Payload()):
			a.failIn(s, it, "record %d, on which the signature stands, is no decision about this statement and key", u.Decision)
		}
		trusted = append(trusted, pub)
	}
	if err := signed.Verify(trusted, statement.NeedBoth); err != nil {
		a.failIn(s, it, "%v", err)
	}
}

// publishedStatement checks that a publication names the statement that was
// signed, and that the statement is about the images published.
func (a *auditor) publishedStatement(it *item, s evidence.StreamID, r *release, p *fw.Publication) {
	if r.stated == nil {
		if !p.Statement.IsZero() {
			a.failIn(s, it, "release %s was published with a statement that the log does not have", p.Release)
		}
		return
	}
	if p.Statement != fw.DigestOf(r.stated.Envelope) {
		a.failIn(s, it, "release %s was published with another statement than the one signed", p.Release)
		return
	}
	signed, err := statement.Open(r.stated.Envelope)
	if err != nil {
		return // found when it was signed
	}
	want, err := statement.Make(r.document, p.Images)
	if err == nil {
		var b []byte
		if b, err = want.Encode(); err == nil && !bytes.Equal(b, signed.Payload()) {
			a.failIn(s, it, "the statement of release %s is about other images than those published", p.Release)
		}
	}
	if err != nil {
		a.failIn(s, it, "no statement can be made of what was published of release %s: %v", p.Release, err)
	}
}
