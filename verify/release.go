package verify

import (
	"encoding/json"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
)

// release is what the log has said about a release so far.
type release struct {
	state    fw.ReleaseState
	manifest *fw.Manifest
	document []byte // exact bytes of the manifest
	uses     map[int64]*keyUse
	signed   map[fw.ComponentName]*evidence.Signed
	stated   *evidence.Stated // the release statement; nil: none
}

func (a *auditor) releaseProposed(it *item, document []byte) {
	m := new(fw.Manifest)
	if err := strict(document, m); err != nil {
		a.fail(it, "the manifest cannot be read: %v", err)
		return
	}
	if r := a.releases[m.Release]; r != nil && (r.state == fw.ReleasePublished || r.state == fw.ReleaseWithdrawn) {
		a.fail(it, "release %s is %s and was changed", m.Release, r.state)
		return
	}
	if _, ok := it.rec.Link(evidence.ReleaseStream(m.Release)); !ok {
		a.fail(it, "it is not in the stream of the release it proposes")
	}
	a.hold(sizeSmall + 4*len(document))
	a.docs.manifests[fw.DigestOf(document)] = m
	a.releases[m.Release] = &release{
		state: fw.ReleaseInReview, manifest: m, document: document,
		uses: make(map[int64]*keyUse), signed: make(map[fw.ComponentName]*evidence.Signed),
	}
}

// keyUsed checks a decision that a key may be used.
func (a *auditor) keyUsed(it *item, d *keyUse) {
	if d.Purpose == fw.PurposeStatement {
		a.statementAllowed(it, d)
		return
	}
	if d.Purpose != fw.PurposeImage {
		if len(d.Document) > 0 && fw.DigestOf(d.Document) != d.Subject {
			a.fail(it, "the key was allowed for another document than the one in it")
		}
		return
	}
	var m fw.Manifest
	if err := strict(d.Document, &m); err != nil {
		a.fail(it, "the manifest that it stands on cannot be read: %v", err)
		return
	}
	s := evidence.ReleaseStream(m.Release)
	r := a.releases[m.Release]
	if r == nil {
		a.failIn(s, it, "key %s was used for release %s before it was proposed", d.Key, m.Release)
		return
	}
	a.hold(sizeSmall + 2*len(d.Document))
	r.uses[it.frame.Index] = d
	if string(r.document) != string(d.Document) {
		a.failIn(s, it, "key %s was used for another manifest than the one proposed last", d.Key)
	}
	need := max(1, a.docs.products[m.Product].Quorum)
	if what := a.quorum(d.Document, d.Approvals, need, m.ProposedBy); what != "" {
		a.failIn(s, it, "key %s was used for release %s without approval: %s", d.Key, m.Release, what)
	}
	for _, c := range m.Components {
		if c.InputDigest == d.Subject && c.Key == d.Key {
			return
		}
	}
	a.failIn(s, it, "key %s was allowed for bytes that are not in the manifest", d.Key)
}

// imageSigned checks that an image was signed under a decision about it.
func (a *auditor) imageSigned(it *item, d *evidence.Signed) {
	s := evidence.ReleaseStream(d.Release)
	r := a.releases[d.Release]
	if r == nil {
		a.failIn(s, it, "an image of release %s was signed before it was proposed", d.Release)
		return
	}
	a.hold(sizeSmall + len(it.rec.Data))
	r.signed[d.Component] = d
	use := r.uses[d.Decision]
	switch key := a.ring.keys[d.Key]; {
	case use == nil:
		a.failIn(s, it, "record %d, on which the signature stands, is no decision about release %s", d.Decision, d.Release)
	case use.Key != d.Key || use.Subject != d.Input:
		a.failIn(s, it, "the decision in record %d was about another key or other bytes", d.Decision)
	case d.Provenance != r.manifest.Provenance && (d.SignedAt != 0 || !d.Provenance.IsZero()):
		a.failIn(s, it, "the signer saw another build provenance than the manifest names")
	case key.Purpose != fw.PurposeImage || key.KeyID != d.KeyID:
		a.failIn(s, it, "key %s with id %s is not an image key of this log", d.Key, clip(d.KeyID))
	}
}

// published checks a publication against what was approved and signed.
func (a *auditor) published(it *item, d *evidence.Published) {
	p := new(fw.Publication)
	if err := strict(d.Document, p); err != nil {
		a.fail(it, "the publication cannot be read: %v", err)
		return
	}
	s := evidence.ReleaseStream(p.Release)
	a.hold(sizeSmall + 3*len(d.Document))
	a.docs.publications[fw.DigestOf(d.Document)] = p
	r := a.releases[p.Release]
	if r == nil {
		a.failIn(s, it, "release %s was published before it was proposed", p.Release)
		return
	}
	r.state = fw.ReleasePublished
	m := r.manifest
	if p.Manifest != fw.DigestOf(r.document) || p.Product != m.Product || p.Version != m.Version || len(p.Images) != len(m.Components) {
		a.failIn(s, it, "what was published of release %s is not what was approved", p.Release)
		return
	}
	a.publishedStatement(it, s, r, p)
	for i, img := range p.Images {
		c, g := m.Components[i], r.signed[img.Component]
		switch {
		case img.Component != c.Name || img.Format != c.Format || img.SecurityCounter != c.SecurityCounter || img.Version != m.Version:
			a.failIn(s, it, "image %s of release %s is not the approved one", img.Component, p.Release)
		case g == nil:
			a.failIn(s, it, "image %s of release %s was published without a record of its signature", img.Component, p.Release)
		case g.Input != c.InputDigest || g.Output != img.Digest || g.Size != img.Size || g.Envelope != img.Envelope || g.KeyID != img.KeyID || g.Key != c.Key || g.Format != img.Format:
			a.failIn(s, it, "image %s of release %s is not the one that was signed", img.Component, p.Release)
		}
	}
}

func (a *auditor) withdrawn(d *evidence.Withdrawn) {
	if r := a.releases[d.Release]; r != nil {
		r.state = fw.ReleaseWithdrawn
	}
}

// plain decodes a document whose form an older or newer version may have made.
func plain(b []byte, v any) bool { return json.Unmarshal(b, v) == nil }
