package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

const adding = `{"signatures": "add"}`

// Attack: an image with two signatures is accepted by each key alone, and damage
// to one is refused by whoever knows that key, and by nobody else.
func TestEachOfSeveralSignaturesStandsAlone(t *testing.T) {
	first, second := newP256(t), theRSA(t, rsa2048)
	b := mustSign(t, mustSign(t, sample(t, "payload.bin"), first, image.SignOptions{Version: "1.2.3"}), second, withLayout("", adding))
	for _, k := range []crypto.Signer{first, second} {
		v, err := verifyBytes(b, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		if id, _ := image.KeyID(k.Public()); v.KeyID != id {
			t.Errorf("verified by %s, want %s", v.KeyID, id)
		}
	}
	b[len(b)-1] ^= 1 // the second signature
	if _, err := verifyBytes(b, first.Public()); err != nil {
		t.Errorf("the other signature is damaged: %v", err)
	}
	_, err := verifyBytes(b, second.Public())
	wantReason(t, err, image.ErrBadSignature)
	_, err = verifyBytes(b, first.Public(), second.Public())
	wantReason(t, err, image.ErrBadSignature)
}

func TestSignaturesAreLimited(t *testing.T) {
	b := mustSign(t, sample(t, "payload.bin"), newEd25519(t), image.SignOptions{Version: "1.2.3"})
	last := newEd25519(t)
	for range maxSignatures - 2 {
		b = mustSign(t, b, newEd25519(t), withLayout("", adding))
	}
	b = mustSign(t, b, last, withLayout("", adding))
	if v, err := verifyBytes(b, last.Public()); err != nil || len(v.Info.Signatures) != maxSignatures {
		t.Errorf("%d signatures, %v", len(v.Info.Signatures), err)
	}
	_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(b), int64(len(b)), newEd25519(t), withLayout("", adding))
	wantReason(t, err, image.ErrBadOptions)
	mustSign(t, b, last, withLayout("", adding)) // replaces its own
}

// Two keys sign an image that is encrypted: the first prepares it, the second
// encrypts. What is between is of no use to a device.
func TestTwoKeysSignAnEncryptedImage(t *testing.T) {
	first, second, recipient := newEd25519(t), newP256(t), newRecipient(t, ecdh.P256())
	prepared := mustSign(t, sample(t, "payload.bin"), first, withLayout("1.2.3", `{"encryption": {"deferred": true, "aes": 256}}`))
	if d := details(t, prepared); d.Encryption == nil || *d.Encryption != (Cipher{"aes-256-ctr", "none"}) {
		t.Errorf("prepared: %+v", d.Encryption)
	}
	_, err := verifyBytes(prepared, first.Public(), image.Recipient{PrivateKey: recipient})
	wantReason(t, err, image.ErrEncrypted)

	sign := func(layout string) ([]byte, error) {
		var out bytes.Buffer
		_, err := Format{}.Sign(t.Context(), &out, bytes.NewReader(prepared), int64(len(prepared)), second, withLayout("", layout))
		return out.Bytes(), err
	}
	_, err = sign(adding)
	wantReason(t, err, image.ErrEncrypted)
	to := fmt.Sprintf(`"recipient": %q`, publicPEM(t, recipient.PublicKey()))
	_, err = sign(`{"signatures": "add", "encryption": {` + to + `}}`) // AES-128
	wantReason(t, err, image.ErrBadOptions)

	b, err := sign(`{"signatures": "add", "encryption": {"aes": 256, ` + to + `}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{first, second} {
		v, err := verifyBytes(b, image.Recipient{PrivateKey: recipient}, k.Public())
		if err != nil || !v.Info.Encrypted || len(v.Info.Signatures) != 2 {
			t.Errorf("%+v, %v", v, err)
		}
	}
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(b), int64(len(b)), first, withLayout("", adding))
	wantReason(t, err, image.ErrEncrypted)
	prepared[0x300] ^= 1
	_, err = sign(`{"signatures": "add", "encryption": {"aes": 256, ` + to + `}}`)
	wantReason(t, err, image.ErrBadDigest)
}

// Attack: change one byte of an encrypted image, anywhere. Unlike others these
// have an unsigned part, the encrypted key; it is authenticated.
func TestVerifyRefusesAnyFlippedByteOfAnEncryptedImage(t *testing.T) {
	for _, tc := range ciphers {
		t.Run(tc.name, func(t *testing.T) {
			var key crypto.Signer = newEd25519(t)
			if tc.curve == ecdh.P256() {
				key = newP256(t)
			}
			recipient := newRecipient(t, tc.curve)
			b := mustSign(t, bytes.Repeat([]byte("firmware"), 30), key, withLayout("1.2.3", encryptTo(t, recipient, tc.aes, tc.hmac)))
			keys := []crypto.PublicKey{key.Public(), image.Recipient{PrivateKey: newRecipient(t, tc.curve)}, image.Recipient{PrivateKey: recipient}}
			if _, err := verifyBytes(b, keys...); err != nil {
				t.Fatal(err)
			}
			_, err := verifyBytes(b, keys[:2]...)
			wantReason(t, err, image.ErrEncrypted)
			_, err = verifyBytes(b, keys[0])
			wantReason(t, err, image.ErrEncrypted)
			_, err = verifyBytes(b, keys[1:]...)
			wantReason(t, err, image.ErrUnknownKey)
			for i := range b {
				if tc.curve == ecdh.X25519() && i == len(b)-tc.aes/8-newTag(tc.hmac)-1 {
					continue // the highest bit of u is ignored: RFC 7748, section 5
				}
				b[i] ^= 0x80
				_, err := verifyBytes(b, keys...)
				b[i] ^= 0x80
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("byte %#x: got error %v, want a refusal", i, err)
				}
			}
		})
	}
}

func newTag(hmac string) int {
	if hmac == "sha512" {
		return 64
	}
	return 32
}

// Only what MCUboot builds can decrypt is opened; the rest is said to be
// encrypted, and lengths that lie are malformed.
func TestEncryptedKeysOfOtherKinds(t *testing.T) {
	recipient := newRecipient(t, ecdh.P256())
	for typ, size := range map[uint16]int{tlvEncRSA: 256, tlvEncKW: 24, tlvEncEC256: 113, tlvEncX25519: 80, tlvEncX25519SHA512: 112} {
		for _, n := range []int{size, size - 1, size + 1, 0} {
			b := build(t, newP256(t), nil, []item{{tlvSHA256, nil}, {tlvKeyHash, nil}, {tlvECDSA, nil}, {typ, make([]byte, n)}})
			le.PutUint32(b[16:], flagEncryptedAES128)
			_, err := verifyBytes(b, image.Recipient{PrivateKey: recipient}, image.Recipient{})
			want := image.ErrMalformed
			if n == size {
				want = image.ErrEncrypted
			}
			if !errors.Is(err, want) {
				t.Errorf("TLV %#04x with %d bytes: got %v, want %s", typ, n, err, want)
			}
		}
	}
	both := sample(t, "p256-enc128.bin")
	le.PutUint32(both[16:], flagsEncrypted)
	_, err := verifyBytes(both, image.Recipient{PrivateKey: recipient})
	wantReason(t, err, image.ErrMalformed)
}
