package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

func TestCommandLine(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(nil)
	for _, c := range []struct {
		name, args, want string
		code             int
	}{
		{"help teaches", "--help", "writ-agent enroll --server", ExitOK},
		{"help of a command", "run --help", "--exit-to-restart", ExitOK},
		{"status", "status --dir " + dir, "1.0.0 in slot a, " + factory.Digest.String(), ExitOK},
		{"status for programs", "status -o json --dir " + dir, `"version": "1.0.0"`, ExitOK},
		{"status in no format", "status -o xml --dir " + dir, "", ExitUsage},
		{"no such command", "instal", "", ExitUsage},
		{"no such flag", "run --now", "", ExitUsage},
		{"flag missing", "enroll --server https://x", "", ExitUsage},
		{"file missing", "install", "", ExitUsage},
		{"not enrolled", "run --dir " + t.TempDir(), "", ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := Main(t.Context(), strings.Fields(c.args), &out, &errs); code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, &errs)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("output %q has no %q", &out, c.want)
			}
			if c.code != ExitOK && errs.Len() == 0 {
				t.Error("failed without a word")
			}
		})
	}
}

func TestEnrolAndRunFromTheCommandLine(t *testing.T) {
	p := newPeer(t)
	other, _ := p.enrol(nil) // for its files
	files, dir := t.TempDir(), t.TempDir()
	ca, trust := filepath.Join(files, "ca.pem"), filepath.Join(files, "trust.json")
	if err := errors.Join(
		os.WriteFile(ca, []byte(must(LoadConfig(other)).ServerCA), 0o600),
		os.WriteFile(trust, p.trust.Envelope(), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	args := []string{
		"enroll", "--dir", dir, "--server", p.srv.URL + "/", "--ca", ca, "--trust", trust, "--device", "SN-7", "--hardware", "gw-2",
		"--token", "token", "--poll", "20ms", "--health-hook", `test "$WRIT_VERSION" = 1.1.0 && test "$WRIT_IMAGE" = "$1" && cmp -s "$1" "$WRIT_SLOT_DIR/image.bin"`,
		"--attribute", "region=eu",
	}
	if code := Main(t.Context(), args, &out, &errs); code != ExitOK {
		t.Fatalf("enroll: %d, %s", code, &errs)
	}
	p.target = p.firmware("1.1.0", 1, randomBytes(1000))
	for _, want := range []int{ExitRestart, ExitOK} {
		ctx, cancel := contextUntil(t, p.reported(fw.EventConfirmed))
		if code := Main(ctx, []string{"run", "--dir", dir, "--exit-to-restart"}, &out, &errs); code != want {
			t.Errorf("run: %d, want %d; %s", code, want, &errs)
		}
		cancel()
	}
	var s Status
	out.Reset()
	if code := Main(t.Context(), []string{"status", "-o", "json", "--dir", dir}, &out, &errs); code != ExitOK || json.Unmarshal(out.Bytes(), &s) != nil || s.Active != "b" || s.Version != "1.1.0" {
		t.Errorf("status: %d, %s", code, &out)
	}
	if p.checkIns[0].Attributes["region"] != "eu" {
		t.Errorf("attributes %v", p.checkIns[0].Attributes)
	}
}

// A machine that reboots is told from an agent that was started again.
func TestKernelBootTellsRebootFromRestart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	p := newPeer(t)
	dir, _ := p.enrol(func(c *Config) { c.Restart, c.Hooks.Activate = RestartReboot, []string{"true"} })
	for i := range 2 {
		a, err := open(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.begin(); err != nil {
			t.Fatal(err)
		}
		if a.state.Boot.Slot != slotA || a.state.Boot.ID != must(kernelBoot()) {
			t.Errorf("start %d runs from slot %s", i, a.state.Boot.Slot)
		}
		// Switched, and not rebooted: what runs is still the old slot.
		if err := switchTo(dir, slotB); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that asks for a renewal and then refuses it must not be hammered.
func TestRefusedRenewalIsNotRepeatedAtOnce(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(func(c *Config) { c.Poll = Duration(100 * time.Millisecond) })
	p.reply = func(r *authz.CheckInReply) { r.Action = authz.ActionRenew }
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == pathRenew {
			problem(w, http.StatusForbidden, "forbidden")
		}
		return r.URL.Path == pathRenew
	}
	stop := start(t, dir)
	time.Sleep(450 * time.Millisecond)
	stop()
	if n := len(p.checkIns); n < 2 || n > 6 {
		t.Errorf("%d check-ins in 450 ms at one in 100 ms", n)
	}
}
