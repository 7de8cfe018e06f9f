package update

import (
	"context"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// MayDownload reports whether a device may have an artifact: an image or
// envelope of a release of its product that is not withdrawn. The bytes are
// no secret from it; what lets it install them is the authorization. One that
// was withdrawn by a pause or an abort gets no bytes any more.
func (s *Service) MayDownload(ctx context.Context, p Peer, d fw.Digest) error {
	q := s.o.DB.Snapshot(ctx)
	who, err := identify(q, p)
	if err != nil {
		return err
	}
	why := barred(&who)
	if why == "" && !certificateOK(&who.Certificate, s.o.Now().Unix()) {
		why = fw.ReasonCertificateExpired
	}
	if why != "" {
		return s.deny(ctx, &who.Certificate, why, "artifact")
	}
	list, err := store.ArtifactsByDigest(q, d)
	if err != nil {
		return err
	}
	found := false
	for _, a := range list {
		rel, err := store.ReleaseByID(q, a.Release)
		if err != nil {
			return err
		}
		if rel.Product == who.Device.Product && rel.State == fw.ReleasePublished && a.Kind != "sbom" {
			found = true
			if err := s.mayStart(ctx, who.Device.ID, rel.ID); err != nil {
				return err
			}
		}
	}
	if found {
		return nil
	}
	return fw.Errorf(fw.NotFound, "there is no artifact %s for product %s", d, who.Device.Product)
}
