package esp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
)

// layout is the format's own part of [image.SignOptions].
type layout struct {
	// Append keeps the signatures that are there, which must be good.
	Append bool `json:"append"`
}

func parseLayout(raw json.RawMessage) (layout, error) {
	var l layout
	if len(raw) == 0 {
		return l, nil
	}
	if err := dsse.Decode(raw, &l); err != nil {
		return l, fmt.Errorf("reading layout options: %w: %w", err, image.ErrBadOptions)
	}
	return l, nil
}

// Sign signs a finished image with a key of RSA 3072 bits, ECDSA P-256 or
// P-384. See the package comment for what the options must agree with.
func (Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing esp image: %w", err)
	}
	return res, nil
}

func sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if err := ctx.Err(); err != nil {
		return image.SignResult{}, err
	}
	h, name, err := hashFor(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	lay, err := parseLayout(opt.Layout)
	if err != nil {
		return image.SignResult{}, err
	}
	v, err := surveyImage(ctx, r, size)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("reading image to sign: %w", err)
	}
	if err := v.agree(opt); err != nil {
		return image.SignResult{}, err
	}
	total := v.padded + sectorSize
	if total > MaxSize {
		return image.SignResult{}, fmt.Errorf("checking size: image of %d bytes is over the limit of %d: %w", total, int64(MaxSize), image.ErrTooLarge)
	}
	if opt.SlotSize != 0 && total > opt.SlotSize {
		return image.SignResult{}, fmt.Errorf("checking size: image of %d bytes does not fit a slot of %d: %w", total, opt.SlotSize, image.ErrTooLarge)
	}

	file, region := sha256.New(), hash.Hash(nil)
	if h != crypto.SHA256 {
		region = h.New()
	}
	digest, err := v.copyImage(ctx, w, r, file, region)
	if err != nil {
		return image.SignResult{}, err
	}
	sector, err := v.sign(key, h, digest, lay)
	if err != nil {
		return image.SignResult{}, err
	}
	if _, err := io.MultiWriter(w, file).Write(sector); err != nil {
		return image.SignResult{}, fmt.Errorf("writing signature sector: %w", err)
	}
	id, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	return image.SignResult{
		Size: total, SHA256: [sha256.Size]byte(file.Sum(nil)), KeyID: id,
		Image: image.Digest{Scope: image.ScopeImage, Algorithm: name, Hex: hex.EncodeToString(digest)},
	}, nil
}

// hashFor returns the hash that keys of this kind sign with, and its name.
func hashFor(pub crypto.PublicKey) (crypto.Hash, string, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() == rsaBits && k.E >= 3 && k.E <= 1<<31-1 {
			return crypto.SHA256, "sha256", nil
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return crypto.SHA256, "sha256", nil
		case elliptic.P384():
			return crypto.SHA384, "sha384", nil
		}
	}
	return 0, "", fmt.Errorf("choosing signature algorithm: Secure Boot v2 takes RSA of %d bits, ECDSA P-256 and P-384, not this key of type %T: %w",
		rsaBits, pub, image.ErrUnsupported)
}

