package mcuboot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// envelope is the encryption of one image: the stream for its payload and the
// TLV with the key.
type envelope struct {
	stream cipher.Stream
	tlv    entry
}

// seal makes a key for one image and encrypts it to the recipient: ECIES with
// HKDF and HMAC (MCUboot docs/encrypted_images.md). The counter starts at zero
// in both uses of AES-CTR; each key is used once.
func (e *Encryption) seal(to *ecdh.PublicKey) (*envelope, error) {
	key := make([]byte, e.AES/8)
	rand.Read(key) // never fails: see crypto/rand
	stream, err := counterMode(key)
	if err != nil {
		return nil, err
	}
	ephemeral, err := to.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making ephemeral key: %w", err)
	}
	shared, err := ephemeral.ECDH(to)
	if err != nil { // an X25519 point of low order
		return nil, badOptions("encryption: recipient: %w", err)
	}
	typ, newHash := uint16(tlvEncX25519), sha256.New
	switch {
	case to.Curve() == ecdh.P256():
		typ = tlvEncEC256
	case e.HMAC == "sha512":
		typ, newHash = tlvEncX25519SHA512, sha512.New
	}
	derived, err := hkdf.Key(newHash, shared, nil, eciesInfo, len(key)+newHash().Size())
	if err != nil {
		return nil, fmt.Errorf("deriving keys: %w", err)
	}
	wrap, err := counterMode(derived[:len(key)])
	if err != nil {
		return nil, err
	}
	wrapped := make([]byte, len(key))
	wrap.XORKeyStream(wrapped, key)

	data := ephemeral.PublicKey().Bytes()
	data = authenticate(newHash, derived[len(key):], wrapped).Sum(data)
	return &envelope{stream: stream, tlv: entry{typ, append(data, wrapped...)}}, nil
}

func authenticate(newHash func() hash.Hash, key, message []byte) hash.Hash {
	mac := hmac.New(newHash, key)
	mac.Write(message)
	return mac
}

func counterMode(key []byte) (cipher.Stream, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing AES: %w", err)
	}
	return cipher.NewCTR(block, make([]byte, aes.BlockSize)), nil //nolint:gosec // G407: MCUboot starts at zero; no key is used twice
}

// maxSize is the most bytes the TLV with the key can have.
func (e *Encryption) maxSize() int {
	return tlvHeadSize + 65 + sha512.Size + e.AES/8
}

// flag is the header's flag for the cipher.
func (e *Encryption) flag() uint32 {
	if e.AES == 256 {
		return flagEncryptedAES256
	}
	return flagEncryptedAES128
}

// writer encrypts what passes to w; a nil envelope leaves it clear.
func (e *envelope) writer(w io.Writer) io.Writer {
	if e == nil {
		return w
	}
	return cipher.StreamWriter{S: e.stream, W: w}
}

// pairs checks that bootloaders exist which verify with such a key and decrypt
// for such a recipient. MCUboot is built with one kind of key for both.
func (k *scheme) pairs(to *ecdh.PublicKey) error {
	switch {
	case k.alg == image.AlgECDSAP256 && to.Curve() == ecdh.P256(),
		k.alg == image.AlgEd25519 && to.Curve() == ecdh.X25519():
		return nil
	}
	return badOptions("encryption: no bootloader verifies %s and decrypts with a key on %s: P-256 goes with P-256, Ed25519 with X25519", k.alg, to.Curve())
}
