package signerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/statement"
)

func wantError(t *testing.T, err error, kind fw.Kind, words string) {
	t.Helper()
	if fw.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v (%s), want %s with %q", err, fw.KindOf(err), kind, words)
	}
}

var uid = uint32(os.Getuid())

func TestAnImageComesBackSigned(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	info, err := c.Info(t.Context())
	w.must(err)
	if info.Version != Version || info.Roster != 1 || len(info.Keys) != 4 || info.Roots.Threshold != 1 || !strings.HasPrefix(info.Log, "writ.test/log+") {
		t.Errorf("%+v", info)
	}
	var out bytes.Buffer
	r, err := c.SignImage(t.Context(), w.order("1.0.0"), bytes.NewReader(w.input), &out)
	w.must(err)
	if r.Output != fw.DigestOf(out.Bytes()) || r.Custody != signer.CustodyRemote || r.By != "erin" || len(r.Approvals) != 1 || len(r.Envelope) == 0 {
		t.Errorf("%+v", r)
	}
	if left := w.spooled(); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
	if n := w.journal(signer.EntrySigned); n != 1 {
		t.Errorf("%d signatures", n)
	}
}

func TestManyOrdersAtATime(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	var orders []signer.ImageOrder
	for i := range 8 {
		orders = append(orders, w.order(fmt.Sprintf("1.0.%d", i)))
	}
	var wg sync.WaitGroup
	for _, o := range orders {
		wg.Go(func() {
			if _, err := c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.journal(signer.EntrySigned); n != len(orders) {
		t.Errorf("%d signatures", n)
	}
}

func TestTheKernelSaysWhoAsks(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid + 1)
	_, err := c.Info(t.Context())
	wantError(t, err, fw.Forbidden, fmt.Sprintf("--allow-uid %d", uid))
	_, err = c.SignImage(t.Context(), w.order("1.0.0"), bytes.NewReader(w.input), io.Discard)
	wantError(t, err, fw.Forbidden, "may not ask")
	if n := w.journal(signer.EntrySigned); n != 0 {
		t.Errorf("%d signatures", n)
	}
}

// The answer is lost on the way: the same order gets the same one, until it
// was fetched.
func TestTheSameOrderGetsTheSameAnswer(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	st, err := c.carry(t.Context(), o, bytes.NewReader(w.input))
	w.must(err)
	first := *st.Record

	again, err := c.carry(t.Context(), o, bytes.NewReader(nil)) // nothing to be read: the image is not sent again
	w.must(err)
	if again.Record.Output != first.Output || !bytes.Equal(again.Record.Envelope, first.Envelope) {
		t.Errorf("%+v, before %+v", again.Record, first)
	}
	w.stop()
	c = w.serve(uid)
	var out bytes.Buffer
	last, err := c.SignImage(t.Context(), o, bytes.NewReader(nil), &out)
	w.must(err)
	if last.Output != first.Output || fw.DigestOf(out.Bytes()) != first.Output || !bytes.Equal(last.Envelope, first.Envelope) {
		t.Errorf("after a restart: %+v, before %+v", last, first)
	}
	// It was fetched and forgotten, and its permit stays spent.
	_, err = c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard)
	wantError(t, err, fw.Conflict, "new decision is needed")
	if n := w.journal(signer.EntrySigned); n != 1 {
		t.Errorf("%d signatures", n)
	}
}

// What a killed signer leaves: a staged image, an output without its answer.
func TestLeftoversOfACrashAreCleared(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	st, err := c.carry(t.Context(), o, bytes.NewReader(w.input))
	w.must(err)
	w.stop()
	w.must(os.Remove(w.service.orders.path(st.Permit, suffixAnswer)))
	w.must(os.WriteFile(w.service.orders.path("prm_other", suffixInput), w.input, 0o600))
	w.must(os.WriteFile(w.service.orders.path("prm_torn", suffixAnswer), []byte(`{"permit":"prm_t`), 0o600))
	c = w.serve(uid)
	if left := w.spooled(); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
	_, err = c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard)
	wantError(t, err, fw.Conflict, "new decision is needed")
}

func TestAnOrderIsJudgedBeforeItsImageIsSent(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	o.Evidence.Approvals = nil
	_, err := c.SignImage(t.Context(), o, untouched{t}, io.Discard)
	wantError(t, err, fw.Forbidden, "0 of 1 needed approvals")
	if n := w.journal(signer.EntryRefused); n != 1 {
		t.Errorf("%d refusals in the journal", n)
	}
}

type untouched struct{ t *testing.T }

func (u untouched) ReadAt([]byte, int64) (int, error) {
	u.t.Error("the image was sent")
	return 0, io.EOF
}

func TestOtherBytesAreRefusedAndTheOrderStands(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	_, err := c.SignImage(t.Context(), o, bytes.NewReader(bytes.Repeat([]byte("x"), len(w.input))), io.Discard)
	wantError(t, err, fw.Forbidden, "was approved")
	// No permit was spent: the right bytes are welcome.
	if _, err := c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard); err != nil {
		t.Error(err)
	}
}

func TestAnImageThatIsCutOffIsSentAgain(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	st, err := call[Status](t.Context(), c, http.MethodPost, "/v1/orders", o)
	w.must(err)
	for _, size := range []int64{5, st.Total + 1} {
		_, err := c.send(t.Context(), Status{Permit: st.Permit, Total: size}, bytes.NewReader(make([]byte, size)))
		wantError(t, err, fw.Invalid, fmt.Sprintf("%d bytes", st.Total))
	}
	_, err = c.send(t.Context(), st, failing{bytes.NewReader(w.input), 100_000})
	if err == nil {
		t.Fatal("half an image was taken")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		now, err := call[Status](t.Context(), c, http.MethodGet, orderPath(st.Permit), nil)
		w.must(err)
		if now.State == StateWaiting {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the order is %s", now.State)
		}
	}
	if _, err := c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard); err != nil {
		t.Error(err)
	}
}

