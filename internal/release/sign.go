package release

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/image/raw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// signedImage is one image that was signed, stored and verified.
type signedImage struct {
	image        fw.SignedImage
	algorithm    string
	envelopeSize int64
	record       signer.Record
}

// signAll signs every component of w. It writes blobs and no database.
func (s *Service) signAll(ctx context.Context, w *warrant) ([]signedImage, error) {
	if err := s.o.Approvers.SyncSigner(ctx, w.at); err != nil {
		return nil, err
	}
	out := make([]signedImage, len(w.manifest.Components))
	for i := range w.manifest.Components {
		var err error
		if out[i], err = s.sign(ctx, w, i); err != nil {
			return nil, fmt.Errorf("signing component %s of release %s: %w", w.manifest.Components[i].Name, w.row.ID, err)
		}
	}
	return out, nil
}

// sign has component i signed on the strength of its key_use record, and
// believes nothing until the stored result has been verified.
func (s *Service) sign(ctx context.Context, w *warrant, i int) (signedImage, error) {
	c := w.manifest.Components[i]
	if _, ok := formats.ForName(c.Format); !ok {
		return signedImage{}, fw.Errorf(fw.Conflict, "this version of writ does not know format %q: publish with one that does", c.Format)
	}
	input, _, err := s.o.Blobs.Open(c.InputDigest)
	if err != nil {
		return signedImage{}, err
	}
	defer func() { _ = input.Close() }() // only read
	decision, err := s.decision(ctx, w.decisions[i])
	if err != nil {
		return signedImage{}, err
	}
	res, digest, err := s.stream(ctx, signer.ImageOrder{Component: c.Name, Evidence: w.quorum.Evidence, Decision: decision, By: w.actor}, input)
	if err != nil {
		return signedImage{}, s.refused(ctx, w, err, evidence.SigningRefused{
			Release: w.row.ID, Component: c.Name, Purpose: fw.PurposeImage, Key: c.Key, Decision: w.decisions[i],
		})
	}
	out := signedImage{record: res, envelopeSize: int64(len(res.Envelope))}
	if len(res.Envelope) > 0 {
		if out.image.Envelope, _, err = s.o.Blobs.Import(ctx, bytes.NewReader(res.Envelope)); err != nil {
			return signedImage{}, err
		}
	}
	v, err := s.verify(ctx, &w.manifest, &c, digest, res.Envelope)
	if err != nil {
		return signedImage{}, fw.Wrap(fw.Internal, err, "the signed image of component %s does not pass verification, so nothing was published: keep the server's log and report this", c.Name)
	}
	out.algorithm = v.Algorithm
	out.image.Component, out.image.Format, out.image.Version = c.Name, c.Format, w.manifest.Version
	out.image.SecurityCounter, out.image.Digest, out.image.Size = c.SecurityCounter, digest, v.Info.Size
	out.image.KeyID = v.KeyID
	return out, nil
}

// decision returns a committed key_use record with the proof that the log has
// it.
func (s *Service) decision(ctx context.Context, index int64) (signer.Decision, error) {
	row, err := store.RecordByIndex(s.o.DB.Snapshot(ctx), index)
	if err != nil {
		return signer.Decision{}, err
	}
	receipt, err := s.o.Ledger.Receipt(index)
	return signer.Decision{Salt: row.Salt, Record: row.Body, Receipt: receipt}, err
}

// refused puts on record that a signature was refused, and returns why. What
// failed for another reason is no refusal.
func (s *Service) refused(ctx context.Context, w *warrant, why error, r evidence.SigningRefused) error {
	if !signer.IsRefusal(why) || ctx.Err() != nil {
		return why
	}
	r.Kind, r.Reason = string(fw.KindOf(why)), signer.Reason(why)
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		_, err := s.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeSigningRefused, Actor: string(w.actor), Data: r,
			Streams: []evidence.StreamID{evidence.ReleaseStream(w.row.ID), evidence.KeyStream(r.Key)},
		})
		return err
	})
	if err != nil {
		return fw.Wrap(fw.KindOf(why), err, "%s (and the refusal could not be put on record)", signer.Reason(why))
	}
	return why
}

