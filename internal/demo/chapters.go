package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/operator"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/verify"
)

// maxImage bounds the user's own firmware in bytes: it goes to every device.
const maxImage = 64 << 20

// loadFirmware returns the payload that the demo's releases are made of.
func loadFirmware(path string) ([]byte, error) {
	if path == "" {
		// 256 KiB that do not compress, the same each time.
		src := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // filler, not a secret
		b := make([]byte, 256<<10)
		for i := range b {
			b[i] = byte(src.Uint32() & 0xff)
		}
		return b, nil
	}
	f, err := os.Stat(path)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the firmware %s", path)
	}
	if f.Size() == 0 || f.Size() > maxImage {
		return nil, fw.Errorf(fw.Invalid, "the firmware %s has %d bytes: the demo takes 1 to %d", path, f.Size(), maxImage)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the firmware %s", path)
	}
	return b, nil
}

// with returns firmware with a line of text at its end.
func with(firmware []byte, text string) []byte {
	return append(bytes.Clone(firmware), "\n"+text+"\n"...)
}

// cast is who plays which part.
type cast struct {
	ids     []fw.DeviceID
	suspect fw.DeviceID // quarantined
	flash   fw.DeviceID // has a flash chip that flips a bit, once
	drawer  fw.DeviceID // its certificate ends while it lies in a drawer
	ends    time.Time   // when
}

func (s *story) tell(ctx context.Context, firmware []byte) error {
	first, err := s.factoryRelease(ctx, firmware)
	if err != nil {
		return err
	}
	c, err := s.buildFleet(ctx, first)
	if err != nil {
		return err
	}
	if err := s.badRelease(ctx, firmware, c); err != nil {
		return err
	}
	fixed, err := s.fixedRelease(ctx, firmware, c)
	if err != nil {
		return err
	}
	return s.prove(ctx, fixed)
}

func (s *story) factoryRelease(ctx context.Context, firmware []byte) (fw.SignedImage, error) {
	s.chapter("Release 1.0.0: signed once, and only under approval")
	r, err := s.crew.Propose(ctx, operator.Firmware{
		Product: product, Version: "1.0.0", Format: "mcuboot", Counter: 1, Type: fw.ReleaseFunctional, Image: with(firmware, "thermostat 1.0.0"),
	})
	if err != nil {
		return fw.SignedImage{}, err
	}
	_, err = s.server.Releases.Publish(ctx, r.ID, operator.Engineer)
	s.expect(err != nil, "publishing without approval is refused: %v", err)
	err = s.crew.ApproveRelease(ctx, operator.Engineer, r)
	s.expect(err != nil, "Erin cannot approve what she proposed: %v", err)
	if err := s.crew.ApproveRelease(ctx, operator.Approver, r); err != nil {
		return fw.SignedImage{}, err
	}
	if r, err = s.server.Releases.Publish(ctx, r.ID, operator.Engineer); err != nil {
		return fw.SignedImage{}, err
	}
	var pub fw.Publication
	if err := json.Unmarshal(r.Publication, &pub); err != nil {
		return fw.SignedImage{}, fw.Wrap(fw.Corrupt, err, "cannot read the publication")
	}
	img := pub.Images[0]
	s.expect(r.State == fw.ReleasePublished, "Alice approved; an MCUboot image of %d bytes was signed, verified again by other code, and published", img.Size)
	return img, nil
}

