package update_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

var firmware = bytes.Repeat([]byte("firmware "), 1000)

func plan(r store.Release, stages ...fw.StagePlan) fw.Plan {
	return fw.Plan{
		Name: "test", Release: r.ID, Cohort: "true", Stages: stages, Attempts: 2, BackoffSeconds: 1,
		AuthorizationTTL: 3600, OnFailure: fw.FailurePause, Quorum: 1,
	}
}

func ids(n int) []fw.DeviceID {
	out := make([]fw.DeviceID, n)
	for i := range out {
		out[i] = fw.DeviceID(fmt.Sprintf("sn-%03d", i))
	}
	return out
}

// open checks an authorization's signature and returns it.
func open(t *testing.T, b []byte) *authz.Authorization {
	t.Helper()
	a, err := authz.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnUpdateGoesFromCheckInToConfirmed(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		ctx := t.Context()
		d := w.Enrolled("sn-1")[0]
		if r, err := d.CheckIn(ctx, bench.Nonce()); err != nil || r.Action != authz.ActionNone {
			t.Fatalf("idle check-in: %+v, %v", r, err)
		}
		rel := w.Publish("2.0.0", "raw", 2, firmware)
		c := w.Campaign(plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 1}))

		nonce := bench.Nonce()
		reply, err := d.CheckIn(ctx, nonce)
		if err != nil || reply.Action != authz.ActionUpdate {
			t.Fatalf("check-in: %+v, %v", reply, err)
		}
		a := open(t, reply.Authorization)
		again, err := d.CheckIn(ctx, nonce)
		if err != nil || open(t, again.Authorization).Claims.ID != a.Claims.ID {
			t.Errorf("the same nonce got another authorization: %v", err)
		}
		if other, err := d.CheckIn(ctx, bench.Nonce()); err != nil || other.Action != authz.ActionNone {
			t.Errorf("another nonce got %+v, %v while the first was out", other, err)
		}
		img := w.Image(rel)
		for _, event := range []fw.ReportEvent{fw.EventDelivered, fw.EventInstalled, fw.EventConfirmed} {
			if event == fw.EventInstalled {
				d.Run(img.Version, img.Digest, img.SecurityCounter)
			}
			signed, err := d.SignedReport(a, event, "")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // a repeat changes nothing
				if err := d.SendReport(ctx, signed); err != nil {
					t.Fatalf("%s: %v", event, err)
				}
			}
		}
		u, ok, err := store.UpdateOf(w.DB.Snapshot(ctx), c.ID, d.ID)
		if err != nil || !ok || u.State != fw.UpdateConfirmed {
			t.Errorf("update: %+v, %v, %v", u, ok, err)
		}
		c, err = store.CampaignByID(w.DB.Snapshot(ctx), c.ID)
		if err != nil || c.State != fw.CampaignCompleted {
			t.Errorf("campaign is %s, %v", c.State, err)
		}
		if r, err := d.CheckIn(ctx, bench.Nonce()); err != nil || r.Action != authz.ActionNone || len(r.Refused) != 0 {
			t.Errorf("after: %+v, %v", r, err)
		}
		if _, err := w.Ledger.Verify(w.DB.Snapshot(ctx)); err != nil {
			t.Error(err)
		}
		replay(t, w)
	})
}

// replay re-executes every recorded decision.
func replay(t *testing.T, w *fwtest.World) {
	t.Helper()
	q := w.DB.Snapshot(context.Background())
	rows, err := store.Records(q, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if evidence.Type(row.Type) != evidence.TypeDecision {
			continue
		}
		rec, err := evidence.Decode(row.Body)
		if err != nil {
			t.Fatal(err)
		}
		var d docket.Decision
		if err := json.Unmarshal(rec.Data, &d); err != nil {
			t.Fatal(err)
		}
		c, err := store.CampaignByID(q, d.Campaign)
		if err != nil {
			t.Fatal(err)
		}
		terms, err := w.Register.Terms(q, &c)
		if err != nil {
			t.Fatal(err)
		}
		target := &terms.Forward
		if d.Facts.Update.Rollback {
			target = terms.Back
		}
		got := policy.Evaluate(terms.For(d.Facts.Stage.Index, target), d.Facts)
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(d.Decision)
		if !bytes.Equal(a, b) {
			t.Errorf("record %d: the decision comes out as %s, not %s", row.Index, a, b)
		}
	}
}

