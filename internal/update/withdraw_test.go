package update_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/store"
)

// granted has the device check in and returns its authorization.
func granted(t *testing.T, d *bench.Device) *authz.Authorization {
	t.Helper()
	r, err := d.CheckIn(t.Context(), bench.Nonce())
	if err != nil || r.Action != authz.ActionUpdate {
		t.Fatalf("%s: %+v, %v", d.ID, r, err)
	}
	return open(t, r.Authorization)
}

// where is the state of a device's update, and what its stages count.
type where struct {
	State    fw.UpdateState
	Attempts int
	Open     int // updates of the campaign that are open
}

func standing(t *testing.T, w *fwtest.World, c fw.CampaignID, d fw.DeviceID, want where) {
	t.Helper()
	q := w.DB.Snapshot(context.Background())
	u, ok, err := store.UpdateOf(q, c, d)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", d, ok, err)
	}
	l, err := w.Register.View(q, mustCampaign(t, w, c))
	if err != nil {
		t.Fatal(err)
	}
	if got := (where{u.State, u.Attempts, l.Status.Total().Open}); got != want {
		t.Errorf("%s: %+v, want %+v", d, got, want)
	}
}

func refusedDownload(t *testing.T, d *bench.Device, image fw.Digest) {
	t.Helper()
	_, err := d.Download(t.Context(), image)
	e, ok := errors.AsType[*bench.StatusError](err)
	if !ok || e.Status != http.StatusConflict || !strings.Contains(e.Detail, "withdrawn") {
		t.Errorf("%s: download: %v, want 409 that says withdrawn", d.ID, err)
	}
}

// A pause takes back what was not delivered, at the next contact of each
// device: a check-in, or the start of the download. What is delivered runs on.
func TestAPauseWithdrawsWhatIsNotDelivered(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		ctx := t.Context()
		d := w.Enrolled("asks", "loads", "has", "silent", "later")
		rel := w.Publish("2.0.0", "raw", 2, firmware)
		p := plan(rel, fw.StagePlan{Name: "four", Count: 4, MinConfirmed: 4}, fw.StagePlan{Name: "rest", Percent: 100})
		p.Attempts, p.BackoffSeconds = 1, 3600
		c := w.Campaign(p)
		img := w.Image(rel)
		first := make([]*authz.Authorization, 4)
		for i := range first {
			first[i] = granted(t, d[i])
		}
		if err := d[2].Report(ctx, first[2], fw.EventDelivered, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Campaigns.Pause(ctx, c.ID, fwtest.Rita, "look first"); err != nil {
			t.Fatal(err)
		}
		standing(t, w, c.ID, "asks", where{fw.UpdateAuthorized, 1, 4}) // not before its contact
		for range 2 {
			r, err := d[0].CheckIn(ctx, first[0].Claims.Nonce) // even the same question again
			if err != nil || r.Action != authz.ActionNone || r.Authorization != nil || !slices.Equal(r.Refused, []fw.Reason{fw.ReasonCampaignNotRunning}) {
				t.Errorf("check-in: %+v, %v", r, err)
			}
			refusedDownload(t, d[0], img.Digest)
			standing(t, w, c.ID, "asks", where{fw.UpdatePaused, 0, 3})
		}
		for range 2 {
			refusedDownload(t, d[1], img.Digest)
			standing(t, w, c.ID, "loads", where{fw.UpdatePaused, 0, 2})
		}
		if _, err := d[2].Download(ctx, img.Digest); err != nil {
			t.Errorf("what is delivered: %v", err)
		}
		// That the withdrawn download failed is no failure of the release.
		if err := d[1].Report(ctx, first[1], fw.EventFailed, fw.FailDownload); err != nil {
			t.Fatal(err)
		}
		standing(t, w, c.ID, "loads", where{fw.UpdatePaused, 0, 2})

		if _, err := w.Campaigns.Resume(ctx, c.ID, fwtest.Rita, "fine"); err != nil {
			t.Fatal(err)
		}
		// A new authorization at once: no attempt was used, no back-off is due.
		again := granted(t, d[0])
		if again.Claims.ID == first[0].Claims.ID || again.Claims.Sequence <= first[0].Claims.Sequence {
			t.Errorf("%s of sequence %d after %s of %d", again.Claims.ID, again.Claims.Sequence, first[0].Claims.ID, first[0].Claims.Sequence)
		}
		standing(t, w, c.ID, "asks", where{fw.UpdateAuthorized, 1, 3})
		if _, err := d[0].Download(ctx, img.Digest); err != nil {
			t.Error(err)
		}
		if _, err := d[3].Download(ctx, img.Digest); err != nil {
			t.Errorf("a device that was silent all the while: %v", err)
		}
		// The place in the stage was kept: nobody else got it.
		if r, err := d[4].CheckIn(ctx, bench.Nonce()); err != nil || !slices.Contains(r.Refused, fw.ReasonStageFull) {
			t.Errorf("a fifth device in a stage of four: %+v, %v", r, err)
		}
		// A device that had the image after all is believed, and its attempt
		// counts.
		for i, a := range []*authz.Authorization{again, first[1], first[2], first[3]} {
			d[i].Run(img.Version, img.Digest, img.SecurityCounter)
			if err := d[i].Report(ctx, a, fw.EventConfirmed, ""); err != nil {
				t.Fatal(err)
			}
			standing(t, w, c.ID, d[i].ID, where{fw.UpdateConfirmed, 1, []int{2, 2, 1, 0}[i]})
		}
		if l := mustCampaign(t, w, c.ID); l.State != fw.CampaignRunning {
			t.Errorf("campaign is %s", l.State)
		}
		fwtest.CheckCampaign(t, w, c.ID)
		replay(t, w)
		verified(t, w, c.ID)
	})
}

