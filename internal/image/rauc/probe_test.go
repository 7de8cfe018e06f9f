package rauc

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
)

// A squashfs is a bundle, a root file system or something else again, and only
// the first may be taken for one.
func TestProbeTellsBundlesFromOtherFiles(t *testing.T) {
	probe := func(b []byte) bool { return Format{}.Probe(bytes.NewReader(b), int64(len(b))) }
	names, err := filepath.Glob("testdata/*.raucb")
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, name := range names {
		b := sample(t, filepath.Base(name))
		if !probe(b) {
			t.Errorf("%s: no bundle", name)
		}
		if body, _ := parts(b); probe(body) != strings.HasPrefix(filepath.Base(name), "plain") {
			t.Errorf("%s without its signature: %v", name, probe(body))
		}
		if probe(b[:len(b)-1]) {
			t.Errorf("%s: a bundle without its last byte", name)
		}
	}
	for _, b := range [][]byte{nil, []byte("hsqs"), make([]byte, 4096)} {
		if probe(b) {
			t.Errorf("%d bytes are a bundle", len(b))
		}
	}

	mksquashfs := cmstest.Tool(t, "mksquashfs")
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	cmstest.Write(t, in, "init", []byte("#!/bin/sh\n"))
	path := filepath.Join(dir, "root.squashfs")
	if out, err := cmstest.Run(t, mksquashfs, in, path, "-quiet"); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	root, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if probe(root) {
		t.Error("a root file system is a bundle")
	}
	if !(Format{}).Detect(root) {
		t.Error("a squashfs is not detected")
	}
}
