package verify_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/tlog"
	"github.com/writ-project/writ/verify"
)

// forger is an operator who owns the log key and every key of the server, and
// writes the log anew: after any change it makes links, epoch, tree,
// checkpoint and authorizations agree again. What it does not have is the keys
// of approvers and devices.
type forger struct {
	tb          testing.TB
	w           *fwtest.World
	key         ed25519.PrivateKey // the log's
	pub         ed25519.PublicKey
	manifest    verify.Manifest
	trust       verify.Trust
	checkpoints []verify.OldCheckpoint
	streams     []evidence.StreamID
	entries     []*entry
	size        int64     // after pack
	root        tlog.Hash // after pack
}

// entry is one record of the log, or the commitment of one not exported.
type entry struct {
	evidence.Record

	commitment evidence.Commitment // of one not exported
	claims     *authz.Claims       // of the authorization signed on it
	withAuth   bool
	authKey    crypto.Signer // signs it; nil: the server's authorization key
	erased     bool
	hidden     bool // in the log, and only as a commitment in the bundle
}

// openMembers returns the members of a bundle.
func openMembers(tb testing.TB, b []byte) (names []string, data map[string][]byte) {
	tb.Helper()
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		tb.Fatal(err)
	}
	defer z.Close()
	data = make(map[string][]byte)
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names, data
		}
		if err != nil {
			tb.Fatal(err)
		}
		names = append(names, h.Name)
		if data[h.Name], err = io.ReadAll(in); err != nil {
			tb.Fatal(err)
		}
	}
}

// packMembers writes a bundle.
func packMembers(tb testing.TB, names []string, data map[string][]byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err != nil {
		tb.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o444, Size: int64(len(data[n])), Format: tar.FormatUSTAR}); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(data[n]); err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// newForger takes an exported bundle apart.
func newForger(tb testing.TB, w *fwtest.World, bundle []byte) *forger {
	tb.Helper()
	names, data := openMembers(tb, bundle)
	f := &forger{tb: tb, w: w}
	var err error
	f.pub, f.key, err = ed25519.GenerateKey(rand.Reader)
	f.must(err)
	f.must(json.Unmarshal(data[verify.MemberManifest], &f.manifest))
	f.must(json.Unmarshal(data[verify.MemberTrust], &f.trust))
	if f.manifest.Proofs != verify.ProofLeaves {
		tb.Fatal("the bundle has no commitments of the other records")
	}
	for _, n := range names {
		switch {
		case strings.HasPrefix(n, "records/"):
			f.frames(data[n])
		case strings.HasPrefix(n, "streams/"):
			for line := range bytes.Lines(data[n]) {
				var e verify.StreamEnd
				f.must(json.Unmarshal(line, &e))
				f.streams = append(f.streams, e.Stream)
			}
		}
	}
	return f
}

func (f *forger) must(err error) {
	f.tb.Helper()
	if err != nil {
		f.tb.Fatal(err)
	}
}

func (f *forger) frames(b []byte) {
	f.tb.Helper()
	for len(b) > 0 {
		var fr verify.Frame
		var err error
		b, err = verify.CutFrame(b, &fr)
		f.must(err)
		switch {
		case fr.Leaves != nil:
			for c := range slices.Chunk(fr.Leaves, len(evidence.Commitment{})) {
				f.entries = append(f.entries, &entry{commitment: evidence.Commitment(c)})
			}
		case fr.Authorization != nil:
			a, err := authz.Decode(fr.Authorization)
			f.must(err)
			e := f.entries[len(f.entries)-1]
			e.claims, e.withAuth = &a.Claims, true
		default:
			rec, err := evidence.Decode(fr.Body)
			f.must(err)
			f.entries = append(f.entries, &entry{Record: rec})
		}
	}
}

// find returns the nth record, from 0, of a type whose data holds all words.
func (f *forger) find(t evidence.Type, n int, words ...string) *entry {
	f.tb.Helper()
next:
	for _, e := range f.entries {
		if e.Type != t {
			continue
		}
		for _, w := range words {
			if !bytes.Contains(e.Data, []byte(w)) {
				continue next
			}
		}
		if n == 0 {
			return e
		}
		n--
	}
	f.tb.Fatalf("the bundle has no such %s record with %q", t, words)
	return nil
}

// edit changes the data of a record.
func edit[T any](f *forger, e *entry, change func(*T)) {
	f.tb.Helper()
	var v T
	f.must(json.Unmarshal(e.Data, &v))
	change(&v)
	b, err := json.Marshal(v)
	f.must(err)
	e.Data = b
}

// place returns where a record is in the list.
func (f *forger) place(e *entry) int {
	for i := range f.entries {
		if f.entries[i] == e {
			return i
		}
	}
	f.tb.Fatal("no such record")
	return -1
}

// before moves a record to right before another.
func (f *forger) before(e, other *entry) {
	i := f.place(e)
	f.entries = append(f.entries[:i:i], f.entries[i+1:]...)
	i = f.place(other)
	f.entries = append(f.entries[:i:i], append([]*entry{e}, f.entries[i:]...)...)
}

