package rauc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

const (
	largeSize   = 1 << 30          // bytes of payload
	memoryLimit = 64 << 20         // bytes resident, for the process
	largeEnv    = "WRIT_RAUC_FILE" // tells the test that it is the process measured
)

// A process of its own inspects, signs and verifies a bundle of more than a
// gigabyte, and asks the kernel for its peak.
func TestMemoryDoesNotGrowWithTheBundle(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: hashes gigabytes")
	}
	for _, format := range []string{formatPlain, formatVerity} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "large.raucb")
			writeLarge(t, path, format)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLargeBundle$", "-test.v")
			cmd.Env = append(os.Environ(), largeEnv+"="+path)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLargeBundle")) {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// peak is how much memory this process had resident at most, in bytes.
func peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("skipped: this system does not say how much memory a process took: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}

// TestLargeBundle is the process that is measured.
func TestLargeBundle(t *testing.T) {
	path := os.Getenv(largeEnv)
	if path == "" {
		t.Skip("skipped: runs as a process of its own")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Format{}).Inspect(t.Context(), f, st.Size()); err != nil {
		t.Fatal(err)
	}
	ca, by := newSigner(t, cmstest.P256)
	out, err := os.Create(path + ".signed")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // read back below
	w := &sparse{f: out}
	res, err := Format{}.Sign(t.Context(), w, f, st.Size(), by, image.SignOptions{Version: "2026.11-1", Certificates: certs(by)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Format{}).Verify(t.Context(), out, res.Size, nil, []crypto.PublicKey{image.CA{Certificate: ca.Certificate}}); err != nil {
		t.Fatal(err)
	}
	n := peak(t)
	t.Logf("peak of %d KiB for a payload of %d MiB", n>>10, largeSize>>20)
	if n > memoryLimit {
		t.Errorf("%d bytes resident, limit %d", n, memoryLimit)
	}
}

// writeLarge writes a bundle whose squashfs says that it has largeSize bytes:
// the sample's, then a hole.
func writeLarge(t *testing.T, path, format string) {
	t.Helper()
	body, _ := parts(sample(t, "plain.raucb"))
	body = bytes.Clone(body)
	binary.LittleEndian.PutUint64(body[40:], largeSize) // bytes_used
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(largeSize); err != nil {
		t.Fatal(err)
	}
	if format == formatVerity {
		salt := bytes.Repeat([]byte{7}, veritySum)
		levels, root := buildTree(body, largeSize/blockSize, salt)
		off, size := int64(largeSize), 0
		for _, l := range levels {
			if _, err := f.WriteAt(l, off); err != nil {
				t.Fatal(err)
			}
			off, size = off+int64(len(l)), size+len(l)
		}
		_, by := newSigner(t, cmstest.P256)
		m := "[update]\ncompatible=board-a\nversion=2026.11-1\n[bundle]\nformat=verity\nverity-hash=" + hex.EncodeToString(root) +
			"\nverity-salt=" + hex.EncodeToString(salt) + "\nverity-size=" + strconv.Itoa(size) + "\n"
		sig, err := cms.SignContent(by, []byte(m), cms.Options{Chain: certs(by)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(join(nil, sig), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// buildTree builds the tree of blocks that are body and then zeros: the whole of
// each level, the top one first.
func buildTree(body []byte, blocks int, salt []byte) (levels [][]byte, root []byte) {
	sum := func(b []byte) []byte {
		s := sha256.Sum256(append(bytes.Clone(salt), b...))
		return s[:]
	}
	zero := sum(make([]byte, blockSize))
	var level []byte
	for i := range blocks {
		if (i+1)*blockSize <= len(body) {
			level = append(level, sum(body[i*blockSize:(i+1)*blockSize])...)
		} else {
			level = append(level, zero...)
		}
	}
	for {
		for len(level)%blockSize != 0 {
			level = append(level, 0)
		}
		levels = append([][]byte{level}, levels...)
		if len(level) == blockSize {
			return levels, sum(level)
		}
		var above []byte
		for i := 0; i < len(level); i += blockSize {
			above = append(above, sum(level[i:i+blockSize])...)
		}
		level = above
	}
}

// sparse writes a file with holes where there are zeros.
type sparse struct {
	f   *os.File
	off int64
}

func (s *sparse) Write(p []byte) (int, error) {
	if len(bytes.Trim(p, "\x00")) != 0 {
		if _, err := s.f.WriteAt(p, s.off); err != nil {
			return 0, err
		}
	}
	s.off += int64(len(p))
	return len(p), nil
}

// BenchmarkVerify says how fast a payload is checked; openssl speed -evp sha256
// says how fast it can be.
func BenchmarkVerify(b *testing.B) {
	const size = 64 << 20
	body, _ := parts(sample(b, "plain.raucb"))
	body = append(bytes.Clone(body), make([]byte, size-len(body))...)
	binary.LittleEndian.PutUint64(body[40:], size)
	_, by := newSigner(b, cmstest.P256)
	plain := mustSign(b, body, by, image.SignOptions{})

	salt := bytes.Repeat([]byte{7}, veritySum)
	levels, root := buildTree(body, size/blockSize, salt)
	tr := bytes.Join(levels, nil)
	m := "[update]\ncompatible=board-a\n[bundle]\nformat=verity\nverity-hash=" + hex.EncodeToString(root) +
		"\nverity-salt=" + hex.EncodeToString(salt) + "\nverity-size=" + strconv.Itoa(len(tr)) + "\n"
	sig, err := cms.SignContent(by, []byte(m), cms.Options{Chain: certs(by)})
	if err != nil {
		b.Fatal(err)
	}
	verity := join(append(body, tr...), sig)
	for name, file := range map[string][]byte{formatPlain: plain, formatVerity: verity} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				if _, err := verifyBytes(file, by.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("one hash", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := io.Copy(sha256.New(), image.Section(context.Background(), bytes.NewReader(plain), 0, size)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
