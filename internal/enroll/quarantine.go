package enroll

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// ReleaseRequest is the document that asks to take a device out of
// quarantine. Approvals are signatures over its exact bytes.
type ReleaseRequest struct {
	Type        string         `json:"type"` // fw.TypeLifecycle
	Device      fw.DeviceID    `json:"device"`
	From        fw.DeviceState `json:"from"`
	To          fw.DeviceState `json:"to"`
	Since       int64          `json:"since"` // when the quarantine began, Unix seconds
	Doubt       string         `json:"doubt"` // why it began
	Reason      string         `json:"reason"`
	Evidence    string         `json:"evidence,omitempty"` // what was examined since, when no confirmed version speaks for the device
	RequestedBy fw.PersonID    `json:"requested_by"`
	CreatedAt   int64          `json:"created_at"`
	Nonce       string         `json:"nonce"`
}

// ReleaseTerms is what a person says when asking for a release.
type ReleaseTerms struct {
	Device fw.DeviceID
	Reason string
	// Evidence names what was examined since the quarantine began, e.g. a
	// report with its digest. It is needed only when the device has not
	// confirmed a version since.
	Evidence string
}

// releaseQuorum is how many people beside the one who asks must agree.
const releaseQuorum = 1

func settingLifecycle(id fw.DeviceID) string { return "lifecycle/" + string(id) }

// ProposeRelease asks to take a device out of quarantine and returns the bytes
// that another person signs. A new request replaces the one before.
func (d *Devices) ProposeRelease(ctx context.Context, t ReleaseTerms, actor fw.PersonID) ([]byte, error) {
	if err := checkText("a reason", t.Reason); err != nil {
		return nil, err
	}
	if t.Evidence != "" {
		if err := checkText("evidence", t.Evidence); err != nil {
			return nil, err
		}
	}
	var doc []byte
	err := d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		row, err := store.DeviceByID(tx, t.Device)
		if err != nil {
			return err
		}
		if row.State != fw.DeviceQuarantined {
			return fw.Errorf(fw.Conflict, "device %s is %s, not in quarantine", row.ID, row.State)
		}
		var nonce [16]byte
		rand.Read(nonce[:]) // never fails
		doc, err = json.Marshal(ReleaseRequest{
			Type: fw.TypeLifecycle, Device: row.ID, From: row.State, To: fw.DeviceActive, Since: row.StateAt, Doubt: row.StateReason,
			Reason: t.Reason, Evidence: t.Evidence, RequestedBy: actor, CreatedAt: tx.Now().Unix(), Nonce: hex.EncodeToString(nonce[:]),
		})
		if err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode the request")
		}
		if err := store.PutSetting(tx, settingLifecycle(row.ID), doc); err != nil {
			return err
		}
		return d.append(tx, evidence.TypeLifecycleRequested, string(actor), row.ID, evidence.Proposed{Document: doc})
	})
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// OpenRelease returns the open request for a device: its exact bytes and what
// they say.
func OpenRelease(q store.Queryer, id fw.DeviceID) ([]byte, ReleaseRequest, error) {
	var r ReleaseRequest
	doc, err := store.Setting(q, settingLifecycle(id))
	if err != nil {
		return nil, r, err
	}
	if len(doc) == 0 {
		return nil, r, fw.Errorf(fw.NotFound, "nobody has asked to take device %s out of quarantine: ask with writ device release", id)
	}
	if err := json.Unmarshal(doc, &r); err != nil {
		return nil, r, fw.Wrap(fw.Corrupt, err, "the stored request for device %s cannot be read", id)
	}
	return doc, r, nil
}

// Release takes a device out of quarantine when the open request is approved
// and something speaks for the device. The caller may be anybody who may ask;
// who decides is who signed.
func (d *Devices) Release(ctx context.Context, id fw.DeviceID, actor fw.PersonID) error {
	return d.o.DB.Tx(ctx, func(tx *store.Tx) error { return d.release(tx, id, actor) })
}

func (d *Devices) release(tx *store.Tx, id fw.DeviceID, actor fw.PersonID) error {
	row, err := store.DeviceByID(tx, id)
	if err != nil {
		return err
	}
	if row.State != fw.DeviceQuarantined {
		return fw.Errorf(fw.Conflict, "device %s is %s, not in quarantine", id, row.State)
	}
	doc, r, err := OpenRelease(tx, id)
	if err != nil {
		return err
	}
	if r.Device != id || r.From != row.State || r.To != fw.DeviceActive || r.Since != row.StateAt {
		return fw.Errorf(fw.Conflict, "the request is about another quarantine of device %s: ask again with writ device release", id)
	}
	if !spokenFor(&row, &r) {
		return fw.Errorf(fw.Conflict, "nothing speaks for device %s yet: install a remediation release and wait for its confirmation, or ask again with --evidence naming what was examined since", id)
	}
	if d.o.Count == nil {
		return fw.Errorf(fw.Forbidden, "there are no approvers who could let device %s out of quarantine", id)
	}
	approvals, _, err := d.o.Count(tx, doc, releaseQuorum, r.RequestedBy)
	if err != nil {
		return err
	}
	if !approvals.Met() {
		return fw.Errorf(fw.Forbidden, "nobody but %s has approved this yet: ask another approver to run writ approve device/%s", r.RequestedBy, id)
	}
	return d.move(tx, &row, evidence.DeviceState{
		To: fw.DeviceActive, Reason: r.Reason, RequestedBy: r.RequestedBy, Document: doc, Approvals: approvals,
	}, string(actor))
}

// spokenFor reports whether a version was confirmed since the quarantine
// began, or the request names evidence that was gathered since.
func spokenFor(row *store.Device, r *ReleaseRequest) bool {
	confirmed := row.CleanSince != 0 && row.CleanSince >= row.StateAt
	return confirmed || r.Evidence != "" && r.CreatedAt >= row.StateAt
}
