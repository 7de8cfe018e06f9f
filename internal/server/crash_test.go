package server_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
)

// childEnv makes this test binary be the server that is killed.
const childEnv = "WRIT_CRASH_SERVER"

func TestMain(m *testing.M) {
	if data := os.Getenv(childEnv); data != "" {
		os.Exit(child(data, os.Getenv(childEnv+"_LISTEN")))
	}
	os.Exit(m.Run())
}

func crashConfig(data, listen string) config.Config {
	return config.Config{Data: data, Listen: listen, Name: "writ.test/log", Passphrase: []byte("test"), ScryptLogN: 4, Interval: time.Second}
}

func child(data, listen string) int {
	s, _, err := server.Open(context.Background(), crashConfig(data, listen), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := s.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1 // it is meant to be killed
}

// The server is killed with SIGKILL at random moments under load. Every
// authorization that a device received is in the log, the log verifies, every
// acknowledged report is on file, and no state lacks its record.
func TestNothingIsLostWhenTheServerIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it is about processes, and the race detector looks into one")
	}
	kills := 15
	if os.Getenv("WRIT_REQUIRE_TOOLS") != "" {
		kills = 200
	}
	if v, err := strconv.Atoi(os.Getenv("WRIT_CRASH_KILLS")); err == nil {
		kills = v
	}
	data, listen := filepath.Join(t.TempDir(), "data"), freePort(t)
	w := fwtest.NewWorldConfig(t, crashConfig(data, listen))
	ids := make([]fw.DeviceID, 32)
	for i := range ids {
		ids[i] = fw.DeviceID(fmt.Sprintf("sn-%02d", i))
	}
	devices := w.Enrolled(ids...)
	var ends []fw.CampaignID
	for i := range 4 {
		rel := w.Publish(fmt.Sprintf("2.0.%d", i), "raw", 2, fmt.Appendf(nil, "firmware %d", i))
		c := w.Campaign(fw.Plan{
			Name: "crash", Release: rel.ID, Cohort: "true", Stages: []fw.StagePlan{{Name: "all", Percent: 100, MinConfirmed: len(ids)}},
			Attempts: 10, AuthorizationTTL: 3600, OnFailure: fw.FailurePause, Quorum: 1,
		})
		ends = append(ends, c.ID)
	}
	logKey, err := w.Signer.LogSigner(server.LogKeyName, "writ.test/log")
	if err != nil {
		t.Fatal(err)
	}
	pub := logKey.Public()
	w.Stop()

	l := &crashLoad{t: t, pub: pub}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, d := range devices {
		wg.Go(func() { l.run(ctx, d) })
	}
	src := rand.New(rand.NewPCG(7, 7))
	for n := range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+data, childEnv+"_LISTEN="+listen)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !listening(listen) {
			stop()
			t.Fatalf("after %d kills the server did not come up again", n)
		}
		time.Sleep(time.Duration(20+src.IntN(150)) * time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Errorf("the server was gone before kill %d: %v", n, err)
		}
		_ = cmd.Wait() // killed
	}
	stop()
	wg.Wait()

	w = fwtest.Reopen(t, crashConfig(data, listen))
	q := w.DB.Snapshot(t.Context())
	if _, err := w.Ledger.Verify(q); err != nil {
		t.Error(err)
	}
	for _, a := range l.received {
		row, err := store.RecordByIndex(q, int64(a.Claims.Decision))
		if err != nil || fw.Digest(row.Commitment) != a.Claims.Commitment || row.Type != string(evidence.TypeDecision) {
			t.Errorf("authorization %s has no decision record in the log: %v", a.Claims.ID, err)
		}
	}
	for _, r := range l.acked {
		if _, ok, err := store.ReportBySequence(q, r.device, r.seq); err != nil || !ok {
			t.Errorf("acknowledged report %d of %s is not on file: %v", r.seq, r.device, err)
		}
	}
	for _, id := range ends {
		fwtest.CheckCampaign(t, w, id)
	}
	t.Logf("%d kills, %d authorizations received, %d reports acknowledged, %d records", kills, len(l.received), len(l.acked), w.Ledger.Head().Size)
	if len(l.received) == 0 || len(l.acked) == 0 {
		t.Error("nothing happened between the kills: the test tested nothing")
	}
}

type ackedReport struct {
	device fw.DeviceID
	seq    int64
}

// crashLoad is what the devices saw.
type crashLoad struct {
	t   *testing.T
	pub ed25519.PublicKey

	mu       sync.Mutex
	received []*authz.Authorization
	acked    []ackedReport
}

// run is one device: it checks in with the same nonce until it is answered,
// and sends each report until it is acknowledged.
func (l *crashLoad) run(ctx context.Context, d *bench.Device) {
	var seq int64
	for ctx.Err() == nil {
		nonce := bench.Nonce()
		var r authz.CheckInReply
		if !again(ctx, func() (err error) { r, err = d.CheckIn(ctx, nonce); return err }) {
			return
		}
		if r.Action != authz.ActionUpdate {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		a, err := authz.Decode(r.Authorization)
		if err != nil {
			l.t.Error(err)
			return
		}
		if _, err := tlog.CheckReceipt(a.Receipts[0], a.Claims.Commitment[:], l.pub); err != nil {
			l.t.Errorf("authorization %s: %v", a.Claims.ID, err)
		}
		l.mu.Lock()
		l.received = append(l.received, a)
		l.mu.Unlock()
		for _, event := range []fw.ReportEvent{fw.EventDelivered, fw.EventFailed} {
			signed, err := d.SignedReport(a, event, fw.FailHealth)
			if err != nil {
				l.t.Error(err)
				return
			}
			seq++
			if !again(ctx, func() error { return d.SendReport(ctx, signed) }) {
				return
			}
			l.mu.Lock()
			l.acked = append(l.acked, ackedReport{d.ID, seq})
			l.mu.Unlock()
		}
	}
}

// again repeats f until it succeeds or ctx ends.
func again(ctx context.Context, f func() error) bool {
	for ctx.Err() == nil {
		err := f()
		if err == nil {
			return true
		}
		if e, ok := errors.AsType[*bench.StatusError](err); ok && e.Status < 500 {
			panic(fmt.Sprintf("a device was refused: %v", err))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func listening(addr string) bool {
	for range 500 {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close() // it was only to see
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}
