//go:build (linux || darwin) && (amd64 || arm64)

package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"sync/atomic"

	"github.com/writ-project/writ/internal/custody/pkcs11"
	"github.com/writ-project/writ/internal/fw"
)

// key is a private key on a token.
type key struct {
	slot   *slot
	object pkcs11.Object
	kind   ulong         // CKA_KEY_TYPE
	id     []byte        // CKA_ID
	handle atomic.Uint64 // 0: to be found again
}

// open finds the key and returns its public part.
func (k *key) open() ([]byte, error) {
	var public any
	var why error
	err := k.slot.do(func(session ulong) rv {
		handle, r, err := k.find(session)
		if why = err; r != rvOK || err != nil {
			return r
		}
		if r, why = k.check(session, handle); r != rvOK || why != nil {
			return r
		}
		public, r, why = k.public(session, handle)
		k.handle.Store(handle)
		return r
	})
	if err != nil {
		return nil, err
	}
	if why != nil {
		return nil, why
	}
	return x509.MarshalPKIXPublicKey(public)
}

func (k *key) conditions(class ulong) []match {
	c := []match{matchUlong(attrClass, class)}
	if k.object.Label != "" {
		c = append(c, match{attrLabel, []byte(k.object.Label)})
	}
	if len(k.object.ID) > 0 {
		c = append(c, match{attrID, k.object.ID})
	}
	return c
}

func (k *key) find(session ulong) (ulong, rv, error) {
	found, r := k.slot.lib.find(session, 2, k.conditions(classPrivateKey)...)
	switch {
	case r != rvOK:
		return 0, r, nil
	case len(found) == 0:
		return 0, rvOK, fw.Errorf(fw.NotFound, "the token has no private key that the PKCS#11 URI names: check object= and id=")
	case len(found) > 1:
		return 0, rvOK, fw.Errorf(fw.Conflict, "the token has more than one private key that fits the PKCS#11 URI: give both object= and id=")
	}
	return found[0], rvOK, nil
}

// check refuses a key that cannot sign here, or that could leave the token:
// the record of a signature says that it cannot.
func (k *key) check(session, handle ulong) (rv, error) {
	var why error
	flags := []struct {
		attr    ulong
		refuse  byte
		message string
	}{
		{attrSign, 0, "the key on the token may not sign (CKA_SIGN)"},
		{attrExtractable, 1, "the key can be taken out of the token (CKA_EXTRACTABLE): make one on the token that cannot"},
		{attrSensitive, 0, "the token would show the key in clear (CKA_SENSITIVE): make one on the token that it hides"},
		{attrAlwaysAuth, 1, "the key wants its PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which a server cannot give"},
	}
	for _, f := range flags {
		b, r := k.slot.lib.read(session, handle, f.attr)
		if r != rvOK {
			return r, nil
		}
		if len(b) == 1 && b[0] == f.refuse && why == nil {
			why = fw.Errorf(fw.Forbidden, "%s", f.message)
		}
	}
	b, r := k.slot.lib.read(session, handle, attrKeyType)
	if r != rvOK {
		return r, nil
	}
	if len(b) != 8 {
		return rvOK, fw.Errorf(fw.Invalid, "the token does not say of which type the key is")
	}
	k.kind = binary.NativeEndian.Uint64(b)
	k.id, r = k.slot.lib.read(session, handle, attrID)
	return r, why
}

// public reads the public part: RSA from the key itself; of the others from
// the public key or the certificate with the same id.
func (k *key) public(session, handle ulong) (any, rv, error) {
	lib := k.slot.lib
	if k.kind == keyRSA {
		n, r := lib.read(session, handle, attrModulus)
		if r != rvOK {
			return nil, r, nil
		}
		e, r := lib.read(session, handle, attrExponent)
		if r != rvOK {
			return nil, r, nil
		}
		if len(n) > 0 && len(e) > 0 {
			pub, err := rsaPublic(n, e)
			return pub, rvOK, err
		}
	}
	for _, class := range []ulong{classPublicKey, classCertificate} {
		conditions := []match{matchUlong(attrClass, class)}
		switch {
		case len(k.id) > 0:
			conditions = append(conditions, match{attrID, k.id})
		default:
			conditions = append(conditions, match{attrLabel, []byte(k.object.Label)})
		}
		found, r := lib.find(session, 2, conditions...)
		if r != rvOK {
			return nil, r, nil
		}
		if len(found) != 1 {
			continue // none, or it is not clear which
		}
		if class == classCertificate {
			der, r := lib.read(session, found[0], attrValue)
			if r != rvOK {
				return nil, r, nil
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, rvOK, fw.Wrap(fw.Invalid, err, "the certificate beside the key on the token is malformed")
			}
			return cert.PublicKey, rvOK, nil
		}
		return k.publicObject(session, found[0])
	}
	return nil, rvOK, fw.Errorf(fw.NotFound, "the token has no public key and no certificate with the id of the private key: import one, so that it is known which key this is")
}

func (k *key) publicObject(session, object ulong) (any, rv, error) {
	var values [4][]byte
	for i, attr := range []ulong{attrModulus, attrExponent, attrECParams, attrECPoint} {
		var r rv
		if values[i], r = k.slot.lib.read(session, object, attr); r != rvOK {
			return nil, r, nil
		}
	}
	var pub any
	var err error
	switch k.kind {
	case keyRSA:
		pub, err = rsaPublic(values[0], values[1])
	case keyEC:
		pub, err = ecPublic(values[2], values[3])
	case keyECEdwards:
		pub, err = edPublic(values[2], values[3])
	default:
		err = fw.Errorf(fw.Invalid, "keys of type 0x%x (CKA_KEY_TYPE) are not supported: use P-256, P-384, RSA or Ed25519", k.kind)
	}
	return pub, rvOK, err
}