// failing is an image whose disk fails at an offset.
type failing struct {
	r  *bytes.Reader
	at int64
}

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.at {
		return 0, errors.New("disk failure")
	}
	return f.r.ReadAt(b, off)
}

// An order is cancelled: nothing is signed, nothing stays on disk, and its
// permit is not spent.
func TestAnOrderCanBeCancelled(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	w.service.orders.turn <- struct{}{} // somebody else is being served
	o := w.order("1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.SignImage(ctx, o, bytes.NewReader(w.input), io.Discard)
		done <- err
	}()
	for len(w.spooled()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err == nil {
		t.Fatal("it was signed")
	}
	<-w.service.orders.turn
	w.service.orders.busy.Wait()
	if n := w.journal(signer.EntryRedeemed); n != 0 {
		t.Errorf("%d permits spent", n)
	}
	if _, err := c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard); err != nil {
		t.Error(err)
	}
}

func TestWhatWaitsIsBoundedAndForgotten(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	for i := range maxOrders {
		_, err := call[Status](t.Context(), c, http.MethodPost, "/v1/orders", w.order(fmt.Sprintf("1.0.%d", i)))
		w.must(err)
	}
	_, err := call[Status](t.Context(), c, http.MethodPost, "/v1/orders", w.order("2.0.0"))
	wantError(t, err, fw.TooMany, "try again")
	now := time.Now()
	w.service.orders.now = func() time.Time { return now.Add(waitFor + time.Second) }
	w.must(w.service.orders.sweep())
	if _, err := c.SignImage(t.Context(), w.order("2.0.0"), bytes.NewReader(w.input), io.Discard); err != nil {
		t.Error(err)
	}
}

func TestASignedImageWaitsADay(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	if _, err := c.carry(t.Context(), w.order("1.0.0"), bytes.NewReader(w.input)); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, s := range []struct {
		after time.Duration
		files int
	}{{waitFor + time.Minute, 2}, {keepFor + time.Minute, 0}} {
		w.service.orders.now = func() time.Time { return now.Add(s.after) }
		w.must(w.service.orders.sweep())
		if got := w.spooled(); len(got) != s.files {
			t.Errorf("after %v: %v", s.after, got)
		}
	}
}

func TestAStatementIsSignedOnceAndToldAgain(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	o := w.order("1.0.0")
	r, err := c.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard)
	w.must(err)
	st, err := statement.Make(o.Evidence.Document, []fw.SignedImage{{
		Component: "main", Format: "raw", Version: "1.0.0", Digest: r.Output, Size: r.Size, KeyID: r.KeyID, Envelope: fw.DigestOf(r.Envelope),
	}})
	w.must(err)
	doc, err := st.Encode()
	w.must(err)
	so := signer.StatementOrder{Statement: doc, Evidence: o.Evidence, By: "erin", Decision: w.decide(evidence.KeyUse{
		Purpose: fw.PurposeStatement, Key: "statement-pq", Subject: fw.DigestOf(doc), Document: doc,
	})}
	first, err := c.SignStatement(t.Context(), so)
	w.must(err)
	again, err := c.SignStatement(t.Context(), so)
	w.must(err)
	if !bytes.Equal(first.Envelope, again.Envelope) || first.Key != "statement-pq" {
		t.Errorf("%+v and %+v", first, again)
	}
	w.stop()
	c = w.serve(uid)
	_, err = c.SignStatement(t.Context(), so)
	wantError(t, err, fw.Conflict, "new decision")
	if n := w.journal(signer.EntrySigned); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	w := newWorld(t)
	c := w.serve(uid)
	for _, r := range []struct {
		method, path, media, body string
		status                    int
	}{
		{"POST", "/v1/orders", "application/json", strings.Repeat(" ", maxBody+1), http.StatusRequestEntityTooLarge},
		{"POST", "/v1/orders", "application/json", `{"digest":"sha256:00"}`, http.StatusBadRequest},
		{"POST", "/v1/orders", "application/json", `{"by":"a","by":"b"}`, http.StatusBadRequest},
		{"POST", "/v1/orders", "text/plain", `{}`, http.StatusUnsupportedMediaType},
		{"POST", "/v1/sign", "application/json", `{"digest":"sha256:00"}`, http.StatusNotFound},
		{"POST", "/v2/orders", "application/json", `{}`, http.StatusNotFound},
		{"GET", "/v1/orders/prm_x", "", "", http.StatusNotFound},
		{"GET", "/v1/orders/..%2f..%2fsigner.json/output", "", "", http.StatusNotFound},
		{"PUT", "/v1/orders/prm_x/input", "application/octet-stream", "x", http.StatusNotFound},
		{"DELETE", "/v1/orders/prm_x", "", "", http.StatusNotFound},
		{"GET", "/v1/rosters?after=-1", "", "", http.StatusBadRequest},
		{"PATCH", "/v1/signer", "", "", http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, c.base+r.path, strings.NewReader(r.body))
		w.must(err)
		if r.media != "" {
			req.Header.Set("Content-Type", r.media)
		}
		res, err := c.http.Do(req)
		w.must(err)
		_ = res.Body.Close() // only the status matters
		if res.StatusCode != r.status {
			t.Errorf("%s %s %.30q: %d, want %d", r.method, r.path, r.body, res.StatusCode, r.status)
		}
	}
	if n := w.journal(signer.EntrySigned); n != 0 {
		t.Errorf("%d signatures", n)
	}
}
