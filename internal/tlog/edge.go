package tlog

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the tree.
type Hash = tlog.Hash

// Tile geometry of C2SP tlog-tiles.
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight
)

// maxTileLevels covers trees of [MaxSize] entries.
const maxTileLevels = 7

// MaxSize is the largest tree this package handles: more than a log can have,
// and small enough that no index computed from a size overflows.
const MaxSize = 1<<(TileHeight*maxTileLevels) - 1

// Tile is a full tile: 256 hashes of level 8*Level.
type Tile struct {
	Level int
	N     int64
	Data  []byte // 256 * 32 bytes
}

// nodes are the complete subtrees within one tile, by height: nodes[0] are
// the tile's own hashes, nodes[7] the two halves.
type nodes [TileHeight][]Hash

// Edge is the right edge of a tree: every complete subtree within the tiles
// that are not yet full, at most 16 KiB per tile level. The zero Edge is the
// empty tree. An Edge is a value: an append to a copy leaves the original and
// every other copy as they were, and costs one copy of the hashes it touches.
// One Edge must not be appended to while it is read or copied.
type Edge struct {
	size   int64
	levels [maxTileLevels]nodes
	// self is the Edge that owns the memory beyond the ends of the slices. A
	// copy is recognized by its address, as in strings.Builder.
	self *Edge
}

// Size is the number of entries.
func (e *Edge) Size() int64 { return e.size }

// own makes sure that appending to e writes into no other Edge's memory.
func (e *Edge) own() {
	if e.self == e {
		return
	}
	e.self = e
	for l := range e.levels {
		for r := range e.levels[l] {
			// Without spare capacity the next append moves to new memory.
			e.levels[l][r] = slices.Clip(e.levels[l][r])
		}
	}
}

// Append adds an entry and returns the tiles it filled, lowest level first.
func (e *Edge) Append(entry []byte) []Tile {
	e.own()
	h := LeafHash(entry)
	for level := 0; ; level++ {
		n := e.levels[level/TileHeight].add(level%TileHeight, h)
		if e.size>>level&1 == 0 {
			break
		}
		// The entry completes a pair at this level: its left half is in the
		// same tile, because tiles have an even number of hashes.
		h = tlog.NodeHash(n[len(n)-2], h)
	}
	e.size++
	var full []Tile
	for l := range e.levels {
		t := &e.levels[l]
		if len(t[0]) < TileWidth {
			break
		}
		full = append(full, Tile{Level: l, N: e.size>>(TileHeight*(l+1)) - 1, Data: flatten(t[0])})
		*t = nodes{} // new memory: copies still read the old
	}
	return full
}

// add appends h to the subtrees of height r and returns them.
func (t *nodes) add(r int, h Hash) []Hash {
	if t[r] == nil {
		t[r] = make([]Hash, 0, TileWidth>>r) // what a full tile has
	}
	t[r] = append(t[r], h)
	return t[r]
}

func flatten(hs []Hash) []byte {
	b := make([]byte, 0, len(hs)*tlog.HashSize)
	for i := range hs {
		b = append(b, hs[i][:]...)
	}
	return b
}

// LeafHash returns the leaf hash of an entry, SHA-256(0x00 || entry) (RFC 6962
// section 2.1).
func LeafHash(entry []byte) Hash {
	if len(entry) != sha256.Size {
		return tlog.RecordHash(entry)
	}
	var b [1 + sha256.Size]byte // spares the allocations of tlog.RecordHash
	copy(b[1:], entry)
	return sha256.Sum256(b[:])
}

// LeafIndex returns the stored-hash index of entry n.
func LeafIndex(n int64) int64 { return tlog.StoredHashIndex(0, n) }

// Root returns the root of the tree (RFC 6962 section 2.1).
func (e *Edge) Root() Hash {
	if e.size == 0 {
		return sha256.Sum256(nil)
	}
	// The tree is a row of complete subtrees, one per bit of its size,
	// smallest at the right; each is the last one complete at its level.
	var root Hash
	first := true
	for s := e.size; s != 0; s &= s - 1 {
		level := bits.TrailingZeros64(uint64(s)) //nolint:gosec // a size is never negative
		n := e.levels[level/TileHeight][level%TileHeight]
		if h := n[len(n)-1]; first {
			root, first = h, false
		} else {
			root = tlog.NodeHash(h, root)
		}
	}
	return root
}

// hash returns the n'th complete subtree of height level, if it is in a tile
// that is not full.
func (e *Edge) hash(level int, n int64) (Hash, bool) {
	l, r := level/TileHeight, level%TileHeight
	if l >= maxTileLevels {
		return Hash{}, false
	}
	t := e.size >> (TileHeight * (l + 1)) // the number of the tile being filled
	i := n - t<<(TileHeight-r)
	if i < 0 || i >= int64(len(e.levels[l][r])) {
		return Hash{}, false
	}
	return e.levels[l][r][i], true
}

// PartialTile returns the hashes of the tile being filled at a tile level;
// none when the level ends in a full tile.
func (e *Edge) PartialTile(level int) []byte {
	if level < 0 || level >= maxTileLevels {
		return nil
	}
	return flatten(e.levels[level][0])
}

// RebuildEdge makes the edge of a tree of the given size from its stored
// parts: entries returns the commitments [from, to), tile a full tile. It
// reads at most 255 tiles per level. The caller must compare the root with a
// checkpoint: the parts may be damaged.
func RebuildEdge(size int64, tile TileFunc, entries func(from, to int64) ([][]byte, error)) (*Edge, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("a tree cannot have %d entries", size)
	}
	e := &Edge{size: size &^ (TileWidth - 1)}
	e.own()
	// The hashes of a partial tile at level l+1 are the roots of the full
	// tiles at level l.
	for l := 1; l < maxTileLevels; l++ {
		have := e.size >> (TileHeight * l) // hashes at this tile level
		if have == 0 {
			break
		}
		for i := have &^ (TileWidth - 1); i < have; i++ {
			data, err := tile(l-1, i)
			if err != nil {
				return nil, fmt.Errorf("reading tile %d/%d: %w", l-1, i, err)
			}
			t, err := expand(data)
			if err != nil {
				return nil, fmt.Errorf("tile %d/%d: %w", l-1, i, err)
			}
			e.levels[l].push(t.root())
		}
	}
	rest, err := entries(e.size, size)
	if err != nil {
		return nil, err
	}
	if int64(len(rest)) != size-e.size {
		return nil, fmt.Errorf("the log has %d of the last %d entries", len(rest), size-e.size)
	}
	for _, c := range rest {
		e.Append(c) // fills no tile: fewer than 256 are left
	}
	return e, nil
}

// push appends a hash to the tile and completes the pairs it completes.
func (t *nodes) push(h Hash) {
	i := len(t[0])
	for r := 0; ; r++ {
		n := t.add(r, h)
		if i>>r&1 == 0 || r == TileHeight-1 {
			return
		}
		h = tlog.NodeHash(n[len(n)-2], h)
	}
}

// root returns the root of a full tile.
func (t *nodes) root() Hash {
	top := t[TileHeight-1]
	return tlog.NodeHash(top[0], top[1])
}

// expand computes the subtrees within a full tile.
func expand(data []byte) (*nodes, error) {
	if len(data) != TileWidth*tlog.HashSize {
		return nil, fmt.Errorf("a full tile has %d bytes, not %d", TileWidth*tlog.HashSize, len(data))
	}
	t := new(nodes)
	for i := range TileWidth {
		t.push(Hash(data[i*tlog.HashSize : (i+1)*tlog.HashSize]))
	}
	return t, nil
}
