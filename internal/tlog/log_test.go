package tlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/fw"
)

// memLog is a log with its stored parts, and the same log made by the
// reference implementation.
type memLog struct {
	edge    Edge
	entries [][]byte
	tiles   map[tileKey][]byte
	cache   *Cache
	stored  []tlog.Hash // reference
}

func newMemLog(tb testing.TB, size int) *memLog {
	tb.Helper()
	l := &memLog{tiles: make(map[tileKey][]byte)}
	l.cache = NewCache(4, l.tile)
	for range size {
		l.append(tb)
	}
	return l
}

func commitment(i int) []byte {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return h[:]
}

func (l *memLog) append(tb testing.TB) {
	tb.Helper()
	c := commitment(len(l.entries))
	for _, full := range l.edge.Append(c) {
		k := tileKey{full.Level, full.N}
		if l.tiles[k] != nil {
			tb.Fatalf("tile %v filled twice", k)
		}
		l.tiles[k] = full.Data
	}
	more, err := tlog.StoredHashes(int64(len(l.entries)), c, tlog.HashReaderFunc(l.reference))
	if err != nil {
		tb.Fatal(err)
	}
	l.stored = append(l.stored, more...)
	l.entries = append(l.entries, c)
}

func (l *memLog) tile(level int, n int64) ([]byte, error) {
	if b := l.tiles[tileKey{level, n}]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("no tile %d/%d", level, n)
}

func (l *memLog) between(from, to int64) ([][]byte, error) { return l.entries[from:to], nil }

func (l *memLog) reference(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.stored[x]
	}
	return out, nil
}

func (l *memLog) referenceRoot(tb testing.TB, size int64) Hash {
	tb.Helper()
	h, err := tlog.TreeHash(size, tlog.HashReaderFunc(l.reference))
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// big is a size that fills tiles of level 0 and 1 and leaves both partial.
const big = 256*256 + 3*256 + 77

func TestTheEdgeHasTheReferenceRoot(t *testing.T) {
	l := newMemLog(t, 0)
	for size := range 1500 {
		if got, want := l.edge.Root(), l.referenceRoot(t, int64(size)); got != want {
			t.Fatalf("root of %d is %v, want %v", size, got, want)
		}
		l.append(t)
	}
}

func TestARebuiltEdgeGoesOnAsTheFirst(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 257, 511, 512, 65535, 65536, big} {
		l := newMemLog(t, size)
		e, err := RebuildEdge(int64(size), l.tile, l.between)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 600 {
			if e.Root() != l.edge.Root() || e.Size() != l.edge.Size() {
				t.Fatalf("size %d and %d more: another root", size, i)
			}
			got := e.Append(commitment(len(l.entries)))
			want := len(l.tiles)
			l.append(t)
			if len(l.tiles)-want != len(got) {
				t.Fatalf("size %d and %d more: %d tiles, want %d", size, i, len(got), len(l.tiles)-want)
			}
		}
	}
}

func TestAnEdgeIsNotRebuiltFromMissingParts(t *testing.T) {
	l := newMemLog(t, 600)
	for name, size := range map[string]int64{"negative": -1, "too large": MaxSize + 1, "more than there is": 1000} {
		between := func(from, to int64) ([][]byte, error) { return l.between(from, min(to, 600)) }
		if _, err := RebuildEdge(size, l.tile, between); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	l.tiles[tileKey{0, 1}] = l.tiles[tileKey{0, 1}][1:]
	if _, err := RebuildEdge(600, l.tile, l.between); err == nil {
		t.Error("a short tile: no error")
	}
	delete(l.tiles, tileKey{0, 1})
	if _, err := RebuildEdge(600, l.tile, l.between); err == nil {
		t.Error("a missing tile: no error")
	}
}

// A transaction that rolls back forgets its copy of the edge, and whoever
// reads another copy meanwhile must see nothing of it.
func TestCopiesOfAnEdgeAreIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			edge Edge
			has  []int // which entry at each place
		}
		build := func(entries []int) Hash {
			var e Edge
			for _, n := range entries {
				e.Append(commitment(n))
			}
			return e.Root()
		}
		versions := []*version{{}}
		next := 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "from")]
			to := from
			if rapid.Bool().Draw(t, "copy") {
				c := *from
				c.has = append([]int(nil), from.has...)
				to = &c
				versions = append(versions, to)
			}
			for range rapid.IntRange(1, 300).Draw(t, "appends") {
				to.edge.Append(commitment(next))
				to.has = append(to.has, next)
				next++
			}
			for i, v := range versions {
				if v.edge.Root() != build(v.has) {
					t.Fatalf("version %d changed", i)
				}
			}
		}
	})
}

