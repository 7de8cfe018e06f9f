package access_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/store"
)

// world is a service on a database with a clock and a recorder of its own.
type world struct {
	*access.Access
	t       *testing.T
	db      *store.DB
	mu      sync.Mutex
	now     time.Time
	records []string
	fail    error // of the recorder
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) record(tx *store.Tx, typ string, streams []string, actor string, data any) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return 0, w.fail
	}
	b, err := json.Marshal(data)
	if err != nil {
		return 0, err
	}
	line := fmt.Sprintf("%s %v by %s %s", typ, streams, actor, b)
	tx.OnCommit(func() { w.records = append(w.records, line) })
	return int64(len(w.records)), nil
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	w := &world{t: t, now: time.Unix(1_790_000_000, 0).UTC()}
	db, err := store.Open(t.Context(), store.Options{URL: url, Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.db = db
	w.Access = access.New(db, w.record)
	return w
}

// each runs f on both databases.
func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	fwtest.EachDatabase(t, func(t *testing.T, url string) { f(t, newWorld(t, url)) })
}

func (w *world) first() access.Principal {
	w.t.Helper()
	issued, err := w.Bootstrap(w.t.Context())
	if err != nil || issued == nil {
		w.t.Fatalf("Bootstrap: %v, %v", issued, err)
	}
	return w.must(issued)
}

func (w *world) must(issued *access.Issued) access.Principal {
	w.t.Helper()
	p, err := w.Authenticate(w.t.Context(), issued.Secret.Reveal(), w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) person(by access.Principal, id string) {
	w.t.Helper()
	if err := w.CreatePerson(w.t.Context(), by, id, strings.ToUpper(id)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) token(by access.Principal, person fw.PersonID, roles ...fw.Role) (*access.Issued, error) {
	return w.CreateToken(w.t.Context(), by, access.TokenRequest{Person: person, Name: "test", Roles: roles, TTL: time.Hour})
}

func (w *world) mustToken(by access.Principal, person fw.PersonID, roles ...fw.Role) *access.Issued {
	w.t.Helper()
	issued, err := w.token(by, person, roles...)
	if err != nil {
		w.t.Fatal(err)
	}
	return issued
}

func wantKind(t *testing.T, err error, kind fw.Kind) {
	t.Helper()
	if fw.KindOf(err) != kind {
		t.Fatalf("got error %v of kind %q, want %q", err, fw.KindOf(err), kind)
	}
}

func TestTheFirstRunMakesOneAdminOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var issued []*access.Issued
		for range 8 { // replicas that start together
			wg.Go(func() {
				i, err := w.Bootstrap(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if i != nil {
					issued = append(issued, i)
				}
			})
		}
		wg.Wait()
		if len(issued) != 1 {
			t.Fatalf("%d first tokens, want 1", len(issued))
		}
		p := w.must(issued[0])
		if p.Person != access.BootstrapPerson || !p.Can(access.OperatorsAdmin) || p.Can(access.ApprovalsWrite) {
			t.Errorf("first principal: %+v", p)
		}
		want := []string{
			`person_added [operator/admin] by local-host {"person":"admin","name":"Local administrator"}`,
			fmt.Sprintf(`token_created [operator/admin] by local-host {"token":%q,"person":"admin","name":"first run","roles":["viewer","device_operator","factory","release_engineer","security_officer","auditor","admin"],"expires_at":%d}`,
				p.TokenID, w.clock().Add(access.BootstrapTTL).Unix()),
		}
		if diff := cmp.Diff(want, w.records); diff != "" {
			t.Errorf("evidence (-want +got):\n%s", diff)
		}
		for _, r := range w.records {
			if strings.Contains(r, "writ_") {
				t.Errorf("the evidence holds a secret: %s", r)
			}
		}
	})
}

func TestNoChangeWithoutEvidence(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		w.person(admin, "bob")
		bob := w.mustToken(admin, "bob", fw.RoleViewer)
		before := w.snapshot()
		w.fail = errors.New("no ledger")
		_, tokenErr := w.token(admin, "bob", fw.RoleViewer)
		for _, err := range []error{
			w.CreatePerson(t.Context(), admin, "eve", "Eve"),
			w.DisablePerson(t.Context(), admin, "bob"),
			w.RevokeToken(t.Context(), admin, bob.ID),
			tokenErr,
		} {
			if !errors.Is(err, w.fail) {
				t.Errorf("got %v, want the recorder's error", err)
			}
		}
		if diff := cmp.Diff(before, w.snapshot()); diff != "" {
			t.Errorf("state changed without evidence:\n%s", diff)
		}
		w.must(bob)
	})
}