// stream signs straight into the blob store, so that no image is in memory.
func (s *Service) stream(ctx context.Context, o signer.ImageOrder, input io.ReaderAt) (signer.Record, fw.Digest, error) {
	pr, pw := io.Pipe()
	var res signer.Record
	var serr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, serr = s.o.Custody.SignImage(ctx, o, input, pw)
		// Whatever failed, the reader must not take what came so far for all.
		_ = pw.CloseWithError(serr) // never fails
	}()
	digest, size, err := s.o.Blobs.Import(ctx, pr)
	_ = pr.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // unblocks the signer; never fails
	<-done
	switch {
	case err != nil && serr != nil && fw.KindOf(err) != fw.Internal && !errors.Is(err, serr):
		return res, digest, err // the store failed first, and the signer over it
	case serr != nil:
		return res, digest, serr
	case err != nil:
		return res, digest, err
	case digest != res.Output || size != res.Size:
		return res, digest, fw.Errorf(fw.Internal, "what was stored is not what was signed: look at the server's disk and publish again")
	}
	return res, digest, nil
}

// verify checks a stored image as a device would, with the key on file, and
// that what is under the signature is what was approved.
func (s *Service) verify(ctx context.Context, m *fw.Manifest, c *fw.ManifestComponent, digest fw.Digest, envelope []byte) (image.Verified, error) {
	info, err := s.o.Keystore.Public(c.Key)
	if err != nil {
		return image.Verified{}, err
	}
	pub, err := info.Public()
	if err != nil {
		return image.Verified{}, err
	}
	f, size, err := s.o.Blobs.Open(digest)
	if err != nil {
		return image.Verified{}, err
	}
	defer func() { _ = f.Close() }()       // only read
	format, _ := formats.ForName(c.Format) // known: sign
	v, err := format.Verify(ctx, f, size, envelope, []crypto.PublicKey{pub})
	if err != nil {
		return image.Verified{}, err
	}
	whole, _ := v.Info.Digest(image.ScopeFile)
	switch {
	case v.KeyID != info.KeyID:
		return v, fmt.Errorf("signed by key %s, not %s", v.KeyID, info.KeyID)
	case v.Info.Size != size || whole.Hex != digest.Hex():
		return v, fmt.Errorf("the file has digest %s, not %s", whole.Hex, digest.Hex())
	case v.Info.SecurityCounter == nil && formats.HasCounter(c.Format), v.Info.SecurityCounter != nil && *v.Info.SecurityCounter != c.SecurityCounter:
		return v, fmt.Errorf("the security counter is not %d", c.SecurityCounter)
	}
	return v, checkIdentity(m, c, v.Info)
}

// checkIdentity compares what an image says it is with the manifest, as far
// as its format says it.
func checkIdentity(m *fw.Manifest, c *fw.ManifestComponent, info image.Info) error {
	if c.Format == formatMCUboot {
		if !sameMCUbootVersion(info.Version, m.Version) {
			return fmt.Errorf("the version is %q, not %q", info.Version, m.Version)
		}
		return nil
	}
	all := c.Format == formatRaw // says everything, so nothing may be missing
	if (all || info.Version != "") && info.Version != m.Version {
		return fmt.Errorf("the version is %q, not %q", info.Version, m.Version)
	}
	if (all || info.Product != "") && info.Product != string(m.Product) {
		return fmt.Errorf("it is for product %q, not %q", info.Product, m.Product)
	}
	if all && !slices.EqualFunc(info.Hardware, m.Hardware, func(a string, b fw.HardwareID) bool { return a == string(b) }) {
		return fmt.Errorf("it is for hardware %v, not %v", info.Hardware, m.Hardware)
	}
	return nil
}

// formatRaw is the format whose statement says all that a manifest says.
var formatRaw = raw.Format{}.Name()