func rsaPublic(n, e []byte) (any, error) {
	exponent := new(big.Int).SetBytes(e)
	bits := new(big.Int).SetBytes(n).BitLen()
	if !exponent.IsInt64() || exponent.Int64() > 1<<31-1 || exponent.Int64() < 3 || bits < 2048 || bits > 8192 {
		return nil, fw.Errorf(fw.Invalid, "the RSA key on the token has %d bits: 2048 to 8192 are supported", bits)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

var (
	oidP256    = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384    = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// ecPublic reads CKA_EC_PARAMS, a named curve, and CKA_EC_POINT: a point in an
// OCTET STRING (PKCS #11 v2.40 curr, section 2.3.3); some tokens leave the
// wrapping out.
func ecPublic(params, point []byte) (any, error) {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil, fw.Wrap(fw.Invalid, err, "the curve of the key on the token has no name that is known")
	}
	var curve elliptic.Curve
	switch {
	case oid.Equal(oidP256):
		curve = elliptic.P256()
	case oid.Equal(oidP384):
		curve = elliptic.P384()
	default:
		return nil, fw.Errorf(fw.Invalid, "the curve %s of the key on the token is not supported: use P-256 or P-384", oid)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, unwrap(point, 1+2*((curve.Params().BitSize+7)/8)))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the public key on the token is no point of its curve")
	}
	return pub, nil
}

// edPublic reads an Ed25519 key: the parameters are the printable string
// "edwards25519" (v3.0) or the curve's OID.
func edPublic(params, point []byte) (any, error) {
	var oid asn1.ObjectIdentifier
	var name string
	_, err := asn1.Unmarshal(params, &oid)
	if err != nil {
		_, err = asn1.Unmarshal(params, &name)
	}
	if err != nil || !oid.Equal(oidEd25519) && name != "edwards25519" {
		return nil, fw.Wrap(fw.Invalid, err, "the Edwards key on the token is not of curve edwards25519")
	}
	p := unwrap(point, ed25519.PublicKeySize)
	if len(p) != ed25519.PublicKeySize {
		return nil, fw.Errorf(fw.Invalid, "the Ed25519 public key on the token is %d bytes, not %d", len(p), ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(p), nil
}

// unwrap takes the OCTET STRING off a point of size bytes.
func unwrap(point []byte, size int) []byte {
	if len(point) == size {
		return point
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		return inner
	}
	// A BIT STRING, as some tokens have it for Edwards keys.
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(point, &bits); err == nil && len(rest) == 0 {
		return bits.Bytes
	}
	return point
}

// Of CK_RSA_PKCS_PSS_PARAMS: CKM_SHA256 and CKG_MGF1_SHA256, and so on, by the
// bits of the hash function.
var pssHashes = map[int]pssParams{
	256: {hash: 0x250, mgf: 2},
	384: {hash: 0x260, mgf: 3},
	512: {hash: 0x270, mgf: 4},
}

func (k *key) sign(req pkcs11.Request) ([]byte, error) {
	var pss *pssParams
	var kind ulong
	fits := false
	switch req.Mechanism {
	case pkcs11.MechanismECDSA:
		kind, fits = mechECDSA, k.kind == keyEC
	case pkcs11.MechanismEdDSA:
		kind, fits = mechEDDSA, k.kind == keyECEdwards
	case pkcs11.MechanismPKCS1:
		kind, fits = mechRSAPKCS, k.kind == keyRSA
	case pkcs11.MechanismPSS:
		p, known := pssHashes[req.Hash]
		kind, fits = mechRSAPSS, k.kind == keyRSA && known && req.Salt >= 0 && req.Salt <= 1024
		p.salt = ulong(max(0, req.Salt))
		pss = &p
	}
	if !fits {
		return nil, fw.Errorf(fw.Invalid, "a key of type 0x%x on a token cannot sign with %q", k.kind, req.Mechanism)
	}
	var sig []byte
	var why error
	err := k.slot.do(func(session ulong) rv {
		handle := k.handle.Load()
		if handle == 0 {
			var r rv
			if handle, r, why = k.again(session); r != rvOK || why != nil {
				return r
			}
		}
		var r rv
		if sig, r = k.slot.lib.sign(session, handle, kind, pss, req.Data); stale(r) {
			k.handle.Store(0)
		}
		return r
	})
	if err != nil {
		return nil, err
	}
	return slices.Clip(sig), why
}

// again finds the key after the token was away. Which one it is, the other
// side of the pipe sees from the signature.
func (k *key) again(session ulong) (ulong, rv, error) {
	handle, r, err := k.find(session)
	if r != rvOK || err != nil {
		return 0, r, err
	}
	id, r := k.slot.lib.read(session, handle, attrID)
	if r != rvOK {
		return 0, r, nil
	}
	if !bytes.Equal(id, k.id) {
		return 0, rvOK, fw.Errorf(fw.Conflict, "the token has another key under the same name now")
	}
	k.handle.Store(handle)
	return handle, rvOK, nil
}
