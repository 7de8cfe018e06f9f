package release_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

func decode[T any](tb testing.TB, b []byte) (v T) {
	tb.Helper()
	if err := dsse.Decode(b, &v); err != nil {
		tb.Fatalf("%s: %v", b, err)
	}
	return v
}

// Both formats with both kinds of key, from the upload to the records.
func TestReleaseIsPublishedWithItsQuorumAndVerifies(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.key("image-ed", fw.PurposeImage, signer.Ed25519)
		w.product("gateway", "image-ed", 2)
		for _, p := range []fw.ProductID{product, "gateway"} {
			publishBoth(t, w, p)
		}
	})
}

func publishBoth(t *testing.T, w *world, p fw.ProductID) {
	t.Helper()
	sbom := w.upload([]byte(`{"bomFormat": "CycloneDX", "components": [{"name": "zephyr"}]}`))
	d := release.Draft{
		Product: p, Version: "1.2.0+7", Type: fw.ReleaseSecurity, Hardware: []fw.HardwareID{"board-b"}, FromVersion: ">=1.0.0, <2.0.0",
		SBOM: sbom, Notes: "Read <this> & that", Advisory: "CVE-2026-1",
		Components: []release.DraftComponent{
			{Name: "radio", Input: w.upload([]byte("radio firmware")), SecurityCounter: 9}, // detected: raw
			{Name: "main", Format: "mcuboot", Input: w.upload(payload), SecurityCounter: 3},
		},
	}
	row := w.propose(d)
	m := decode[fw.Manifest](t, row.Manifest)
	if row.State != fw.ReleaseInReview || m.ProposedBy != "rita" || m.Release != row.ID || len(m.Nonce) != 32 || m.SBOM != sbom ||
		m.Components[0].Format != "raw" || m.Components[1].InputSize != int64(len(payload)) || !cmp.Equal(m.Hardware, []fw.HardwareID{"board-b"}) {
		t.Fatalf("%s: %s", row.State, row.Manifest)
	}
	if _, err := w.svc.Publish(t.Context(), row.ID, "rita"); fw.KindOf(err) != fw.Conflict {
		t.Fatalf("published in review: %v", err)
	}
	if row = w.approve(row, "ann", "ann"); row.State != fw.ReleaseInReview {
		t.Fatalf("%s after one approver", row.State)
	}
	if row = w.approve(row, "ben"); row.State != fw.ReleaseApproved {
		t.Fatalf("%s after two approvers", row.State)
	}
	row, err := w.svc.Publish(t.Context(), row.ID, "rita")
	if err != nil {
		t.Fatal(err)
	}
	checkPublished(t, w, row)

	want := []evidence.Type{
		evidence.TypeReleaseProposed, evidence.TypeApproval, evidence.TypeApproval, evidence.TypeKeyUse, evidence.TypeKeyUse,
		evidence.TypeKeyUse, evidence.TypeKeyUse, // of the statement
		evidence.TypeReleaseSigned, evidence.TypeReleaseSigned, evidence.TypeReleaseStated, evidence.TypeReleasePublished,
	}
	stream := evidence.ReleaseStream(row.ID)
	if diff := cmp.Diff(want, types(w.records(stream))); diff != "" {
		t.Error(diff)
	}
	again, err := w.svc.Publish(t.Context(), row.ID, "rita")
	if err != nil || fw.DigestOf(again.Publication) != fw.DigestOf(row.Publication) || len(w.records(stream)) != len(want) {
		t.Errorf("publishing again: %v, %d records", err, len(w.records(stream)))
	}
}

