package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// TestMain lets the test binary be the agent, so that it can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("WRIT_TEST_AGENT") != "" {
		os.Exit(Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// The agent is killed with SIGKILL at random moments while it takes one update
// after the other. After each kill the active slot must hold firmware that was
// verified. In the end the last update must be confirmed, and the server must
// have every report, each number once, none missing.
func TestKilledAtRandomMomentsItConverges(t *testing.T) {
	kills := 40
	if testing.Short() {
		kills = 10
	}
	p := newPeer(t)
	dir, factory := p.enrol(func(c *Config) {
		c.Hooks.Health, c.Hooks.Install, c.Hooks.Activate = shell("sleep 0.02"), shell("sleep 0.01"), shell("sleep 0.01")
	})
	p.serve = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		http.ServeContent(slow{w}, r, "", time.Time{}, bytes.NewReader(content))
		return true
	}
	good := map[fw.Digest]bool{factory.Digest: true}
	aim := func(n int) *firmware {
		f := p.firmware(fmt.Sprintf("1.1.%d", n), 4, randomBytes(200_000))
		good[f.Digest] = true
		p.set(func() { p.target = f })
		return f
	}
	target := aim(0)
	confirmed := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		n := len(p.reports)
		return n > 0 && p.reports[n-1].Event == fw.EventConfirmed && p.reports[n-1].Components[0].Digest == target.Digest
	}
	updates := 1
	for range kills {
		cmd := exec.Command(os.Args[0], "run", "--dir", dir)
		cmd.Env = append(os.Environ(), "WRIT_TEST_AGENT=1")
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+rand.IntN(140)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("the agent ended by itself: %v\n%s", err, &log)
		}
		_ = cmd.Wait() // killed
		on, err := activeSlot(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, on.dir(), imageFile))
		if err != nil || !good[sha256.Sum256(b)] {
			t.Fatalf("slot %s is active with %d bytes that nobody verified, %v", on, len(b), err)
		}
		if confirmed() {
			target = aim(updates)
			updates++
		}
	}
	p.await(dir, "the last confirmation", confirmed)
	on := must(activeSlot(dir))
	runs(t, dir, on, target)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.reports {
		if r.Sequence != uint64(i+1) {
			t.Errorf("report %d has number %d", i+1, r.Sequence)
		}
		if r.Event == fw.EventRejected || r.Event == fw.EventFailed && r.Reason != fw.FailBootLoop {
			t.Errorf("report %+v: a kill is no attack and no fault of the update", r)
		}
	}
	if len(p.errs) > 0 {
		t.Error(p.errs)
	}
	t.Logf("%d updates, %d reports over %d kills", updates, len(p.reports), kills)
}

// slow sends 64 KiB every few milliseconds.
type slow struct{ http.ResponseWriter }

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(8 * time.Millisecond)
	n, err := s.ResponseWriter.Write(b)
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	return n, err
}
