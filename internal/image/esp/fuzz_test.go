package esp

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.bin")
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
	f.Add(build(app("1.2.3", 5, 256), []byte("code")))
	f.Add(build([]byte("bootload")))
}

// fix puts the right checksum, digest and CRC into an image that is otherwise
// well formed, so that the fuzzer gets past them.
func fix(b []byte) {
	v, err := surveyImage(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	x := &xorer{spans: v.segments}
	_, _ = x.Write(b[:v.checksum])
	b[v.checksum] = x.sum ^ checksumIV
	if v.appended {
		copy(b, rehash(b[:v.end]))
	}
	if v.sector != nil {
		recrc(b, 0)
	}
}

// Whatever Inspect accepts, signing gives an image that verifies and says the
// same; and what Sign accepts, Inspect does.
func FuzzSign(f *testing.F) {
	seed(f)
	key := newEC(f, elliptic.P256())
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the fuzzer owns its input
		fix(b)
		info, err := inspectBytes(b)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
		}
		for _, layout := range []string{`{}`, `{"append":true}`} {
			out, _, serr := signBytes(b, key, image.SignOptions{Layout: json.RawMessage(layout)})
			if serr != nil {
				if _, ok := image.ReasonOf(serr); !ok {
					t.Fatalf("refused without a reason: %v", serr)
				}
				if err == nil && layout == `{}` {
					t.Fatalf("inspected but not signed: %v", serr)
				}
				continue
			}
			v, verr := verifyBytes(out, key.Public())
			if verr != nil {
				t.Fatalf("%s: signed but not verified: %v", layout, verr)
			}
			if err == nil && (v.Info.Version != info.Version || v.Info.Hardware[0] != info.Hardware[0]) {
				t.Fatalf("signing changed %+v to %+v", info, v.Info)
			}
		}
	})
}

// Only the samples' own content verifies under the samples' keys: the fuzzer
// has no private key.
func FuzzVerify(f *testing.F) {
	seed(f)
	keys := goldenKeys(f)
	v, err := verifyBytes(sample(f, "app-rsa3072.bin"), keys...)
	if err != nil {
		f.Fatal(err)
	}
	want, _ := v.Info.Digest(image.ScopeImage)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := verifyBytes(b, keys...)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if d, _ := v.Info.Digest(image.ScopeImage); d != want {
			t.Fatalf("verified an image nobody signed: %+v", v.Info)
		}
	})
}
