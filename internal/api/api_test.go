package api_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/api"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// rig is a server and a client for each of its people.
type rig struct {
	*fwtest.World
	t *testing.T
}

func (r *rig) as(p fw.PersonID, roles ...fw.Role) *client.Client {
	r.t.Helper()
	admin, err := r.Access.Authenticate(r.t.Context(), r.Token.Reveal(), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	tok, err := r.Access.CreateToken(r.t.Context(), admin, access.TokenRequest{Person: p, Name: "test", Roles: roles, TTL: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.client(tok.Secret.Reveal())
}

func (r *rig) client(token string) *client.Client {
	r.t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Authority.CA().Raw})
	c, err := client.New(client.Config{URL: r.URL(), Token: token, CA: ca})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{fwtest.NewWorld(t, fwtest.SQLite(t)), t}
}

func (r *rig) do(method, path, token, media, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.Roots()}}}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// Every operation that was registered is closed to strangers and to tokens
// without its scope, and the list of them is the golden file's.
func TestEveryOperationHasAScopeThatHolds(t *testing.T) {
	r := newRig(t)
	factory := r.as(fwtest.Rita, fw.RoleFactory)
	if _, err := factory.Server().WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	tok, err := r.Access.CreateToken(t.Context(), access.Local(), access.TokenRequest{Person: fwtest.Rita, Name: "t", Roles: []fw.Role{fw.RoleFactory}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	worker, err := r.Access.Authenticate(t.Context(), tok.Secret.Reveal(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var golden strings.Builder
	for _, op := range api.Register(http.NewServeMux(), r.APIOptions()) {
		golden.WriteString(op.Method + " " + op.Path + " " + string(op.Scope) + "\n")
		path := strings.NewReplacer("{id}", "x", "{person}", "x", "{stage}", "0", "{index}", "0").Replace(op.Path)
		status, body := r.do(op.Method, path, "", "application/json", "{}")
		if op.Scope == "" {
			if status != 200 {
				t.Errorf("public %s %s: %d %s", op.Method, path, status, body)
			}
			continue
		}
		if status != 401 || !strings.Contains(body, `"kind":"unauthenticated"`) {
			t.Errorf("%s %s without a token: %d %s", op.Method, path, status, body)
		}
		allowed := worker.Can(op.Scope)
		status, body = r.do(op.Method, path, tok.Secret.Reveal(), "application/json", "{}")
		if !allowed && status != 403 {
			t.Errorf("%s %s with a factory token: %d %s, want 403", op.Method, path, status, body)
		}
		if op.Scope == access.TokensOwn {
			allowed = false // of one's own, and "x" is not
			if status != 403 {
				t.Errorf("%s %s of somebody else's: %d %s", op.Method, path, status, body)
			}
		}
		if allowed && (status == 401 || status == 403) {
			t.Errorf("%s %s with a factory token: %d %s", op.Method, path, status, body)
		}
	}
	compare(t, "operations.txt", []byte(golden.String()))
	status, doc := r.do("GET", "/api/v1/openapi.json", "", "", "")
	if status != 200 || !strings.Contains(doc, `"openapi":"3.1.0"`) {
		t.Errorf("openapi: %d", status)
	}
	var lines bytes.Buffer // so that a change shows as the lines it changes
	if err := json.Indent(&lines, []byte(doc), "", " "); err != nil {
		t.Fatal(err)
	}
	compare(t, "openapi.json", lines.Bytes())
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s has changed; if it should have, run go test ./internal/api -update:\n%s", path, d)
	}
}

func TestBadBodiesGetAProblemAndChangeNothing(t *testing.T) {
	r := newRig(t)
	token := r.Token.Reveal()
	for name, c := range map[string]struct {
		method, path, media, body string
		status                    int
		detail                    string // part of it; "": any
	}{
		"truncated":     {"POST", "/api/v1/products", "application/json", `{"id":"x"`, 400, ""},
		"mistyped":      {"POST", "/api/v1/products", "application/json", `{"id":7}`, 422, ""},
		"unknown":       {"POST", "/api/v1/products", "application/json", `{"id":"x","colour":"red"}`, 422, ""},
		"oversized":     {"POST", "/api/v1/products", "application/json", `{"name":"` + strings.Repeat("x", 5<<20) + `"}`, 413, ""},
		"bad digest":    {"POST", "/api/v1/uploads", "application/json", `{"digest":"md5:00","size":1}`, 422, ""},
		"no such path":  {"GET", "/api/v1/nothing", "", "", 404, ""},
		"wrong method":  {"DELETE", "/api/v1/products", "", "", 405, ""},
		"no body":       {"POST", "/api/v1/products", "application/json", "", 400, ""},
		"bundle of two": {"POST", "/api/v1/bundles", "application/json", `{"campaign":"a","device":"b"}`, 400, ""},
		"wrong media":   {"PATCH", "/api/v1/uploads/x?offset=0", "text/plain", "x", 415, ""},
		"no offset":     {"PATCH", "/api/v1/uploads/x", "application/octet-stream", "x", 400, ""},
		"bad limit":     {"GET", "/api/v1/devices?limit=-1000000000000000000000", "", "", 422, ""},
		"empty policy":  {"POST", "/api/v1/policies", "application/json", `{"document":""}`, 422, "body.document is empty; give the bytes"},
		"no policy":     {"POST", "/api/v1/policies", "application/json", `{}`, 400, "the policy is empty: give a JSON document"},
		"blank policy":  {"POST", "/api/v1/policies", "application/json", `{"document":"IAo="}`, 400, "the policy is empty: give a JSON document"},
		"plain policy":  {"POST", "/api/v1/policies", "application/json", `{"document":"{\"name\":\"secret\"}"}`, 422, "body.document is not base64; give"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			before := r.Ledger.Head().Size
			status, body := r.do(c.method, c.path, token, c.media, c.body)
			if status != c.status || !strings.Contains(body, `"detail"`) || !strings.Contains(body, `"kind"`) || !strings.Contains(body, `"request_id"`) || !strings.Contains(body, c.detail) || strings.Contains(body, "secret") {
				t.Errorf("%d %s, want a problem with %d", status, body, c.status)
			}
			if after := r.Ledger.Head().Size; after != before {
				t.Errorf("%d records were written", after-before)
			}
		})
	}
}

func TestAReleaseGoesFromUploadToCampaignOverTheAPI(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin := r.client(r.Token.Reveal())
	rita := r.as(fwtest.Rita, fw.RoleReleaseEngineer, fw.RoleFactory, fw.RoleSecurityOfficer)
	ann := r.as(fwtest.Ann, fw.RoleApprover)

	r.Enrolled("z")
	firmware := bytes.Repeat([]byte("firmware"), 3<<20) // three chunks
	var seen int64
	up, err := rita.Releases().Upload(ctx, bytes.NewReader(firmware), int64(len(firmware)), func(done, _ int64) { seen = done })
	if err != nil || seen != int64(len(firmware)) {
		t.Fatalf("upload: %+v after %d, %v", up, seen, err)
	}
	rel, err := rita.Releases().Propose(ctx, apitypes.Draft{
		Product: fwtest.Product, Version: "1.2.3", Type: fw.ReleaseFunctional,
		Components: []apitypes.DraftComponent{{Name: fw.MainComponent, Format: "raw", Input: up.Digest, SecurityCounter: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	approve := func(c *client.Client, as fw.PersonID, st apitypes.SubjectType, id string) (apitypes.Approvals, error) {
		a, err := c.Approvals().Get(ctx, st, id, 0)
		if err != nil {
			return a, err
		}
		return c.Approvals().Submit(ctx, apitypes.NewApproval{SubjectType: st, ID: id, Digest: a.Digest, Signature: r.Sign(as, a.Document)})
	}
	if _, err := rita.Releases().Publish(ctx, rel.ID); fw.KindOf(err) != fw.Conflict {
		t.Errorf("publishing without approval: %v", err)
	}
	if a, err := approve(ann, fwtest.Ann, apitypes.SubjectRelease, string(rel.ID)); err != nil || !a.Met {
		t.Fatalf("approval: %+v, %v", a, err)
	}
	if rel, err = rita.Releases().Publish(ctx, rel.ID); err != nil || rel.State != fw.ReleasePublished {
		t.Fatalf("publish: %+v, %v", rel, err)
	}
	c, err := rita.Campaigns().Propose(ctx, fw.Plan{Name: "c", Release: rel.ID, Cohort: "true", Stages: []fw.StagePlan{{Name: "all", Percent: 100}}, Attempts: 1, AuthorizationTTL: 600, OnFailure: fw.FailurePause, Quorum: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else's signature under one's own name, and the proposer's own.
	doc, err := ann.Approvals().Get(ctx, apitypes.SubjectCampaign, string(c.ID), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ann.Approvals().Submit(ctx, apitypes.NewApproval{SubjectType: apitypes.SubjectCampaign, ID: string(c.ID), Signature: r.Sign(fwtest.Ben, doc.Document)})
	if fw.KindOf(err) != fw.Forbidden {
		t.Errorf("Ben's signature as Ann: %v", err)
	}
	if _, err := approve(ann, fwtest.Ann, apitypes.SubjectCampaign, string(c.ID)); err != nil {
		t.Fatal(err)
	}
	if c, err = rita.Campaigns().Start(ctx, c.ID); err != nil || c.State != fw.CampaignRunning {
		t.Fatalf("start: %+v, %v", c, err)
	}
	if out, err := rita.Devices().Register(ctx, apitypes.Registration{Product: fwtest.Product, Devices: []apitypes.NewDevice{{ID: "a", Hardware: fwtest.Hardware}, {ID: "b", Hardware: "none"}}}); err != nil || out[0].Outcome != "registered" || out[1].Outcome == "registered" {
		t.Errorf("register: %+v, %v", out, err)
	}
	if tok, err := rita.Devices().Token(ctx, "a", apitypes.TokenRequest{TTLSeconds: 3600}); err != nil || tok.Secret == "" {
		t.Errorf("token: %+v, %v", tok, err)
	}
	if tl, err := rita.Devices().Timeline(ctx, "a", 0, 10); err != nil || len(tl) != 2 {
		t.Errorf("timeline: %+v, %v", tl, err)
	}
	recs, err := admin.Evidence().Records(ctx, 0, 5)
	if err != nil || len(recs) != 5 {
		t.Errorf("records: %d, %v", len(recs), err)
	}
	if rec, err := admin.Evidence().Record(ctx, 3); err != nil || len(rec.Receipt) == 0 {
		t.Errorf("record: %+v, %v", rec, err)
	}
	if c, err = rita.Campaigns().Abort(ctx, c.ID, apitypes.Operation{Mode: apitypes.AbortKeep, Note: "enough"}); err != nil || c.State != fw.CampaignAborted {
		t.Errorf("abort: %+v, %v", c, err)
	}
}

func TestAnUploadTakesNoMoreThanWasAnnounced(t *testing.T) {
	r := newRig(t)
	up, err := r.Releases.Uploads().Start(t.Context(), access.BootstrapPerson, fw.DigestOf([]byte("four")), 4)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := r.Access.CreateToken(t.Context(), access.Local(), access.TokenRequest{Person: access.BootstrapPerson, Name: "t", Roles: []fw.Role{fw.RoleReleaseEngineer}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	path := "/api/v1/uploads/" + up.ID
	for _, c := range []struct {
		query, body string
		status      int
	}{
		{"?offset=2", "ur", 409},                   // not where it stopped
		{"?offset=0", strings.Repeat("x", 5), 413}, // more than announced
		{"?offset=-1", "four", 400},
		{"?offset=0", "four", 200},
	} {
		if status, body := r.do("PATCH", path+c.query, tok.Secret.Reveal(), "application/octet-stream", c.body); status != c.status {
			t.Errorf("%s %q: %d %s, want %d", c.query, c.body, status, body, c.status)
		}
	}
	if up, err := r.Releases.Uploads().Status(t.Context(), access.BootstrapPerson, up.ID); err != nil || up.Offset != 4 {
		t.Errorf("%+v, %v", up, err)
	}
}
