package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// ErrRestart says that the agent has switched slots: the caller starts it
// anew, from the slot that active points to.
var ErrRestart = errors.New("restart into the active slot")

// rebootTime is how long a machine may take to go down after the activate
// hook has rebooted it.
const rebootTime = 10 * time.Minute

// advance takes the update under way as far as it can. An error is what it
// waits for: the network, the disk, or with ErrRestart the next start.
func (a *Agent) advance(ctx context.Context) error {
	for a.state.Update != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		auth, err := authz.Decode(a.state.Update.Authorization)
		if err != nil {
			// It was read before it was stored: the file was changed.
			return a.end(ctx, nil, &fault{event: fw.EventRejected, reason: fw.RejectMalformed, detail: err.Error()})
		}
		err = a.step(ctx, auth)
		if errors.Is(err, errWithdrawn) {
			// Nothing has failed, so there is nothing to report. What is
			// downloaded stays for the next authorization.
			a.log.InfoContext(ctx, "update dropped", "authorization", auth.Claims.ID, "err", err)
			return a.save(func(s *state) error { s.Update = nil; return nil })
		}
		if f, ok := errors.AsType[*fault](err); ok {
			if err = a.end(ctx, auth, f); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// step does what the phase asks for.
func (a *Agent) step(ctx context.Context, auth *authz.Authorization) error {
	u := a.state.Update
	if a.running.slot == u.Slot && (u.Phase == phaseAccepted || u.Phase == phaseDelivered) {
		// Somebody else has switched. Nothing may be written to what runs.
		return &fault{event: fw.EventFailed, reason: fw.FailActivate, detail: "the device was restarted from the slot that was to be written"}
	}
	switch u.Phase {
	case phaseAccepted:
		return a.deliver(ctx, auth)
	case phaseDelivered:
		return a.install(ctx, auth)
	case phaseActivating:
		return a.activate(ctx, auth)
	case phaseTrial:
		return a.try(ctx, auth)
	case phaseFallingBack:
		return a.fallBack(ctx, auth)
	}
	return fw.Errorf(fw.Corrupt, "unknown phase %q in state.json", u.Phase)
}

// end ends the update in a report, with the old slot active.
func (a *Agent) end(ctx context.Context, auth *authz.Authorization, f *fault) error {
	if err := switchTo(a.dir, a.state.Update.From); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make slot %s active again", a.state.Update.From)
	}
	a.log.WarnContext(ctx, "update ended", "event", f.event, "reason", f.reason, "detail", f.detail)
	return a.save(func(s *state) error {
		s.Update = nil
		return a.report(s, auth, f.event, f)
	})
}

// deliver downloads and verifies.
func (a *Agent) deliver(ctx context.Context, auth *authz.Authorization) error {
	u, p := a.state.Update, auth.Claims.Components[0]
	if err := a.recheck(auth); err != nil {
		return err
	}
	if err := a.download(ctx, u.Slot, auth, p); err != nil {
		return err
	}
	part := a.in(u.Slot, partFile(p))
	if err := a.mustAccept(ctx, part, u.Slot, p); err != nil {
		if _, ok := errors.AsType[*fault](err); ok {
			return errors.Join(err, remove(part))
		}
		return err
	}
	a.log.InfoContext(ctx, "image verified", "version", p.Version, "digest", p.Digest, "bytes", p.Size, "slot", u.Slot)
	return a.save(func(s *state) error {
		s.Update.Phase = phaseDelivered
		return a.report(s, auth, fw.EventDelivered, nil)
	})
}

// mustAccept verifies the image at path; a rejection is a fault.
func (a *Agent) mustAccept(ctx context.Context, path string, s slot, p authz.Component) error {
	envelope, err := a.envelope(s, p)
	if err != nil {
		return err
	}
	v, err := a.checkImage(ctx, path, p, envelope)
	if err == nil && !v.OK() {
		return rejected(v)
	}
	return err
}

func (a *Agent) envelope(s slot, p authz.Component) ([]byte, error) {
	if p.Envelope.IsZero() {
		return nil, nil
	}
	b, err := os.ReadFile(a.in(s, envelopeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // none is rejected as such
		return nil, err
	}
	return b, nil
}

func metaOf(auth *authz.Authorization) meta {
	p := auth.Claims.Components[0]
	return meta{
		Release: p.Release, Authorization: auth.Claims.ID, Version: p.Version, Digest: p.Digest, Size: p.Size,
		Format: p.Format, SecurityCounter: p.SecurityCounter, Envelope: p.Envelope,
	}
}

// place makes part the image of the slot in dir. It may be repeated.
func place(dir, part string, envelope []byte, m meta) error {
	if exists(part) {
		if err := remove(filepath.Join(dir, metaFile)); err != nil {
			return err
		}
		if err := rename(part, filepath.Join(dir, imageFile)); err != nil {
			return err
		}
	}
	if len(envelope) > 0 {
		if err := writeFile(filepath.Join(dir, envelopeFile), envelope); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, metaFile), m)
}

// install makes the verified file the image of the slot and runs the hook.
func (a *Agent) install(ctx context.Context, auth *authz.Authorization) error {
	a.tryFlush(ctx)
	u, p := a.state.Update, auth.Claims.Components[0]
	if err := a.recheck(auth); err != nil {
		return err
	}
	envelope, err := a.envelope(u.Slot, p)
	if err != nil {
		return err
	}
	if err := place(a.in(u.Slot, ""), a.in(u.Slot, partFile(p)), envelope, metaOf(auth)); err != nil {
		if noSpace(err) {
			return failed(fw.FailNoSpace, err)
		}
		return fw.Wrap(fw.Internal, err, "cannot place the image in slot %s", u.Slot)
	}
	if err := a.runHook(ctx, "install", a.cfg.Hooks.Install, u.Slot, metaOf(auth)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return failed(fw.FailInstall, err)
	}
	return a.save(func(s *state) error { s.Update.Phase = phaseActivating; return nil })
}

// activate switches and restarts; after the restart it begins the trial.
func (a *Agent) activate(ctx context.Context, auth *authz.Authorization) error {
	u, p := a.state.Update, auth.Claims.Components[0]
	if a.running.slot == u.Slot {
		a.log.InfoContext(ctx, "started from the new slot", "slot", u.Slot, "version", p.Version)
		return a.save(func(s *state) error {
			s.Update.Phase, s.Update.Boots = phaseTrial, 1
			return a.report(s, auth, fw.EventInstalled, nil)
		})
	}
	if u.Switches >= a.cfg.Boots {
		return &fault{event: fw.EventFailed, reason: fw.FailBootLoop, detail: "the device does not start from the new slot"}
	}
	// Right before the switch, every check once more: time has passed and the
	// install hook has run.
	if err := a.recheck(auth); err != nil {
		return err
	}
	if err := a.mustAccept(ctx, a.in(u.Slot, imageFile), u.Slot, p); err != nil {
		return err
	}
	if err := a.save(func(s *state) error { s.Update.Switches++; return nil }); err != nil {
		return err
	}
	if err := switchTo(a.dir, u.Slot); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make slot %s active", u.Slot)
	}
	if err := a.runHook(ctx, "activate", a.cfg.Hooks.Activate, u.Slot, metaOf(auth)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return failed(fw.FailActivate, err)
	}
	if err := a.restart(ctx); err != nil {
		return err
	}
	return &fault{event: fw.EventFailed, reason: fw.FailActivate, detail: "the activate hook did not reboot the device"}
}

