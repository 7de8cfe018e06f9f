package mender

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// Sign inserts the signature into an artifact, or replaces the one it has, with
// a key of RSA 2048 to 8192 bits or ECDSA P-256. Every other byte stays. The
// artifact is read twice: nothing is signed before all of it was checked.
func (Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing mender artifact: %w", err)
	}
	return res, nil
}

func sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if err := ctx.Err(); err != nil {
		return image.SignResult{}, err
	}
	if _, err := algorithm(key.Public()); err != nil {
		return image.SignResult{}, err
	}
	s, err := scanArtifact(ctx, r, size)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("reading artifact to sign: %w", err)
	}
	if err := s.agree(opt); err != nil {
		return image.SignResult{}, fmt.Errorf("comparing options with the artifact: %w", err)
	}
	digest := sha256.Sum256(s.manifest)
	sig, err := image.SignHash(key, crypto.SHA256, digest[:], false)
	if err != nil {
		return image.SignResult{}, err
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		var rs struct{ R, S *big.Int } // RFC 3279, section 2.2.3
		if _, err := asn1.Unmarshal(sig, &rs); err != nil {
			return image.SignResult{}, fmt.Errorf("reading new signature: %w", err)
		}
		sig = make([]byte, 64)
		rs.R.FillBytes(sig[:32])
		rs.S.FillBytes(sig[32:])
	}
	added := entry(nameSignature, []byte(base64.StdEncoding.EncodeToString(sig)))
	total := s.cut + int64(len(added)) + size - s.resume
	if opt.SlotSize != 0 && total > opt.SlotSize {
		return image.SignResult{}, fmt.Errorf("checking size: artifact of %d bytes does not fit %d: %w", total, opt.SlotSize, image.ErrTooLarge)
	}

	file := sha256.New()
	out := io.MultiWriter(w, file)
	if _, err := io.Copy(out, image.Section(ctx, r, 0, s.cut)); err != nil {
		return image.SignResult{}, fmt.Errorf("copying artifact: %w", err)
	}
	if _, err := out.Write(added); err != nil {
		return image.SignResult{}, fmt.Errorf("writing manifest.sig: %w", err)
	}
	if _, err := io.Copy(out, image.Section(ctx, r, s.resume, size-s.resume)); err != nil {
		return image.SignResult{}, fmt.Errorf("copying artifact: %w", err)
	}
	id, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	return image.SignResult{
		Size: total, SHA256: [sha256.Size]byte(file.Sum(nil)), KeyID: id,
		Image: image.Digest{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(digest[:])},
	}, nil
}

// agree checks that the options that are set say what the artifact says.
func (s *scan) agree(opt image.SignOptions) error {
	if opt.HeaderSize != 0 || opt.HeaderInPlace || opt.Vendor != "" || len(opt.Layout) != 0 {
		return fmt.Errorf("header size, vendor and layout have no place in a mender artifact: %w", image.ErrBadOptions)
	}
	if opt.Version != "" {
		for _, v := range versions(s.name, s.payloads) {
			if v != opt.Version {
				return fmt.Errorf("version is %s, the artifact says %s; write it again or correct the release: %w", opt.Version, v, image.ErrBadOptions)
			}
		}
	}
	if opt.SecurityCounter != nil {
		n, err := counter(s.payloads)
		if err != nil {
			return err
		}
		if n == nil {
			n = new(uint64)
		}
		if *n != *opt.SecurityCounter {
			return fmt.Errorf("security counter is %d, the artifact says %d; write it with --provides %s:%d: %w",
				*opt.SecurityCounter, *n, counterKey, *opt.SecurityCounter, image.ErrBadOptions)
		}
	}
	if len(opt.Hardware) == 0 {
		return nil
	}
	for _, h := range opt.Hardware {
		if !slices.Contains(s.devices, h) {
			return fmt.Errorf("hardware is %v, the artifact is for device types %v, and a %s would refuse it: %w", opt.Hardware, s.devices, h, image.ErrBadOptions)
		}
	}
	for _, d := range s.devices {
		if !slices.Contains(opt.Hardware, d) {
			return fmt.Errorf("hardware is %v, the artifact is for device types %v, and a %s would install it: %w", opt.Hardware, s.devices, d, image.ErrBadOptions)
		}
	}
	return nil
}
