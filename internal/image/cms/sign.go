package cms

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/writ-project/writ/internal/image"
)

// Options are the choices of a signature.
type Options struct {
	// Chain is the signer's certificate, then each one's issuer. All are put
	// into the signature; the root may be left out, since devices have it.
	Chain []*x509.Certificate
	// PSS makes RSA keys sign with PSS, salt as long as the hash, instead of
	// PKCS #1 v1.5.
	PSS bool
	// Purpose is what devices check; empty is [EmailProtection].
	Purpose Purpose
	// Time is the signing time attribute, to the second; zero leaves it out.
	// Every certificate of the chain must be valid then.
	Time time.Time
}

// SignDigest returns a detached signature over a content of that digest, which
// is of the hash that [Hash] names for the key.
func SignDigest(key crypto.Signer, digest []byte, opt Options) ([]byte, error) {
	der, err := sign(key, digest, nil, opt)
	if err != nil {
		return nil, fmt.Errorf("making CMS signature: %w", err)
	}
	return der, nil
}

// SignContent returns a signature that contains the content it is over, which
// must not be empty.
func SignContent(key crypto.Signer, content []byte, opt Options) ([]byte, error) {
	if len(content) == 0 || len(content) > MaxSize/2 {
		return nil, fmt.Errorf("making CMS signature: content to enclose has %d bytes, want 1 to %d: %w", len(content), MaxSize/2, image.ErrTooLarge)
	}
	h, err := Hash(key.Public())
	if err != nil {
		return nil, fmt.Errorf("making CMS signature: %w", err)
	}
	d := h.New()
	d.Write(content)
	der, err := sign(key, d.Sum(nil), content, opt)
	if err != nil {
		return nil, fmt.Errorf("making CMS signature: %w", err)
	}
	return der, nil
}

func sign(key crypto.Signer, digest, content []byte, opt Options) ([]byte, error) {
	h, err := Hash(key.Public())
	if err != nil {
		return nil, err
	}
	if len(digest) != h.Size() {
		return nil, fmt.Errorf("digest of the content has %d bytes, want %d of %v: %w", len(digest), h.Size(), h, image.ErrBadOptions)
	}
	if err := opt.check(key.Public()); err != nil {
		return nil, err
	}
	attrs, err := attributes(digest, opt.Time)
	if err != nil {
		return nil, err
	}
	// RFC 5652, section 5.4: what is signed is the SET OF attributes in DER with
	// its universal tag, although the message has it under [0].
	d := h.New()
	d.Write(attrs)
	_, isRSA := key.Public().(*rsa.PublicKey)
	signature, err := image.SignHash(key, h, d.Sum(nil), isRSA && opt.PSS)
	if err != nil {
		return nil, err
	}
	algorithm, err := signatureAlgorithm(h, isRSA, opt.PSS)
	if err != nil {
		return nil, err
	}
	own := opt.Chain[0]
	info := signerInfo{
		Version:            1,
		SID:                issuerAndSerial{asn1.RawValue{FullBytes: own.RawIssuer}, own.SerialNumber},
		DigestAlgorithm:    pkix.AlgorithmIdentifier{Algorithm: hashOID(h)},
		SignedAttrs:        asn1.RawValue{FullBytes: append([]byte{0xa0}, attrs[1:]...)},
		SignatureAlgorithm: algorithm,
		Signature:          signature,
	}
	return encode(info, content, opt.Chain)
}

// check refuses a chain that devices would not take.
func (o Options) check(pub crypto.PublicKey) error {
	if len(o.Chain) == 0 {
		return fmt.Errorf("no certificate of the signing key is given, and CMS names its signer by one; register the key with its certificate: %w", image.ErrBadOptions)
	}
	if len(o.Chain) > maxCertificates {
		return fmt.Errorf("chain has %d certificates, the limit is %d: %w", len(o.Chain), maxCertificates, image.ErrBadOptions)
	}
	own := o.Chain[0]
	if k, ok := own.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(pub) {
		return fmt.Errorf("first certificate, %q, is not of the signing key: %w", own.Subject, image.ErrBadOptions)
	}
	p := o.Purpose
	switch p {
	case "":
		p = EmailProtection
	case EitherPurpose:
		return fmt.Errorf("signing needs one purpose, %s or %s: %w", EmailProtection, CodeSigning, image.ErrBadOptions)
	case EmailProtection, CodeSigning:
	}
	if err := p.Fits(own); err != nil {
		return err
	}
	for i, c := range o.Chain {
		if i+1 < len(o.Chain) {
			if err := c.CheckSignatureFrom(o.Chain[i+1]); err != nil {
				return fmt.Errorf("certificate %q is not issued by the next in the chain, %q: %w: %w", c.Subject, o.Chain[i+1].Subject, err, image.ErrBadOptions)
			}
		}
		if !o.Time.IsZero() && (o.Time.Before(c.NotBefore) || o.Time.After(c.NotAfter)) {
			return fmt.Errorf("certificate %q is not valid at the signing time, %s: %w", c.Subject, o.Time.UTC().Format(time.RFC3339), image.ErrBadOptions)
		}
	}
	return nil
}

