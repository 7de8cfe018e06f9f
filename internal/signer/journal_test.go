package signer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

func newJournal(tb testing.TB, entries int) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), journalFile)
	j, err := OpenJournal(path)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range entries {
		if err := j.Append(entry(i)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

func entry(i int) Entry {
	return Entry{Kind: EntryRedeemed, At: 1, Permit: fw.PermitID(fmt.Sprintf("prm_%020d", i)), Purpose: fw.PurposeImage, Key: "k", Subject: fw.DigestOf(nil), Evidence: int64(i)}
}

func reopenJournal(tb testing.TB, path string) *Journal {
	tb.Helper()
	j, err := OpenJournal(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = j.Close() })
	return j
}

// Whatever prefix of the file a crash leaves, the journal opens with exactly
// the complete entries and goes on.
func TestJournalSurvivesEveryTornWrite(t *testing.T) {
	path := newJournal(t, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		complete := bytes.Count(whole[:n], []byte("\n"))
		if seq, _ := j.Head(); seq != int64(complete) {
			t.Fatalf("cut at %d: %d entries, want %d", n, seq, complete)
		}
		for i := range 3 {
			if used := j.Append(entry(i)) != nil; used != (i < complete) {
				t.Fatalf("cut at %d: permit %d used: %v", n, i, used)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		again := reopenJournal(t, path)
		if seq, _ := again.Head(); seq != 3 {
			t.Fatalf("cut at %d: %d entries after going on", n, seq)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalToleratesZeroesAfterACrash(t *testing.T) {
	path := newJournal(t, 2)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// A file system that extended the file before writing the data.
	if err := os.Truncate(path, st.Size()+300); err != nil {
		t.Fatal(err)
	}
	if seq, _ := reopenJournal(t, path).Head(); seq != 2 {
		t.Errorf("%d entries", seq)
	}
}

func TestJournalRefusesEveryChangeBeforeItsLastLine(t *testing.T) {
	path := newJournal(t, 4)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	last := len(whole) - len(lines[3])
	for i := range last {
		b := bytes.Clone(whole)
		b[i] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := OpenJournal(path); err == nil {
			_ = j.Close()
			t.Fatalf("byte %d changed unnoticed: %q", i, b)
		} else if fw.KindOf(err) != fw.Corrupt {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	for name, b := range map[string][]byte{
		"a line removed":   bytes.Join([][]byte{lines[0], lines[2], lines[3]}, nil),
		"a line repeated":  bytes.Join([][]byte{lines[0], lines[1], lines[1], lines[2]}, nil),
		"lines swapped":    bytes.Join([][]byte{lines[1], lines[0], lines[2]}, nil),
		"the first gone":   bytes.Join([][]byte{lines[1], lines[2]}, nil),
		"an endless line":  bytes.Repeat([]byte("x"), maxLine+1),
		"an empty line":    bytes.Join([][]byte{lines[0], []byte("\n"), lines[1]}, nil),
		"something else":   []byte("hello\n"),
		"an unknown field": bytes.Replace(whole, []byte(`"kind"`), []byte(`"x":1,"kind"`), 1),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenJournal(path); fw.KindOf(err) != fw.Corrupt || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJournalHasOneOwner(t *testing.T) {
	path := newJournal(t, 1)
	reopenJournal(t, path)
	if _, err := OpenJournal(path); fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "another server") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestJournalRedeemsOnceUnderRace(t *testing.T) {
	j := reopenJournal(t, newJournal(t, 0))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 64 {
		wg.Go(func() {
			if j.Append(entry(1)) == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("redeemed %d times", won)
	}
}

// A write that fails leaves a journal that can be read and gone on with.
func TestJournalTakesBackAFailedWrite(t *testing.T) {
	path := newJournal(t, 1)
	j := reopenJournal(t, path)
	good := j.f
	// A descriptor that cannot be written stands for a full disk.
	ro, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ro.Close() }()
	j.f = ro
	if err := j.Append(entry(2)); fw.KindOf(err) != fw.Unavailable || !strings.Contains(err.Error(), "nothing was signed") {
		t.Errorf("Append = %v", err)
	}
	j.f = good
	if err := j.Append(entry(3)); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("went on although the partial line could not be taken back: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again := reopenJournal(t, path)
	if err := again.Append(entry(2)); err != nil {
		t.Error(err)
	}
}

func FuzzJournal(f *testing.F) {
	b, err := os.ReadFile(newJournal(f, 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-5])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), journalFile)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(path)
		if err != nil {
			return
		}
		n, _ := j.Head()
		if err := j.Append(Entry{Kind: EntrySigned}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = reopenJournal(t, path)
		if m, _ := j.Head(); m != n+1 {
			t.Fatalf("%d entries became %d", n+1, m)
		}
	})
}
