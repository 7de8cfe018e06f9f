package swu

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Sign builds an image from a file, or from several in a cpio archive, or signs
// an existing image, replacing its signature if it has one. The key is RSA, or
// for CMS also ECDSA P-256 or P-384, and for CMS [image.SignOptions.Certificates]
// holds its certificate. Options that only this format has are in [Layout].
//
// An existing image keeps its description to the byte, and its files. Options
// that are set must agree with it.
//
// The input is read twice and must not change meanwhile.
func (Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing swu image: %w", err)
	}
	return res, nil
}

// source is a file of the input.
type source struct {
	name   string
	off    int64
	size   int64
	sha256 [sha256.Size]byte
	sum    uint32 // of all bytes
}

func sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if err := ctx.Err(); err != nil {
		return image.SignResult{}, err
	}
	if size <= 0 {
		return image.SignResult{}, fmt.Errorf("reading input: it is empty: %w", image.ErrTruncated)
	}
	set, err := readOptions(opt)
	if err != nil {
		return image.SignResult{}, err
	}
	if err := set.checkKey(key.Public()); err != nil {
		return image.SignResult{}, err
	}
	var description []byte
	var files []source
	if finished, err := isImage(r, size); err != nil {
		return image.SignResult{}, err
	} else if finished {
		description, files, err = set.existing(ctx, r, size)
		if err != nil {
			return image.SignResult{}, err
		}
	} else if description, files, err = set.build(ctx, r, size); err != nil {
		return image.SignResult{}, err
	}
	if len(files)+2 > MaxFiles {
		return image.SignResult{}, fmt.Errorf("reading input: %d files, with description and signature, are over the limit of %d: %w", len(files), MaxFiles, image.ErrTooLarge)
	}
	signature, err := set.sign(key, description)
	if err != nil {
		return image.SignResult{}, err
	}
	out := newWriter(w)
	for _, small := range []struct {
		name string
		b    []byte
	}{{nameDescription, description}, {nameSignature, signature}} {
		s := source{name: small.name, size: int64(len(small.b)), sum: byteSum(0, small.b)}
		if err := out.file(s, bytes.NewReader(small.b)); err != nil {
			return image.SignResult{}, err
		}
	}
	for _, f := range files {
		if err := out.file(f, image.Section(ctx, r, f.off, f.size)); err != nil {
			return image.SignResult{}, err
		}
	}
	if err := out.finish(); err != nil {
		return image.SignResult{}, err
	}
	id, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	sum := sha256.Sum256(description)
	return image.SignResult{
		Size:   out.n,
		SHA256: [sha256.Size]byte(out.hash.Sum(nil)),
		Image:  image.Digest{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
		KeyID:  id,
	}, nil
}

// checkKey refuses what cannot be signed with, before the input is read.
func (s *settings) checkKey(pub crypto.PublicKey) error {
	if s.Signature == signCMS || s.Signature == signCMSPSS {
		_, err := cms.Hash(pub)
		return err
	}
	k, ok := pub.(*rsa.PublicKey)
	if !ok || k.N.BitLen() < minRSABits {
		return fmt.Errorf("a signature of kind %s is by an RSA key of at least %d bits, not by a key of type %T: %w", s.Signature, minRSABits, pub, image.ErrUnsupported)
	}
	return nil
}

// sign signs the description, which binds everything else.
func (s *settings) sign(key crypto.Signer, description []byte) ([]byte, error) {
	if s.Signature == signRSA || s.Signature == signRSAPSS {
		sum := sha256.Sum256(description)
		return image.SignHash(key, crypto.SHA256, sum[:], s.Signature == signRSAPSS)
	}
	h, err := cms.Hash(key.Public())
	if err != nil {
		return nil, err
	}
	d := h.New()
	d.Write(description)
	return cms.SignDigest(key, d.Sum(nil), cms.Options{
		Chain: s.opt.Certificates, PSS: s.Signature == signCMSPSS, Purpose: s.Purpose, Time: s.time,
	})
}

// isImage reports whether the input is an image already: an archive that
// starts with a description.
func isImage(r io.ReaderAt, size int64) (bool, error) {
	head := make([]byte, headerSize+len(nameDescription)+1)
	if size < int64(len(head)) {
		return false, nil
	}
	if err := image.ReadAt(r, head, 0); err != nil {
		return false, fmt.Errorf("reading input: %w", err)
	}
	magic := string(head[:len(magicNew)])
	return (magic == magicNew || magic == magicCRC) && string(head[headerSize:]) == nameDescription+"\x00", nil
}