// A gate that trips withdraws as a person does. A failure that a device
// reports of a withdrawn attempt counts: it made the attempt.
func TestAGateWithdrawsToo(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	ctx := t.Context()
	d := w.Enrolled("fails", "waits", "acts")
	rel := w.Publish("2.0.0", "raw", 2, firmware)
	none := 0
	p := plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 3, MaxFailures: &none})
	p.Attempts = 1
	c := w.Campaign(p)
	bad, _, held := granted(t, d[0]), granted(t, d[1]), granted(t, d[2])
	if err := d[0].Report(ctx, bad, fw.EventFailed, fw.FailHealth); err != nil {
		t.Fatal(err)
	}
	for _, x := range d[1:] {
		refusedDownload(t, x, w.Image(rel).Digest)
		standing(t, w, c.ID, x.ID, where{fw.UpdatePaused, 0, map[fw.DeviceID]int{"waits": 1, "acts": 0}[x.ID]})
	}
	if err := d[2].Report(ctx, held, fw.EventFailed, fw.FailHealth); err != nil {
		t.Fatal(err)
	}
	standing(t, w, c.ID, "acts", where{fw.UpdateFailed, 1, 0})
	fwtest.CheckCampaign(t, w, c.ID)
	verified(t, w, c.ID)
}

// After an abort nothing new begins: what was not delivered is cancelled at
// the next contact, and so is what an earlier pause had taken back.
func TestAnAbortCancelsWhatIsNotDelivered(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		ctx := t.Context()
		d := w.Enrolled("asks", "loads", "has", "paused")
		rel := w.Publish("2.0.0", "raw", 2, firmware)
		c := w.Campaign(plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 4}))
		img := w.Image(rel)
		first := make([]*authz.Authorization, 4)
		for i := range first {
			first[i] = granted(t, d[i])
		}
		if err := d[2].Report(ctx, first[2], fw.EventDelivered, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Campaigns.Pause(ctx, c.ID, fwtest.Rita, ""); err != nil {
			t.Fatal(err)
		}
		refusedDownload(t, d[3], img.Digest)
		if _, err := w.Campaigns.AbortKeep(ctx, c.ID, fwtest.Rita, "bad release"); err != nil {
			t.Fatal(err)
		}
		standing(t, w, c.ID, "asks", where{fw.UpdateAuthorized, 1, 3})
		for range 2 {
			if r, err := d[0].CheckIn(ctx, bench.Nonce()); err != nil || r.Action != authz.ActionNone {
				t.Errorf("check-in: %+v, %v", r, err)
			}
			standing(t, w, c.ID, "asks", where{fw.UpdateCancelled, 0, 2})
		}
		for _, x := range []*bench.Device{d[0], d[1], d[3]} {
			refusedDownload(t, x, img.Digest)
			standing(t, w, c.ID, x.ID, where{fw.UpdateCancelled, 0, map[fw.DeviceID]int{"asks": 2, "loads": 1, "paused": 1}[x.ID]})
		}
		if _, err := d[2].Download(ctx, img.Digest); err != nil {
			t.Errorf("what is delivered: %v", err)
		}
		d[2].Run(img.Version, img.Digest, img.SecurityCounter)
		if err := d[2].Report(ctx, first[2], fw.EventConfirmed, ""); err != nil {
			t.Fatal(err)
		}
		standing(t, w, c.ID, "has", where{fw.UpdateConfirmed, 1, 0})
		// A later campaign of the same release is not held back by this one.
		w.Campaign(plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 1}))
		granted(t, d[0])
		if _, err := d[0].Download(ctx, img.Digest); err != nil {
			t.Errorf("under the next campaign: %v", err)
		}
		fwtest.CheckCampaign(t, w, c.ID)
		replay(t, w)
		verified(t, w, c.ID)
	})
}

// While a campaign takes its release back, nobody gets the release's bytes.
func TestARollbackStopsDownloads(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	ctx := t.Context()
	d := w.Enrolled("loads", "other")
	back := w.Publish("1.0.1", "raw", 1, []byte("one before"))
	rel := w.Publish("2.0.0", "raw", 1, firmware)
	p := plan(rel, fw.StagePlan{Name: "all", Percent: 100, MinConfirmed: 2})
	p.Rollback = &fw.RollbackTo{Release: back.ID}
	c := w.Campaign(p)
	granted(t, d[0])
	if _, err := w.Campaigns.AbortRevert(ctx, c.ID, fwtest.Rita, "bad release"); err != nil {
		t.Fatal(err)
	}
	refusedDownload(t, d[0], w.Image(rel).Digest)
	// It may have had the bytes: it counts until its authorization is over.
	standing(t, w, c.ID, "loads", where{fw.UpdateAuthorized, 1, 1})
	if _, err := d[0].Download(ctx, w.Image(back).Digest); err != nil {
		t.Errorf("the release to go back to: %v", err)
	}
	fwtest.CheckCampaign(t, w, c.ID)
}
