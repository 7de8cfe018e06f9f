package signerd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
)

// Bounds of what waits at a signer.
const (
	maxOrders  = 16               // orders at a time
	waitFor    = 10 * time.Minute // an order without its image is forgotten
	keepFor    = 24 * time.Hour   // a signed image that nobody fetched, too
	sweepEvery = time.Minute
	maxAnswer  = 1 << 20 // bytes of the file beside a signed image
)

// orders keeps the orders that are being carried out. Files are named by the
// permit, which the desk makes: no name comes from a caller.
type orders struct {
	desk *signer.Desk
	dir  string
	now  func() time.Time
	log  *slog.Logger

	turn chan struct{} // one signature at a time: memory and disk stay bounded
	busy sync.WaitGroup

	mu     sync.Mutex
	closed bool
	byID   map[fw.PermitID]*order
}

// order is one image order. All but done is under orders.mu.
type order struct {
	task    signer.Task
	state   State
	total   int64
	touched time.Time
	record  *signer.Record
	failure *Failure
	cancel  context.CancelFunc // while it is received or signed
	done    atomic.Int64
}

// openOrders takes up what an earlier process left: signed images can still be
// fetched, and everything else in the folder is from a crash and is deleted.
func openOrders(desk *signer.Desk, dir string, now func() time.Time, log *slog.Logger) (*orders, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot make the folder %s: check its owner and permissions", dir)
	}
	o := &orders{desk: desk, dir: dir, now: now, log: log, turn: make(chan struct{}, 1), byID: map[fw.PermitID]*order{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot read the folder %s: check its owner and permissions", dir)
	}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffixAnswer); ok {
			o.restore(fw.PermitID(id))
		}
	}
	for _, e := range entries {
		id, _, _ := strings.Cut(e.Name(), ".")
		if o.byID[fw.PermitID(id)] != nil && !strings.HasSuffix(e.Name(), suffixInput) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return nil, fw.Wrap(fw.Unavailable, err, "cannot clear the folder %s: look at what is in it", dir)
		}
	}
	return o, nil
}

// Suffixes of the files of one order.
const (
	suffixInput  = ".in"
	suffixOutput = ".out"
	suffixAnswer = ".json" // the signing record; there once the output is whole
)

func (o *orders) path(id fw.PermitID, suffix string) string {
	return filepath.Join(o.dir, string(id)+suffix)
}

// restore takes up a signed image of an earlier process, if it is whole.
func (o *orders) restore(id fw.PermitID) {
	b, err := os.ReadFile(o.path(id, suffixAnswer))
	if err != nil || len(b) > maxAnswer {
		return
	}
	var r signer.Record
	st, err := os.Stat(o.path(id, suffixOutput))
	if err != nil || dsse.Decode(b, &r) != nil || r.Permit != id || st.Size() != r.Size {
		return
	}
	o.byID[id] = &order{task: signer.Task{Permit: id}, state: StateSigned, total: r.Size, touched: st.ModTime(), record: &r}
}

// take accepts a task and says what to do next. A task that was taken before
// keeps its state.
func (o *orders) take(t signer.Task) (Status, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	j := o.byID[t.Permit]
	switch {
	case j != nil && j.state != StateFailed:
		j.touched = o.now()
		if j.state == StateWaiting {
			j.task = t
		}
		return j.status(), nil
	case t.Spent:
		return Status{}, o.desk.Spent(t)
	case o.closed:
		return Status{}, errClosing()
	case j == nil && len(o.byID) >= maxOrders:
		return Status{}, fw.Errorf(fw.TooMany, "%d orders are being carried out, which is the most: try again", maxOrders)
	}
	j = &order{task: t, state: StateWaiting, total: t.Size, touched: o.now()}
	o.byID[t.Permit] = j
	return j.status(), nil
}

func errClosing() error { return fw.Errorf(fw.Unavailable, "the signer is stopping: try again") }

// status is called under orders.mu.
func (j *order) status() Status {
	return Status{Permit: j.task.Permit, State: j.state, Done: j.done.Load(), Total: j.total, Record: j.record, Error: j.failure}
}

func (o *orders) find(id fw.PermitID) (*order, error) {
	if j := o.byID[id]; j != nil {
		return j, nil
	}
	return nil, fw.Errorf(fw.NotFound, "there is no such order: send it again")
}

func (o *orders) status(id fw.PermitID) (Status, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	j, err := o.find(id)
	if err != nil {
		return Status{}, err
	}
	j.touched = o.now()
	return j.status(), nil
}

// receive stages the image of an order and has it signed. It returns when the
// bytes are here; signing goes on in the background.
func (o *orders) receive(ctx context.Context, id fw.PermitID, size int64, r io.Reader) (Status, error) {
	o.mu.Lock()
	j, err := o.find(id)
	switch {
	case err != nil:
	case o.closed:
		err = errClosing()
	case j.state != StateWaiting:
		err = fw.Errorf(fw.Conflict, "the order is %s and takes no image now", j.state)
	case size != j.task.Size:
		err = fw.Errorf(fw.Invalid, "the approved image has %d bytes, so Content-Length must say so", j.task.Size)
	}
	if err != nil {
		o.mu.Unlock()
		return Status{}, err
	}
	// The order outlives the request that brings its image.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	j.state, j.cancel = StateReceiving, cancel
	j.done.Store(0)
	o.busy.Add(1)
	o.mu.Unlock()

	if err := o.stage(j, r); err != nil {
		o.set(j, func() { j.state, j.cancel = StateWaiting, nil })
		cancel()
		o.busy.Done()
		return Status{}, err
	}
	var st Status
	o.set(j, func() { j.state = StateSigning; j.done.Store(0); st = j.status() })
	go func() {
		defer o.busy.Done()
		defer cancel()
		o.finish(j, o.sign(work, j))
	}()
	return st, nil
}

