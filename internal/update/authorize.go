package update

import (
	"slices"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// claims says what the device may install.
func (s *Service) claims(l *campaign.Live, ask *question, v *visit, f policy.Facts) authz.Claims {
	c := authz.Claims{
		Issuer: s.o.Issuer, Device: v.who.Device.ID, ID: fw.AuthorizationID(fw.NewID("aut", time.Unix(f.Now, 0))),
		IssuedAt: f.Now, NotBefore: f.Now, Expires: f.Now + l.Terms.Plan.AuthorizationTTL,
		Thumbprint: fw.Digest(v.who.Certificate.Thumbprint), Nonce: v.in.Nonce, Sequence: uint64(max(0, v.who.Device.AuthSeq)) + 1,
		Campaign: l.Row.ID, Update: ask.update.ID, Hardware: v.who.Device.Hardware,
		Plan: l.Terms.PlanDigest, Policy: l.Terms.Plan.Policy, Manifest: ask.target.ManifestDigest, Published: ask.target.PublicationDigest,
		Rollback: ask.rollback,
	}
	// An authorization does not outlive its campaign.
	if end := l.Terms.Plan.NotAfter; end > 0 {
		c.Expires = min(c.Expires, end)
	}
	for _, img := range ask.target.Publication.Images {
		p := authz.Component{
			Name: img.Component, Release: ask.target.Release, Version: img.Version, Digest: img.Digest, Size: img.Size,
			Format: img.Format, SecurityCounter: img.SecurityCounter, Envelope: img.Envelope,
		}
		if i := slices.IndexFunc(f.Device.Components, func(h policy.ComponentFacts) bool { return h.Name == img.Component }); i >= 0 {
			p.From = f.Device.Components[i].Digest
		}
		c.Components = append(c.Components, p)
	}
	return c
}

// sign signs an authorization under a permit that rests on decision record
// index.
func (s *Service) sign(c authz.Claims, index int64) ([]byte, error) {
	payload, err := authz.Encode(c)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the authorization")
	}
	permit, err := s.o.Signer.Mint(signer.Grant{
		Purpose: fw.PurposeAuthorization, Key: s.o.Key, Subject: fw.DigestOf(payload.Bytes()), Evidence: index, Verdict: signer.VerdictAllow,
	})
	if err != nil {
		return nil, err
	}
	key, err := s.o.Signer.AuthorizationSigner(permit)
	if err != nil {
		return nil, err
	}
	return authz.Sign(payload, key)
}

// deliver fills in the answer to an authorized device: the authorization with a
// receipt for its decision record, and where to get the images.
func (s *Service) deliver(r *authz.CheckInReply, a *store.Authorization, t *campaign.Target) error {
	receipt, err := s.o.Ledger.Receipt(a.DecisionIndex)
	if err != nil {
		return err
	}
	if r.Authorization, err = authz.AttachReceipt(a.COSE, receipt); err != nil {
		return err
	}
	r.Action = authz.ActionUpdate
	if d := t.Publication.Statement; !d.IsZero() {
		r.Artifacts = append(r.Artifacts, authz.Artifact{Digest: d, Size: t.Envelopes[d], Path: ArtifactPath(d), Component: fw.MainComponent, Kind: authz.ArtifactStatement})
	}
	for _, img := range t.Publication.Images {
		r.Artifacts = append(r.Artifacts, authz.Artifact{Digest: img.Digest, Size: img.Size, Path: ArtifactPath(img.Digest), Component: img.Component, Kind: authz.ArtifactImage})
		if img.Envelope.IsZero() {
			continue
		}
		r.Artifacts = append(r.Artifacts, authz.Artifact{Digest: img.Envelope, Size: t.Envelopes[img.Envelope], Path: ArtifactPath(img.Envelope), Component: img.Component, Kind: authz.ArtifactEnvelope})
	}
	return nil
}

// ArtifactPath is where devices download an artifact.
func ArtifactPath(d fw.Digest) string { return "/device/v1/artifacts/" + d.String() }
