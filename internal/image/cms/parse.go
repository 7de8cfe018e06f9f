package cms

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/writ-project/writ/internal/image"
)

// SignedData is a signature as read, nothing of it checked yet but its form.
type SignedData struct {
	// Content is what the signature encloses; nil when it is detached.
	Content []byte
	// Certificates are those enclosed, in their order. None is trusted.
	Certificates []*x509.Certificate

	signers []signer
}

// signer is one SignerInfo.
type signer struct {
	cert      *x509.Certificate // the enclosed one that it names
	hash      crypto.Hash
	algorithm algorithm
	signature []byte

	signed []byte // the SET OF attributes, as it is hashed
	digest []byte // attribute messageDigest
	time   time.Time
}

// algorithm is a signature algorithm.
type algorithm struct {
	scheme scheme
	salt   int // of PSS, in bytes
}

type scheme int

const (
	pkcs1 scheme = iota + 1
	pss
	ecdsaDER
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), image.ErrMalformed)
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), image.ErrUnsupported)
}

// Parse reads a SignedData in DER of at most [MaxSize] bytes.
func Parse(der []byte) (*SignedData, error) {
	if len(der) > MaxSize {
		return nil, fmt.Errorf("reading CMS signature: %d bytes are over the limit of %d: %w", len(der), MaxSize, image.ErrTooLarge)
	}
	s, err := parse(der)
	if err != nil {
		return nil, fmt.Errorf("reading CMS signature: %w", err)
	}
	return s, nil
}

func parse(der []byte) (*SignedData, error) {
	in := cryptobyte.String(der)
	var info, explicit, body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&info, tags.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) {
		return nil, malformed("no ContentInfo in DER")
	}
	if !in.Empty() {
		return nil, malformed("%d bytes follow it", len(in))
	}
	if !oid.Equal(oidSignedData) {
		return nil, malformed("it is of type %v, want SignedData", oid)
	}
	var version int
	if !info.ReadASN1(&explicit, context0) || !info.Empty() ||
		!explicit.ReadASN1(&body, tags.SEQUENCE) || !explicit.Empty() ||
		!body.ReadASN1Integer(&version) {
		return nil, malformed("no SignedData in it")
	}
	// 1 and 3 are those of id-data, by how the signers are named.
	if version != 1 && version != 3 {
		return nil, unsupported("SignedData has version %d, want 1 or 3", version)
	}
	s := &SignedData{}
	var algorithms, signers cryptobyte.String
	if !body.ReadASN1(&algorithms, tags.SET) {
		return nil, malformed("no digest algorithms in it")
	}
	if err := s.readContent(&body); err != nil {
		return nil, err
	}
	if err := s.readCertificates(&body); err != nil {
		return nil, err
	}
	if body.PeekASN1Tag(context1) {
		return nil, unsupported("it has revocation lists, which nothing signs")
	}
	if !body.ReadASN1(&signers, tags.SET) || !body.Empty() {
		return nil, malformed("no signers at its end")
	}
	for !signers.Empty() {
		if len(s.signers) == maxSigners {
			return nil, unsupported("it has more than %d signers", maxSigners)
		}
		one, err := s.readSigner(&signers)
		if err != nil {
			return nil, fmt.Errorf("signer %d: %w", len(s.signers), err)
		}
		s.signers = append(s.signers, one)
	}
	if len(s.signers) == 0 {
		return nil, fmt.Errorf("it has no signer: %w", image.ErrUnsigned)
	}
	return s, s.checkAlgorithms(algorithms)
}

const (
	context0 = tags.Tag(0xa0) // [0], constructed
	context1 = tags.Tag(0xa1)
	context2 = tags.Tag(0xa2)
	context3 = tags.Tag(0xa3)
	keyIDTag = tags.Tag(0x80) // [0], primitive
)

