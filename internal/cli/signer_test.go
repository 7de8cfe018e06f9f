package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/signerd"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

// These commands run a signer in a process of its own, and rob its server.
//
//	line NAME                put the first line of the last stdout in $NAME
//	signer DIR FLAG…         run writ-signer serve on a socket; sets SIGNER
//	stop-signer              end it as Ctrl-C does
//	kill-signer DIR          end it with SIGKILL in the moment when it has redeemed a permit and not signed
//	thief DATA RELEASE OTHER try everything that whoever has the server can try: RELEASE is not
//	                         approved, OTHER is published; each try must be refused

func line(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "line NAME")
	first, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Setenv(args[0], first)
}

func startSigner(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "signer DIR FLAG…")
	s := of(ts)
	if s.signer != nil {
		ts.Fatalf("there is a signer already")
	}
	if s.socket == "" {
		// A socket's path has at most 108 bytes, which a script's folder may exceed.
		dir, err := os.MkdirTemp("", "ws")
		ts.Check(err)
		ts.Defer(func() { _ = os.RemoveAll(dir) })
		s.socket = filepath.Join(dir, "s")
	}
	ready := ts.MkAbs("signer.ready")
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	log, err := os.OpenFile(ts.MkAbs("signer.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	c := exec.Command("writ-signer", append([]string{
		"serve", "--dir", ts.MkAbs(args[0]), "--socket", s.socket, "--allow-uid", strconv.Itoa(os.Getuid()), "--ready-file", ready,
	}, args[1:]...)...)
	c.Dir, c.Stdout, c.Stderr = ts.Getenv("WORK"), log, log
	for _, k := range []string{"HOME", "PATH", "TMPDIR", "WRIT_PASSPHRASE", "GOCOVERDIR"} {
		c.Env = append(c.Env, k+"="+ts.Getenv(k))
	}
	ts.Check(c.Start())
	s.signer = &running{cmd: c, done: make(chan struct{})}
	go s.signer.wait()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(end) || s.signer.ended() {
			ts.Fatalf("the signer does not start:\n%s", ts.ReadFile("signer.log"))
		}
	}
	ts.Setenv("SIGNER", "unix:"+s.socket)
}

func stopSigner(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, "stop-signer")
	s := of(ts)
	if s.signer == nil {
		ts.Fatalf("there is no signer")
	}
	r := s.signer
	s.signer = nil
	ts.Check(r.stop())
}

func killSigner(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "kill-signer DIR")
	s := of(ts)
	path := filepath.Join(ts.MkAbs(args[0]), "keys", "journal.jsonl")
	for end := time.Now().Add(patience); !redeemedLast(ts, path); {
		if time.Now().After(end) {
			ts.Fatalf("nothing was signed")
		}
	}
	ts.Check(s.signer.cmd.Process.Kill())
	<-s.signer.done
	s.signer = nil
	if !redeemedLast(ts, path) {
		ts.Fatalf("the signer was too fast: give it a larger image")
	}
}

// redeemedLast reports whether a journal ends with the redemption of a permit.
func redeemedLast(ts *testscript.TestScript, path string) bool {
	b, err := os.ReadFile(path)
	ts.Check(err)
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.Contains(b[bytes.LastIndexByte(b, '\n')+1:], []byte(`"kind":"redeemed"`))
}

// signatures counts what a signer signed of images and statements.
func signatures(ts *testscript.TestScript, dir string) (n int) {
	f, err := os.Open(filepath.Join(dir, "keys", "journal.jsonl"))
	ts.Check(err)
	defer f.Close()
	for r := bufio.NewScanner(f); r.Scan(); {
		if bytes.Contains(r.Bytes(), []byte(`"kind":"signed"`)) {
			n++
		}
	}
	return n
}

// thief has the data folder of a server, its passphrase and its socket to the
// signer: the database, the log's key, all but the signer's own folder.
type thief struct {
	ts     *testscript.TestScript
	ks     *signer.Keystore
	own    *signer.Signer
	db     *store.DB
	log    *ledger.Ledger
	client *signerd.Client
}

