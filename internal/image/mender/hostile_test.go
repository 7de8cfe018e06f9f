package mender

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// Attack: change one byte, anywhere that is not tar's own (unsigned, and not
// acted on): every such change is refused; the others never change what is
// verified.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	b, keys := sample(t, "ec.mender"), goldenKeys(t)
	good, err := verifyBytes(b, keys...)
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x01
		v, err := verifyBytes(c, keys...)
		if err == nil {
			accepted++
			if string(v.Info.Details) != string(good.Info.Details) || v.Info.Digests[1] != good.Info.Digests[1] {
				t.Fatalf("byte %#x: verified as %+v", i, v.Info)
			}
			// Headers of tar and the padding of its blocks.
			inHeader := bytes.HasPrefix(b[i/blockSize*blockSize+257:], []byte("ustar"))
			if b[i] != 0 && !inHeader {
				t.Fatalf("byte %#x: changed from %#02x and still verified", i, b[i])
			}
		} else if _, ok := image.ReasonOf(err); !ok {
			t.Fatalf("byte %#x: got error %v, want a refusal", i, err)
		}
	}
	if accepted > len(b)/2 {
		t.Errorf("%d of %d changes were accepted", accepted, len(b))
	}
}

// Attack: cut the artifact off, anywhere before the end that tar needs.
func TestVerifyRefusesEveryPrefix(t *testing.T) {
	b := mustSign(t, build(spec{ext: ".gz", headerExt: ".gz"}), rsaKey(), image.SignOptions{})
	for n := range b {
		_, err := verifyBytes(b[:n], rsaKey().Public())
		wantReason(t, err, image.ErrTruncated)
		if n%16 == 0 {
			_, _, err = signBytes(b[:n], rsaKey(), image.SignOptions{})
			wantReason(t, err, image.ErrTruncated)
		}
		if t.Failed() {
			t.Fatalf("first %d of %d bytes", n, len(b))
		}
	}
}