func (s *SignedData) readContent(body *cryptobyte.String) error {
	var encap, explicit, content cryptobyte.String
	var oid asn1.ObjectIdentifier
	var attached bool
	if !body.ReadASN1(&encap, tags.SEQUENCE) || !encap.ReadASN1ObjectIdentifier(&oid) ||
		!encap.ReadOptionalASN1(&explicit, &attached, context0) || !encap.Empty() {
		return malformed("no content information in it")
	}
	if !oid.Equal(oidData) {
		return unsupported("the content is of type %v, want data", oid)
	}
	if !attached {
		return nil
	}
	if !explicit.ReadASN1(&content, tags.OCTET_STRING) || !explicit.Empty() || len(content) == 0 {
		return malformed("the content is not one string of bytes")
	}
	s.Content = bytes.Clone(content)
	return nil
}

func (s *SignedData) readCertificates(body *cryptobyte.String) error {
	var set cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&set, &present, context0) {
		return malformed("the certificates do not end")
	}
	for !set.Empty() {
		var der cryptobyte.String
		if !set.ReadASN1Element(&der, tags.SEQUENCE) {
			return malformed("certificate %d is none", len(s.Certificates))
		}
		if len(s.Certificates) == maxCertificates {
			return unsupported("it has more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return malformed("certificate %d: %w", len(s.Certificates), err)
		}
		s.Certificates = append(s.Certificates, c)
	}
	return nil
}

// readSigner reads a SignerInfo (RFC 5652, section 5.3).
func (s *SignedData) readSigner(in *cryptobyte.String) (signer, error) {
	var one signer
	var info, attrs cryptobyte.String
	var version int
	if !in.ReadASN1(&info, tags.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return one, malformed("no SignerInfo")
	}
	var err error
	if one.cert, err = s.named(&info, version); err != nil {
		return one, err
	}
	if one.hash, err = readHash(&info); err != nil {
		return one, err
	}
	if !info.PeekASN1Tag(context0) {
		return one, unsupported("it has no signed attributes")
	}
	var element cryptobyte.String
	if !info.ReadASN1Element(&element, context0) {
		return one, malformed("the signed attributes do not end")
	}
	// Hashed under the universal tag of a set (section 5.4).
	one.signed = append([]byte{byte(tags.SET)}, element[1:]...)
	if !element.ReadASN1(&attrs, context0) {
		return one, malformed("the signed attributes do not end")
	}
	if err := one.readAttributes(attrs); err != nil {
		return one, err
	}
	if one.algorithm, err = readAlgorithm(&info, one.hash); err != nil {
		return one, err
	}
	var signature cryptobyte.String
	if !info.ReadASN1(&signature, tags.OCTET_STRING) {
		return one, malformed("no signature")
	}
	if info.PeekASN1Tag(context1) {
		return one, unsupported("it has unsigned attributes, which nothing signs")
	}
	if !info.Empty() {
		return one, malformed("something follows the signature")
	}
	one.signature = bytes.Clone(signature)
	return one, nil
}

// named returns the enclosed certificate that the SignerInfo names.
func (s *SignedData) named(info *cryptobyte.String, version int) (*x509.Certificate, error) {
	var match func(*x509.Certificate) bool
	switch {
	case version == 1 && info.PeekASN1Tag(tags.SEQUENCE):
		var sid, issuer cryptobyte.String
		serial := new(big.Int)
		if !info.ReadASN1(&sid, tags.SEQUENCE) || !sid.ReadASN1Element(&issuer, tags.SEQUENCE) ||
			!sid.ReadASN1Integer(serial) || !sid.Empty() {
			return nil, malformed("its name is not an issuer and a serial number")
		}
		match = func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawIssuer, issuer) && c.SerialNumber.Cmp(serial) == 0
		}
	case version == 3 && info.PeekASN1Tag(keyIDTag):
		var id cryptobyte.String
		if !info.ReadASN1(&id, keyIDTag) {
			return nil, malformed("its name is not a key identifier")
		}
		match = func(c *x509.Certificate) bool { return len(id) > 0 && bytes.Equal(c.SubjectKeyId, id) }
	default:
		return nil, malformed("its version, %d, does not go with how it is named", version)
	}
	var found *x509.Certificate
	for _, c := range s.Certificates {
		if !match(c) {
			continue
		}
		if found != nil {
			return nil, malformed("it names two of the certificates")
		}
		found = c
	}
	if found == nil {
		return nil, unsupported("the signature does not enclose its certificate, and devices have no other way to get it")
	}
	return found, nil
}