func (w *world) snapshot() string {
	w.t.Helper()
	people, err := w.People(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	tokens, err := w.ListTokens(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(people, tokens)
}

func TestWhoMayGrantWhat(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		for _, id := range []string{"ada", "bob", "gone"} {
			w.person(admin, id)
		}
		ada := w.must(w.mustToken(admin, "ada", fw.RoleAdmin))
		if err := w.DisablePerson(t.Context(), admin, "gone"); err != nil {
			t.Fatal(err)
		}
		viewer := access.Principal{Person: "bob", Roles: []fw.Role{fw.RoleViewer}}
		for _, tt := range []struct {
			name  string
			by    access.Principal
			to    fw.PersonID
			roles []fw.Role
			kind  fw.Kind // "" is granted
		}{
			{"an admin gives another the approver role", admin, "bob", []fw.Role{fw.RoleApprover}, ""},
			{"and nobody then makes that approver an admin", ada, "bob", []fw.Role{fw.RoleAdmin}, fw.Forbidden},
			{"an admin gives himself the approver role", ada, "ada", []fw.Role{fw.RoleApprover}, fw.Forbidden},
			{"another gives an admin the approver role", admin, "ada", []fw.Role{fw.RoleApprover}, fw.Forbidden},
			{"admin and approver in one token", admin, "gone", []fw.Role{fw.RoleAdmin, fw.RoleApprover}, fw.Conflict},
			{"the host grants the approver role", access.Local(), "bob", []fw.Role{fw.RoleApprover}, fw.Forbidden},
			{"the host replaces a lost admin token", access.Local(), "ada", []fw.Role{fw.RoleAdmin}, ""},
			{"an admin gives himself another role", ada, "ada", []fw.Role{fw.RoleViewer}, ""},
			{"a viewer grants", viewer, "bob", []fw.Role{fw.RoleViewer}, fw.Forbidden},
			{"nobody grants", access.Principal{}, "bob", []fw.Role{fw.RoleViewer}, fw.Forbidden},
			{"to somebody disabled", admin, "gone", []fw.Role{fw.RoleViewer}, fw.Conflict},
			{"to nobody", admin, "nobody", []fw.Role{fw.RoleViewer}, fw.NotFound},
			{"no role", admin, "bob", nil, fw.Invalid},
			{"a role that is none", admin, "bob", []fw.Role{"root"}, fw.Invalid},
		} {
			_, err := w.token(tt.by, tt.to, tt.roles...)
			if fw.KindOf(err) != tt.kind {
				t.Errorf("%s: got %v, want kind %q", tt.name, err, tt.kind)
			}
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		for _, id := range []string{"", "a/b", "../x", "local-host", "admin ", strings.Repeat("a", 65)} {
			if err := w.CreatePerson(t.Context(), admin, id, "X"); fw.KindOf(err) != fw.Invalid {
				t.Errorf("id %q: %v", id, err)
			}
		}
		for _, name := range []string{"", " x", "a\nb", "a\x00", "\xff", strings.Repeat("x", 129)} {
			if err := w.CreatePerson(t.Context(), admin, "x", name); fw.KindOf(err) != fw.Invalid {
				t.Errorf("name %q: %v", name, err)
			}
		}
		wantKind(t, w.CreatePerson(t.Context(), admin, "admin", "Again"), fw.Conflict)
		for _, ttl := range []time.Duration{0, -time.Hour, time.Second, 367 * 24 * time.Hour} {
			_, err := w.CreateToken(t.Context(), admin, access.TokenRequest{Person: "admin", Name: "x", Roles: []fw.Role{fw.RoleViewer}, TTL: ttl})
			if fw.KindOf(err) != fw.Invalid {
				t.Errorf("ttl %v: %v", ttl, err)
			}
		}
	})
}

func TestATokenStopsWhenRevokedDisabledOrExpired(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		w.person(admin, "bob")
		for name, stop := range map[string]func(*access.Issued) error{
			"revoked by an admin":  func(i *access.Issued) error { return w.RevokeToken(t.Context(), admin, i.ID) },
			"revoked by its owner": func(i *access.Issued) error { return w.RevokeToken(t.Context(), w.must(i), i.ID) },
			"expired":              func(i *access.Issued) error { w.advance(time.Hour); return nil },
		} {
			issued := w.mustToken(admin, "bob", fw.RoleViewer, fw.RoleViewer)
			p := w.must(issued)
			if want := (access.Principal{Person: "bob", TokenID: issued.ID, Roles: []fw.Role{fw.RoleViewer}}); !cmp.Equal(p, want) {
				t.Errorf("%s: principal %+v, want %+v", name, p, want)
			}
			if err := stop(issued); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := w.Authenticate(t.Context(), issued.Secret.Reveal(), w.clock()); fw.KindOf(err) != fw.Unauthenticated {
				t.Errorf("%s: got %v, want unauthenticated", name, err)
			}
		}
		issued := w.mustToken(admin, "bob", fw.RoleViewer)
		w.must(issued)
		for range 2 {
			if err := w.DisablePerson(t.Context(), admin, "bob"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.Authenticate(t.Context(), issued.Secret.Reveal(), w.clock())
		wantKind(t, err, fw.Unauthenticated)
		n := len(w.records)
		for range 2 {
			if err := w.RevokeToken(t.Context(), admin, issued.ID); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.records) != n+1 {
			t.Errorf("revoking twice left %d records, want 1", len(w.records)-n)
		}
	})
}

func TestRevokingIsForTheOwnerAndAdmins(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		w.person(admin, "bob")
		w.person(admin, "eve")
		bob := w.mustToken(admin, "bob", fw.RoleViewer)
		eve := w.must(w.mustToken(admin, "eve", fw.RoleSecurityOfficer))
		wantKind(t, w.RevokeToken(t.Context(), eve, bob.ID), fw.Forbidden)
		wantKind(t, w.RevokeToken(t.Context(), eve, "tok_none"), fw.Forbidden)
		wantKind(t, w.RevokeToken(t.Context(), access.Principal{}, bob.ID), fw.Forbidden)
		wantKind(t, w.RevokeToken(t.Context(), admin, "tok_none"), fw.NotFound)
		wantKind(t, w.DisablePerson(t.Context(), eve, "bob"), fw.Forbidden)
		wantKind(t, w.DisablePerson(t.Context(), admin, "none"), fw.NotFound)
		wantKind(t, w.CreatePerson(t.Context(), eve, "new", "New"), fw.Forbidden)
		w.must(bob)
		if tokens, err := w.ListTokens(t.Context(), "bob"); err != nil || len(tokens) != 1 || tokens[0].ID != bob.ID || !tokens[0].Live(w.clock()) {
			t.Errorf("ListTokens = %v, %v", tokens, err)
		}
	})
}

