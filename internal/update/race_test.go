package update_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/verify"
)

// Whatever check-ins, downloads, reports, retries, pauses that withdraw, and
// resumes race, no stage ever has more devices than its plan allows, no device
// loses a report, and replaying the recorded events gives exactly the stored
// status (invariants I3, I7 and I8). The offline verifier says so too.
func TestStageLimitsHoldUnderAnyInterleaving(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	devices := w.Enrolled(ids(24)...)
	round := 0
	var last fw.CampaignID
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
		last = c.ID
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
		tally(t, w, c.ID)
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
	verified(t, w, last)
	if withdrawals(t, w) == 0 {
		t.Error("no pause withdrew anything: the race is not one")
	}
}

// drive does one thing as device d, and returns how many reports the server
// acknowledged. Now and then the reply is lost and asked for again, and a
// device that has the image already goes on although its authorization was
// withdrawn.
func drive(t *testing.T, w *fwtest.World, d *bench.Device, img fw.SignedImage, src *rand.Rand, failing int) int64 {
	ctx := context.Background()
	nonce := bench.Nonce()
	r, err := d.CheckIn(ctx, nonce)
	if err == nil && r.Action == authz.ActionUpdate && src.IntN(4) == 0 {
		r, err = d.CheckIn(ctx, nonce)
	}
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
	if _, err := d.Download(ctx, img.Digest); err != nil {
		if e, ok := errors.AsType[*bench.StatusError](err); !ok || e.Status != http.StatusConflict {
			t.Errorf("%s: %v", d.ID, err)
		}
		if src.IntN(4) != 0 {
			return 0
		}
	}
	event, reason := fw.EventConfirmed, fw.Reason("")
	switch n := src.IntN(100); {
	case n < failing && n%5 == 0:
		event, reason = fw.EventFailed, fw.FailDownload
	case n < failing:
		event, reason = fw.EventFailed, fw.FailHealth
	default:
		d.Run(img.Version, img.Digest, img.SecurityCounter)
	}
	if err := d.Report(ctx, a, event, reason); err != nil {
		t.Errorf("%s: %v", d.ID, err)
		return 0
	}
	return 1
}

// tally counts the campaign's updates one by one and compares that with the
// tallies kept along the way.
func tally(t *testing.T, w *fwtest.World, id fw.CampaignID) {
	t.Helper()
	q := w.DB.Snapshot(context.Background())
	list, err := store.UpdatesOfCampaign(q, id, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Register.View(q, mustCampaign(t, w, id))
	if err != nil {
		t.Fatal(err)
	}
	members, open, confirmed := 0, 0, 0
	for i := range list {
		u := &list[i]
		if u.Member {
			members++
		}
		if u.State.Open() {
			open++
		}
		if u.State == fw.UpdateConfirmed {
			confirmed++
		}
		if u.Attempts < 0 || u.Attempts > l.Terms.Plan.Attempts {
			t.Errorf("%s has had %d attempts of %d", u.Device, u.Attempts, l.Terms.Plan.Attempts)
		}
	}
	if got := l.Status.Total(); got.Members != members || got.Open != open || got.Confirmed != confirmed {
		t.Errorf("the tallies are %+v, and there are %d members, %d open, %d confirmed", got, members, open, confirmed)
	}
}

// withdrawals counts the authorizations that were taken back.
func withdrawals(t *testing.T, w *fwtest.World) int {
	t.Helper()
	rows, err := store.Records(w.DB.Snapshot(context.Background()), 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, row := range rows {
		if row.Type == string(evidence.TypeUpdateMoved) {
			n++
		}
	}
	return n
}

// verified exports a campaign and gives the bundle to the offline verifier.
func verified(t *testing.T, w *fwtest.World, id fw.CampaignID) {
	t.Helper()
	var b bytes.Buffer
	if err := w.Ledger.Export(context.Background(), ledger.BundleQuery{Campaign: id}, &b, nil); err != nil {
		t.Fatal(err)
	}
	rep, err := verify.Verify(context.Background(), bytes.NewReader(b.Bytes()), verify.Options{TrustedLogKey: w.LogVerifierKey()})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Verdict != verify.Verified || rep.Counts.Decisions == 0 {
		t.Errorf("the bundle of campaign %s: %s", id, rep.Text())
	}
}
