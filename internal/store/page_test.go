package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/store"
)

// Pages of any size put together are the whole list, newest first, also where
// many have the same second.
func TestPagesOfReleasesAndCampaignsAddUp(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		db := open(t, url)
		var releases, campaigns []string
		err := db.Tx(t.Context(), func(tx *store.Tx) error {
			for _, p := range []fw.ProductID{"p", "other"} {
				if _, err := store.InsertProduct(tx, store.Product{ID: p, Name: "P", Hardware: "[]"}); err != nil {
					return err
				}
			}
			for i := range 11 {
				p := fw.ProductID("p")
				if i == 5 {
					p = "other"
				}
				d := fw.DigestOf([]byte{byte(i)})
				r := store.Release{ID: fw.ReleaseID(fmt.Sprintf("r%02d", i)), Product: p, Version: "1", State: fw.ReleaseDraft, Manifest: []byte("m"), ManifestDigest: d[:], CreatedAt: int64(i / 4)}
				c := store.Campaign{ID: fw.CampaignID(fmt.Sprintf("c%02d", i)), Product: p, Release: r.ID, State: fw.CampaignDraft, Plan: []byte("p"), PlanDigest: d[:], Status: []byte("{}"), CreatedAt: int64(i / 4)}
				if err := store.InsertRelease(tx, r); err != nil {
					return err
				}
				if err := store.InsertCampaign(tx, c); err != nil {
					return err
				}
				if p == "p" {
					releases, campaigns = append(releases, string(r.ID)), append(campaigns, string(c.ID))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(releases)
		slices.Reverse(campaigns)
		q := db.Snapshot(t.Context())
		for size := 1; size <= 11; size++ {
			var r, c []string
			for f := (store.ReleaseFilter{Product: "p", Limit: size}); ; {
				page, err := store.Releases(q, f)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, x := range page {
					r = append(r, string(x.ID))
				}
				f.After = page[len(page)-1].ID
			}
			for f := (store.CampaignFilter{Product: "p", Limit: size}); ; {
				page, err := store.Campaigns(q, f)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, x := range page {
					c = append(c, string(x.ID))
				}
				f.After = page[len(page)-1].ID
			}
			if !slices.Equal(r, releases) || !slices.Equal(c, campaigns) {
				t.Errorf("pages of %d: %v and %v", size, r, c)
			}
		}
		if _, err := store.Releases(q, store.ReleaseFilter{After: "no such", Limit: 1}); fw.KindOf(err) != fw.NotFound {
			t.Errorf("an unknown release to go on after: %v", err)
		}
		if _, err := store.Campaigns(q, store.CampaignFilter{After: "no such", Limit: 1}); fw.KindOf(err) != fw.NotFound {
			t.Errorf("an unknown campaign to go on after: %v", err)
		}
	})
}
