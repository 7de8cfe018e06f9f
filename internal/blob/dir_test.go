package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/fw"
)

func open(t *testing.T, path string) *blob.Dir {
	t.Helper()
	d, err := blob.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func wantKind(t *testing.T, err error, kind fw.Kind) {
	t.Helper()
	if fw.KindOf(err) != kind {
		t.Fatalf("got error %v of kind %q, want %q", err, fw.KindOf(err), kind)
	}
}

func wantBlob(t *testing.T, d *blob.Dir, digest fw.Digest, want []byte) {
	t.Helper()
	f, size, err := d.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, want) || size != int64(len(want)) {
		t.Fatalf("blob %s has %d bytes (size %d, error %v), want %d", digest, len(got), size, err, len(want))
	}
}

func stagedFiles(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path, "staged"))
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func TestUploadResumesAfterACut(t *testing.T) {
	d := open(t, t.TempDir())
	image := bytes.Repeat([]byte("firmware"), 100_000)
	if err := d.Stage("upl_1"); err != nil {
		t.Fatal(err)
	}
	cut := io.MultiReader(bytes.NewReader(image[:300_000]), iotest.ErrReader(io.ErrUnexpectedEOF))
	n, err := d.WriteAt(t.Context(), "upl_1", 0, cut, int64(len(image)))
	wantKind(t, err, fw.Invalid)
	if n != 300_000 {
		t.Fatalf("%d bytes kept, want 300000", n)
	}
	if err := d.Stage("upl_1"); err != nil { // staging again changes nothing
		t.Fatal(err)
	}
	if size, err := d.Size("upl_1"); err != nil || size != n {
		t.Fatalf("Size = %d, %v; want %d", size, err, n)
	}
	for _, offset := range []int64{0, n - 1, n + 1, -1, 1 << 62} {
		got, err := d.WriteAt(t.Context(), "upl_1", offset, bytes.NewReader(image), int64(len(image)))
		wantKind(t, err, fw.Conflict)
		if got != n || !strings.Contains(err.Error(), "300000") {
			t.Errorf("offset %d: size %d, error %q does not name the real offset", offset, got, err)
		}
	}
	if n, err = d.WriteAt(t.Context(), "upl_1", n, bytes.NewReader(image[n:]), int64(len(image))); err != nil || n != int64(len(image)) {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	for range 2 { // committing is idempotent
		if size, err := d.Commit("upl_1", fw.DigestOf(image)); err != nil || size != int64(len(image)) {
			t.Fatalf("Commit = %d, %v", size, err)
		}
	}
	wantBlob(t, d, fw.DigestOf(image), image)
	if size, err := d.Stat(fw.DigestOf(image)); err != nil || size != int64(len(image)) {
		t.Fatalf("Stat = %d, %v", size, err)
	}
}

func TestAKilledServerResumesWhatIsOnDisk(t *testing.T) {
	path := t.TempDir()
	image := bytes.Repeat([]byte{7}, 50_000)
	first := open(t, path)
	if err := first.Stage("upl_1"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.WriteAt(t.Context(), "upl_1", 0, bytes.NewReader(image[:20_000]), 50_000); err != nil {
		t.Fatal(err)
	}
	// Killed here, with bytes of a write that never returned, a half-made
	// import, and a folder for a blob that was never renamed into it.
	staged := filepath.Join(path, "staged", "upl_1")
	f, err := os.OpenFile(staged, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(image[20_000:21_000]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "staged", "XYZ.import"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, "sha256", fw.DigestOf(image).Hex()[:2]), 0o700); err != nil {
		t.Fatal(err)
	}

	d := open(t, path)
	n, err := d.Size("upl_1")
	if err != nil || n != 21_000 {
		t.Fatalf("Size = %d, %v; want 21000", n, err)
	}
	_, _, err = d.Open(fw.DigestOf(image))
	wantKind(t, err, fw.NotFound)
	if _, err := d.WriteAt(t.Context(), "upl_1", n, bytes.NewReader(image[n:]), 50_000); err != nil {
		t.Fatal(err)
	}
	// Killed again, between the chmod and the rename of a commit.
	if err := os.Chmod(staged, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit("upl_1", fw.DigestOf(image)); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, fw.DigestOf(image), image)
	if removed, err := d.Sweep(time.Now().Add(time.Hour)); err != nil || removed != 1 {
		t.Fatalf("Sweep = %d, %v; want the half-made import", removed, err)
	}
}

func TestBytesTornByACrashNeverBecomeABlob(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	image := []byte("the image as announced")
	if err := d.Stage("upl_1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "staged", "upl_1"), make([]byte, len(image)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.Commit("upl_1", fw.DigestOf(image))
	wantKind(t, err, fw.Invalid)
	_, err = d.Size("upl_1")
	wantKind(t, err, fw.NotFound)
	_, err = d.Commit("upl_1", fw.DigestOf(image))
	wantKind(t, err, fw.NotFound)
	if names := stagedFiles(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestATooLargeWriteChangesNothing(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.Stage("u"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(t.Context(), "u", 0, strings.NewReader("12345"), 10); err != nil {
		t.Fatal(err)
	}
	n, err := d.WriteAt(t.Context(), "u", 5, strings.NewReader("678901"), 10)
	wantKind(t, err, fw.TooLarge)
	if size, _ := d.Size("u"); n != 5 || size != 5 {
		t.Fatalf("size %d, reported %d; want 5", size, n)
	}
	if n, err := d.WriteAt(t.Context(), "u", 5, strings.NewReader("67890"), 10); err != nil || n != 10 {
		t.Fatalf("exactly the bound: %d, %v", n, err)
	}
	_, err = d.WriteAt(t.Context(), "u", 10, iotest.ErrReader(fw.Errorf(fw.TooLarge, "from the reader")), 11)
	wantKind(t, err, fw.TooLarge)
}

func TestACancelledWriteKeepsWhatArrived(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.Stage("u"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := d.WriteAt(ctx, "u", 0, strings.NewReader("x"), 10)
	wantKind(t, err, fw.Unavailable)
	if n != 0 {
		t.Errorf("size %d, want 0", n)
	}
}

func TestHostileIDsLeadNowhere(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for _, id := range []string{"", ".", "..", "../x", "a/b", `a\b`, "/etc/passwd", "a.import", "a\x00b", "é", "a b", "a\n", strings.Repeat("a", 65)} {
		_, sizeErr := d.Size(id)
		_, writeErr := d.WriteAt(t.Context(), id, 0, strings.NewReader("x"), 10)
		_, commitErr := d.Commit(id, fw.DigestOf(nil))
		for _, err := range []error{d.Stage(id), sizeErr, writeErr, commitErr, d.Discard(id)} {
			if fw.KindOf(err) != fw.Invalid {
				t.Errorf("id %q: got %v, want invalid", id, err)
			}
		}
	}
	if names := stagedFiles(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	if err := d.Stage("upl_A-z0"); err != nil {
		t.Error(err)
	}
}

func TestASymbolicLinkLeadsNowhere(t *testing.T) {
	path, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	d := open(t, path)
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(path, "staged", "u")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, err := d.WriteAt(t.Context(), "u", 6, strings.NewReader("x"), 10); err == nil {
		t.Error("wrote through a symbolic link that leaves the folder")
	}
	if got, _ := os.ReadFile(secret); string(got) != "secret" {
		t.Errorf("the file outside is now %q", got)
	}
}

func TestImportStoresWhatTheServerMakes(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for range 2 {
		digest, size, err := d.Import(t.Context(), strings.NewReader("signed"))
		if err != nil || size != 6 || digest != fw.DigestOf([]byte("signed")) {
			t.Fatalf("Import = %s, %d, %v", digest, size, err)
		}
		wantBlob(t, d, digest, []byte("signed"))
	}
	if _, _, err := d.Import(t.Context(), iotest.ErrReader(errors.New("boom"))); err == nil {
		t.Error("Import of a failing reader succeeded")
	}
	if names := stagedFiles(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestCommitHealsADamagedBlob(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	digest, _, err := d.Import(t.Context(), strings.NewReader("good"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "sha256", digest.Hex()[:2], digest.Hex()[2:])
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("evil"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Stage("u"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(t.Context(), "u", 0, strings.NewReader("good"), 4); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit("u", digest); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, digest, []byte("good"))
}

func TestSweepLeavesFreshAndBusyUploads(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	old := time.Now().Add(-48 * time.Hour)
	for _, id := range []string{"old", "busy", "fresh"} {
		if err := d.Stage(id); err != nil {
			t.Fatal(err)
		}
		if id != "fresh" {
			if err := os.Chtimes(filepath.Join(path, "staged", id), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := d.WriteAt(context.Background(), "busy", 0, r, 10)
		done <- err
	}()
	// WriteAt has the upload once it reads.
	if _, err := w.Write([]byte{}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.Stage("busy"), fw.Conflict)
	if removed, err := d.Sweep(time.Now().Add(-24 * time.Hour)); err != nil || removed != 1 {
		t.Errorf("Sweep = %d, %v; want 1", removed, err)
	}
	if err := errors.Join(w.Close(), <-done); err != nil {
		t.Error(err)
	}
	if names := stagedFiles(t, path); len(names) != 2 {
		t.Errorf("left: %v", names)
	}
	if err := errors.Join(d.Discard("busy"), d.Discard("busy")); err != nil {
		t.Error(err)
	}
}

func TestUploadsInProgressAreBounded(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for i := range 1024 {
		if err := os.WriteFile(filepath.Join(path, "staged", "u"+string(rune('a'+i%26))+strings.Repeat("x", i/26)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, d.Stage("one-more"), fw.TooMany)
	if err := d.Stage("ua"); err != nil { // in progress already
		t.Error(err)
	}
}

func TestConcurrentUploadsOfTheSameBytes(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	image := bytes.Repeat([]byte("x"), 1<<20)
	var wg sync.WaitGroup
	for i := range 8 {
		id := "u" + string(rune('0'+i))
		wg.Go(func() {
			if err := d.Stage(id); err != nil {
				t.Error(err)
			}
			if _, err := d.WriteAt(context.Background(), id, 0, bytes.NewReader(image), 1<<20); err != nil {
				t.Error(err)
			}
			if _, err := d.Commit(id, fw.DigestOf(image)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantBlob(t, d, fw.DigestOf(image), image)
	if names := stagedFiles(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestAnUnusableFolderIsRefusedWithItsPath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := blob.Open(file)
	wantKind(t, err, fw.Unavailable)
	if !strings.Contains(err.Error(), file) {
		t.Errorf("%q does not name the folder", err)
	}
}
