package swu

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

const plainDescription = `software = { version = "1.0"; hardware-compatibility: [ "1.0" ];
	images: ({ filename = "rootfs.bin"; type = "raw"; sha256 = "` + payloadSum + `"; }); }`

// entryAt returns where the header of a file is.
func entryAt(tb testing.TB, b []byte, name string) int {
	tb.Helper()
	i := bytes.Index(b, append([]byte(name), 0)) - headerSize
	if i < 0 {
		tb.Fatalf("no file %s", name)
	}
	return i
}

// field overwrites field n of the header of a file.
func field(tb testing.TB, b []byte, name string, n int, value string) {
	tb.Helper()
	copy(b[entryAt(tb, b, name)+6+8*n:], value)
}

const (
	fieldMode, fieldSize, fieldNameSize, fieldSum = 1, 6, 11, 12
)

// Both readers refuse archives that lie.
func TestHostileArchives(t *testing.T) {
	signer := cmstest.NewCA(t, "root").Signer(t, cmstest.P256, nil)
	good := pack(t, plainDescription, nil)
	if _, err := inspectBytes(good); err != nil {
		t.Fatal(err)
	}
	edited := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	set := func(name string, n int, value string) []byte {
		return edited(func(b []byte) []byte { field(t, b, name, n, value); return b })
	}
	add := func(name string, b []byte) []byte {
		return pack(t, plainDescription, func(p []packed) []packed { return append(p, packed{name, b}) })
	}
	renamed := func(name string) []byte {
		return pack(t, strings.ReplaceAll(plainDescription, "rootfs.bin", name), func(p []packed) []packed {
			p[1].name = name
			return p
		})
	}
	for _, tc := range []struct {
		name   string
		b      []byte
		reason image.ReasonError
	}{
		{"no trailer", good[:entryAt(t, good, nameTrailer)], image.ErrTruncated},
		{"half a header", good[:entryAt(t, good, nameTrailer)+50], image.ErrTruncated},
		{"half a name", good[:entryAt(t, good, nameTrailer)+headerSize+3], image.ErrTruncated},
		{"half a file", good[:entryAt(t, good, "rootfs.bin")+1000], image.ErrTruncated},
		{"size beyond the end", set("rootfs.bin", fieldSize, "FFFFFFFF"), image.ErrTruncated},
		{"size one too small", set("rootfs.bin", fieldSize, "00001002"), image.ErrMalformed},
		{"size within another file", set("rootfs.bin", fieldSize, "00000800"), image.ErrMalformed},
		{"size with a sign", set("rootfs.bin", fieldSize, "+0001003"), image.ErrMalformed},
		{"size with spaces", set("rootfs.bin", fieldSize, "    1003"), image.ErrMalformed},
		{"size of the description", set(nameDescription, fieldSize, "00000000"), image.ErrMalformed},
		{"name of length 0", set("rootfs.bin", fieldNameSize, "00000000"), image.ErrMalformed},
		{"name of length 1", set("rootfs.bin", fieldNameSize, "00000001"), image.ErrMalformed},
		{"endless name", set("rootfs.bin", fieldNameSize, "7FFFFFFF"), image.ErrMalformed},
		{"name without its end", set("rootfs.bin", fieldNameSize, "0000000A"), image.ErrMalformed},
		{"folder", set("rootfs.bin", fieldMode, "000041ED"), image.ErrMalformed},
		{"link", set("rootfs.bin", fieldMode, "0000A1FF"), image.ErrMalformed},
		{"other magic", edited(func(b []byte) []byte { copy(b[entryAt(t, b, "rootfs.bin"):], "070707"); return b }), image.ErrMalformed},
		{"parent folder", renamed(".."), image.ErrMalformed},
		{"path upwards", renamed("../rootfs.bin"), image.ErrMalformed},
		{"absolute path", renamed("/etc/passwd"), image.ErrMalformed},
		{"backslash", renamed(`a\\b`), image.ErrMalformed},
		{"control character", renamed("a\x1bb"), image.ErrMalformed},
		{"no text", renamed("a\xff"), image.ErrMalformed},
		{"twice", add("rootfs.bin", []byte("another")), image.ErrMalformed},
		{"second description", add(nameDescription, []byte(plainDescription)), image.ErrMalformed},
		{"late signature", add(nameSignature, []byte("signature")), image.ErrMalformed},
		{"unnamed file", add("extra", []byte("extra")), image.ErrMalformed},
		{"something after the end", append(bytes.Clone(good), 1), image.ErrMalformed},
		{"much after the end", append(bytes.Clone(good), make([]byte, maxPadding)...), image.ErrMalformed},
		{"second archive", append(bytes.Clone(good), good...), image.ErrMalformed},
		{"files only", pack(t, "", func(p []packed) []packed { return p[1:] }), image.ErrMalformed},
		{"description second", pack(t, plainDescription, func(p []packed) []packed { slices.Reverse(p); return p }), image.ErrMalformed},
		{"missing file", pack(t, plainDescription, func(p []packed) []packed { return p[:1] }), image.ErrMalformed},
		{"nothing", pack(t, "", func([]packed) []packed { return nil }), image.ErrMalformed},
		{"empty description", pack(t, "", nil), image.ErrTooLarge},
		{"large description", pack(t, plainDescription+strings.Repeat(" ", MaxDescription), nil), image.ErrTooLarge},
		{"changed file", edited(func(b []byte) []byte {
			b[entryAt(t, b, "rootfs.bin")+headerSize+50] ^= 1
			return b
		}), image.ErrBadDigest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := inspectBytes(tc.b)
			if reason, ok := image.ReasonOf(err); !ok || reason != tc.reason && tc.name != "size of the description" {
				t.Errorf("Inspect: got %v, want %s", err, tc.reason)
			}
			if _, err := signBytes(tc.b, signer, image.SignOptions{Version: "1.0"}); err == nil {
				t.Error("signed")
			} else if _, ok := image.ReasonOf(err); !ok {
				t.Errorf("refused without a reason: %v", err)
			}
		})
	}

	// What signing writes anew may be wrong before; it is right afterwards.
	for name, b := range map[string][]byte{
		"checksum":        set("rootfs.bin", fieldSum, "00000000"),
		"padding of name": edited(func(b []byte) []byte { b[entryAt(t, b, "rootfs.bin")+headerSize+11] = 7; return b }),
	} {
		if _, err := inspectBytes(b); err == nil {
			t.Errorf("%s: inspected", name)
		}
		signed := mustSign(t, b, signer, image.SignOptions{})
		if _, err := verifyBytes(signed, signer.Public()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := verifyBytes(good, signer.Public()); !errors.Is(err, image.ErrUnsigned) {
		t.Errorf("unsigned: got %v", err)
	}
	many := pack(t, plainDescription, func(p []packed) []packed {
		for i := range MaxFiles {
			p = append(p, packed{strconv.Itoa(i), nil})
		}
		return p
	})
	_, err := inspectBytes(many)
	wantReason(t, err, image.ErrTooLarge)
	_, err = signBytes(many, signer, image.SignOptions{})
	wantReason(t, err, image.ErrTooLarge)
}

func TestHostileSignatures(t *testing.T) {
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.P256, nil)
	trusted := image.CA{Certificate: ca.Certificate}
	good := mustSign(t, pack(t, plainDescription, nil), signer, image.SignOptions{})
	files, err := listFiles(t.Context(), bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	sig := good[files[1].off : files[1].off+files[1].size]
	with := func(sig []byte) []byte {
		return pack(t, plainDescription, func(p []packed) []packed {
			return slices.Insert(p, 1, packed{nameSignature, sig})
		})
	}
	if _, err := verifyBytes(with(sig), trusted); err != nil {
		t.Fatal(err)
	}
	last := bytes.Clone(sig)
	last[len(last)-1] ^= 1
	other := mustSign(t, sample(t, "rootfs.bin"), signer, image.SignOptions{Version: "2", Hardware: deviceHardware, Layout: layout(t, rawfile("/r"))})
	otherFiles, err := listFiles(t.Context(), bytes.NewReader(other), int64(len(other)))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		sig    []byte
		reason image.ReasonError
	}{
		"changed":            {last, image.ErrBadSignature},
		"of another image":   {other[otherFiles[1].off : otherFiles[1].off+otherFiles[1].size], image.ErrBadDigest},
		"followed by a byte": {append(bytes.Clone(sig), 0), image.ErrMalformed},
		"cut":                {sig[:len(sig)-1], image.ErrMalformed},
		"empty":              {nil, image.ErrTooLarge},
		"large":              {make([]byte, maxSignature+1), image.ErrTooLarge},
		"noise":              {bytes.Repeat([]byte("noise"), 50), image.ErrUnknownKey},
		"text":               {[]byte("-----BEGIN PKCS7-----\n"), image.ErrUnknownKey},
	} {
		_, err := verifyBytes(with(tc.sig), trusted)
		if !errors.Is(err, tc.reason) {
			t.Errorf("%s: got %v, want %s", name, err, tc.reason)
		}
	}
	if _, err := (Format{}).Verify(t.Context(), bytes.NewReader(good), int64(len(good)), []byte("envelope"), nil); !errors.Is(err, image.ErrMalformed) {
		t.Errorf("envelope: %v", err)
	}
	// The right CA, for something else.
	web := ca.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageServerAuth)
	_, err = signBytes(good, web, image.SignOptions{})
	wantReason(t, err, image.ErrWrongPurpose)
}