// build makes the description of a new image.
func (s *settings) build(ctx context.Context, r io.ReaderAt, size int64) ([]byte, []source, error) {
	if err := s.forBuilding(); err != nil {
		return nil, nil, err
	}
	files := []source{{name: s.Images[0].Filename, size: size}}
	if s.Archive {
		var err error
		if files, err = listFiles(ctx, r, size); err != nil {
			return nil, nil, err
		}
	}
	for _, m := range s.Images {
		if !slices.ContainsFunc(files, func(f source) bool { return f.name == m.Filename }) {
			return nil, nil, badOptions("the layout has an image %s, and the input no such file", m.Filename)
		}
	}
	for i := range files {
		f := &files[i]
		if !isFileName(f.name) {
			return nil, nil, fmt.Errorf("reading input: file name %q is not allowed: %w", f.name, image.ErrMalformed)
		}
		if !slices.ContainsFunc(s.Images, func(m Image) bool { return f.name == m.Filename }) {
			return nil, nil, badOptions("the input has a file %s, and the layout no such image", f.name)
		}
		if err := f.digest(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	description := s.describe(files)
	if len(description) > MaxDescription {
		return nil, nil, fmt.Errorf("%s would have %d bytes, the limit is %d: %w", nameDescription, len(description), MaxDescription, image.ErrTooLarge)
	}
	return description, files, nil
}

// existing takes the description and the files out of an image.
func (s *settings) existing(ctx context.Context, r io.ReaderAt, size int64) ([]byte, []source, error) {
	if s.Archive || s.Description != "" || len(s.Images) > 0 {
		return nil, nil, badOptions("the input is an image with its own description, which stays: leave archive, description and images out of the layout")
	}
	files, err := listFiles(ctx, r, size)
	if err != nil {
		return nil, nil, err
	}
	first := files[0]
	if first.size == 0 || first.size > MaxDescription {
		return nil, nil, fmt.Errorf("reading input: %s has %d bytes, want 1 to %d: %w", nameDescription, first.size, MaxDescription, image.ErrTooLarge)
	}
	description := make([]byte, first.size)
	if err := image.ReadAt(r, description, first.off); err != nil {
		return nil, nil, fmt.Errorf("reading input: %w", err)
	}
	files = files[1:]
	if len(files) > 0 && files[0].name == nameSignature {
		files = files[1:]
	}
	said, err := scan(description)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", nameDescription, err)
	}
	if err := s.agree(said); err != nil {
		return nil, nil, err
	}
	for i := range files {
		f := &files[i]
		want, ok := said.files[f.name]
		if !ok || !isFileName(f.name) {
			return nil, nil, fmt.Errorf("reading input: file %q is not in the description, so nothing would sign it: %w", f.name, image.ErrMalformed)
		}
		if err := f.digest(ctx, r); err != nil {
			return nil, nil, err
		}
		if got := hex.EncodeToString(f.sha256[:]); got != want {
			return nil, nil, fmt.Errorf("reading input: file %q has sha256 %s, the description says %s: %w", f.name, got, want, image.ErrBadDigest)
		}
	}
	if len(files) != len(said.files) {
		return nil, nil, fmt.Errorf("reading input: the description names %d files and the archive has %d: %w", len(said.files), len(files), image.ErrMalformed)
	}
	return description, files, nil
}

// digest reads the file for its digest and sum.
func (f *source) digest(ctx context.Context, r io.ReaderAt) error {
	if f.size > MaxFile {
		return fmt.Errorf("file %q has %d bytes, an archive holds at most %d each: %w", f.name, f.size, int64(MaxFile), image.ErrTooLarge)
	}
	h := sha256.New()
	s := &summer{}
	if _, err := io.Copy(io.MultiWriter(h, s), image.Section(ctx, r, f.off, f.size)); err != nil {
		return fmt.Errorf("hashing file %q: %w", f.name, err)
	}
	f.sha256, f.sum = [sha256.Size]byte(h.Sum(nil)), s.sum
	return nil
}
