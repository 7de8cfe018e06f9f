package release

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"slices"
	"sync"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/image/mcuboot"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

// formatMCUboot is the format whose images can be handed in finished or plain.
var formatMCUboot = mcuboot.Format{}.Name()

// inspect fills in what m says of each image by looking at it.
func (s *Service) inspect(ctx context.Context, m *fw.Manifest) error {
	for i := range m.Components {
		if err := s.inspectComponent(ctx, m, &m.Components[i]); err != nil {
			return err
		}
	}
	if err := s.checkProvenance(ctx, m); err != nil {
		return err
	}
	if m.SBOM.IsZero() {
		return nil
	}
	return s.inspectSBOM(ctx, m.SBOM)
}

// checkProvenance holds the attached build provenance against the product's
// rule. It runs when a release is proposed and again before anything is
// signed.
func (s *Service) checkProvenance(ctx context.Context, m *fw.Manifest) error {
	product, err := store.ProductByID(s.o.DB.Snapshot(ctx), m.Product)
	if err != nil {
		return err
	}
	var rule statement.Rule
	if product.Provenance != "" {
		if err := json.Unmarshal([]byte(product.Provenance), &rule); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the stored provenance rule of product %s cannot be read", m.Product)
		}
	}
	if m.Provenance.IsZero() {
		if rule.IsZero() {
			return nil
		}
		return fw.Errorf(fw.Invalid, "product %s demands build provenance by %s from %s: attach it with --provenance", m.Product, rule.Builder, rule.Source)
	}
	f, size, err := s.o.Blobs.Open(m.Provenance)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if size > statement.MaxProvenance {
		return fw.Errorf(fw.TooLarge, "the provenance has %d bytes, over the limit of %d", size, statement.MaxProvenance)
	}
	b, err := io.ReadAll(io.LimitReader(f, statement.MaxProvenance))
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "the provenance cannot be read: try again, and look at the server's disk if it stays so")
	}
	if fw.DigestOf(b) != m.Provenance {
		return fw.Errorf(fw.Corrupt, "the stored provenance is not %s: upload it again", m.Provenance)
	}
	p, err := statement.OpenProvenance(b)
	if err != nil {
		return err
	}
	outputs := make([]fw.Digest, len(m.Components))
	for i, c := range m.Components {
		outputs[i] = c.InputDigest
	}
	return p.Meets(rule, outputs)
}

func (s *Service) inspectComponent(ctx context.Context, m *fw.Manifest, c *fw.ManifestComponent) error {
	size, err := measure(ctx, s.o.Blobs, c.InputDigest)
	if err != nil {
		return err
	}
	c.InputSize = size
	f, _, err := s.o.Blobs.Open(c.InputDigest)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	detected, err := formats.Detect(f, size)
	if err != nil {
		return imageError(c, err)
	}
	format := detected
	if c.Format != "" {
		format, _ = formats.ForName(c.Format) // known: Draft.components
	}
	c.Format = format.Name()
	// A plain binary may become an image when it is signed: there is nothing to
	// inspect yet.
	if !formats.Builds(format.Name()) || detected.Name() == format.Name() {
		info, err := format.Inspect(ctx, f, size)
		if err != nil {
			return imageError(c, err)
		}
		if err := checkClaims(m, c, info); err != nil {
			return err
		}
	}
	return s.rehearse(ctx, m, c, f)
}

// checkClaims compares what a finished image says of itself with the
// manifest.
func checkClaims(m *fw.Manifest, c *fw.ManifestComponent, info image.Info) error {
	if info.Encrypted {
		return fw.Errorf(fw.Invalid, "the image of component %s is encrypted, so nobody could verify what is released: upload the plain image", c.Name)
	}
	if info.SecurityCounter != nil && *info.SecurityCounter != c.SecurityCounter {
		return fw.Errorf(fw.Invalid, "the image of component %s has security counter %d and the release says %d: they must agree", c.Name, *info.SecurityCounter, c.SecurityCounter)
	}
	if c.Format != formatMCUboot {
		if info.Version != "" && info.Version != m.Version {
			return fw.Errorf(fw.Invalid, "the image of component %s says version %s and the release is %s: build the image again, or correct the version", c.Name, info.Version, m.Version)
		}
		return nil
	}
	switch {
	case !sameMCUbootVersion(info.Version, m.Version):
		return fw.Errorf(fw.Invalid, "the image of component %s says version %s and the release is %s: build the image again, or correct the version", c.Name, info.Version, m.Version)
	case info.SecurityCounter == nil:
		return fw.Errorf(fw.Invalid, "the image of component %s has no security counter: build it with imgtool sign --security-counter %d, or upload the plain binary", c.Name, c.SecurityCounter)
	}
	if len(info.Hardware) == 0 {
		return nil
	}
	for _, h := range m.Hardware {
		if id, err := mcuboot.ClassID(info.Vendor, string(h)); err == nil && slices.Contains(info.Hardware, id) {
			return nil
		}
	}
	return fw.Errorf(fw.Invalid, "the image of component %s is bound to hardware class %s, which is none of %v: name hardware ids as imgtool --cid does, or by the class id itself", c.Name, info.Hardware[0], m.Hardware)
}