func (o *orders) set(j *order, change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	j.touched = o.now()
}

// stage writes an image to its file. That it is the approved one is checked
// when it is signed.
func (o *orders) stage(j *order, r io.Reader) error {
	path := o.path(j.task.Permit, suffixInput)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // G304: named by the permit
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "the signer cannot stage the image: look at its disk")
	}
	src := &source{r: io.LimitReader(r, j.task.Size)}
	n, err := io.Copy(&counter{f, &j.done}, src)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case src.err != nil:
		err = fw.Wrap(fw.Invalid, src.err, "the image was cut off: send it again")
	case err != nil:
		err = fw.Wrap(fw.Unavailable, err, "the signer cannot stage the image: look at its disk")
	case n != j.task.Size:
		err = fw.Errorf(fw.Invalid, "the image was cut off: send it again")
	default:
		return nil
	}
	return errors.Join(err, os.Remove(path))
}

// source remembers an error of the sender, to tell it from one of the disk.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n *atomic.Int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// sign carries an order out, from its staged file into its output file.
func (o *orders) sign(ctx context.Context, j *order) (err error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return fw.Wrap(fw.Unavailable, ctx.Err(), "the order was cancelled")
	}
	id := j.task.Permit
	in, err := os.Open(o.path(id, suffixInput))
	if err != nil {
		return fw.Wrap(fw.Internal, err, "the staged image is gone")
	}
	defer func() { err = errors.Join(err, in.Close(), os.Remove(o.path(id, suffixInput))) }()
	out, err := os.OpenFile(o.path(id, suffixOutput), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "the signer cannot write the image: look at its disk")
	}
	r, err := o.desk.Carry(ctx, j.task, in, &counter{out, &j.done})
	// On disk before the answer says that it is there.
	if serr := errors.Join(out.Sync(), out.Close()); err == nil && serr != nil {
		err = fw.Wrap(fw.Unavailable, serr, "the signer cannot write the image: look at its disk")
	}
	if err == nil {
		var b []byte
		if b, err = json.Marshal(r); err == nil {
			err = replaceFile(o.path(id, suffixAnswer), b)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(o.path(id, suffixOutput)))
	}
	o.set(j, func() { j.record = &r })
	return nil
}

// finish ends the work on an order.
func (o *orders) finish(j *order, err error) {
	o.set(j, func() {
		j.cancel = nil
		if err == nil {
			j.state, j.total = StateSigned, j.record.Size
			return
		}
		j.state, j.failure = StateFailed, &Failure{Kind: fw.KindOf(err), Detail: "internal error: look at the signer's log"}
		if e, ok := errors.AsType[*fw.Error](err); ok {
			j.failure.Detail = e.Msg
		}
	})
	if err != nil {
		o.log.Error("an order failed", "permit", j.task.Permit, "key", j.task.Key, "error", err)
		return
	}
	r := j.record
	o.log.Info("signed", "permit", r.Permit, "key", r.Key, "input", r.Input, "output", r.Output, "decision", r.Evidence, "by", r.By)
}

// output opens the signed image of an order.
func (o *orders) output(id fw.PermitID) (*os.File, *signer.Record, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	j, err := o.find(id)
	if err != nil {
		return nil, nil, err
	}
	if j.state != StateSigned {
		return nil, nil, fw.Errorf(fw.Conflict, "the order is %s, so there is nothing to fetch", j.state)
	}
	j.touched = o.now()
	f, err := os.Open(o.path(id, suffixOutput))
	if err != nil {
		return nil, nil, fw.Wrap(fw.Unavailable, err, "the signed image cannot be read: look at the signer's disk")
	}
	return f, j.record, nil
}

// drop cancels an order, or forgets one that is done. A permit that was
// redeemed stays spent.
func (o *orders) drop(id fw.PermitID) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	j, err := o.find(id)
	if err != nil {
		return err
	}
	if j.cancel != nil {
		j.cancel() // finish sets the state; the sweep forgets it
		return nil
	}
	return o.forget(id)
}

// forget is called under mu. The answer goes first: an output without one is
// cleared at the next start.
func (o *orders) forget(id fw.PermitID) error {
	delete(o.byID, id)
	for _, suffix := range []string{suffixAnswer, suffixOutput, suffixInput} {
		if err := os.Remove(o.path(id, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fw.Wrap(fw.Unavailable, err, "the signer cannot clear its disk")
		}
	}
	return nil
}

// sweep forgets what nobody came for.
func (o *orders) sweep() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for id, j := range o.byID {
		age := o.now().Sub(j.touched)
		if j.cancel == nil && (age > keepFor || j.state != StateSigned && age > waitFor) {
			errs = append(errs, o.forget(id))
		}
	}
	return errors.Join(errs...)
}

// close cancels what is being done and waits for it to end.
func (o *orders) close() {
	o.mu.Lock()
	o.closed = true
	for _, j := range o.byID {
		if j.cancel != nil {
			j.cancel()
		}
	}
	o.mu.Unlock()
	o.busy.Wait()
}
