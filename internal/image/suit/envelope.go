package suit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// digest is a SUIT_Digest.
type digest struct {
	hash crypto.Hash
	sum  string // the bytes, so that digests compare
}

// Names of the hashes in [image.Digest].
func (g digest) name() string {
	switch g.hash { // digest() lets no other in
	case crypto.SHA384:
		return "sha384"
	case crypto.SHA512:
		return "sha512"
	default:
		return "sha256"
	}
}

func (g digest) new() hash.Hash {
	switch g.hash { // digest() lets no other in
	case crypto.SHA384:
		return sha512.New384()
	case crypto.SHA512:
		return sha512.New()
	default:
		return sha256.New()
	}
}

func (g digest) of(parts ...[]byte) string {
	h := g.new()
	for _, p := range parts {
		h.Write(p)
	}
	return string(h.Sum(nil))
}

// digest reads a SUIT_Digest. Extensions behind its two items are refused.
func (d *decoder) digest() digest {
	d.list(2, 2)
	alg := d.int()
	g := digest{sum: string(d.bytes())}
	switch alg {
	case algSHA256:
		g.hash = crypto.SHA256
	case algSHA384:
		g.hash = crypto.SHA384
	case algSHA512:
		g.hash = crypto.SHA512
	default:
		d.refuse(image.ErrUnsupported, "digest algorithm %d is none of SHA-256, SHA-384 and SHA-512", alg)
		return digest{}
	}
	if d.err == nil && len(g.sum) != g.hash.Size() {
		d.fail("digest has %d bytes, want %d", len(g.sum), g.hash.Size())
	}
	return g
}

// wrapped is a byte string with its head, which digests of manifests and of
// severed members cover.
type wrapped struct{ head, body []byte }

// payload is where an integrated payload lies in the file.
type payload struct {
	name      string
	off, size int64
}

// envelope is the outer map. Small members are in memory, payloads stay where
// they are.
type envelope struct {
	authentication []byte
	manifest       wrapped
	severed        map[int64]wrapped
	payloads       []payload
}

// readEnvelope reads the envelope that fills r from 0 to size, payloads
// excepted.
func readEnvelope(r io.ReaderAt, size int64) (*envelope, error) {
	p := &outer{r: r, size: size, left: MaxEnvelope}
	if major, tag, _, err := p.head(); err != nil {
		return nil, err
	} else if major != majorTag || tag != tagEnvelope {
		// It may be the image of a detached envelope.
		return nil, fmt.Errorf("reading envelope: it does not begin with tag %d: give the envelope, if this is the image beside one: %w", tagEnvelope, image.ErrUnsigned)
	}
	major, n, _, err := p.head()
	if err != nil {
		return nil, err
	}
	if major != majorMap || n > maxMembers {
		return nil, fmt.Errorf("reading envelope: want a map of at most %d members: %w", maxMembers, image.ErrMalformed)
	}
	e := &envelope{severed: map[int64]wrapped{}}
	var last []byte
	for i := range n {
		key, err := p.member(e)
		if err != nil {
			return nil, err
		}
		// The order of deterministic CBOR has the authentication first, as the
		// draft wants it (section 8.3), and nothing twice.
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return nil, fmt.Errorf("reading envelope: member %.40x is there twice or out of order: %w", key, image.ErrMalformed)
		}
		last = key
	}
	switch {
	case p.off != size:
		return nil, fmt.Errorf("reading envelope: %d bytes follow: %w", size-p.off, image.ErrMalformed)
	case e.authentication == nil:
		return nil, fmt.Errorf("reading envelope: there is no authentication: %w", image.ErrUnsigned)
	case e.manifest.body == nil:
		return nil, fmt.Errorf("reading envelope: there is no manifest: %w", image.ErrMalformed)
	}
	return e, nil
}

// outer reads the envelope from the file, and at most left bytes of it into
// memory.
type outer struct {
	r    io.ReaderAt
	off  int64
	size int64
	left int64
}

// head reads the head of an item and returns its bytes too.
func (p *outer) head() (major byte, arg uint64, raw []byte, err error) {
	b := make([]byte, min(9, p.size-p.off))
	if err := image.ReadAt(p.r, b, p.off); err != nil {
		return 0, 0, nil, fmt.Errorf("reading envelope: %w", err)
	}
	major, arg, n, err := parseHead(b)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("reading envelope at offset %d: %w", p.off, err)
	}
	p.off += int64(n)
	if (major == majorBytes || major == majorText) && arg > uint64(p.size-p.off) { //nolint:gosec // G115: off <= size
		return 0, 0, nil, fmt.Errorf("reading envelope: %d bytes are announced, %d are left: %w", arg, p.size-p.off, image.ErrTruncated)
	}
	return major, arg, b[:n], nil
}