func thieve(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 4, "thief DATA SIGNER-DIR RELEASE OTHER")
	if of(ts).server != nil {
		ts.Fatalf("stop the server first: the thief runs in its place")
	}
	th := steal(ts, config.Config{Data: ts.MkAbs(args[0]), Passphrase: []byte(ts.Getenv("WRIT_PASSPHRASE"))})
	defer th.close()
	dir := ts.MkAbs(args[1])
	before := signatures(ts, dir)
	unapproved, published := th.release(args[2]), th.release(args[3])
	for _, try := range th.attempts(unapproved, published) {
		err := try.run()
		if !signer.IsRefusal(err) || !strings.Contains(err.Error(), try.why) {
			ts.Fatalf("%s: %v, want a refusal that says %q", try.what, err, try.why)
		}
		_, _ = fmt.Fprintf(ts.Stdout(), "%s: %s\n", try.what, signer.Reason(err)) // for the script's log
	}
	if after := signatures(ts, dir); after != before {
		ts.Fatalf("the thief obtained %d signatures", after-before)
	}
}

func steal(ts *testscript.TestScript, c config.Config) *thief {
	ctx := context.Background()
	ts.Check(c.Complete())
	th := &thief{ts: ts}
	var err error
	th.ks, err = signer.OpenKeystore(c.Keys(), signer.KeystoreOptions{Passphrase: c.Passphrase})
	ts.Check(err)
	for _, k := range th.ks.List() {
		if th.ks.Holds(k.Name) && (k.Purpose == fw.PurposeImage || k.Purpose == fw.PurposeStatement || k.Purpose == fw.PurposeRosterRoot) {
			ts.Fatalf("the server holds %s", k.Name)
		}
	}
	th.own, err = signer.Open(th.ks, signer.Options{})
	ts.Check(err)
	th.db, err = store.Open(ctx, store.Options{URL: c.Database})
	ts.Check(err)
	ls, err := th.own.LogSigner(server.LogKeyName, c.Name)
	ts.Check(err)
	th.log, err = ledger.Open(ctx, th.db, ls)
	ts.Check(err)
	th.client, err = signerd.NewClient(signerd.ClientConfig{Address: ts.Getenv("SIGNER")})
	ts.Check(err)
	return th
}

func (th *thief) close() {
	th.client.Close()
	th.ts.Check(th.db.Close())
	th.ts.Check(th.own.Close())
}

// stolen is what the database has of a release.
type stolen struct {
	row       store.Release
	manifest  fw.Manifest
	approvals []approval.Approval
	roster    []byte
}

func (th *thief) release(id string) stolen {
	q := th.db.Snapshot(context.Background())
	var s stolen
	var err error
	s.row, err = store.ReleaseByID(q, fw.ReleaseID(id))
	th.ts.Check(err)
	th.ts.Check(json.Unmarshal(s.row.Manifest, &s.manifest))
	rows, err := store.Approvals(q, fw.DigestOf(s.row.Manifest))
	th.ts.Check(err)
	for _, r := range rows {
		s.approvals = append(s.approvals, approval.Approval{Person: r.Person, Armored: r.Armored})
	}
	v, err := store.LatestVersioned(q, store.RosterTable)
	th.ts.Check(err)
	s.roster = v.Envelope
	return s
}

func (s *stolen) evidence() signer.ApprovalEvidence {
	return signer.ApprovalEvidence{Document: s.row.Manifest, Approvals: s.approvals, Roster: s.roster, Need: 1, Proposer: s.manifest.ProposedBy}
}

// decide writes a decision into the real log: the thief has its key.
func (th *thief) decide(use evidence.KeyUse) signer.Decision {
	ctx := context.Background()
	var index int64
	th.ts.Check(th.db.Tx(ctx, func(tx *store.Tx) error {
		pos, err := th.log.Append(tx, ledger.Entry{
			Type: evidence.TypeKeyUse, Actor: "erin", Streams: []evidence.StreamID{evidence.KeyStream(use.Key), evidence.LogStream}, Data: use,
		})
		index = pos.Index
		return err
	}))
	row, err := store.RecordByIndex(th.db.Snapshot(ctx), index)
	th.ts.Check(err)
	receipt, err := th.log.Receipt(index)
	th.ts.Check(err)
	return signer.Decision{Salt: row.Salt, Record: row.Body, Receipt: receipt}
}

