package rauc

import (
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// bundle is a bundle as Inspect and Verify read it. Nothing of it is verified.
type bundle struct {
	r    io.ReaderAt
	size int64
	body int64 // bytes before the signature, or all when there is none

	sig        *cms.SignedData // nil when unsigned or enveloped
	recipients int             // of an enveloped signature

	m    manifest
	tree *tree // of verity and crypt
}

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2} // RFC 5652, section 5.1
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3} // section 6.1
)

// open reads everything but the payload and the tree.
func open(r io.ReaderAt, size int64) (*bundle, error) {
	b := &bundle{r: r, size: size, body: size}
	switch {
	case size < trailerSize:
		return nil, fmt.Errorf("%d bytes hold no bundle: %w", size, image.ErrTruncated)
	case size > MaxSize:
		return nil, fmt.Errorf("%d bytes are over the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	if unsigned(r, size) {
		return b, b.readPlain()
	}
	der, err := readCMS(r, size)
	if err != nil {
		return nil, err
	}
	b.body = size - trailerSize - int64(len(der))
	switch kind := contentType(der); {
	case kind.Equal(oidEnvelopedData):
		b.m.format = formatCrypt
		b.recipients, err = countRecipients(der)
		return b, err
	case !kind.Equal(oidSignedData):
		return nil, malformed("the signature is CMS of type %v, want SignedData", kind)
	}
	if b.sig, err = cms.Parse(der); err != nil {
		return nil, err
	}
	if b.sig.Content == nil {
		return b, b.readPlain()
	}
	return b, b.readVerity()
}

// unsigned reports whether the file is a squashfs and nothing more.
func unsigned(r io.ReaderAt, size int64) bool {
	s, err := openSquash(r, size)
	return err == nil && s.fills(size)
}

// fills reports whether the squashfs, padded or not, is all of n bytes.
func (s *squash) fills(n int64) bool {
	return n == s.size || n == (s.size+blockSize-1)/blockSize*blockSize
}

// readCMS returns the signature at the end of the file.
func readCMS(r io.ReaderAt, size int64) ([]byte, error) {
	var end [trailerSize]byte
	if err := image.ReadAt(r, end[:], size-trailerSize); err != nil {
		return nil, fmt.Errorf("reading length of the signature: %w", err)
	}
	n := binary.BigEndian.Uint64(end[:])
	switch {
	case n == 0:
		return nil, fmt.Errorf("the file ends with zeros, not with a signature: %w", image.ErrUnsigned)
	case n > MaxCMS || int64(n) > size-trailerSize:
		return nil, malformed("the last 8 bytes say that the signature has %d bytes, want at most %d in a file of %d: "+
			"this is no bundle, or its end is missing", n, MaxCMS, size)
	}
	der := make([]byte, n)
	if err := image.ReadAt(r, der, size-trailerSize-int64(n)); err != nil {
		return nil, fmt.Errorf("reading signature: %w", err)
	}
	return der, nil
}

// readPlain reads the manifest of a bundle whose signature is detached, or
// missing: it is a file in the squashfs.
func (b *bundle) readPlain() error {
	s, err := openSquash(b.r, b.body)
	if err != nil {
		return err
	}
	if !s.fills(b.body) {
		return malformed("the squashfs has %d bytes, and %d are before the signature", s.size, b.body)
	}
	text, err := s.readManifest()
	if err != nil {
		return err
	}
	if b.m, err = readManifest(text); err != nil {
		return err
	}
	if b.m.format != formatPlain && b.sig != nil {
		return malformed("the manifest says format %s, and the signature is detached as in format plain", b.m.format)
	}
	if b.m.format != formatPlain {
		return fmt.Errorf("the manifest says format %s, which has its hash tree and its manifest outside the squashfs: build it with rauc bundle: %w",
			b.m.format, image.ErrUnsigned)
	}
	return nil
}

// readVerity reads the manifest that the signature encloses.
func (b *bundle) readVerity() error {
	var err error
	if b.m, err = readManifest(b.sig.Content); err != nil {
		return err
	}
	if b.m.format == formatPlain {
		return malformed("the manifest says format plain, and the signature encloses it as in format verity")
	}
	t := tree{data: b.body - b.m.treeSize, size: b.m.treeSize, root: b.m.root, salt: b.m.salt}
	if _, err := t.levels(); err != nil {
		return err
	}
	b.tree = &t
	if b.m.format == formatCrypt { // what is below is encrypted
		return nil
	}
	s, err := openSquash(b.r, t.data)
	if err != nil {
		return err
	}
	if !s.fills(t.data) {
		return malformed("the squashfs has %d bytes, and %d are before the hash tree", s.size, t.data)
	}
	return nil
}

// contentType returns the type of a CMS message, or nil.
func contentType(der []byte) asn1.ObjectIdentifier {
	in := cryptobyte.String(der)
	var info cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&info, tags.SEQUENCE) || !in.Empty() || !info.ReadASN1ObjectIdentifier(&oid) {
		return nil
	}
	return oid
}

// countRecipients counts those for whom a CMS message is encrypted (RFC 5652,
// section 6.1).
func countRecipients(der []byte) (int, error) {
	in := cryptobyte.String(der)
	var info, explicit, body, set, one cryptobyte.String
	var oid asn1.ObjectIdentifier
	var version, n int
	context0 := tags.Tag(0).ContextSpecific().Constructed()
	if !in.ReadASN1(&info, tags.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) ||
		!info.ReadASN1(&explicit, context0) || !explicit.ReadASN1(&body, tags.SEQUENCE) ||
		!body.ReadASN1Integer(&version) || !body.SkipOptionalASN1(context0) || !body.ReadASN1(&set, tags.SET) {
		return 0, malformed("the encrypted signature is no EnvelopedData")
	}
	for ; !set.Empty(); n++ {
		if !set.ReadAnyASN1(&one, nil) {
			return 0, malformed("recipient %d of the encrypted signature is not DER", n)
		}
	}
	return n, nil
}
