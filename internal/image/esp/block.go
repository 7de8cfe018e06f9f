package esp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// block is one signature block, decoded.
type block struct {
	off    int64 // in the file, for messages
	alg    string
	keyID  string // SHA-256 of the key's part, as in the eFuses
	pub    crypto.PublicKey
	digest []byte

	pss  []byte   // RSA
	r, s *big.Int // ECDSA
}

// readSector reads the signature sector, if one follows.
func (c *content) readSector(sc *scanner) error {
	if sc.left == 0 {
		return nil
	}
	start := sc.off
	if sc.left != sectorSize {
		return fmt.Errorf("%d bytes follow the padded image at offset %#x, want none or the %d of the sector: %w",
			sc.left, start, sectorSize, image.ErrMalformed)
	}
	b, err := sc.bytes(sectorSize)
	if err != nil {
		return err
	}
	n := 0
	for ; n < maxBlocks && b[n*blockSize] != 0xff; n++ {
		blk, err := decodeBlock(b[n*blockSize : (n+1)*blockSize])
		if err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
		blk.off = start + int64(n*blockSize)
		for _, o := range c.blocks {
			if o.alg != blk.alg {
				return fmt.Errorf("block %d is %s, the first is %s; a chip checks one algorithm: %w", n, blk.alg, o.alg, image.ErrMalformed)
			}
			if o.keyID == blk.keyID {
				return fmt.Errorf("block %d is by the key of an earlier one, %s: %w", n, blk.keyID, image.ErrMalformed)
			}
		}
		c.blocks = append(c.blocks, blk)
	}
	if n == 0 {
		return fmt.Errorf("there is no block in it: %w", image.ErrMalformed)
	}
	if i := slices.IndexFunc(b[n*blockSize:], func(v byte) bool { return v != 0xff }); i >= 0 {
		return fmt.Errorf("%#02x after the last block at offset %#x, want 0xff: %w",
			b[n*blockSize+i], start+int64(n*blockSize+i), image.ErrMalformed)
	}
	return c.checkDigests()
}

// checkDigests compares every block with the image: espsecure refuses the whole
// image when one of them is for another.
func (c *content) checkDigests() error {
	for i, b := range c.blocks {
		got := c.sha256
		if b.alg == image.AlgECDSAP384 {
			got = c.sha384
		}
		if got == nil { // hasP384 was told something else
			return fmt.Errorf("block %d: the image changed while it was read: %w", i, image.ErrMalformed)
		}
		if !bytes.Equal(got, b.digest) {
			return fmt.Errorf("block %d: content has digest %x, the block says %x: %w", i, got, b.digest, image.ErrBadDigest)
		}
	}
	return nil
}

func decodeBlock(b []byte) (block, error) {
	if b[0] != blockMagic {
		return block{}, fmt.Errorf("magic is %#02x, want %#02x: %w", b[0], blockMagic, image.ErrMalformed)
	}
	if got, want := crc32.ChecksumIEEE(b[:blockCRC]), le.Uint32(b[blockCRC:]); got != want {
		return block{}, fmt.Errorf("content has CRC %#08x, the block says %#08x: %w", got, want, image.ErrMalformed)
	}
	var blk block
	var used int // bytes before the zeros
	var err error
	switch b[1] {
	case versionRSA:
		if b[2] != 0 {
			return block{}, fmt.Errorf("reserved byte is %#02x, want zero: %w", b[2], image.ErrMalformed)
		}
		used = blockCRC
		blk, err = decodeRSA(b)
	case versionECDSA:
		blk, used, err = decodeECDSA(b)
	default:
		err = fmt.Errorf("version is %d, want %d (RSA) or %d (ECDSA): %w", b[1], versionRSA, versionECDSA, image.ErrUnsupported)
	}
	if err != nil {
		return block{}, err
	}
	if b[3] != 0 || !zero(b[used:blockCRC]) || !zero(b[blockCRC+4:]) {
		return block{}, fmt.Errorf("bytes without a meaning are not zero: %w", image.ErrMalformed)
	}
	return blk, nil
}