// order asks for the first component of s, of whatever s has become.
func (th *thief) order(s stolen) signer.ImageOrder {
	c := s.manifest.Components[0]
	return signer.ImageOrder{Component: c.Name, Evidence: s.evidence(), By: "erin", Decision: th.decide(evidence.KeyUse{
		Purpose: fw.PurposeImage, Key: c.Key, Subject: c.InputDigest, Reason: "stolen", Document: s.row.Manifest,
	})}
}

// sign orders a signature over image.
func (th *thief) sign(o signer.ImageOrder, image []byte) error {
	_, err := th.client.SignImage(context.Background(), o, bytes.NewReader(image), io.Discard)
	return err
}

type attempt struct {
	what, why string
	run       func() error
}

func (th *thief) attempts(unapproved, published stolen) []attempt {
	ts, ctx := th.ts, context.Background()
	mine, line := sshKey(ts)
	_, root, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	malware := []byte("malware")
	approve := func(s *stolen, key ssh.Signer, as fw.PersonID) {
		armored, err := approval.Sign(s.row.Manifest, key)
		ts.Check(err)
		s.approvals = []approval.Approval{{Person: as, Armored: string(armored)}}
	}
	// The published release with other firmware in it.
	swapped := published
	swapped.manifest.Components = slices.Clone(published.manifest.Components)
	swapped.manifest.Components[0].InputDigest, swapped.manifest.Components[0].InputSize = fw.DigestOf(malware), int64(len(malware))
	swapped.row.Manifest, err = json.Marshal(swapped.manifest)
	ts.Check(err)

	return []attempt{
		{"an unapproved release", "0 of 1 needed approvals", func() error { return th.sign(th.order(unapproved), malware) }},
		{"no approvals needed, they say", "at least 1 approvals", func() error {
			o := th.order(unapproved)
			o.Evidence.Need = 0
			return th.sign(o, malware)
		}},
		{"an approval by a key of their own", "not one of this person's keys", func() error {
			s := unapproved
			approve(&s, mine, "alice")
			return th.sign(th.order(s), malware)
		}},
		{"an approval of another release", "0 of 1 needed approvals", func() error {
			s := unapproved
			s.approvals = published.approvals
			return th.sign(th.order(s), malware)
		}},
		{"a roster of their own", "root keys", func() error {
			s := unapproved
			s.roster = th.forgeRoster(s.roster, line, root)
			approve(&s, mine, "mallory")
			return th.sign(th.order(s), malware)
		}},
		{"a roster of their own, adopted first", "root keys", func() error {
			return th.client.AdoptRoster(ctx, th.forgeRoster(published.roster, line, root))
		}},
		{"an edited manifest", "0 of 1 needed approvals", func() error { return th.sign(th.order(swapped), malware) }},
		{"an approved manifest, a decision about other bytes", "approved manifest names", func() error {
			o := th.order(published)
			o.Decision = th.decide(evidence.KeyUse{Purpose: fw.PurposeImage, Key: "image", Subject: fw.DigestOf(malware), Document: published.row.Manifest})
			return th.sign(o, malware)
		}},
		{"an approved order, other bytes", "digest", func() error {
			return th.sign(th.order(published), bytes.Repeat([]byte("x"), int(published.manifest.Components[0].InputSize)))
		}},
		{"a decision that is not in the log", "evidence log", func() error {
			o := th.order(published)
			o.Decision.Record = bytes.Replace(o.Decision.Record, []byte("stolen"), []byte("honest"), 1)
			return th.sign(o, malware)
		}},
		{"a permit that was used", "has been used", func() error {
			return th.sign(th.used(published), malware)
		}},
		{"a statement about other firmware", "did not make", func() error {
			st, err := statement.Make(published.row.Manifest, []fw.SignedImage{{
				Component: published.manifest.Components[0].Name, Format: published.manifest.Components[0].Format, Version: published.manifest.Version,
				SecurityCounter: published.manifest.Components[0].SecurityCounter, Digest: fw.DigestOf(malware), Size: int64(len(malware)), KeyID: "00",
			}})
			ts.Check(err)
			doc, err := st.Encode()
			ts.Check(err)
			_, err = th.client.SignStatement(ctx, signer.StatementOrder{Statement: doc, Evidence: published.evidence(), By: "erin", Decision: th.decide(evidence.KeyUse{
				Purpose: fw.PurposeStatement, Key: "statement", Subject: fw.DigestOf(doc), Document: doc,
			})})
			return err
		}},
		{"a trust bundle with an image key of their own", "does not know", func() error { return th.trust(root) }},
		{"a trust bundle with another root", "other roots", func() error { return th.trustRoot(root) }},
	}
}

