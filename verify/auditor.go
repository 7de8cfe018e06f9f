package verify

import (
	"fmt"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/tlog"
)

// auditor is the part of a verification that goes through the records in
// order. It is used by one goroutine.
type auditor struct {
	*findings
	manifest    *Manifest
	key         logKey
	logKeyKnown bool // the log records the key that signs its checkpoints
	counts      Counts
	jobs        []job // to be done by workers, of the batch at hand

	last    int64 // index of the last frame; -1: none
	edge    tlog.Edge
	roots   map[int64]tlog.Hash // earlier checkpoints that the edge must pass through
	streams map[evidence.StreamID]*stream
	scoped  map[evidence.StreamID][]Finding // count only if the stream is in the bundle
	erased  map[int64]erasure
	epoch   evidence.Epoch
	epochOK bool

	ring      keyring
	approvals map[fw.Digest]*approved
	docs      documents
	releases  map[fw.ReleaseID]*release
	campaigns map[fw.CampaignID]*campaign // nil: not in scope
	updates   map[updateKey]*update
	devices   map[fw.DeviceID]*device
	certs     map[string]*certificate
	outside   map[fw.CampaignID]int64

	awaited  *awaited // the decision in the frame before, when it allows
	unjudged int64    // index of the last decision that is not replayed; -1: none

	held int64 // about how many bytes everything above takes
}

// approved is what was approved of one document.
type approved struct {
	list []approval.Approval
}

// erasure is an erased record and whether a record says why.
type erasure struct {
	commitment evidence.Commitment
	explained  bool
}

// documents are the documents that decisions name by digest.
type documents struct {
	manifests    map[fw.Digest]*fw.Manifest
	publications map[fw.Digest]*fw.Publication
	policies     map[fw.Digest]*policy.Policy
	products     map[fw.ProductID]evidence.Product
}

func newAuditor(f *findings, m *Manifest) *auditor {
	a := &auditor{
		findings: f, manifest: m, last: -1, unjudged: -1,
		roots:   make(map[int64]tlog.Hash),
		streams: make(map[evidence.StreamID]*stream), scoped: make(map[evidence.StreamID][]Finding),
		erased: make(map[int64]erasure), ring: keyring{keys: make(map[fw.KeyName]evidence.Key)},
		approvals: make(map[fw.Digest]*approved), releases: make(map[fw.ReleaseID]*release),
		campaigns: make(map[fw.CampaignID]*campaign), updates: make(map[updateKey]*update),
		devices: make(map[fw.DeviceID]*device), certs: make(map[string]*certificate), outside: make(map[fw.CampaignID]int64),
		docs: documents{
			manifests: make(map[fw.Digest]*fw.Manifest), publications: make(map[fw.Digest]*fw.Publication),
			policies: make(map[fw.Digest]*policy.Policy), products: make(map[fw.ProductID]evidence.Product),
		},
	}
	for _, id := range m.Campaigns {
		a.campaigns[id] = &campaign{id: id}
	}
	return a
}

// Sizes of what is remembered, in bytes with the maps it is in, rounded up.
const (
	sizeStream    = 300
	sizeFinding   = 400
	sizeSmall     = 250 // a device, an update, a product, an erased record
	sizeKey       = 1 << 10
	sizeCondition = 16 << 10 // a compiled condition
)

// hold counts bytes that stay until the end. Everything that grows with the
// bundle goes through it, so that no bundle takes more than the limit.
func (a *auditor) hold(n int) { a.held += int64(n) }

// fail adds a finding about a record.
func (a *auditor) fail(it *item, format string, args ...any) {
	a.add(SeverityFailed, it.frame.Index, "%s: %s", kind(it), fmt.Sprintf(format, args...))
}

// lack adds something that cannot be judged about a record.
func (a *auditor) lack(it *item, format string, args ...any) {
	a.add(SeverityIncomplete, it.frame.Index, "%s: %s", kind(it), fmt.Sprintf(format, args...))
}

// failIn adds a finding that counts only if stream s is exported whole: in
// others what a record rests on is rightly missing.
func (a *auditor) failIn(s evidence.StreamID, it *item, format string, args ...any) {
	if list := a.scoped[s]; len(list) < 20 {
		a.hold(sizeFinding)
		a.scoped[s] = append(list, Finding{SeverityFailed, it.frame.Index, kind(it) + ": " + fmt.Sprintf(format, args...)})
	}
}

