package access_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
)

// The table that operators are told, in full: a change here is a change of
// who may do what.
const roleTable = `
viewer            products:read devices:read releases:read campaigns:read keys:read tokens:own
device_operator   products:read devices:read devices:write releases:read campaigns:read campaigns:stop keys:read tokens:own
factory           products:read factory:write tokens:own
release_engineer  products:read products:write devices:read releases:read releases:write releases:withdraw policies:write campaigns:read campaigns:write campaigns:stop evidence:read keys:read tokens:own
approver          products:read devices:read releases:read campaigns:read campaigns:stop approvals:write evidence:read keys:read tokens:own
security_officer  products:read devices:read devices:security releases:read releases:withdraw campaigns:read campaigns:stop evidence:read keys:read tokens:own
auditor           products:read devices:read releases:read campaigns:read evidence:read keys:read tokens:own operators:read
admin             products:read products:write devices:read releases:read campaigns:read evidence:read keys:read keys:admin tokens:own operators:read operators:admin
`

func TestRolesHaveExactlyTheirScopes(t *testing.T) {
	var got strings.Builder
	got.WriteString("\n")
	for _, r := range fw.Roles {
		p := access.Principal{Person: "x", Roles: []fw.Role{r}}
		fmt.Fprintf(&got, "%-17s", r)
		for _, s := range access.Scopes {
			if p.Can(s) {
				got.WriteString(" " + string(s))
			}
			if (p.Require(s) == nil) != p.Can(s) {
				t.Errorf("%s: Require(%s) and Can disagree", r, s)
			}
		}
		got.WriteString("\n")
	}
	if diff := cmp.Diff(roleTable, got.String()); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	for _, s := range access.Scopes {
		if !strings.Contains(roleTable, string(s)) {
			t.Errorf("no role has %s", s)
		}
		for _, p := range []access.Principal{{}, {Person: "x"}, {Roles: fw.Roles}, {Person: "x", Roles: []fw.Role{"root"}}} {
			if p.Can(s) {
				t.Errorf("%+v can %s", p, s)
			}
		}
	}
	all := access.Principal{Person: "x", Roles: fw.Roles}
	if all.Can("new:scope") {
		t.Error("an unknown scope was granted")
	}
	err := access.Principal{}.Require(access.CampaignsStop)
	if fw.KindOf(err) != fw.Forbidden || !strings.Contains(err.Error(), "device_operator or release_engineer or approver or security_officer") {
		t.Errorf("got %v", err)
	}
}

func TestParseRoles(t *testing.T) {
	got, err := access.ParseRoles([]string{"admin", "viewer", "admin"})
	if want := []fw.Role{fw.RoleViewer, fw.RoleAdmin}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range [][]string{nil, {}, {""}, {"Admin"}, {"viewer", "root"}} {
		if _, err := access.ParseRoles(bad); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestASecretShowsItselfOnlyWhenAsked(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	issued, err := w.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret := issued.Secret.Reveal()
	if !regexp.MustCompile(`^writ_[0-9a-zA-Z]{49}$`).MatchString(secret) {
		t.Errorf("secret %q is not in the documented form", secret)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "issued", issued, "secret", issued.Secret)
	asJSON, err := json.Marshal(map[string]any{"a": issued, "b": issued.Secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{log.String(), string(asJSON), fmt.Sprintf("%v %+v %#v %s", issued.Secret, issued.Secret, issued.Secret, issued.Secret), fmt.Sprintf("%v %+v", *issued, *issued)} {
		if strings.Contains(s, secret) || strings.Contains(s, secret[5:30]) {
			t.Errorf("the secret shows in %s", s)
		}
	}
}

func TestMalformedTokensAreToldApart(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	issued, err := w.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := issued.Secret.Reveal()
	flip := func(i int) string {
		b := []byte(good)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		return string(b)
	}
	for bad, want := range map[string]string{
		"":                             "not an access token",
		"ghp_abc":                      "not an access token",
		"writ_":                        "typing error",
		good[:len(good)-1]:             "typing error",
		good + "x":                     "typing error",
		flip(10):                       "typing error",
		flip(53):                       "typing error",
		strings.ToUpper(good):          "not an access token",
		strings.Repeat("writ_", 1<<16): "typing error",
	} {
		_, err := w.Authenticate(t.Context(), bad, w.clock())
		if fw.KindOf(err) != fw.Unauthenticated || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", bad, err, want)
		}
		if bad != "" && strings.Contains(err.Error(), bad) && len(bad) > 10 {
			t.Errorf("the message repeats the token: %v", err)
		}
	}
	// Right in form, from another server.
	stranger := newWorld(t, fwtest.SQLite(t))
	other, err := stranger.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Authenticate(t.Context(), other.Secret.Reveal(), w.clock()); fw.KindOf(err) != fw.Unauthenticated || !strings.Contains(err.Error(), "not known") {
		t.Errorf("got %v", err)
	}
}
