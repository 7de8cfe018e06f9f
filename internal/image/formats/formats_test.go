package formats_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/image/minisign"
	"github.com/writ-project/writ/internal/image/raw"
	"github.com/writ-project/writ/internal/image/suit"
)

func Example() {
	ctx := context.Background()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	f, _ := formats.ForName("mcuboot")
	firmware := bytes.NewReader([]byte("machine code"))
	var out bytes.Buffer
	opt := image.SignOptions{Version: "1.2.3+4", SecurityCounter: new(uint64(7))}
	if _, err := f.Sign(ctx, &out, firmware, firmware.Size(), key, opt); err != nil {
		fmt.Println(err)
		return
	}

	signed := bytes.NewReader(out.Bytes())
	f, err = formats.Detect(signed, signed.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := f.Verify(ctx, signed, signed.Size(), nil, []crypto.PublicKey{pub})
	fmt.Println(f.Name(), v.Info.Version, *v.Info.SecurityCounter, v.Algorithm, err)

	out.Bytes()[0x205] ^= 1
	_, err = f.Verify(ctx, signed, signed.Size(), nil, []crypto.PublicKey{pub})
	reason, _ := image.ReasonOf(err)
	fmt.Println(reason)
	// Output:
	// mcuboot 1.2.3+4 7 ed25519 <nil>
	// bad_digest
}

func TestDetectTellsSamplesApart(t *testing.T) {
	files, err := filepath.Glob("../mcuboot/testdata/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := "mcuboot"
		if filepath.Base(name) == "payload.bin" {
			want = "raw"
		}
		f, err := formats.Detect(bytes.NewReader(b), int64(len(b)))
		if err != nil || f.Name() != want {
			t.Errorf("%s: got %v, %v, want %s", name, f, err, want)
		}
	}
	if f, err := formats.Detect(bytes.NewReader([]byte{0x3d}), 1); err != nil || f.Name() != "raw" {
		t.Errorf("one byte: got %v, %v", f, err)
	}
	for _, size := range []int64{0, -1, 5} {
		if _, err := formats.Detect(bytes.NewReader(nil), size); !errors.Is(err, image.ErrTruncated) {
			t.Errorf("nothing, said to be %d bytes: got %v", size, err)
		}
	}
}

func TestDetectKnowsTheSamplesOfEachFormat(t *testing.T) {
	for want, pattern := range map[string]string{"esp": "../esp/testdata/*.bin", "mender": "../mender/testdata/*.mender", "swu": "../swu/testdata/*.swu"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no samples: %v", pattern, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := formats.Detect(bytes.NewReader(b), int64(len(b)))
			if err != nil || f.Name() != want {
				t.Errorf("%s: got %v, %v", name, f, err)
			}
		}
	}
}

func TestDetachedSignaturesShowTheirFormat(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []image.Format{raw.Format{}, minisign.Format{}, minisign.Signify{}, suit.Format{}} {
		in := bytes.NewReader([]byte("firmware"))
		res, err := f.Sign(t.Context(), io.Discard, in, in.Size(), key, signOptions(f))
		if err != nil {
			t.Fatal(err)
		}
		if got := formats.ForEnvelope(res.Envelope); got != f {
			t.Errorf("%s: taken for %s", f.Name(), got.Name())
		}
		// The same file by itself.
		if got, err := formats.Detect(bytes.NewReader(res.Envelope), int64(len(res.Envelope))); err != nil || got != f {
			t.Errorf("%s: by itself taken for %v, %v", f.Name(), got, err)
		}
	}
}

func TestFormatsHaveNames(t *testing.T) {
	for _, f := range formats.All() {
		if g, ok := formats.ForName(f.Name()); !ok || g != f {
			t.Errorf("%s: ForName gives %v", f.Name(), g)
		}
	}
	if f, ok := formats.ForName("ihex"); ok {
		t.Errorf("unknown name: got %v", f)
	}
}

// signOptions returns the least that a format asks for.
func signOptions(f image.Format) image.SignOptions {
	opt := image.SignOptions{Version: "1.0.0"}
	if f == (suit.Format{}) {
		opt.Layout = []byte(`{"sequence_number": 1, "vendor": "example.com", "class": "board-a"}`)
	}
	return opt
}

// finishedOnly are the formats that sign images which their own tools built, and
// no plain binary, or need a key with a certificate. Their packages test how much
// memory that takes.
var finishedOnly = map[string]bool{"esp": true, "mender": true, "rauc": true, "swu": true}

// zeros is an endless file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range formats.All() {
		size, limit := int64(64<<20), uint64(1<<20)
		if f == (minisign.Signify{}) { // Ed25519 signs all of it at once
			size, limit = minisign.MaxSignifySign, minisign.MaxSignifySign+limit
		}
		path := filepath.Join(t.TempDir(), "image")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res, err := f.Sign(t.Context(), out, zeros{}, size, key, signOptions(f))
		if finishedOnly[f.Name()] {
			if _, ok := image.ReasonOf(err); !ok {
				t.Errorf("%s: signing zeros: got %v, want a refusal", f.Name(), err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Inspect(t.Context(), out, res.Size); err != nil {
			t.Error(err)
		}
		if _, err := f.Verify(t.Context(), out, res.Size, res.Envelope, []crypto.PublicKey{key.Public()}); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > limit {
			t.Errorf("%s: allocated %d bytes for an image of %d, limit %d", f.Name(), n, size, limit)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Every format obeys the interface's contract on hostile input.
func TestNoFormatPanicsOrPassesGarbage(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range formats.All() {
		for _, size := range []int64{-1, 0, 1, 31, 32, 33, 4096} {
			for _, env := range [][]byte{nil, {}, []byte("{}"), make([]byte, 1<<20)} {
				_, err := f.Verify(t.Context(), zeros{}, size, env, []crypto.PublicKey{pub})
				if _, ok := image.ReasonOf(err); !ok {
					t.Errorf("%s: %d zero bytes: got %v, want a refusal", f.Name(), size, err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if size > 0 {
				if _, err := f.Sign(ctx, io.Discard, zeros{}, size, key, signOptions(f)); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: cancelled signing: got %v", f.Name(), err)
				}
			}
		}
	}
}
