package agent

import (
	"crypto"
	"encoding/json"
	"testing"
	"time"

	"filippo.io/mldsa"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// stater is a peer whose trust bundle demands statements under both keys.
type stater struct {
	*peer
	classical, pq crypto.Signer
	manifest      []byte
}

func newStater(t *testing.T) *stater {
	t.Helper()
	s := &stater{peer: newPeer(t), classical: newKey(), pq: must(mldsa.GenerateKey(mldsa.MLDSA65()))}
	d := s.document()
	d.StatementKeys = []authz.TrustKey{must(authz.NewTrustKey(s.classical.Public())), must(authz.NewTrustKey(s.pq.Public()))}
	d.Statement = statement.NeedBoth
	s.trust = must(authz.OpenTrust(must(authz.SignTrust(d.Next(nil), s.root))))
	return s
}

// approve makes f the target under an approved manifest, edited by change.
func (s *stater) approve(f *firmware, change func(*fw.Manifest)) {
	m := fw.Manifest{
		Type: fw.TypeManifest, Release: f.Release, Product: "gateway", Version: f.Version, ReleaseType: fw.ReleaseSecurity,
		Hardware: []fw.HardwareID{"gw-1", "gw-2"}, Components: []fw.ManifestComponent{{Name: f.Name, Format: f.Format, SecurityCounter: f.SecurityCounter}},
	}
	if change != nil {
		change(&m)
	}
	s.manifest = must(json.Marshal(m))
	s.target = f
	s.claims = func(c *authz.Claims) { c.Manifest = fw.DigestOf(s.manifest) }
}

// state returns the statement about image f, edited by change, under keys.
func (s *stater) state(f *firmware, change func(*statement.Statement), keys ...crypto.Signer) []byte {
	st := must(statement.Make(s.manifest, []fw.SignedImage{{
		Component: f.Name, Format: f.Format, Version: f.Version, SecurityCounter: f.SecurityCounter, Digest: f.Digest, Size: f.Size, Envelope: f.Envelope, KeyID: "k",
	}}))
	if change != nil {
		change(&st)
	}
	return must(dsse.Seal(statement.PayloadType, must(json.Marshal(st)), keys...))
}

// offer puts envelope beside the other artifacts; nil is none.
func (s *stater) offerStatement(envelope []byte) {
	if envelope == nil {
		return
	}
	d := fw.DigestOf(envelope)
	s.artifacts[d] = envelope
	s.reply = func(r *authz.CheckInReply) {
		if r.Action == authz.ActionUpdate {
			r.Artifacts = append(r.Artifacts, authz.Artifact{Digest: d, Size: int64(len(envelope)), Path: pathArtifact + d.String(), Component: "main", Kind: authz.ArtifactStatement})
		}
	}
}

func TestAStatedReleaseIsInstalled(t *testing.T) {
	s := newStater(t)
	dir, _ := s.enrol(nil)
	f := s.firmware("1.1.0", 4, randomBytes(1000))
	s.approve(f, nil)
	s.offerStatement(s.state(f, nil, s.classical, s.pq))
	s.await(dir, "confirmation", s.reported(fw.EventConfirmed))
	runs(t, dir, slotB, f)
}

func TestWhatIsNotStatedAsDemandedIsRejected(t *testing.T) {
	for _, c := range []struct {
		name     string
		manifest func(*fw.Manifest)
		make     func(s *stater, f *firmware) []byte
	}{
		{"no statement", nil, func(*stater, *firmware) []byte { return nil }},
		{"no signature", nil, func(s *stater, f *firmware) []byte { return s.state(f, nil) }},
		{"no post-quantum signature", nil, func(s *stater, f *firmware) []byte { return s.state(f, nil, s.classical) }},
		{"no classical signature", nil, func(s *stater, f *firmware) []byte { return s.state(f, nil, s.pq) }},
		{"strangers' keys", nil, func(s *stater, f *firmware) []byte {
			return s.state(f, nil, newKey(), must(mldsa.GenerateKey(mldsa.MLDSA65())))
		}},
		{"the image key", nil, func(s *stater, f *firmware) []byte { return s.state(f, nil, s.image, s.pq) }},
		{"another image", nil, func(s *stater, f *firmware) []byte {
			return s.state(f, func(st *statement.Statement) {
				st.Subject[0].Digest = map[string]string{"sha256": fw.DigestOf([]byte("x")).Hex()}
			}, s.classical, s.pq)
		}},
		{"another release", nil, func(s *stater, f *firmware) []byte {
			return s.state(f, func(st *statement.Statement) { st.Predicate.Release = "rel_other" }, s.classical, s.pq)
		}},
		{"another manifest", nil, func(s *stater, f *firmware) []byte {
			return s.state(f, func(st *statement.Statement) { st.Predicate.Manifest = fw.DigestOf([]byte("x")) }, s.classical, s.pq)
		}},
		{"a lower counter", nil, func(s *stater, f *firmware) []byte {
			return s.state(f, func(st *statement.Statement) { st.Predicate.Components[0].SecurityCounter-- }, s.classical, s.pq)
		}},
		{"other hardware", func(m *fw.Manifest) { m.Hardware = []fw.HardwareID{"gw-1"} }, func(s *stater, f *firmware) []byte {
			return s.state(f, nil, s.classical, s.pq)
		}},
		{"not a statement", nil, func(*stater, *firmware) []byte { return []byte("{}") }},
		{"too long", nil, func(*stater, *firmware) []byte { return randomBytes(statement.MaxSize + 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStater(t)
			dir, factory := s.enrol(nil)
			f := s.firmware("1.1.0", 4, randomBytes(1000))
			s.approve(f, c.manifest)
			s.offerStatement(c.make(s, f))
			s.await(dir, "rejection", s.reported(fw.EventRejected))
			if r := s.last(); r.Reason != fw.RejectStatement || time.Now().Unix() < r.Time {
				t.Errorf("reason %s (%s)", r.Reason, r.Detail)
			}
			runs(t, dir, slotA, factory)
		})
	}
}
