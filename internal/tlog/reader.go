package tlog

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/fw"
)

// TileFunc reads the full tile n of a tile level: 256 hashes, 8 KiB.
type TileFunc func(level int, n int64) ([]byte, error)

// Reader reads the hashes of one state of the tree. It implements
// tlog.HashReader. Every tile it reads must hash to its place under the edge,
// so that a damaged tile gives an error and never a wrong proof.
type Reader struct {
	edge  Edge
	cache *Cache
}

// NewReader returns a reader of the tree whose right edge is e.
func NewReader(e *Edge, c *Cache) *Reader { return &Reader{edge: *e, cache: c} }

// Size is the size of the tree.
func (r *Reader) Size() int64 { return r.edge.size }

// ReadHashes implements tlog.HashReader.
func (r *Reader) ReadHashes(indexes []int64) ([]Hash, error) {
	out := make([]Hash, len(indexes))
	for i, x := range indexes {
		var err error
		if out[i], err = r.hash(tlog.SplitStoredHashIndex(x)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hash returns the n'th complete subtree of height level.
func (r *Reader) hash(level int, n int64) (Hash, error) {
	if n < 0 || level >= TileHeight*maxTileLevels || n >= r.edge.size>>level {
		return Hash{}, fmt.Errorf("a tree of %d entries has no hash %d of height %d", r.edge.size, n, level)
	}
	if h, ok := r.edge.hash(level, n); ok {
		return h, nil
	}
	l, h := level/TileHeight, level%TileHeight
	t, err := r.full(tileKey{l, n >> (TileHeight - h)})
	if err != nil {
		return Hash{}, err
	}
	return t[h][n&(1<<(TileHeight-h)-1)], nil
}

// full returns a full tile with its inner nodes.
func (r *Reader) full(k tileKey) (*nodes, error) {
	if t := r.cache.get(k); t != nil {
		return t, nil
	}
	data, err := r.cache.tile(k.level, k.n)
	if err != nil {
		return nil, fmt.Errorf("reading tile %d/%d: %w", k.level, k.n, err)
	}
	t, err := expand(data)
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "tile %d/%d of the log is damaged", k.level, k.n)
	}
	// The root of a full tile is a hash of the level above, which ends at
	// the edge.
	want, err := r.hash(TileHeight*(k.level+1), k.n)
	if err != nil {
		return nil, err
	}
	if t.root() != want {
		return nil, fw.Errorf(fw.Corrupt, "tile %d/%d of the log is damaged: it is not the one in the tree", k.level, k.n)
	}
	r.cache.put(k, t)
	return t, nil
}

// Tile returns the hashes of a tile, full or partial, as long as the tree has
// them.
func (r *Reader) Tile(id TileID) ([]byte, error) {
	if id.Level < 0 || !id.within(r.edge.size) {
		return nil, fw.Errorf(fw.NotFound, "the log of %d records has no %s", r.edge.size, id.Path())
	}
	out := make([]byte, 0, id.Width*tlog.HashSize)
	for i := range int64(id.Width) {
		h, err := r.hash(TileHeight*id.Level, id.N*TileWidth+i)
		if err != nil {
			return nil, err
		}
		out = append(out, h[:]...)
	}
	return out, nil
}

// Inclusion returns the proof that entry index is in the tree of the given
// size (RFC 6962 section 2.1.1).
func (r *Reader) Inclusion(index, size int64) ([]Hash, error) {
	if size > r.edge.size || index < 0 || index >= size {
		return nil, fmt.Errorf("no entry %d in a tree of %d of a log of %d", index, size, r.edge.size)
	}
	return tlog.ProveRecord(size, index, r)
}

// Consistency returns the proof that the tree of size old is a prefix of the
// tree of the given size (RFC 6962 section 2.1.2).
func (r *Reader) Consistency(old, size int64) ([]Hash, error) {
	if size > r.edge.size || old < 1 || old > size {
		return nil, fmt.Errorf("no trees of %d and %d in a log of %d", old, size, r.edge.size)
	}
	return tlog.ProveTree(size, old, r)
}

// Root returns the root of the tree at an earlier size.
func (r *Reader) Root(size int64) (Hash, error) {
	if size > r.edge.size || size < 0 {
		return Hash{}, fmt.Errorf("no tree of %d in a log of %d", size, r.edge.size)
	}
	return tlog.TreeHash(size, r)
}

// CheckInclusion checks that entry is number index of the tree with the given
// size and root.
func CheckInclusion(path []Hash, size int64, root Hash, index int64, entry []byte) error {
	return tlog.CheckRecord(path, size, root, index, LeafHash(entry))
}

// CheckConsistency checks that the tree of size old is a prefix of the other.
func CheckConsistency(path []Hash, size int64, root Hash, old int64, oldRoot Hash) error {
	return tlog.CheckTree(path, size, root, old, oldRoot)
}
