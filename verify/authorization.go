package verify

import (
	"crypto"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
)

// awaited is a replayed decision in the frame just gone, whose authorization
// must come next.
type awaited struct {
	it    *item
	d     *decision
	plan  *fw.Plan
	terms *policy.Terms // nil: not all in the bundle
	u     *update
}

// unissued says so when an allowing decision has no authorization behind it.
func (a *auditor) unissued() {
	if w := a.awaited; w != nil {
		a.lack(w.it, "the authorization that was signed on it is not in the bundle")
	}
	a.awaited = nil
}

// issued checks the authorization that was signed on the decision before it.
func (a *auditor) issued(it *item) {
	for _, what := range it.faults {
		a.fail(it, "its authorization %s", what)
	}
	w := a.awaited
	a.awaited = nil
	if w == nil || w.it.frame.Index != it.frame.Index {
		if a.unjudged != it.frame.Index {
			a.fail(it, "an authorization was signed on it and it is no decision that allows one")
		}
		return
	}
	auth, ok := it.doc.(*authz.Authorization)
	if !ok {
		return // cannot be read: said above
	}
	a.counts.Authorizations++
	a.sequence(w, &auth.Claims)
	job := &authorizationJob{index: it.frame.Index, commitment: fw.Digest(w.it.frame.Commitment), auth: auth, d: w.d, plan: w.plan, terms: w.terms}
	if c := a.certs[w.d.facts.Device.Cert.Serial]; c != nil {
		job.thumbprint = c.thumbprint
	} else {
		a.counts.Unbound++
	}
	if job.pub = a.authorizationKey(w.it, auth); job.pub != nil {
		a.counts.Signatures++
	}
	a.jobs = append(a.jobs, job)
}

// sequence checks that each authorization of a device has a higher number
// than the one before: a device takes none twice.
func (a *auditor) sequence(w *awaited, c *authz.Claims) {
	last := &w.u.sequence
	if d := a.devices[c.Device]; d != nil {
		last = &d.sequence
	}
	if c.Sequence <= *last {
		a.fail(w.it, "its authorization has sequence number %d and device %s was given %d before", c.Sequence, clip(string(c.Device)), *last)
	}
	*last = max(*last, c.Sequence)
}

// authorizationKey returns the key that an authorization says it is signed
// with, nil when this log has no such key for authorizations or devices were
// not told of it.
func (a *auditor) authorizationKey(it *item, auth *authz.Authorization) crypto.PublicKey {
	pub := a.ring.authorization[auth.KeyID]
	if pub == nil {
		a.fail(it, "its authorization is signed with key %s, which is not an authorization key of this log", auth.KeyID)
		return nil
	}
	if t := a.ring.trust; t != nil {
		if _, ok := t.AuthorizationKey(auth.KeyID, auth.Claims.IssuedAt); !ok {
			a.fail(it, "its authorization is signed with key %s, which trust bundle %d does not have devices take", auth.KeyID, t.Version())
		}
	}
	return pub
}

// authorizationJob checks an authorization's signature, and that it says what
// the decision allowed and nothing else.
type authorizationJob struct {
	index      int64
	commitment fw.Digest
	auth       *authz.Authorization
	pub        crypto.PublicKey // nil: said already
	thumbprint fw.Digest        // of the device's key; zero: not in the bundle
	d          *decision
	plan       *fw.Plan
	terms      *policy.Terms
}

func (j *authorizationJob) run(f *findings) {
	if j.pub != nil && j.auth.Verify(j.pub) != nil {
		j.fail(f, "is not signed by key "+j.auth.KeyID.String())
	}
	if what := j.differs(); what != "" {
		j.fail(f, what)
	}
}

func (j *authorizationJob) fail(f *findings, what string) {
	f.fail(j.index, "record %d (%s): its authorization %s", j.index, evidence.TypeDecision, what)
}

// differs says what the claims have other than the decision, "" for nothing.
func (j *authorizationJob) differs() string {
	c, facts, said := &j.auth.Claims, &j.d.facts, &j.d.said
	switch {
	case j.index < 0 || c.Decision != uint64(j.index) || c.Commitment != j.commitment:
		return "names another decision record"
	case authz.CoreDigest(*c) != said.Claims:
		return "has other claims than the decision recorded"
	case c.Device != facts.Device.ID || c.Hardware != facts.Device.Hardware:
		return "is for another device than the one that was decided about"
	case !j.thumbprint.IsZero() && c.Thumbprint != j.thumbprint:
		return "is bound to another key than that of the certificate the device came with"
	case c.ID != said.Authorization || c.Update != said.Update || c.Campaign != said.Campaign:
		return "is of another update than the decision"
	case c.IssuedAt != facts.Now || c.NotBefore != facts.Now || c.Expires != expiry(j.plan, facts.Now):
		return "is valid at other times than the plan gives it"
	case c.Plan != facts.Campaign.Plan || c.Policy != facts.Campaign.Policy || c.Published != facts.Campaign.Publication || c.Rollback != facts.Update.Rollback:
		return "rests on another plan, policy or publication than the decision"
	case j.terms != nil && (c.Manifest != j.terms.Publication.Manifest || !slices.Equal(c.Components, components(j.terms, facts))):
		return "allows other images than those of the publication"
	}
	return ""
}

// expiry is when an authorization given at now runs out, in Unix seconds: it
// does not outlive its campaign.
func expiry(p *fw.Plan, now int64) int64 {
	end := now + p.AuthorizationTTL
	if p.NotAfter > 0 {
		end = min(end, p.NotAfter)
	}
	return end
}

// components is what an authorization under these terms allows.
func components(t *policy.Terms, f *policy.Facts) []authz.Component {
	out := make([]authz.Component, len(t.Publication.Images))
	for i, img := range t.Publication.Images {
		out[i] = authz.Component{
			Name: img.Component, Release: t.Publication.Release, Version: img.Version, Digest: img.Digest, Size: img.Size,
			Format: img.Format, SecurityCounter: img.SecurityCounter, Envelope: img.Envelope,
		}
		for _, have := range f.Device.Components {
			if have.Name == img.Component {
				out[i].From = have.Digest
				break
			}
		}
	}
	return out
}

// authorizes takes in a key that signs authorizations.
func (k *keyring) authorizes(der []byte, pub crypto.PublicKey) {
	if k.authorization == nil {
		k.authorization = make(map[fw.Digest]crypto.PublicKey)
	}
	k.authorization[fw.DigestOf(der)] = pub
}
