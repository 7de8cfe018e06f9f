package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/store"
)

func open(t *testing.T, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestAFailingWriteTakesNoCompanionDown(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		db := open(t, url)
		var wg sync.WaitGroup
		boom := errors.New("boom")
		for i := range 100 {
			wg.Go(func() {
				err := db.Tx(context.Background(), func(tx *store.Tx) error {
					if err := store.PutSetting(tx, fmt.Sprintf("s%02d", i), []byte("v")); err != nil {
						return err
					}
					switch i % 10 {
					case 3:
						return boom
					case 7:
						panic("bug")
					}
					return nil
				})
				switch {
				case i%10 == 3 && !errors.Is(err, boom):
					t.Errorf("write %d: got %v, want boom", i, err)
				case i%10 == 7 && fw.KindOf(err) != fw.Internal:
					t.Errorf("write %d: got %v, want an internal error", i, err)
				case i%10 != 3 && i%10 != 7 && err != nil:
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		for i := range 100 {
			v, err := store.Setting(db.Snapshot(t.Context()), fmt.Sprintf("s%02d", i))
			if err != nil {
				t.Fatal(err)
			}
			if want := i%10 != 3 && i%10 != 7; (v != nil) != want {
				t.Errorf("setting %d stored: %v, want %v", i, v != nil, want)
			}
		}
	})
}

func TestEveryStatementPreparesAndRoundTrips(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		db := open(t, url)
		d := fw.DigestOf([]byte("x"))
		err := db.Tx(t.Context(), func(tx *store.Tx) error {
			now := tx.Now().Unix()
			steps := []error{
				second(store.InsertProduct(tx, store.Product{ID: "p", Name: "P", Hardware: "[]", CreatedAt: now})),
				second(store.InsertDevice(tx, store.Device{ID: "d", Product: "p", Hardware: "h", State: fw.DeviceManufactured, Attributes: "{}", StateAt: now, CreatedAt: now})),
				store.SetDeviceState(tx, "d", fw.DeviceManufactured, fw.DeviceClaimed, "because"),
				store.SetDeviceFacts(tx, &store.Device{ID: "d", Facts: []byte("{}"), FactsDigest: d[:], OptedOut: true}),
				store.SetDeviceSequence(tx, "d", 7),
				store.SetDeviceIntegrity(tx, "d", "ok", 5),
				store.SetDeviceAttributes(tx, "d", `{"a":"b"}`),
				store.InsertCertificate(tx, store.Certificate{Serial: "01", Device: "d", State: fw.CertIssued, Fingerprint: d[:], Thumbprint: d[:], DER: []byte{1}, NotAfter: now + 100}),
				store.SetCertificateState(tx, "01", fw.CertIssued, fw.CertRevoked),
				store.TouchDevices(tx, map[fw.Digest]int64{d: 9}),
				store.InsertEnrolmentToken(tx, store.EnrolmentToken{Hash: d[:], Device: "d", ExpiresAt: now + 1}),
				second(store.UseEnrolmentToken(tx, d[:])),
				second(store.InsertPerson(tx, store.Person{ID: "ann", Name: "Ann"})),
				store.InsertAccessToken(tx, store.AccessToken{ID: "t", Person: "ann", Hash: d[:]}),
				second(store.RevokeAccessToken(tx, "t")),
				store.SetPersonDisabled(tx, "ann"),
				store.InsertVersioned(tx, store.RosterTable, store.Versioned{Version: 1, Envelope: []byte("e")}),
				second(store.InsertApproval(tx, store.Approval{Subject: d, Person: "ann", Armored: "a"})),
				store.InsertRelease(tx, store.Release{ID: "r", Product: "p", Version: "1", State: fw.ReleaseApproved, Manifest: []byte("m"), ManifestDigest: d[:]}),
				store.PublishRelease(tx, store.Release{ID: "r", Publication: []byte("p"), PublicationDigest: d[:], PublishedAt: 3}),
				store.InsertArtifact(tx, store.Artifact{Digest: d, Release: "r", Kind: "image", Size: 5}),
				store.InsertArtifact(tx, store.Artifact{Digest: d, Release: "r", Kind: "image", Size: 5}),
				store.InsertUpload(tx, store.Upload{ID: "u", Person: "ann", Digest: d, Size: 4}),
				store.FinishUpload(tx, "u"),
				second(store.InsertPolicy(tx, store.Policy{Digest: d, Name: "n", Body: []byte("b")})),
				store.InsertCampaign(tx, store.Campaign{ID: "c", Product: "p", Release: "r", State: fw.CampaignDraft, Plan: []byte("p"), PlanDigest: d[:], Status: []byte("{}")}),
				store.PutCampaign(tx, store.Campaign{ID: "c", Release: "r", State: fw.CampaignRunning, Plan: []byte("p"), PlanDigest: d[:], Status: []byte("{}"), NextTimer: 4}),
				store.InsertUpdate(tx, &store.Update{ID: "up", Campaign: "c", Device: "d", State: fw.UpdatePending}),
				store.PutUpdate(tx, &store.Update{ID: "up", Campaign: "c", Device: "d", State: fw.UpdateAuthorized, Member: true}),
				store.InsertAuthorization(tx, store.Authorization{ID: "a", Update: "up", Device: "d", Campaign: "c", Nonce: []byte{1}, Sequence: 1, COSE: []byte{2}, IssuedAt: now}),
				store.InsertReport(tx, "d", 1, store.ReportRow{Digest: d, Index: 3}),
				store.PutLogHead(tx, store.LogHead{Size: 1, Root: d[:], Checkpoint: []byte("c"), RootSig: []byte("s")}),
				store.InsertRecords(tx, []store.RecordRow{{Index: 0, Type: "t", Commitment: d[:], Salt: d[:], Body: []byte("{}")}}),
				store.InsertStreamLinks(tx, []store.StreamLink{{Stream: "device/d", N: 1}}),
				store.PutStreams(tx, []store.StreamRow{{ID: "device/d", N: 1, Head: d[:]}}),
				store.InsertTile(tx, 0, 0, []byte("tile")),
				store.PutCheckpoint(tx, store.CheckpointRow{Size: 1, Note: []byte("n")}),
			}
			return errors.Join(steps...)
		})
		if err != nil {
			t.Fatal(err)
		}
		q := db.Snapshot(t.Context())
		reads := map[string]func() (any, error){
			"product":      func() (any, error) { return store.ProductByID(q, "p") },
			"products":     func() (any, error) { return some(store.Products(q)) },
			"device":       func() (any, error) { return store.DeviceByID(q, "d") },
			"devices":      func() (any, error) { return some(store.Devices(q, store.DeviceFilter{Product: "p", Limit: 5})) },
			"counts":       func() (any, error) { return store.CountDevices(q, "") },
			"seen":         func() (any, error) { return store.LastSeen(q, "d") },
			"cert":         func() (any, error) { return store.CertificateByFingerprint(q, d[:]) },
			"cert serial":  func() (any, error) { return store.CertificateBySerial(q, "01") },
			"certs":        func() (any, error) { return some(store.CertificatesOfDevice(q, "d")) },
			"thumb":        func() (any, error) { return store.DeviceOfThumbprint(q, d[:], "other") },
			"revoked":      func() (any, error) { return some(store.RevokedCertificates(q, 0)) },
			"token":        func() (any, error) { return store.EnrolmentTokenByHash(q, d[:]) },
			"person":       func() (any, error) { return store.PersonByID(q, "ann") },
			"people":       func() (any, error) { return some(store.People(q)) },
			"access":       func() (any, error) { return store.AccessTokenByHash(q, d[:]) },
			"tokens":       func() (any, error) { return some(store.AccessTokens(q)) },
			"roster":       func() (any, error) { return store.LatestVersioned(q, store.RosterTable) },
			"rosters":      func() (any, error) { return some(store.VersionedDocs(q, store.RosterTable)) },
			"approvals":    func() (any, error) { return some(store.Approvals(q, d)) },
			"release":      func() (any, error) { return store.ReleaseByID(q, "r") },
			"releases":     func() (any, error) { return some(store.Releases(q, store.ReleaseFilter{Limit: 9})) },
			"artifacts":    func() (any, error) { return some(store.ArtifactsByDigest(q, d)) },
			"upload":       func() (any, error) { return store.UploadByID(q, "u") },
			"policy":       func() (any, error) { return store.PolicyByDigest(q, d) },
			"policies":     func() (any, error) { return some(store.Policies(q)) },
			"campaign":     func() (any, error) { return store.CampaignByID(q, "c") },
			"campaigns":    func() (any, error) { return some(store.Campaigns(q, store.CampaignFilter{Product: "p", Limit: 3})) },
			"live":         func() (any, error) { return some(store.LiveCampaigns(q, "p")) },
			"due":          func() (any, error) { return some(store.DueCampaigns(q, 10)) },
			"update":       func() (any, error) { return store.UpdateByID(q, "up") },
			"updates":      func() (any, error) { return some(store.UpdatesOfCampaign(q, "c", "", 5)) },
			"device's":     func() (any, error) { return some(store.UpdatesOfDevice(q, "d", 5)) },
			"auth":         func() (any, error) { return store.AuthorizationByID(q, "a") },
			"newest grant": func() (any, error) { return store.NewestGrant(q, "d") },
			"granted":      func() (any, error) { return store.CountGrantedSince(q, "c", 0) },
			"head":         func() (any, error) { return store.ReadLogHead(q) },
			"record":       func() (any, error) { return store.RecordByIndex(q, 0) },
			"records":      func() (any, error) { return some(store.Records(q, 0, 5)) },
			"stream":       func() (any, error) { return store.ReadStream(q, "device/d") },
			"stream recs":  func() (any, error) { return some(store.StreamRecords(q, "device/d", 1, 5)) },
			"commitments":  func() (any, error) { return some(store.Commitments(q, 0, 1)) },
			"tile":         func() (any, error) { return store.ReadTile(q, 0, 0) },
			"checkpoints":  func() (any, error) { return some(store.Checkpoints(q)) },
			"all streams":  func() (any, error) { return nil, store.Streams(q, func(store.StreamRow) error { return nil }) },
			"report known": func() (any, error) { r, _, err := store.ReportBySequence(q, "d", 1); return r, err },
		}
		for name, read := range reads {
			if _, err := read(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		u, ok, err := store.UpdateOf(q, "c", "d")
		if err != nil || !ok || u.State != fw.UpdateAuthorized || !u.Member {
			t.Errorf("update of c, d: %+v, %v, %v", u, ok, err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func some[T any](list []T, err error) (any, error) {
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("got %d rows, want 1", len(list))
	}
	return list, err
}

func TestFinalStatesAreNeverLeft(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		db := open(t, url)
		err := db.Tx(t.Context(), func(tx *store.Tx) error {
			if _, err := store.InsertProduct(tx, store.Product{ID: "p", Hardware: "[]"}); err != nil {
				return err
			}
			_, err := store.InsertDevice(tx, store.Device{ID: "d", Product: "p", Hardware: "h", State: fw.DeviceRevoked, Attributes: "{}"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Tx(t.Context(), func(tx *store.Tx) error {
			return store.SetDeviceState(tx, "d", fw.DeviceRevoked, fw.DeviceActive, "")
		})
		if fw.KindOf(err) != fw.Conflict {
			t.Errorf("leaving revoked: got %v, want a conflict", err)
		}
	})
}
