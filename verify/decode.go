package verify

import (
	"encoding/base64"
	"encoding/json"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/tlog"
)

// item is one frame with what a worker could tell of it alone.
type item struct {
	frame  Frame
	rec    evidence.Record
	doc    any      // the decoded payload, for types that are checked further
	faults []string // what is wrong with it by itself
}

// keyUse is evidence.KeyUse with the approvals in their own type.
type keyUse struct {
	evidence.KeyUse

	Approvals *approval.Result `json:"approvals,omitempty"` // hides the embedded one
}

// deviceState is evidence.DeviceState with the approvals in their own type.
type deviceState struct {
	evidence.DeviceState

	Approvals *approval.Result `json:"approvals,omitempty"` // hides the embedded one
}

// decision is a decision record as far as it must be read to be judged: what
// the rules give is encoded and compared with answer, not the other way around.
type decision struct {
	engine string
	facts  policy.Facts
	answer []byte          // the decision itself, as recorded
	allow  bool            // what answer begins with
	said   docket.Decision // Campaign, Update, To, Repeats, Claims, Authorization
}

// report is a report record with the device's own words.
type report struct {
	said   docket.Report
	signed *authz.SignedReport
}

// proofOf is how inclusion is proven.
type proofOf struct {
	proofs Proofs
	size   int64
	root   tlog.Hash
}

// decode checks what a frame says by itself.
func (it *item) decode(p proofOf) {
	f := &it.frame
	if f.Leaves != nil {
		return
	}
	if f.Authorization != nil {
		auth, err := authz.Decode(f.Authorization)
		if err != nil {
			it.fault("cannot be read: " + err.Error())
			return
		}
		it.doc = auth
		return
	}
	if p.proofs == ProofPaths {
		if err := tlog.CheckInclusion(f.Path, p.size, p.root, f.Index, f.Commitment[:]); err != nil {
			it.fault("it is not in the log: its inclusion proof does not lead to the checkpoint")
		}
	}
	if f.Body == nil {
		return
	}
	if evidence.Commit(f.Salt, f.Body) != f.Commitment {
		it.fault("its bytes are not those that the log commits to")
	}
	rec, err := evidence.Decode(f.Body)
	if err != nil {
		it.fault(err.Error())
		return
	}
	it.rec = rec
	if rec.Index != f.Index {
		it.fault("it says that it is another record of the log")
	}
	read := decoderOf(rec.Type)
	if read == nil {
		return
	}
	if it.doc, err = read(&it.rec); err != nil {
		it.doc = nil
		it.fault("its data cannot be read: " + err.Error())
	}
}

func (it *item) fault(what string) { it.faults = append(it.faults, what) }

// Documents that are put on file, told apart by the type of their record.
type (
	releaseDoc  evidence.Proposed
	campaignDoc evidence.Proposed
	policyDoc   evidence.Proposed
	rosterDoc   evidence.Proposed
	trustDoc    evidence.Proposed
)

// decoderOf returns what decodes the data of the records of a type, nil for those
// that are proven to be there and not judged further.
func decoderOf(t evidence.Type) func(*evidence.Record) (any, error) {
	switch t {
	case evidence.TypeDecision:
		return readDecision
	case evidence.TypeReport:
		return readReport
	case evidence.TypeUpdateMoved:
		return into[docket.Moved]
	case evidence.TypeCampaignEvent:
		return into[docket.CampaignEvent]
	case evidence.TypeKeyUse:
		return into[keyUse]
	case evidence.TypeKeyCreated:
		return into[evidence.Key]
	case evidence.TypeDeviceState:
		return into[deviceState]
	case evidence.TypeDeviceRegistered:
		return into[evidence.Registered]
	case evidence.TypeCertificateIssued, evidence.TypeCertificateState:
		return into[evidence.Certificate]
	case evidence.TypeApproval:
		return into[evidence.Approval]
	case evidence.TypeProductCreated:
		return into[evidence.Product]
	case evidence.TypeReleaseSigned:
		return into[evidence.Signed]
	case evidence.TypeReleaseStated:
		return into[evidence.Stated]
	case evidence.TypeReleasePublished:
		return into[evidence.Published]
	case evidence.TypeReleaseWithdrawn:
		return into[evidence.Withdrawn]
	case evidence.TypeErased:
		return into[evidence.Erased]
	case evidence.TypeEpoch:
		return into[evidence.Epoch]
	case evidence.TypeReleaseProposed:
		return into[releaseDoc]
	case evidence.TypeCampaignProposed:
		return into[campaignDoc]
	case evidence.TypePolicyCreated:
		return into[policyDoc]
	case evidence.TypeRoster:
		return into[rosterDoc]
	case evidence.TypeTrustBundle:
		return into[trustDoc]
	case evidence.TypeServerStarted, evidence.TypeKeyCertified, evidence.TypeSigningRefused, evidence.TypePersonAdded, evidence.TypePersonDisabled, evidence.TypeTokenCreated,
		evidence.TypeTokenRevoked, evidence.TypeDeviceAttributes, evidence.TypeEnrolmentToken, evidence.TypeLifecycleRequested,
		evidence.TypeIntegrity, evidence.TypeAccessDenied, evidence.TypeRefusalSummary:
	}
	return nil
}