// zeroReader is a file of zeros with an image's frame around it: gigabytes that
// take no room.
type zeroReader struct {
	head, tail []byte
	size       int64
}

func (z zeroReader) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.head)) {
		copy(p, z.head[off:])
	}
	if start := z.size - int64(len(z.tail)); off+int64(len(p)) > start {
		if off >= start {
			copy(p, z.tail[off-start:])
		} else {
			copy(p[start-off:], z.tail)
		}
	}
	if left := z.size - off; int64(len(p)) > left {
		return int(left), io.EOF
	}
	return len(p), nil
}

// keepEnds is a writer that remembers the first and last bytes.
type keepEnds struct {
	head []byte
	tail [1024]byte
	n    int64
}

func (k *keepEnds) Write(p []byte) (int, error) {
	if room := 8192 - len(k.head); room > 0 {
		k.head = append(k.head, p[:min(room, len(p))]...)
	}
	last := p[max(0, len(p)-len(k.tail)):]
	copy(k.tail[:], k.tail[len(last):])
	copy(k.tail[len(k.tail)-len(last):], last)
	k.n += int64(len(p))
	return len(p), nil
}

func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	const size, limit = 64 << 20, 1 << 20
	signer := cmstest.NewCA(t, "root").Signer(t, cmstest.P256, nil)
	opt := image.SignOptions{
		Version: "1", Hardware: deviceHardware, Layout: layout(t, rawfile("/r")), Certificates: []*x509.Certificate{signer.Certificate},
	}
	allocated := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for range b.N {
			var out keepEnds
			if _, err := (Format{}).Sign(context.Background(), &out, zeroReader{size: size}, size, signer, opt); err != nil {
				b.Fatal(err)
			}
			z := zeroReader{out.head, out.tail[:], out.n}
			if _, err := (Format{}).Verify(context.Background(), z, out.n, nil, signerKeys(signer)); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated == 0 || allocated > limit {
		t.Errorf("allocated %d bytes for an image of %d, limit %d", allocated, size, limit)
	}
}