// Attack: structures that lie, under a signature that is good. Both readers
// refuse them.
func TestBothReadersRefuseBadStructure(t *testing.T) {
	replace := func(name string, body []byte) func([]file) []file {
		return func(files []file) []file {
			for i := range files {
				if files[i].name == name {
					files[i].body = body
				}
			}
			return files
		}
	}
	insert := func(at int, f file) func([]file) []file {
		return func(files []file) []file { return slices.Insert(files, at, f) }
	}
	line := strings.Repeat("0", 64) + "  "
	add := func(l string) func([]string) []string {
		return func(lines []string) []string { return append(lines, l) }
	}
	info := func(s string) spec { return spec{info: s} }
	body := []byte("content")
	for name, tc := range map[string]struct {
		in   spec
		want image.ReasonError
	}{
		"format version 2":       {spec{version: `{"format":"mender","version":2}`}, image.ErrUnsupported},
		"other format":           {spec{version: `{"format":"other","version":3}`}, image.ErrMalformed},
		"version twice in JSON":  {spec{version: `{"format":"mender","version":2,"version":3}`}, image.ErrMalformed},
		"no JSON":                {spec{version: `mender`}, image.ErrMalformed},
		"long version":           {spec{version: `{"format":"mender","version":3}` + strings.Repeat(" ", 2000)}, image.ErrTooLarge},
		"payload changed":        {spec{dataTars: [][]byte{makeTar(file{"fw.ext4", body})}}, image.ErrBadDigest},
		"payload renamed":        {spec{dataTars: [][]byte{makeTar(file{"other", bytes.Repeat([]byte("firmware"), 1000)})}}, image.ErrMalformed},
		"payload missing":        {spec{dataTars: [][]byte{makeTar()}}, image.ErrTruncated},
		"payload twice":          {spec{dataTars: [][]byte{makeTar(file{"fw.ext4", bytes.Repeat([]byte("firmware"), 1000)}, file{"fw.ext4", body})}}, image.ErrMalformed},
		"payload escapes":        {spec{data: [][]file{{{"../fw", body}}}}, image.ErrMalformed},
		"payload in folder":      {spec{data: [][]file{{{"a/fw", body}}}}, image.ErrMalformed},
		"payload absolute":       {spec{data: [][]file{{{"/fw", body}}}}, image.ErrMalformed},
		"payload dots":           {spec{data: [][]file{{{"..", body}}}}, image.ErrMalformed},
		"payload long name":      {spec{data: [][]file{{{strings.Repeat("n", 150), body}}}}, image.ErrMalformed},
		"header changed":         {spec{outer: replace("header.tar", makeTar(file{"header-info", []byte(goodInfo)}, file{"headers/0000/type-info", []byte(goodType)}))}, image.ErrBadDigest},
		"version changed":        {spec{outer: replace("version", []byte(`{"format":"mender", "version":3}`))}, image.ErrBadDigest},
		"manifest with no line":  {spec{manifest: func([]string) []string { return nil }}, image.ErrMalformed},
		"manifest with an extra": {spec{manifest: add(line + "data/0000/ghost")}, image.ErrTruncated},
		"manifest with a repeat": {spec{manifest: func(l []string) []string { return append(l, l[0]) }}, image.ErrMalformed},
		"manifest capital":       {spec{manifest: func(l []string) []string { return append([]string{strings.ToUpper(l[0][:64]) + l[0][64:]}, l[1:]...) }}, ""},
		"manifest one space":     {spec{manifest: func(l []string) []string { return append([]string{strings.Replace(l[0], "  ", " ", 1)}, l[1:]...) }}, image.ErrMalformed},
		"manifest lacks version": {spec{manifest: func(l []string) []string { return l[:2] }}, image.ErrMalformed},
		"manifest lacks payload": {spec{manifest: func(l []string) []string { return l[1:] }}, image.ErrMalformed},
		"manifest too long":      {spec{manifest: add(line + strings.Repeat("n", maxManifest))}, image.ErrTooLarge},
		"augmented":              {spec{outer: insert(2, file{"manifest-augment", body})}, image.ErrUnsupported},
		"augmented header":       {spec{outer: insert(2, file{"header-augment.tar", body})}, image.ErrUnsupported},
		"stray file":             {spec{outer: insert(2, file{"stray", body})}, image.ErrMalformed},
		"stray at the end":       {spec{outer: insert(4, file{"stray", body})}, image.ErrMalformed},
		"second header":          {spec{outer: insert(3, file{"header.tar", makeTar()})}, image.ErrMalformed},
		"other order":            {spec{outer: func(f []file) []file { f[2], f[3] = f[3], f[2]; return f }}, image.ErrMalformed},
		"no payload":             {spec{outer: func(f []file) []file { return f[:3] }}, image.ErrTruncated},
		"no header":              {spec{outer: func(f []file) []file { return f[:2] }}, image.ErrTruncated},
		"version not first":      {spec{outer: func(f []file) []file { return f[1:] }}, image.ErrMalformed},
		"xz":                     {spec{outer: func(f []file) []file { f[3].name = "data/0000.tar.xz"; return f }}, image.ErrUnsupported},
		"not gzip":               {spec{ext: ".gz", dataTars: [][]byte{[]byte(strings.Repeat("no gzip", 100))}}, image.ErrMalformed},
		"not zstd":               {spec{ext: ".zst", dataTars: [][]byte{[]byte(strings.Repeat("no zstd", 100))}}, image.ErrMalformed},
		"two gzip members":       {spec{ext: ".gz", dataTars: [][]byte{append(pack(".gz", makeTar(file{"fw.ext4", bytes.Repeat([]byte("firmware"), 1000)})), pack(".gz", body)...)}}, image.ErrMalformed},
		"after the inner tar":    {spec{dataTars: [][]byte{append(makeTar(file{"fw.ext4", bytes.Repeat([]byte("firmware"), 1000)}), 'x')}}, image.ErrMalformed},
		"info not first":         {spec{head: []file{{"headers/0000/type-info", []byte(goodType)}, {"header-info", []byte(goodInfo)}}}, image.ErrMalformed},
		"info empty":             {spec{head: []file{{"header-info", nil}}}, image.ErrMalformed},
		"info too large":         {info(goodInfo + strings.Repeat(" ", maxJSON)), image.ErrTooLarge},
		"no type-info":           {spec{types: []string{}}, image.ErrMalformed},
		"two type-infos":         {spec{types: []string{goodType, goodType}}, image.ErrMalformed},
		"no payloads":            {info(`{"payloads":[],"artifact_provides":{"artifact_name":"a"},"artifact_depends":{"device_type":["a"]}}`), image.ErrMalformed},
		"no name":                {info(`{"payloads":[{"type":"t"}],"artifact_provides":{},"artifact_depends":{"device_type":["a"]}}`), image.ErrMalformed},
		"no device type":         {info(`{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"a"},"artifact_depends":{}}`), image.ErrMalformed},
		"device type twice":      {info(`{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"a"},"artifact_depends":{"device_type":["a"],"device_type":["b"]}}`), image.ErrMalformed},
		"device type in capital": {info(`{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"a"},"artifact_depends":{"device_type":["a"],"Device_Type":["b"]}}`), image.ErrMalformed},
		"payload count":          {info(`{"payloads":[{"type":"rootfs-image"},{"type":"x"}],"artifact_provides":{"artifact_name":"a"},"artifact_depends":{"device_type":["a"]}}`), image.ErrMalformed},
		"JSON list":              {info(`[]`), image.ErrMalformed},
		"JSON and more":          {info(goodInfo + `{}`), image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(tc.in)
			_, err := inspectBytes(b)
			_, _, serr := signBytes(b, rsaKey(), image.SignOptions{})
			for _, err := range []error{err, serr} {
				if _, ok := image.ReasonOf(err); !ok {
					t.Errorf("got %v, want a refusal", err)
				} else if tc.want != "" {
					wantReason(t, err, tc.want)
				}
			}
		})
	}
}

