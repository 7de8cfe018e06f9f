package signerd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/signer"
	wtlog "github.com/writ-project/writ/internal/tlog"
)

// world is a signer's folder as writ-signer init makes it, one approver, and a
// server's log.
type world struct {
	tb       testing.TB
	dir      string
	log      ed25519.PrivateKey
	approver ssh.Signer
	index    int64
	input    []byte
	digest   fw.Digest // of what is ordered: the input, or a larger file
	size     int64

	service *Service
	socket  string
	stop    func()
}

const pass = "test"

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{tb: tb, dir: filepath.Join(tb.TempDir(), "s"), input: bytes.Repeat([]byte("firmware "), 30_000)}
	w.digest, w.size = fw.DigestOf(w.input), int64(len(w.input))
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	w.log = key
	vkey, err := wtlog.VerifierKey("writ.test/log", pub)
	w.must(err)
	tb.Setenv("WRIT_PASSPHRASE", pass)
	_, k, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	w.approver, err = ssh.NewSignerFromSigner(k)
	w.must(err)
	file := filepath.Join(tb.TempDir(), "alice.pub")
	w.must(os.WriteFile(file, ssh.MarshalAuthorizedKey(w.approver.PublicKey()), 0o600))
	w.run(ExitOK, "init", "--scrypt-log-n", "4", "--log", vkey)
	w.run(ExitOK, "roster", "add", "alice", file)
	return w
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

// run runs the command and returns what it wrote.
func (w *world) run(code int, args ...string) string {
	w.tb.Helper()
	var out bytes.Buffer
	if got := Main(w.tb.Context(), append(args, "--dir", w.dir), &out, &out); got != code {
		w.tb.Fatalf("writ-signer %s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, out.String())
	}
	return out.String()
}

// open opens the service.
func (w *world) open() *Service {
	w.tb.Helper()
	s, err := Open(Options{Dir: w.dir, Passphrase: []byte(pass), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	w.service = s
	return s
}

// serve serves on a Unix socket for the given users.
func (w *world) serve(uids ...uint32) *Client {
	w.tb.Helper()
	if w.socket == "" {
		// A path in TempDir can be longer than a socket's may be.
		dir, err := os.MkdirTemp("", "ws")
		w.must(err)
		w.tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		w.socket = filepath.Join(dir, "s")
	}
	w.listen(&Listen{Socket: w.socket, UIDs: uids})
	c, err := NewClient(ClientConfig{Address: "unix:" + w.socket})
	w.must(err)
	w.tb.Cleanup(c.Close)
	return c
}

// listen serves as l says and returns the address.
func (w *world) listen(l *Listen) string {
	w.tb.Helper()
	s, log := w.open(), slog.New(slog.DiscardHandler)
	conf, allow, err := l.config(w.tb.Context(), log)
	w.must(err)
	conf.Handler = s.Handler(httpd.NewFront(log, time.Now), allow)
	h, err := httpd.New(w.tb.Context(), conf)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.tb.Error(err)
		}
		if err := s.Close(); err != nil {
			w.tb.Error(err)
		}
	}
	w.tb.Cleanup(w.stop)
	return h.Addr()
}

func (w *world) roster() []byte {
	w.tb.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, rosterDir, "1.json"))
	w.must(err)
	return b
}

// order is an order for the input as a release of the given version, approved
// by alice.
func (w *world) order(version string) signer.ImageOrder {
	w.tb.Helper()
	m := fw.Manifest{
		Type: fw.TypeManifest, Release: "rel_1", Product: "gateway", Version: version, ReleaseType: fw.ReleaseFunctional,
		Hardware: []fw.HardwareID{"gw-1"}, ProposedBy: "erin", CreatedAt: 1, Nonce: "00",
		Components: []fw.ManifestComponent{{Name: "main", Format: "raw", InputDigest: w.digest, InputSize: w.size, Key: "image"}},
	}
	doc, err := json.Marshal(m)
	w.must(err)
	armored, err := approval.Sign(doc, w.approver)
	w.must(err)
	return signer.ImageOrder{
		Component: "main", By: "erin", Decision: w.decide(evidence.KeyUse{Purpose: fw.PurposeImage, Key: "image", Subject: w.digest, Document: doc}),
		Evidence: signer.ApprovalEvidence{
			Document: doc, Roster: w.roster(), Need: 1, Proposer: "erin", Approvals: []approval.Approval{{Person: "alice", Armored: string(armored)}},
		},
	}
}

func (w *world) decide(use evidence.KeyUse) signer.Decision {
	w.tb.Helper()
	w.index++
	data, err := json.Marshal(use)
	w.must(err)
	body, err := evidence.Encode(evidence.Record{
		Index: w.index, Type: evidence.TypeKeyUse, MS: 1, Actor: "erin", Data: data, Streams: []evidence.Link{{Stream: "key/image", N: 1}},
	})
	w.must(err)
	salt := evidence.NewSalt()
	c := evidence.Commit(salt, body)
	pub, ok := w.log.Public().(ed25519.PublicKey)
	if !ok {
		w.tb.Fatal("the log key is not Ed25519")
	}
	rs, err := wtlog.SignRoot(tlog.RecordHash(c[:]), pub, func(m []byte) ([]byte, error) { return ed25519.Sign(w.log, m), nil })
	w.must(err)
	// A tree of this one entry: its root is the leaf.
	receipt, err := wtlog.Receipt(rs, 1, 0, nil)
	w.must(err)
	return signer.Decision{Salt: salt[:], Record: body, Receipt: receipt}
}

// journal counts the entries of a kind about images and statements.
func (w *world) journal(kind signer.EntryKind) (n int) {
	w.tb.Helper()
	_, _, err := signer.ReadJournal(filepath.Join(w.dir, keysFolder, "journal.jsonl"), func(e signer.Entry) error {
		if e.Kind == kind && e.Purpose != fw.PurposeRosterRoot {
			n++
		}
		return nil
	})
	w.must(err)
	return n
}

func (w *world) spooled() []string {
	w.tb.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, spoolFolder))
	w.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func everybody(*http.Request) error { return nil }