// restart returns ErrRestart, or nil when the machine did not go down.
func (a *Agent) restart(ctx context.Context) error {
	if a.cfg.Restart != RestartReboot {
		return ErrRestart
	}
	return sleep(ctx, rebootTime)
}

// try decides in the new slot whether it stays.
func (a *Agent) try(ctx context.Context, auth *authz.Authorization) error {
	u, p := a.state.Update, auth.Claims.Components[0]
	giveUp := func(why fw.Reason, detail string) error {
		a.log.WarnContext(ctx, "falling back", "reason", why, "detail", detail)
		return a.save(func(s *state) error {
			s.Update.Phase, s.Update.Reason, s.Update.Detail = phaseFallingBack, why, oneLine(detail)
			return nil
		})
	}
	switch {
	case a.running.slot != u.Slot:
		return giveUp(fw.FailBootLoop, "the boot loader went back to the old slot")
	case u.Boots > a.cfg.Boots:
		return giveUp(fw.FailBootLoop, "the new slot was started too often without passing its health check")
	case a.running.seen != p.Digest:
		return giveUp(fw.FailHealth, "the bytes that run are not those that were verified")
	}
	a.tryFlush(ctx)
	if err := a.runHook(ctx, "health", a.cfg.Hooks.Health, u.Slot, metaOf(auth)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return giveUp(fw.FailHealth, err.Error())
	}
	a.log.InfoContext(ctx, "update confirmed", "version", p.Version, "slot", u.Slot)
	a.nextCheckIn = time.Time{}
	return a.save(func(s *state) error {
		s.Update = nil
		// Only now: an image that does not work must not lock out the one
		// that does.
		s.SecurityFloor = max(s.SecurityFloor, p.SecurityCounter)
		return a.report(s, auth, fw.EventConfirmed, nil)
	})
}

// fallBack goes back to the old slot and reports from there.
func (a *Agent) fallBack(ctx context.Context, auth *authz.Authorization) error {
	u := a.state.Update
	if a.running.slot == u.From {
		a.nextCheckIn = time.Time{}
		return &fault{event: fw.EventFailed, reason: u.Reason, detail: u.Detail}
	}
	if err := switchTo(a.dir, u.From); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make slot %s active", u.From)
	}
	if err := a.runHook(ctx, "activate", a.cfg.Hooks.Activate, u.From, a.old(auth)); err != nil {
		// There is nothing better to fall back to.
		a.log.ErrorContext(ctx, "activate hook failed on the way back", "err", err)
	}
	if err := a.restart(ctx); err != nil {
		return err
	}
	return fw.Errorf(fw.Unavailable, "the activate hook did not reboot the device on the way back")
}

// old describes the image in the slot to fall back to.
func (a *Agent) old(auth *authz.Authorization) meta {
	var m meta
	if err := readJSON(a.in(a.state.Update.From, metaFile), &m); err != nil {
		m.Digest = auth.Claims.Components[0].From
	}
	return m
}