type (
	contentInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue // [0] EXPLICIT
	}
	signedData struct {
		Version          int
		DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
		Encap            encapsulated
		Certificates     asn1.RawValue // [0] IMPLICIT SET OF
		SignerInfos      []signerInfo  `asn1:"set"`
	}
	encapsulated struct {
		ContentType asn1.ObjectIdentifier
		Content     []byte `asn1:"explicit,tag:0,optional,omitempty"`
	}
	signerInfo struct {
		Version            int
		SID                issuerAndSerial
		DigestAlgorithm    pkix.AlgorithmIdentifier
		SignedAttrs        asn1.RawValue // [0] IMPLICIT SET OF
		SignatureAlgorithm pkix.AlgorithmIdentifier
		Signature          []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values []any `asn1:"set"`
	}
	pssParameters struct {
		Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
		Salt int                      `asn1:"explicit,tag:2"`
	}
)

func encode(info signerInfo, content []byte, chain []*x509.Certificate) ([]byte, error) {
	var certs []byte
	for _, c := range chain {
		certs = append(certs, c.Raw...)
	}
	sd, err := asn1.Marshal(signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{info.DigestAlgorithm},
		Encap:            encapsulated{oidData, content},
		Certificates:     contextual(certs),
		SignerInfos:      []signerInfo{info},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding SignedData: %w", err)
	}
	der, err := asn1.Marshal(contentInfo{oidSignedData, contextual(sd)})
	if err != nil {
		return nil, fmt.Errorf("encoding ContentInfo: %w", err)
	}
	if len(der) > MaxSize {
		return nil, fmt.Errorf("it would have %d bytes, the limit is %d: %w", len(der), MaxSize, image.ErrTooLarge)
	}
	return der, nil
}

// contextual is b under the constructed tag [0].
func contextual(b []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: b}
}

// attributes returns the SET OF signed attributes.
func attributes(digest []byte, at time.Time) ([]byte, error) {
	list := []attribute{{oidContentType, []any{oidData}}, {oidMessageDigest, []any{digest}}}
	if !at.IsZero() {
		list = append(list, attribute{oidSigningTime, []any{at.UTC().Truncate(time.Second)}})
	}
	der, err := asn1.MarshalWithParams(list, "set") // sorts, as DER wants
	if err != nil {
		return nil, fmt.Errorf("encoding signed attributes: %w", err)
	}
	return der, nil
}

func hashOID(h crypto.Hash) asn1.ObjectIdentifier {
	if h == crypto.SHA384 {
		return oidSHA384
	}
	return oidSHA256
}

func signatureAlgorithm(h crypto.Hash, isRSA, pss bool) (pkix.AlgorithmIdentifier, error) {
	switch {
	case isRSA && pss:
		hash := pkix.AlgorithmIdentifier{Algorithm: hashOID(h), Parameters: asn1.NullRawValue}
		inner, err := asn1.Marshal(hash)
		if err != nil {
			return pkix.AlgorithmIdentifier{}, fmt.Errorf("encoding PSS parameters: %w", err)
		}
		params, err := asn1.Marshal(pssParameters{hash, pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: inner}}, h.Size()})
		if err != nil {
			return pkix.AlgorithmIdentifier{}, fmt.Errorf("encoding PSS parameters: %w", err)
		}
		return pkix.AlgorithmIdentifier{Algorithm: oidPSS, Parameters: asn1.RawValue{FullBytes: params}}, nil
	case isRSA:
		// RFC 3370, section 3.2: rsaEncryption, with NULL.
		return pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}, nil
	case h == crypto.SHA384:
		return pkix.AlgorithmIdentifier{Algorithm: oidECDSASHA384}, nil
	default:
		return pkix.AlgorithmIdentifier{Algorithm: oidECDSASHA256}, nil
	}
}

// Content returns the content of a SignedData that contains it, for whoever
// signs it anew. It checks nothing else.
func Content(der []byte) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("taking the content out of a CMS signature: %w: %w", err, image.ErrMalformed)
	}
	var ci contentInfo
	if rest, err := asn1.Unmarshal(der, &ci); err != nil {
		return fail(err)
	} else if len(rest) > 0 {
		return fail(fmt.Errorf("%d bytes follow it", len(rest)))
	}
	if !ci.ContentType.Equal(oidSignedData) {
		return fail(fmt.Errorf("it is of type %v, not SignedData", ci.ContentType))
	}
	body, err := sequencePrefix(ci.Content.Bytes)
	if err != nil {
		return fail(err)
	}
	var version int
	var algorithms asn1.RawValue
	var encap encapsulated
	for _, field := range []any{&version, &algorithms, &encap} {
		if body, err = asn1.Unmarshal(body, field); err != nil {
			return fail(err)
		}
	}
	if len(encap.Content) == 0 {
		return fail(errors.New("it is detached"))
	}
	return bytes.Clone(encap.Content), nil
}

// sequencePrefix returns what is inside a SEQUENCE.
func sequencePrefix(der []byte) ([]byte, error) {
	var v asn1.RawValue
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		return nil, err
	}
	if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence || !v.IsCompound {
		return nil, fmt.Errorf("tag %d where a SEQUENCE is due", v.Tag)
	}
	return v.Bytes, nil
}
