package api_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/api"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
)

// A viewer's token reads and changes nothing.
func TestAViewerChangesNothing(t *testing.T) {
	r := newRig(t)
	tok, err := r.Access.CreateToken(t.Context(), access.Local(), access.TokenRequest{Person: fwtest.Rita, Name: "v", Roles: []fw.Role{fw.RoleViewer}, TTL: access.MinTTL})
	if err != nil {
		t.Fatal(err)
	}
	before := r.Ledger.Head().Size
	for _, op := range api.Register(http.NewServeMux(), r.APIOptions()) {
		if op.Method == http.MethodGet {
			continue
		}
		// A move is refused by where it leads, which the body says.
		path := strings.NewReplacer("{id}", "x", "{person}", "x", "{stage}", "0").Replace(op.Path)
		status, body := r.do(op.Method, path, tok.Secret.Reveal(), "application/json", `{"to":"revoked","reason":"x"}`)
		if status != 403 {
			t.Errorf("%s %s: %d %s", op.Method, path, status, body)
		}
	}
	if after := r.Ledger.Head().Size; after != before {
		t.Errorf("%d records were written", after-before)
	}
}

func TestPeopleAndTokensOverTheAPI(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin := r.client(r.Token.Reveal())
	ops := admin.Operators()
	if _, err := ops.AddPerson(ctx, apitypes.Person{ID: "eve", Name: "Eve"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ops.AddPerson(ctx, apitypes.Person{ID: "eve", Name: "Eve"}); fw.KindOf(err) != fw.Conflict {
		t.Errorf("the same person again: %v", err)
	}
	tok, err := ops.CreateToken(ctx, apitypes.NewToken{Person: "eve", Name: "laptop", Roles: []fw.Role{fw.RoleAuditor}, TTLSeconds: 3600})
	if err != nil || tok.Secret == "" {
		t.Fatalf("%+v, %v", tok, err)
	}
	eve := r.client(tok.Secret)
	if who, err := eve.Server().WhoAmI(ctx); err != nil || who.Person != "eve" || who.Token != tok.ID {
		t.Errorf("%+v, %v", who, err)
	}
	list, err := eve.Operators().Tokens(ctx, "eve")
	if err != nil || len(list) != 1 || list[0].Secret != "" {
		t.Errorf("%+v, %v", list, err)
	}
	other, err := ops.CreateToken(ctx, apitypes.NewToken{Person: "eve", Name: "lost", Roles: []fw.Role{fw.RoleFactory}, TTLSeconds: 3600})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.client(other.Secret).Operators().RevokeToken(ctx, other.ID); err != nil {
		t.Errorf("revoking the token in use: %v", err)
	}
	if _, err := r.client(other.Secret).Server().WhoAmI(ctx); fw.KindOf(err) != fw.Unauthenticated {
		t.Errorf("with the token that its owner revoked: %v", err)
	}
	me, err := admin.Server().WhoAmI(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := eve.Operators().RevokeToken(ctx, me.Token); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("revoking the admin's token: %v", err)
	}
	records, err := r.as(fwtest.Rita, fw.RoleAuditor).Evidence().Records(ctx, 0, 1000)
	if err != nil || !slices.ContainsFunc(records, func(x apitypes.Record) bool {
		return x.Type == access.TypeTokenRevoked && x.Actor == "eve" && bytes.Contains(x.Data, []byte(other.ID))
	}) {
		t.Errorf("nothing on record says that eve revoked %s: %v", other.ID, err)
	}
	if err := ops.RevokeToken(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := eve.Server().WhoAmI(ctx); fw.KindOf(err) != fw.Unauthenticated {
		t.Errorf("with a revoked token: %v", err)
	}
	if err := ops.DisablePerson(ctx, "eve"); err != nil {
		t.Fatal(err)
	}
	people, err := ops.People(ctx)
	if err != nil || len(people) != 5 {
		t.Errorf("%+v, %v", people, err)
	}
}

func TestTheRosterOverTheAPI(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	ops := r.client(r.Token.Reveal()).Operators()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	before, err := ops.Roster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	after, err := ops.AddApprover(ctx, apitypes.NewApprover{Person: fwtest.Rita, Key: string(ssh.MarshalAuthorizedKey(key))})
	if err != nil || after.Version != before.Version+1 || len(after.Approvers) != len(before.Approvers)+1 || len(after.Envelope) == 0 {
		t.Errorf("%+v, %v", after, err)
	}
	if after, err = ops.RemoveApprover(ctx, fwtest.Rita); err != nil || len(after.Approvers) != len(before.Approvers) {
		t.Errorf("%+v, %v", after, err)
	}
	if _, err := ops.AddApprover(ctx, apitypes.NewApprover{Person: fwtest.Rita, Key: "no key"}); fw.KindOf(err) != fw.Invalid {
		t.Errorf("no key: %v", err)
	}
}

func TestWhatTheServerSaysOfItself(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin := r.client(r.Token.Reveal())
	st, err := admin.Server().Status(ctx)
	if err != nil || st.Database != "sqlite" || st.LogKey == "" || st.Log != "writ.test/log" || st.Records == 0 || st.StartedAt == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	stranger := r.client("")
	for what, get := range map[string]func() ([]byte, error){
		"ca":    func() ([]byte, error) { return stranger.Server().CA(ctx) },
		"crl":   func() ([]byte, error) { return stranger.Server().CRL(ctx) },
		"trust": func() ([]byte, error) { return stranger.Server().TrustBundle(ctx) },
	} {
		if b, err := get(); err != nil || len(b) == 0 {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
	}
	k, err := admin.Server().CreateKey(ctx, apitypes.NewKey{Name: "second", Purpose: fw.PurposeImage})
	if err != nil || !strings.Contains(k.Public, "PUBLIC KEY") {
		t.Errorf("%+v, %v", k, err)
	}
	keys, err := admin.Server().Keys(ctx)
	if err != nil || len(keys) < 2 {
		t.Errorf("%+v, %v", keys, err)
	}
	if note, err := admin.Evidence().Checkpoint(ctx); err != nil || !bytes.HasPrefix(note, []byte("writ.test/log\n")) {
		t.Errorf("%q, %v", note, err)
	}
}

func TestADeviceLeavesQuarantineByTwoPeople(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.Enrolled("q")
	rita := r.as(fwtest.Rita, fw.RoleSecurityOfficer)
	operator := r.as(fwtest.Rita, fw.RoleDeviceOperator)
	ann := r.as(fwtest.Ann, fw.RoleApprover)

	if _, err := operator.Devices().Move(ctx, "q", apitypes.Move{To: fw.DeviceQuarantined, Reason: "odd"}); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a device operator quarantines: %v", err)
	}
	if d, err := rita.Devices().Move(ctx, "q", apitypes.Move{To: fw.DeviceQuarantined, Reason: "odd"}); err != nil || d.State != fw.DeviceQuarantined {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := rita.Devices().OpenRequest(ctx, "q"); fw.KindOf(err) != fw.NotFound {
		t.Errorf("nobody asked: %v", err)
	}
	doc, err := rita.Devices().RequestRelease(ctx, "q", apitypes.ReleaseRequest{Reason: "inspected", Evidence: "ticket 7"})
	if err != nil {
		t.Fatal(err)
	}
	if open, err := ann.Devices().OpenRequest(ctx, "q"); err != nil || !bytes.Equal(open.Document, doc.Document) {
		t.Errorf("%+v, %v", open, err)
	}
	if _, err := rita.Devices().Release(ctx, "q"); err == nil {
		t.Error("released without approval")
	}
	sign := apitypes.NewApproval{SubjectType: apitypes.SubjectLifecycle, ID: "q", Signature: r.Sign(fwtest.Ann, doc.Document)}
	stale := sign
	stale.Digest = fw.DigestOf([]byte("something else"))
	if _, err := ann.Approvals().Submit(ctx, stale); fw.KindOf(err) != fw.Conflict {
		t.Errorf("a signature over other bytes: %v", err)
	}
	sign.Digest = doc.Digest
	if a, err := ann.Approvals().Submit(ctx, sign); err != nil || !a.Met || len(a.Counted) != 1 || a.Counted[0].Person != fwtest.Ann {
		t.Fatalf("%+v, %v", a, err)
	}
	d, err := rita.Devices().Release(ctx, "q")
	if err != nil || d.State != fw.DeviceActive {
		t.Fatalf("%+v, %v", d, err)
	}
	tl, err := rita.Devices().Timeline(ctx, "q", 0, 100)
	if err != nil || !hasSummary(tl, "active → quarantined (odd)") || !hasSummary(tl, "lifecycle approved by ann") {
		t.Errorf("%+v, %v", tl, err)
	}
	// The cursor goes on where the page before it ended.
	rest, err := rita.Devices().Timeline(ctx, "q", 2, 1)
	if err != nil || len(rest) != 1 || rest[0].Index != tl[2].Index {
		t.Errorf("%+v, %v", rest, err)
	}
}

func hasSummary(records []apitypes.Record, s string) bool {
	for _, r := range records {
		if strings.Contains(r.Summary, s) {
			return true
		}
	}
	return false
}

func TestDevicesAreListedInPages(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	rita := r.as(fwtest.Rita, fw.RoleFactory, fw.RoleDeviceOperator)
	reg := apitypes.Registration{Product: fwtest.Product}
	for _, id := range []fw.DeviceID{"a", "b", "c"} {
		reg.Devices = append(reg.Devices, apitypes.NewDevice{ID: id, Hardware: fwtest.Hardware})
	}
	for _, want := range []string{"registered", "exists"} { // sent twice, done once
		out, err := rita.Devices().Register(ctx, reg)
		if err != nil || len(out) != 3 || out[2].Outcome != want {
			t.Errorf("%+v, %v, want %s", out, err, want)
		}
	}
	var got []fw.DeviceID
	f := client.DeviceFilter{Product: fwtest.Product, State: fw.DeviceClaimed, Limit: 2}
	for {
		page, err := rita.Devices().List(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			got = append(got, d.ID)
		}
		f.After = page[len(page)-1].ID
	}
	if len(got) != 3 || got[0] != "a" || got[2] != "c" {
		t.Errorf("%v", got)
	}
	if d, err := rita.Devices().SetAttributes(ctx, "a", map[string]string{"site": "roof"}); err != nil || d.Attributes["site"] != "roof" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestReleasesAndCampaignsAreListedInPages(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	rita := r.as(fwtest.Rita, fw.RoleReleaseEngineer)
	r.Enrolled("sn-1")
	var releases []fw.ReleaseID
	var campaigns []fw.CampaignID
	for i := range 3 {
		rel := r.Publish(fmt.Sprintf("1.0.%d", i), "raw", 1, fmt.Appendf(nil, "firmware %d", i))
		c := r.Campaign(fw.Plan{
			Name: "pages", Release: rel.ID, Cohort: "true", Attempts: 1, AuthorizationTTL: 60, OnFailure: fw.FailurePause, Quorum: 1,
			Stages: []fw.StagePlan{{Name: "all", Percent: 100}},
		})
		releases, campaigns = slices.Insert(releases, 0, rel.ID), slices.Insert(campaigns, 0, c.ID)
	}
	rf, cf := client.ReleaseFilter{Product: fwtest.Product, Limit: 2}, client.CampaignFilter{Product: fwtest.Product, Limit: 2}
	for _, n := range []int{2, 1, 0} {
		at := 3 - len(releases)
		rels, err := rita.Releases().List(ctx, rf)
		if err != nil || len(rels) != n {
			t.Fatalf("page after %d: %+v, %v", at, rels, err)
		}
		cmps, err := rita.Campaigns().List(ctx, cf)
		if err != nil || len(cmps) != n {
			t.Fatalf("page after %d: %+v, %v", at, cmps, err)
		}
		for i := range n {
			if rels[i].ID != releases[i] || cmps[i].ID != campaigns[i] {
				t.Errorf("number %d is %s and %s, want %s and %s", at+i, rels[i].ID, cmps[i].ID, releases[i], campaigns[i])
			}
			rf.After, cf.After = rels[i].ID, cmps[i].ID
		}
		releases, campaigns = releases[n:], campaigns[n:]
	}
	if _, err := rita.Releases().List(ctx, client.ReleaseFilter{After: "rel_none"}); fw.KindOf(err) != fw.NotFound {
		t.Errorf("after an unknown release: %v", err)
	}
}

func TestPoliciesAndDocumentsAreExactBytes(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	rita := r.as(fwtest.Rita, fw.RoleReleaseEngineer)
	up, err := rita.Releases().Upload(ctx, strings.NewReader("firmware"), 8, nil)
	if err != nil {
		t.Fatal(err)
	}
	draft := apitypes.Draft{
		Product: fwtest.Product, Version: "1.0.0", Type: fw.ReleaseFunctional, Notes: "<b>faster & safer</b>",
		Components: []apitypes.DraftComponent{{Name: fw.MainComponent, Format: "raw", Input: up.Digest, SecurityCounter: 1}},
	}
	rel, err := rita.Releases().Propose(ctx, draft)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := rita.Releases().Document(ctx, rel.ID)
	if err != nil {
		t.Fatal(err)
	}
	a, err := rita.Approvals().Get(ctx, apitypes.SubjectRelease, string(rel.ID), 0)
	if err != nil || !bytes.Equal(a.Document, doc) || a.Digest != fw.DigestOf(doc) {
		t.Errorf("the document and what is approved differ: %v\n%s\n%s", err, doc, a.Document)
	}
	draft.Notes = "other"
	if _, err := rita.Releases().Edit(ctx, rel.ID, draft); err != nil {
		t.Fatal(err)
	}
	if edited, err := rita.Releases().Document(ctx, rel.ID); err != nil || bytes.Equal(edited, doc) {
		t.Errorf("an edit left the document as it was: %v", err)
	}
	if rel, err = rita.Releases().Withdraw(ctx, rel.ID, "mistake"); err != nil || rel.State != fw.ReleaseWithdrawn {
		t.Errorf("%+v, %v", rel, err)
	}
	if tl, err := rita.Evidence().Release(ctx, rel.ID, 0, 0); err != nil || !hasSummary(tl, "mistake") {
		t.Errorf("%+v, %v", tl, err)
	}
	if _, err := rita.Policies().Add(ctx, []byte(`{"name":"x"`)); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a broken policy: %v", err)
	}
	if list, err := rita.Policies().List(ctx); err != nil || list == nil || len(list) != 0 {
		t.Errorf("%+v, %v: want an empty list", list, err)
	}
}