// load reads the n bytes of a string whose head was read.
func (p *outer) load(n uint64) ([]byte, error) {
	if n > uint64(p.left) { //nolint:gosec // G115: left >= 0
		return nil, fmt.Errorf("reading envelope: it is larger than %d bytes without its payloads: %w", MaxEnvelope, image.ErrTooLarge)
	}
	b := make([]byte, n)
	if err := image.ReadAt(p.r, b, p.off); err != nil {
		return nil, fmt.Errorf("reading envelope: %w", err)
	}
	p.left -= int64(n) //nolint:gosec // G115: at most left
	p.off += int64(n)  //nolint:gosec // G115: at most left
	return b, nil
}

// member reads one member into e and returns its encoded key.
func (p *outer) member(e *envelope) (key []byte, err error) {
	major, arg, key, err := p.head()
	if err != nil {
		return nil, err
	}
	var name string
	switch {
	case major == majorText && arg <= maxText:
		b, err := p.load(arg)
		if err != nil {
			return nil, err
		}
		key, name = append(key, b...), string(b)
	case major != majorUint:
		return nil, fmt.Errorf("reading envelope: member key %.40x is neither an unsigned integer nor a short text: %w", key, image.ErrMalformed)
	}
	valueMajor, n, head, err := p.head()
	if err != nil {
		return nil, err
	}
	if valueMajor != majorBytes {
		return nil, fmt.Errorf("reading envelope: member %.40x is no byte string: %w", key, image.ErrMalformed)
	}
	if major == majorText {
		d := newDecoder("payload name", key)
		d.text(maxText)
		if err := d.done(); err != nil {
			return nil, err
		}
		e.payloads = append(e.payloads, payload{name, p.off, int64(n)}) //nolint:gosec // G115: head found it within size
		p.off += int64(n)                                               //nolint:gosec // G115: as above
		return key, nil
	}
	body, err := p.load(n)
	if err != nil {
		return nil, err
	}
	switch arg {
	case keyAuthentication:
		e.authentication = body
	case keyManifest:
		e.manifest = wrapped{head, body}
	case keyPayloadFetch, keyInstall, keyText:
		e.severed[int64(arg)] = wrapped{head, body}
	default:
		return nil, fmt.Errorf("reading envelope: member %d is unknown: %w", arg, image.ErrUnsupported)
	}
	return key, nil
}

// block is one COSE_Sign1 (RFC 9052, section 4.2), or another kind of
// authentication, which cannot be checked here and has no algorithm.
type block struct {
	alg       int64
	kid       []byte
	protected []byte
	signature []byte
}

// authentication is the content of member 2.
type authentication struct {
	manifest digest
	signed   []byte // the encoded digest, which the blocks sign
	blocks   []block
}

func readAuthentication(b []byte) (authentication, error) {
	var a authentication
	d := newDecoder("authentication", b)
	n := d.list(1, 1+maxSignatures)
	a.signed = d.bytes()
	inner := newDecoder("manifest digest", a.signed)
	a.manifest = inner.digest()
	if d.err == nil {
		d.err = inner.done()
	}
	for range n - 1 {
		raw := d.bytes()
		if d.err != nil {
			break
		}
		blk, err := readBlock(raw)
		if err != nil {
			return authentication{}, err
		}
		a.blocks = append(a.blocks, blk)
	}
	if err := d.done(); err != nil {
		return authentication{}, err
	}
	if len(a.blocks) == 0 {
		return authentication{}, fmt.Errorf("reading authentication: there is no signature: %w", image.ErrUnsigned)
	}
	return a, nil
}

func readBlock(raw []byte) (block, error) {
	var b block
	d := newDecoder("signature", raw)
	if tag := d.want(majorTag, "a tag"); d.err == nil && tag != tagSign1 {
		// A MAC or a COSE_Sign with many signers: somebody else's business, as
		// long as it is CBOR.
		d.skip(maxDepth)
		return block{}, d.done()
	}
	d.list(4, 4)
	b.protected = d.bytes()
	d.entries(func() { // unprotected
		if label := d.int(); label != headerKid {
			d.refuse(image.ErrUnsupported, "unprotected header %d, which nobody signed, is unknown", label)
		}
		b.kid = d.bytes()
	})
	if v := d.simple(); d.err == nil && v != simpleNull {
		d.fail("payload is not null: it must be detached")
	}
	b.signature = d.bytes()
	if err := d.done(); err != nil {
		return block{}, err
	}
	h := newDecoder("protected header", b.protected)
	h.entries(func() {
		switch label := newLabel(h); label {
		case headerAlg:
			b.alg = h.int()
		case headerKid:
			b.kid = h.bytes()
		case headerCrit:
			// It lists what must be understood, and there is nothing that may
			// be listed and is understood (RFC 9052, section 3.1).
			h.refuse(image.ErrUnsupported, "critical header parameters are unknown")
		default:
			h.skip(maxDepth)
		}
	})
	if h.err == nil && b.alg == 0 {
		h.fail("there is no algorithm")
	}
	return b, h.done()
}

// newLabel reads a header label: an integer, or a text, for which it returns 0.
func newLabel(d *decoder) int64 {
	if d.next() == majorText {
		d.text(maxText)
		return 0
	}
	return d.int()
}