func sameMCUbootVersion(a, b string) bool {
	va, errA := mcuboot.ParseVersion(a)
	vb, errB := mcuboot.ParseVersion(b)
	return errA == nil && errB == nil && va == vb
}

// rehearse signs the image with a key that nobody keeps and throws the result
// away, so that what cannot be signed is refused before it is approved.
func (s *Service) rehearse(ctx context.Context, m *fw.Manifest, c *fw.ManifestComponent, r io.ReaderAt) error {
	info, err := s.imageKey(c.Key)
	if err != nil {
		return err
	}
	key, err := throwaway(info.Algorithm)
	if err != nil {
		return err
	}
	opt := image.SignOptions{Version: m.Version, SecurityCounter: &c.SecurityCounter, Product: string(m.Product), Vendor: c.Vendor, Layout: c.Layout}
	if chain, err := s.o.Keystore.Chain(c.Key); err != nil {
		return err
	} else if len(chain) > 0 {
		if opt.Certificates, err = standIn(key, chain[0]); err != nil {
			return err
		}
	}
	for _, h := range m.Hardware {
		opt.Hardware = append(opt.Hardware, string(h))
	}
	format, _ := formats.ForName(c.Format) // known: set by inspectComponent
	_, err = format.Sign(ctx, io.Discard, r, c.InputSize, key, opt)
	return imageError(c, err)
}

// standIn returns a certificate like the given one, for a key that nobody
// keeps.
func standIn(key crypto.Signer, like *x509.Certificate) ([]*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: like.Subject, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		KeyUsage: like.KeyUsage, ExtKeyUsage: like.ExtKeyUsage, UnknownExtKeyUsage: like.UnknownExtKeyUsage, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot rehearse the certificate")
	}
	c, err := x509.ParseCertificate(der)
	return []*x509.Certificate{c}, err
}

// Making an RSA key takes up to a second, so these are kept.
var (
	throwawayRSA2048 = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	throwawayRSA3072 = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) })
)

func throwaway(alg signer.Algorithm) (crypto.Signer, error) {
	switch alg {
	case signer.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case signer.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case signer.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case signer.RSA2048:
		return throwawayRSA2048()
	case signer.RSA3072:
		return throwawayRSA3072()
	case signer.MLDSA65:
	}
	return nil, fw.Errorf(fw.Internal, "images are not signed with %s", alg)
}

// imageError tells the caller what is wrong with an image. An error that says
// nothing about the image is the server's.
func imageError(c *fw.ManifestComponent, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := image.ReasonOf(err); ok {
		return fw.Wrap(fw.Invalid, err, "component %s cannot be released as %s: %v", c.Name, c.Format, err)
	}
	return fw.Wrap(fw.Unavailable, err, "the image of component %s cannot be read: try again, and look at the server's disk if it stays so", c.Name)
}

// inspectSBOM requires the SBOM to be here and to be one JSON object. What is
// in it is not judged.
func (s *Service) inspectSBOM(ctx context.Context, d fw.Digest) error {
	if size, err := s.o.Blobs.Stat(d); err != nil {
		return err
	} else if size > maxSBOM {
		return fw.Errorf(fw.TooLarge, "the SBOM has %d bytes, over the limit of %d", size, maxSBOM)
	}
	size, err := measure(ctx, s.o.Blobs, d)
	if err != nil {
		return err
	}
	f, _, err := s.o.Blobs.Open(d)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	dec := json.NewDecoder(image.Section(ctx, f, 0, size))
	dec.UseNumber()
	notJSON := func(err error) error {
		return fw.Wrap(fw.Invalid, err, "the file %s is not one JSON object, so it is no SBOM: upload CycloneDX or SPDX as JSON", d)
	}
	depth := 0
	for first := true; first || depth > 0; first = false {
		tok, err := dec.Token()
		if err != nil {
			return notJSON(err)
		}
		delim, ok := tok.(json.Delim)
		switch {
		case first && delim != '{':
			return notJSON(nil)
		case ok && (delim == '{' || delim == '['):
			depth++
		case ok:
			depth--
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return notJSON(err)
	}
	return nil
}
