package signerd

import (
	"crypto/sha256"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// An image of any size goes to the signer and back in little memory.
func TestLargeImagesTakeLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it moves half a gigabyte three times")
	}
	const size = 512 << 20
	f, err := os.CreateTemp(t.TempDir(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newWorld(t)
	w.must(f.Truncate(size))
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	w.digest, w.size = fw.Digest(h.Sum(nil)), size
	c, o := w.serve(uid), w.order("1.0.0")

	defer debug.SetGCPercent(debug.SetGCPercent(20)) // so that the heap is close to what is in use
	runtime.GC()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, stop, peak := heap(), make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for {
			most = max(most, heap())
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	start := time.Now()
	r, err := c.SignImage(t.Context(), o, f, io.Discard)
	took := time.Since(start)
	close(stop)
	grew := int64(<-peak) - int64(before)
	w.must(err)
	if r.Size != size {
		t.Errorf("%d bytes came back", r.Size)
	}
	t.Logf("%d MiB in %v, the heap grew by %d KiB", size>>20, took, grew>>10)
	if grew > 16<<20 {
		t.Errorf("the heap grew by %d KiB", grew>>10)
	}
}