// checkPublished verifies what a device and an auditor would.
func checkPublished(t *testing.T, w *world, row store.Release) {
	t.Helper()
	q := w.db.Snapshot(t.Context())
	stored, err := store.ReleaseByID(q, row.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored, row); diff != "" {
		t.Errorf("what was returned is not what was stored:\n%s", diff)
	}
	m, p := decode[fw.Manifest](t, row.Manifest), decode[fw.Publication](t, row.Publication)
	if row.State != fw.ReleasePublished || p.Manifest != fw.DigestOf(row.Manifest) || len(p.Images) != len(m.Components) || p.Version != m.Version {
		t.Fatalf("%s: %s", row.State, row.Publication)
	}
	signed := make(map[fw.ComponentName]evidence.Signed)
	decisions := map[int64]evidence.KeyUse{}
	for _, r := range w.records(evidence.ReleaseStream(row.ID)) {
		switch r.Type { //nolint:exhaustive // the two that matter here
		case evidence.TypeKeyUse:
			decisions[r.Index] = decode[evidence.KeyUse](t, r.Data)
		case evidence.TypeReleaseSigned:
			s := decode[evidence.Signed](t, r.Data)
			signed[s.Component] = s
		}
	}
	for i, img := range p.Images {
		c := m.Components[i]
		info, err := w.keystore.Public(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := info.Public()
		if err != nil {
			t.Fatal(err)
		}
		var envelope []byte
		if !img.Envelope.IsZero() {
			envelope = w.read(img.Envelope)
		}
		file := w.read(img.Digest)
		size := int64(len(file))
		format, _ := formats.ForName(img.Format)
		v, err := format.Verify(t.Context(), bytes.NewReader(file), size, envelope, []crypto.PublicKey{pub})
		if err != nil || *v.Info.SecurityCounter != c.SecurityCounter || v.KeyID != img.KeyID || size != img.Size || img.SecurityCounter != c.SecurityCounter {
			t.Errorf("%s: %v, %+v", img.Component, err, v)
		}
		s := signed[img.Component]
		use := decisions[s.Decision]
		if s.Output != img.Digest || s.Input != c.InputDigest || s.Key != c.Key || s.KeyID != info.KeyID || s.Permit == "" || s.Custody != "embedded-file" ||
			s.Algorithm != v.Algorithm || use.Subject != c.InputDigest || use.Key != c.Key || fw.DigestOf(use.Document) != p.Manifest {
			t.Errorf("%s: record %+v stands on %+v", img.Component, s, use)
		}
		got, err := store.ArtifactsByDigest(q, img.Digest)
		if err != nil || !cmp.Equal(got, []store.Artifact{{Digest: img.Digest, Release: row.ID, Kind: release.ArtifactImage, Size: size}}) {
			// The raw file of two products can be the same blob.
			if len(got) < 2 {
				t.Errorf("%s: artifacts %+v, %v", img.Component, got, err)
			}
		}
	}
}

func (w *world) read(d fw.Digest) []byte {
	w.t.Helper()
	f, _, err := w.blobs.Open(d)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
	return b
}

// The process ends after each step of publishing; the next one publishes with
// decisions of its own.
func TestPublishingIsRepeatedAfterACrash(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		for i, crash := range []func(row store.Release){
			func(row store.Release) { // decided, not signed
				if _, err := release.Authorize(w.svc, t.Context(), row.ID, "rita"); err != nil {
					t.Fatal(err)
				}
			},
			func(row store.Release) { // signed, not published
				warrant, err := release.Authorize(w.svc, t.Context(), row.ID, "rita")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := release.SignAll(w.svc, t.Context(), warrant); err != nil {
					t.Fatal(err)
				}
				_, err = release.SignAll(w.svc, t.Context(), warrant)
				wantError(t, err, fw.Conflict, "permit", "new decision")
			},
		} {
			row := w.approved([]string{"1.0.0", "1.1.0"}[i])
			crash(row)
			w.restart()
			row, err := w.svc.Publish(t.Context(), row.ID, "rita")
			if err != nil {
				t.Fatal(err)
			}
			checkPublished(t, w, row)
		}
	})
}

func TestPublishingStandsOnWhatIsApprovedAtThatMoment(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		row := w.approved("1.0.0")
		warrant, err := release.Authorize(w.svc, t.Context(), row.ID, "rita")
		if err != nil {
			t.Fatal(err)
		}
		images, err := release.SignAll(w.svc, t.Context(), warrant)
		if err != nil {
			t.Fatal(err)
		}
		stated, err := release.State(w.svc, t.Context(), warrant, images, "rita")
		if err != nil {
			t.Fatal(err)
		}
		// Edited and approved anew while the old bytes were being signed.
		row, err = w.svc.Edit(t.Context(), row.ID, w.draft("1.0.1"), "rita")
		if err != nil {
			t.Fatal(err)
		}
		_, err = release.Commit(w.svc, t.Context(), warrant, images, stated, "rita")
		wantError(t, err, fw.Conflict, "in_review")
		row = w.approve(row, "ann", "ben")
		_, err = release.Commit(w.svc, t.Context(), warrant, images, stated, "rita")
		wantError(t, err, fw.Conflict, "edited while")

		// An approver who is gone does not count, approved or not.
		if _, err := w.approvers.RemoveApprover(t.Context(), "ben", "root"); err != nil {
			t.Fatal(err)
		}
		_, err = w.svc.Publish(t.Context(), row.ID, "rita")
		wantError(t, err, fw.Forbidden, "1 of 2")
		row = w.approve(row, "cleo")
		if row, err = w.svc.Publish(t.Context(), row.ID, "rita"); err != nil {
			t.Fatal(err)
		}
		checkPublished(t, w, row)
	})
}

