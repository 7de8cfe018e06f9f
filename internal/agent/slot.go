package agent

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// slot is one of the two places an image can run from.
type slot string

const (
	slotA slot = "a"
	slotB slot = "b"
)

func (s slot) other() slot {
	if s == slotA {
		return slotB
	}
	return slotA
}

func (s slot) dir() string { return "slot-" + string(s) }

// meta is meta.json: what was verified of the image in a slot. It is written
// after the image and removed before it.
type meta struct {
	Release         fw.ReleaseID       `json:"release,omitempty"`
	Authorization   fw.AuthorizationID `json:"authorization,omitempty"` // empty: the factory's
	Version         string             `json:"version"`
	Digest          fw.Digest          `json:"digest"`
	Size            int64              `json:"size"`
	Format          string             `json:"format"`
	SecurityCounter uint64             `json:"security_counter,omitempty"`
	Envelope        fw.Digest          `json:"envelope,omitzero"`
}

// Names within a slot.
const (
	imageFile    = "image.bin"
	envelopeFile = "image.env"
	metaFile     = "meta.json"
)

// in returns the path of a file of a slot.
func (a *Agent) in(s slot, name string) string { return filepath.Join(a.dir, s.dir(), name) }

// active returns the slot the next start runs from.
func (a *Agent) active() (slot, error) { return activeSlot(a.dir) }

func activeSlot(dir string) (slot, error) {
	to, err := os.Readlink(filepath.Join(dir, "active"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return slotA, nil // a device as it left the factory
	case err != nil:
		return "", fw.Wrap(fw.Internal, err, "cannot read the link to the active slot in %s", dir)
	case to == slotA.dir():
		return slotA, nil
	case to == slotB.dir():
		return slotB, nil
	}
	return "", fw.Errorf(fw.Corrupt, "active in %s points to %q, which is no slot", dir, to)
}

// switchTo makes s the slot the next start runs from, in one rename.
func switchTo(dir string, s slot) error {
	if now, err := activeSlot(dir); err == nil && now == s && exists(filepath.Join(dir, "active")) {
		return nil
	}
	tmp := filepath.Join(dir, "active.tmp")
	if err := remove(tmp); err != nil {
		return err
	}
	if err := os.Symlink(s.dir(), tmp); err != nil {
		return err
	}
	return rename(tmp, filepath.Join(dir, "active"))
}

// running is what this start runs from.
type running struct {
	slot slot
	meta meta      // zero: nothing is installed
	seen fw.Digest // measured at the start; zero: nothing is installed
}

// measure finds out what runs, by hashing it: what is reported as running is
// never only remembered.
func measure(dir string, s slot) (running, error) {
	r := running{slot: s}
	where := filepath.Join(dir, s.dir())
	if err := readJSON(filepath.Join(where, metaFile), &r.meta); err != nil {
		if fw.KindOf(err) == fw.NotFound {
			return r, nil
		}
		return running{}, err
	}
	f, err := os.Open(filepath.Join(where, imageFile)) //nolint:gosec // G304: within the state directory
	if err != nil {
		return running{}, fw.Wrap(fw.Corrupt, err, "slot %s says it has an image and has none", s)
	}
	r.seen, _, err = hashFile(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return running{}, fw.Wrap(fw.Internal, err, "cannot read the image in slot %s", s)
	}
	return r, nil
}

// hashFile hashes f from its beginning.
func hashFile(f *os.File) (fw.Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		return fw.Digest{}, 0, err
	}
	return fw.Digest(h.Sum(nil)), n, nil
}

// reported is what runs, for check-ins and reports.
func (a *Agent) reported() []authz.ReportedComponent {
	m := a.running.meta
	return []authz.ReportedComponent{{
		Name: a.cfg.Component, Version: m.Version, Digest: a.running.seen, SecurityCounter: m.SecurityCounter, Slot: string(a.running.slot),
	}}
}
