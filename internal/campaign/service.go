package campaign

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// Service keeps campaigns.
type Service struct {
	db     *store.DB
	ledger *ledger.Ledger
	live   *Register
}

// Register gives write transactions the live campaigns with their terms. The
// service that decides on check-ins shares it with the operators' Service.
type Register struct {
	roster    func(store.Queryer) (*approval.Roster, error)
	notify    func(fw.ProductID)
	terms     termsCache
	approvals approvalCache
}

// Options configure a Service.
type Options struct {
	DB       *store.DB
	Ledger   *ledger.Ledger
	Register *Register
}

// New returns a Service.
func New(o Options) *Service { return &Service{db: o.DB, ledger: o.Ledger, live: o.Register} }

// NewRegister returns a Register. Roster returns the newest roster of
// approvers and fails with NotFound when there is none. Notify is called after
// a commit that changed what a product's devices may do.
func NewRegister(roster func(store.Queryer) (*approval.Roster, error), notify func(fw.ProductID)) *Register {
	return &Register{
		roster: roster, notify: notify,
		terms:     termsCache{m: make(map[fw.Digest]*Terms)},
		approvals: approvalCache{m: make(map[approvalKey]int)},
	}
}

func (r *Register) changed(p fw.ProductID) {
	if r.notify != nil {
		r.notify(p)
	}
}

// Propose stores a new campaign, in review. The plan's identity fields are
// filled in here; everything else is checked and refused rather than fixed.
func (s *Service) Propose(ctx context.Context, plan fw.Plan, actor fw.PersonID) (store.Campaign, error) {
	if err := installable(ctx, s.db, &plan); err != nil {
		return store.Campaign{}, err
	}
	var row store.Campaign
	err := s.db.Tx(ctx, func(tx *store.Tx) error {
		plan.Campaign = fw.CampaignID(fw.NewID("cmp", tx.Now()))
		bytes, err := s.finishPlan(tx, &plan, actor)
		if err != nil {
			return err
		}
		status := rollout.New(&plan)
		status.State = fw.CampaignInReview
		row = store.Campaign{
			ID: plan.Campaign, Product: plan.Product, Release: plan.Release, Name: plan.Name, State: fw.CampaignInReview,
			Plan: bytes, Proposer: actor, CreatedAt: tx.Now().Unix(),
		}
		if err := setPlan(&row, bytes, status); err != nil {
			return err
		}
		if err := store.InsertCampaign(tx, row); err != nil {
			return err
		}
		return s.recordProposal(tx, row, actor)
	})
	return row, err
}

// Edit replaces the plan of a campaign that has not started. The new bytes
// void every approval of the old ones.
func (s *Service) Edit(ctx context.Context, id fw.CampaignID, plan fw.Plan, actor fw.PersonID) (store.Campaign, error) {
	if err := installable(ctx, s.db, &plan); err != nil {
		return store.Campaign{}, err
	}
	var row store.Campaign
	err := s.db.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.CampaignByID(tx, id); err != nil {
			return err
		}
		if row.State.Live() || !row.State.CanMove(fw.CampaignDraft) && row.State != fw.CampaignDraft {
			return fw.Errorf(fw.Conflict, "campaign %s is %s and its plan is fixed: abort it and propose another", id, row.State)
		}
		plan.Campaign = id
		bytes, err := s.finishPlan(tx, &plan, actor)
		if err != nil {
			return err
		}
		if plan.Product != row.Product {
			return fw.Errorf(fw.Invalid, "campaign %s is for product %s: propose another campaign for %s", id, row.Product, plan.Product)
		}
		status := rollout.New(&plan)
		status.State = fw.CampaignInReview
		row.Release, row.Name, row.State, row.Proposer = plan.Release, plan.Name, fw.CampaignInReview, actor
		if err := setPlan(&row, bytes, status); err != nil {
			return err
		}
		if err := store.PutCampaign(tx, row); err != nil {
			return err
		}
		return s.recordProposal(tx, row, actor)
	})
	return row, err
}

// finishPlan fills in the fields that are not the proposer's to choose,
// checks the plan and everything it names, and returns its bytes.
func (s *Service) finishPlan(tx *store.Tx, plan *fw.Plan, actor fw.PersonID) ([]byte, error) {
	plan.Type, plan.ProposedBy, plan.CreatedAt, plan.Nonce = fw.TypePlan, actor, tx.Now().Unix(), nonce()
	rel, err := store.ReleaseByID(tx, plan.Release)
	if err != nil {
		return nil, err
	}
	if rel.State != fw.ReleasePublished {
		return nil, fw.Errorf(fw.Conflict, "release %s is %s, not published: publish it first", rel.ID, rel.State)
	}
	product, err := store.ProductByID(tx, rel.Product)
	if err != nil {
		return nil, err
	}
	plan.Product, plan.Publication = rel.Product, fw.DigestOf(rel.Publication)
	plan.Quorum = max(plan.Quorum, product.Quorum)
	if rb := plan.Rollback; rb != nil {
		back, err := store.ReleaseByID(tx, rb.Release)
		if err != nil {
			return nil, err
		}
		if back.Product != rel.Product || back.State != fw.ReleasePublished {
			return nil, fw.Errorf(fw.Conflict, "release %s cannot be rolled back to: it must be a published release of %s", back.ID, rel.Product)
		}
		plan.Rollback = &fw.RollbackTo{Release: back.ID, Publication: fw.DigestOf(back.Publication)}
	}
	if err := rollout.Validate(plan); err != nil {
		return nil, err
	}
	bytes, err := json.Marshal(plan)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the plan")
	}
	// Compiles the cohorts and resolves the policy and releases.
	if _, err := loadTerms(tx, bytes); err != nil {
		return nil, err
	}
	return bytes, nil
}

func setPlan(row *store.Campaign, bytes []byte, status rollout.Status) error {
	d := fw.DigestOf(bytes)
	row.Plan, row.PlanDigest = bytes, d[:]
	var err error
	if row.Status, err = json.Marshal(status); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the status")
	}
	return nil
}

func (s *Service) recordProposal(tx *store.Tx, row store.Campaign, actor fw.PersonID) error {
	_, err := s.ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeCampaignProposed, Actor: string(actor),
		Streams: []evidence.StreamID{evidence.CampaignStream(row.ID), evidence.ReleaseStream(row.Release)},
		Data:    evidence.Proposed{Document: row.Plan},
	})
	return err
}

// AddPolicy stores a policy for plans to name, and returns its digest.
func (s *Service) AddPolicy(ctx context.Context, text []byte, actor fw.PersonID) (fw.Digest, error) {
	p, err := policy.ParsePolicy(text)
	if err != nil {
		return fw.Digest{}, err
	}
	d := fw.DigestOf(text)
	return d, s.db.Tx(ctx, func(tx *store.Tx) error {
		isNew, err := store.InsertPolicy(tx, store.Policy{Digest: d, Name: p.Name, Body: text, CreatedAt: tx.Now().Unix()})
		if err != nil || !isNew {
			return err
		}
		_, err = s.ledger.Append(tx, ledger.Entry{
			Type: evidence.TypePolicyCreated, Actor: string(actor), Streams: []evidence.StreamID{evidence.PolicyStream(d)},
			Data: evidence.Proposed{Document: text},
		})
		return err
	})
}

func nonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
