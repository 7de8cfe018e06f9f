package blob_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/fw"
)

// tinyDisk returns a file system of 256 KiB, or skips where the test may not
// mount one.
func tinyDisk(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("skipped: cannot mount a tmpfs (%v)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", path, err)
		}
	})
	return path
}

func TestAFullDiskIsSaidAndTheUploadResumes(t *testing.T) {
	d := open(t, tinyDisk(t))
	image := bytes.Repeat([]byte("z"), 200<<10)
	if err := d.Stage("ballast"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(t.Context(), "ballast", 0, bytes.NewReader(image[:128<<10]), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.Stage("u"); err != nil {
		t.Fatal(err)
	}
	n, err := d.WriteAt(t.Context(), "u", 0, bytes.NewReader(image), 1<<20)
	wantKind(t, err, fw.Unavailable)
	if !strings.Contains(err.Error(), "full") {
		t.Errorf("%q does not say that the disk is full", err)
	}
	if size, serr := d.Size("u"); serr != nil || size != n {
		t.Errorf("Size = %d, %v; WriteAt said %d", size, serr, n)
	}
	if _, _, err := d.Import(t.Context(), bytes.NewReader(image)); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("Import on a full disk: %v", err)
	}
	if err := d.Discard("ballast"); err != nil {
		t.Fatal(err)
	}
	if n, err = d.WriteAt(t.Context(), "u", n, bytes.NewReader(image[n:]), 1<<20); err != nil || n != int64(len(image)) {
		t.Fatalf("resumed: %d, %v", n, err)
	}
	if _, err := d.Commit("u", fw.DigestOf(image)); err != nil {
		t.Fatal(err)
	}
}

func TestAReadOnlyDiskIsSaid(t *testing.T) {
	path := tinyDisk(t)
	d := open(t, path)
	digest, _, err := d.Import(t.Context(), strings.NewReader("kept"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=256k"); err != nil {
		t.Skipf("skipped: cannot remount (%v)", err)
	}
	err = d.Stage("u")
	wantKind(t, err, fw.Unavailable)
	if !strings.Contains(err.Error(), "read-only") {
		t.Errorf("%q does not say that the folder is read-only", err)
	}
	wantBlob(t, d, digest, []byte("kept"))
	_, err = blob.Open(path)
	wantKind(t, err, fw.Unavailable)
}
