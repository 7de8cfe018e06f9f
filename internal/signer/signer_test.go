package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
)

var t0 = time.Unix(1_800_000_000, 0)

var testKeys = KeystoreOptions{Passphrase: []byte("correct horse"), ScryptLogN: 4}

// world is a signer with a key of every purpose, two approvers and an approved
// release.
type world struct {
	dir      string
	ks       *Keystore
	s        *Signer
	approver map[fw.PersonID]ssh.Signer
	roster   []byte // envelope, version 1
	input    []byte
	manifest fw.Manifest
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{dir: tb.TempDir() + "/keys", approver: map[fw.PersonID]ssh.Signer{}, input: bytes.Repeat([]byte("firmware "), 20_000)}
	w.open(tb)
	for name, p := range map[fw.KeyName]fw.Purpose{
		"image-1": fw.PurposeImage, "authz-1": fw.PurposeAuthorization, "log-1": fw.PurposeLog,
		"ca-1": fw.PurposeDeviceCA, "root-1": fw.PurposeRosterRoot,
	} {
		if _, err := w.ks.Create(tb.Context(), name, p, "", t0); err != nil {
			tb.Fatal(err)
		}
	}
	doc := approval.RosterDocument{Version: 1, CreatedAt: t0.Unix()}
	for _, p := range []fw.PersonID{"alice", "bob", "carol"} {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		if w.approver[p], err = ssh.NewSignerFromSigner(k); err != nil {
			tb.Fatal(err)
		}
		doc.Approvers = append(doc.Approvers, approval.Approver{Person: p, Keys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(w.approver[p].PublicKey())))}})
	}
	w.roster = w.signRoster(tb, doc)
	w.manifest = fw.Manifest{
		Type: fw.TypeManifest, Release: "rel_1", Product: "gateway", Version: "1.2.3", ReleaseType: fw.ReleaseSecurity,
		Hardware: []fw.HardwareID{"gw-5"}, ProposedBy: "carol", CreatedAt: t0.Unix(), Nonce: "00",
		Components: []fw.ManifestComponent{{Name: "main", Format: "fake", SecurityCounter: 7, InputDigest: fw.DigestOf(w.input), InputSize: int64(len(w.input)), Key: "image-1"}},
	}
	return w
}

// open opens the signer, again after close.
func (w *world) open(tb testing.TB) {
	tb.Helper()
	var err error
	if w.ks, err = OpenKeystore(w.dir, testKeys); err != nil {
		tb.Fatal(err)
	}
	if w.s, err = Open(w.ks, Options{MinApprovals: 2}); err != nil {
		tb.Fatal(err)
	}
	s := w.s
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
}

func (w *world) reopen(tb testing.TB) {
	tb.Helper()
	if err := w.s.Close(); err != nil {
		tb.Fatal(err)
	}
	w.open(tb)
}

func (w *world) signRoster(tb testing.TB, d approval.RosterDocument) []byte {
	tb.Helper()
	b, err := d.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	p := w.mint(tb, Grant{Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(b), Evidence: d.Version})
	env, err := w.s.SignRoster(p, b, t0)
	if err != nil {
		tb.Fatal(err)
	}
	return env
}

func (w *world) mint(tb testing.TB, g Grant) *Permit {
	tb.Helper()
	g.Verdict = VerdictAllow
	p, err := w.s.Mint(g)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (w *world) imagePermit(tb testing.TB, evidence int64) *Permit {
	tb.Helper()
	return w.mint(tb, Grant{Purpose: fw.PurposeImage, Key: "image-1", Subject: fw.DigestOf(w.input), Evidence: evidence})
}

func (w *world) request(tb testing.TB, by ...fw.PersonID) ImageRequest {
	tb.Helper()
	doc, err := json.Marshal(w.manifest)
	if err != nil {
		tb.Fatal(err)
	}
	e := ApprovalEvidence{Document: doc, Roster: w.roster, Need: 2, Proposer: "carol"}
	for _, p := range by {
		armored, err := approval.Sign(doc, w.approver[p])
		if err != nil {
			tb.Fatal(err)
		}
		e.Approvals = append(e.Approvals, approval.Approval{Person: p, Armored: string(armored)})
	}
	return ImageRequest{Evidence: e, Component: "main", Format: &fakeFormat{}, Input: bytes.NewReader(w.input), Output: io.Discard, At: t0}
}

// fakeFormat signs the SHA-256 of the input.
type fakeFormat struct {
	image.Format

	stolen crypto.Signer // the key, kept after the call
	twice  bool          // tries a second signature
	unused bool          // does not sign
	seen   image.SignOptions
	before func()
}

func (*fakeFormat) Name() string { return "fake" }

func (f *fakeFormat) Sign(_ context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	f.stolen, f.seen = key, opt
	if f.before != nil {
		f.before()
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, w), io.NewSectionReader(r, 0, size)); err != nil {
		return image.SignResult{}, err
	}
	id, err := image.KeyID(key.Public())
	if err != nil || f.unused {
		return image.SignResult{KeyID: id}, err
	}
	sum := [32]byte(h.Sum(nil))
	_, err = image.MakeSignature(key, sum, sum[:])
	if f.twice {
		_, err = image.MakeSignature(key, sum, sum[:])
	}
	return image.SignResult{Size: size, SHA256: sum, KeyID: id}, err
}

