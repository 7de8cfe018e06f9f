package verify_test

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/verify"
)

// long makes a bundle of a log in which one device asked, and was refused,
// many times.
func long(tb testing.TB, w *fwtest.World, bundle []byte, times int) []byte {
	tb.Helper()
	f := newForger(tb, w, bundle)
	e := f.find(evidence.TypeDecision, 0, denied)
	refused := *e
	edit(f, &refused, func(d *docket.Decision) {
		d.Facts.Update.State = fw.UpdateRefused
		i := slices.IndexFunc(d.Decision.Checks, func(c policy.Check) bool { return c.Name == "update_state" })
		d.Decision.Checks[i].Observed = string(fw.UpdateRefused)
	})
	more := make([]*entry, times)
	for i := range more {
		again := refused
		again.Streams = slices.Clone(e.Streams)
		more[i] = &again
	}
	f.entries = slices.Insert(f.entries, f.place(e)+1, more...)
	return f.pack()
}

// peak verifies a bundle and returns the most memory that was in use after a
// collection, in bytes.
func peak(t *testing.T, path string) uint64 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var most uint64
	rep, err := verify.Verify(t.Context(), file, verify.Options{Workers: 2, Progress: func(int64, int64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}})
	if err != nil || rep.Verdict != verify.Verified {
		t.Fatalf("%v\n%s", err, rep.Text())
	}
	return most
}

func TestMemoryDoesNotGrowWithTheRecords(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	bundle := export(t, w, ledger.BundleQuery{Campaign: story(t, w, 6)})
	short, tall := inFile(t, long(t, w, bundle, 5_000)), inFile(t, long(t, w, bundle, 40_000))
	a, b := peak(t, short), peak(t, tall)
	t.Logf("%d KiB with 5,000 records more, %d KiB with 40,000", a>>10, b>>10)
	if b > a+a/2 {
		t.Errorf("%d KiB with 5,000 records and %d KiB with 40,000: it grows", a>>10, b>>10)
	}
}

func TestAVerificationRemembersNoMoreThanItMay(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	f := newForger(t, w, export(t, w, ledger.BundleQuery{Campaign: story(t, w, 6)}))
	e := f.find(evidence.TypeReport, 0)
	for i := range 4000 { // streams of which one record each is shown
		more := *e
		more.Streams = []evidence.Link{{Stream: evidence.StreamID("device/x-" + strconv.Itoa(i))}}
		more.Type, more.Data = evidence.TypeDeviceAttributes, []byte("{}")
		f.entries = slices.Insert(f.entries, f.place(e), &more)
	}
	path := inFile(t, f.pack())
	var out bytes.Buffer
	if code := verify.Main(t.Context(), []string{"--memory", "1", path}, &out, &out); code != verify.ExitIncomplete || !strings.Contains(out.String(), "give it more with --memory") {
		t.Errorf("with 1 MiB: exit %d\n%s", code, out.String())
	}
	out.Reset()
	if code := verify.Main(t.Context(), []string{"--memory", "8", path}, &out, &out); code != verify.ExitVerified {
		t.Errorf("with 8 MiB: exit %d\n%s", code, out.String())
	}
}
