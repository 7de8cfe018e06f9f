package demo

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/writ-project/writ/internal/agent"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/operator"
	"github.com/writ-project/writ/internal/server"
)

// fleet is the devices of the demo.
type fleet struct {
	server  *server.Server
	dir     string
	devices []*device
	wg      sync.WaitGroup
}

// device is one agent process and its state directory.
type device struct {
	id  fw.DeviceID
	dir string

	mu      sync.Mutex
	cmd     *exec.Cmd
	stopped bool
}

func newFleet(s *server.Server, dir string) *fleet { return &fleet{server: s, dir: dir} }

// factory is what every device leaves the line with.
type factory struct {
	ca, trust, image string // paths
	health           string // shell command
}

// brokenMark is what the demo's health check looks for: firmware that holds
// these bytes does not come up.
const brokenMark = "DEMO-SENSOR-DRIVER-PANICS"

// prepare writes what the line needs: the CA, the trust bundle, the factory
// image.
func (f *fleet) prepare(ctx context.Context, img fw.SignedImage) (factory, error) {
	var out factory
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return out, fw.Wrap(fw.Unavailable, err, "cannot make %s", f.dir)
	}
	trust, err := f.server.TrustBundle(ctx)
	if err != nil {
		return out, err
	}
	out.ca, out.trust = filepath.Join(filepath.Dir(f.dir), "ca.pem"), filepath.Join(f.dir, "trust.json")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Authority.CA().Raw})
	for path, b := range map[string][]byte{out.ca: ca, out.trust: trust} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return out, fw.Wrap(fw.Unavailable, err, "cannot write %s", path)
		}
	}
	file, _, err := f.server.Blobs.Open(img.Digest)
	if err != nil {
		return out, err
	}
	out.image = file.Name()
	// The health check of a thermostat: do the sensors answer?
	out.health = `! grep -qa "` + brokenMark + `" "$1"`
	return out, file.Close()
}

// enrol makes n devices: registered by list, each with a one-time token, each
// with a key made in its own directory.
func (f *fleet) enrol(ctx context.Context, ids []fw.DeviceID, line factory, install func(fw.DeviceID) string) error {
	list := make([]enroll.NewDevice, len(ids))
	for i, id := range ids {
		list[i] = enroll.NewDevice{ID: id, Hardware: hardware, Attributes: map[string]string{"site": "berlin"}}
	}
	if _, err := f.server.Devices.Register(ctx, product, list, operator.Engineer); err != nil {
		return err
	}
	tokens, err := f.server.Enrolment.EnrolmentTokens(ctx, ids, time.Hour, operator.Engineer)
	if err != nil {
		return err
	}
	for i, id := range ids {
		d := &device{id: id, dir: filepath.Join(f.dir, string(id))}
		args := []string{
			"enroll", "--dir", d.dir, "--server", f.server.URL(), "--ca", line.ca, "--trust", line.trust,
			"--device", string(id), "--hardware", string(hardware), "--token", tokens[i].Secret.Reveal(),
			"--image", line.image, "--health-hook", line.health, "--poll", "1s", "--max-backoff", "3s",
		}
		if hook := install(id); hook != "" {
			args = append(args, "--install-hook", hook)
		}
		var out strings.Builder
		if code := agent.Main(ctx, args, &out, &out); code != agent.ExitOK {
			return fmt.Errorf("enrolling %s: %s", id, strings.TrimSpace(out.String()))
		}
		f.devices = append(f.devices, d)
	}
	return nil
}

// start runs a device's agent as a process of this binary, and starts it
// again when it dies, as a supervisor would.
func (f *fleet) start(d *device) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	logs, err := os.OpenFile(filepath.Join(d.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot write to %s", d.dir)
	}
	f.wg.Go(func() {
		defer logs.Close()
		for {
			d.mu.Lock()
			if d.stopped {
				d.mu.Unlock()
				return
			}
			d.cmd = exec.Command(self, "agent", "run", "--dir", d.dir) //nolint:noctx // it is ended by stop, which waits for it
			d.cmd.Stderr = logs
			err := d.cmd.Start()
			d.mu.Unlock()
			if err != nil {
				return // shows as a device that never confirms
			}
			_ = d.cmd.Wait() // killed, or asked to end: either way the loop decides
			time.Sleep(100 * time.Millisecond)
		}
	})
	return nil
}

// kill ends a device's process as a power cut would. The supervisor starts it
// again.
func (d *device) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(syscall.SIGKILL) // gone already is as good
	}
}

// stop ends every agent and waits for them.
func (f *fleet) stop() {
	if f == nil {
		return
	}
	for _, d := range f.devices {
		d.mu.Lock()
		d.stopped = true
		if d.cmd != nil && d.cmd.Process != nil {
			_ = d.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
		}
		d.mu.Unlock()
	}
	f.wg.Wait()
}

// versions counts what the devices themselves say is in their active slot.
func (f *fleet) versions() map[string]int {
	n := make(map[string]int)
	for _, d := range f.devices {
		if st, err := agent.ReadStatus(d.dir); err == nil {
			n[st.Version]++
		}
	}
	return n
}
