package rauc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Each way to break a bundle has its reason, and no signer touches it.
func TestBrokenContainersAreRefused(t *testing.T) {
	plain, verity := sample(t, "plain.raucb"), sample(t, "verity.raucb")
	pBody, pSig := parts(plain)
	vBody, vSig := parts(verity)
	end := func(n uint64) []byte { return binary.BigEndian.AppendUint64(bytes.Clone(plain[:len(plain)-8]), n) }
	big := join(pBody, make([]byte, MaxCMS+1))
	grown := bytes.Clone(pBody)
	binary.LittleEndian.PutUint64(grown[40:], 1<<40)
	for _, tc := range []struct {
		name string
		b    []byte
		want image.ReasonError
	}{
		{"empty", nil, image.ErrTruncated},
		{"seven bytes", plain[:7], image.ErrTruncated},
		{"length of nothing", end(0), image.ErrUnsigned},
		{"length past the start", end(uint64(len(plain))), image.ErrMalformed},
		{"length of all ones", end(1<<64 - 1), image.ErrMalformed},
		{"length one short", end(uint64(len(pSig)) - 1), image.ErrMalformed},
		{"length little-endian", append(bytes.Clone(plain[:len(plain)-8]), 0x6b, 5, 0, 0, 0, 0, 0, 0), image.ErrMalformed},
		{"signature too large", big, image.ErrMalformed},
		{"last byte missing", plain[:len(plain)-1], image.ErrMalformed},
		{"last half missing", plain[:4000], image.ErrMalformed},
		{"ends in the padding", plain[:5000], image.ErrUnsigned},
		{"signature is no CMS", join(pBody, []byte("hello")), image.ErrMalformed},
		{"bytes before the signature", join(append(bytes.Clone(pBody), make([]byte, 4096)...), pSig), image.ErrMalformed},
		{"bytes after the tree", join(append(bytes.Clone(vBody), make([]byte, 4096)...), vSig), image.ErrMalformed},
		{"bytes after the signature", append(bytes.Clone(plain), 0), image.ErrMalformed},
		{"no tree", join(vBody[:8192], vSig), image.ErrMalformed},
		{"squashfs larger than the file", join(grown, pSig), image.ErrTruncated},
		{"no squashfs", join(change(pBody, 0), pSig), image.ErrMalformed},
		{"no squashfs below the tree", join(change(vBody, 0), vSig), image.ErrMalformed},
		{"detached signature over a verity payload", join(vBody, pSig), image.ErrMalformed},
		{"enclosing signature over a plain payload", join(pBody, vSig), image.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verifyBytes(tc.b, certificate(t, "signer.cert").PublicKey)
			wantReason(t, err, tc.want)
			if _, err := inspectBytes(tc.b); err == nil {
				t.Error("inspected")
			}
		})
	}
	_, by := newSigner(t, cmstest.P256)
	for name, b := range map[string][]byte{
		"seven bytes": plain[:7], "length of nothing": end(0), "length past the start": end(uint64(len(plain))),
		"bytes before the signature":               join(append(bytes.Clone(pBody), make([]byte, 4096)...), pSig),
		"no squashfs":                              join(change(pBody, 0), pSig),
		"no squashfs below the tree":               join(change(vBody, 0), vSig),
		"detached signature over a verity payload": join(vBody, pSig),
		"enclosing signature over a plain payload": join(pBody, vSig),
		"bytes after the tree":                     join(append(bytes.Clone(vBody), make([]byte, 4096)...), vSig),
	} {
		if _, _, err := signBytes(b, by, image.SignOptions{}); err == nil {
			t.Errorf("%s: signed", name)
		} else if _, ok := image.ReasonOf(err); !ok {
			t.Errorf("%s: refused without a reason: %v", name, err)
		}
	}
	_, err := Format{}.Verify(t.Context(), bytes.NewReader(plain), int64(len(plain)), []byte("x"), nil)
	wantReason(t, err, image.ErrMalformed)
	_, err = Format{}.Inspect(t.Context(), bytes.NewReader(plain), MaxSize+1)
	wantReason(t, err, image.ErrTooLarge)
}

