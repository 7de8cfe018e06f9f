package agent

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/image/mcuboot"
	"github.com/writ-project/writ/internal/image/suit"
	"github.com/writ-project/writ/internal/tlog"
)

// maxEnvelope bounds a detached signature, in bytes.
const maxEnvelope = 64 << 10

// deviceState is what the device knows of itself at this moment.
func (a *Agent) deviceState() authz.DeviceState {
	m := a.running.meta
	return authz.DeviceState{
		DeviceID: a.cfg.Device, Thumbprint: a.id.thumbprint, Hardware: a.cfg.Hardware,
		Nonce: a.state.Nonce, LastSequence: a.state.LastSequence,
		Clock: authz.ClockTrusted, Now: a.now().Unix(), Trust: a.trust,
		Components: []authz.DeviceComponent{{
			Name: a.cfg.Component, Version: m.Version, Digest: a.running.seen,
			SecurityCounter: m.SecurityCounter, SecurityFloor: a.state.SecurityFloor,
		}},
	}
}

// checkReceipt is an authz.ReceiptCheck: the record is in the log at the index
// the authorization names, under a log key that counts now.
func (a *Agent) checkReceipt(receipt []byte, commitment fw.Digest, index uint64, keys []authz.LogKey) error {
	now := a.now().Unix()
	err := errors.New("the trust bundle has no log key that counts now")
	for _, k := range keys {
		if now < k.NotBefore || k.NotAfter != 0 && now > k.NotAfter {
			continue
		}
		pub, kerr := k.Public()
		if kerr != nil {
			return kerr
		}
		ed, ok := pub.(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("log key %s is not Ed25519", k.ID.Hex())
		}
		var in tlog.Included
		if in, err = tlog.CheckReceipt(receipt, commitment[:], ed); err != nil {
			continue
		}
		if in.Index < 0 || uint64(in.Index) != index {
			return fmt.Errorf("the receipt is for record %d, not %d", in.Index, index)
		}
		return nil
	}
	return err
}

// recheck is authz.Recheck as a step of an update. An authorization that ran
// out on the way is a failure, everything else a rejection.
func (a *Agent) recheck(auth *authz.Authorization) error {
	v := authz.Recheck(auth, a.deviceState(), a.checkReceipt)
	switch {
	case v.OK():
		return nil
	case v.Reason == fw.RejectExpired:
		return &fault{event: fw.EventFailed, reason: fw.FailExpired, detail: v.Detail}
	}
	return rejected(v)
}

// checkImage says whether the bytes at path are what p allows here. An error
// says nothing about them.
func (a *Agent) checkImage(ctx context.Context, path string, p authz.Component, envelope []byte) (authz.Verdict, error) {
	d := a.deviceState()
	if len(a.cfg.Formats) > 0 && !slices.Contains(a.cfg.Formats, p.Format) {
		return authz.Verdict{Reason: fw.RejectImageFormat, Detail: fmt.Sprintf("this device does not take images of format %q", p.Format)}, nil
	}
	info, err := inspect(ctx, path, p.Format, envelope, a.cfg, a.trust.ImageKeys(d.Now))
	if info.Size != p.Size || info.Digest != p.Digest {
		if _, ours := image.ReasonOf(err); err == nil || ours {
			return authz.CheckImage(p, info, d), nil
		}
	}
	if why, ok := image.ReasonOf(err); ok {
		return authz.Verdict{Reason: imageReason(why), Detail: oneLine(err.Error())}, nil
	}
	if err != nil {
		return authz.Verdict{}, err
	}
	return authz.CheckImage(p, info, d), nil
}

// imageReason translates what a format says.
func imageReason(r image.ReasonError) fw.Reason {
	switch r {
	case image.ErrUnsigned, image.ErrUnknownKey, image.ErrBadSignature, image.ErrWrongPurpose:
		return fw.RejectImageSignature
	case image.ErrBadDigest:
		return fw.RejectImageDigest
	case image.ErrTruncated, image.ErrMalformed, image.ErrTooLarge, image.ErrEncrypted, image.ErrUnsupported, image.ErrBadOptions:
		return fw.RejectImageFormat
	}
	return fw.RejectImageFormat
}

// inspect hashes the image at path and verifies it under keys. The format is
// the named one, or the one it looks like. Size and digest are returned also
// with an error about the content.
func inspect(ctx context.Context, path, format string, envelope []byte, cfg Config, keys []crypto.PublicKey) (authz.ImageInfo, error) {
	var out authz.ImageInfo
	f, err := os.Open(path) //nolint:gosec // G304: within the state directory
	if err != nil {
		return out, fw.Wrap(fw.Internal, err, "cannot open the image %s", path)
	}
	defer closing(f)
	if out.Digest, out.Size, err = hashFile(f); err != nil {
		return out, fw.Wrap(fw.Internal, err, "cannot read the image %s", path)
	}
	kind, err := chooseFormat(f, out.Size, format)
	if err != nil {
		return out, err
	}
	v, err := kind.Verify(ctx, f, out.Size, envelope, keys)
	if err != nil {
		return out, err
	}
	if out.SignedBy, err = fw.ParseDigest("sha256:" + v.KeyID); err != nil {
		return out, err
	}
	out.Format, out.Version, out.SecurityCounter = v.Info.Format, v.Info.Version, v.Info.SecurityCounter
	if len(envelope) > 0 {
		out.Envelope = fw.DigestOf(envelope)
	}
	for _, h := range v.Info.Hardware {
		out.Hardware = append(out.Hardware, hardware(v.Info, h, cfg.Hardware))
	}
	return out, nil
}

func chooseFormat(r io.ReaderAt, size int64, name string) (image.Format, error) {
	if name == "" {
		return formats.Detect(r, size)
	}
	f, ok := formats.ForName(name)
	if !ok {
		return nil, fmt.Errorf("format %q is unknown here: %w", name, image.ErrUnsupported)
	}
	return f, nil
}

// hardware returns the id an image is bound to. MCUboot and SUIT store it hashed, as
// the class id within the vendor's space: it is ours if ours hashes to it.
func hardware(info image.Info, stored string, ours fw.HardwareID) fw.HardwareID {
	if info.Vendor == "" {
		return fw.HardwareID(stored)
	}
	var class string
	var err error
	switch info.Format {
	case mcuboot.Format{}.Name():
		class, err = mcuboot.ClassID(info.Vendor, string(ours))
	case suit.Format{}.Name():
		class = suit.ClassID(info.Vendor, string(ours))
	default:
		return fw.HardwareID(stored)
	}
	if err == nil && class == stored {
		return ours
	}
	return fw.HardwareID(stored)
}
