package update

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// Receipt is the answer to a report.
type Receipt struct {
	Recorded  bool           `json:"recorded"`
	Duplicate bool           `json:"duplicate"` // this sequence number was on file with the same bytes
	Index     int64          `json:"index"`     // of the evidence record
	State     fw.UpdateState `json:"state,omitempty"`
}

// Report records a report, a COSE_Sign1 by the device's key, and moves the
// update it is about. It returns after the record is durable.
func (s *Service) Report(ctx context.Context, p Peer, body []byte) (Receipt, error) {
	signed, err := authz.DecodeReport(body)
	if err != nil {
		return Receipt{}, err
	}
	if err := signed.Verify(p.Certificate.PublicKey); err != nil {
		return Receipt{}, fw.Wrap(fw.Invalid, err, "the report is not signed by the key of the certificate it came with")
	}
	rep := &signed.Report
	sequence := int64(rep.Sequence) //nolint:gosec // G115: DecodeReport bounds it
	var out Receipt
	var turnedAway fw.Reason
	var who store.Identity
	err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		out, turnedAway = Receipt{}, ""
		var err error
		if who, err = identify(tx, p); err != nil {
			return err
		}
		device := &who.Device
		if turnedAway = barred(&who); turnedAway != "" {
			return nil
		}
		if rep.Device != device.ID {
			return fw.Errorf(fw.Forbidden, "the report is about device %s and came from %s", rep.Device, device.ID)
		}
		digest := fw.DigestOf(signed.Payload())
		if sequence <= who.LastReport {
			old, known, err := store.ReportBySequence(tx, device.ID, sequence)
			if err != nil {
				return err
			}
			if known && old.Digest != digest {
				return fw.Errorf(fw.Conflict, "device %s used report number %d before for another report: continue after the highest number on file", device.ID, rep.Sequence)
			}
			if known {
				out = Receipt{Recorded: true, Duplicate: true, Index: old.Index}
				return nil
			}
		}
		r := &reporting{s: s, tx: tx, rep: rep, device: device, data: docket.Report{
			Device: device.ID, Sequence: sequence, Signed: body, Certificate: who.Certificate.Serial,
			Assurance: fw.AssuranceDeviceSigned, Says: rep.Event, Reason: rep.Reason,
		}}
		if out, err = r.record(); err != nil {
			return err
		}
		return store.InsertReport(tx, device.ID, sequence, store.ReportRow{Digest: digest, Index: out.Index})
	})
	if err != nil {
		return Receipt{}, err
	}
	if turnedAway != "" {
		return Receipt{}, s.deny(ctx, &who.Certificate, turnedAway, "report")
	}
	return out, nil
}

// reporting is one report on its way into the database.
type reporting struct {
	s      *Service
	tx     *store.Tx
	rep    *authz.Report
	device *store.Device
	data   docket.Report
}

func (r *reporting) record() (Receipt, error) {
	u, err := r.subject()
	if err != nil {
		return Receipt{}, err
	}
	var l *campaign.Live
	ids := []evidence.StreamID{evidence.DeviceStream(r.device.ID)}
	if u != nil {
		if l, err = r.s.o.Campaigns.Open(r.tx, u.Campaign); err != nil {
			return Receipt{}, err
		}
		ids = append(ids, evidence.CampaignStream(u.Campaign))
		r.data.Campaign, r.data.Update, r.data.From, r.data.To = u.Campaign, u.ID, u.State, u.State
		if err := r.move(l, u); err != nil {
			return Receipt{}, err
		}
	}
	pos, err := r.s.o.Ledger.Append(r.tx, ledger.Entry{Type: evidence.TypeReport, Actor: string(r.device.ID), Streams: ids, Data: r.data})
	if err != nil {
		return Receipt{}, err
	}
	if err := r.integrity(pos.Index); err != nil {
		return Receipt{}, err
	}
	if err := r.learn(); err != nil {
		return Receipt{}, err
	}
	if err := r.quarantine(l); err != nil {
		return Receipt{}, err
	}
	return Receipt{Recorded: true, Index: pos.Index, State: r.data.To}, nil
}

// subject finds the update a report is about, nil when it names none of this
// device's: such a report is recorded and moves nothing.
func (r *reporting) subject() (*store.Update, error) {
	if r.rep.Authorization == "" {
		return nil, nil
	}
	u, known, err := store.UpdateByAuthorization(r.tx, r.rep.Authorization)
	if err != nil {
		return nil, err
	}
	if !known || u.Device != r.device.ID {
		r.data.Note = "the report names an authorization that was not given to this device"
		return nil, nil
	}
	return &u, nil
}