// A bit anywhere in the payload, the tree or what was signed.
func TestNoBitCanBeChanged(t *testing.T) {
	// A CA, because the certificate of a key that is trusted itself is not signed.
	key := image.CA{Certificate: certificate(t, "ca")}
	_, by := newSigner(t, cmstest.P256)
	for _, file := range []string{"plain.raucb", "verity.raucb"} {
		b := sample(t, file)
		body, _ := parts(b)
		for i := range b {
			if i < len(body) && i > 96 && i%29 != 0 {
				continue // it would take long
			}
			if _, err := verifyBytes(change(b, i), key); err == nil {
				t.Fatalf("%s: accepted with a changed byte at %d", file, i)
			} else if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("%s: byte %d: refused without a reason: %v", file, i, err)
			}
		}
	}
	b := sample(t, "verity.raucb")
	for _, at := range []int{200, 8191, 8192, 8192 + 64, 12287} { // payload, padding, tree, its padding
		_, err := verifyBytes(change(b, at), key)
		wantReason(t, err, image.ErrBadDigest)
		_, err = inspectBytes(change(b, at))
		wantReason(t, err, image.ErrBadDigest)
		_, _, err = signBytes(change(b, at), by, image.SignOptions{})
		wantReason(t, err, image.ErrBadDigest)
	}
	p := sample(t, "plain.raucb")
	_, err := inspectBytes(change(p, 8000)) // in the padding, so that the manifest can be read
	wantReason(t, err, image.ErrBadDigest)
}

const verityLines = "verity-hash=00000000000000000000000000000000000000000000000000000000000000aa\n" +
	"verity-salt=00000000000000000000000000000000000000000000000000000000000000bb\n"