// kind names the record for people.
func kind(it *item) string {
	if it.rec.Type == "" {
		return fmt.Sprintf("record %d", it.frame.Index)
	}
	return fmt.Sprintf("record %d (%s)", it.frame.Index, it.rec.Type)
}

// audit takes in the next frame.
func (a *auditor) audit(it *item) {
	f := &it.frame
	if f.Authorization != nil && f.Index == a.last {
		a.issued(it)
		return
	}
	a.unissued()
	if f.Authorization != nil || f.Index <= a.last {
		a.add(SeverityFailed, f.Index, "record %d comes after record %d: the bundle is not in order", f.Index, a.last)
		return
	}
	if a.manifest.Proofs == ProofLeaves && !a.grow(f) {
		return
	}
	if f.Leaves != nil {
		a.last = f.Index + int64(len(f.Leaves)/len(f.Commitment)) - 1
		return
	}
	a.last = f.Index
	a.counts.Records++
	for _, what := range it.faults {
		a.add(SeverityFailed, f.Index, "%s: %s", kind(it), what)
	}
	if f.Index > a.manifest.Epoch {
		a.fail(it, "it comes after the bundle's epoch")
	}
	if f.Body == nil {
		a.wasErased(it)
		return
	}
	if it.rec.Type == "" {
		return // could not be read: said above
	}
	for _, l := range it.rec.Streams {
		a.link(it, l)
	}
	if !it.rec.Type.Known() {
		a.lack(it, "this version of writ-verify does not know its type: use a newer one")
		return
	}
	a.dispatch(it)
}

// grow extends the tree that is made again from all commitments.
func (a *auditor) grow(f *Frame) bool {
	if f.Index != a.edge.Size() {
		a.add(SeverityFailed, f.Index, "the commitments of records %d to %d are missing", a.edge.Size(), f.Index-1)
		return false
	}
	one := func(c []byte) {
		a.edge.Append(c)
		if want, ok := a.roots[a.edge.Size()]; ok && a.edge.Root() != want {
			a.add(SeverityFailed, a.edge.Size()-1, "the log of %d records has another root than the checkpoint of that size: something before was changed", a.edge.Size())
		}
	}
	if f.Leaves == nil {
		one(f.Commitment[:])
		return true
	}
	for b := f.Leaves; len(b) > 0; b = b[len(f.Commitment):] {
		one(b[:len(f.Commitment)])
	}
	return true
}

// dispatch gives the record to whatever judges its type.
func (a *auditor) dispatch(it *item) {
	switch d := it.doc.(type) {
	case *decision:
		a.decided(it, d)
	case *report:
		a.reported(it, d)
	case *movedDoc:
		a.moved(it, d)
	case *eventDoc:
		a.operated(it, d)
	case *keyUse:
		a.keyUsed(it, d)
	case *evidence.Key:
		a.keyCreated(it, d)
	case *deviceState:
		a.deviceMoved(it, d)
	case *evidence.Registered:
		a.deviceRegistered(it, d)
	case *evidence.Certificate:
		a.certified(it, d)
	case *evidence.Approval:
		a.approved(it, d)
	case *evidence.Product:
		a.hold(sizeSmall + len(it.rec.Data))
		a.docs.products[d.Product] = *d
	case *evidence.Signed:
		a.imageSigned(it, d)
	case *evidence.Stated:
		a.stated(it, d)
	case *evidence.Published:
		a.published(it, d)
	case *evidence.Withdrawn:
		a.withdrawn(d)
	case *evidence.Erased:
		a.explain(it, d)
	case *evidence.Epoch:
		if it.frame.Index == a.manifest.Epoch {
			a.epoch, a.epochOK = *d, true
		}
	case *releaseDoc:
		a.releaseProposed(it, d.Document)
	case *campaignDoc:
		a.campaignProposed(it, d.Document)
	case *policyDoc:
		a.policyCreated(it, d.Document)
	case *rosterDoc:
		a.rosterRecord(it, d.Document)
	case *trustDoc:
		a.trustBundle(it, d.Document)
	}
}

func (a *auditor) policyCreated(it *item, document []byte) {
	p, err := policy.ParsePolicy(document)
	if err != nil {
		a.fail(it, "the policy cannot be read: %v", err)
		return
	}
	a.hold(3*len(document) + 16*sizeCondition)
	a.docs.policies[fw.DigestOf(document)] = p
}
