package verify

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
)

// Kinds of approved subjects (internal/review).
const (
	subjectRelease   = "release"
	subjectCampaign  = "campaign"
	subjectStage     = "stage"
	subjectLifecycle = "lifecycle"
)

// stageGo is the document that opens a stage (internal/campaign).
type stageGo struct {
	Type     string        `json:"type"`
	Campaign fw.CampaignID `json:"campaign"`
	Plan     fw.Digest     `json:"plan"`
	Stage    int           `json:"stage"`
	Name     string        `json:"name"`
}

// proposer returns who proposed an approved document.
func (a *auditor) proposer(d *evidence.Approval) fw.PersonID {
	var doc struct {
		ProposedBy  fw.PersonID   `json:"proposed_by"`
		RequestedBy fw.PersonID   `json:"requested_by"`
		Campaign    fw.CampaignID `json:"campaign"`
	}
	if json.Unmarshal(d.Document, &doc) != nil {
		return ""
	}
	switch d.SubjectType {
	case subjectRelease, subjectCampaign:
		return doc.ProposedBy
	case subjectLifecycle:
		return doc.RequestedBy
	case subjectStage:
		if c := a.campaigns[doc.Campaign]; c != nil && c.plan != nil {
			return c.plan.ProposedBy
		}
	}
	return ""
}

// approved checks one approval. Each is judged by itself when it comes, and
// again in every quorum that it counts for.
func (a *auditor) approved(it *item, d *evidence.Approval) {
	if fw.DigestOf(d.Document) != d.Subject {
		a.fail(it, "the approval by %s names another document than the one in it", clip(string(d.Person)))
		return
	}
	if a.ring.roster == nil || a.ring.roster.Digest() != d.Roster {
		a.fail(it, "the approval by %s names a roster that was not the one in force", clip(string(d.Person)))
		return
	}
	proposer := a.proposer(d)
	if proposer == "" {
		if d.SubjectType == subjectStage {
			a.outOfScope(it, a.stageCampaign(d))
			return
		}
		a.fail(it, "the approved document does not say who proposed it")
		return
	}
	one := approval.Approval{Person: d.Person, Armored: d.Signature}
	res := approval.Quorum(d.Document, []approval.Approval{one}, a.ring.roster, 1, proposer)
	a.counts.Signatures++
	if !res.Met() {
		why := "it does not count"
		if len(res.Rejected) > 0 {
			why = res.Rejected[0].Reason
		}
		a.fail(it, "the approval by %s is not valid: %s", clip(string(d.Person)), why)
	} else if res.Counted[0].Fingerprint != d.Fingerprint {
		a.fail(it, "the approval by %s is signed with key %s and recorded with %s", clip(string(d.Person)), res.Counted[0].Fingerprint, clip(d.Fingerprint))
	}
	// As it is recorded: a forged one is thrown out again by each quorum.
	p := a.approvals[d.Subject]
	if p == nil {
		p = new(approved)
		a.approvals[d.Subject] = p
		a.hold(sizeSmall)
	}
	if len(p.list) < approval.MaxApprovals {
		a.hold(sizeSmall + len(one.Armored))
		p.list = append(p.list, one)
	}
	if d.SubjectType == subjectCampaign {
		a.planApproved(it, d.Subject)
	}
}

func (a *auditor) stageCampaign(d *evidence.Approval) fw.CampaignID {
	var doc stageGo
	_ = json.Unmarshal(d.Document, &doc) // an unreadable one is of no campaign
	return doc.Campaign
}

// count counts the approvals of exactly doc now.
func (a *auditor) count(doc []byte, need int, proposer fw.PersonID) approval.Result {
	if a.ring.roster == nil {
		return approval.Result{Need: need}
	}
	p := a.approvals[fw.DigestOf(doc)]
	if p == nil {
		p = new(approved)
	}
	return approval.Quorum(doc, p.list, a.ring.roster, need, proposer)
}

// quorum counts approvals again and compares them with what was recorded. It
// returns what is wrong, "" if nothing.
func (a *auditor) quorum(doc []byte, said *approval.Result, need int, proposer fw.PersonID) string {
	if said == nil {
		return "it records no approvals"
	}
	got := a.count(doc, said.Need, proposer)
	switch {
	case said.Need < need || said.Need < 1:
		return "it was content with fewer approvals than are needed"
	case !got.Met():
		return "the approvals of this exact document do not meet the quorum: " + tallied(got)
	case !slices.Equal(got.Counted, said.Counted):
		return "the approvals count " + tallied(got) + ", not as recorded: " + tallied(*said)
	}
	return ""
}

func tallied(r approval.Result) string {
	who := []string{"nobody"}
	if len(r.Counted) > 0 {
		who = who[:0]
	}
	for _, c := range r.Counted {
		who = append(who, clip(string(c.Person)))
	}
	return fmt.Sprintf("by %s (%d needed)", strings.Join(who, " and "), r.Need)
}
