package mender

import (
	"archive/tar"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// large writes an artifact with one payload of n zeros to a file.
func large(t *testing.T, n int64) *os.File {
	t.Helper()
	sum := sha256.New()
	zeros := make([]byte, 1<<20)
	for range n >> 20 {
		sum.Write(zeros)
	}
	version := []byte(`{"format":"mender","version":3}`)
	header := makeTar(file{"header-info", []byte(goodInfo)}, file{"headers/0000/type-info", []byte(goodType)})
	manifest := fmt.Appendf(nil, "%x  data/0000/fw.ext4\n%x  header.tar\n%x  version\n", sum.Sum(nil), sha256.Sum256(header), sha256.Sum256(version))
	f, err := os.Create(filepath.Join(t.TempDir(), "in"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	w := tar.NewWriter(f)
	put := func(name string, body []byte, size int64) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []file{{"version", version}, {"manifest", manifest}, {"header.tar", header}} {
		put(e.name, e.body, int64(len(e.body)))
	}
	// The inner tar is a header, the content and two blocks.
	put("data/0000.tar", nil, n+3*blockSize)
	head := entry("fw.ext4", nil)
	copy(head[124:], fmt.Sprintf("%011o", n))
	fixChecksum(head)
	if _, err := w.Write(head); err != nil {
		t.Fatal(err)
	}
	for range n >> 20 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.Write(zeros[:2*blockSize])
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMemoryDoesNotGrowWithTheArtifact(t *testing.T) {
	const n, limit = 128 << 20, 2 << 20
	in := large(t, n)
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	key := rsaKey()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := Format{}.Sign(t.Context(), out, in, size, key, image.SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Format{}).Verify(t.Context(), out, res.Size, nil, []crypto.PublicKey{key.Public()}); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > limit {
		t.Errorf("allocated %d bytes for an artifact of %d, limit %d", got, res.Size, limit)
	}
}
