package release

import (
	"bytes"
	"context"
	"crypto"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

// ArtifactStatement is the kind of a release statement among the artifacts.
const ArtifactStatement = "statement"

// signedStatement is a release statement that was signed, stored and verified.
type signedStatement struct {
	envelope []byte
	digest   fw.Digest // of the envelope
	uses     []evidence.StatedUse
	custody  string
}

// state makes and signs the statement about the signed images of w, under a
// decision of its own for each key, and believes nothing until it has been
// read and verified again.
func (s *Service) state(ctx context.Context, w *warrant, images []signedImage, actor fw.PersonID) (signedStatement, error) {
	list := make([]fw.SignedImage, len(images))
	for i, g := range images {
		list[i] = g.image
	}
	st, err := statement.Make(w.row.Manifest, list)
	if err != nil {
		return signedStatement{}, err
	}
	doc, err := st.Encode()
	if err != nil {
		return signedStatement{}, err
	}
	out := signedStatement{}
	if out.uses, err = s.allowStatement(ctx, w, doc, actor); err != nil {
		return out, err
	}
	envelopes := make([][]byte, len(out.uses))
	trusted := make([]crypto.PublicKey, len(out.uses))
	for i := range out.uses {
		u := &out.uses[i]
		decision, err := s.decision(ctx, u.Decision)
		if err != nil {
			return out, err
		}
		rec, err := s.o.Custody.SignStatement(ctx, signer.StatementOrder{Statement: doc, Evidence: w.quorum.Evidence, Decision: decision, By: actor})
		if err != nil {
			return out, s.refused(ctx, w, err, evidence.SigningRefused{
				Release: w.row.ID, Purpose: fw.PurposeStatement, Key: u.Key, Decision: u.Decision,
			})
		}
		envelopes[i] = rec.Envelope
		info, err := s.o.Keystore.Public(u.Key)
		if err != nil {
			return out, err
		}
		if trusted[i], err = info.Public(); err != nil {
			return out, err
		}
		u.Permit, u.KeyID, u.Algorithm, u.SignedAt = rec.Permit, info.KeyID, string(info.Algorithm), rec.At
		out.custody = rec.Custody
	}
	if out.envelope, err = statement.Join(envelopes...); err != nil {
		return out, err
	}
	again, err := statement.Open(out.envelope)
	if err != nil {
		return out, err
	}
	if err := again.Verify(trusted, statement.NeedBoth); err != nil {
		return out, fw.Wrap(fw.Internal, err, "the release statement does not pass verification, so nothing was published: keep the server's log and report this")
	}
	out.digest, _, err = s.o.Blobs.Import(ctx, bytes.NewReader(out.envelope))
	return out, err
}

// allowStatement records, for each statement key, the decision that it may be
// used for doc.
func (s *Service) allowStatement(ctx context.Context, w *warrant, doc []byte, actor fw.PersonID) ([]evidence.StatedUse, error) {
	uses := make([]evidence.StatedUse, len(s.o.StatementKeys))
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		for i, key := range s.o.StatementKeys {
			pos, err := s.o.Ledger.Append(tx, ledger.Entry{
				Type: evidence.TypeKeyUse, Actor: string(actor),
				Streams: []evidence.StreamID{evidence.KeyStream(key), evidence.ReleaseStream(w.row.ID)},
				Data: evidence.KeyUse{
					Purpose: fw.PurposeStatement, Key: key, Subject: fw.DigestOf(doc), Reason: "state an approved release",
					Document: doc, Approvals: w.quorum.Result,
				},
			})
			if err != nil {
				return err
			}
			uses[i] = evidence.StatedUse{Key: key, Decision: pos.Index}
		}
		return nil
	})
	return uses, err
}

// recordStated makes a statement downloadable.
func (s *Service) recordStated(tx *store.Tx, id fw.ReleaseID, g signedStatement, actor fw.PersonID) error {
	streams := []evidence.StreamID{evidence.ReleaseStream(id)}
	for _, u := range g.uses {
		streams = append(streams, evidence.KeyStream(u.Key))
	}
	_, err := s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeReleaseStated, Actor: string(actor), Streams: streams,
		Data: evidence.Stated{Release: id, Envelope: g.envelope, Custody: g.custody, Uses: g.uses, RequestedBy: actor},
	})
	if err != nil {
		return err
	}
	return store.InsertArtifact(tx, store.Artifact{Digest: g.digest, Release: id, Kind: ArtifactStatement, Size: int64(len(g.envelope))})
}
