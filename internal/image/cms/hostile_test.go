package cms_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// der is a tree of DER that can be changed and written again.
type der struct {
	tag  byte
	leaf []byte // of a primitive
	kids []*der
}

func readDER(t *testing.T, b []byte) []*der {
	t.Helper()
	var out []*der
	for len(b) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(b, &v)
		if err != nil {
			t.Fatal(err)
		}
		n := &der{tag: v.FullBytes[0], leaf: v.Bytes}
		if v.IsCompound {
			n.leaf, n.kids = nil, readDER(t, v.Bytes)
		}
		out, b = append(out, n), rest
	}
	return out
}

func (d *der) bytes() []byte {
	body := d.leaf
	for _, k := range d.kids {
		body = append(body, k.bytes()...)
	}
	switch n := len(body); {
	case n < 0x80:
		return append([]byte{d.tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{d.tag, 0x81, byte(n)}, body...)
	default:
		return append([]byte{d.tag, 0x82, byte(n >> 8), byte(n)}, body...)
	}
}

// at walks down by indexes.
func (d *der) at(path ...int) *der {
	for _, i := range path {
		d = d.kids[i]
	}
	return d
}

// Where things are in what we write, from the ContentInfo down.
var (
	signedData = []int{1, 0}
	hashList   = []int{1, 0, 1}
	encap      = []int{1, 0, 2}
	certs      = []int{1, 0, 3}
	signers    = []int{1, 0, 4}
	signer0    = []int{1, 0, 4, 0}
	attrs      = []int{1, 0, 4, 0, 3}
)

func TestHostileMessages(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	s, other := root.Signer(t, cmstest.P256, nil), root.Signer(t, cmstest.RSA, nil)
	good := signDigest(t, s, content, cms.Options{Time: cmstest.NotBefore.AddDate(1, 0, 0)})
	pss := signDigest(t, other, content, cms.Options{PSS: true})
	if again := readDER(t, good)[0].bytes(); !bytes.Equal(again, good) {
		t.Fatal("the test's DER is not that of the message")
	}
	null := &der{tag: 5}
	for _, tc := range []struct {
		name   string
		base   []byte
		edit   func(d *der)
		reason image.ReasonError
	}{
		{"type", good, func(d *der) { d.kids[0].leaf = []byte{0x2a, 0x03} }, image.ErrMalformed},
		{"version 2", good, func(d *der) { d.at(signedData...).kids[0].leaf = []byte{2} }, image.ErrUnsupported},
		{"content type", good, func(d *der) { d.at(encap...).kids[0].leaf = []byte{0x2a, 0x03} }, image.ErrUnsupported},
		{"content too", good, func(d *der) {
			e := d.at(encap...)
			e.kids = append(e.kids, &der{tag: 0xa0, kids: []*der{{tag: 4, leaf: content}}})
		}, image.ErrMalformed},
		{"unlisted hash", good, func(d *der) { d.at(hashList...).kids = nil }, image.ErrMalformed},
		{"no certificates", good, func(d *der) { d.at(certs...).kids = nil }, image.ErrUnsupported},
		{"certificate twice", good, func(d *der) { c := d.at(certs...); c.kids = append(c.kids, c.kids[0]) }, image.ErrMalformed},
		{"no certificate", good, func(d *der) { d.at(certs...).kids[0].kids = nil }, image.ErrMalformed},
		{"many certificates", good, func(d *der) {
			c := d.at(certs...)
			for range 20 {
				c.kids = append(c.kids, c.kids[0])
			}
		}, image.ErrUnsupported},
		{"revocation list", good, func(d *der) {
			b := d.at(signedData...)
			b.kids = append(b.kids[:4:4], &der{tag: 0xa1, kids: []*der{null}}, b.kids[4])
		}, image.ErrUnsupported},
		{"no signer", good, func(d *der) { d.at(signers...).kids = nil }, image.ErrUnsigned},
		{"many signers", good, func(d *der) {
			l := d.at(signers...)
			l.kids = append(l.kids, l.kids[0], l.kids[0], l.kids[0], l.kids[0])
		}, image.ErrUnsupported},
		{"after the signers", good, func(d *der) { b := d.at(signedData...); b.kids = append(b.kids, null) }, image.ErrMalformed},
		{"serial number", good, func(d *der) { d.at(signer0...).at(1, 1).leaf = []byte{99} }, image.ErrUnsupported},
		{"signer version", good, func(d *der) { d.at(signer0...).kids[0].leaf = []byte{3} }, image.ErrMalformed},
		{"hash of the signer", good, func(d *der) { d.at(signer0...).at(2, 0).leaf[8] = 9 }, image.ErrUnsupported},
		{"sha-1", good, func(d *der) { d.at(signer0...).at(2, 0).leaf = []byte{0x2b, 0x0e, 3, 2, 0x1a} }, image.ErrUnsupported},
		{"no attributes", good, func(d *der) { l := d.at(signer0...); l.kids = append(l.kids[:3:3], l.kids[4:]...) }, image.ErrUnsupported},
		{"attributes out of order", good, func(d *der) { l := d.at(attrs...); l.kids[0], l.kids[1] = l.kids[1], l.kids[0] }, image.ErrMalformed},
		{"attribute twice", good, func(d *der) { l := d.at(attrs...); l.kids = append(l.kids[:1:1], l.kids...) }, image.ErrMalformed},
		{"no digest", good, func(d *der) { l := d.at(attrs...); l.kids = l.kids[:2] }, image.ErrMalformed},
		{"no content type", good, func(d *der) { l := d.at(attrs...); l.kids = l.kids[1:] }, image.ErrMalformed},
		{"other content type", good, func(d *der) { d.at(attrs...).at(0, 1, 0).leaf[8] = 2 }, image.ErrMalformed},
		{"time", good, func(d *der) { d.at(attrs...).at(1, 1, 0).leaf[1] ^= 1 }, image.ErrBadSignature},
		{"time that is none", good, func(d *der) { d.at(attrs...).at(1, 1, 0).leaf = []byte("soon") }, image.ErrMalformed},
		{"digest", good, func(d *der) { d.at(attrs...).at(2, 1, 0).leaf[0] ^= 1 }, image.ErrBadDigest},
		{"short digest", good, func(d *der) { l := d.at(attrs...).at(2, 1, 0); l.leaf = l.leaf[1:] }, image.ErrMalformed},
		{"algorithm", good, func(d *der) { d.at(signer0...).at(4, 0).leaf = []byte{0x2b, 0x65, 0x70} }, image.ErrUnsupported},
		{"algorithm of another hash", good, func(d *der) { d.at(signer0...).at(4, 0).leaf[7] = 3 }, image.ErrMalformed},
		{"parameters", good, func(d *der) { a := d.at(signer0...).at(4); a.kids = append(a.kids, null, null) }, image.ErrMalformed},
		{"signature", good, func(d *der) { l := d.at(signer0...).at(5); l.leaf[len(l.leaf)-1] ^= 1 }, image.ErrBadSignature},
		{"empty signature", good, func(d *der) { d.at(signer0...).at(5).leaf = nil }, image.ErrBadSignature},
		{"unsigned attribute", good, func(d *der) { l := d.at(signer0...); l.kids = append(l.kids, &der{tag: 0xa1, kids: []*der{null}}) }, image.ErrUnsupported},
		{"after the signature", good, func(d *der) { l := d.at(signer0...); l.kids = append(l.kids, null) }, image.ErrMalformed},
		{"pss salt", pss, func(d *der) { d.at(signer0...).at(4, 1, 2, 0).leaf = []byte{31} }, image.ErrBadSignature},
		{"pss salt of nothing", pss, func(d *der) { d.at(signer0...).at(4, 1, 2, 0).leaf = []byte{0} }, image.ErrMalformed},
		{"pss salt below nothing", pss, func(d *der) { d.at(signer0...).at(4, 1, 2, 0).leaf = []byte{0xff} }, image.ErrMalformed},
		{"pss with sha-1", pss, func(d *der) { p := d.at(signer0...).at(4, 1); p.kids = p.kids[1:] }, image.ErrUnsupported},
		{"pss with two hashes", pss, func(d *der) { d.at(signer0...).at(4, 1, 0, 0, 0).leaf[8] = 2 }, image.ErrMalformed},
		{"pss with another mask", pss, func(d *der) { d.at(signer0...).at(4, 1, 1, 0, 0).leaf[8] = 9 }, image.ErrMalformed},
		{"pss with another hash in its mask", pss, func(d *der) { d.at(signer0...).at(4, 1, 1, 0, 1, 0).leaf[8] = 2 }, image.ErrMalformed},
		{"pss trailer", pss, func(d *der) {
			p := d.at(signer0...).at(4, 1)
			p.kids = append(p.kids, &der{tag: 0xa3, kids: []*der{{tag: 2, leaf: []byte{2}}}})
		}, image.ErrMalformed},
		{"pss as pkcs1", pss, func(d *der) {
			a := d.at(signer0...).at(4)
			a.kids[0].leaf[8], a.kids[1] = 1, null
		}, image.ErrBadSignature},
		{"name of another signer", good, func(d *der) {
			foreign := readDER(t, pss)[0]
			d.at(certs...).kids = append(d.at(certs...).kids, foreign.at(certs...).kids...)
			d.at(signer0...).kids[1] = foreign.at(signer0...).kids[1]
		}, image.ErrBadSignature},
		// A signature by somebody else beside a good one.
		{"second signer", good, func(d *der) {
			stranger := cmstest.NewCA(t, "stranger").Signer(t, cmstest.P256, func(c *x509.Certificate) { c.SerialNumber.SetInt64(77) })
			foreign := readDER(t, signDigest(t, stranger, content, cms.Options{}))[0]
			d.at(certs...).kids = append(d.at(certs...).kids, foreign.at(certs...).kids...)
			d.at(signers...).kids = append(d.at(signers...).kids, foreign.at(signers...).kids...)
		}, image.ErrUnknownKey},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := readDER(t, bytes.Clone(tc.base))[0]
			tc.edit(d)
			_, err := verify(d.bytes(), content, trusting(root.Certificate))
			if reason, _ := image.ReasonOf(err); reason != tc.reason {
				t.Errorf("got %v, want %s", err, tc.reason)
			}
		})
	}
	for name, b := range map[string][]byte{
		"nothing":            nil,
		"followed by a byte": append(bytes.Clone(good), 0),
		"cut":                good[:len(good)-1],
		"indefinite length":  append(append([]byte{0x30, 0x80}, good[4:]...), 0, 0),
		"padded length":      append([]byte{0x30, 0x83, 0}, good[2:]...),
	} {
		_, err := cms.Parse(b)
		if !errors.Is(err, image.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := cms.Parse(make([]byte, cms.MaxSize+1))
	wantReason(t, err, image.ErrTooLarge)
}

// What signs attributes must not pass for a signature over a content that looks
// like them (RFC 5652, section 11).
func TestAttributesAreNotContent(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	s := root.Signer(t, cmstest.P256, nil)
	d := readDER(t, signDigest(t, s, content, cms.Options{}))[0]
	signed := d.at(attrs...)
	signed.tag = 0x31
	forged := signed.bytes()
	l := d.at(signer0...)
	l.kids = append(l.kids[:3:3], l.kids[4:]...)
	_, err := verify(d.bytes(), forged, trusting(root.Certificate))
	wantReason(t, err, image.ErrUnsupported)
}

// Two signers, as openssl cms makes them, are both needed.
func TestEverySignerIsNeeded(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	one, two := root.Signer(t, cmstest.P256, nil), root.Signer(t, cmstest.P384, nil)
	d := readDER(t, signDigest(t, one, content, cms.Options{}))[0]
	second := readDER(t, signDigest(t, two, content, cms.Options{}))[0]
	d.at(hashList...).kids = append(d.at(hashList...).kids, second.at(hashList...).kids...)
	d.at(certs...).kids = append(d.at(certs...).kids, second.at(certs...).kids...)
	d.at(signers...).kids = append(d.at(signers...).kids, second.at(signers...).kids...)
	got, err := verify(d.bytes(), content, trusting(root.Certificate))
	if err != nil || len(got) != 2 || got[0].Algorithm == got[1].Algorithm {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = verify(d.bytes(), content, cms.Trust{Keys: []crypto.PublicKey{one.Public()}})
	wantReason(t, err, image.ErrUnknownKey)
	if _, err := verify(d.bytes(), content, cms.Trust{Keys: []crypto.PublicKey{one.Public(), two.Public()}}); err != nil {
		t.Error(err)
	}
}

func TestFaultySignersAreNoticed(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	s, other := root.Signer(t, cmstest.P256, nil), root.Signer(t, cmstest.P256, nil)
	s.Signer = faulty{s.Signer, other.Signer}
	sum := sha256.Sum256(content)
	if der, err := cms.SignDigest(s, sum[:], cms.Options{Chain: []*x509.Certificate{s.Certificate}}); err == nil {
		t.Errorf("got %x", der)
	}
}

// faulty claims one key and signs with another.
type faulty struct {
	crypto.Signer
	by crypto.Signer
}

func (f faulty) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return f.by.Sign(r, digest, opts)
}
