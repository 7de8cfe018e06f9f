//go:build (linux || darwin) && (amd64 || arm64)

package token

import (
	"errors"
	"io"
	"sync"

	"github.com/writ-project/writ/internal/custody/pkcs11"
	"github.com/writ-project/writ/internal/fw"
)

// maxKeys bounds how many keys one helper has open.
const maxKeys = 1000

// maxConcurrent bounds how many requests are worked on at a time, and so the
// memory and the threads that a burst takes.
const maxConcurrent = 64

// Serve answers the requests on in until it ends.
func Serve(in io.Reader, out io.Writer) error {
	s := &server{out: out, slots: map[ulong]*slot{}}
	var work sync.WaitGroup
	defer func() {
		work.Wait()
		if s.lib != nil {
			s.lib.finalize()
		}
	}()
	places := make(chan struct{}, maxConcurrent)
	for {
		var req pkcs11.Request
		if err := pkcs11.ReadFrame(in, &req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if req.Op == pkcs11.OpStart {
			s.answer(req.ID, pkcs11.Response{}, s.start(req))
			continue
		}
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			resp, err := s.handle(req)
			clear(req.PIN)
			s.answer(req.ID, resp, err)
		})
	}
}

type server struct {
	lib      *library
	sessions int

	write sync.Mutex
	out   io.Writer

	mu    sync.Mutex
	slots map[ulong]*slot
	keys  []*key
}

func (s *server) answer(id uint64, resp pkcs11.Response, err error) {
	resp.ID = id
	if err != nil {
		resp.Kind, resp.Message = fw.KindOf(err), err.Error()
		resp.PINRefused = errors.Is(err, rvPINIncorrect.err()) || errors.Is(err, rvPINInvalid.err()) || errors.Is(err, rvPINLenRange.err())
		if e, ok := errors.AsType[*fw.Error](err); ok {
			resp.Message = e.Msg
			if e.Err != nil {
				resp.Message += " (" + e.Err.Error() + ")"
			}
		}
	}
	s.write.Lock()
	defer s.write.Unlock()
	// When the other side is gone, the next read says so.
	_ = pkcs11.WriteFrame(s.out, resp)
}

func (s *server) start(req pkcs11.Request) error {
	if s.lib != nil {
		return fw.Errorf(fw.Conflict, "a module is loaded")
	}
	lib, err := load(req.Module)
	if err != nil {
		return err
	}
	s.lib, s.sessions = lib, max(1, req.Sessions)
	return nil
}

func (s *server) handle(req pkcs11.Request) (pkcs11.Response, error) {
	if s.lib == nil {
		return pkcs11.Response{}, fw.Errorf(fw.Invalid, "no module is loaded: start comes first")
	}
	switch req.Op {
	case pkcs11.OpOpen:
		return s.open(req)
	case pkcs11.OpSign:
		s.mu.Lock()
		i := req.Key - 1
		if i < 0 || i >= len(s.keys) {
			s.mu.Unlock()
			return pkcs11.Response{}, fw.Errorf(fw.NotFound, "no key %d is open", req.Key)
		}
		k := s.keys[i]
		s.mu.Unlock()
		sig, err := k.sign(req)
		return pkcs11.Response{Signature: sig}, err
	case pkcs11.OpStart:
	}
	return pkcs11.Response{}, fw.Errorf(fw.Invalid, "unknown request %q", req.Op)
}

func (s *server) open(req pkcs11.Request) (pkcs11.Response, error) {
	sl, err := s.slotFor(req.Object, req.PIN)
	if err != nil {
		return pkcs11.Response{}, err
	}
	k := &key{slot: sl, object: req.Object}
	public, err := k.open()
	if err != nil {
		return pkcs11.Response{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) >= maxKeys {
		return pkcs11.Response{}, fw.Errorf(fw.TooLarge, "more than %d keys of tokens are open", maxKeys)
	}
	s.keys = append(s.keys, k)
	return pkcs11.Response{Key: len(s.keys), Public: public}, nil
}

// slotFor finds the one token that o means.
func (s *server) slotFor(o pkcs11.Object, pin []byte) (*slot, error) {
	ids, err := s.lib.slots()
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "the PKCS#11 module does not list its tokens")
	}
	var found []ulong
	for _, id := range ids {
		info, err := s.lib.token(id)
		if err != nil {
			continue // pulled out just now, or not ready: not the one
		}
		if matches(o, id, info) {
			found = append(found, id)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fw.Errorf(fw.NotFound, "none of the %d tokens of the PKCS#11 module is the one the URI names: check token= and serial=, and that it is plugged in", len(ids))
	case len(found) > 1:
		return nil, fw.Errorf(fw.Conflict, "%d tokens fit the PKCS#11 URI: add token= or serial=", len(found))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[found[0]]
	if sl == nil {
		sl = &slot{lib: s.lib, id: found[0], places: make(chan struct{}, s.sessions)}
		s.slots[found[0]] = sl
	}
	sl.offer(pin)
	return sl, nil
}