func TestMintRefuses(t *testing.T) {
	w := newWorld(t)
	good := Grant{Purpose: fw.PurposeImage, Key: "image-1", Subject: fw.DigestOf(w.input), Evidence: 1, Verdict: VerdictAllow}
	if _, err := w.s.Mint(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Grant){
		"the zero verdict":    func(g *Grant) { g.Verdict = "" },
		"a denying verdict":   func(g *Grant) { g.Verdict = VerdictDeny },
		"an unknown verdict":  func(g *Grant) { g.Verdict = "maybe" },
		"no subject":          func(g *Grant) { g.Subject = fw.Digest{} },
		"no decision":         func(g *Grant) { g.Evidence = -1 },
		"an unknown key":      func(g *Grant) { g.Key = "image-2" },
		"another purpose":     func(g *Grant) { g.Purpose = fw.PurposeAuthorization },
		"no purpose":          func(g *Grant) { g.Purpose = "" },
		"a log key":           func(g *Grant) { g.Purpose, g.Key = fw.PurposeLog, "log-1" },
		"everything is zero":  func(g *Grant) { *g = Grant{} },
		"a log key for image": func(g *Grant) { g.Key = "log-1" },
	} {
		g := good
		change(&g)
		if p, err := w.s.Mint(g); err == nil || p != nil {
			t.Errorf("%s: minted", name)
		}
	}
}

func TestSignImageSignsWhatWasApproved(t *testing.T) {
	w := newWorld(t)
	f := &fakeFormat{}
	req := w.request(t, "alice", "bob")
	req.Format = f
	res, err := w.s.SignImage(t.Context(), w.imagePermit(t, 10), req)
	if err != nil {
		t.Fatal(err)
	}
	if fw.Digest(res.SHA256) != fw.DigestOf(w.input) {
		t.Error("signed something else")
	}
	if f.seen.Version != "1.2.3" || *f.seen.SecurityCounter != 7 || f.seen.Product != "gateway" || f.seen.Hardware[0] != "gw-5" {
		t.Errorf("options do not come from the manifest: %+v", f.seen)
	}
	if _, err := f.stolen.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("the lent key works after the call")
	}
}

