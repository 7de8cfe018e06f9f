package update_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
)

// Whatever check-ins, reports, retries, pauses and resumes race, no stage ever
// has more devices than its plan allows, no device loses a report, and
// replaying the recorded events gives exactly the stored status (invariants
// I3, I7 and I8).
func TestStageLimitsHoldUnderAnyInterleaving(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	devices := w.Enrolled(ids(24)...)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		rel := w.Publish(fmt.Sprintf("2.0.%d", round), "raw", 2, fmt.Appendf(nil, "firmware %d", round))
		p := plan(rel,
			fw.StagePlan{Name: "first", Count: rapid.IntRange(1, 6).Draw(rt, "first")},
			fw.StagePlan{Name: "second", Count: rapid.IntRange(1, 8).Draw(rt, "second"), MinConfirmed: 1},
			fw.StagePlan{Name: "rest", Percent: 100, MinConfirmed: 1})
		p.Attempts, p.BackoffSeconds = rapid.IntRange(1, 3).Draw(rt, "attempts"), 0
		if rapid.Bool().Draw(rt, "gate") {
			most := rapid.IntRange(0, 3).Draw(rt, "max failures")
			p.Stages[0].MaxFailures = &most
		}
		c := w.Campaign(p)
		failing := rapid.IntRange(0, 60).Draw(rt, "failing percent")
		seed := rapid.Uint64().Draw(rt, "seed")
		var acked atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i, d := range devices {
			wg.Go(func() {
				src := rand.New(rand.NewPCG(seed, uint64(i)))
				for range 6 {
					acked.Add(drive(t, w, d, w.Image(rel), src, failing))
				}
			})
		}
		var operator sync.WaitGroup
		operator.Go(func() {
			src := rand.New(rand.NewPCG(seed, 999))
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Refusals are part of the race: the campaign may be elsewhere.
				if src.IntN(2) == 0 {
					_, _ = w.Campaigns.Pause(context.Background(), c.ID, fwtest.Rita, "race")
				} else {
					_, _ = w.Campaigns.Resume(context.Background(), c.ID, fwtest.Rita, "race")
				}
			}
		})
		wg.Wait()
		close(stop)
		operator.Wait()
		reports := fwtest.CheckCampaign(t, w, c.ID)
		if reports != acked.Load() {
			rt.Errorf("%d reports on file, %d acknowledged", reports, acked.Load())
		}
		if row := mustCampaign(t, w, c.ID); row.State.Live() {
			if _, err := w.Campaigns.AbortKeep(context.Background(), c.ID, fwtest.Rita, "next"); err != nil {
				rt.Fatal(err)
			}
		}
		for _, d := range devices {
			d.Run("1.0.0", fw.DigestOf([]byte("factory")), 0)
		}
	})
	if _, err := w.Ledger.Verify(w.DB.Snapshot(t.Context())); err != nil {
		t.Error(err)
	}
	replay(t, w)
}

// drive does one thing as device d, and returns how many reports the server
// acknowledged.
func drive(t *testing.T, w *fwtest.World, d *bench.Device, img fw.SignedImage, src *rand.Rand, failing int) int64 {
	ctx := context.Background()
	r, err := d.CheckIn(ctx, bench.Nonce())
	if err != nil {
		t.Errorf("%s: %v", d.ID, err)
		return 0
	}
	if r.Action != authz.ActionUpdate {
		return 0
	}
	a, err := authz.Decode(r.Authorization)
	if err != nil {
		t.Error(err)
		return 0
	}
	event, reason := fw.EventConfirmed, fw.Reason("")
	if src.IntN(100) < failing {
		event, reason = fw.EventFailed, fw.FailHealth
	} else {
		d.Run(img.Version, img.Digest, img.SecurityCounter)
	}
	if err := d.Report(ctx, a, event, reason); err != nil {
		t.Errorf("%s: %v", d.ID, err)
		return 0
	}
	return 1
}
