package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/store"
)

type releasePath struct {
	ID fw.ReleaseID `path:"id"`
}

type releaseBody[T any] struct {
	ID   fw.ReleaseID `path:"id"`
	Body T
}

func (s *server) releases() {
	s.uploads()
	register(s, op{http.MethodGet, "/releases", access.ReleasesRead, "Releases, newest first"}, func(ctx context.Context, in *struct {
		Product fw.ProductID `query:"product"`
		After   fw.ReleaseID `query:"after" doc:"the last release of the page before"`
		Limit   int          `query:"limit" maximum:"1000" doc:"100 unless given"`
	},
	) (*body[[]apitypes.Release], error) {
		rows, err := store.Releases(s.o.DB.Snapshot(ctx), store.ReleaseFilter{Product: in.Product, After: in.After, Limit: limit(in.Limit)})
		return list(each(rows, releaseOf), err)
	})
	register(s, op{http.MethodGet, "/releases/{id}", access.ReleasesRead, "A release"}, func(ctx context.Context, in *releasePath) (*body[apitypes.Release], error) {
		r, err := store.ReleaseByID(s.o.DB.Snapshot(ctx), in.ID)
		return one(releaseOf(r), err)
	})
	register(s, op{http.MethodPost, "/releases", access.ReleasesWrite, "Propose a release, ready to be approved"}, func(ctx context.Context, in *body[apitypes.Draft]) (*body[apitypes.Release], error) {
		r, err := s.o.Releases.Propose(ctx, draftOf(in.Body), who(ctx).Person)
		return one(releaseOf(r), err)
	})
	register(s, op{http.MethodPut, "/releases/{id}", access.ReleasesWrite, "Replace what is proposed, which voids the approvals"}, func(ctx context.Context, in *releaseBody[apitypes.Draft]) (*body[apitypes.Release], error) {
		r, err := s.o.Releases.Edit(ctx, in.ID, draftOf(in.Body), who(ctx).Person)
		return one(releaseOf(r), err)
	})
	register(s, op{http.MethodPost, "/releases/{id}/publish", access.ReleasesWrite, "Sign, verify and publish an approved release"}, func(ctx context.Context, in *releasePath) (*body[apitypes.Release], error) {
		r, err := s.o.Releases.Publish(ctx, in.ID, who(ctx).Person)
		return one(releaseOf(r), err)
	})
	register(s, op{http.MethodPost, "/releases/{id}/withdraw", access.ReleasesWithdraw, "Take a release back for ever"}, func(ctx context.Context, in *releaseBody[apitypes.Reason]) (*body[apitypes.Release], error) {
		r, err := s.o.Releases.Withdraw(ctx, in.ID, in.Body.Reason, who(ctx).Person)
		return one(releaseOf(r), err)
	})
	register(s, op{http.MethodGet, "/releases/{id}/document", access.ReleasesRead, "The manifest, exactly the bytes that approvers sign"}, func(ctx context.Context, in *releasePath) (*raw, error) {
		r, err := store.ReleaseByID(s.o.DB.Snapshot(ctx), in.ID)
		return document(r.Manifest, err)
	})
	timeline(s, "/releases/{id}/timeline", access.ReleasesRead, evidence.ReleaseStream, func(q store.Queryer, id fw.ReleaseID) error {
		_, err := store.ReleaseByID(q, id)
		return err
	})
}

func (s *server) uploads() {
	up := s.o.Releases.Uploads()
	register(s, op{http.MethodPost, "/uploads", access.ReleasesWrite, "Announce a file by its digest; the same one again goes on where it stopped"}, func(ctx context.Context, in *body[apitypes.NewUpload]) (*body[apitypes.Upload], error) {
		u, err := up.Start(ctx, who(ctx).Person, in.Body.Digest, in.Body.Size)
		return one(uploadOf(u), err)
	})
	register(s, op{http.MethodGet, "/uploads/{id}", access.ReleasesWrite, "How far an upload got"}, func(ctx context.Context, in *idPath) (*body[apitypes.Upload], error) {
		u, err := up.Status(ctx, who(ctx).Person, in.ID)
		return one(uploadOf(u), err)
	})
	s.stream(op{http.MethodPatch, "/uploads/{id}", access.ReleasesWrite, "Append bytes at ?offset=, which must be how far the upload got"}, func(d *huma.Operation) {
		d.Parameters = []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}},
			{Name: "offset", In: "query", Required: true, Schema: &huma.Schema{Type: "integer", Format: "int64"}},
		}
		d.RequestBody = &huma.RequestBody{Required: true, Content: binary()}
		d.Responses = map[string]*huma.Response{"200": {Description: "How far the upload is now", Content: jsonOf[apitypes.Upload](s)}}
	}, func(w http.ResponseWriter, r *http.Request, p access.Principal) error {
		if err := httpd.MediaType(r, "application/octet-stream"); err != nil {
			return err
		}
		offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
		if err != nil || offset < 0 {
			return fw.Errorf(fw.Invalid, "give ?offset=N, how many bytes were sent before")
		}
		if _, err := up.Write(r.Context(), p.Person, r.PathValue("id"), offset, r.Body); err != nil {
			return err
		}
		u, err := up.Status(r.Context(), p.Person, r.PathValue("id"))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(uploadOf(u))
	})
	register(s, op{http.MethodPost, "/uploads/{id}/finish", access.ReleasesWrite, "Check the digest of a complete upload and look at the image"}, func(ctx context.Context, in *idPath) (*body[apitypes.Uploaded], error) {
		u, err := up.Finish(ctx, who(ctx).Person, in.ID)
		if err != nil {
			return nil, err
		}
		info, err := json.Marshal(u.Info)
		if err != nil {
			return nil, fw.Wrap(fw.Internal, err, "cannot encode what the image says")
		}
		return one(apitypes.Uploaded{Digest: u.Digest, Size: u.Size, Image: info, Unfit: u.Unfit}, nil)
	})
}

func uploadOf(u release.Upload) apitypes.Upload {
	return apitypes.Upload{ID: u.ID, Digest: u.Digest, Size: u.Size, Offset: u.Offset, Done: u.Done}
}

func draftOf(d apitypes.Draft) release.Draft {
	return release.Draft{
		Product: d.Product, Version: d.Version, Type: d.Type, MixedReason: d.MixedReason, Hardware: d.Hardware, FromVersion: d.FromVersion,
		SBOM: d.SBOM, Provenance: d.Provenance, Notes: d.Notes, Advisory: d.Advisory,
		Components: each(d.Components, func(c apitypes.DraftComponent) release.DraftComponent {
			return release.DraftComponent{Name: c.Name, Format: c.Format, Input: c.Input, SecurityCounter: c.SecurityCounter, Vendor: c.Vendor, Layout: c.Layout}
		}),
	}
}

func releaseOf(r store.Release) apitypes.Release {
	return apitypes.Release{
		ID: r.ID, Product: r.Product, Version: r.Version, Type: r.Type, State: r.State, Proposer: r.Proposer,
		Manifest: r.Manifest, Publication: r.Publication, WithdrawnReason: r.WithdrawnReason, CreatedAt: r.CreatedAt, PublishedAt: r.PublishedAt,
	}
}
