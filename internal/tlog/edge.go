package tlog

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the tree.
type Hash = tlog.Hash

// Tile geometry of C2SP tlog-tiles.
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight
)

// maxTileLevels covers trees of 2^56 entries, more than a log can have.
const maxTileLevels = 7

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
// that are not yet full. The zero Edge is the empty tree. Copies share
// memory, but an append to one never changes what another sees, as long as
// only one of the copies made from the same Edge is appended to at a time.
type Edge struct {
	size   int64
	levels [maxTileLevels]nodes
}

// Size is the number of entries.
func (e *Edge) Size() int64 { return e.size }

// Append adds an entry and returns the tiles it filled.
func (e *Edge) Append(entry []byte) []Tile {
	h := tlog.RecordHash(entry)
	var full []Tile
	for level := 0; ; level++ {
		n := &e.levels[level/TileHeight][level%TileHeight]
		*n = append(*n, h)
		if e.size>>level&1 == 0 {
			break
		}
		// The entry completes a pair at this level: its left half is in the
		// same tile, because tiles have an even number of hashes.
		h = tlog.NodeHash((*n)[len(*n)-2], h)
	}
	e.size++
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

func flatten(hs []Hash) []byte {
	b := make([]byte, 0, len(hs)*tlog.HashSize)
	for _, h := range hs {
		b = append(b, h[:]...)
	}
	return b
}

// Root returns the root of the tree (RFC 6962 section 2.1).
func (e *Edge) Root() Hash {
	if e.size == 0 {
		h, _ := tlog.TreeHash(0, nil) // reads nothing for the empty tree
		return h
	}
	// The tree is a row of complete subtrees, one per bit of its size,
	// smallest at the right; each is the last one complete at its level.
	var root Hash
	first := true
	for s := uint64(e.size); s != 0; s &= s - 1 {
		level := bits.TrailingZeros64(s)
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

// PartialTile returns the hashes of the tile being filled at a tile level.
func (e *Edge) PartialTile(level int) []byte {
	if level < 0 || level >= maxTileLevels {
		return nil
	}
	return flatten(e.levels[level][0])
}

// RebuildEdge makes the edge of a tree of the given size from its stored
// parts: entries returns the commitments [from, to), tile a full tile.
func RebuildEdge(size int64, tile TileFunc, entries func(from, to int64) ([][]byte, error)) (*Edge, error) {
	if size < 0 {
		return nil, fmt.Errorf("tree size %d is negative", size)
	}
	e := &Edge{size: size &^ (TileWidth - 1)}
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
			e.levels[l].push(tlog.NodeHash(t[TileHeight-1][0], t[TileHeight-1][1]))
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
		if full := e.Append(c); full != nil {
			return nil, fmt.Errorf("tile %d/%d should have been stored", full[0].Level, full[0].N)
		}
	}
	return e, nil
}

// push appends a hash to the tile and completes the pairs it completes.
func (t *nodes) push(h Hash) {
	i := len(t[0])
	for r := 0; ; r++ {
		t[r] = append(t[r], h)
		if i>>r&1 == 0 || r == TileHeight-1 {
			return
		}
		h = tlog.NodeHash(t[r][len(t[r])-2], h)
	}
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