func (s *story) buildFleet(ctx context.Context, img fw.SignedImage) (*cast, error) {
	s.chapter(fmt.Sprintf("A fleet of %d devices, each a process with its own key and two slots", s.o.Devices))
	line, err := s.fleet.prepare(ctx, img)
	if err != nil {
		return nil, err
	}
	c := &cast{}
	for i := range s.o.Devices {
		c.ids = append(c.ids, fw.DeviceID(fmt.Sprintf("TS-%04d", i+1)))
	}
	c.suspect, c.flash, c.drawer = c.ids[2], c.ids[3], "TS-DRAWER"
	all := append([]fw.DeviceID{c.drawer}, c.ids...)
	err = s.fleet.enrol(ctx, all, line, func(id fw.DeviceID) string {
		if id != c.flash {
			return ""
		}
		// Once, and only when this image is the fixed one, a bit flips on its
		// way to flash.
		return `[ "$WRIT_VERSION" = 1.1.1 ] && [ ! -e "$WRIT_SLOT_DIR/../flipped" ] && : > "$WRIT_SLOT_DIR/../flipped" && printf X | dd of="$1" bs=1 seek=4321 conv=notrunc 2>/dev/null; true`
	})
	if err != nil {
		return nil, err
	}
	s.say("%d devices registered by serial list, enrolled with one-time tokens, on certificates from the built-in CA", len(all))
	if c.ends, err = s.shortCertificate(ctx, s.fleet.devices[0]); err != nil {
		return nil, err
	}
	s.say("%s got a certificate for one minute and goes into a drawer, switched off", c.drawer)
	for _, d := range s.fleet.devices[1:] {
		if err := s.fleet.start(d); err != nil {
			return nil, err
		}
	}
	ok, err := s.await(ctx, 30*time.Second, func() (bool, string, error) {
		n := 0
		for _, id := range c.ids {
			d, err := store.DeviceByID(s.server.DB.Snapshot(ctx), id)
			if err != nil {
				return false, "", err
			}
			if d.Facts != nil {
				n++
			}
		}
		return n == len(c.ids), fmt.Sprintf("%d of %d have checked in", n, len(c.ids)), nil
	})
	s.expect(ok, "all %d agents check in over mutual TLS and run %v", len(c.ids), s.fleet.versions())
	return c, err
}

// shortCertificate gives a device a certificate that ends in a minute, for the
// key it has.
func (s *story) shortCertificate(ctx context.Context, d *device) (time.Time, error) {
	csr, leaf, err := d.request()
	if err != nil {
		return time.Time{}, err
	}
	brief := enroll.NewEnrolment(enroll.Options{
		DB: s.server.DB, Ledger: s.server.Ledger, Authority: s.server.Authority,
		Profile: pki.DeviceProfile{Life: time.Minute, RenewBefore: time.Second},
	})
	chain, err := brief.Renew(ctx, pki.Fingerprint(leaf), csr)
	if err != nil {
		return time.Time{}, err
	}
	return d.adopt(chain)
}

func (s *story) badRelease(ctx context.Context, firmware []byte, c *cast) error {
	s.chapter("Release 1.1.0 has a bug that no review saw")
	r, err := s.crew.Publish(ctx, operator.Firmware{
		Product: product, Version: "1.1.0", Format: "mcuboot", Counter: 2, Type: fw.ReleaseFunctional, Notes: "New sensor driver.",
		Image: with(firmware, "thermostat 1.1.0 "+brokenMark),
	})
	if err != nil {
		return err
	}
	none := 0
	row, err := s.crew.Campaign(ctx, fw.Plan{
		Name: "sensor driver", Release: r.ID, Cohort: `device.attributes["site"] == "berlin"`,
		Stages: []fw.StagePlan{
			{Name: "canary", Count: 2, MinConfirmed: 2, MaxFailures: &none},
			{Name: "everyone", Percent: 100, MinConfirmed: len(c.ids) - 2},
		},
		Attempts: 1, AuthorizationTTL: 600, OnFailure: fw.FailurePause, Quorum: 1,
	})
	if err != nil {
		return err
	}
	s.say("Alice approved the plan: a canary of 2, no failure allowed, then everyone")
	ok, err := s.await(ctx, 40*time.Second, func() (bool, string, error) {
		row, err := s.campaign(ctx, row.ID)
		if err != nil {
			return false, "", err
		}
		n, _, err := s.updates(ctx, row.ID)
		return row.State == fw.CampaignPaused, fmt.Sprintf("authorized %d, delivered %d, installed %d, failed %d", n[fw.UpdateAuthorized], n[fw.UpdateDelivered], n[fw.UpdateInstalled], n[fw.UpdateFailed]), err
	})
	if err != nil {
		return err
	}
	s.expect(ok, "the canary's health check failed after the restart; the campaign paused by itself")
	members := 0
	_, list, err := s.updates(ctx, row.ID)
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.Member {
			members++
		}
	}
	s.expect(members >= 1 && members <= 2, "%d devices were authorized, never more than the canary's 2, of %d that asked", members, len(list))
	// A canary that had not reported when the gate tripped is still on its way back.
	ok, err = s.await(ctx, 20*time.Second, func() (bool, string, error) { return s.fleet.versions()["1.0.0"] == len(s.fleet.devices), "", nil })
	if err != nil {
		return err
	}
	s.expect(ok, "every device runs 1.0.0: the canary fell back to its other slot (%v)", s.fleet.versions())
	if _, err := s.server.Campaigns.AbortKeep(ctx, row.ID, operator.Engineer, "fixed in 1.1.1"); err != nil {
		return err
	}
	_, err = s.server.Releases.Withdraw(ctx, r.ID, "sensor driver fails on start", operator.Officer)
	s.say("Erin aborted the campaign; Oscar withdrew release 1.1.0 for ever")
	return err
}

