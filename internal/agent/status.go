package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// Status is what a state directory says about its device. It is read without
// the lock, while an agent runs.
type Status struct {
	Device   fw.DeviceID   `json:"device"`
	Product  fw.ProductID  `json:"product,omitempty"`
	Hardware fw.HardwareID `json:"hardware"`
	Server   string        `json:"server"`

	Active          string    `json:"active"` // slot of the next start
	Version         string    `json:"version,omitempty"`
	Digest          fw.Digest `json:"digest,omitzero"` // as verified when it was installed
	SecurityCounter uint64    `json:"security_counter,omitempty"`
	SecurityFloor   uint64    `json:"security_floor,omitempty"`

	Update *UpdateStatus `json:"update,omitempty"` // nil: none under way

	LastSequence   uint64   `json:"last_sequence"`
	ReportSequence uint64   `json:"report_sequence"`
	Outbox         []string `json:"outbox"` // events not delivered yet
	TrustVersion   int64    `json:"trust_version"`
	CertificateEnd int64    `json:"certificate_end"` // Unix seconds
	Decommissioned bool     `json:"decommissioned,omitempty"`
}

// UpdateStatus is an update under way.
type UpdateStatus struct {
	Phase         string             `json:"phase"`
	Authorization fw.AuthorizationID `json:"authorization"`
	Campaign      fw.CampaignID      `json:"campaign"`
	Version       string             `json:"version"`
	Slot          string             `json:"slot"`
	Downloaded    int64              `json:"downloaded"`
	Size          int64              `json:"size"`
	Reason        fw.Reason          `json:"reason,omitempty"` // why it falls back
}

// ReadStatus reads the status of the device in dir.
func ReadStatus(dir string) (Status, error) {
	cfg, err := LoadConfig(dir)
	if err != nil {
		return Status{}, err
	}
	s, err := loadState(dir)
	if err != nil {
		return Status{}, err
	}
	on, err := activeSlot(dir)
	if err != nil {
		return Status{}, err
	}
	var m meta
	if err := readJSON(filepath.Join(dir, on.dir(), metaFile), &m); err != nil && fw.KindOf(err) != fw.NotFound {
		return Status{}, err
	}
	out := Status{
		Device: cfg.Device, Product: cfg.Product, Hardware: cfg.Hardware, Server: cfg.Server,
		Active: string(on), Version: m.Version, Digest: m.Digest, SecurityCounter: m.SecurityCounter, SecurityFloor: s.SecurityFloor,
		LastSequence: s.LastSequence, ReportSequence: s.ReportSequence, Outbox: []string{}, Decommissioned: s.Decommissioned,
	}
	for _, o := range s.Outbox {
		out.Outbox = append(out.Outbox, string(o.Event))
	}
	if id, err := loadIdentity(dir, currentID); err == nil {
		out.CertificateEnd = id.leaf.NotAfter.Unix()
	}
	if b, err := os.ReadFile(filepath.Join(dir, "trust.json")); err == nil { //nolint:gosec // G304: within the state directory
		if t, err := authz.OpenTrust(b); err == nil {
			out.TrustVersion = t.Version()
		}
	}
	out.Update = updateStatus(dir, s.Update)
	return out, nil
}

func updateStatus(dir string, u *update) *UpdateStatus {
	if u == nil {
		return nil
	}
	out := &UpdateStatus{Phase: string(u.Phase), Slot: string(u.Slot), Reason: u.Reason}
	auth, err := authz.Decode(u.Authorization)
	if err != nil {
		return out
	}
	p := auth.Claims.Components[0]
	out.Authorization, out.Campaign, out.Version, out.Size = auth.Claims.ID, auth.Claims.Campaign, p.Version, p.Size
	for _, name := range []string{partFile(p), imageFile} {
		if fi, err := os.Stat(filepath.Join(dir, u.Slot.dir(), name)); err == nil {
			out.Downloaded = fi.Size()
			break
		}
	}
	return out
}

// write writes the status for people or, with format "json", for programs.
func (s Status) write(w io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, name+"\t"+format+"\n", args...) // Flush gives the error
	}
	line("device", "%s, hardware %s, product %s", s.Device, s.Hardware, s.Product)
	line("server", "%s", s.Server)
	if s.Version == "" {
		line("running", "nothing in slot %s", s.Active)
	} else {
		line("running", "%s in slot %s, %s", s.Version, s.Active, s.Digest)
	}
	if u := s.Update; u != nil {
		line("update", "%s to slot %s: %s, %d of %d bytes %s", u.Version, u.Slot, u.Phase, u.Downloaded, u.Size, u.Reason)
	} else {
		line("update", "none under way")
	}
	if len(s.Outbox) > 0 {
		line("unsent reports", "%s", strings.Join(s.Outbox, ", "))
	}
	line("sequence", "authorization %d, report %d", s.LastSequence, s.ReportSequence)
	line("trust bundle", "version %d", s.TrustVersion)
	if s.Decommissioned {
		line("state", "decommissioned")
	}
	return t.Flush()
}
