package suit

import (
	"crypto"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// zeros is an endless file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// The formats package tests the same for detached envelopes.
func TestIntegratedImagesAreStreamed(t *testing.T) {
	const size, limit = 64 << 20, 1 << 20
	out, err := os.Create(filepath.Join(t.TempDir(), "envelope"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	key := newEd25519(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := Format{}.Sign(t.Context(), out, zeros{}, size, key, options(t, Layout{Integrated: true}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Format{}).Inspect(t.Context(), out, res.Size); err != nil {
		t.Error(err)
	}
	v, err := Format{}.Verify(t.Context(), out, res.Size, nil, []crypto.PublicKey{key.Public()})
	if err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > limit {
		t.Errorf("allocated %d bytes for an image of %d, limit %d", n, size, limit)
	}
	if d, _ := v.Info.Digest(image.ScopeImage); d != res.Image {
		t.Errorf("image digest: got %v, want %v", d, res.Image)
	}
}

// What Sign writes as the head of an image is what Verify reads, and the
// library.
func TestHeadsOfAnyLength(t *testing.T) {
	for _, n := range []uint64{
		0, 23, 24, math.MaxUint8, math.MaxUint8 + 1, math.MaxUint16, math.MaxUint16 + 1,
		math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64,
	} {
		b := appendHead(nil, majorUint, n)
		major, arg, used, err := parseHead(b)
		if err != nil || major != majorUint || arg != n || used != len(b) {
			t.Errorf("%d: read as %d %d, %v", n, major, arg, err)
		}
		if want := encode(t, n); string(want) != string(b) {
			t.Errorf("%d: got %x, want %x", n, b, want)
		}
	}
}