// A stage of ten, and 400 check-ins 64 at a time: exactly ten devices are
// authorized, whatever the interleaving, on both databases.
func TestALimitOfTenGivesExactlyTen(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		devices := w.Enrolled(ids(100)...)
		rel := w.Publish("2.0.0", "raw", 2, firmware)
		c := w.Campaign(plan(rel, fw.StagePlan{Name: "ten", Count: 10}, fw.StagePlan{Name: "rest", Percent: 100}))
		var granted, failed atomic.Int64
		var wg sync.WaitGroup
		jobs := make(chan *bench.Device)
		for range 64 {
			wg.Go(func() {
				for d := range jobs {
					r, err := d.CheckIn(context.Background(), bench.Nonce())
					switch {
					case err != nil:
						failed.Add(1)
						t.Errorf("%s: %v", d.ID, err)
					case r.Action == authz.ActionUpdate:
						granted.Add(1)
					}
				}
			})
		}
		for i := range 400 {
			jobs <- devices[i%len(devices)]
		}
		close(jobs)
		wg.Wait()
		if granted.Load() != 10 || failed.Load() != 0 {
			t.Errorf("%d authorizations and %d errors, want 10 and 0", granted.Load(), failed.Load())
		}
		l, err := w.Register.View(w.DB.Snapshot(t.Context()), mustCampaign(t, w, c.ID))
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Status.Stages[0].Tally; got.Members != 10 || got.Open != 10 {
			t.Errorf("tally %+v, want 10 members, all open", got)
		}
		replay(t, w)
	})
}

func mustCampaign(t *testing.T, w *fwtest.World, id fw.CampaignID) store.Campaign {
	t.Helper()
	c, err := store.CampaignByID(w.DB.Snapshot(t.Context()), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRevocationAndQuarantineCountAtTheVeryNextCheckIn(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		ctx := t.Context()
		devices := w.Enrolled("revoked", "quarantined", "decommissioned")
		for _, d := range devices {
			for range 3 { // the third is answered from memory on SQLite
				if _, err := d.CheckIn(ctx, bench.Nonce()); err != nil {
					t.Fatal(err)
				}
			}
		}
		rel := w.Publish("2.0.0", "raw", 2, firmware)
		w.Campaign(plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 3}))
		for id, to := range map[fw.DeviceID]fw.DeviceState{"revoked": fw.DeviceRevoked, "quarantined": fw.DeviceQuarantined, "decommissioned": fw.DeviceDecommissioned} {
			if err := w.Devices.Move(ctx, id, to, "test", fwtest.Rita); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			_, err := devices[0].CheckIn(ctx, bench.Nonce())
			if e, ok := errors.AsType[*bench.StatusError](err); !ok || e.Status != 403 {
				t.Errorf("revoked: %v, want 403", err)
			}
			r, err := devices[1].CheckIn(ctx, bench.Nonce())
			if err != nil || len(r.Refused) == 0 || r.Refused[0] != fw.ReasonQuarantined {
				t.Errorf("quarantined: %+v, %v", r, err)
			}
			r, err = devices[2].CheckIn(ctx, bench.Nonce())
			if err != nil || r.Action != authz.ActionDecommission {
				t.Errorf("decommissioned: %+v, %v", r, err)
			}
		}
		// Two identical refusals are one record and a count.
		recs, err := store.StreamRecords(w.DB.Snapshot(ctx), string(evidence.DeviceStream("quarantined")), 1, 100)
		if err != nil {
			t.Fatal(err)
		}
		decisions := 0
		for _, r := range recs {
			if r.Type == string(evidence.TypeDecision) {
				decisions++
			}
		}
		if decisions != 1 {
			t.Errorf("%d decision records for the same refusal given twice, want 1", decisions)
		}
		replay(t, w)
	})
}
