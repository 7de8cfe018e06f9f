package update

import (
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// claims says what the device may install.
func (s *Service) claims(l *campaign.Live, ask *question, v *visit, f policy.Facts) (authz.Claims, error) {
	c := authz.Claims{
		Issuer: s.o.Issuer, Device: v.device.ID, ID: fw.AuthorizationID(fw.NewID("aut")),
		IssuedAt: f.Now, NotBefore: f.Now, Expires: f.Now + l.Terms.Plan.AuthorizationTTL,
		Thumbprint: fw.Digest(v.cert.Thumbprint), Nonce: v.in.Nonce, Sequence: uint64(v.device.AuthSeq) + 1,
		Campaign: l.Row.ID, Update: ask.update.ID, Hardware: v.device.Hardware,
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
	return c, nil
}

// sign signs an authorization under a permit that rests on decision record
// index.
func (s *Service) sign(c authz.Claims, index int64) ([]byte, error) {
	payload, err := authz.Encode(c)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the authorization")
	}
	permit, err := s.o.Signer.Mint(signer.Grant{
		Purpose: fw.PurposeAuthorization, Key: s.o.Key, Subject: fw.DigestOf(payload), Evidence: index, Verdict: signer.VerdictAllow,
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

// deliver makes the answer to an authorized device: the authorization with a
// receipt for its decision record, and where to get the images.
func (s *Service) deliver(q store.Queryer, l *campaign.Live, a *store.Authorization, t *campaign.Target) (outcome, error) {
	receipt, err := s.o.Ledger.Receipt(a.DecisionIndex)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{}
	if out.authorization, err = authz.AttachReceipt(a.COSE, receipt); err != nil {
		return outcome{}, err
	}
	for _, img := range t.Publication.Images {
		out.artifacts = append(out.artifacts, authz.Artifact{Digest: img.Digest, Size: img.Size, Path: ArtifactPath(img.Digest), Component: img.Component, Kind: authz.ArtifactImage})
		if img.Envelope.IsZero() {
			continue
		}
		size, err := envelopeSize(q, l, t.Release, img.Envelope)
		if err != nil {
			return outcome{}, err
		}
		out.artifacts = append(out.artifacts, authz.Artifact{Digest: img.Envelope, Size: size, Path: ArtifactPath(img.Envelope), Component: img.Component, Kind: authz.ArtifactEnvelope})
	}
	return out, nil
}

func envelopeSize(q store.Queryer, l *campaign.Live, release fw.ReleaseID, d fw.Digest) (int64, error) {
	list, err := store.ArtifactsByDigest(q, d)
	if err != nil {
		return 0, err
	}
	for _, a := range list {
		if a.Release == release {
			return a.Size, nil
		}
	}
	return 0, fw.Errorf(fw.Corrupt, "campaign %s: release %s names envelope %s, which is not on file", l.Row.ID, release, d)
}

// ArtifactPath is where devices download an artifact.
func ArtifactPath(d fw.Digest) string { return "/device/v1/artifacts/" + d.String() }
