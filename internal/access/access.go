package access

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// Types of evidence records and their data.
const (
	TypePersonCreated  = "person_added"
	TypePersonDisabled = "person_disabled"
	TypeTokenCreated   = "token_created"
	TypeTokenRevoked   = "token_revoked"
)

// PersonData is the data of operator.created and operator.disabled.
type PersonData struct {
	Person fw.PersonID `json:"person"`
	Name   string      `json:"name,omitempty"`
}

// TokenData is the data of token.created and token.revoked.
type TokenData struct {
	Token     string      `json:"token"`
	Person    fw.PersonID `json:"person"`
	Name      string      `json:"name"`
	Roles     []fw.Role   `json:"roles"`
	ExpiresAt int64       `json:"expires_at"` // Unix seconds
}

// Stream returns the evidence stream of a person.
func Stream(p fw.PersonID) string { return "operator/" + string(p) }

// Recorder appends an evidence record in tx and returns its index.
type Recorder func(tx *store.Tx, typ string, streams []string, actor string, data any) (int64, error)

// Bounds of tokens.
const (
	MinTTL       = time.Minute
	MaxTTL       = 366 * 24 * time.Hour
	BootstrapTTL = 90 * 24 * time.Hour

	maxName = 128 // bytes of a display name
)

// BootstrapPerson is the person the first run makes.
const BootstrapPerson fw.PersonID = "admin"

// Access is the service of operators and their tokens.
type Access struct {
	db     *store.DB
	record Recorder
	cache  *cache
}

// New returns the service. record is called inside its transactions.
func New(db *store.DB, record Recorder) *Access {
	return &Access{db: db, record: record, cache: newCache(db.Embedded())}
}

// CreatePerson adds a person. Ids are chosen, unique for ever, and never
// used again.
func (a *Access) CreatePerson(ctx context.Context, by Principal, id, name string) error {
	if err := by.Require(OperatorsAdmin); err != nil {
		return err
	}
	if _, err := fw.ParseName("the id of an operator", id); err != nil {
		return err
	}
	if err := checkName("the name of an operator", name); err != nil {
		return err
	}
	if fw.PersonID(id) == LocalPerson {
		return fw.Errorf(fw.Invalid, "the id %s means the host itself: choose another", LocalPerson)
	}
	return a.db.Tx(ctx, func(tx *store.Tx) error {
		return a.createPerson(tx, by, fw.PersonID(id), name)
	})
}

func (a *Access) createPerson(tx *store.Tx, by Principal, id fw.PersonID, name string) error {
	free, err := store.InsertPerson(tx, store.Person{ID: id, Name: name, CreatedAt: tx.Now().Unix()})
	if err != nil {
		return err
	}
	if !free {
		return fw.Errorf(fw.Conflict, "there is or was an operator %q: choose another id", id)
	}
	return a.append(tx, TypePersonCreated, by, id, PersonData{Person: id, Name: name})
}

// DisablePerson disables a person for good; all their tokens stop working.
// Disabling again changes nothing.
func (a *Access) DisablePerson(ctx context.Context, by Principal, id fw.PersonID) error {
	if err := by.Require(OperatorsAdmin); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *store.Tx) error {
		p, err := store.PersonByID(tx, id)
		if err != nil || p.Disabled {
			return err
		}
		if err := a.keepAnAdmin(tx, func(t store.AccessToken) bool { return t.Person == id }); err != nil {
			return err
		}
		if err := store.SetPersonDisabled(tx, id); err != nil {
			return err
		}
		tx.OnCommit(a.cache.clear)
		return a.append(tx, TypePersonDisabled, by, id, PersonData{Person: id})
	})
}

// People returns every person, disabled ones included, in order of id.
func (a *Access) People(ctx context.Context) ([]store.Person, error) {
	return store.People(a.db.Snapshot(ctx))
}

// Bootstrap makes the first person and an admin token when there is no
// person yet. Otherwise it returns nil and changes nothing.
func (a *Access) Bootstrap(ctx context.Context) (*Issued, error) {
	var issued *Issued
	err := a.db.Tx(ctx, func(tx *store.Tx) error {
		issued = nil
		people, err := store.People(tx)
		if err != nil || len(people) > 0 {
			return err
		}
		if err := a.createPerson(tx, Local(), BootstrapPerson, "Local administrator"); err != nil {
			return err
		}
		everything := slices.DeleteFunc(slices.Clone(fw.Roles), func(r fw.Role) bool { return r == fw.RoleApprover })
		issued, err = a.insertToken(tx, Local(), TokenRequest{Person: BootstrapPerson, Name: "first run", Roles: everything, TTL: BootstrapTTL})
		return err
	})
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// append writes the evidence of a change to a person.
func (a *Access) append(tx *store.Tx, typ string, by Principal, subject fw.PersonID, data any) error {
	_, err := a.record(tx, typ, []string{Stream(subject)}, string(by.Person), data)
	return err
}

// checkName bounds a text for display.
func checkName(what, s string) error {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) || strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fw.Errorf(fw.Invalid, "%s must be 1 to %d bytes of printable text without spaces around it", what, maxName)
	}
	return nil
}
