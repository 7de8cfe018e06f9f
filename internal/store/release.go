package store

import (
	"github.com/writ-project/writ/internal/fw"
)

// Release is a row of release.
type Release struct {
	ID                fw.ReleaseID
	Product           fw.ProductID
	Version           string
	Type              fw.ReleaseType
	State             fw.ReleaseState
	Manifest          []byte // exact bytes of fw.Manifest
	ManifestDigest    []byte
	Publication       []byte // exact bytes of fw.Publication; nil until published
	PublicationDigest []byte
	Proposer          fw.PersonID
	WithdrawnReason   string
	CreatedAt         int64
	PublishedAt       int64
}

const releaseColumns = "id, product, version, type, state, manifest, manifest_digest, publication, publication_digest, proposer, withdrawn_reason, created_at, published_at"

func scanRelease(s interface{ Scan(...any) error }) (r Release, err error) {
	err = s.Scan(&r.ID, &r.Product, &r.Version, &r.Type, &r.State, &r.Manifest, &r.ManifestDigest, &r.Publication, &r.PublicationDigest, &r.Proposer, &r.WithdrawnReason, &r.CreatedAt, &r.PublishedAt)
	return r, err
}

// InsertRelease adds a release in draft.
func InsertRelease(tx *Tx, r Release) error {
	_, err := tx.exec("INSERT INTO release (id, product, version, type, state, manifest, manifest_digest, proposer, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		r.ID, r.Product, r.Version, r.Type, r.State, r.Manifest, r.ManifestDigest, r.Proposer, r.CreatedAt)
	return err
}

// ReleaseByID returns one release.
func ReleaseByID(q Queryer, id fw.ReleaseID) (Release, error) {
	r, err := scanRelease(q.queryRow("SELECT "+releaseColumns+" FROM release WHERE id = $1", id))
	return r, notFound(err, "there is no release %q", id)
}

// ReleaseState returns the state of a release.
func ReleaseState(q Queryer, id fw.ReleaseID) (fw.ReleaseState, error) {
	var st fw.ReleaseState
	err := q.queryRow("SELECT state FROM release WHERE id = $1", id).Scan(&st)
	return st, notFound(err, "there is no release %q", id)
}

// ReleaseFilter selects releases, newest first.
type ReleaseFilter struct {
	Product fw.ProductID // empty: any
	After   fw.ReleaseID // the last one of the page before; empty: from the newest
	Limit   int
}

// Releases returns releases, newest first.
func Releases(q Queryer, f ReleaseFilter) ([]Release, error) {
	var at int64
	if f.After != "" {
		err := q.queryRow("SELECT created_at FROM release WHERE id = $1", f.After).Scan(&at)
		if err = notFound(err, "there is no release %q to go on after", f.After); err != nil {
			return nil, err
		}
	}
	rows, err := q.query("SELECT "+releaseColumns+" FROM release WHERE ($1 = '' OR product = $1) AND ($2 = '' OR created_at < $3 OR created_at = $3 AND id < $2) ORDER BY created_at DESC, id DESC LIMIT $4",
		string(f.Product), string(f.After), at, f.Limit)
	return collect(rows, err, scanRelease)
}

// SetReleaseManifest replaces the manifest of a draft.
func SetReleaseManifest(tx *Tx, r Release) error {
	n, err := tx.exec("UPDATE release SET version = $2, type = $3, state = $4, manifest = $5, manifest_digest = $6, proposer = $7 WHERE id = $1 AND state IN ('draft', 'in_review', 'approved')",
		r.ID, r.Version, r.Type, r.State, r.Manifest, r.ManifestDigest, r.Proposer)
	if err == nil && n != 1 {
		return fw.Errorf(fw.Conflict, "release %s is published and cannot be edited: propose a new release", r.ID)
	}
	return err
}

// SetReleaseState moves a release.
func SetReleaseState(tx *Tx, id fw.ReleaseID, from, to fw.ReleaseState, withdrawnReason string) error {
	tx.batch.Changes++
	n, err := tx.exec("UPDATE release SET state = $3, withdrawn_reason = $4 WHERE id = $1 AND state = $2", id, from, to, withdrawnReason)
	if err == nil && n != 1 {
		return fw.Errorf(fw.Conflict, "release %s is no longer %s: look again", id, from)
	}
	return err
}

// PublishRelease stores the publication and moves the release to published.
func PublishRelease(tx *Tx, r Release) error {
	n, err := tx.exec("UPDATE release SET state = 'published', publication = $2, publication_digest = $3, published_at = $4 WHERE id = $1 AND state = 'approved'",
		r.ID, r.Publication, r.PublicationDigest, r.PublishedAt)
	if err == nil && n != 1 {
		return fw.Errorf(fw.Conflict, "release %s is not approved, so it cannot be published", r.ID)
	}
	return err
}

// Artifact is something a device may download.
type Artifact struct {
	Digest  fw.Digest
	Release fw.ReleaseID
	Kind    string // image, envelope, sbom
	Size    int64
}

// InsertArtifact makes a blob downloadable as part of a release.
func InsertArtifact(tx *Tx, a Artifact) error {
	_, err := tx.exec("INSERT INTO artifact (digest, release, kind, size) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", a.Digest[:], a.Release, a.Kind, a.Size)
	return err
}

// ArtifactsByDigest returns what a digest is part of.
func ArtifactsByDigest(q Queryer, d fw.Digest) ([]Artifact, error) {
	rows, err := q.query("SELECT release, kind, size FROM artifact WHERE digest = $1", d[:])
	return collect(rows, err, func(s interface{ Scan(...any) error }) (Artifact, error) {
		a := Artifact{Digest: d}
		err := s.Scan(&a.Release, &a.Kind, &a.Size)
		return a, err
	})
}

// Upload is a row of upload.
type Upload struct {
	ID        string
	Person    fw.PersonID
	Digest    fw.Digest // announced by the client, checked at the end
	Size      int64
	CreatedAt int64
	DoneAt    int64
}

// InsertUpload starts an upload.
func InsertUpload(tx *Tx, u Upload) error {
	_, err := tx.exec("INSERT INTO upload (id, person, digest, size, created_at) VALUES ($1, $2, $3, $4, $5)", u.ID, u.Person, u.Digest[:], u.Size, u.CreatedAt)
	return err
}

// UploadByID returns one upload.
func UploadByID(q Queryer, id string) (Upload, error) {
	var u Upload
	var d []byte
	err := q.queryRow("SELECT id, person, digest, size, created_at, done_at FROM upload WHERE id = $1", id).Scan(&u.ID, &u.Person, &d, &u.Size, &u.CreatedAt, &u.DoneAt)
	copy(u.Digest[:], d)
	return u, notFound(err, "there is no upload %q: start it again", id)
}

// FinishUpload marks an upload complete.
func FinishUpload(tx *Tx, id string) error {
	_, err := tx.exec("UPDATE upload SET done_at = $2 WHERE id = $1", id, tx.now.Unix())
	return err
}

// Policy is a row of policy.
type Policy struct {
	Digest    fw.Digest
	Name      string
	Body      []byte
	CreatedAt int64
}

func scanPolicy(s interface{ Scan(...any) error }) (p Policy, err error) {
	var d []byte
	err = s.Scan(&d, &p.Name, &p.Body, &p.CreatedAt)
	copy(p.Digest[:], d)
	return p, err
}

// InsertPolicy adds a policy. It reports whether it is new.
func InsertPolicy(tx *Tx, p Policy) (bool, error) {
	n, err := tx.exec("INSERT INTO policy (digest, name, body, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (digest) DO NOTHING", p.Digest[:], p.Name, p.Body, p.CreatedAt)
	return n == 1, err
}

// PolicyByDigest returns one policy.
func PolicyByDigest(q Queryer, d fw.Digest) (Policy, error) {
	p, err := scanPolicy(q.queryRow("SELECT digest, name, body, created_at FROM policy WHERE digest = $1", d[:]))
	return p, notFound(err, "there is no policy %s", d)
}

// Policies returns every policy, newest first.
func Policies(q Queryer) ([]Policy, error) {
	rows, err := q.query("SELECT digest, name, body, created_at FROM policy ORDER BY created_at DESC, name")
	return collect(rows, err, scanPolicy)
}
