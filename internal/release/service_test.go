package release_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/store"
)

func TestProductsAreRecordedOnce(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		row, err := store.ProductByID(w.db.Snapshot(t.Context()), product)
		if err != nil || row.RetentionYears != 10 || row.Hardware != `["board-a","board-b"]` {
			t.Fatalf("%+v, %v", row, err)
		}
		records := w.records(evidence.ProductStream(product))
		if len(records) != 1 || decode[evidence.Product](t, records[0].Data).Quorum != 2 {
			t.Errorf("%+v", records)
		}
		if err := w.keystore.Retire(t.Context(), "image"); err != nil {
			t.Fatal(err)
		}
		w.key("image-2", fw.PurposeImage, "")
		good := release.Product{Product: "gateway", Name: "Gateway", Hardware: []fw.HardwareID{"gw-1"}, ImageKey: "image-2", Quorum: 1}
		for _, c := range []struct {
			kind  fw.Kind
			words string
			edit  func(p *release.Product)
		}{
			{fw.Conflict, "already", func(p *release.Product) { p.Product = product }},
			{fw.Invalid, "product id", func(p *release.Product) { p.Product = "" }},
			{fw.Invalid, "lower-case", func(p *release.Product) { p.Product = "Gateway" }},
			{fw.Invalid, "name for people", func(p *release.Product) { p.Name = "" }},
			{fw.Invalid, "hardware", func(p *release.Product) { p.Hardware = nil }},
			{fw.Invalid, "twice", func(p *release.Product) { p.Hardware = []fw.HardwareID{"a", "a"} }},
			{fw.Invalid, "quorum", func(p *release.Product) { p.Quorum = 0 }},
			{fw.Invalid, "retention", func(p *release.Product) { p.RetentionYears = -1 }},
			{fw.Invalid, "support", func(p *release.Product) { p.SupportUntil = -1 }},
			{fw.Invalid, "writ key create", func(p *release.Product) { p.ImageKey = "nobody" }},
			{fw.Invalid, "key for images", func(p *release.Product) { p.ImageKey = "log" }},
			{fw.Conflict, "active key", func(p *release.Product) { p.ImageKey = "image" }},
		} {
			p := good
			c.edit(&p)
			_, err := w.svc.CreateProduct(t.Context(), p, "root")
			wantError(t, err, c.kind, c.words)
		}
		if _, err := w.svc.CreateProduct(t.Context(), good, "root"); err != nil {
			t.Error(err)
		}
	})
}

func TestUploadsResume(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx, u := t.Context(), w.svc.Uploads()
		d, size := fw.DigestOf(payload), int64(len(payload))
		up, err := u.Start(ctx, "rita", d, size)
		if err != nil || up.Offset != 0 || up.Done {
			t.Fatalf("%+v, %v", up, err)
		}
		// The connection breaks after 1000 bytes.
		cut := io.MultiReader(bytes.NewReader(payload[:1000]), iotest.ErrReader(errors.New("cut")))
		n, err := u.Write(ctx, "rita", up.ID, 0, cut)
		if n != 1000 || fw.KindOf(err) != fw.Invalid {
			t.Fatalf("%d, %v", n, err)
		}
		_, err = u.Write(ctx, "rita", up.ID, 500, bytes.NewReader(payload[500:]))
		wantError(t, err, fw.Conflict, "byte 1000")
		_, err = u.Finish(ctx, "rita", up.ID)
		wantError(t, err, fw.Conflict, "go on at byte 1000")
		w.restart()
		u = w.svc.Uploads()
		again, err := u.Start(ctx, "rita", d, size)
		if err != nil || again.ID != up.ID || again.Offset != 1000 {
			t.Fatalf("%+v, %v", again, err)
		}
		if status, err := u.Status(ctx, "rita", up.ID); err != nil || status != again {
			t.Fatalf("%+v, %v", status, err)
		}
		if n, err = u.Write(ctx, "rita", up.ID, 1000, bytes.NewReader(payload[1000:])); err != nil || n != size {
			t.Fatalf("%d, %v", n, err)
		}
		for range 2 {
			got, err := u.Finish(ctx, "rita", up.ID)
			if err != nil || got.Digest != d || got.Size != size || got.Info.Format != "raw" || got.Unfit != "" {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		want := release.Upload{ID: up.ID, Digest: d, Size: size, Offset: size, Done: true}
		for _, f := range []func() (release.Upload, error){
			func() (release.Upload, error) { return u.Start(ctx, "rita", d, size) },
			func() (release.Upload, error) { return u.Status(ctx, "rita", up.ID) },
		} {
			if got, err := f(); err != nil || !cmp.Equal(got, want) {
				t.Errorf("%+v, %v", got, err)
			}
		}
		// What is here need not be sent by the next person.
		if got, err := u.Start(ctx, "sam", d, size); err != nil || !got.Done || got.ID == up.ID {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestUploadsAreRefused(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	ctx := t.Context()
	u := release.New(release.Options{DB: w.db, Blobs: w.blobs, MaxUpload: 100}).Uploads()
	d := fw.DigestOf([]byte("0123456789"))
	start := func(d fw.Digest, size int64) error {
		_, err := u.Start(ctx, "rita", d, size)
		return err
	}
	wantError(t, start(fw.Digest{}, 10), fw.Invalid, "digest")
	wantError(t, start(d, 0), fw.Invalid, "size")
	wantError(t, start(d, 101), fw.TooLarge, "at most 100")
	up, err := u.Start(ctx, "rita", d, 10)
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Write(ctx, "sam", up.ID, 0, bytes.NewReader(nil))
	wantError(t, err, fw.Forbidden, "somebody else")
	_, err = u.Finish(ctx, "sam", up.ID)
	wantError(t, err, fw.Forbidden, "somebody else")
	_, err = u.Status(ctx, "rita", "upl_none")
	wantError(t, err, fw.NotFound, "start it again")
	_, err = u.Write(ctx, "rita", up.ID, 0, bytes.NewReader(make([]byte, 11)))
	wantError(t, err, fw.TooLarge, "at most 10")
	if _, err := u.Write(ctx, "rita", up.ID, 0, bytes.NewReader([]byte("0123456780"))); err != nil {
		t.Fatal(err)
	}
	_, err = u.Finish(ctx, "rita", up.ID)
	wantError(t, err, fw.Invalid, "upload the file again")
	_, err = u.Finish(ctx, "rita", up.ID)
	wantError(t, err, fw.NotFound, "begin it again")
	// A damaged image is kept, and said to be of no use.
	b := sample(t, "p256.bin")
	b[0x300] ^= 1
	u = w.svc.Uploads()
	if up, err = u.Start(ctx, "rita", fw.DigestOf(b), int64(len(b))); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(ctx, "rita", up.ID, 0, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if got, err := u.Finish(ctx, "rita", up.ID); err != nil || got.Unfit == "" || got.Info.Format != "mcuboot" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = u.Start(ctx, "rita", fw.DigestOf(b), 10)
	wantError(t, err, fw.Invalid, "measure it again")
}

func TestWaitingToPublishEndsWithItsContext(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	row := w.approved("1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.svc.Publish(ctx, row.ID, "rita"); err == nil {
		t.Fatal("published for a caller who is gone")
	}
	if _, err := w.svc.Publish(t.Context(), row.ID, "rita"); err != nil {
		t.Fatal(err)
	}
}