// copyImage copies and pads the image, and returns the digest to sign. A
// damaged image must not get a fresh, valid signature, so the image's own
// checksum and digest are checked. What is signed is all that was written so
// far: file has its SHA-256, region another digest of it or is nil.
func (v *survey) copyImage(ctx context.Context, w io.Writer, r io.ReaderAt, file, region hash.Hash) ([]byte, error) {
	check := &xorer{spans: v.segments}
	var tail bytes.Buffer // checksum byte, appended digest
	all := io.MultiWriter(w, file)
	if region != nil {
		all = io.MultiWriter(w, file, region)
	}
	for _, part := range []struct {
		to  io.Writer
		off int64
		n   int64
	}{
		{io.MultiWriter(all, check), 0, v.checksum},
		{io.MultiWriter(all, &tail), v.checksum, 1},
	} {
		if _, err := io.Copy(part.to, image.Section(ctx, r, part.off, part.n)); err != nil {
			return nil, fmt.Errorf("copying image: %w", err)
		}
	}
	if got := check.sum ^ checksumIV; got != tail.Bytes()[0] {
		return nil, fmt.Errorf("checking input: the segments have checksum %#02x, the image says %#02x: %w", got, tail.Bytes()[0], image.ErrBadDigest)
	}
	if v.appended {
		got := file.Sum(nil)
		tail.Reset()
		if _, err := io.Copy(io.MultiWriter(all, &tail), image.Section(ctx, r, v.checksum+1, digestSize)); err != nil {
			return nil, fmt.Errorf("copying image: %w", err)
		}
		if !bytes.Equal(got, tail.Bytes()) {
			return nil, fmt.Errorf("checking input: content has sha256 %x, the image says %x: %w", got, tail.Bytes(), image.ErrBadDigest)
		}
	}
	if _, err := all.Write(bytes.Repeat([]byte{0xff}, int(v.padded-v.end))); err != nil {
		return nil, fmt.Errorf("writing padding: %w", err)
	}
	if region != nil {
		return region.Sum(nil), nil
	}
	return file.Sum(nil), nil
}

// xorer is the checksum of the bytes inside spans, which are in order.
type xorer struct {
	spans []span
	off   int64
	sum   byte
}

// Write never fails.
func (x *xorer) Write(p []byte) (int, error) {
	end := x.off + int64(len(p))
	for _, s := range x.spans {
		from, to := max(s.from, x.off), min(s.to, end)
		if from >= to {
			continue
		}
		for _, b := range p[from-x.off : to-x.off] {
			x.sum ^= b
		}
	}
	x.off = end
	return len(p), nil
}

// sign returns the new signature sector.
func (v *survey) sign(key crypto.Signer, h crypto.Hash, digest []byte, lay layout) ([]byte, error) {
	sector := bytes.Repeat([]byte{0xff}, sectorSize)
	n := 0
	if lay.Append {
		if v.sector == nil {
			return nil, fmt.Errorf("appending a signature: the image has none yet, sign it without the option: %w", image.ErrBadOptions)
		}
		for ; n < maxBlocks && v.sector[n*blockSize] == blockMagic; n++ {
			old := v.sector[n*blockSize : (n+1)*blockSize]
			if err := checkOld(old, key.Public(), digest); err != nil {
				return nil, fmt.Errorf("appending a signature: block %d: %w", n, err)
			}
			for i := range n {
				if sameKey(old, v.sector[i*blockSize:(i+1)*blockSize]) {
					return nil, fmt.Errorf("appending a signature: block %d is by the key of block %d: %w", n, i, image.ErrMalformed)
				}
			}
			copy(sector[n*blockSize:], old)
		}
		if !bytes.Equal(sector, v.sector) {
			return nil, fmt.Errorf("appending a signature: the signature sector holds something other than blocks: %w", image.ErrMalformed)
		}
		if n == maxBlocks {
			return nil, fmt.Errorf("appending a signature: the image has %d already, the most there can be: %w", n, image.ErrBadOptions)
		}
	} else if v.sector != nil {
		// What is replaced must at least have been a signature of this image.
		old := v.sector[:blockSize]
		if old[0] != blockMagic {
			return nil, fmt.Errorf("replacing signatures: the last %d bytes are no signature sector: %w", sectorSize, image.ErrMalformed)
		}
		isWide := old[1] == versionECDSA && old[2] == hashSHA384
		if isWide == (h == crypto.SHA384) && !bytes.Equal(old[4:4+len(digest)], digest) {
			return nil, badOld(old[4:4+len(digest)], digest)
		}
	}
	block, err := signBlock(key, h, digest)
	if err != nil {
		return nil, err
	}
	copy(sector[n*blockSize:], block)
	return sector, nil
}