func (s *story) fixedRelease(ctx context.Context, firmware []byte, c *cast) (fw.CampaignID, error) {
	s.chapter("Release 1.1.1 fixes it, and three devices are not like the others")
	if err := s.server.Devices.Move(ctx, c.suspect, fw.DeviceQuarantined, "opened housing reported by the installer", operator.Officer); err != nil {
		return "", err
	}
	s.say("Oscar quarantined %s; %s has a flash chip about to flip a bit; %s is still in its drawer", c.suspect, c.flash, c.drawer)
	r, err := s.crew.Publish(ctx, operator.Firmware{
		Product: product, Version: "1.1.1", Format: "mcuboot", Counter: 3, Type: fw.ReleaseSecurity, Advisory: "Fixes a buffer overflow in the pairing service and the sensor driver.",
		Image: with(firmware, "thermostat 1.1.1"),
	})
	if err != nil {
		return "", err
	}
	healthy, one := len(c.ids)-1, 2
	// The last stage soaks until the device in the drawer has had its say.
	soak := max(int64(time.Until(c.ends).Seconds()), 0) + 3
	row, err := s.crew.Campaign(ctx, fw.Plan{
		Name: "1.1.1 for all", Release: r.ID, Cohort: `device.attributes["site"] == "berlin"`,
		Stages: []fw.StagePlan{
			{Name: "canary", Count: 2, MinConfirmed: 2, MaxFailures: &one, SoakSeconds: 1},
			{Name: "everyone", Percent: 100, MinConfirmed: healthy - 2, MaxFailures: &one, SoakSeconds: soak},
		},
		Attempts: 3, BackoffSeconds: 1, AuthorizationTTL: 600, OnFailure: fw.FailurePause, Quorum: 1,
	})
	if err != nil {
		return "", err
	}
	killed := false
	ok, err := s.await(ctx, 60*time.Second, func() (bool, string, error) {
		n, list, err := s.updates(ctx, row.ID)
		if !killed && n[fw.UpdateConfirmed] >= 2 {
			killed = s.powerCut(list)
		}
		return n[fw.UpdateConfirmed] >= healthy, fmt.Sprintf("%d of %d confirmed", n[fw.UpdateConfirmed], healthy), err
	})
	if err != nil {
		return "", err
	}
	s.expect(ok, "%d devices run 1.1.1 and said so under their own keys, after the restart", healthy)
	if killed {
		s.say("one of them lost power (kill -9) in the middle and went on where it was")
	}
	if err := s.oddOnes(ctx, row.ID, c); err != nil {
		return "", err
	}
	ok, err = s.await(ctx, 30*time.Second, func() (bool, string, error) {
		row, err := s.campaign(ctx, row.ID)
		return row.State == fw.CampaignCompleted, "the last stage soaks", err
	})
	s.expect(ok, "every gate passed and the campaign completed")
	return row.ID, err
}

// powerCut kills the agent of one device whose update is under way.
func (s *story) powerCut(list []store.Update) bool {
	for _, u := range list {
		if u.State != fw.UpdateAuthorized && u.State != fw.UpdateDelivered {
			continue
		}
		for _, d := range s.fleet.devices {
			if d.id == u.Device {
				d.kill()
				return true
			}
		}
	}
	return false
}