// move moves the update as the report says, if that is a move at all.
func (r *reporting) move(l *campaign.Live, u *store.Update) error {
	to, ok := r.rep.Event.State()
	if !ok {
		return fw.Errorf(fw.Invalid, "unknown report event %q", r.rep.Event)
	}
	if r.rep.Authorization != u.Authorization {
		r.data.Note = "a later authorization of the same update is on file"
		return nil
	}
	if u.Rollback {
		return r.moveBack(l, u, to)
	}
	if to == fw.UpdateConfirmed || to == fw.UpdateInstalled {
		if !runs(components(r.rep), l.Terms.Forward.Publication) {
			// Its own words contradict it (I6): the update has failed.
			r.data.Note = "the running digests are not those of the release"
			to = fw.UpdateFailed
		}
	}
	attempts := u.Attempts
	if u.State == fw.UpdatePaused {
		if to == fw.UpdateFailed && r.rep.Reason == fw.FailDownload {
			// It was told so: that says nothing about the release.
			r.data.Note = "the download was refused because the authorization is withdrawn"
			return nil
		}
		attempts++ // it made the attempt that was taken back
	}
	if u.State == to || !u.State.CanMove(to) {
		if r.data.Note == "" {
			r.data.Note = "an update that is " + string(u.State) + " does not become " + string(to)
		}
		return nil
	}
	if to == fw.UpdateConfirmed {
		for _, between := range []fw.UpdateState{fw.UpdateDelivered, fw.UpdateInstalled} {
			if u.State.CanMove(between) && u.State != fw.UpdateFailed {
				r.data.Implied = append(r.data.Implied, between)
			}
		}
	}
	e := rollout.Event{
		Kind: rollout.EventUpdateMoved, Stage: u.Stage, From: u.State, To: to, PriorFailures: u.Failures,
		Exhausted: attempts >= l.Terms.Plan.Attempts,
	}
	u.Attempts = attempts
	return r.apply(l, u, e, to)
}

// moveBack is move for an update whose authorization was for the rollback
// release: it is over when the device runs that release.
func (r *reporting) moveBack(l *campaign.Live, u *store.Update, to fw.UpdateState) error {
	switch {
	case to != fw.UpdateConfirmed:
		r.data.Note = "on the way back"
		return nil
	case l.Terms.Back == nil || !runs(components(r.rep), l.Terms.Back.Publication):
		r.data.Note = "the running digests are not those of the rollback release"
		return nil
	case !u.State.CanMove(fw.UpdateRolledBack):
		r.data.Note = "an update that is " + string(u.State) + " does not become rolled_back"
		return nil
	}
	e := rollout.Event{Kind: rollout.EventUpdateMoved, Stage: u.Stage, From: u.State, To: fw.UpdateRolledBack, PriorFailures: u.Failures, Exhausted: true}
	return r.apply(l, u, e, fw.UpdateRolledBack)
}

func (r *reporting) apply(l *campaign.Live, u *store.Update, e rollout.Event, to fw.UpdateState) error {
	moves, err := r.s.o.Campaigns.Apply(r.tx, l, e)
	if err != nil {
		return err
	}
	r.data.To, r.data.Event, r.data.Transitions = to, &e, moves
	u.State, u.Reason = to, r.rep.Reason
	if to == fw.UpdateFailed || to == fw.UpdateRejected || to == fw.UpdateRolledBack {
		u.Failures++
	}
	// What was refused before does not count against what comes next.
	u.RefusalKey = ""
	return store.PutUpdate(r.tx, u)
}

// components returns what the device says it runs.
func components(rep *authz.Report) []policy.ComponentFacts {
	out := make([]policy.ComponentFacts, len(rep.Components))
	for i, c := range rep.Components {
		out[i] = policy.ComponentFacts{Name: c.Name, Version: c.Version, Digest: c.Digest, SecurityCounter: c.SecurityCounter, Assurance: fw.AssuranceDeviceSigned}
	}
	return out
}

// integrity makes a rejection an integrity event of its own.
func (r *reporting) integrity(report int64) error {
	if r.rep.Event != fw.EventRejected {
		return nil
	}
	_, err := r.s.o.Ledger.Append(r.tx, ledger.Entry{
		Type: evidence.TypeIntegrity, Actor: string(r.device.ID), Streams: []evidence.StreamID{evidence.DeviceStream(r.device.ID)},
		Data: evidence.Integrity{Device: r.device.ID, Kind: "rejected", Reason: r.rep.Reason, Detail: r.rep.Detail, Report: report},
	})
	return err
}

// learn stores what a device-signed report says is running.
func (r *reporting) learn() error {
	if len(r.rep.Components) == 0 || r.data.To == r.data.From && r.data.Update != "" {
		return nil
	}
	var said campaign.Reported
	if r.device.Facts != nil {
		if err := json.Unmarshal(r.device.Facts, &said); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the stored facts of device %s cannot be read", r.device.ID)
		}
	}
	now := components(r.rep)
	if slices.Equal(said.Components, now) {
		return nil
	}
	said.Components = now
	var err error
	if r.device.Facts, err = json.Marshal(said); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the facts of %s", r.device.ID)
	}
	r.device.FactsDigest = nil // the next check-in is compared afresh
	if err := store.SetDeviceFacts(r.tx, r.device); err != nil {
		return err
	}
	if r.device.State == fw.DeviceQuarantined && r.data.To == fw.UpdateConfirmed {
		if err := store.SetDeviceIntegrity(r.tx, r.device.ID, r.device.Integrity, r.tx.Now().Unix()); err != nil {
			return err
		}
	}
	id := r.device.ID
	r.tx.OnCommit(func() { r.s.DeviceChanged(id) })
	return nil
}

// quarantine puts a device whose update failed or was rejected in quarantine,
// if the plan says so. Automation only lowers trust (I5).
func (r *reporting) quarantine(l *campaign.Live) error {
	failed := r.data.To != r.data.From && (r.data.To == fw.UpdateFailed || r.data.To == fw.UpdateRejected)
	if l == nil || !l.Terms.Plan.QuarantineFailed || !failed || r.device.State != fw.DeviceActive {
		return nil
	}
	return r.s.o.Devices.Quarantine(r.tx, r.device.ID, "update "+string(r.data.To)+" in campaign "+string(l.Row.ID))
}