// readAttributes reads the signed attributes. Their order must be that of DER,
// because verifiers differ in whether they hash what they read or encode it anew.
func (one *signer) readAttributes(attrs cryptobyte.String) error {
	var last []byte
	seen := map[string]bool{}
	for !attrs.Empty() {
		var element, attr, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !attrs.ReadASN1Element(&element, tags.SEQUENCE) {
			return malformed("a signed attribute is none")
		}
		if bytes.Compare(last, element) >= 0 {
			return malformed("the signed attributes are not in the order of DER")
		}
		last = element
		whole := element
		if !whole.ReadASN1(&attr, tags.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&oid) ||
			!attr.ReadASN1(&values, tags.SET) || !attr.Empty() {
			return malformed("a signed attribute is none")
		}
		name := oid.String()
		if seen[name] || len(seen) == maxAttributes {
			return malformed("signed attribute %s is there twice, or there are more than %d", name, maxAttributes)
		}
		seen[name] = true
		if err := one.readAttribute(oid, values); err != nil {
			return err
		}
	}
	if !seen[oidContentType.String()] || one.digest == nil {
		return malformed("the signed attributes lack content type or message digest")
	}
	return nil
}

func (one *signer) readAttribute(oid asn1.ObjectIdentifier, values cryptobyte.String) error {
	switch {
	case oid.Equal(oidContentType):
		var typ asn1.ObjectIdentifier
		if !values.ReadASN1ObjectIdentifier(&typ) || !values.Empty() || !typ.Equal(oidData) {
			return malformed("attribute content type is not data, which the content is")
		}
	case oid.Equal(oidMessageDigest):
		var digest cryptobyte.String
		if !values.ReadASN1(&digest, tags.OCTET_STRING) || !values.Empty() || len(digest) != one.hash.Size() {
			return malformed("attribute message digest is not one %v", one.hash)
		}
		one.digest = bytes.Clone(digest)
	case oid.Equal(oidSigningTime):
		var ok bool
		if values.PeekASN1Tag(tags.UTCTime) {
			ok = values.ReadASN1UTCTime(&one.time)
		} else {
			ok = values.ReadASN1GeneralizedTime(&one.time)
		}
		if !ok || !values.Empty() {
			return malformed("attribute signing time is not one time")
		}
	}
	// Others, such as the capabilities that OpenSSL writes, say nothing here.
	return nil
}

var hashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{{oidSHA256, crypto.SHA256}, {oidSHA384, crypto.SHA384}, {oidSHA512, crypto.SHA512}}

// readHash reads the AlgorithmIdentifier of a hash. Its parameters are absent
// or, from older encoders, NULL (RFC 5754, section 2).
func readHash(in *cryptobyte.String) (crypto.Hash, error) {
	var alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&alg, tags.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) || !emptyOrNull(alg) {
		return 0, malformed("no digest algorithm")
	}
	for _, h := range hashes {
		if oid.Equal(h.oid) {
			return h.hash, nil
		}
	}
	return 0, unsupported("digest algorithm %v, want SHA-256, SHA-384 or SHA-512", oid)
}

func emptyOrNull(parameters cryptobyte.String) bool {
	if parameters.Empty() {
		return true
	}
	var null cryptobyte.String
	return parameters.ReadASN1(&null, tags.NULL) && null.Empty() && parameters.Empty()
}