// pack makes everything agree again and writes the bundle.
func (f *forger) pack() []byte {
	f.tb.Helper()
	f.ownKey()
	heads := make(map[evidence.StreamID]evidence.Head)
	var edge tlog.Edge
	var tree *evidence.EpochTree
	var out, ends []byte
	var segments [][]byte
	f.manifest.Records, f.manifest.Epoch = 0, -1
	var epoch *entry
	for _, e := range f.entries {
		if e.Type == evidence.TypeEpoch {
			epoch = e
		}
	}
	for i, e := range f.entries {
		if e == epoch {
			var list []evidence.StreamHead
			for id, h := range heads {
				list = append(list, evidence.StreamHead{Stream: id, Head: h})
			}
			tree = evidence.NewEpochTree(list)
			edit(f, e, func(p *evidence.Epoch) { *p = tree.Epoch() })
			f.manifest.Epoch = int64(i)
		}
		if len(out) > verify.SegmentSize {
			segments, out = append(segments, out), nil
		}
		fr := f.frame(int64(i), e, heads)
		edge.Append(fr.Commitment[:])
		if e.Type == "" || e.hidden {
			fr = verify.Frame{Index: int64(i), Leaves: bytes.Clone(fr.Commitment[:])}
		} else {
			f.manifest.Records++
		}
		out = fr.Append(out)
		if e.withAuth {
			out = (&verify.Frame{Index: int64(i), Authorization: f.authorization(e, fr.Commitment)}).Append(out)
		}
	}
	f.size, f.root = edge.Size(), edge.Root()
	f.manifest.Size = f.size
	for _, id := range f.streams {
		p, err := tree.Prove(id)
		f.must(err)
		line, err := json.Marshal(verify.StreamEnd{Stream: id, Proof: p})
		f.must(err)
		ends = append(append(ends, line...), '\n')
	}
	var err error
	f.trust.LogKey, err = tlog.VerifierKey(f.origin(), f.pub)
	f.must(err)
	data := map[string][]byte{verify.MemberCheckpoint: f.checkpoint(f.size, f.root), verify.MemberReadme: []byte("forged")}
	names := []string{verify.MemberManifest, verify.MemberTrust, verify.MemberCheckpoint, verify.MemberCheckpoints, verify.MemberReadme}
	for i, b := range append(segments, out) {
		names = append(names, fmt.Sprintf(verify.MemberRecords, i))
		data[names[len(names)-1]] = b
	}
	names = append(names, fmt.Sprintf(verify.MemberStreams, 0))
	data[names[len(names)-1]] = ends
	if f.checkpoints == nil {
		f.checkpoints = []verify.OldCheckpoint{}
	}
	for name, v := range map[string]any{verify.MemberManifest: f.manifest, verify.MemberTrust: f.trust, verify.MemberCheckpoints: f.checkpoints} {
		data[name], err = json.Marshal(v)
		f.must(err)
	}
	return packMembers(f.tb, names, data)
}

func (f *forger) origin() string { return f.w.Ledger.Origin() }

// checkpoint signs a tree head, any that is wanted.
func (f *forger) checkpoint(size int64, root tlog.Hash) []byte {
	f.tb.Helper()
	note, err := tlog.Checkpoint{Origin: f.origin(), Size: size, Root: root}.Sign(f.pub, func(msg []byte) ([]byte, error) { return ed25519.Sign(f.key, msg), nil })
	f.must(err)
	return note
}

// ownKey makes the log say that its key is the forger's.
func (f *forger) ownKey() {
	f.tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(f.pub)
	f.must(err)
	edit(f, f.find(evidence.TypeKeyCreated, 0, `"purpose":"log"`), func(k *evidence.Key) { k.Public, k.KeyID = der, fw.DigestOf(der).Hex() })
}

// frame puts a record at its place in the log and in its streams.
func (f *forger) frame(i int64, e *entry, heads map[evidence.StreamID]evidence.Head) verify.Frame {
	f.tb.Helper()
	if e.Type == "" {
		return verify.Frame{Index: i, Commitment: e.commitment}
	}
	e.Index = i
	fr := verify.Frame{Index: i, Salt: evidence.NewSalt()}
	for k, l := range e.Streams {
		e.Streams[k] = heads[l.Stream].Next(l.Stream)
		fr.Places = append(fr.Places, verify.Place{Stream: l.Stream, N: e.Streams[k].N})
	}
	var err error
	fr.Body, err = evidence.Encode(e.Record)
	f.must(err)
	fr.Commitment = evidence.Commit(fr.Salt, fr.Body)
	for _, l := range e.Streams {
		heads[l.Stream] = evidence.Head{N: l.N, Last: fr.Commitment}
	}
	if e.erased {
		fr.Body = nil
	} else {
		fr.Places = nil
	}
	return fr
}

// authorization signs an entry's claims for where it is now.
func (f *forger) authorization(e *entry, c evidence.Commitment) []byte {
	f.tb.Helper()
	claims := *e.claims
	claims.Decision, claims.Commitment = uint64(e.Index), fw.Digest(c)
	payload, err := authz.Encode(claims)
	f.must(err)
	key := e.authKey
	if key == nil {
		permit, err := f.w.Signer.Mint(signer.Grant{
			Purpose: fw.PurposeAuthorization, Key: server.AuthorizationKeyName, Subject: fw.DigestOf(payload.Bytes()), Evidence: e.Index, Verdict: signer.VerdictAllow,
		})
		f.must(err)
		key, err = f.w.Signer.AuthorizationSigner(permit)
		f.must(err)
	}
	b, err := authz.Sign(payload, key)
	f.must(err)
	return b
}

// verdict runs the command on a bundle and returns its exit code and report.
func verdict(tb testing.TB, bundle []byte, args ...string) (int, verify.Report) {
	tb.Helper()
	var out, errs bytes.Buffer
	path := inFile(tb, bundle)
	code := verify.Main(context.Background(), append([]string{"-o", "json"}, append(args, path)...), &out, &errs)
	var rep verify.Report
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		tb.Fatalf("exit %d: %v\n%s%s", code, err, out.Bytes(), errs.Bytes())
	}
	return code, rep
}

// inFile writes a file and returns its path.
func inFile(tb testing.TB, b []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
