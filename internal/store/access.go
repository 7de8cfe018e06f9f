package store

import (
	"github.com/writ-project/writ/internal/fw"
)

// Person is a row of person.
type Person struct {
	ID        fw.PersonID
	Name      string
	CreatedAt int64
	Disabled  bool
}

func scanPerson(s interface{ Scan(...any) error }) (p Person, err error) {
	var disabled int64
	err = s.Scan(&p.ID, &p.Name, &p.CreatedAt, &disabled)
	p.Disabled = disabled != 0
	return p, err
}

// InsertPerson adds a person. It reports whether the id was free.
func InsertPerson(tx *Tx, p Person) (bool, error) {
	n, err := tx.exec("INSERT INTO person (id, name, created_at, disabled) VALUES ($1, $2, $3, 0) ON CONFLICT (id) DO NOTHING", p.ID, p.Name, p.CreatedAt)
	return n == 1, err
}

// SetPersonDisabled disables a person for good: their tokens stop working.
func SetPersonDisabled(tx *Tx, id fw.PersonID) error {
	_, err := tx.exec("UPDATE person SET disabled = 1 WHERE id = $1", id)
	return err
}

// PersonByID returns one person.
func PersonByID(q Queryer, id fw.PersonID) (Person, error) {
	p, err := scanPerson(q.queryRow("SELECT id, name, created_at, disabled FROM person WHERE id = $1", id))
	return p, notFound(err, "there is no operator %q", id)
}

// People returns every person in order of id.
func People(q Queryer) ([]Person, error) {
	rows, err := q.query("SELECT id, name, created_at, disabled FROM person ORDER BY id")
	return collect(rows, err, scanPerson)
}

// AccessToken is a row of access_token. Only the SHA-256 of the secret is kept.
type AccessToken struct {
	ID        string
	Person    fw.PersonID
	Name      string
	Roles     string // comma-separated fw.Role
	Hash      []byte
	CreatedAt int64
	ExpiresAt int64
	RevokedAt int64
}

const tokenColumns = "id, person, name, roles, hash, created_at, expires_at, revoked_at"

func scanToken(s interface{ Scan(...any) error }) (t AccessToken, err error) {
	err = s.Scan(&t.ID, &t.Person, &t.Name, &t.Roles, &t.Hash, &t.CreatedAt, &t.ExpiresAt, &t.RevokedAt)
	return t, err
}

// InsertAccessToken adds a token.
func InsertAccessToken(tx *Tx, t AccessToken) error {
	_, err := tx.exec("INSERT INTO access_token ("+tokenColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, 0)",
		t.ID, t.Person, t.Name, t.Roles, t.Hash, t.CreatedAt, t.ExpiresAt)
	return err
}

// AccessTokenByHash returns one token.
func AccessTokenByHash(q Queryer, hash []byte) (AccessToken, error) {
	t, err := scanToken(q.queryRow("SELECT "+tokenColumns+" FROM access_token WHERE hash = $1", hash))
	return t, notFound(err, "this token is not known")
}

// AccessTokens returns every token, newest last.
func AccessTokens(q Queryer) ([]AccessToken, error) {
	rows, err := q.query("SELECT " + tokenColumns + " FROM access_token ORDER BY created_at, id")
	return collect(rows, err, scanToken)
}

// RevokeAccessToken revokes a token and reports whether it was live.
func RevokeAccessToken(tx *Tx, id string) (bool, error) {
	n, err := tx.exec("UPDATE access_token SET revoked_at = $2 WHERE id = $1 AND revoked_at = 0", id, tx.now.Unix())
	return n == 1, err
}

// Versioned is a row of roster or trust_bundle.
type Versioned struct {
	Version  int64
	Envelope []byte
}

// VersionedTable names a table of versioned signed documents.
type VersionedTable string

// The versioned documents.
const (
	RosterTable      VersionedTable = "roster"
	TrustBundleTable VersionedTable = "trust_bundle"
)

// InsertVersioned adds the next version of a document.
func InsertVersioned(tx *Tx, t VersionedTable, v Versioned) error {
	tx.batch.Changes++
	_, err := tx.exec("INSERT INTO "+string(t)+" (version, envelope) VALUES ($1, $2)", v.Version, v.Envelope)
	return err
}

// VersionedDocs returns every version in order.
func VersionedDocs(q Queryer, t VersionedTable) ([]Versioned, error) {
	rows, err := q.query("SELECT version, envelope FROM " + string(t) + " ORDER BY version")
	return collect(rows, err, func(s interface{ Scan(...any) error }) (v Versioned, err error) {
		err = s.Scan(&v.Version, &v.Envelope)
		return v, err
	})
}

// LatestVersioned returns the newest version of a document.
func LatestVersioned(q Queryer, t VersionedTable) (Versioned, error) {
	var v Versioned
	err := q.queryRow("SELECT version, envelope FROM "+string(t)+" ORDER BY version DESC LIMIT 1").Scan(&v.Version, &v.Envelope)
	return v, notFound(err, "there is no %s yet", string(t))
}

// Approval is a row of approval: one person's signature over exact bytes.
type Approval struct {
	Subject   fw.Digest
	Person    fw.PersonID
	Armored   string
	Index     int64 // of its evidence record
	CreatedAt int64
}

// InsertApproval adds an approval. It reports whether the person had none yet.
func InsertApproval(tx *Tx, a Approval) (bool, error) {
	tx.batch.Changes++
	n, err := tx.exec("INSERT INTO approval (subject, person, armored, idx, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (subject, person) DO NOTHING",
		a.Subject[:], a.Person, a.Armored, a.Index, a.CreatedAt)
	return n == 1, err
}

// Approvals returns the approvals of a subject in the order given.
func Approvals(q Queryer, subject fw.Digest) ([]Approval, error) {
	rows, err := q.query("SELECT person, armored, idx, created_at FROM approval WHERE subject = $1 ORDER BY idx", subject[:])
	return collect(rows, err, func(s interface{ Scan(...any) error }) (Approval, error) {
		a := Approval{Subject: subject}
		err := s.Scan(&a.Person, &a.Armored, &a.Index, &a.CreatedAt)
		return a, err
	})
}
