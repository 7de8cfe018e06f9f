package signer

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/fw"
)

const origin = "writ.example/log"

func root(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func checkpoint(size int64, r [32]byte) []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(r[:]))
}

func logSigner(tb testing.TB, w *world) *LogSigner {
	tb.Helper()
	l, err := w.s.LogSigner("log-1", origin)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func mustCheckpoint(tb testing.TB, l *LogSigner, size int64, r string) {
	tb.Helper()
	if _, err := l.Sign(checkpoint(size, root(r))); err != nil {
		tb.Fatal(err)
	}
}

func TestCheckpointIsASignedNote(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	msg, err := note.Sign(&note.Note{Text: string(checkpoint(5, root("a")))}, l)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, l.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(msg, note.VerifierList(v)); err != nil {
		t.Error(err)
	}
}

func TestLogNeverShrinksOrForks(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	mustCheckpoint(t, l, 0, "")
	mustCheckpoint(t, l, 5, "a")
	mustCheckpoint(t, l, 5, "a") // the same again is no fork
	for name, c := range map[string][]byte{
		"smaller":      checkpoint(4, root("b")),
		"forked":       checkpoint(5, root("b")),
		"forked empty": checkpoint(0, root("b")),
	} {
		if _, err := l.Sign(c); fw.KindOf(err) != fw.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustCheckpoint(t, l, 6, "c")
}

func TestAbandonedCheckpointCanBeReplaced(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	mustCheckpoint(t, l, 5, "a")
	mustCheckpoint(t, l, 7, "lost")
	if err := l.Abandon(5, root("a")); fw.KindOf(err) != fw.Conflict {
		t.Errorf("abandoned one in use: %v", err)
	}
	if err := l.Abandon(7, root("lost")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sign(checkpoint(5, root("b"))); fw.KindOf(err) != fw.Conflict {
		t.Errorf("forked the one before: %v", err)
	}
	if _, err := l.SignReceipt(receipt(root("lost"))); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a receipt under an abandoned root: %v", err)
	}
	mustCheckpoint(t, l, 6, "c")
	mustCheckpoint(t, l, 7, "d")
}

// The state file cannot be written for a while. What is asked for meanwhile is
// refused, and later signed as if it had not been asked for before.
func TestAFailureToWriteTheStateIsNoSignature(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	for i := range int64(persistEvery - 1) {
		mustCheckpoint(t, l, i+1, strconv.FormatInt(i, 10))
	}
	good := l.path
	l.path = filepath.Join(t.TempDir(), "gone", "log.json")
	for _, r := range []string{"first", "second"} {
		if _, err := l.Sign(checkpoint(persistEvery, root(r))); fw.KindOf(err) != fw.Unavailable {
			t.Errorf("got %v, want Unavailable", err)
		}
	}
	l.path = good
	mustCheckpoint(t, l, persistEvery, "third")
	if _, err := l.Sign(checkpoint(persistEvery, root("fourth"))); fw.KindOf(err) != fw.Conflict {
		t.Errorf("a fork: got %v, want Conflict", err)
	}
}

func receipt(r [32]byte) []byte { return sigStructure(r[:]) }

func TestReceiptsAreUnderSignedRootsOnly(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	mustCheckpoint(t, l, 5, "a")
	mustCheckpoint(t, l, 6, "b")
	for _, r := range []string{"a", "b"} {
		if _, err := l.SignReceipt(receipt(root(r))); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.SignReceipt(receipt(root("c"))); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("an unknown root: %v", err)
	}
	if _, err := l.SignReceipt(sigStructure([]byte("short"))); fw.KindOf(err) != fw.Invalid {
		t.Errorf("not a root: %v", err)
	}
	if _, err := l.SignReceipt(checkpoint(7, root("d"))); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a checkpoint as a receipt: %v", err)
	}
	for i := range int64(rememberRoots) {
		mustCheckpoint(t, l, 10+i, strconv.FormatInt(i, 10))
	}
	if _, err := l.SignReceipt(receipt(root("a"))); err == nil {
		t.Error("roots are remembered without bound")
	}
}

func TestLogRefusesAnOlderTreeAfterRestart(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	mustCheckpoint(t, l, 5, "a")
	mustCheckpoint(t, l, 9, "b")
	w.reopen(t)
	l = logSigner(t, w)
	if _, err := l.Sign(checkpoint(4, root("x"))); fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "backup") {
		t.Errorf("an older tree: %v", err)
	}
	if _, err := l.Sign(checkpoint(5, root("x"))); fw.KindOf(err) != fw.Conflict {
		t.Errorf("a fork: %v", err)
	}
	// The last one signed may not have been committed, so it is not held against us.
	mustCheckpoint(t, l, 9, "c")
}

func TestLogKeySignsOneLogAndOnlyCheckpoints(t *testing.T) {
	w := newWorld(t)
	l := logSigner(t, w)
	if _, err := w.s.LogSigner("log-1", "another"); fw.KindOf(err) != fw.Conflict {
		t.Errorf("another origin: %v", err)
	}
	if _, err := w.s.LogSigner("authz-1", origin); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another purpose: %v", err)
	}
	mustCheckpoint(t, l, 5, "a")
	mustCheckpoint(t, l, 6, "b")
	good := string(checkpoint(7, root("c")))
	for name, msg := range map[string]string{
		"nothing":          "",
		"no newline":       strings.TrimSuffix(good, "\n"),
		"another origin":   strings.Replace(good, origin, "other", 1),
		"a leading zero":   strings.Replace(good, "\n7\n", "\n07\n", 1),
		"a negative size":  strings.Replace(good, "\n7\n", "\n-7\n", 1),
		"a plus":           strings.Replace(good, "\n7\n", "\n+7\n", 1),
		"a short root":     origin + "\n7\nYQ==\n",
		"an empty line":    good + "\n",
		"no root":          origin + "\n7\n",
		"a Sig_structure":  string(sigStructure([]byte("x"))),
		"an oversized one": good + strings.Repeat("x", maxCheckpoint) + "\n",
	} {
		if _, err := l.Sign([]byte(msg)); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Sign([]byte(good + "extension\n")); err != nil {
		t.Errorf("an extension line: %v", err)
	}
	w.reopen(t)
	if _, err := w.s.LogSigner("log-1", "another"); fw.KindOf(err) != fw.Conflict {
		t.Errorf("another origin after a restart: %v", err)
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(checkpoint(7, root("c")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseCheckpoint(b, origin)
		if err != nil {
			return
		}
		if !strings.HasPrefix(string(b), string(checkpoint(h.Size, h.Root))) {
			t.Fatalf("%q has another form", b)
		}
	})
}
