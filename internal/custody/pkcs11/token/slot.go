//go:build (linux || darwin) && (amd64 || arm64)

package token

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/writ-project/writ/internal/custody/pkcs11"
	"github.com/writ-project/writ/internal/fw"
)

// slot is a token with its pool of sessions.
type slot struct {
	lib    *library
	id     ulong
	places chan struct{} // one per session that may be open

	mu       sync.Mutex
	idle     []ulong
	pin      []byte
	refused  []byte // a PIN the token did not take; it is not tried again
	loggedIn bool
}

func matches(o pkcs11.Object, id ulong, t *tokenInfo) bool {
	is := func(want string, have []byte) bool {
		return want == "" || want == strings.TrimRight(string(have), " \x00")
	}
	return is(o.Token, t.label[:]) && is(o.Manufacturer, t.manufacturer[:]) && is(o.Model, t.model[:]) &&
		is(o.Serial, t.serial[:]) && (o.Slot == nil || ulong(*o.Slot) == id) //nolint:gosec // G115: ParseURI refuses negative ones
}

// offer gives the PIN to log in with.
func (s *slot) offer(pin []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loggedIn {
		s.pin = bytes.Clone(pin)
	}
}

// do runs f with a session of its own. When the session turns out to be dead,
// because the token was pulled or the module lost it, f runs once more with a
// new one.
func (s *slot) do(f func(session ulong) rv) error {
	s.places <- struct{}{}
	defer func() { <-s.places }()
	for try := 0; ; try++ {
		session, err := s.take()
		if err != nil {
			return err
		}
		r := f(session)
		if !stale(r) {
			s.put(session)
			return explain(r)
		}
		s.drop(session)
		if try > 0 {
			return explain(r)
		}
	}
}

func stale(r rv) bool {
	return slices.Contains([]rv{
		rvSessionClosed, rvSessionHandleInvalid, rvDeviceRemoved, rvTokenNotPresent, rvUserNotLoggedIn,
		rvKeyHandleInvalid, rvObjectHandleInvalid,
	}, r)
}

func (s *slot) take() (ulong, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		session := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return session, nil
	}
	session, r := s.lib.openSession(s.id)
	if r != rvOK {
		return 0, explain(r)
	}
	if err := s.login(session); err != nil {
		s.lib.closeSession(session)
		return 0, err
	}
	return session, nil
}

// login logs the process in; one login counts for all of its sessions with the
// token (PKCS #11 v2.40, section 5.6). The caller holds s.mu.
func (s *slot) login(session ulong) error {
	if s.loggedIn {
		return nil
	}
	if s.refused != nil && bytes.Equal(s.refused, s.pin) {
		return explain(rvPINIncorrect)
	}
	switch r := s.lib.login(session, s.pin); r { //nolint:exhaustive // the others are explained
	case rvOK, rvUserAlreadyLoggedIn:
		s.loggedIn = true
		return nil
	case rvPINIncorrect, rvPINInvalid, rvPINLenRange:
		// A few wrong tries lock a token for good.
		s.refused = s.pin
		return explain(r)
	default:
		return explain(r)
	}
}

func (s *slot) put(session ulong) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, session)
}

// drop ends session and the idle ones, which died of the same thing.
func (s *slot) drop(session ulong) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range append(s.idle, session) {
		s.lib.closeSession(id)
	}
	s.idle, s.loggedIn = nil, false
}

// explain turns a return value into an error that says what to do; nil for rvOK.
func explain(r rv) error {
	switch r { //nolint:exhaustive // the others mean nothing to a user
	case rvOK:
		return nil
	case rvPINIncorrect, rvPINInvalid, rvPINLenRange:
		return fw.Wrap(fw.Forbidden, r.err(), "the token does not take the PIN; it will not be tried again, because a few wrong ones lock the token: correct it and restart")
	case rvPINLocked:
		return fw.Wrap(fw.Forbidden, r.err(), "the PIN of the token is locked after wrong tries: its security officer must unlock it")
	case rvPINExpired:
		return fw.Wrap(fw.Forbidden, r.err(), "the PIN of the token has expired: set a new one with the vendor's tool")
	case rvUserPINNotInitialized:
		return fw.Wrap(fw.Forbidden, r.err(), "the token has no user PIN yet: its security officer must set one")
	case rvTokenNotPresent, rvTokenNotRecognized, rvDeviceRemoved:
		return fw.Wrap(fw.Unavailable, r.err(), "the token is not there: plug it in")
	case rvMechanismInvalid, rvMechanismParamInvalid:
		return fw.Wrap(fw.Invalid, r.err(), "the token cannot sign with this algorithm or hash function")
	case rvSessionCount:
		return fw.Wrap(fw.Unavailable, r.err(), "the token has no session left: end other programs that use it, or lower the number of sessions")
	case rvDeviceError, rvFunctionFailed:
		return fw.Wrap(fw.Unavailable, r.err(), "the token or its module failed: see its own log")
	default:
		return fw.Wrap(fw.Unavailable, r.err(), "the token refused")
	}
}
