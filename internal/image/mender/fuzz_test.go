package mender

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.mender")
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	small := [][]file{{{"fw", []byte("code")}}}
	f.Add(build(spec{data: small, ext: ".gz", headerExt: ".gz"}))
	f.Add(build(spec{data: small, ext: ".zst", headerExt: ".zst"}))
}

// fixChecksum makes the checksum of a tar header right.
func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, v := range h {
		sum += int(v)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00", sum))
}

// fix makes the checksums of the tar, and the manifest's line for the header,
// right again, so that the fuzzer gets past them.
func fix(b []byte) {
	for at := 0; at+blockSize <= len(b); at += blockSize {
		h := b[at : at+blockSize]
		if !bytes.HasPrefix(h[257:], []byte("ustar")) {
			continue
		}
		fixChecksum(h)
	}
	t := &tarReader{r: bytes.NewReader(b)}
	var manifest []byte
	for {
		name, size, err := t.next()
		if err != nil || size > int64(len(b))-t.off {
			return
		}
		body := b[t.off : t.off+size]
		switch {
		case name == nameManifest:
			manifest = body
		case strings.HasPrefix(name, nameHeader) || name == nameVersion:
			if at := bytes.Index(manifest, []byte("  "+name+"\n")); at >= 64 {
				const hex = "0123456789abcdef"
				for i, v := range sha256.Sum256(body) {
					manifest[at-64+2*i], manifest[at-63+2*i] = hex[v>>4], hex[v&15]
				}
			}
		}
	}
}

// Whatever Inspect accepts, signing gives an artifact that verifies and says
// the same.
func FuzzSign(f *testing.F) {
	seed(f)
	key := newEC(f, elliptic.P256())
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the fuzzer owns its input
		fix(b)
		info, err := inspectBytes(b)
		out, _, serr := signBytes(b, key, image.SignOptions{})
		for _, err := range []error{err, serr} {
			if _, ok := image.ReasonOf(err); err != nil && !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
		}
		if err != nil || serr != nil {
			return
		}
		v, err := verifyBytes(out, key.Public())
		if err != nil {
			t.Fatalf("signed but not verified: %v", err)
		}
		if string(v.Info.Details) != string(info.Details) || v.Info.Version != info.Version {
			t.Fatalf("signing changed %s to %s", info.Details, v.Info.Details)
		}
	})
}

// Only the samples' own manifest verifies under the samples' keys: the fuzzer
// has no private key.
func FuzzVerify(f *testing.F) {
	seed(f)
	keys := goldenKeys(f)
	good, err := verifyBytes(sample(f, "ec.mender"), keys...)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := verifyBytes(b, keys...)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if string(v.Info.Details) != string(good.Info.Details) {
			t.Fatalf("verified an artifact nobody signed: %+v", v.Info)
		}
	})
}

// The two readers of tar agree on what is in one, where both accept it.
func FuzzTar(f *testing.F) {
	seed(f)
	f.Add(makeTar(file{"a", []byte("b")}, file{"c", nil}))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		fix(b)
		ours, oerr := listOurs(b)
		std, serr := listStd(b)
		if oerr == nil && serr == nil && ours != std {
			t.Fatalf("one reads %q, the other %q", ours, std)
		}
	})
}
