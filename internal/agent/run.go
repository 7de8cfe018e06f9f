package agent

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

const (
	firstBackoff = time.Second
	maxBackoff   = 15 * time.Minute
	// lookAround is how often an idle agent looks into incoming/.
	lookAround = 10 * time.Second
)

// Agent is one device. It is not safe for concurrent use: a device does one
// thing at a time.
type Agent struct {
	dir   string
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	state *state

	id      *identity
	next    *identity // of a renewal under way; nil: none
	useNext bool
	trust   *authz.TrustBundle
	roots   *x509.CertPool
	running running
	conn    *client

	answered    bool // the nonce in the state was answered with nothing to do
	nextCheckIn time.Time
	renewNow    bool
	renewAfter  time.Time
}

// Run is the device in dir until ctx ends, which is no error, or until it has
// to be started anew from the other slot: [ErrRestart]. It returns any other
// error only if it cannot begin, or when the device is decommissioned.
func Run(ctx context.Context, dir string, log *slog.Logger) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	a, err := open(dir, log)
	if err == nil {
		err = a.begin()
	}
	if err == nil {
		a.running, err = measure(a.dir, a.state.Boot.Slot)
	}
	if err != nil {
		return errors.Join(err, unlock())
	}
	defer a.reconnect()
	a.log.InfoContext(ctx, "agent started", "device", a.cfg.Device, "slot", a.running.slot,
		"version", a.running.meta.Version, "digest", a.running.seen, "trust_version", a.trust.Version())
	return errors.Join(a.loop(ctx), unlock())
}

// open reads the state directory and finds out where the device is.
func open(dir string, log *slog.Logger) (*Agent, error) {
	dir, err := filepath.Abs(dir) // hooks are told
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot find %s", dir)
	}
	a := &Agent{dir: dir, log: log, now: time.Now}
	if a.cfg, err = LoadConfig(dir); err != nil {
		return nil, err
	}
	if a.id, err = recoverIdentity(dir); err != nil {
		return nil, err
	}
	if exists(filepath.Join(dir, nextID+"cert.pem")) {
		if a.next, err = loadIdentity(dir, nextID); err != nil {
			return nil, err
		}
		a.useNext = true
	}
	envelope, err := os.ReadFile(filepath.Join(dir, "trust.json")) //nolint:gosec // G304: within the state directory
	if err != nil {
		return nil, fw.Wrap(fw.NotFound, err, "there is no trust bundle in %s: enrol this device first with writ-agent enroll", dir)
	}
	if a.trust, err = authz.OpenTrust(envelope); err != nil {
		return nil, err
	}
	if a.roots, err = serverRoots(a.trust, a.cfg.ServerCA); err != nil {
		return nil, err
	}
	a.state, err = loadState(dir)
	return a, err
}

func (a *Agent) loop(ctx context.Context) error {
	for failures := 0; ; {
		wait, err := a.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // to be stopped is no error
		case errors.Is(err, ErrRestart):
			return ErrRestart
		case errors.Is(err, errDecommissioned):
			return err
		case err != nil:
			wait = a.backoff(failures, err)
			failures++
			a.log.WarnContext(ctx, "trying again", "after_seconds", wait.Seconds(), "failures", failures, "err", err)
		default:
			failures = 0
		}
		if sleep(ctx, wait) != nil {
			return nil //nolint:nilerr // to be stopped is no error
		}
	}
}

// round goes once through everything there may be to do, and returns the time
// until there may be something again.
func (a *Agent) round(ctx context.Context) (time.Duration, error) {
	if err := a.refuseIncoming(ctx); err != nil {
		a.log.ErrorContext(ctx, "reading incoming", "err", err)
	}
	if err := a.advance(ctx); err != nil {
		return 0, err
	}
	if err := a.flush(ctx); err != nil {
		return 0, err
	}
	if a.state.Decommissioned {
		return 0, errDecommissioned
	}
	if wait := a.nextCheckIn.Sub(a.now()); wait > 0 {
		return min(wait, lookAround), nil
	}
	if a.renewDue() {
		if err := a.renew(ctx); err != nil {
			a.log.WarnContext(ctx, "renewing the certificate", "err", err)
		}
	}
	wait, err := a.checkIn(ctx)
	if err != nil {
		return 0, err
	}
	a.nextCheckIn = a.now().Add(wait)
	if a.state.Update != nil || len(a.state.Outbox) > 0 {
		return 0, nil
	}
	return min(wait, lookAround), nil
}

// tryFlush sends what it can; what it cannot stays in the outbox.
func (a *Agent) tryFlush(ctx context.Context) {
	if err := a.flush(ctx); err != nil {
		a.log.WarnContext(ctx, "sending reports", "err", err)
	}
}

// backoff doubles from one second, or from the poll interval if that is
// shorter, takes off up to half at random, and never is less than the server
// asked for.
func (a *Agent) backoff(failures int, err error) time.Duration {
	longest := a.cfg.MaxBackoff.or(maxBackoff)
	wait := min(firstBackoff, a.cfg.Poll.or(firstBackoff))
	for range min(failures, 32) {
		if wait = 2 * wait; wait >= longest {
			break
		}
	}
	wait = min(wait, longest)
	wait = jitter(wait/2, wait/2)
	if r, ok := errors.AsType[*refusal](err); ok && r.after > wait {
		// All who were told the same number come back spread over a tenth more.
		wait = jitter(r.after, r.after/10)
	}
	return wait
}

// jitter returns d plus up to spread more.
func jitter(d, spread time.Duration) time.Duration {
	if spread <= 0 {
		return d
	}
	var b [8]byte
	rand.Read(b[:])                                                           // never fails: crypto/rand.Read, Go 1.24
	return d + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(spread)) //nolint:gosec // G115: less than spread
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