func TestSignImageRefuses(t *testing.T) {
	w := newWorld(t)
	var evidence int64 = 100
	for name, c := range map[string]struct {
		by     []fw.PersonID
		change func(*ImageRequest)
		says   string
	}{
		"no approvals":           {nil, nil, "0 of 2"},
		"too few approvals":      {[]fw.PersonID{"alice"}, nil, "1 of 2"},
		"the proposer approving": {[]fw.PersonID{"alice", "carol"}, nil, "the proposer cannot approve"},
		"one person twice":       {[]fw.PersonID{"alice", "alice"}, nil, "has been counted"},
		"a quorum below the signer's own": {[]fw.PersonID{"alice"}, func(r *ImageRequest) {
			r.Evidence.Need = 1
		}, "at least 2 approvals"},
		"another proposer": {[]fw.PersonID{"alice", "carol"}, func(r *ImageRequest) { r.Evidence.Proposer = "bob" }, "was proposed by"},
		"a tampered manifest": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			r.Evidence.Document = bytes.Replace(r.Evidence.Document, []byte("1.2.3"), []byte("1.2.4"), 1)
		}, "not over these bytes"},
		"a manifest of another type": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			r.Evidence.Document = bytes.Replace(r.Evidence.Document, []byte(fw.TypeManifest), []byte("writ-plan/v1"), 1)
		}, "writ-plan/v1"},
		"a manifest with two values": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			r.Evidence.Document = bytes.Replace(r.Evidence.Document, []byte(`"nonce"`), []byte(`"VERSION":"9","nonce"`), 1)
		}, "twice"},
		"no roster":         {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Evidence.Roster = nil }, "malformed"},
		"a tampered roster": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Evidence.Roster = tamper(r.Evidence.Roster) }, "root key"},
		"another component": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Component = "radio" }, "exactly one component"},
		"another format":    {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Format = &otherFormat{} }, "format"},
		"another image": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			b := bytes.Clone(w.input)
			b[70_000] ^= 1
			r.Input = bytes.NewReader(b)
		}, "was approved"},
		"a longer image": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			r.Input = bytes.NewReader(append(bytes.Clone(w.input), 0))
		}, "longer"},
		"a shorter image": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Input = bytes.NewReader(w.input[1:]) }, "shorter"},
		"a version of the caller's choice": {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) {
			r.Options.Version = "9.9.9"
		}, "come from its manifest"},
		"an encoder that signs twice":       {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Format = &fakeFormat{twice: true} }, "one signature"},
		"an encoder that does not sign":     {[]fw.PersonID{"alice", "bob"}, func(r *ImageRequest) { r.Format = &fakeFormat{unused: true} }, "did not sign"},
		"an image that changes during this": {[]fw.PersonID{"alice", "bob"}, changing(w.input), "changed while"},
	} {
		t.Run(name, func(t *testing.T) {
			evidence++
			p := w.imagePermit(t, evidence)
			req := w.request(t, c.by...)
			if c.change != nil {
				c.change(&req)
			}
			_, err := w.s.SignImage(t.Context(), p, req)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("SignImage = %v, want something with %q", err, c.says)
			}
			if _, err := w.s.SignImage(t.Context(), p, w.request(t, "alice", "bob")); fw.KindOf(err) != fw.Conflict {
				t.Errorf("the permit survived the refusal: %v", err)
			}
		})
	}
}

func tamper(env []byte) []byte {
	var e struct {
		PayloadType string `json:"payloadType"`
		Payload     []byte `json:"payload"`
		Signatures  []any  `json:"signatures"`
	}
	_ = json.Unmarshal(env, &e)
	e.Payload[40] ^= 1
	b, _ := json.Marshal(e)
	return b
}

type otherFormat struct{ fakeFormat }

func (*otherFormat) Name() string { return "other" }

func changing(input []byte) func(*ImageRequest) {
	return func(r *ImageRequest) {
		b := bytes.Clone(input)
		r.Input = bytes.NewReader(b)
		r.Format = &fakeFormat{before: func() { b[70_000] ^= 1 }}
	}
}

func TestPermitWorksOnlyWhereItBelongs(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	tbs := sigStructure([]byte("claims"))
	grant := Grant{Purpose: fw.PurposeAuthorization, Key: "authz-1", Subject: fw.DigestOf([]byte("claims")), Evidence: 1}

	if _, err := w.s.SignAuthorization(nil, tbs); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("no permit: %v", err)
	}
	if _, err := w.s.SignAuthorization(&Permit{}, tbs); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a made-up permit: %v", err)
	}
	if _, err := other.s.SignAuthorization(w.mint(t, grant), tbs); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another signer's permit: %v", err)
	}
	if _, err := w.s.SignAuthorization(w.imagePermit(t, 1), tbs); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a permit of another purpose: %v", err)
	}
	if _, err := w.s.SignAuthorization(w.mint(t, grant), sigStructure([]byte("other claims"))); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("other claims: %v", err)
	}
	if _, err := w.s.SignAuthorization(w.mint(t, grant), []byte("claims")); fw.KindOf(err) != fw.Invalid {
		t.Errorf("not a Sig_structure: %v", err)
	}
	p := w.mint(t, grant)
	if err := w.ks.Retire(t.Context(), "authz-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.SignAuthorization(p, tbs); fw.KindOf(err) != fw.Conflict {
		t.Errorf("a retired key: %v", err)
	}
}