// oddOnes checks what became of the three devices that are not like the
// others.
func (s *story) oddOnes(ctx context.Context, id fw.CampaignID, c *cast) error {
	q := s.server.DB.Snapshot(ctx)
	events, err := deviceRecords[evidence.Integrity](q, c.flash, evidence.TypeIntegrity)
	if err != nil {
		return err
	}
	rejected := len(events) == 1 && events[0].Reason == fw.RejectImageDigest
	u, _, err := store.UpdateOf(q, id, c.flash)
	if err != nil {
		return err
	}
	s.expect(rejected && u.State == fw.UpdateConfirmed && u.Attempts == 2, "%s refused the corrupted image (%s) before switching to it, and took a good one at attempt %d", c.flash, fw.RejectImageDigest, u.Attempts)

	reasons, err := refusals(q, id, c.suspect)
	if err != nil {
		return err
	}
	s.expect(slices.Contains(reasons, fw.ReasonQuarantined), "%s was refused, and the record says why: %v", c.suspect, reasons)

	if wait := time.Until(c.ends.Add(time.Second)); wait > 0 {
		s.say("… %s until the certificate of %s ends", wait.Round(time.Second), c.drawer)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	if err := s.fleet.start(s.fleet.devices[0]); err != nil {
		return err
	}
	ok, err := s.await(ctx, 15*time.Second, func() (bool, string, error) {
		reasons, err = refusals(s.server.DB.Snapshot(ctx), id, c.drawer)
		return slices.Contains(reasons, fw.ReasonCertificateExpired), "", err
	})
	s.expect(ok, "%s, out of its drawer with an expired certificate, was refused: %v", c.drawer, reasons)
	return err
}

// refusals returns the reasons of the newest refusal of a device in a campaign.
func refusals(q store.Queryer, id fw.CampaignID, d fw.DeviceID) ([]fw.Reason, error) {
	list, err := deviceRecords[docket.Decision](q, d, evidence.TypeDecision)
	if err != nil {
		return nil, err
	}
	var out []fw.Reason
	for _, dec := range list {
		if dec.Campaign == id && !dec.Decision.Allow {
			out = dec.Decision.Reasons
		}
	}
	return out, nil
}

// deviceRecords decodes the records of one type in a device's stream.
func deviceRecords[T any](q store.Queryer, d fw.DeviceID, t evidence.Type) ([]T, error) {
	rows, err := store.StreamRecords(q, string(evidence.DeviceStream(d)), 1, 1000)
	if err != nil {
		return nil, err
	}
	var out []T
	for _, row := range rows {
		if evidence.Type(row.Type) != t {
			continue
		}
		rec, err := evidence.Decode(row.Body)
		if err != nil {
			return nil, err
		}
		var v T
		if err := json.Unmarshal(rec.Data, &v); err != nil {
			return nil, fw.Wrap(fw.Corrupt, err, "cannot read record %d", row.Index)
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *story) prove(ctx context.Context, id fw.CampaignID) error {
	s.chapter("The proof: what an auditor gets, and checks without us")
	path := filepath.Join(s.dir, "campaign.writ-bundle")
	f, err := os.Create(path)
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot write %s", path)
	}
	if err := s.server.Ledger.Export(ctx, ledger.BundleQuery{Campaign: id}, f, nil); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot write %s", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot read %s", path)
	}
	rep, err := verify.Verify(ctx, bytes.NewReader(b), verify.Options{})
	if err != nil {
		return err
	}
	s.expect(rep.Verdict == verify.Verified, "a bundle of %d bytes, %d records: %s; every signature checked, every decision and stage transition executed again with the same result", len(b), rep.Counts.Records, rep.Verdict)
	for _, f := range rep.Findings {
		s.say("%s: %s", f.Severity, f.What)
	}
	bad := bytes.Clone(b)
	bad[len(bad)/2] ^= 1
	again, err := verify.Verify(ctx, bytes.NewReader(bad), verify.Options{})
	s.expect(err != nil || again.Verdict != verify.Verified, "with one bit changed it does not verify")
	for _, n := range rep.NotProven {
		s.say("not proven: %s", n)
	}
	return nil
}
