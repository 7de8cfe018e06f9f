package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// ReplicaTTL bounds how long a replica that shares its database goes on
// accepting a token that another replica revoked.
const ReplicaTTL = 5 * time.Second

// maxCached bounds the cache; it is emptied when it would grow over it.
const maxCached = 4096

// Authenticate returns who bearer, an access token, stands for at now.
func (a *Access) Authenticate(ctx context.Context, bearer string, now time.Time) (Principal, error) {
	secret, err := parseSecret(bearer)
	if err != nil {
		return Principal{}, err
	}
	hash := secret.hash()
	c, generation := a.cache.get(hash, now)
	if c != nil {
		return c.check(now)
	}
	q := a.db.Snapshot(ctx)
	row, err := store.AccessTokenByHash(q, hash[:])
	if fw.KindOf(err) == fw.NotFound {
		return Principal{}, fw.Errorf(fw.Unauthenticated, "this access token is not known here: ask an admin for one")
	}
	if err != nil {
		return Principal{}, err
	}
	// The index compared already, in a time that depends on the data. What it
	// depends on is a SHA-256 of 256 random bits, so nothing can be learnt from
	// it; this comparison makes the acceptance itself independent of it.
	if subtle.ConstantTimeCompare(row.Hash, hash[:]) != 1 {
		return Principal{}, fw.Errorf(fw.Unauthenticated, "this access token is not known here: ask an admin for one")
	}
	if row.RevokedAt != 0 {
		return Principal{}, fw.Errorf(fw.Unauthenticated, "this access token was revoked: ask an admin for another")
	}
	person, err := store.PersonByID(q, row.Person)
	if err != nil {
		return Principal{}, err
	}
	if person.Disabled {
		return Principal{}, fw.Errorf(fw.Unauthenticated, "the operator of this access token is disabled")
	}
	roles, err := storedRoles(row.Roles)
	if err != nil {
		return Principal{}, err
	}
	fresh := &cached{
		principal: Principal{Person: row.Person, TokenID: row.ID, Roles: roles},
		expires:   time.Unix(row.ExpiresAt, 0),
		read:      now,
	}
	p, err := fresh.check(now)
	if err == nil {
		a.cache.put(hash, fresh, generation)
	}
	return p, err
}

// cached is a token that was good when it was read.
type cached struct {
	principal Principal
	expires   time.Time
	read      time.Time
}

// check looks at the clock, which a cache cannot answer for.
func (c *cached) check(now time.Time) (Principal, error) {
	if !now.Before(c.expires) {
		return Principal{}, fw.Errorf(fw.Unauthenticated, "this access token expired on %s: ask an admin for another", c.expires.UTC().Format(time.DateOnly))
	}
	return c.principal, nil
}

// cache keeps good tokens by the hash of their secret. A reader takes the
// generation before it reads the database and may only put what it read while
// no revocation has come between; so a revoked token is never put back.
type cache struct {
	ttl time.Duration // 0: until cleared

	mu         sync.Mutex
	generation uint64
	m          map[[sha256.Size]byte]*cached
}

func newCache(onlyWriter bool) *cache {
	c := &cache{m: make(map[[sha256.Size]byte]*cached)}
	if !onlyWriter {
		c.ttl = ReplicaTTL
	}
	return c
}

func (c *cache) get(hash [sha256.Size]byte, now time.Time) (hit *cached, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[hash]
	// A clock that went back makes an entry's age unknown.
	if e != nil && c.ttl > 0 && (now.Sub(e.read) >= c.ttl || now.Before(e.read)) {
		delete(c.m, hash)
		e = nil
	}
	return e, c.generation
}

func (c *cache) put(hash [sha256.Size]byte, e *cached, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	if len(c.m) >= maxCached {
		clear(c.m)
	}
	c.m[hash] = e
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	clear(c.m)
}