// Attack: entries that readers of tar disagree about.
func TestBothReadersRefuseOddTar(t *testing.T) {
	write := func(h *tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Name, h.Mode = "fw.ext4", 0o600
		if h.Linkname == "" {
			h.Size = 8
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("firmware")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	sums := [][]file{{{"fw.ext4", []byte("firmware")}}}
	for name, h := range map[string]*tar.Header{
		"symlink":  {Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		"hardlink": {Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		"xattr":    {Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x"}},
		"comment":  {Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "hidden"}},
	} {
		b := build(spec{data: sums, dataTars: [][]byte{write(h)}})
		_, err := inspectBytes(b)
		_, _, serr := signBytes(b, rsaKey(), image.SignOptions{})
		if !errors.Is(err, image.ErrMalformed) || !errors.Is(serr, image.ErrMalformed) {
			t.Errorf("%s: got %v and %v", name, err, serr)
		}
	}
	// A build server with a large user id makes an extended header. That is fine.
	b := build(spec{data: sums, dataTars: [][]byte{write(&tar.Header{Typeflag: tar.TypeReg, Uid: 1 << 30, Format: tar.FormatPAX})}})
	if _, err := verifyBytes(mustSign(t, b, rsaKey(), image.SignOptions{}), rsaKey().Public()); err != nil {
		t.Error(err)
	}
	// Something behind the artifact.
	b = mustSign(t, build(spec{}), rsaKey(), image.SignOptions{})
	for name, tail := range map[string][]byte{"byte": {1}, "entry": entry("x", []byte("y")), "artifact": b} {
		c := append(bytes.Clone(b), tail...)
		if _, err := verifyBytes(c, rsaKey().Public()); !errors.Is(err, image.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
		_, _, err := signBytes(c, rsaKey(), image.SignOptions{})
		wantReason(t, err, image.ErrMalformed)
	}
	if _, err := verifyBytes(append(bytes.Clone(b), make([]byte, 10240)...), rsaKey().Public()); err != nil {
		t.Errorf("tar pads with zeros: %v", err)
	}
}

// Attack: signatures in encodings that some reader might take.
func TestVerifyRefusesOddSignatures(t *testing.T) {
	b := sample(t, "unsigned.mender")
	with := func(sig string) []byte {
		s, err := scanArtifact(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(b[:s.cut], entry(nameSignature, []byte(sig)), b[s.cut:])
	}
	raw, err := replay{publicKey(t, "ec"), sample(t, "ec.mender")}.Sign(rand.Reader, nil, nil) // DER
	if err != nil {
		t.Fatal(err)
	}
	rsaSig, err := replay{publicKey(t, "rsa"), sample(t, "rsa.mender")}.Sign(rand.Reader, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(rsaSig)
	for name, tc := range map[string]struct {
		sig  string
		want image.ReasonError
	}{
		"DER":       {base64.StdEncoding.EncodeToString(raw), image.ErrUnsupported},
		"binary":    {string(rsaSig), image.ErrMalformed},
		"empty":     {"", image.ErrUnsupported},
		"line feed": {text + "\n", image.ErrMalformed},
		"broken":    {text[:76] + "\n" + text[76:], image.ErrMalformed},
		"url":       {base64.RawURLEncoding.EncodeToString(rsaSig), image.ErrMalformed},
		"short":     {text[:len(text)-4], ""},
		"zeros":     {base64.StdEncoding.EncodeToString(make([]byte, 64)), image.ErrUnknownKey},
		"long":      {strings.Repeat("A", maxSignature+4), image.ErrTooLarge},
	} {
		_, err := verifyBytes(with(tc.sig), goldenKeys(t)...)
		if _, ok := image.ReasonOf(err); !ok {
			t.Errorf("%s: got %v", name, err)
		} else if tc.want != "" {
			wantReason(t, err, tc.want)
		}
	}
	if _, err := verifyBytes(with(text), goldenKeys(t)...); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// bomb is a payload that decompresses to n zeros.
func bomb(t *testing.T, n int64) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "fw.ext4", Size: n, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for left := n; left > 0; left -= int64(len(zeros)) {
		if _, err := w.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Attack: a small upload that decompresses to much.
func TestDecompressionBombsEnd(t *testing.T) {
	const n = 1 << 29
	packed := bomb(t, n)
	if int64(n) < expansion(int64(len(packed))+8192) {
		t.Fatalf("a bomb of %d bytes is none", len(packed))
	}
	in := build(spec{ext: ".gz", data: [][]file{{{"fw.ext4", nil}}}, dataTars: [][]byte{packed}})
	_, err := inspectBytes(in)
	wantReason(t, err, image.ErrTooLarge)
	_, _, err = signBytes(in, rsaKey(), image.SignOptions{})
	wantReason(t, err, image.ErrTooLarge)
	// In the header there is less room.
	var head bytes.Buffer
	z := gzip.NewWriter(&head)
	w := tar.NewWriter(z)
	for i, f := range []file{{"header-info", []byte(goodInfo)}, {"scripts/x", make([]byte, maxHeader)}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: 0o600}); err != nil {
			t.Fatal(i, err)
		}
		if _, err := w.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	in = build(spec{headerExt: ".gz", headerBody: head.Bytes()})
	_, err = inspectBytes(in)
	wantReason(t, err, image.ErrTooLarge)
	_, _, err = signBytes(in, rsaKey(), image.SignOptions{})
	wantReason(t, err, image.ErrTooLarge)
}

// Nothing is decompressed before the signature is known to be good.
func TestVerifyLooksAtTheSignatureFirst(t *testing.T) {
	broken := build(spec{ext: ".gz", headerExt: ".gz", headerBody: []byte("this is no gzip at all")})
	tr := &tarReader{r: bytes.NewReader(broken)}
	for range 3 { // up to the header of the third file
		if _, _, err := tr.next(); err != nil {
			t.Fatal(err)
		}
	}
	cut := tr.off - blockSize
	sig := entry(nameSignature, []byte(base64.StdEncoding.EncodeToString(make([]byte, 64))))
	b := slices.Concat(broken[:cut], sig, broken[cut:])
	_, err := verifyBytes(b, newEC(t, elliptic.P256()).Public())
	wantReason(t, err, image.ErrUnknownKey)
	_, err = inspectBytes(b)
	wantReason(t, err, image.ErrMalformed)
}

// failing is a disk that fails.
type failing struct{ b []byte }

var errDisk = errors.New("disk is on fire")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(f.b)) {
		return 0, errDisk
	}
	return copy(p, f.b[off:]), nil
}

func TestDiskErrorsAreNotTheArtifactsFault(t *testing.T) {
	b := build(spec{ext: ".gz", data: [][]file{{{"fw", func() []byte { x := make([]byte, 500000); _, _ = rand.Read(x); return x }()}}}})
	for n := 0; n < len(b); n += 50000 {
		_, err := Format{}.Inspect(t.Context(), failing{b[:n]}, int64(len(b)))
		if _, ok := image.ReasonOf(err); ok || !errors.Is(err, errDisk) {
			t.Errorf("inspect, %d bytes: got %v", n, err)
		}
		_, err = Format{}.Sign(t.Context(), io.Discard, failing{b[:n]}, int64(len(b)), rsaKey(), image.SignOptions{})
		if _, ok := image.ReasonOf(err); ok || !errors.Is(err, errDisk) {
			t.Errorf("sign, %d bytes: got %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Format{}.Verify(ctx, bytes.NewReader(b), int64(len(b)), nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	for _, size := range []int64{-1, 0, 1, 511} {
		_, err := Format{}.Inspect(t.Context(), bytes.NewReader(b), size)
		wantReason(t, err, image.ErrTruncated)
		_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(b), size, rsaKey(), image.SignOptions{})
		wantReason(t, err, image.ErrTruncated)
	}
	for _, f := range []func() error{
		func() error { _, err := Format{}.Inspect(t.Context(), bytes.NewReader(b), MaxSize+1); return err },
		func() error {
			_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(b), MaxSize+1, rsaKey(), image.SignOptions{})
			return err
		},
	} {
		wantReason(t, f(), image.ErrTooLarge)
	}
}

func TestDetectWantsATarThatStartsWithVersion(t *testing.T) {
	b := build(spec{})[:image.PrefixSize]
	if !(Format{}).Detect(b) {
		t.Error("an artifact is not detected")
	}
	for name, p := range map[string][]byte{
		"short": b[:511], "another file": makeTar(file{"versions", nil}), "text": fmt.Appendf(nil, "%-512s", "version"),
	} {
		if (Format{}).Detect(p) {
			t.Errorf("%s: detected", name)
		}
	}
}
