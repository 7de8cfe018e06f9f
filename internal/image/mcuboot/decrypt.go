package mcuboot

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/writ-project/writ/internal/image"
)

// exchangeOf names how an encrypted key TLV is made, or returns nothing for
// TLVs of other kinds.
func exchangeOf(typ uint16) string {
	switch typ {
	case tlvEncRSA:
		return "rsa-oaep"
	case tlvEncKW:
		return "aes-kw"
	case tlvEncEC256:
		return "ecies-p256"
	case tlvEncX25519:
		return "ecies-x25519"
	case tlvEncX25519SHA512:
		return "ecies-x25519-sha512"
	default:
		return ""
	}
}

// aesSize is the size of the image key in bytes.
func (c *content) aesSize() int {
	if c.flags&flagEncryptedAES256 != 0 {
		return 32
	}
	return 16
}

// encKeySize is how many bytes the TLV with the image key has.
func (c *content) encKeySize(typ uint16) int {
	switch typ {
	case tlvEncRSA:
		return 256 // RSA-2048 is the only size there is
	case tlvEncKW:
		return c.aesSize() + 8 // RFC 3394
	case tlvEncEC256:
		return 65 + sha256.Size + c.aesSize()
	case tlvEncX25519SHA512:
		return 32 + sha512.Size + c.aesSize()
	default:
		return 32 + sha256.Size + c.aesSize()
	}
}

var errNotForUs = errors.New("the key is not encrypted to this recipient")

// decrypter finds the recipient among keys to whom the image is encrypted.
func (c *content) decrypter(keys []crypto.PublicKey) (cipher.Stream, error) {
	refuse := func(format string, args ...any) (cipher.Stream, error) {
		return nil, fmt.Errorf("decrypting image: %s: %w", fmt.Sprintf(format, args...), image.ErrEncrypted)
	}
	if c.encKey == nil {
		return refuse("it is prepared for encryption and not encrypted yet: the last signer gives the recipient")
	}
	tried := 0
	for _, k := range keys {
		if r, ok := k.(image.Recipient); ok && r.PrivateKey != nil {
			tried++
			if s, err := c.unwrap(r.PrivateKey); err == nil {
				return s, nil
			}
		}
	}
	if tried == 0 {
		return refuse("the signature covers the plaintext, and no private key of the recipient was given")
	}
	return refuse("none of %d recipients' keys opens the %s key in it", tried, exchangeOf(c.encKey.typ))
}

// unwrap decrypts the image key: ephemeral public key, HMAC of the encrypted
// key, encrypted key (MCUboot docs/encrypted_images.md). The lengths are right.
func (c *content) unwrap(key *ecdh.PrivateKey) (cipher.Stream, error) {
	curve, point, newHash := ecdh.X25519(), 32, sha256.New
	switch c.encKey.typ {
	case tlvEncEC256:
		curve, point = ecdh.P256(), 65
	case tlvEncX25519:
	case tlvEncX25519SHA512:
		newHash = sha512.New
	default:
		return nil, errNotForUs
	}
	if key.Curve() != curve {
		return nil, errNotForUs
	}
	ephemeral, err := curve.NewPublicKey(c.encKey.data[:point])
	if err != nil {
		return nil, err
	}
	shared, err := key.ECDH(ephemeral)
	if err != nil {
		return nil, err
	}
	n, tagSize := c.aesSize(), newHash().Size()
	keys, err := hkdf.Key(newHash, shared, nil, eciesInfo, n+tagSize)
	if err != nil {
		return nil, err
	}
	tag, wrapped := c.encKey.data[point:point+tagSize], c.encKey.data[point+tagSize:]
	mac := hmac.New(newHash, keys[n:])
	mac.Write(wrapped)
	if !hmac.Equal(mac.Sum(nil), tag) {
		return nil, errNotForUs
	}
	var zero [aes.BlockSize]byte
	outer, err := aes.NewCipher(keys[:n])
	if err != nil {
		return nil, err
	}
	imageKey := make([]byte, n)
	cipher.NewCTR(outer, zero[:]).XORKeyStream(imageKey, wrapped)
	inner, err := aes.NewCipher(imageKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(inner, zero[:]), nil
}