func TestFilesMayNotBeLargerThanTheirHeaderSays(t *testing.T) {
	signer := cmstest.NewCA(t, "root").Signer(t, cmstest.P256, nil)
	opt := image.SignOptions{
		Version: "1", Hardware: deviceHardware, Layout: layout(t, rawfile("/r")), Certificates: []*x509.Certificate{signer.Certificate},
	}
	_, err := Format{}.Sign(t.Context(), io.Discard, zeroReader{size: MaxFile + 1}, MaxFile+1, signer, opt)
	wantReason(t, err, image.ErrTooLarge)
}

// A file that changes between the two times it is read does not get out.
func TestInputThatChangesIsNoticed(t *testing.T) {
	signer := cmstest.NewCA(t, "root").Signer(t, cmstest.P256, nil)
	opt := image.SignOptions{
		Version: "1", Hardware: deviceHardware, Layout: layout(t, rawfile("/r")), Certificates: []*x509.Certificate{signer.Certificate},
	}
	_, err := Format{}.Sign(t.Context(), io.Discard, &changing{}, 100, signer, opt)
	if _, refused := image.ReasonOf(err); err == nil || refused {
		t.Errorf("got %v, want an error that says nothing of the image", err)
	}
}

type changing struct{ reads byte }

func (c *changing) ReadAt(p []byte, _ int64) (int, error) {
	c.reads++
	for i := range p {
		p[i] = c.reads
	}
	return len(p), nil
}

func TestErrorsOfTheReaderAreNotRefusals(t *testing.T) {
	b := sample(t, "cms-ec.swu")
	for n := range 40 {
		r := &failing{r: bytes.NewReader(b)}
		r.left.Store(int64(n))
		_, err := Format{}.Verify(t.Context(), r, int64(len(b)), nil, signerKeys(sampleCA(t)))
		if err == nil {
			if n < 10 {
				t.Errorf("verified after %d reads", n)
			}
			return
		}
		if _, refused := image.ReasonOf(err); refused || !errors.Is(err, errDisk) {
			t.Errorf("after %d reads: %v", n, err)
		}
	}
	t.Error("never verified")
}

var errDisk = errors.New("disk on fire")

type failing struct {
	r    io.ReaderAt
	left atomic.Int64
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.left.Add(-1) < 0 {
		return 0, errDisk
	}
	return f.r.ReadAt(p, off)
}
