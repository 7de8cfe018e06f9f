package release_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/store"
)

func sample(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile("../image/mcuboot/testdata/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDraftsAreRefusedWithWhatToDo(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	w.propose(w.draft("1.0.0"))
	w.propose(w.draft("2.0.0+4"))
	signed := w.upload(sample(t, "p256.bin")) // version 1.2.3+4, no security counter
	broken := sample(t, "p256.bin")
	broken[0x300] ^= 1
	for _, c := range []struct {
		name  string
		kind  fw.Kind
		words string // in the message
		edit  func(d *release.Draft)
	}{
		{"no product", fw.NotFound, "writ product create", func(d *release.Draft) { d.Product = "boiler" }},
		{"no version", fw.Invalid, "needs a version", func(d *release.Draft) { d.Version = "" }},
		{"short version", fw.Invalid, "not a version", func(d *release.Draft) { d.Version = "1.2" }},
		{"v version", fw.Invalid, "not a version", func(d *release.Draft) { d.Version = "v1.2.3" }},
		{"version too long", fw.TooLarge, "shorten", func(d *release.Draft) { d.Version = "1.0.0-" + strings.Repeat("a", 100) }},
		{"version taken", fw.Conflict, "choose another version", func(d *release.Draft) { d.Version = "1.0.0" }},
		{"version level with another", fw.Conflict, "choose another version", func(d *release.Draft) { d.Version = "1.0.0+0" }},
		{"version mcuboot cannot hold", fw.Invalid, "mcuboot", func(d *release.Draft) { d.Version = "1.0.300000" }},
		{"pre-release as mcuboot", fw.Invalid, "mcuboot", func(d *release.Draft) { d.Version = "1.3.0-rc.1" }},
		{"no type", fw.Invalid, "security, functional or mixed", func(d *release.Draft) { d.Type = "" }},
		{"security without advisory", fw.Invalid, "needs an advisory", func(d *release.Draft) { d.Type = fw.ReleaseSecurity }},
		{"mixed without reason", fw.Invalid, "needs a reason", func(d *release.Draft) { d.Type = fw.ReleaseMixed }},
		{"reason without mixed", fw.Invalid, "only a mixed", func(d *release.Draft) { d.MixedReason = "why not" }},
		{"foreign hardware", fw.Invalid, "has no hardware", func(d *release.Draft) { d.Hardware = []fw.HardwareID{"board-z"} }},
		{"hardware twice", fw.Invalid, "named twice", func(d *release.Draft) { d.Hardware = []fw.HardwareID{"board-a", "board-a"} }},
		{"bad constraint", fw.Invalid, "not a version constraint", func(d *release.Draft) { d.FromVersion = "newer than 1" }},
		{"no components", fw.Invalid, "1 to 16 components", func(d *release.Draft) { d.Components = nil }},
		{"component twice", fw.Invalid, "named twice", func(d *release.Draft) { d.Components = append(d.Components, d.Components[0]) }},
		{"component without image", fw.Invalid, "digest of an uploaded image", func(d *release.Draft) { d.Components[0].Input = fw.Digest{} }},
		{"component name", fw.Invalid, "component name", func(d *release.Draft) { d.Components[0].Name = "a b" }},
		{"image not here", fw.NotFound, "upload it first", func(d *release.Draft) { d.Components[0].Input = fw.DigestOf([]byte("x")) }},
		{"unknown format", fw.Invalid, "use mcuboot", func(d *release.Draft) { d.Components[0].Format = "zip" }},
		{"counter too large for mcuboot", fw.Invalid, "mcuboot", func(d *release.Draft) { d.Components[0].SecurityCounter = 1 << 32 }},
		{"counter too large for raw", fw.Invalid, "raw", func(d *release.Draft) {
			d.Components[0].Format, d.Components[0].SecurityCounter = "raw", 1<<53
		}},
		{"signed image of another version", fw.Invalid, "says version 1.2.3+4", func(d *release.Draft) { d.Components[0].Input = signed }},
		{"signed image without counter", fw.Invalid, "no security counter", func(d *release.Draft) { d.Version, d.Components[0].Input = "1.2.3+4", signed }},
		{"signed image with another counter", fw.Invalid, "must agree", func(d *release.Draft) {
			d.Version, d.Components[0].Input, d.Components[0].SecurityCounter = "1.2.3+4", w.upload(sample(t, "p256-seccnt.bin")), 1000
		}},
		{"encrypted image", fw.Invalid, "encrypted", func(d *release.Draft) {
			d.Version, d.Components[0].Input = "1.2.3+4", w.upload(sample(t, "p256-enc128.bin"))
		}},
		{"damaged image", fw.Invalid, "bad_digest", func(d *release.Draft) { d.Version, d.Components[0].Input = "1.2.3+4", w.upload(broken) }},
		{"cut image", fw.Invalid, "truncated", func(d *release.Draft) {
			d.Version, d.Components[0].Input = "1.2.3+4", w.upload(sample(t, "p256.bin")[:1000])
		}},
		{"image bound to other hardware", fw.Invalid, "hardware class", func(d *release.Draft) {
			d.Version, d.Components[0].Input, d.Components[0].SecurityCounter = "1.2.3+4", w.upload(sample(t, "p256-full.bin")), fullCounter
			d.Hardware = []fw.HardwareID{"board-b"}
		}},
		{"SBOM not here", fw.NotFound, "upload it first", func(d *release.Draft) { d.SBOM = fw.DigestOf([]byte("x")) }},
		{"SBOM no JSON", fw.Invalid, "no SBOM", func(d *release.Draft) { d.SBOM = w.upload(payload) }},
		{"SBOM no object", fw.Invalid, "no SBOM", func(d *release.Draft) { d.SBOM = w.upload([]byte(`["a"]`)) }},
		{"SBOM cut", fw.Invalid, "no SBOM", func(d *release.Draft) { d.SBOM = w.upload([]byte(`{"a": [1, 2`)) }},
		{"SBOM and more", fw.Invalid, "no SBOM", func(d *release.Draft) { d.SBOM = w.upload([]byte(`{} {}`)) }},
		{"notes not UTF-8", fw.Invalid, "UTF-8", func(d *release.Draft) { d.Notes = "\xff" }},
		{"notes with reversed text", fw.Invalid, "U+202E", func(d *release.Draft) { d.Notes = "safe \u202e" }},
		{"notes too long", fw.TooLarge, "shorten", func(d *release.Draft) { d.Notes = strings.Repeat("n", 20<<10) }},
		{"all texts too long together", fw.TooLarge, "shorten", func(d *release.Draft) {
			d.Notes, d.Advisory = strings.Repeat("n", 15<<10), strings.Repeat("a", 15<<10)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := w.draft("1.3.0")
			c.edit(&d)
			before := w.ledger.Head().Size
			_, err := w.svc.Propose(t.Context(), d, "rita")
			wantError(t, err, c.kind, c.words)
			if after := w.ledger.Head().Size; after != before {
				t.Errorf("a refused draft left %d records", after-before)
			}
		})
	}
}

// fullCounter is the security counter of p256-full.bin.
const fullCounter = 16908291

// What imgtool made is taken as it is and signed anew, when it agrees.
func TestFinishedImagesAreSignedAnew(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	d := w.draft("1.2.3+4")
	b := sample(t, "p256-seccnt.bin")
	up, err := w.svc.Uploads().Start(t.Context(), "rita", fw.DigestOf(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	w.upload(b)
	got, err := w.svc.Uploads().Finish(t.Context(), "rita", up.ID)
	if err != nil || got.Info.Format != "mcuboot" || got.Info.Version != "1.2.3+4" || got.Unfit != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	d.Components[0] = release.DraftComponent{Name: "main", Input: got.Digest, SecurityCounter: *got.Info.SecurityCounter}
	row := w.approve(w.propose(d), "ann", "ben")
	if row, err = w.svc.Publish(t.Context(), row.ID, "rita"); err != nil {
		t.Fatal(err)
	}
	checkPublished(t, w, row)
}

// The bytes are what is approved: after any edit, approvals of other bytes
// count for nothing, and the state says so.
func TestAnEditVoidsApprovals(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	people := []fw.PersonID{"rita", "ann", "ben", "cleo"}
	w.approver("rita") // a release engineer who is an approver, of others' work
	n := 0
	draft := w.draft("1.0.0")
	rapid.Check(t, func(rt *rapid.T) {
		n++
		d := draft
		d.Version = fmt.Sprintf("1.0.%d", n)
		row, err := w.svc.Propose(t.Context(), d, "rita")
		if err != nil {
			rt.Fatal(err)
		}
		var approvers []fw.PersonID // of the current bytes: the model
		old := [][]byte{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			actor := rapid.SampledFrom(people).Draw(rt, "actor")
			switch rapid.SampledFrom([]string{"approve", "approve", "approve", "edit", "replay"}).Draw(rt, "step") {
			case "approve":
				_, err = w.svc.ApproveRelease(t.Context(), row.ID, w.sign(actor, row.Manifest))
				if refused := actor == row.Proposer; refused != (fw.KindOf(err) == fw.Forbidden) || err != nil && !refused {
					rt.Fatalf("%s approves what %s proposed: %v", actor, row.Proposer, err)
				}
				if err == nil && !slices.Contains(approvers, actor) {
					approvers = append(approvers, actor)
				}
			case "edit":
				old = append(old, row.Manifest)
				if row, err = w.svc.Edit(t.Context(), row.ID, d, actor); err != nil {
					rt.Fatal(err)
				}
				approvers = nil
			case "replay": // a signature over bytes that were edited away
				if len(old) == 0 {
					continue
				}
				g := w.sign(actor, rapid.SampledFrom(old).Draw(rt, "bytes"))
				g.Subject = fw.Digest{}
				_, err := w.svc.ApproveRelease(t.Context(), row.ID, g)
				if fw.KindOf(err) != fw.Forbidden {
					rt.Fatalf("an approval of other bytes: %v", err)
				}
			}
			want := fw.ReleaseInReview
			if len(approvers) >= 2 {
				want = fw.ReleaseApproved
			}
			if row, err = store.ReleaseByID(w.db.Snapshot(t.Context()), row.ID); err != nil || row.State != want {
				rt.Fatalf("%s with approvals by %v, want %s (%v)", row.State, approvers, want, err)
			}
		}
		if _, err := w.svc.Withdraw(t.Context(), row.ID, "done", "root"); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestEveryEditIsOnRecord(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		first := w.propose(w.draft("1.0.0"))
		w.approve(first, "ann", "ben")
		row, err := w.svc.Edit(t.Context(), first.ID, w.draft("1.0.0"), "rita") // not a word changed
		if err != nil || row.State != fw.ReleaseInReview || bytes.Equal(row.Manifest, first.Manifest) {
			t.Fatalf("%s, %v", row.State, err)
		}
		var docs [][]byte
		for _, r := range w.records(evidence.ReleaseStream(row.ID)) {
			if r.Type == evidence.TypeReleaseProposed {
				docs = append(docs, decode[evidence.Proposed](t, r.Data).Document)
			}
		}
		if len(docs) != 2 || !bytes.Equal(docs[0], first.Manifest) || !bytes.Equal(docs[1], row.Manifest) {
			t.Errorf("%d proposals on record", len(docs))
		}
		w.product("gateway", "image", 1)
		d := w.draft("1.0.0")
		d.Product = "gateway"
		_, err = w.svc.Edit(t.Context(), row.ID, d, "rita")
		wantError(t, err, fw.Invalid, "propose another release")
		_, err = w.svc.ApproveRelease(t.Context(), row.ID, w.sign("ann", first.Manifest))
		wantError(t, err, fw.Conflict, "edited since")
	})
}
