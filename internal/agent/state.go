package agent

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// phase is how far an update is. See the package comment.
type phase string

// Phases in life-cycle order.
const (
	phaseAccepted    phase = "accepted"
	phaseDelivered   phase = "delivered"
	phaseActivating  phase = "activating"
	phaseTrial       phase = "trial"
	phaseFallingBack phase = "falling_back"
)

// state is state.json.
type state struct {
	Boot boot `json:"boot"`
	// Nonce is of the check-in under way. It is on disk before it is sent and
	// stays until an answer was acted upon, so that a server that has
	// authorized this device gives the same authorization again.
	Nonce          authz.Nonce `json:"nonce,omitzero"`
	LastSequence   uint64      `json:"last_sequence,omitempty"` // of authorizations accepted
	LastReceipt    uint64      `json:"last_receipt,omitempty"`  // record index of the last receipt accepted
	ReportSequence uint64      `json:"report_sequence,omitempty"`
	Outbox         []outgoing  `json:"outbox,omitempty"`         // reports the server does not have yet, oldest first
	SecurityFloor  uint64      `json:"security_floor,omitempty"` // highest security counter confirmed
	Update         *update     `json:"update,omitempty"`         // nil: none under way
	RenewBefore    int64       `json:"renew_before,omitempty"`   // Unix seconds
	RefusedTrust   fw.Digest   `json:"refused_trust,omitzero"`   // trust bundle that was refused and reported
	Decommissioned bool        `json:"decommissioned,omitempty"` // never check in again
}

// boot is a start of the device: a process, or the machine when Config.Restart
// is "reboot".
type boot struct {
	ID   authz.BootID `json:"id"`
	Slot slot         `json:"slot"` // what active pointed to when it began
}

// outgoing is a signed report.
type outgoing struct {
	Sequence uint64         `json:"sequence"`
	Event    fw.ReportEvent `json:"event"`
	Message  []byte         `json:"message"` // COSE_Sign1
}

// update is an update under way.
type update struct {
	Phase         phase            `json:"phase"`
	Authorization []byte           `json:"authorization"`
	Artifacts     []authz.Artifact `json:"artifacts"`
	Slot          slot             `json:"slot"` // the new one
	From          slot             `json:"from"` // the old one

	Mark     int64 `json:"mark,omitempty"`     // most bytes ever downloaded
	Attempts int   `json:"attempts,omitempty"` // downloads that did not get beyond Mark
	Resumed  bool  `json:"resumed,omitempty"`  // the partial file is from more than one response
	Again    bool  `json:"again,omitempty"`    // it was thrown away once

	Switches int       `json:"switches,omitempty"` // tries to start the new slot
	Boots    int       `json:"boots,omitempty"`    // starts of the new slot
	Reason   fw.Reason `json:"reason,omitempty"`   // why it falls back
	Detail   string    `json:"detail,omitempty"`
}

// clone copies s as deep as it is changed in place.
func (s *state) clone() *state {
	c := *s
	c.Outbox = slices.Clone(s.Outbox)
	if s.Update != nil {
		u := *s.Update
		c.Update = &u
	}
	return &c
}

// save applies change to the state and makes it durable. If either fails the
// state is as before.
func (a *Agent) save(change func(*state) error) error {
	next := a.state.clone()
	if err := change(next); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(a.dir, "state.json"), next); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot save the state in %s", a.dir)
	}
	a.state = next
	return nil
}

// loadState reads state.json. A device that never ran has none.
func loadState(dir string) (*state, error) {
	s := new(state)
	if err := readJSON(filepath.Join(dir, "state.json"), s); err != nil && fw.KindOf(err) != fw.NotFound {
		return nil, err
	}
	return s, nil
}

// begin finds out which start this is and which slot it runs from. The record
// is on disk before active can change, so that a later process of the same
// start of the machine still knows.
func (a *Agent) begin() error {
	id := authz.BootID{}
	rand.Read(id[:]) // never fails: crypto/rand.Read, Go 1.24
	if a.cfg.Restart == RestartReboot {
		var err error
		if id, err = kernelBoot(); err != nil {
			return err
		}
	}
	if a.state.Boot.ID == id {
		return nil
	}
	now, err := a.active()
	if err != nil {
		return err
	}
	return a.save(func(s *state) error {
		s.Boot = boot{ID: id, Slot: now}
		if u := s.Update; u != nil && u.Phase == phaseTrial {
			u.Boots++
		}
		return nil
	})
}

// kernelBoot is the id of the running boot of the machine: random(4).
func kernelBoot() (authz.BootID, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return authz.BootID{}, fw.Wrap(fw.Internal, err, "cannot tell one boot of this machine from the next")
	}
	var id authz.BootID
	text := strings.ReplaceAll(string(bytes.TrimSpace(b)), "-", "")
	if n, err := hex.Decode(id[:], []byte(text)); err != nil || n != len(id) {
		return authz.BootID{}, fw.Wrap(fw.Internal, err, "the boot id of this machine cannot be read")
	}
	return id, nil
}
