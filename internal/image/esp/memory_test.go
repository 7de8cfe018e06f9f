package esp

import (
	"crypto/elliptic"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// large is an image of one segment of n zeros, without an appended digest.
type large struct {
	header [headerSize + segHeadSize]byte
	n      int64
}

func newLarge(n int64) large {
	l := large{n: n}
	copy(l.header[:], build(nil)[:headerSize])
	l.header[23] = 0
	le.PutUint32(l.header[headerSize+4:], uint32(n))
	return l
}

func (l large) size() int64 { return (int64(len(l.header))+l.n)/16*16 + 16 }

func (l large) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		switch at := off + int64(i); {
		case at < int64(len(l.header)):
			p[i] = l.header[at]
		case at == l.size()-1:
			p[i] = checksumIV
		default:
			p[i] = 0
		}
	}
	return len(p), nil
}

func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	in, key := newLarge(64<<20), newEC(t, elliptic.P384())
	out, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := Format{}.Sign(t.Context(), out, in, in.size(), key, image.SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Format{}).Inspect(t.Context(), out, res.Size); err != nil {
		t.Error(err)
	}
	if _, err := (Format{}).Verify(t.Context(), out, res.Size, nil, goldenKeys(t)); err == nil {
		t.Error("verified under keys of somebody else")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("allocated %d bytes for an image of %d", n, res.Size)
	}
}
