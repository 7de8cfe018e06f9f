package ledger_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// clockedLedger opens a ledger whose clock is set by hand.
func clockedLedger(t *testing.T, url string, s *signer.Signer, ms *atomic.Int64) (*store.DB, *ledger.Ledger) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url, Now: func() time.Time { return time.UnixMilli(ms.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	ls, err := s.LogSigner(fwtest.Keys[fw.PurposeLog], origin)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), db, ls)
	if err != nil {
		t.Fatal(err)
	}
	return db, l
}

// The clock is set back while the server runs and while it does not.
func TestRecordTimesNeverRunBackwards(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		s, _ := fwtest.Signer(t)
		var clock atomic.Int64
		start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC).UnixMilli()
		second := time.Second.Milliseconds()
		db, l := clockedLedger(t, url, s, &clock)
		for i, at := range []int64{0, 30, 20, -20, 25, 40, -20} { // seconds after the start
			if i == 3 { // the clock moves while nobody runs
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db, l = clockedLedger(t, url, s, &clock)
			}
			clock.Store(start + at*second)
			if _, err := appendOne(db, l, "sn-1", nil); err != nil {
				t.Fatalf("at second %d: %v", at, err)
			}
		}
		size := l.Head().Size

		// More than a minute back is a clock that is wrong: nothing is written.
		for range 2 {
			clock.Store(start - 21*second)
			_, err := appendOne(db, l, "sn-1", nil)
			if fw.KindOf(err) != fw.Unavailable {
				t.Errorf("a minute and a second back: got %v, want Unavailable", err)
			} else if !strings.Contains(err.Error(), "2026-05-04T03:01:40Z") || !strings.Contains(err.Error(), "2026-05-04T03:02:41Z") || !strings.Contains(err.Error(), "NTP") {
				t.Errorf("the error does not say both times and what to do: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db, l = clockedLedger(t, url, s, &clock)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		if got := l.Head().Size; got != size {
			t.Errorf("the log has %d records, want %d", got, size)
		}

		// It goes on when the clock is right again.
		clock.Store(start + 50*second)
		if _, err := appendOne(db, l, "sn-1", nil); err != nil {
			t.Error(err)
		}
		rows, err := store.Records(db.Snapshot(t.Context()), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, r := range rows {
			got = append(got, (r.MS-start)/second)
		}
		want := []int64{0, 30, 30, 30, 30, 40, 40, 50}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seconds of the records: %s", d)
		}
	})
}