func decodeRSA(b []byte) (block, error) {
	n, e, rr, m := number(b[36:420]), le.Uint32(b[420:]), number(b[424:808]), le.Uint32(b[808:])
	bad := func(what string) (block, error) {
		return block{}, fmt.Errorf("RSA key: %s: %w", what, image.ErrMalformed)
	}
	switch {
	case n.BitLen() != rsaBits || n.Bit(0) == 0:
		return bad(fmt.Sprintf("the modulus has %d bits or is even, want %d bits", n.BitLen(), rsaBits))
	case e < 3 || e&1 == 0 || e > 1<<31-1:
		return bad(fmt.Sprintf("the exponent is %d", e))
	}
	// The two numbers are derived from n and let the chip multiply faster.
	// With wrong ones it would compute something else than we do.
	r2 := new(big.Int).Lsh(big.NewInt(1), 2*rsaBits)
	if r2.Mod(r2, n).Cmp(rr) != 0 {
		return bad("2^6144 mod n is wrong")
	}
	if low := le.Uint32(b[36:]); low*m != 0xffffffff { // n·m' = -1 mod 2^32
		return bad("-1/n mod 2^32 is wrong")
	}
	id := sha256.Sum256(b[36:812])
	return block{
		alg: image.AlgRSA3072, keyID: hex.EncodeToString(id[:]),
		pub:    &rsa.PublicKey{N: n, E: int(e)},
		digest: b[4:36], pss: reversed(b[812:1196]),
	}, nil
}

// decodeECDSA also returns how many bytes of the block are used.
func decodeECDSA(b []byte) (block, int, error) {
	var w int
	var curve elliptic.Curve
	var alg string
	fail := func(format string, args ...any) (block, int, error) {
		return block{}, 0, fmt.Errorf("ECDSA key: "+format, args...)
	}
	switch b[2] {
	case hashSHA256:
		w, curve, alg = 32, elliptic.P256(), image.AlgECDSAP256
		if id := b[36]; id == curveP192 {
			return fail("it is on P-192, use P-256: %w", image.ErrUnsupported)
		} else if id != curveP256 {
			return fail("curve is %d, want %d for SHA-256: %w", id, curveP256, image.ErrMalformed)
		}
	case hashSHA384:
		w, curve, alg = 48, elliptic.P384(), image.AlgECDSAP384
		if id := b[52]; id != curveP384 {
			return fail("curve is %d, want %d for SHA-384: %w", id, curveP384, image.ErrMalformed)
		}
	default:
		return fail("hash is %d, want 0 (SHA-256) or 1 (SHA-384): %w", b[2], image.ErrUnsupported)
	}
	key := 4 + w // curve, X, Y
	xy := append([]byte{4}, reversed(b[key+1:key+1+w])...)
	xy = append(xy, reversed(b[key+1+w:key+1+2*w])...)
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, xy)
	if err != nil {
		return fail("the point is not on the curve: %w", image.ErrMalformed)
	}
	sig := key + 1 + 2*w
	id := sha256.Sum256(b[key:sig])
	return block{
		alg: alg, keyID: hex.EncodeToString(id[:]), pub: pub, digest: b[4:key],
		r: number(b[sig : sig+w]), s: number(b[sig+w : sig+2*w]),
	}, sig + 2*w, nil
}

// check checks the signature with the key in the block itself.
func (b block) check() error {
	ok := false
	switch k := b.pub.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPSS(k, crypto.SHA256, b.digest, b.pss, &rsa.PSSOptions{SaltLength: 32}) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.Verify(k, b.digest, b.r, b.s)
	}
	if !ok {
		return image.ErrBadSignature
	}
	return nil
}

// by reports whether the block is by the given key.
func (b block) by(key crypto.PublicKey) bool {
	k, ok := b.pub.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && k.Equal(key)
}

func reversed(b []byte) []byte {
	out := bytes.Clone(b)
	slices.Reverse(out)
	return out
}

func number(b []byte) *big.Int { return new(big.Int).SetBytes(reversed(b)) }

func zero(b []byte) bool {
	return !slices.ContainsFunc(b, func(v byte) bool { return v != 0 })
}
