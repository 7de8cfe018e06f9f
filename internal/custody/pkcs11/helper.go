package pkcs11

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// stopAfter is how long a helper has to end after its input did.
const stopAfter = 5 * time.Second

// helper is a running writ-pkcs11.
type helper struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when the process has ended
	said tail          // end of its standard error

	write sync.Mutex

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan Response
	dead    error // why no more answers come; nil while they do
}

func startHelper(path string) (*helper, error) {
	// Not bound to a request's context: the helper outlives it.
	h := &helper{cmd: exec.CommandContext(context.Background(), path), done: make(chan struct{}), waiting: map[uint64]chan Response{}}
	h.cmd.Env = environment()
	h.cmd.Stderr = &h.said
	h.cmd.WaitDelay = stopAfter
	in, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	h.in = in
	if err := h.cmd.Start(); err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot start %s: check the path and its permissions", path)
	}
	go h.read(out)
	return h, nil
}

// read hands answers to who asked, until the helper ends.
func (h *helper) read(out io.Reader) {
	for {
		var resp Response
		if err := ReadFrame(out, &resp); err != nil {
			_ = h.in.Close() // ends it, if it has not
			if !errors.Is(err, io.EOF) {
				_ = h.cmd.Process.Signal(os.Kill) // it speaks nonsense
			}
			wait := h.cmd.Wait()
			h.mu.Lock()
			h.dead = fw.Wrap(fw.Unavailable, errors.Join(wait, errors.New(h.said.String())), "the PKCS#11 helper ended: see its message, and try again")
			for id, c := range h.waiting {
				delete(h.waiting, id)
				close(c)
			}
			h.mu.Unlock()
			close(h.done)
			return
		}
		h.mu.Lock()
		c := h.waiting[resp.ID]
		delete(h.waiting, resp.ID)
		h.mu.Unlock()
		if c != nil {
			c <- resp // has room for one
		}
	}
}

func (h *helper) alive() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead == nil
}

// ask sends req and waits for its answer. A helper that does not answer in
// time is ended: its library hangs, and only a new process is a way out.
func (h *helper) ask(ctx context.Context, req Request) (Response, error) {
	answer := make(chan Response, 1)
	h.mu.Lock()
	if h.dead != nil {
		h.mu.Unlock()
		return Response{}, h.dead
	}
	h.last++
	req.ID = h.last
	h.waiting[req.ID] = answer
	h.mu.Unlock()

	h.write.Lock()
	err := WriteFrame(h.in, req)
	h.write.Unlock()
	if err != nil && fw.KindOf(err) == fw.TooLarge {
		h.forget(req.ID)
		return Response{}, err
	}
	// Another error of writing means that it has ended; read says so.
	select {
	case resp, ok := <-answer:
		if !ok {
			return Response{}, h.dead
		}
		if resp.Kind != "" {
			return resp, fw.Errorf(resp.Kind, "%s", clip(resp.Message, maxHelperErrors))
		}
		return resp, nil
	case <-ctx.Done():
		h.forget(req.ID)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			_ = h.cmd.Process.Signal(os.Kill)
		}
		return Response{}, fw.Wrap(fw.Unavailable, ctx.Err(), "the token did not answer: check that it is connected and that no one has to confirm on it")
	}
}

func (h *helper) forget(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, id)
}

// stop ends the helper and waits for it.
func (h *helper) stop() error {
	err := h.in.Close()
	late := time.NewTimer(stopAfter)
	defer late.Stop()
	select {
	case <-h.done:
	case <-late.C:
		_ = h.cmd.Process.Signal(os.Kill)
		<-h.done
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - maxHelperErrors; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
