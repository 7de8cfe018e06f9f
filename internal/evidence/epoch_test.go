package evidence

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func heads(n int) []StreamHead {
	hs := make([]StreamHead, n)
	for i := range hs {
		id := StreamID(fmt.Sprintf("device/sn-%d", i))
		hs[i] = StreamHead{id, Head{N: int64(i + 1), Last: Commit(Salt{}, []byte(id))}}
	}
	return hs
}

func TestEveryStreamAndEveryAbsenceIsProvable(t *testing.T) {
	for n := range 40 {
		hs := heads(n)
		tree := NewEpochTree(hs)
		e := tree.Epoch()
		if e.Streams != int64(n) {
			t.Fatalf("%d streams, want %d", e.Streams, n)
		}
		for _, h := range hs {
			p, err := tree.Prove(h.Stream)
			if err != nil {
				t.Fatal(err)
			}
			got, err := CheckStream(e, h.Stream, p)
			if err != nil || got != h.Head {
				t.Fatalf("%d streams: %s is %+v, %v", n, h.Stream, got, err)
			}
			if got, err := CheckStream(e, "device/other", p); err == nil && n > 1 && got.N != 0 {
				t.Fatalf("a proof for %s proves another stream %+v", h.Stream, got)
			}
		}
		for i := range 40 {
			id := StreamID(fmt.Sprintf("device/none-%d", i))
			p, err := tree.Prove(id)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := CheckStream(e, id, p); err != nil || got != (Head{}) {
				t.Fatalf("%d streams: absence of %s: %+v, %v", n, id, got, err)
			}
			for _, h := range hs {
				if got, err := CheckStream(e, h.Stream, p); err == nil && got != h.Head {
					t.Fatalf("the absence of %s hides %s: %+v", id, h.Stream, got)
				}
			}
		}
	}
}

func TestTheEpochTreeIsTheReferenceTree(t *testing.T) {
	hs := heads(37)
	tree := NewEpochTree(hs)
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(ix))
		for i, x := range ix {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i := range tree.leaves {
		more, err := tlog.StoredHashes(int64(i), tree.leaves[i][:], read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	want, err := tlog.TreeHash(int64(len(hs)), read)
	if err != nil {
		t.Fatal(err)
	}
	if got := tree.Epoch().Root; tlog.Hash(got) != want {
		t.Errorf("root %v, want %v", got, want)
	}
}

func TestForgedEpochProofsFail(t *testing.T) {
	hs := heads(20)
	tree := NewEpochTree(hs)
	e := tree.Epoch()
	s := hs[4].Stream
	// An absence must be proven by neighbours, so leave out, widen and repeat.
	absent := StreamID("device/none")
	tests := map[string]func(p *StreamProof){
		"nothing":            func(p *StreamProof) { p.Entries = nil },
		"one neighbour":      func(p *StreamProof) { p.Entries = p.Entries[:1] },
		"a wider gap":        func(p *StreamProof) { p.Entries[0] = entry(t, tree, p.Entries[0].Index-1) },
		"the same twice":     func(p *StreamProof) { p.Entries[1] = p.Entries[0] },
		"three":              func(p *StreamProof) { p.Entries = append(p.Entries, p.Entries[0]) },
		"changed order":      func(p *StreamProof) { p.Entries[0], p.Entries[1] = p.Entries[1], p.Entries[0] },
		"another index":      func(p *StreamProof) { p.Entries[0].Index++ },
		"a negative index":   func(p *StreamProof) { p.Entries[0].Index = -1 },
		"a changed count":    func(p *StreamProof) { p.Entries[0].Leaf[39]++ },
		"a short leaf":       func(p *StreamProof) { p.Entries[0].Leaf = p.Entries[0].Leaf[:71] },
		"an empty path":      func(p *StreamProof) { p.Entries[0].Path = nil },
		"a short path hash":  func(p *StreamProof) { p.Entries[0].Path[0] = p.Entries[0].Path[0][:31] },
		"a path without end": func(p *StreamProof) { p.Entries[0].Path = make([][]byte, 1000) },
	}
	for name, change := range tests {
		p, err := tree.Prove(absent)
		if err != nil || len(p.Entries) != 2 || p.Entries[0].Index == 0 {
			t.Fatalf("the test needs an absence in the middle: %+v, %v", p, err)
		}
		change(&p)
		if h, err := CheckStream(e, absent, p); err == nil {
			t.Errorf("%s: proves %+v", name, h)
		}
	}
	p, err := tree.Prove(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []Epoch{{}, {Streams: e.Streams}, {Streams: e.Streams << 4, Root: e.Root}, {Streams: -1, Root: e.Root}, {Streams: 1 << 62, Root: e.Root}} {
		if h, err := CheckStream(other, s, p); err == nil {
			t.Errorf("epoch %+v: proves %+v", other, h)
		}
	}
	if h, err := CheckStream(Epoch{}, s, StreamProof{}); err == nil {
		t.Errorf("the zero epoch proves %+v", h)
	}
}

func entry(t *testing.T, tree *EpochTree, i int64) ProofEntry {
	t.Helper()
	path, err := tlog.ProveRecord(int64(len(tree.leaves)), i, tree)
	if err != nil {
		t.Fatal(err)
	}
	e := ProofEntry{Index: i, Leaf: tree.leaves[i][:]}
	for _, h := range path {
		e.Path = append(e.Path, h[:])
	}
	return e
}

func TestTheOrderOfHeadsDoesNotMatter(t *testing.T) {
	hs := heads(30)
	want := NewEpochTree(hs).Epoch()
	rapid.Check(t, func(t *rapid.T) {
		if got := NewEpochTree(rapid.Permutation(hs).Draw(t, "heads")).Epoch(); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

func TestAnImpossibleEpochPanics(t *testing.T) {
	for name, hs := range map[string][]StreamHead{
		"twice": append(heads(3), heads(1)...),
		"empty": {{Stream: "log"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			NewEpochTree(hs)
		}()
	}
}

func BenchmarkNewEpochTree100k(b *testing.B) {
	hs := heads(100000)
	b.ReportAllocs()
	for b.Loop() {
		NewEpochTree(hs)
	}
}
