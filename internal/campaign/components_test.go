package campaign_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/store"
)

// both publishes a release of two components.
func both(t *testing.T, w *fwtest.World) store.Release {
	t.Helper()
	ctx := t.Context()
	r, err := w.Releases.Propose(ctx, release.Draft{
		Product: fwtest.Product, Version: "2.0.0", Type: fw.ReleaseFunctional, Hardware: []fw.HardwareID{fwtest.Hardware},
		Components: []release.DraftComponent{
			{Name: fw.MainComponent, Format: "raw", Input: w.Upload([]byte("main firmware")), SecurityCounter: 1},
			{Name: "radio", Format: "raw", Input: w.Upload([]byte("radio firmware")), SecurityCounter: 1},
		},
	}, fwtest.Rita)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Releases.ApproveRelease(ctx, r.ID, release.Signature{Person: fwtest.Ann, Armored: w.Sign(fwtest.Ann, r.Manifest)}); err != nil {
		t.Fatal(err)
	}
	if r, err = w.Releases.Publish(ctx, r.ID, fwtest.Rita); err != nil {
		t.Fatal(err)
	}
	return r
}

func checkIn(t *testing.T, d *bench.Device) authz.CheckInReply {
	t.Helper()
	r, err := d.CheckIn(t.Context(), bench.Nonce())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A release of two images for devices that have one component is refused
// where the campaign is planned, not device by device after it was approved.
func TestAReleaseThatNoDeviceCanTakeIsRefusedInThePlan(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	ctx := t.Context()
	d := w.Enrolled("plain", "rich")
	rel := both(t, w)
	p := fw.Plan{
		Name: "both", Release: rel.ID, Cohort: "true", Attempts: 1, AuthorizationTTL: 600, OnFailure: fw.FailurePause, Quorum: 1,
		Stages: []fw.StagePlan{{Name: "all", Percent: 100}},
	}
	// Nobody has checked in: nothing is known, so nothing is refused.
	c, err := w.Campaigns.Propose(ctx, p, fwtest.Rita)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range d {
		checkIn(t, x)
	}
	refused := func(what string, err error) {
		t.Helper()
		if fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "main and radio") || !strings.Contains(err.Error(), "plain has main") || !strings.Contains(err.Error(), "each component by itself") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = w.Campaigns.Propose(ctx, p, fwtest.Rita)
	refused("proposing", err)
	_, err = w.Campaigns.Edit(ctx, c.ID, p, fwtest.Rita)
	refused("editing", err)

	// One device of the cohort has both: the campaign is for it, and the
	// other is refused with its reason.
	err = w.DB.Tx(ctx, func(tx *store.Tx) error {
		dev, err := store.DeviceByID(tx, "rich")
		if err != nil {
			return err
		}
		dev.Facts, err = json.Marshal(campaign.Reported{Components: []policy.ComponentFacts{{Name: fw.MainComponent, Version: "1.0.0"}, {Name: "radio", Version: "1.0.0"}}})
		if err != nil {
			return err
		}
		return store.SetDeviceFacts(tx, &dev)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Campaign(p)
	if r := checkIn(t, d[0]); r.Action != authz.ActionNone || len(r.Refused) != 1 || r.Refused[0] != fw.ReasonComponentUnknown {
		t.Errorf("a device with one component: %+v", r)
	}
	// A cohort without it is refused again.
	p.Cohort = `device.id == "plain"`
	_, err = w.Campaigns.Propose(ctx, p, fwtest.Rita)
	refused("proposing for the others", err)
}
