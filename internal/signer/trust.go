package signer

import (
	"bytes"
	"context"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// SignTrustBundle signs the next device trust bundle with the signer's own
// root key. It reads the document first: its roots are the roots that the
// signer was set up with, every image and statement key is in the signer's
// key store, and its version is not older than what was signed before. So
// whoever has the server cannot make devices believe an image key.
func (d *Desk) SignTrustBundle(_ context.Context, o TrustOrder) (Record, error) {
	r, err := d.trust(o)
	return r, d.refused(err, refusal{key: r.Key, permit: r.Permit, document: fw.DigestOf(o.Document), by: o.By})
}

func (d *Desk) trust(o TrustOrder) (Record, error) {
	at := d.o.Now()
	p, err := d.permit(o.Decision, fw.PurposeRosterRoot, fw.DigestOf(o.Document), o.By)
	if err != nil {
		return refusedRecord(p), err
	}
	if err := d.spent(p.id); err != nil {
		return refusedRecord(p), err
	}
	if err := d.checkTrust(o.Document); err != nil {
		return refusedRecord(p), err
	}
	env, err := d.s.SignTrustBundle(p, o.Document, at)
	if err != nil {
		return refusedRecord(p), err
	}
	r := d.record(p, nil, fw.Digest{}, at)
	r.Output, r.Size, r.Envelope = fw.DigestOf(env), int64(len(env)), env
	return r, nil
}

// checkTrust reads a trust bundle document and holds it against what this
// signer knows.
func (d *Desk) checkTrust(payload []byte) error {
	var doc authz.TrustDocument
	if len(payload) > authz.MaxTrustBundle {
		return fw.Errorf(fw.TooLarge, "the trust bundle is %d bytes, over the limit of %d", len(payload), authz.MaxTrustBundle)
	}
	if err := dsse.Decode(payload, &doc); err != nil {
		return fw.Wrap(fw.Invalid, err, "malformed trust bundle")
	}
	if again, err := doc.Encode(); err != nil || !bytes.Equal(again, payload) {
		return fw.Wrap(fw.Invalid, err, "the trust bundle is not in the form that writ writes")
	}
	if err := d.checkTrustRoots(doc.Roots); err != nil {
		return err
	}
	for _, l := range []struct {
		name    string
		keys    []authz.TrustKey
		purpose fw.Purpose
	}{{"image", doc.ImageKeys, fw.PurposeImage}, {"statement", doc.StatementKeys, fw.PurposeStatement}} {
		for _, k := range l.keys {
			mine := func(i KeyInfo) bool { return i.KeyID == k.ID.Hex() && i.Purpose == l.purpose }
			if !slices.ContainsFunc(d.s.ks.List(), mine) {
				return fw.Errorf(fw.Forbidden, "the trust bundle names %s key %s, which this signer does not know", l.name, k.ID.Hex())
			}
		}
	}
	last := d.s.journal.lastTrust()
	switch {
	case last.version == 0, doc.Version == last.version:
		// The first, or again after a crash before the server had stored it.
	case doc.Version != last.version+1:
		return fw.Errorf(fw.Conflict, "trust bundle version %d does not follow version %d, which was signed last", doc.Version, last.version)
	case !slices.Contains(last.digests, doc.Previous):
		return fw.Errorf(fw.Conflict, "trust bundle version %d follows a version %d that this signer did not sign", doc.Version, last.version)
	}
	return nil
}

// checkTrustRoots refuses a trust bundle that would pass the trust on to other
// roots: that is for a ceremony, where people look.
func (d *Desk) checkTrustRoots(r authz.Roots) error {
	own := d.s.opt.Roots
	if own == nil {
		return fw.Errorf(fw.Conflict, "this signer was set up without roots, so it signs no trust bundles")
	}
	if own.Threshold != 1 {
		return fw.Errorf(fw.Forbidden, "trust bundles need %d root keys: sign this one in a ceremony", own.Threshold)
	}
	var ids []fw.Digest
	for _, k := range own.Keys {
		t, err := authz.NewTrustKey(k)
		if err != nil {
			return err
		}
		ids = append(ids, t.ID)
	}
	foreign := func(k authz.TrustKey) bool { return !slices.Contains(ids, k.ID) }
	if r.Threshold != own.Threshold || len(r.Keys) != len(ids) || slices.ContainsFunc(r.Keys, foreign) {
		return fw.Errorf(fw.Forbidden, "the trust bundle names other roots than this signer was set up with: change them in a ceremony")
	}
	return nil
}
