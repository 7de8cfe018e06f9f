// Package custody is where private keys are kept: one small interface, and
// behind it the places that are not a file of the key store. A key in custody
// never leaves its place; what a back end gives is a [crypto.Signer] that asks
// the place to sign.
//
// A key is named by a URI whose scheme says which back end has it:
//
//	pkcs11:token=fw;object=fw-signer      a token (RFC 7512), package custody/pkcs11
//
// Keys in files are the key store's own, package signer. The URI is public and
// goes into the key's metadata; the secret that unlocks the place (PIN, token)
// never does: it comes from a file or the environment of the process.
//
// # What a signer from a back end promises
//
// [Contract] in package custodytest holds every back end to it, files included:
// the public key is fixed for the life of the signer; the standard library's
// conventions for digests and options hold (Ed25519 takes the message and
// crypto.Hash(0), ECDSA a digest and answers ASN.1, RSA takes
// *rsa.PSSOptions for PSS); what a back end returns was checked against the
// public key before it is handed out; it is safe for concurrent use; and after
// Close it fails and does not hang.
package custody

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// MaxMessage bounds what a back end is sent to sign in one piece, in bytes.
// Only Ed25519 is sent more than a digest; a whole firmware image is not to go
// through a token.
const MaxMessage = 1 << 20

// Backend is a place that keeps keys.
type Backend interface {
	// Scheme is that of the URIs it knows, without the colon.
	Scheme() string

	// Open returns the key that uri names. fw.Invalid: the URI is wrong;
	// fw.NotFound: there is no such key; fw.Forbidden: the place refuses us or
	// the key may not be used; fw.Unavailable: the place cannot be reached.
	Open(ctx context.Context, uri string) (crypto.Signer, error)

	// Close ends the back end and every signer it gave out.
	Close() error
}

// SchemeOf returns the scheme of a key's URI; "" if it has none.
func SchemeOf(uri string) string {
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}

// Verify reports whether sig is the signature of digest (of the message, for
// Ed25519) under pub, in the way that opts says. Back ends use it on all that
// comes back: a token with a fault, or an answer to another's question, must
// not become a signed release.
func Verify(pub crypto.PublicKey, digest, sig []byte, opts crypto.SignerOpts) error {
	var err error
	ok := true
	switch k := pub.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, digest, sig)
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, sig)
	case *rsa.PublicKey:
		if pss, is := opts.(*rsa.PSSOptions); is {
			err = rsa.VerifyPSS(k, opts.HashFunc(), digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: pss.Hash})
		} else {
			err = rsa.VerifyPKCS1v15(k, opts.HashFunc(), digest, sig)
		}
	default:
		return fw.Errorf(fw.Invalid, "keys of kind %T are not kept here", pub)
	}
	if err != nil || !ok {
		return fw.Wrap(fw.Corrupt, err, "what came back is not a signature by this key: check the token or service, and do not use it until it is explained")
	}
	return nil
}

// CheckInput refuses what no back end may be asked to sign with pub: a digest
// of the wrong length, a hash where the key takes messages, or too much.
func CheckInput(pub crypto.PublicKey, digest []byte, opts crypto.SignerOpts) error {
	var hash crypto.Hash
	if opts != nil {
		hash = opts.HashFunc()
	}
	switch pub.(type) {
	case ed25519.PublicKey:
		switch {
		case hash != 0:
			return fw.Errorf(fw.Invalid, "Ed25519 keys sign messages, not digests (RFC 8032, section 5.1): give crypto.Hash(0)")
		case len(digest) > MaxMessage:
			return fw.Errorf(fw.TooLarge, "the message is %d bytes and a token or service is sent at most %d: use a format that signs a digest", len(digest), MaxMessage)
		}
		return nil
	case *ecdsa.PublicKey, *rsa.PublicKey:
		if hash == 0 || !hash.Available() || len(digest) != hash.Size() {
			return fw.Errorf(fw.Invalid, "the digest to sign is %d bytes, which is not what its hash function gives", len(digest))
		}
		return nil
	}
	return fw.Errorf(fw.Invalid, "keys of kind %T are not kept here", pub)
}
