package mcuboot

import (
	"crypto"
	_ "crypto/sha512" // makes crypto.SHA384 and crypto.SHA512 available
	"fmt"

	"github.com/google/uuid"

	"github.com/writ-project/writ/internal/image"
)

// content is what the TLVs of an image mean.
type content struct {
	hash    crypto.Hash // of the digest TLV
	hashAlg string
	digest  []byte

	signatures []signature
	pure       bool

	flags  uint32
	encKey *tlv // the key of an encrypted payload

	counter       *uint64
	vendor, class string
	dependencies  []Dependency
	bootRecord    *BootRecord
	others        []tlv // protected, without a meaning here
}

// signature is one signature with what names its key: the hash of the key, or
// the whole key.
type signature struct {
	typ     uint16
	off     int64
	keyHash []byte
	pubKey  []byte
	value   []byte
}

// interpret gives meaning to the TLVs, and refuses those that bootloaders of
// different builds would read differently. See the package comment.
func interpret(l *layout) (*content, error) {
	if l.flags&flagsEncrypted == flagsEncrypted {
		return nil, fmt.Errorf("reading header: flags %#x say both AES-128 and AES-256: %w", l.flags, image.ErrMalformed)
	}
	c := &content{flags: l.flags}
	if err := c.readProtected(l.protTLVs); err != nil {
		return nil, fmt.Errorf("reading protected TLV area: %w", err)
	}
	if err := c.readTLVs(l.tlvs); err != nil {
		return nil, fmt.Errorf("reading TLV area: %w", err)
	}
	return c, nil
}

// encrypted says that the image is meant to be encrypted; whether its payload
// is, encKey says.
func (c *content) encrypted() bool { return c.flags&flagsEncrypted != 0 }

func (c *content) readProtected(tlvs []tlv) error {
	seen := map[uint16]bool{}
	for _, t := range tlvs {
		if t.typ < firstProtTLV {
			return refuse(t, "does not belong in the protected area")
		}
		switch t.typ {
		case tlvSecCnt, tlvBootRec, tlvUUIDVid, tlvUUIDCid:
			if seen[t.typ] {
				return refuse(t, "occurs twice")
			}
			seen[t.typ] = true
		}
		switch t.typ {
		case tlvSecCnt:
			if len(t.data) != 4 {
				return refuse(t, "security counter has %d bytes, want 4", len(t.data))
			}
			c.counter = new(uint64(le.Uint32(t.data)))
		case tlvUUIDVid, tlvUUIDCid:
			id, err := uuid.FromBytes(t.data)
			if err != nil {
				return refuse(t, "UUID has %d bytes, want 16", len(t.data))
			}
			if t.typ == tlvUUIDVid {
				c.vendor = id.String()
			} else {
				c.class = id.String()
			}
		case tlvDepend:
			if len(t.data) != 12 {
				return refuse(t, "dependency has %d bytes, want 12", len(t.data))
			}
			d := t.data // image, three reserved, version
			v := Version{d[4], d[5], le.Uint16(d[6:]), le.Uint32(d[8:])}
			c.dependencies = append(c.dependencies, Dependency{Image: d[0], Version: v.String()})
		case tlvBootRec:
			c.bootRecord = readBootRecord(t.data)
		default:
			c.others = append(c.others, t)
		}
	}
	return nil
}

// readTLVs reads the unprotected area: digest, [pure mark], (key, signature)*,
// [encrypted key].
func (c *content) readTLVs(tlvs []tlv) error {
	if len(tlvs) == 0 {
		return fmt.Errorf("area is empty: %w", image.ErrUnsigned)
	}
	if err := c.readDigest(tlvs[0]); err != nil {
		return err
	}
	tlvs = tlvs[1:]
	if len(tlvs) > 0 && tlvs[0].typ == tlvSigPure {
		if len(tlvs[0].data) != 1 || tlvs[0].data[0] != 1 {
			return refuse(tlvs[0], "marks a pure signature with % x, want 01", tlvs[0].data)
		}
		c.pure = true
		tlvs = tlvs[1:]
	}
	for len(tlvs) > 0 && (tlvs[0].typ == tlvKeyHash || tlvs[0].typ == tlvPubKey) {
		if len(tlvs) < 2 {
			return refuse(tlvs[0], "names a key, and no signature follows")
		}
		if err := c.readSignature(tlvs[0], tlvs[1]); err != nil {
			return err
		}
		tlvs = tlvs[2:]
	}
	if len(tlvs) > 0 && exchangeOf(tlvs[0].typ) != "" {
		if !c.encrypted() {
			return refuse(tlvs[0], "holds the key of an encrypted payload, and the header says that it is not encrypted")
		}
		if want := c.encKeySize(tlvs[0].typ); len(tlvs[0].data) != want {
			return refuse(tlvs[0], "encrypted key has %d bytes, want %d", len(tlvs[0].data), want)
		}
		c.encKey = &tlvs[0]
		tlvs = tlvs[1:]
	}
	if len(tlvs) > 0 {
		return refuse(tlvs[0], "is not allowed here; the order is digest, key and signature pairs, encrypted key")
	}
	return nil
}

func (c *content) readDigest(t tlv) error {
	switch t.typ {
	case tlvSHA256:
		c.hash, c.hashAlg = crypto.SHA256, "sha256"
	case tlvSHA384:
		c.hash, c.hashAlg = crypto.SHA384, "sha384"
	case tlvSHA512:
		c.hash, c.hashAlg = crypto.SHA512, "sha512"
	default:
		return refuse(t, "comes first, want the digest")
	}
	if len(t.data) != c.hash.Size() {
		return refuse(t, "%s digest has %d bytes", c.hashAlg, len(t.data))
	}
	c.digest = t.data
	return nil
}

// readSignature reads a pair. The key must come immediately before the
// signature; bootutil remembers the last key it saw, so anything in between
// would be ambiguous.
func (c *content) readSignature(key, sig tlv) error {
	s := signature{typ: sig.typ, off: sig.off, value: sig.data}
	switch sig.typ {
	case tlvECDSA, tlvEd25519, tlvRSA2048, tlvRSA3072:
	default:
		return refuse(sig, "follows a key, want a signature")
	}
	if key.typ == tlvKeyHash {
		// The key is hashed with the image's own hash algorithm.
		if len(key.data) != c.hash.Size() {
			return refuse(key, "%s key hash has %d bytes", c.hashAlg, len(key.data))
		}
		s.keyHash = key.data
	} else {
		s.pubKey = key.data
	}
	if len(c.signatures) == maxSignatures {
		return refuse(sig, "is one signature more than the limit of %d", maxSignatures)
	}
	c.signatures = append(c.signatures, s)
	return nil
}

// algorithm names a signature by its TLV type and the image's hash.
func (c *content) algorithm(s signature) string {
	switch s.typ {
	case tlvECDSA:
		if c.hash == crypto.SHA384 {
			return image.AlgECDSAP384
		}
		return image.AlgECDSAP256
	case tlvEd25519:
		if c.pure {
			return image.AlgEd25519Pure
		}
		return image.AlgEd25519
	case tlvRSA2048:
		return image.AlgRSA2048
	default:
		return image.AlgRSA3072
	}
}

func refuse(t tlv, format string, args ...any) error {
	return fmt.Errorf("TLV %#04x at offset %#x %s: %w", t.typ, t.off, fmt.Sprintf(format, args...), image.ErrMalformed)
}
