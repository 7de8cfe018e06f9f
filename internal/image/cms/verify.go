package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"hash"
	"time"

	"github.com/writ-project/writ/internal/image"
)

// Trust says whose signatures count.
type Trust struct {
	// Keys are public keys of signers, and [image.CA] for whoever a CA
	// certified. A CA may be the signer's own certificate, as devices that trust
	// a self-signed one are set up. Other kinds are passed over.
	Keys []crypto.PublicKey
	// Purpose is what the device checks for; empty is [EitherPurpose].
	Purpose Purpose
	// Time is when certificates must be valid. When it is zero they must be at
	// the signing time the signer states, or, without one, at some moment of the
	// signer certificate's validity: that is for images checked long after
	// they were signed, and says nothing of today.
	Time time.Time
}

// Signer is who made a good signature.
type Signer struct {
	Certificate *x509.Certificate
	Key         crypto.PublicKey
	KeyID       string // [image.KeyID] of Key
	Algorithm   string // as [image.DigestAlgorithm] names it
	// Time is when the signer says to have signed; zero when it does not.
	Time time.Time
}

// Digests computes what the signers of a detached signature hashed. Write the
// content to it.
type Digests struct{ sums []sum }

type sum struct {
	of crypto.Hash
	hash.Hash
}

// of returns the digest of what was written, or nil if it was not computed.
func (d *Digests) of(h crypto.Hash) []byte {
	for _, s := range d.sums {
		if s.of == h {
			return s.Sum(nil)
		}
	}
	return nil
}

// NewDigests returns a Digests with the hashes that the signers use.
func (s *SignedData) NewDigests() *Digests {
	d := &Digests{}
	for _, one := range s.signers {
		if d.of(one.hash) == nil {
			d.sums = append(d.sums, sum{one.hash, one.hash.New()})
		}
	}
	return d
}

// Write never fails.
func (d *Digests) Write(p []byte) (int, error) {
	for _, h := range d.sums {
		_, _ = h.Write(p) // a hash never fails
	}
	return len(p), nil
}

// Verify checks every signature, and that every signer is trusted. content holds
// the digests of the content, all of it written; it is nil when the signature
// encloses its content, and only then.
func (s *SignedData) Verify(content *Digests, trust Trust) ([]Signer, error) {
	out, err := s.verify(content, trust)
	if err != nil {
		return nil, fmt.Errorf("verifying CMS signature: %w", err)
	}
	return out, nil
}

func (s *SignedData) verify(content *Digests, trust Trust) ([]Signer, error) {
	switch {
	case s.Content != nil && content != nil:
		return nil, malformed("it encloses its content and should be detached")
	case s.Content == nil && content == nil:
		return nil, malformed("it is detached and should enclose its content")
	case content == nil:
		content = s.NewDigests()
		_, _ = content.Write(s.Content)
	}
	if trust.Purpose == "" {
		trust.Purpose = EitherPurpose
	}
	var out []Signer
	for i := range s.signers {
		one := &s.signers[i]
		// Who it is from comes first: the signature of a stranger has no meaning.
		if err := trust.accepts(one, s.Certificates); err != nil {
			return nil, err
		}
		if got := content.of(one.hash); !bytes.Equal(got, one.digest) {
			return nil, fmt.Errorf("content has %v %x, %q signed %x: %w", one.hash, got, one.cert.Subject, one.digest, image.ErrBadDigest)
		}
		if !one.good() {
			return nil, fmt.Errorf("it is not by the key of the certificate it names, %q: %w", one.cert.Subject, image.ErrBadSignature)
		}
		id, err := image.KeyID(one.cert.PublicKey)
		if err != nil {
			return nil, err
		}
		name, err := image.DigestAlgorithm(one.cert.PublicKey, one.hash, one.algorithm.scheme == pss)
		if err != nil {
			return nil, err
		}
		out = append(out, Signer{one.cert, one.cert.PublicKey, id, name, one.time})
	}
	return out, nil
}

// good checks the signature over the signed attributes.
func (one *signer) good() bool {
	h := one.hash.New()
	h.Write(one.signed)
	sum := h.Sum(nil)
	switch k := one.cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return false
		}
		switch one.algorithm.scheme {
		case pkcs1:
			return rsa.VerifyPKCS1v15(k, one.hash, sum, one.signature) == nil
		case pss:
			return rsa.VerifyPSS(k, one.hash, sum, one.signature, &rsa.PSSOptions{SaltLength: one.algorithm.salt}) == nil
		case ecdsaDER:
		}
	case *ecdsa.PublicKey:
		return one.algorithm.scheme == ecdsaDER && ecdsa.VerifyASN1(k, sum, one.signature)
	}
	return false
}

// accepts reports why a signer is not trusted.
func (t Trust) accepts(one *signer, enclosed []*x509.Certificate) error {
	known := false
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	var cas []*x509.Certificate
	for _, key := range t.Keys {
		switch k := key.(type) {
		case image.CA:
			if k.Certificate != nil {
				roots.AddCert(k.Certificate)
				cas = append(cas, k.Certificate)
			}
		case interface{ Equal(crypto.PublicKey) bool }:
			known = known || k.Equal(one.cert.PublicKey)
		}
	}
	if known {
		if at := t.Time; !at.IsZero() && (at.Before(one.cert.NotBefore) || at.After(one.cert.NotAfter)) {
			return fmt.Errorf("certificate %q of a trusted key is valid from %s to %s only: %w", one.cert.Subject,
				one.cert.NotBefore.Format(time.RFC3339), one.cert.NotAfter.Format(time.RFC3339), image.ErrUnknownKey)
		}
		return t.Purpose.Fits(one.cert)
	}
	for _, c := range enclosed {
		if c != one.cert {
			others.AddCert(c)
		}
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	var err error
	for _, at := range t.moments(one, cas) {
		opts.CurrentTime = at
		if _, err = one.cert.Verify(opts); err == nil {
			return t.Purpose.throughout(one.cert, opts)
		}
	}
	if len(cas) == 0 {
		return fmt.Errorf("it is by %q, which is none of the given keys: %w", one.cert.Subject, image.ErrUnknownKey)
	}
	return fmt.Errorf("it is by %q, which no given key or CA vouches for: %w: %w", one.cert.Subject, err, image.ErrUnknownKey)
}

// throughout checks the purpose of the signer's certificate and, where the CAs
// above it limit what they certify for, theirs.
func (p Purpose) throughout(c *x509.Certificate, opts x509.VerifyOptions) error {
	if err := p.Fits(c); err != nil {
		return err
	}
	opts.KeyUsages = map[Purpose][]x509.ExtKeyUsage{
		EmailProtection: {x509.ExtKeyUsageEmailProtection},
		CodeSigning:     {x509.ExtKeyUsageCodeSigning},
		EitherPurpose:   {x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageCodeSigning},
	}[p]
	if _, err := c.Verify(opts); err != nil {
		return fmt.Errorf("certificate %q is by a CA that does not certify for this: %w: %w", c.Subject, err, image.ErrWrongPurpose)
	}
	return nil
}

// moments are the times to try for a signer.
func (t Trust) moments(one *signer, cas []*x509.Certificate) []time.Time {
	switch {
	case !t.Time.IsZero():
		return []time.Time{t.Time}
	case !one.time.IsZero():
		return []time.Time{one.time}
	}
	out := []time.Time{one.cert.NotBefore}
	for _, ca := range cas {
		// A root that was issued anew after it certified the signer.
		if ca.NotBefore.After(one.cert.NotBefore) && ca.NotBefore.Before(one.cert.NotAfter) {
			out = append(out, ca.NotBefore)
		}
	}
	return out
}
