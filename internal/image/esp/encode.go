package esp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"hash/crc32"
	"math/big"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// signBlock makes one signature block over digest.
func signBlock(key crypto.Signer, h crypto.Hash, digest []byte) ([]byte, error) {
	sig, err := image.SignHash(key, h, digest, true)
	if err != nil {
		return nil, err
	}
	head, err := encodeKey(key.Public(), digest)
	if err != nil {
		return nil, err
	}
	if k, ok := key.Public().(*ecdsa.PublicKey); ok {
		w := (k.Curve.Params().BitSize + 7) / 8
		var rs struct{ R, S *big.Int } // RFC 3279, section 2.2.3
		if _, err := asn1.Unmarshal(sig, &rs); err != nil {
			return nil, fmt.Errorf("reading new signature: %w", err)
		}
		return finish(head, littleEndian(rs.R, w), littleEndian(rs.S, w)), nil
	}
	return finish(head, littleEndian(new(big.Int).SetBytes(sig), rsaBytes)), nil
}

// encodeKey returns the block up to the signature.
func encodeKey(pub crypto.PublicKey, digest []byte) ([]byte, error) {
	b := make([]byte, 0, blockSize)
	switch k := pub.(type) {
	case *rsa.PublicKey:
		// Two numbers for Montgomery multiplication in the chip: 2^6144 mod n
		// and -1/n mod 2^32.
		r2 := new(big.Int).Exp(big.NewInt(2), big.NewInt(2*rsaBits), k.N)
		word := new(big.Int).Lsh(big.NewInt(1), 32)
		inv := new(big.Int).ModInverse(k.N, word)
		if inv == nil {
			return nil, fmt.Errorf("encoding public key: its modulus is even: %w", image.ErrUnsupported)
		}
		b = append(b, blockMagic, versionRSA, 0, 0)
		b = append(b, digest...)
		b = append(b, littleEndian(k.N, rsaBytes)...)
		b = le.AppendUint32(b, uint32(k.E)) //nolint:gosec // G115: hashFor checked it
		b = append(b, littleEndian(r2, rsaBytes)...)
		b = append(b, littleEndian(word.Sub(word, inv), 4)...)
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encoding public key: %w", err)
		}
		hashID, curve := byte(hashSHA256), byte(curveP256)
		if k.Curve == elliptic.P384() {
			hashID, curve = hashSHA384, curveP384
		}
		xy := point[1:]
		w := len(xy) / 2
		x, y := xy[:w], xy[w:]
		slices.Reverse(x)
		slices.Reverse(y)
		b = append(b, blockMagic, versionECDSA, hashID, 0)
		b = append(b, digest...)
		b = append(b, curve)
		b = append(b, x...)
		b = append(b, y...)
	}
	return b, nil
}

// finish appends the parts of the signature and closes the block.
func finish(head []byte, parts ...[]byte) []byte {
	b := make([]byte, blockSize)
	n := copy(b, head)
	for _, p := range parts {
		n += copy(b[n:], p)
	}
	le.PutUint32(b[blockCRC:], crc32.ChecksumIEEE(b[:blockCRC]))
	return b
}

// littleEndian returns n in size bytes.
func littleEndian(n *big.Int, size int) []byte {
	b := n.FillBytes(make([]byte, size))
	slices.Reverse(b)
	return b
}

// checkOld checks a block that shall stay beside one by a new key: it must be
// exactly what Sign would have written with the same key and signature, over
// the same digest, by another key of the same kind.
func checkOld(old []byte, newKey crypto.PublicKey, digest []byte) error {
	fromLE := func(b []byte) []byte {
		b = bytes.Clone(b)
		slices.Reverse(b)
		return b
	}
	otherKind := fmt.Errorf("it is by a key of another kind, and a chip checks one algorithm: %w", image.ErrBadOptions)
	var pub crypto.PublicKey
	var valid bool
	var parts [][]byte
	switch k := newKey.(type) {
	case *rsa.PublicKey:
		if old[1] != versionRSA {
			return otherKind
		}
		e := le.Uint32(old[420:])
		o := &rsa.PublicKey{N: new(big.Int).SetBytes(fromLE(old[36:420])), E: int(e)}
		if _, _, err := hashFor(o); err != nil || e&1 == 0 {
			return fmt.Errorf("its RSA key is of no use: %w", image.ErrMalformed)
		}
		pub, parts = o, [][]byte{old[812:1196]}
		valid = !o.Equal(k)
		if valid && rsa.VerifyPSS(o, crypto.SHA256, digest, fromLE(parts[0]), &rsa.PSSOptions{SaltLength: len(digest)}) != nil {
			return badOld(old[4:36], digest)
		}
	case *ecdsa.PublicKey:
		w := len(digest) // 32 or 48, and so is the curve
		want := byte(hashSHA256)
		if w == 48 {
			want = hashSHA384
		}
		if old[1] != versionECDSA || old[2] != want {
			return otherKind
		}
		at := 4 + w + 1
		point := append([]byte{4}, fromLE(old[at:at+w])...)
		point = append(point, fromLE(old[at+w:at+2*w])...)
		o, err := ecdsa.ParseUncompressedPublicKey(k.Curve, point)
		if err != nil {
			return fmt.Errorf("its ECDSA key is not on the curve: %w", image.ErrMalformed)
		}
		at += 2 * w
		parts = [][]byte{old[at : at+w], old[at+w : at+2*w]}
		pub, valid = o, !o.Equal(k)
		r, s := new(big.Int).SetBytes(fromLE(parts[0])), new(big.Int).SetBytes(fromLE(parts[1]))
		if valid && !ecdsa.Verify(o, digest, r, s) {
			return badOld(old[4:4+w], digest)
		}
	}
	if !valid {
		return fmt.Errorf("it is by this very key: %w", image.ErrBadOptions)
	}
	head, err := encodeKey(pub, digest)
	if err != nil {
		return err
	}
	if !bytes.Equal(finish(head, parts...), old) {
		return fmt.Errorf("it is not in the canonical encoding: %w", image.ErrMalformed)
	}
	return nil
}

func badOld(said, digest []byte) error {
	if !bytes.Equal(said, digest) {
		return fmt.Errorf("content has digest %x, it says %x: %w", digest, said, image.ErrBadDigest)
	}
	return image.ErrBadSignature
}

// sameKey reports whether two canonical blocks of one kind are by one key.
func sameKey(a, b []byte) bool {
	from, to := 36, 812 // RSA
	if a[1] == versionECDSA {
		from, to = 36, 101
		if a[2] == hashSHA384 {
			from, to = 52, 149
		}
	}
	return bytes.Equal(a[from:to], b[from:to])
}
