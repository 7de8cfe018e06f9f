package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

const hookTimeout = 5 * time.Minute

// hookOutput bounds what is kept of a hook's output, in bytes. Its end is
// where the error is.
const hookOutput = 1 << 10

// runHook runs a hook on the image in slot s and returns nil if there is none.
// The environment is the agent's and
//
//	WRIT_HOOK             install, activate or health
//	WRIT_IMAGE            path of the image, also the last argument
//	WRIT_ENVELOPE         path of its detached signature; empty: none
//	WRIT_SLOT             a or b
//	WRIT_SLOT_DIR         directory of the slot
//	WRIT_PREVIOUS_SLOT    the slot that ran before
//	WRIT_DEVICE, WRIT_HARDWARE, WRIT_COMPONENT
//	WRIT_VERSION, WRIT_DIGEST, WRIT_FORMAT, WRIT_SECURITY_COUNTER
func (a *Agent) runHook(ctx context.Context, name string, argv []string, s slot, m meta) error {
	if len(argv) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Hooks.Timeout.or(hookTimeout))
	defer cancel()
	image, envelope := a.in(s, imageFile), ""
	if !m.Envelope.IsZero() {
		envelope = a.in(s, envelopeFile)
	}
	args := append(append([]string{}, argv[1:]...), image)
	cmd := exec.CommandContext(ctx, argv[0], args...) //nolint:gosec // G204: hooks are the device owner's configuration
	cmd.Env = append(os.Environ(),
		"WRIT_HOOK="+name, "WRIT_IMAGE="+image, "WRIT_ENVELOPE="+envelope,
		"WRIT_SLOT="+string(s), "WRIT_SLOT_DIR="+a.in(s, ""), "WRIT_PREVIOUS_SLOT="+string(s.other()),
		"WRIT_DEVICE="+string(a.cfg.Device), "WRIT_HARDWARE="+string(a.cfg.Hardware), "WRIT_COMPONENT="+string(a.cfg.Component),
		"WRIT_VERSION="+m.Version, "WRIT_DIGEST="+m.Digest.String(), "WRIT_FORMAT="+m.Format,
		"WRIT_SECURITY_COUNTER="+strconv.FormatUint(m.SecurityCounter, 10))
	ownGroup(cmd)
	cmd.WaitDelay = time.Second
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	begin := time.Now()
	err := cmd.Run()
	a.log.InfoContext(ctx, "hook ran", "hook", name, "slot", s, "seconds", time.Since(begin).Seconds(), "ok", err == nil, "output", string(out.b))
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fw.Wrap(fw.Unavailable, err, "the %s hook did not end within %s", name, a.cfg.Hooks.Timeout.or(hookTimeout))
	}
	return fw.Errorf(fw.Unavailable, "the %s hook failed: %s", name, oneLine(fmt.Sprintf("%v: %s", err, out.b)))
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-hookOutput):]...)
	t.b = t.b[max(0, len(t.b)-hookOutput):]
	return len(p), nil
}