func into[T any](r *evidence.Record) (any, error) {
	v := new(T)
	if err := strict(r.Data, v); err != nil {
		return nil, err
	}
	return v, nil
}

var errForm = fw.Errorf(fw.Invalid, "it does not have the form of its type")

func readDecision(r *evidence.Record) (any, error) {
	d := new(decision)
	if !fields(r.Data, d.field) {
		return nil, errForm
	}
	return d, nil
}

func (d *decision) field(key, v []byte) (ok bool) {
	s := &d.said
	switch string(key) {
	case "engine":
		d.engine, ok = text(v)
	case "facts":
		ok = readFacts(v, &d.facts)
	case "decision":
		const allow = `{"allow":true`
		d.allow, d.answer, ok = len(v) > len(allow) && string(v[:len(allow)]) == allow, v, true
	case "repeats":
		s.Repeats, ok = number(v)
	case "claims":
		ok = json.Unmarshal(v, &s.Claims) == nil
	case "authorization":
		ok = name(v, &s.Authorization)
	default:
		ok = moved(string(key), v, &movement{&s.Campaign, &s.Update, nil, &s.To, &s.Event, &s.Transitions})
	}
	return ok
}

// movement is what a decision and a report say about an update, in members of
// the same names.
type movement struct {
	campaign    *fw.CampaignID
	update      *fw.UpdateID
	from, to    *fw.UpdateState // from is nil where there is none
	event       **rollout.Event
	transitions *[]rollout.Transition
}

// moved reads one member of a movement; ok is false for any other.
func moved(key string, v []byte, m *movement) (ok bool) {
	switch {
	case key == "campaign":
		return name(v, m.campaign)
	case key == "update":
		return name(v, m.update)
	case key == "from" && m.from != nil:
		return name(v, m.from)
	case key == "to":
		return name(v, m.to)
	case key == "event":
		return json.Unmarshal(v, m.event) == nil
	case key == "transitions":
		return json.Unmarshal(v, m.transitions) == nil
	}
	return false
}

// name reads a name into s.
func name[T ~string](v []byte, s *T) bool {
	t, ok := text(v)
	*s = T(t)
	return ok
}

func readReport(r *evidence.Record) (any, error) {
	p := new(report)
	if !fields(r.Data, p.field) {
		return nil, errForm
	}
	var err error
	if p.signed, err = authz.DecodeReport(p.said.Signed); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *report) field(key, v []byte) (ok bool) {
	s := &p.said
	switch string(key) {
	case "device":
		ok = name(v, &s.Device)
	case "sequence":
		s.Sequence, ok = number(v)
	case "signed":
		ok = base64Text(v, &s.Signed)
	case "certificate":
		ok = name(v, &s.Certificate)
	case "assurance":
		ok = name(v, &s.Assurance)
	case "says":
		ok = name(v, &s.Says)
	case "reason":
		ok = name(v, &s.Reason)
	case "note":
		s.Note, ok = text(v)
	case "implied":
		ok = json.Unmarshal(v, &s.Implied) == nil
	default:
		ok = moved(string(key), v, &movement{&s.Campaign, &s.Update, &s.From, &s.To, &s.Event, &s.Transitions})
	}
	return ok
}

func base64Text(v []byte, to *[]byte) bool {
	if len(v) < 2 || v[0] != '"' {
		return false
	}
	v = v[1 : len(v)-1]
	b := make([]byte, base64.StdEncoding.DecodedLen(len(v)))
	n, err := base64.StdEncoding.Strict().Decode(b, v)
	*to = b[:n]
	return err == nil
}