func TestTheLastAdminStays(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		wantKind(t, w.RevokeToken(t.Context(), admin, admin.TokenID), fw.Conflict)
		wantKind(t, w.DisablePerson(t.Context(), admin, admin.Person), fw.Conflict)
		w.person(admin, "ada")
		ada := w.must(w.mustToken(admin, "ada", fw.RoleAdmin))
		if err := w.DisablePerson(t.Context(), ada, admin.Person); err != nil {
			t.Fatal(err)
		}
		// The admin token of a disabled person does not count.
		wantKind(t, w.RevokeToken(t.Context(), ada, ada.TokenID), fw.Conflict)
		w.mustToken(access.Local(), "ada", fw.RoleAdmin)
		if err := w.RevokeToken(t.Context(), ada, ada.TokenID); err != nil {
			t.Error(err)
		}
	})
}

func TestARevocationReachesOtherReplicasInTime(t *testing.T) {
	w := newWorld(t, fwtest.Postgres(t))
	other := access.New(w.db, w.record)
	admin := w.first()
	w.person(admin, "bob")
	issued := w.mustToken(admin, "bob", fw.RoleViewer)
	at := w.clock()
	if _, err := other.Authenticate(t.Context(), issued.Secret.Reveal(), at); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeToken(t.Context(), admin, issued.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Authenticate(t.Context(), issued.Secret.Reveal(), at.Add(access.ReplicaTTL-1)); err != nil {
		t.Errorf("the cache of the other replica was not used: %v", err)
	}
	_, err := other.Authenticate(t.Context(), issued.Secret.Reveal(), at.Add(access.ReplicaTTL))
	wantKind(t, err, fw.Unauthenticated)
}

func TestARevokedTokenIsNeverCachedAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		admin := w.first()
		w.person(admin, "bob")
		for range 10 {
			issued := w.mustToken(admin, "bob", fw.RoleViewer)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 50 {
						if _, err := w.Authenticate(t.Context(), issued.Secret.Reveal(), w.clock()); err != nil && fw.KindOf(err) != fw.Unauthenticated {
							t.Error(err)
						}
					}
				})
			}
			if err := w.RevokeToken(t.Context(), admin, issued.ID); err != nil {
				t.Fatal(err)
			}
			_, err := w.Authenticate(t.Context(), issued.Secret.Reveal(), w.clock())
			wantKind(t, err, fw.Unauthenticated)
			wg.Wait()
			_, err = w.Authenticate(t.Context(), issued.Secret.Reveal(), w.clock())
			wantKind(t, err, fw.Unauthenticated)
		}
	})
}

func TestTheSecretIsNotStored(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		issued, err := w.Bootstrap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := store.AccessTokens(w.db.Snapshot(t.Context()))
		if err != nil || len(rows) != 1 {
			t.Fatalf("%v, %v", rows, err)
		}
		want := fw.DigestOf([]byte(issued.Secret.Reveal()))
		if !slices.Equal(rows[0].Hash, want[:]) || strings.Contains(fmt.Sprint(rows), issued.Secret.Reveal()[5:20]) {
			t.Errorf("stored: %+v", rows[0])
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	db, err := store.Open(b.Context(), store.Options{URL: fwtest.SQLite(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }() // what it did is checked by then
	a := access.New(db, func(*store.Tx, string, []string, string, any) (int64, error) { return 0, nil })
	issued, err := a.Bootstrap(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	now := issued.CreatedAt
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), issued.Secret.Reveal(), now); err != nil {
			b.Fatal(err)
		}
	}
}
