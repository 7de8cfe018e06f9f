package evidence

import (
	"errors"

	"github.com/writ-project/writ/internal/fw"
)

// How the records of a stream can fail to follow each other. They are causes:
// test with [errors.Is].
var (
	// ErrGap means that records are missing between two that are there.
	ErrGap = errors.New("records of the stream are missing")
	// ErrFork means that a number is there twice, or goes back.
	ErrFork = errors.New("a number of the stream is there twice")
	// ErrBroken means that a record names another predecessor than the one
	// that is there.
	ErrBroken = errors.New("a record of the stream follows another one")
)

// Head is the end of a stream: how many records it has and the commitment of
// the last. The zero Head is a stream without records.
type Head struct {
	N    int64      `json:"n"`
	Last Commitment `json:"last"`
}

// Next returns the link of the record after h in stream s.
func (h Head) Next(s StreamID) Link { return Link{Stream: s, N: h.N + 1, Prev: h.Last} }

// Extend checks that l comes right after h and returns the head with the
// linked record, whose commitment is c.
func (h Head) Extend(l Link, c Commitment) (Head, error) {
	switch {
	case l.N > h.N+1:
		return h, fw.Wrap(fw.Corrupt, ErrGap, "stream %s goes from record %d to %d: %d missing", l.Stream, h.N, l.N, l.N-h.N-1)
	case l.N <= h.N:
		return h, fw.Wrap(fw.Corrupt, ErrFork, "stream %s has record %d after %d", l.Stream, l.N, h.N)
	case l.Prev != h.Last:
		return h, fw.Wrap(fw.Corrupt, ErrBroken, "record %d of stream %s does not follow its record %d", l.N, l.Stream, h.N)
	}
	return Head{N: l.N, Last: c}, nil
}

// Linked is a record's place in one stream and its commitment.
type Linked struct {
	Link       Link
	Commitment Commitment
}

// CheckLinks checks that links are the records of stream s after head h, in
// order and with none missing between them, and returns the head after them.
// That the stream does not go on is for an epoch to prove ([CheckStream]).
func CheckLinks(s StreamID, h Head, links []Linked) (Head, error) {
	for _, l := range links {
		if l.Link.Stream != s {
			return h, fw.Errorf(fw.Invalid, "a record of stream %s is among those of stream %s", l.Link.Stream, s)
		}
		var err error
		if h, err = h.Extend(l.Link, l.Commitment); err != nil {
			return h, err
		}
	}
	return h, nil
}
