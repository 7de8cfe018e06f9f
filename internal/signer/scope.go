package signer

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"sync"
)

// scoped is a crypto.Signer that works a fixed number of times, once unless
// most says otherwise, during one call, and only on what allow accepts. It is
// what other people's encoders get instead of a key.
type scoped struct {
	key crypto.Signer
	// allow decides on the message, or on the digest for keys that sign
	// digests. It runs before the key is used; nil allows anything.
	allow func(message []byte, opts crypto.SignerOpts) error

	most int // uses; 0 means 1

	mu     sync.Mutex
	closed bool
	uses   int
}

func (s *scoped) Public() crypto.PublicKey { return s.key.Public() }

func (s *scoped) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the operation this key was lent for is over")
	}
	switch most := max(1, s.most); {
	case s.uses < most:
	case most == 1:
		return nil, errors.New("the key was lent for one signature and has made it")
	default:
		return nil, fmt.Errorf("the key was lent for %d signatures and has made them", most)
	}
	if s.allow != nil {
		if err := s.allow(message, opts); err != nil {
			return nil, err
		}
	}
	s.uses++
	return s.key.Sign(rand, message, opts)
}

// close ends the scope and reports whether the key was used.
func (s *scoped) close() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.uses > 0
}
