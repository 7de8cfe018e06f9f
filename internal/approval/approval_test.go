package approval

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

func newSigner(tb testing.TB, key crypto.Signer) ssh.Signer {
	tb.Helper()
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func newEd25519(tb testing.TB) ssh.Signer {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return newSigner(tb, k)
}

func line(s ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

func mustSign(tb testing.TB, doc []byte, s ssh.Signer) []byte {
	tb.Helper()
	a, err := Sign(doc, s)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func mustKey(tb testing.TB, line string) Key {
	tb.Helper()
	k, err := ParsePublicKey(line)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func ecKey(tb testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func rsaKey(tb testing.TB, bits int) *rsa.PrivateKey {
	tb.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// skSigner imitates a FIDO2 authenticator (OpenSSH PROTOCOL.u2f).
type skSigner struct {
	pub   ssh.PublicKey
	key   ed25519.PrivateKey
	flags byte
}

func newSK(tb testing.TB, flags byte) *skSigner {
	tb.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	wire := ssh.Marshal(struct{ Type, Key, App string }{ssh.KeyAlgoSKED25519, string(pub), "ssh:"})
	p, err := ssh.ParsePublicKey(wire)
	if err != nil {
		tb.Fatal(err)
	}
	return &skSigner{p, key, flags}
}

func (s *skSigner) PublicKey() ssh.PublicKey { return s.pub }

func (s *skSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, msg := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := binary.BigEndian.AppendUint32([]byte{s.flags}, 7)
	blob := append(append(bytes.Clone(app[:]), tail...), msg[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(s.key, blob), Rest: tail}, nil
}

func TestVerifyAcceptsEveryAllowedKeyKind(t *testing.T) {
	doc := []byte(`{"type":"writ-release/v1"}`)
	for name, s := range map[string]ssh.Signer{
		"ed25519":    newEd25519(t),
		"ecdsa-p256": newSigner(t, ecKey(t, elliptic.P256())),
		"rsa-3072":   newSigner(t, rsaKey(t, 3072)),
		"ed25519-sk": newSK(t, 1),
	} {
		t.Run(name, func(t *testing.T) {
			a := mustSign(t, doc, s)
			k := mustKey(t, line(s)+" alice@example.org")
			if err := Verify(doc, a, k); err != nil {
				t.Fatal(err)
			}
			if err := Verify(append(bytes.Clone(doc), ' '), a, k); fw.KindOf(err) != fw.Forbidden {
				t.Errorf("one more byte: %v", err)
			}
			if got, err := SignatureKey(a); err != nil || got.Fingerprint() != k.Fingerprint() {
				t.Errorf("SignatureKey = %v, %v", got, err)
			}
			if k.Hardware() != (name == "ed25519-sk") {
				t.Errorf("Hardware() = %v", k.Hardware())
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	doc := []byte("doc")
	alice, bob := newEd25519(t), newEd25519(t)
	sign := func(s ssh.Signer, h sshsig.HashAlgorithm, ns string) []byte {
		sig, err := sshsig.Sign(bytes.NewReader(doc), s, h, ns)
		if err != nil {
			t.Fatal(err)
		}
		return sshsig.Armor(sig)
	}
	good := mustSign(t, doc, alice)
	rsaSigner := newSigner(t, rsaKey(t, 3072))
	rsa256 := func() []byte { // rsa-sha2-256 inside a sha512 SSHSIG
		sig, err := sshsig.Sign(bytes.NewReader(doc), rsaSigner, sshsig.HashSHA512, Namespace)
		if err != nil {
			t.Fatal(err)
		}
		sig.Signature.Format = ssh.KeyAlgoRSASHA256
		return sshsig.Armor(sig)
	}()
	for name, c := range map[string]struct {
		armored []byte
		key     ssh.Signer
		says    string
	}{
		"another namespace":     {sign(alice, sshsig.HashSHA512, "git"), alice, "-n writ-approval"},
		"another hash":          {sign(alice, sshsig.HashSHA256, Namespace), alice, "hashalg=sha512"},
		"another key":           {good, bob, "not SHA256:"},
		"a short RSA key":       {sign(newSigner(t, rsaKey(t, 2048)), sshsig.HashSHA512, Namespace), alice, "2048"},
		"rsa-sha2-256":          {rsa256, rsaSigner, "rsa-sha2-512"},
		"P-384":                 {sign(newSigner(t, ecKey(t, elliptic.P384())), sshsig.HashSHA512, Namespace), alice, "cannot approve"},
		"an untouched FIDO2":    {mustSign(t, doc, newSK(t, 0)), nil, "not over these bytes"},
		"nothing":               {nil, alice, "not an SSH signature"},
		"text before":           {append([]byte("hello\n"), good...), alice, "not an SSH signature"},
		"text after":            {append(bytes.Clone(good), "hello"...), alice, "not an SSH signature"},
		"two signatures":        {append(bytes.Clone(good), good...), alice, "not an SSH signature"},
		"an oversized one":      {make([]byte, maxArmored+1), alice, "over the limit"},
		"a truncated one":       {[]byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"), alice, "malformed"},
		"a PEM of another kind": {[]byte("-----BEGIN CERTIFICATE-----\nU1NIU0lH\n-----END CERTIFICATE-----\n"), alice, "not an SSH signature"},
	} {
		t.Run(name, func(t *testing.T) {
			var key Key
			if c.key != nil {
				key = mustKey(t, line(c.key))
			} else {
				k, err := SignatureKey(c.armored)
				if err != nil {
					t.Fatal(err)
				}
				key = k
			}
			err := Verify(doc, c.armored, key)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Verify = %v, want something with %q", err, c.says)
			}
		})
	}
	if err := Verify(doc, good, Key{}); err == nil {
		t.Error("the zero Key verified something")
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	k := line(newEd25519(t))
	for name, l := range map[string]string{
		"empty":     "",
		"options":   `no-touch-required ` + k,
		"two lines": k + "\n" + k,
		"dsa":       "ssh-dss AAAAB3NzaC1kc3MAAACBAP",
		"oversized": k + " " + strings.Repeat("x", maxKeyLine),
		"p384":      line(newSigner(t, ecKey(t, elliptic.P384()))),
		"rsa-2048":  line(newSigner(t, rsaKey(t, 2048))),
	} {
		if _, err := ParsePublicKey(l); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// people makes a roster of one key each.
func people(tb testing.TB, keys map[fw.PersonID][]string) *Roster {
	tb.Helper()
	d := RosterDocument{Version: 1}
	for p, k := range keys {
		d.Approvers = append(d.Approvers, Approver{Person: p, Keys: k})
	}
	b, err := d.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	r, err := ParseRoster(b)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestQuorumCountsPersons(t *testing.T) {
	doc := []byte("the plan")
	alice, alice2, bob, carol, eve := newEd25519(t), newEd25519(t), newEd25519(t), newEd25519(t), newEd25519(t)
	roster := people(t, map[fw.PersonID][]string{"alice": {line(alice), line(alice2)}, "bob": {line(bob)}, "carol": {line(carol)}})
	by := func(p fw.PersonID, s ssh.Signer) Approval { return Approval{p, string(mustSign(t, doc, s))} }
	other := Approval{"bob", string(mustSign(t, []byte("another plan"), bob))}

	for _, c := range []struct {
		name     string
		in       []Approval
		need     int
		met      bool
		counted  int
		rejected string
	}{
		{"two people", []Approval{by("alice", alice), by("bob", bob)}, 2, true, 2, ""},
		{"one person", []Approval{by("alice", alice)}, 2, false, 1, ""},
		{"one person with two keys counts once", []Approval{by("alice", alice), by("alice", alice2)}, 2, false, 1, "has been counted"},
		{"a bad signature does not hide a good one", []Approval{{"alice", "junk"}, by("alice", alice2)}, 1, true, 1, "not an SSH signature"},
		{"the proposer", []Approval{by("carol", carol), by("alice", alice)}, 2, false, 1, "proposer"},
		{"another's key", []Approval{by("alice", bob)}, 1, false, 0, "not one of this person's keys"},
		{"the proposer under another name", []Approval{by("alice", carol)}, 1, false, 0, "not one of this person's keys"},
		{"a stranger", []Approval{by("eve", eve)}, 1, false, 0, "not on roster version 1"},
		{"another document", []Approval{other}, 1, false, 0, "not over these bytes"},
		{"nobody needed", []Approval{by("alice", alice)}, 0, false, 1, ""},
		{"nobody", nil, 1, false, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := Quorum(doc, c.in, roster, c.need, "carol")
			if res.Met() != c.met || len(res.Counted) != c.counted {
				t.Errorf("Met %v counted %v, want %v and %d", res.Met(), res.Counted, c.met, c.counted)
			}
			if len(res.Counted)+len(res.Rejected) != len(c.in) {
				t.Errorf("%d approvals are neither counted nor rejected", len(c.in)-len(res.Counted)-len(res.Rejected))
			}
			if c.rejected != "" && (len(res.Rejected) != 1 || !strings.Contains(res.Rejected[0].Reason, c.rejected)) {
				t.Errorf("Rejected %v, want one with %q", res.Rejected, c.rejected)
			}
		})
	}
	if (Result{}).Met() {
		t.Error("the zero Result is met")
	}
	if Quorum(doc, []Approval{by("alice", alice)}, nil, 1, "carol").Met() {
		t.Error("met without a roster")
	}
	if Quorum(doc, []Approval{by("alice", alice)}, roster, 1, "").Met() {
		t.Error("met without a proposer")
	}
}

func TestRosterRefuses(t *testing.T) {
	a, b := line(newEd25519(t)), line(newEd25519(t))
	for name, doc := range map[string]string{
		"shared key":        `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]},{"person":"bob","keys":["` + a + ` other comment"]}]}`,
		"person twice":      `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]},{"person":"alice","keys":["` + b + `"]}]}`,
		"no approvers":      `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[]}`,
		"no keys":           `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":[]}]}`,
		"another type":      `{"type":"writ-plan/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]}`,
		"version 0":         `{"type":"writ-roster/v1","version":0,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]}`,
		"no previous":       `{"type":"writ-roster/v1","version":2,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]}`,
		"unknown role":      `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"],"roles":["king"]}]}`,
		"duplicate member":  `{"type":"writ-roster/v1","version":1,"Version":2,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]}`,
		"unknown member":    `{"type":"writ-roster/v1","version":1,"x":2,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]}`,
		"something after":   `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"alice","keys":["` + a + `"]}]} {}`,
		"not JSON":          `roster`,
		"truncated":         `{"type":"writ-roster/v1"`,
		"deep":              strings.Repeat("[", 10000),
		"person with space": `{"type":"writ-roster/v1","version":1,"created_at":1,"approvers":[{"person":"a b","keys":["` + a + `"]}]}`,
	} {
		if _, err := ParseRoster([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRosterChainAndEnvelope(t *testing.T) {
	pub, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPub, _, _ := ed25519.GenerateKey(rand.Reader)
	seal := func(d RosterDocument) []byte {
		t.Helper()
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		env, err := dsse.Seal(RosterPayloadType, b, root)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	open := func(env []byte) *Roster {
		t.Helper()
		r, err := OpenRoster(env, pub)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one := RosterDocument{Version: 1, CreatedAt: 7, Approvers: []Approver{{Person: "alice", Keys: []string{line(newEd25519(t))}, Roles: []fw.Role{fw.RoleApprover}}}}
	env1 := seal(one)
	r1 := open(env1)
	two := one
	two.Version, two.Previous = 2, r1.Digest()
	r2 := open(seal(two))
	forked := two
	forked.Previous = fw.DigestOf([]byte("another version 1"))

	if err := r1.Follows(nil); err != nil {
		t.Error(err)
	}
	if err := r2.Follows(r1); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"a gap":           r2.Follows(nil),
		"itself":          r2.Follows(r2),
		"backwards":       r1.Follows(r2),
		"another history": open(seal(forked)).Follows(r1),
	} {
		if fw.KindOf(err) != fw.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}

	if _, err := OpenRoster(env1, otherPub); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another root: %v", err)
	}
	if other, err := dsse.Seal("application/vnd.writ.trust-bundle.v1+json", r1.Document(), root); err != nil {
		t.Fatal(err)
	} else if _, err := OpenRoster(other, pub); err == nil {
		t.Error("something else that the root key signed passes as a roster")
	}
	for i := range env1 {
		bad := bytes.Clone(env1)
		bad[i] ^= 1
		r, err := OpenRoster(bad, pub)
		if err == nil && r.Digest() != r1.Digest() {
			t.Fatalf("byte %d changed another roster through", i)
		}
	}
	if k := r1.Keys("alice"); len(k) != 1 {
		t.Errorf("Keys = %v", k)
	} else if p, ok := r1.Owner(k[0].Fingerprint()); !ok || p != "alice" {
		t.Errorf("Owner = %v, %v", p, ok)
	}
}

func FuzzOpenRoster(f *testing.F) {
	pub, root, _ := ed25519.GenerateKey(rand.Reader)
	doc, _ := RosterDocument{Version: 1, Approvers: []Approver{{Person: "a", Keys: []string{line(newEd25519(f))}}}}.Encode()
	env, _ := dsse.Seal(RosterPayloadType, doc, root)
	f.Add(env)
	f.Add(doc)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := OpenRoster(b, pub); err == nil && !bytes.Equal(r.Document(), doc) {
			t.Fatal("opened a roster that was not signed")
		}
		_, _ = ParseRoster(b) // must not panic
	})
}

func FuzzVerify(f *testing.F) {
	s := newEd25519(f)
	doc := []byte("doc")
	key := mustKey(f, line(s))
	f.Add(mustSign(f, doc, s))
	f.Fuzz(func(t *testing.T, b []byte) {
		if Verify([]byte("another"), b, key) == nil {
			t.Fatal("verified over a document that was not signed")
		}
	})
}

func BenchmarkQuorum(b *testing.B) {
	doc := []byte("doc")
	alice, bob := newEd25519(b), newEd25519(b)
	roster := people(b, map[fw.PersonID][]string{"alice": {line(alice)}, "bob": {line(bob)}})
	in := []Approval{{"alice", string(mustSign(b, doc, alice))}, {"bob", string(mustSign(b, doc, bob))}}
	for b.Loop() {
		if !Quorum(doc, in, roster, 2, "carol").Met() {
			b.Fatal("not met")
		}
	}
}

func ExampleQuorum() {
	_, k, _ := ed25519.GenerateKey(rand.Reader)
	alice, _ := ssh.NewSignerFromSigner(k)
	document, _ := RosterDocument{Version: 1, Approvers: []Approver{{Person: "alice", Keys: []string{line(alice)}}}}.Encode()
	roster, _ := ParseRoster(document)

	manifest, _ := json.Marshal(fw.Manifest{Type: fw.TypeManifest, ProposedBy: "bob"})
	armored, _ := Sign(manifest, alice)
	res := Quorum(manifest, []Approval{{"alice", string(armored)}}, roster, 1, "bob")
	fmt.Println(res.Met(), res.Counted[0].Person)
	// Output: true alice
}