func TestProofsOfEverySizeAgreeWithTheReference(t *testing.T) {
	l := newMemLog(t, big)
	r := NewReader(&l.edge, l.cache)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, big).Draw(t, "size")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		old := rapid.Int64Range(1, size).Draw(t, "old")
		root, err := r.Root(size)
		if err != nil {
			t.Fatal(err)
		}
		ref := tlog.HashReaderFunc(l.reference)
		if want, _ := tlog.TreeHash(size, ref); root != want {
			t.Fatalf("root of %d differs", size)
		}
		path, err := r.Inclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckInclusion(path, size, root, index, l.entries[index]); err != nil {
			t.Fatal(err)
		}
		if CheckInclusion(path, size, root, index, commitment(-1)) == nil {
			t.Fatal("another entry is included")
		}
		if got, err := rootFromPath(path, size, index, LeafHash(l.entries[index])); err != nil || got != root {
			t.Fatalf("rootFromPath: %v, %v", got, err)
		}
		oldRoot, err := r.Root(old)
		if err != nil {
			t.Fatal(err)
		}
		path, err = r.Consistency(old, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckConsistency(path, size, root, old, oldRoot); err != nil {
			t.Fatal(err)
		}
		if CheckConsistency(path, size, root, old, Hash{1}) == nil {
			t.Fatal("another old root is consistent")
		}
	})
	for _, f := range []func() error{
		func() error { _, err := r.Inclusion(0, big+1); return err },
		func() error { _, err := r.Inclusion(5, 5); return err },
		func() error { _, err := r.Inclusion(-1, 5); return err },
		func() error { _, err := r.Consistency(0, 5); return err },
		func() error { _, err := r.Consistency(6, 5); return err },
		func() error { _, err := r.Root(-1); return err },
		func() error { _, err := r.Root(big + 1); return err },
		func() error { _, err := r.ReadHashes([]int64{LeafIndex(big)}); return err },
	} {
		if f() == nil {
			t.Error("a proof of what is not there")
		}
	}
	if l.cache.lru.Len() > 4 || len(l.cache.m) != l.cache.lru.Len() {
		t.Errorf("the cache holds %d tiles", l.cache.lru.Len())
	}
}

// A flipped bit in any stored tile must give an error that says so, not a
// proof that fails at the device.
func TestADamagedTileGivesNoProof(t *testing.T) {
	for _, k := range []tileKey{{0, 0}, {0, 257}, {1, 0}} {
		l := newMemLog(t, big)
		l.tiles[k][100] ^= 1
		r := NewReader(&l.edge, l.cache)
		index := k.n * TileWidth // under the damaged tile
		if _, err := r.Inclusion(index, big); fw.KindOf(err) != fw.Corrupt {
			t.Errorf("tile %v: %v", k, err)
		}
		l.tiles[k] = l.tiles[k][:TileWidth]
		if _, err := r.Inclusion(index, big); fw.KindOf(err) != fw.Corrupt {
			t.Errorf("short tile %v: %v", k, err)
		}
	}
}

func TestEveryTileOfTheTreeIsServed(t *testing.T) {
	l := newMemLog(t, big)
	r := NewReader(&l.edge, l.cache)
	var tiles, bundles int
	for id := range Tiles(big) {
		if id.Level == LevelEntries {
			bundles++
			from, to := id.Entries()
			b, err := EncodeBundle(l.entries[from:to])
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeBundle(b)
			if err != nil || len(got) != id.Width || string(got[0]) != string(l.entries[from]) {
				t.Fatalf("%s: %d entries, %v", id.Path(), len(got), err)
			}
			continue
		}
		tiles++
		b, err := r.Tile(id)
		if err != nil {
			t.Fatal(err)
		}
		for i := range id.Width {
			// The hash of a tile is the root of a complete subtree.
			if want := l.stored[tlog.StoredHashIndex(TileHeight*id.Level, id.N*TileWidth+int64(i))]; Hash(b[32*i:32*i+32]) != want {
				t.Fatalf("%s: hash %d differs", id.Path(), i)
			}
		}
		if id.Width < TileWidth && string(l.edge.PartialTile(id.Level)) != string(b) {
			t.Fatalf("%s is not the partial tile", id.Path())
		}
	}
	// The example of C2SP tlog-tiles has this shape: level 0, 1 and 2.
	if bundles != 260 || tiles != 260+2+1 {
		t.Errorf("%d bundles and %d tiles", bundles, tiles)
	}
	// A partial tile of an older tree is part of a full one now.
	if b, err := r.Tile(TileID{0, 3, 5}); err != nil || len(b) != 5*32 {
		t.Errorf("an older partial tile: %d bytes, %v", len(b), err)
	}
	for _, id := range []TileID{{0, 259, 78}, {0, 260, 1}, {2, 0, 2}, {3, 0, 1}, {-1, 0, 1}, {0, -1, 1}, {0, 0, 0}, {0, 0, 257}, {99, 0, 1}} {
		if _, err := r.Tile(id); fw.KindOf(err) != fw.NotFound {
			t.Errorf("tile %+v: %v", id, err)
		}
	}
}

func testKey(seed byte) (ed25519.PublicKey, SignFunc) {
	k := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	pub, _ := k.Public().(ed25519.PublicKey)
	return pub, func(m []byte) ([]byte, error) { return ed25519.Sign(k, m), nil }
}

func BenchmarkAppend(b *testing.B) {
	var e Edge
	c := commitment(1)
	b.ReportAllocs()
	for b.Loop() {
		e.Append(c)
	}
}

// BenchmarkAppendCopy is one append per commit: each copies the edge first.
func BenchmarkAppendCopy(b *testing.B) {
	l := newMemLog(b, big)
	e := l.edge
	b.ReportAllocs()
	for b.Loop() {
		c := e
		c.Append(l.entries[0])
		e = c
	}
}

func BenchmarkRoot(b *testing.B) {
	l := newMemLog(b, big)
	for b.Loop() {
		l.edge.Root()
	}
}

func BenchmarkInclusion(b *testing.B) {
	l := newMemLog(b, big)
	r := NewReader(&l.edge, NewCache(1024, l.tile))
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if _, err := r.Inclusion(i*7919%big, big); err != nil {
			b.Fatal(err)
		}
	}
}