func TestManifestsAreReadStrictly(t *testing.T) {
	const update = "[update]\ncompatible=board-a\n"
	long := strings.Repeat("x", maxText+1)
	for name, tc := range map[string]struct {
		text string
		want image.ReasonError
	}{
		"empty":                {"", image.ErrMalformed},
		"no compatible":        {"[update]\nversion=1\n", image.ErrMalformed},
		"group twice":          {update + "[a]\n[update]\n", image.ErrMalformed},
		"key twice":            {update + "compatible=board-b\n", image.ErrMalformed},
		"key without group":    {"compatible=board-a\n", image.ErrMalformed},
		"no equals sign":       {update + "version\n", image.ErrMalformed},
		"no key":               {update + "=1\n", image.ErrMalformed},
		"open group":           {update + "[bundle\n", image.ErrMalformed},
		"brackets in group":    {update + "[[bundle]]\n", image.ErrMalformed},
		"text after group":     {update + "[bundle] format=verity\n", image.ErrMalformed},
		"unknown escape":       {update + `version=1\x` + "\n", image.ErrMalformed},
		"escape at the end":    {update + `version=1\`, image.ErrMalformed},
		"newline in version":   {update + `version=1\n2` + "\n", image.ErrMalformed},
		"trailing space":       {update + "version=1 \n", image.ErrMalformed},
		"control character":    {update + "version=1\x002\n", image.ErrMalformed},
		"not UTF-8":            {update + "version=\xff\n", image.ErrMalformed},
		"long version":         {update + "version=" + long, image.ErrMalformed},
		"long line":            {update + "#" + strings.Repeat("x", maxLine), image.ErrMalformed},
		"long manifest":        {update + strings.Repeat("#\n", MaxManifest/2), image.ErrTooLarge},
		"many images":          {update + manyImages(), image.ErrMalformed},
		"unknown format":       {update + "[bundle]\nformat=casync\n", image.ErrUnsupported},
		"image without name":   {update + "[image.]\n", image.ErrMalformed},
		"image with long name": {update + "[image." + long + "]\n", image.ErrMalformed},
		"short image digest":   {update + "[image.a]\nsha256=ab\n", image.ErrMalformed},
		"negative image size":  {update + "[image.a]\nsize=-1\n", image.ErrMalformed},
		"no root":              {update + "[bundle]\nformat=verity\nverity-size=4096\n", image.ErrMalformed},
		"no tree size":         {update + "[bundle]\nformat=verity\n" + verityLines, image.ErrMalformed},
		"odd tree size":        {update + "[bundle]\nformat=verity\n" + verityLines + "verity-size=4097\n", image.ErrMalformed},
		"huge tree size":       {update + "[bundle]\nformat=verity\n" + verityLines + "verity-size=9223372036854775808\n", image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readManifest([]byte(tc.text))
			wantReason(t, err, tc.want)
		})
	}
	m, err := readManifest([]byte("# made by hand\r\n\n [update] \r\n compatible = a\\sb \\\\ \n"))
	if err == nil || m.compatible != "" {
		t.Errorf("space at the end: got %+v", m)
	}
	m, err = readManifest([]byte("# made by hand\r\n\n [update] \r\n compatible = a\\sb\\\\c\r\n[image.x]\nsize=7\n"))
	if err != nil || m.compatible != `a b\c` || m.format != formatPlain || *m.images[0].Size != 7 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func manyImages() string {
	var b strings.Builder
	for i := range maxImages + 1 {
		fmt.Fprintf(&b, "[image.i%d]\n", i)
	}
	return b.String()
}

// A manifest that is signed and lies: whoever signed it is trusted, and the file
// still has to be a bundle.
func TestSignedLiesAreRefused(t *testing.T) {
	_, by := newSigner(t, cmstest.P256)
	verity := sample(t, "verity.raucb")
	body, _ := parts(verity)
	content := func(from, to string) []byte {
		m, err := cms.Content(func() []byte { _, s := parts(verity); return s }())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(m, []byte(from)) {
			t.Fatalf("no %s in the manifest", from)
		}
		sig, err := cms.SignContent(by, bytes.Replace(m, []byte(from), []byte(to), 1), cms.Options{Chain: certs(by)})
		if err != nil {
			t.Fatal(err)
		}
		return join(body, sig)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want image.ReasonError
	}{
		"tree of two blocks":    {content("verity-size=4096", "verity-size=8192"), image.ErrMalformed},
		"tree larger than file": {content("verity-size=4096", "verity-size=1099511627776"), image.ErrMalformed},
		"another root":          {content("verity-hash=3a", "verity-hash=3b"), image.ErrBadDigest},
		"another salt":          {content("verity-salt=15", "verity-salt=16"), image.ErrBadDigest},
		"plain":                 {content("format=verity", "format=plain"), image.ErrMalformed},
		"two formats":           {content("format=verity", "format=verity\nformat=plain"), image.ErrMalformed},
		"no hardware":           {content("compatible=board-a", "compatible="), image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifyBytes(tc.b, by.Public())
			wantReason(t, err, tc.want)
			_, _, err = signBytes(tc.b, by, image.SignOptions{})
			wantReason(t, err, tc.want)
		})
	}
	if _, err := verifyBytes(content("description=sample", "description=other"), by.Public()); err != nil {
		t.Errorf("a manifest that does not lie: %v", err)
	}
}

// The last block of the tree may have no digests but those of blocks that exist,
// whoever hashed them.
func TestTreeHasNoRoomForMore(t *testing.T) {
	salt := bytes.Repeat([]byte{7}, veritySum)
	data := make([]byte, 2*blockSize)
	sum := func(b []byte) []byte {
		s := sha256.Sum256(append(bytes.Clone(salt), b...))
		return s[:]
	}
	block := make([]byte, blockSize)
	copy(block, sum(data[:blockSize]))
	copy(block[veritySum:], sum(data[blockSize:]))
	check := func() error {
		tr := tree{data: int64(len(data)), size: blockSize, root: sum(block), salt: salt}
		return tr.check(t.Context(), bytes.NewReader(append(bytes.Clone(data), block...)), nil)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	block[2*veritySum] = 1
	wantReason(t, check(), image.ErrMalformed)
	for _, n := range []int64{0, 1, blockSize, 3*blockSize + 1} {
		_, err := tree{data: n, size: blockSize}.levels()
		wantReason(t, err, image.ErrMalformed)
	}
}

// Failures of the disk or the writer are no word about the bundle.
func TestOtherFailuresCarryNoReason(t *testing.T) {
	_, by := newSigner(t, cmstest.P256)
	for _, file := range []string{"plain.raucb", "verity.raucb"} {
		b := sample(t, file)
		for n := range 6 {
			r := &failingReader{r: bytes.NewReader(b), after: n}
			if _, err := (Format{}).Inspect(t.Context(), r, int64(len(b))); r.failed && !errors.Is(err, errDisk) {
				t.Errorf("%s: after %d reads: %v", file, n, err)
			}
			opt := image.SignOptions{Certificates: certs(by)}
			_, err := Format{}.Sign(t.Context(), &failingWriter{after: n}, bytes.NewReader(b), int64(len(b)), by, opt)
			if err != nil && !errors.Is(err, errDisk) {
				t.Errorf("%s: after %d writes: %v", file, n, err)
			}
			if _, ok := image.ReasonOf(err); ok || n == 0 && err == nil {
				t.Errorf("%s: after %d writes: %v", file, n, err)
			}
		}
	}
}

var errDisk = errors.New("the disk is on fire")

type failingReader struct {
	r      io.ReaderAt
	after  int
	failed bool
}

func (f *failingReader) ReadAt(p []byte, off int64) (int, error) {
	if f.after--; f.after < 0 {
		f.failed = true
		return 0, errDisk
	}
	return f.r.ReadAt(p, off)
}

type failingWriter struct{ after int }

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

// Blocks that decompress to more than a block has, or to nothing.
func TestDecompressionIsBounded(t *testing.T) {
	lz4 := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	out, err := unlz4(lz4("1f61010006506162636465"), 100) // a, 25 times a, then abcde
	if err != nil || string(out) != strings.Repeat("a", 26)+"abcde" {
		t.Errorf("got %q, %v", out, err)
	}
	for name, s := range map[string]string{
		"nothing": "", "literals that are not there": "f0", "half an offset": "106101",
		"match at zero": "10610000", "match before the start": "10610200", "endless length": "1f610100ff", "no last literals": "10610100",
		"bomb": "1f610100" + strings.Repeat("ff", 100) + "00",
	} {
		if out, err := unlz4(lz4(s), 1000); err == nil {
			t.Errorf("%s: got %q", name, out)
		}
	}
	for _, comp := range []uint16{0, compGzip, compLZ4, compZstd} {
		if out, err := decompress(comp, []byte("no stream at all"), 100); err == nil {
			t.Errorf("compressor %d: got %q", comp, out)
		}
	}
	for _, file := range []string{"plain-gzip.raucb", "plain-zstd.raucb", "plain-lz4.raucb"} {
		b := sample(t, file)
		s, err := openSquash(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		m := &metaReader{s: s, at: s.inodes}
		if err := m.load(); err != nil {
			t.Fatal(err)
		}
		n := len(m.rest)
		word := binary.LittleEndian.Uint16(b[s.inodes:])
		if word&metaUncompressed != 0 {
			t.Fatalf("%s: the inode table is not compressed", file)
		}
		packed := b[s.inodes+2 : s.inodes+2+int64(word)]
		if _, err := decompress(s.compressor, packed, int64(n)); err != nil {
			t.Errorf("%s: just enough room: %v", file, err)
		}
		_, err = decompress(s.compressor, packed, int64(n)-1)
		wantReason(t, err, image.ErrMalformed)
	}
}
