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
	Purpose   fw.Purpose       `json:"purpose"`
	Key       fw.KeyName       `json:"key"`
	Subject   fw.Digest        `json:"subject"`
	Reason    string           `json:"reason"`
	Document  []byte           `json:"document,omitempty"`
	Approvals *approval.Result `json:"approvals,omitempty"`
}

// deviceState is evidence.DeviceState with the approvals in their own type.
type deviceState struct {
	Device      fw.DeviceID      `json:"device"`
	From        fw.DeviceState   `json:"from"`
	To          fw.DeviceState   `json:"to"`
	Reason      string           `json:"reason"`
	Automatic   bool             `json:"automatic,omitempty"`
	RequestedBy fw.PersonID      `json:"requested_by,omitempty"`
	Document    []byte           `json:"document,omitempty"`
	Approvals   *approval.Result `json:"approvals,omitempty"`
}

// decision is a decision record as far as it must be read to be judged: what
// the rules give is encoded and compared with Data, not the other way around.
type decision struct {
	engine string
	facts  policy.Facts
	allow  bool
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
	if it.doc, err = payload(&it.rec); err != nil {
		it.fault("its data cannot be read: " + err.Error())
	}
}

func (it *item) fault(what string) { it.faults = append(it.faults, what) }

// payload decodes the data of the records that are checked further; nil for
// the others.
func payload(r *evidence.Record) (any, error) {
	switch r.Type {
	case evidence.TypeDecision:
		return readDecision(r)
	case evidence.TypeReport:
		return readReport(r)
	case evidence.TypeUpdateMoved:
		return into[docket.Moved](r)
	case evidence.TypeCampaignEvent:
		return into[docket.CampaignEvent](r)
	case evidence.TypeKeyUse:
		return into[keyUse](r)
	case evidence.TypeKeyCreated:
		return into[evidence.Key](r)
	case evidence.TypeDeviceState:
		return into[deviceState](r)
	case evidence.TypeDeviceRegistered:
		return into[evidence.Registered](r)
	case evidence.TypeCertificateIssued, evidence.TypeCertificateState:
		return into[evidence.Certificate](r)
	case evidence.TypeApproval:
		return into[evidence.Approval](r)
	case evidence.TypeProductCreated:
		return into[evidence.Product](r)
	case evidence.TypeReleaseSigned:
		return into[evidence.Signed](r)
	case evidence.TypeReleasePublished:
		return into[evidence.Published](r)
	case evidence.TypeReleaseWithdrawn:
		return into[evidence.Withdrawn](r)
	case evidence.TypeErased:
		return into[evidence.Erased](r)
	case evidence.TypeEpoch:
		return into[evidence.Epoch](r)
	case evidence.TypeReleaseProposed, evidence.TypeCampaignProposed, evidence.TypePolicyCreated,
		evidence.TypeRoster, evidence.TypeTrustBundle:
		return into[evidence.Proposed](r)
	default: // proven to be there, not judged further
		return nil, nil
	}
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
	s := &d.said
	bad := false
	ok := members(r.Data, func(key, v []byte) bool {
		good := true
		switch string(key) {
		case "engine":
			d.engine, good = text(v)
		case "facts":
			good = strict(v, &d.facts) == nil
		case "decision":
			const allow = `{"allow":true`
			d.allow = len(v) > len(allow) && string(v[:len(allow)]) == allow
		case "campaign":
			good = name(v, (*string)(&s.Campaign))
		case "update":
			good = name(v, (*string)(&s.Update))
		case "to":
			good = name(v, (*string)(&s.To))
		case "repeats":
			s.Repeats, good = number(v)
		case "claims":
			good = json.Unmarshal(v, &s.Claims) == nil
		case "authorization":
			good = name(v, (*string)(&s.Authorization))
		case "event":
			good = json.Unmarshal(v, &s.Event) == nil
		case "transitions":
			good = json.Unmarshal(v, &s.Transitions) == nil
		default:
			good = false
		}
		bad = bad || !good
		return good
	})
	if !ok || bad {
		return nil, errForm
	}
	return d, nil
}

// name reads a name into s.
func name(v []byte, s *string) bool {
	t, ok := text(v)
	*s = t
	return ok
}

func readReport(r *evidence.Record) (any, error) {
	p := new(report)
	s := &p.said
	bad := false
	ok := members(r.Data, func(key, v []byte) bool {
		good := true
		switch string(key) {
		case "device":
			good = name(v, (*string)(&s.Device))
		case "sequence":
			s.Sequence, good = number(v)
		case "signed":
			good = base64Text(v, &s.Signed)
		case "certificate":
			good = name(v, &s.Certificate)
		case "assurance":
			good = name(v, (*string)(&s.Assurance))
		case "says":
			good = name(v, (*string)(&s.Says))
		case "reason":
			good = name(v, (*string)(&s.Reason))
		case "campaign":
			good = name(v, (*string)(&s.Campaign))
		case "update":
			good = name(v, (*string)(&s.Update))
		case "from":
			good = name(v, (*string)(&s.From))
		case "to":
			good = name(v, (*string)(&s.To))
		case "note":
			s.Note, good = text(v)
		case "implied":
			good = json.Unmarshal(v, &s.Implied) == nil
		case "event":
			good = json.Unmarshal(v, &s.Event) == nil
		case "transitions":
			good = json.Unmarshal(v, &s.Transitions) == nil
		default:
			good = false
		}
		bad = bad || !good
		return good
	})
	if !ok || bad {
		return nil, errForm
	}
	var err error
	if p.signed, err = authz.DecodeReport(s.Signed); err != nil {
		return nil, err
	}
	return p, nil
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