// readAlgorithm reads the signature algorithm, which must go with the hash.
func readAlgorithm(in *cryptobyte.String, h crypto.Hash) (algorithm, error) {
	var alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&alg, tags.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) {
		return algorithm{}, malformed("no signature algorithm")
	}
	if oid.Equal(oidPSS) {
		salt, err := readPSS(alg, h)
		return algorithm{pss, salt}, err
	}
	for _, known := range []struct {
		oid    asn1.ObjectIdentifier
		scheme scheme
		hash   crypto.Hash
	}{
		{oidRSA, pkcs1, h},
		{oidRSASHA256, pkcs1, crypto.SHA256},
		{oidRSASHA384, pkcs1, crypto.SHA384},
		{oidRSASHA512, pkcs1, crypto.SHA512},
		{oidECDSASHA256, ecdsaDER, crypto.SHA256},
		{oidECDSASHA384, ecdsaDER, crypto.SHA384},
		{oidECDSASHA512, ecdsaDER, crypto.SHA512},
	} {
		if !oid.Equal(known.oid) {
			continue
		}
		if known.hash != h || !emptyOrNull(alg) {
			return algorithm{}, malformed("signature algorithm %v does not go with digest algorithm %v", oid, h)
		}
		return algorithm{scheme: known.scheme}, nil
	}
	return algorithm{}, unsupported("signature algorithm %v, want RSA PKCS #1, RSA PSS or ECDSA", oid)
}

// readPSS reads RSASSA-PSS-params (RFC 4055, section 3.1) and returns the salt
// length. Both hashes must be h; the defaults of the syntax are SHA-1.
func readPSS(in cryptobyte.String, h crypto.Hash) (int, error) {
	var params, field, mgf cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&params, tags.SEQUENCE) || !in.Empty() {
		return 0, malformed("PSS has no parameters")
	}
	if !params.ReadASN1(&field, context0) {
		return 0, unsupported("PSS with SHA-1")
	}
	if got, err := readHash(&field); err != nil || got != h || !field.Empty() {
		return 0, malformed("PSS has another hash than the content, %v", h)
	}
	if !params.ReadASN1(&field, context1) || !field.ReadASN1(&mgf, tags.SEQUENCE) || !field.Empty() ||
		!mgf.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidMGF1) {
		return 0, malformed("PSS has no mask generation function MGF1")
	}
	if got, err := readHash(&mgf); err != nil || got != h || !mgf.Empty() {
		return 0, malformed("PSS has another hash inside MGF1 than %v", h)
	}
	salt := 20 // the default
	if params.PeekASN1Tag(context2) {
		if !params.ReadASN1(&field, context2) || !field.ReadASN1Integer(&salt) || !field.Empty() {
			return 0, malformed("PSS has a salt length that is no number")
		}
	}
	if params.PeekASN1Tag(context3) {
		var trailer int
		if !params.ReadASN1(&field, context3) || !field.ReadASN1Integer(&trailer) || !field.Empty() || trailer != 1 {
			return 0, malformed("PSS has a trailer other than 1")
		}
	}
	// A key of 16384 bits holds 2048 bytes.
	if !params.Empty() || salt < 1 || salt > 2048 {
		return 0, malformed("PSS has salt length %d, or more parameters than there are", salt)
	}
	return salt, nil
}

// checkAlgorithms holds the list of digest algorithms against the signers: it
// is what a verifier that streams has computed when it gets to them.
func (s *SignedData) checkAlgorithms(list cryptobyte.String) error {
	var listed []crypto.Hash
	for !list.Empty() {
		h, err := readHash(&list)
		if err != nil {
			return err
		}
		listed = append(listed, h)
	}
	for _, one := range s.signers {
		if !slices.Contains(listed, one.hash) {
			return malformed("a signer uses %v, which is not among the digest algorithms", one.hash)
		}
	}
	return nil
}

// Signatures lists the signatures as claims. Key ids are those of the enclosed
// certificates' keys.
func (s *SignedData) Signatures() []image.SignatureInfo {
	var out []image.SignatureInfo
	for _, one := range s.signers {
		info := image.SignatureInfo{KeyID: hex.EncodeToString(one.cert.SubjectKeyId)}
		if id, err := image.KeyID(one.cert.PublicKey); err == nil {
			info.KeyID = id
		}
		if name, err := image.DigestAlgorithm(one.cert.PublicKey, one.hash, one.algorithm.scheme == pss); err == nil {
			info.Algorithm = name
		}
		out = append(out, info)
	}
	return out
}