// used is the order behind a signature that was made.
func (th *thief) used(s stolen) signer.ImageOrder {
	q := th.db.Snapshot(context.Background())
	rows, err := store.StreamRecords(q, string(evidence.ReleaseStream(s.row.ID)), 1, 1000)
	th.ts.Check(err)
	for _, row := range rows {
		if row.Type != string(evidence.TypeKeyUse) {
			continue
		}
		r, err := evidence.Decode(row.Body)
		th.ts.Check(err)
		use, err := evidence.Payload[evidence.KeyUse](r)
		th.ts.Check(err)
		if use.Purpose != fw.PurposeImage {
			continue
		}
		receipt, err := th.log.Receipt(row.Index)
		th.ts.Check(err)
		return signer.ImageOrder{
			Component: s.manifest.Components[0].Name, Evidence: s.evidence(), By: "erin",
			Decision: signer.Decision{Salt: row.Salt, Record: row.Body, Receipt: receipt},
		}
	}
	th.ts.Fatalf("release %s was not signed", s.row.ID)
	return signer.ImageOrder{}
}

func (th *thief) forgeRoster(envelope []byte, line string, root ed25519.PrivateKey) []byte {
	_, payload, err := dsse.Open(envelope, approval.RosterPayloadType, dsse.Limits{Bytes: 1 << 20, Signatures: 8})
	th.ts.Check(err)
	prev, err := approval.ParseRoster(payload)
	th.ts.Check(err)
	doc, err := approval.RosterDocument{
		Version: prev.Version() + 1, Previous: prev.Digest(), CreatedAt: time.Now().Unix(),
		Approvers: append(prev.Approvers(), approval.Approver{Person: "mallory", Keys: []string{line}}),
	}.Encode()
	th.ts.Check(err)
	forged, err := dsse.Seal(approval.RosterPayloadType, doc, root)
	th.ts.Check(err)
	return forged
}

// trust asks for a trust bundle in which devices believe one more image key.
func (th *thief) trust(key ed25519.PrivateKey) error {
	return th.bundle(func(d *authz.TrustDocument) { d.ImageKeys = append(d.ImageKeys, th.trustKey(key)) })
}

func (th *thief) trustRoot(key ed25519.PrivateKey) error {
	return th.bundle(func(d *authz.TrustDocument) { d.Roots.Keys = append(d.Roots.Keys, th.trustKey(key)) })
}

func (th *thief) trustKey(key ed25519.PrivateKey) authz.TrustKey {
	k, err := authz.NewTrustKey(key.Public())
	th.ts.Check(err)
	return k
}

func (th *thief) bundle(change func(*authz.TrustDocument)) error {
	ctx := context.Background()
	row, err := store.LatestVersioned(th.db.Snapshot(ctx), store.TrustBundleTable)
	th.ts.Check(err)
	prev, err := authz.OpenTrust(row.Envelope)
	th.ts.Check(err)
	doc := prev.Document().Next(prev)
	change(&doc)
	b, err := doc.Encode()
	th.ts.Check(err)
	_, err = th.client.SignTrustBundle(ctx, signer.TrustOrder{Document: b, By: "server", Decision: th.decide(evidence.KeyUse{
		Purpose: fw.PurposeRosterRoot, Key: "root", Subject: fw.DigestOf(b), Document: b,
	})})
	return err
}

func sshKey(ts *testscript.TestScript) (ssh.Signer, string) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	s, err := ssh.NewSignerFromSigner(k)
	ts.Check(err)
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}
