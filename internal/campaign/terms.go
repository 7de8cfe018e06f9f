package campaign

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

// Terms are the documents of a campaign, parsed and compiled once. They are
// immutable: a changed plan has another digest and other terms.
type Terms struct {
	PlanDigest fw.Digest
	Plan       *fw.Plan
	Policy     *policy.Policy      // nil: the plan names none
	Cohort     *policy.Condition   // the plan's
	Stages     []*policy.Condition // per stage; nil: not narrowed
	Forward    Target
	Back       *Target // where a rollback leads; nil: nowhere
}

// Target is a published release that a campaign can authorize.
type Target struct {
	Release           fw.ReleaseID
	Manifest          *fw.Manifest
	ManifestDigest    fw.Digest
	Publication       *fw.Publication
	PublicationDigest fw.Digest
	Envelopes         map[fw.Digest]int64 // size in bytes of each detached signature, and of the release statement
}

// For returns the terms of a decision on stage i.
func (t *Terms) For(stage int, target *Target) *policy.Terms {
	pt := &policy.Terms{Plan: t.Plan, Manifest: target.Manifest, Publication: target.Publication, Policy: t.Policy, Cohort: t.Cohort}
	if stage >= 0 && stage < len(t.Stages) {
		pt.StageCohort = t.Stages[stage]
	}
	return pt
}

// termsCache keeps the terms of recent plans. Plans are immutable, so nothing
// in it is ever stale.
type termsCache struct {
	mu sync.Mutex
	m  map[fw.Digest]*Terms
}

// maxCachedTerms bounds the cache; it is emptied when full, which costs one
// compilation per live campaign.
const maxCachedTerms = 256

// Terms returns the terms of c.
func (r *Register) Terms(q store.Queryer, c *store.Campaign) (*Terms, error) {
	d := fw.Digest(c.PlanDigest)
	r.terms.mu.Lock()
	t := r.terms.m[d]
	r.terms.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := loadTerms(q, c.Plan)
	if err != nil {
		return nil, fmt.Errorf("loading the terms of campaign %s: %w", c.ID, err)
	}
	r.terms.mu.Lock()
	defer r.terms.mu.Unlock()
	if len(r.terms.m) >= maxCachedTerms {
		clear(r.terms.m)
	}
	r.terms.m[d] = t
	return t, nil
}

func loadTerms(q store.Queryer, planBytes []byte) (*Terms, error) {
	t := &Terms{PlanDigest: fw.DigestOf(planBytes), Plan: new(fw.Plan)}
	if err := json.Unmarshal(planBytes, t.Plan); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "the stored plan cannot be read")
	}
	var err error
	if t.Cohort, err = policy.CompileCondition(t.Plan.Cohort); err != nil {
		return nil, err
	}
	t.Stages = make([]*policy.Condition, len(t.Plan.Stages))
	for i, st := range t.Plan.Stages {
		if st.Cohort == "" {
			continue
		}
		if t.Stages[i], err = policy.CompileCondition(st.Cohort); err != nil {
			return nil, err
		}
	}
	if !t.Plan.Policy.IsZero() {
		row, err := store.PolicyByDigest(q, t.Plan.Policy)
		if err != nil {
			return nil, err
		}
		if t.Policy, err = policy.ParsePolicy(row.Body); err != nil {
			return nil, err
		}
	}
	fwd, err := loadTarget(q, t.Plan.Release, t.Plan.Publication)
	if err != nil {
		return nil, err
	}
	t.Forward = *fwd
	if rb := t.Plan.Rollback; rb != nil {
		if t.Back, err = loadTarget(q, rb.Release, rb.Publication); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func loadTarget(q store.Queryer, id fw.ReleaseID, want fw.Digest) (*Target, error) {
	rel, err := store.ReleaseByID(q, id)
	if err != nil {
		return nil, err
	}
	if rel.Publication == nil {
		return nil, fw.Errorf(fw.Conflict, "release %s is %s, not published: publish it first", id, rel.State)
	}
	t := &Target{Release: id, Manifest: new(fw.Manifest), Publication: new(fw.Publication), ManifestDigest: fw.DigestOf(rel.Manifest), PublicationDigest: fw.DigestOf(rel.Publication)}
	if t.PublicationDigest != want {
		return nil, fw.Errorf(fw.Conflict, "release %s has publication %s and the plan names %s: make the plan again", id, t.PublicationDigest, want)
	}
	if err := json.Unmarshal(rel.Manifest, t.Manifest); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "the stored manifest cannot be read")
	}
	if err := json.Unmarshal(rel.Publication, t.Publication); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "the stored publication cannot be read")
	}
	t.Envelopes = make(map[fw.Digest]int64)
	for _, d := range append(envelopes(t.Publication), t.Publication.Statement) {
		if d.IsZero() {
			continue
		}
		list, err := store.ArtifactsByDigest(q, d)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(a store.Artifact) bool { return a.Release == id })
		if i < 0 {
			return nil, fw.Errorf(fw.Corrupt, "release %s names %s, which is not on file", id, d)
		}
		t.Envelopes[d] = list[i].Size
	}
	return t, nil
}

// envelopes returns the detached signatures of p.
func envelopes(p *fw.Publication) []fw.Digest {
	out := make([]fw.Digest, 0, len(p.Images)+1)
	for _, img := range p.Images {
		out = append(out, img.Envelope)
	}
	return out
}