// One permit, many takers: exactly one signature.
func TestPermitIsUsedOnceUnderRace(t *testing.T) {
	w := newWorld(t)
	race := func(op func() error) int64 {
		var ok atomic.Int64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 64 {
			wg.Go(func() {
				<-start
				switch err := op(); {
				case err == nil:
					ok.Add(1)
				case fw.KindOf(err) != fw.Conflict:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		return ok.Load()
	}
	for i := range int64(20) {
		p := w.mint(t, Grant{Purpose: fw.PurposeAuthorization, Key: "authz-1", Subject: fw.DigestOf([]byte("claims")), Evidence: i})
		if n := race(func() error { _, err := w.s.SignAuthorization(p, sigStructure([]byte("claims"))); return err }); n != 1 {
			t.Fatalf("one permit made %d authorizations", n)
		}
	}
	p := w.imagePermit(t, 1)
	req := w.request(t, "alice", "bob")
	if n := race(func() error { _, err := w.s.SignImage(t.Context(), p, req); return err }); n != 1 {
		t.Fatalf("one permit made %d images", n)
	}
	// Also when the same decision is minted 64 times.
	if n := race(func() error { _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 2), req); return err }); n != 1 {
		t.Fatalf("one decision made %d images", n)
	}
}

func TestPermitStaysUsedAcrossRestart(t *testing.T) {
	w := newWorld(t)
	req := w.request(t, "alice", "bob")
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 5), req); err != nil {
		t.Fatal(err)
	}
	w.reopen(t)
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 5), req); fw.KindOf(err) != fw.Conflict {
		t.Errorf("used again after a restart: %v", err)
	}
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 6), req); err != nil {
		t.Errorf("a new decision: %v", err)
	}
}

func TestOldRosterIsRefused(t *testing.T) {
	w := newWorld(t)
	req := w.request(t, "alice", "bob")
	if err := w.s.AdoptRoster(w.roster, t0); err != nil {
		t.Fatal(err)
	}
	one, err := w.s.openRoster(w.roster)
	if err != nil {
		t.Fatal(err)
	}
	// Version 2 drops bob.
	two := approval.RosterDocument{Version: 2, Previous: one.Digest(), Approvers: one.Approvers()[:1]}
	env2 := w.signRoster(t, two)
	if err := w.s.AdoptRoster(env2, t0); err != nil {
		t.Fatal(err)
	}
	w.reopen(t)
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 1), req); fw.KindOf(err) != fw.Conflict {
		t.Errorf("an old roster brought bob back: %v", err)
	}
	req.Evidence.Roster = env2
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 2), req); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("bob counts without being on the roster: %v", err)
	}
	// A second version 2 and a gap cannot be signed.
	for _, d := range []approval.RosterDocument{
		{Version: 2, Previous: one.Digest(), Approvers: one.Approvers()},
		{Version: 4, Previous: one.Digest(), Approvers: one.Approvers()},
	} {
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		p := w.mint(t, Grant{Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(b), Evidence: 9})
		if _, err := w.s.SignRoster(p, b, t0); fw.KindOf(err) != fw.Conflict {
			t.Errorf("roster version %d: %v", d.Version, err)
		}
	}
}

func TestTrustBundleIsSignedUnderItsOwnType(t *testing.T) {
	w := newWorld(t)
	doc := []byte(`{"type":"writ-trust-bundle/v1"}`)
	env, err := w.s.SignTrustBundle(w.mint(t, Grant{Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(doc), Evidence: 3}), doc, t0)
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := w.public(t, "root-1").(ed25519.PublicKey)
	e, got, err := dsse.Open(env, authz.TrustBundlePayloadType, dsse.Limits{Bytes: 1 << 20, Signatures: 1})
	if err != nil || !bytes.Equal(got, doc) || !e.SignedBy(pub, got) {
		t.Fatalf("Open = %s, %v", got, err)
	}
	if _, err := approval.OpenRoster(env, pub); err == nil {
		t.Error("a trust bundle passes as a roster")
	}
	p := w.mint(t, Grant{Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(doc), Evidence: 4})
	if _, err := w.s.SignTrustBundle(p, append(doc, ' '), t0); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another document: %v", err)
	}
}

func (w *world) public(tb testing.TB, name fw.KeyName) crypto.PublicKey {
	tb.Helper()
	info, err := w.ks.Public(name)
	if err != nil {
		tb.Fatal(err)
	}
	pub, err := info.Public()
	if err != nil {
		tb.Fatal(err)
	}
	return pub
}

func TestClosedSignerJournalsNothing(t *testing.T) {
	w := newWorld(t)
	p := w.imagePermit(t, 1)
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.SignImage(t.Context(), p, w.request(t, "alice", "bob")); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("SignImage after Close: %v", err)
	}
}

func TestCancelledContextSignsNothing(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.s.SignImage(ctx, w.imagePermit(t, 1), w.request(t, "alice", "bob")); !errors.Is(err, context.Canceled) {
		t.Errorf("SignImage = %v", err)
	}
}