// Somebody changes the stored image after the approvals.
func TestATamperedImageIsNotSigned(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	row := w.approved("1.0.0")
	digest := fw.DigestOf(payload)
	w.damage(digest)
	_, err := w.svc.Publish(t.Context(), row.ID, "rita")
	wantError(t, err, fw.Forbidden, "has digest", digest.String())
	if row, err = store.ReleaseByID(w.db.Snapshot(t.Context()), row.ID); err != nil || row.State != fw.ReleaseApproved {
		t.Fatalf("%s, %v", row.State, err)
	}
	// A damaged file does not count as being here: uploading it again heals.
	up, err := w.svc.Uploads().Start(t.Context(), "rita", digest, int64(len(payload)))
	if err != nil || up.Done {
		t.Fatalf("%+v, %v", up, err)
	}
	w.upload(payload)
	if row, err = w.svc.Publish(t.Context(), row.ID, "rita"); err != nil {
		t.Fatal(err)
	}
	checkPublished(t, w, row)
}

func TestAWithdrawnReleaseStaysWithdrawn(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		row, err := w.svc.Publish(t.Context(), w.approved("1.0.0").ID, "rita")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.svc.Withdraw(t.Context(), row.ID, "", "sam")
		wantError(t, err, fw.Invalid, "say why")
		for range 2 { // a repeat is no second withdrawal
			if row, err = w.svc.Withdraw(t.Context(), row.ID, "bricks board-a", "sam"); err != nil || row.State != fw.ReleaseWithdrawn {
				t.Fatalf("%s, %v", row.State, err)
			}
		}
		if !cmp.Equal(w.changed, []fw.ProductID{product}) {
			t.Errorf("told of %v", w.changed)
		}
		records := w.records(evidence.ReleaseStream(row.ID))
		last := records[len(records)-1]
		if got := decode[evidence.Withdrawn](t, last.Data); last.Type != evidence.TypeReleaseWithdrawn || last.Actor != "sam" || got.Reason != "bricks board-a" ||
			records[len(records)-2].Type != evidence.TypeReleasePublished {
			t.Errorf("%s by %s: %+v", last.Type, last.Actor, got)
		}
		_, err = w.svc.Publish(t.Context(), row.ID, "rita")
		wantError(t, err, fw.Conflict, "withdrawn")
		_, err = w.svc.ApproveRelease(t.Context(), row.ID, w.sign("cleo", row.Manifest))
		wantError(t, err, fw.Conflict, "withdrawn")
		_, err = w.svc.Edit(t.Context(), row.ID, w.draft("1.0.0"), "rita")
		wantError(t, err, fw.Conflict, "propose a new release")
		w.propose(w.draft("1.0.0")) // the version is free again
	})
}

func TestApprovalsOfCampaignsAreTakenAndToldOf(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		rel := w.propose(w.draft("1.0.0"))
		plan, err := json.Marshal(fw.Plan{Type: fw.TypePlan, Campaign: "cmp_1", Stages: []fw.StagePlan{{Name: "canary"}, {Name: "all", NeedsApproval: true}}})
		if err != nil {
			t.Fatal(err)
		}
		digest := fw.DigestOf(plan)
		row := store.Campaign{ID: "cmp_1", Product: product, Release: rel.ID, Name: "c", State: fw.CampaignInReview, Plan: plan, PlanDigest: digest[:], Status: []byte("{}"), Proposer: "rita"}
		if err := w.db.Tx(t.Context(), func(tx *store.Tx) error { return store.InsertCampaign(tx, row) }); err != nil {
			t.Fatal(err)
		}
		if _, err := w.svc.ApproveCampaign(t.Context(), "cmp_1", w.sign("ann", plan)); err != nil {
			t.Fatal(err)
		}
		stage, err := json.Marshal(map[string]any{"campaign": "cmp_1", "stage": 1, "name": "all"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.svc.ApproveStage(t.Context(), "cmp_1", 1, w.sign("ben", stage)); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(w.told, []fw.CampaignID{"cmp_1", "cmp_1"}) {
			t.Errorf("told of %v", w.told)
		}
		var kinds []string
		for _, r := range w.records(evidence.CampaignStream("cmp_1")) {
			kinds = append(kinds, decode[evidence.Approval](t, r.Data).SubjectType)
		}
		if !cmp.Equal(kinds, []string{"campaign", "stage"}) {
			t.Errorf("records of %v", kinds)
		}
		_, err = w.svc.ApproveStage(t.Context(), "cmp_1", 0, w.sign("ben", stage))
		wantError(t, err, fw.Conflict, "needs no approval")
		_, err = w.svc.ApproveStage(t.Context(), "cmp_1", 2, w.sign("ben", stage))
		wantError(t, err, fw.Invalid, "2 stages")
		_, err = w.svc.ApproveCampaign(t.Context(), "cmp_1", w.sign("ben", stage))
		wantError(t, err, fw.Conflict, "edited since")
		row.State = fw.CampaignAborted
		if err := w.db.Tx(t.Context(), func(tx *store.Tx) error { return store.PutCampaign(tx, row) }); err != nil {
			t.Fatal(err)
		}
		_, err = w.svc.ApproveCampaign(t.Context(), "cmp_1", w.sign("ben", plan))
		wantError(t, err, fw.Conflict, "aborted")
	})
}
