package access

import (
	"context"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// Token is what may be shown of a token.
type Token struct {
	ID        string      `json:"id"`
	Person    fw.PersonID `json:"person"`
	Name      string      `json:"name"`
	Roles     []fw.Role   `json:"roles"`
	CreatedAt time.Time   `json:"created_at"`
	ExpiresAt time.Time   `json:"expires_at"`
	RevokedAt time.Time   `json:"revoked_at,omitzero"`
}

// Live reports whether the token, as such, works at now; its person may still
// be disabled.
func (t Token) Live(now time.Time) bool { return t.RevokedAt.IsZero() && now.Before(t.ExpiresAt) }

// Issued is a new token with its secret, which is shown now or never.
type Issued struct {
	Token
	Secret Secret `json:"-"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Person fw.PersonID
	Name   string // what it is for
	Roles  []fw.Role
	TTL    time.Duration // from MinTTL to MaxTTL
}

func (r *TokenRequest) check() error {
	if err := checkName("the name of a token", r.Name); err != nil {
		return err
	}
	if r.TTL < MinTTL || r.TTL > MaxTTL {
		return fw.Errorf(fw.Invalid, "a token must live from %v to %d days", MinTTL, MaxTTL/(24*time.Hour))
	}
	names := make([]string, len(r.Roles))
	for i, role := range r.Roles {
		names[i] = string(role)
	}
	roles, err := ParseRoles(names)
	r.Roles = roles
	return err
}

// CreateToken makes a token for a person and returns its secret, once.
func (a *Access) CreateToken(ctx context.Context, by Principal, req TokenRequest) (*Issued, error) {
	if err := by.Require(OperatorsAdmin); err != nil {
		return nil, err
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	if slices.Contains(req.Roles, fw.RoleApprover) && (by.Person == req.Person || by.Person == LocalPerson) {
		return nil, fw.Errorf(fw.Forbidden, "the approver role must be granted by another person, an admin with a token of their own")
	}
	var issued *Issued
	err := a.db.Tx(ctx, func(tx *store.Tx) (err error) {
		issued, err = a.insertToken(tx, by, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return issued, nil
}

func (a *Access) insertToken(tx *store.Tx, by Principal, req TokenRequest) (*Issued, error) {
	p, err := store.PersonByID(tx, req.Person)
	if err != nil {
		return nil, err
	}
	if p.Disabled {
		return nil, fw.Errorf(fw.Conflict, "operator %s is disabled and gets no more tokens", req.Person)
	}
	if err := a.keepApart(tx, req); err != nil {
		return nil, err
	}
	secret := newSecret()
	hash := secret.hash()
	now := tx.Now()
	row := store.AccessToken{
		ID: fw.NewID("tok", now), Person: req.Person, Name: req.Name, Roles: joinRoles(req.Roles), Hash: hash[:],
		CreatedAt: now.Unix(), ExpiresAt: now.Add(req.TTL).Unix(),
	}
	if err := store.InsertAccessToken(tx, row); err != nil {
		return nil, err
	}
	if err := a.append(tx, TypeTokenCreated, by, req.Person, tokenData(row, req.Roles)); err != nil {
		return nil, err
	}
	t, err := tokenOf(row)
	return &Issued{Token: t, Secret: secret}, err
}

// keepApart refuses a token that would make its person admin and approver at
// once, counting the tokens that live.
func (a *Access) keepApart(tx *store.Tx, req TokenRequest) error {
	tokens, err := store.AccessTokens(tx)
	if err != nil {
		return err
	}
	held := slices.Clone(req.Roles)
	for _, row := range tokens {
		if row.Person != req.Person || !live(row, tx.Now()) {
			continue
		}
		roles, err := storedRoles(row.Roles)
		if err != nil {
			return err
		}
		held = append(held, roles...)
	}
	if slices.Contains(held, fw.RoleAdmin) && slices.Contains(held, fw.RoleApprover) {
		return fw.Errorf(fw.Forbidden, "%s would be admin and approver at once: an admin never approves, so give one of the roles to another person", req.Person)
	}
	return nil
}

// keepAnAdmin refuses a change that takes away every live admin token.
func (a *Access) keepAnAdmin(tx *store.Tx, goes func(store.AccessToken) bool) error {
	tokens, err := store.AccessTokens(tx)
	if err != nil {
		return err
	}
	people, err := store.People(tx)
	if err != nil {
		return err
	}
	disabled := make(map[fw.PersonID]bool)
	for _, p := range people {
		disabled[p.ID] = p.Disabled
	}
	touched := false
	for _, row := range tokens {
		roles, err := storedRoles(row.Roles)
		if err != nil || !slices.Contains(roles, fw.RoleAdmin) || !live(row, tx.Now()) || disabled[row.Person] {
			continue // a token with unknown roles administers nothing
		}
		if !goes(row) {
			return nil
		}
		touched = true
	}
	if touched {
		return fw.Errorf(fw.Conflict, "this is the last admin: make another admin token first")
	}
	return nil
}

// RevokeToken revokes a token for good. Revoking again changes nothing.
// A person may revoke their own tokens without being an admin.
func (a *Access) RevokeToken(ctx context.Context, by Principal, id string) error {
	return a.db.Tx(ctx, func(tx *store.Tx) error {
		row, err := tokenByID(tx, id)
		if err != nil {
			// Whether the id exists is for admins to know.
			if rerr := by.Require(OperatorsAdmin); rerr != nil {
				return rerr
			}
			return err
		}
		if by.Person == "" || by.Person != row.Person {
			if err := by.Require(OperatorsAdmin); err != nil {
				return err
			}
		}
		if row.RevokedAt != 0 {
			return nil
		}
		if err := a.keepAnAdmin(tx, func(t store.AccessToken) bool { return t.ID == id }); err != nil {
			return err
		}
		if _, err := store.RevokeAccessToken(tx, id); err != nil {
			return err
		}
		roles, err := storedRoles(row.Roles)
		if err != nil {
			roles = nil // roles nobody knows must not keep a token alive
		}
		tx.OnCommit(a.cache.clear)
		return a.append(tx, TypeTokenRevoked, by, row.Person, tokenData(row, roles))
	})
}

// ListTokens returns the tokens of one person, or of everybody when person is
// empty, oldest first.
func (a *Access) ListTokens(ctx context.Context, person fw.PersonID) ([]Token, error) {
	rows, err := store.AccessTokens(a.db.Snapshot(ctx))
	if err != nil {
		return nil, err
	}
	var out []Token
	for _, row := range rows {
		if person != "" && row.Person != person {
			continue
		}
		t, err := tokenOf(row)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func tokenByID(tx *store.Tx, id string) (store.AccessToken, error) {
	rows, err := store.AccessTokens(tx)
	if err != nil {
		return store.AccessToken{}, err
	}
	i := slices.IndexFunc(rows, func(t store.AccessToken) bool { return t.ID == id })
	if i < 0 {
		return store.AccessToken{}, fw.Errorf(fw.NotFound, "there is no token %.64q: list the tokens to find it", id)
	}
	return rows[i], nil
}

func live(row store.AccessToken, now time.Time) bool {
	return row.RevokedAt == 0 && now.Unix() < row.ExpiresAt
}

func tokenData(row store.AccessToken, roles []fw.Role) TokenData {
	return TokenData{Token: row.ID, Person: row.Person, Name: row.Name, Roles: roles, ExpiresAt: row.ExpiresAt}
}

func tokenOf(row store.AccessToken) (Token, error) {
	roles, err := storedRoles(row.Roles)
	if err != nil {
		return Token{}, err
	}
	t := Token{
		ID: row.ID, Person: row.Person, Name: row.Name, Roles: roles,
		CreatedAt: time.Unix(row.CreatedAt, 0).UTC(), ExpiresAt: time.Unix(row.ExpiresAt, 0).UTC(),
	}
	if row.RevokedAt != 0 {
		t.RevokedAt = time.Unix(row.RevokedAt, 0).UTC()
	}
	return t, nil
}
