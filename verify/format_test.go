package verify

import (
	"bytes"
	"testing"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/tlog"
)

// Whatever is taken for a frame has one encoding: what it was read from.
func FuzzFrame(f *testing.F) {
	for _, fr := range []Frame{
		{Index: 7, Commitment: evidence.Commitment{1}, Salt: evidence.Salt{2}, Body: []byte("{}"), Path: []tlog.Hash{{3}, {4}}},
		{Index: 8, Commitment: evidence.Commitment{1}, Places: []Place{{"device/a", 3}, {"log", 1 << 50}}},
		{Index: 9, Leaves: make([]byte, 96)},
		{Index: 1 << 40, Authorization: []byte{0xd2}},
	} {
		f.Add(append(fr.Append(nil), "rest"...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr Frame
		rest, err := cutFrame(b, &fr)
		if err != nil {
			return
		}
		if again := fr.Append(nil); !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Errorf("%x is read as a frame that is encoded as %x", b[:len(b)-len(rest)], again)
		}
	})
}
