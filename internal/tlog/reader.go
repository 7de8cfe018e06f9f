package tlog

import (
	"container/list"
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// TileFunc reads the full tile n of a tile level: 256 hashes, 8 KiB.
type TileFunc func(level int, n int64) ([]byte, error)

// Cache keeps recently used full tiles with their inner nodes, 16 KiB each.
// It is safe for concurrent use.
type Cache struct {
	tile TileFunc
	max  int

	mu  sync.Mutex
	lru *list.List // of *cached, most recent first
	m   map[tileID]*list.Element
}

type tileID struct {
	level int
	n     int64
}

type cached struct {
	id tileID
	t  *nodes
}

// NewCache returns a cache of at most max tiles read by tile.
func NewCache(limit int, tile TileFunc) *Cache {
	return &Cache{tile: tile, max: limit, lru: list.New(), m: make(map[tileID]*list.Element)}
}

func (c *Cache) get(id tileID) (*nodes, error) {
	c.mu.Lock()
	if el, ok := c.m[id]; ok {
		c.lru.MoveToFront(el)
		c.mu.Unlock()
		return el.Value.(*cached).t, nil
	}
	c.mu.Unlock()
	data, err := c.tile(id.level, id.n)
	if err != nil {
		return nil, fmt.Errorf("reading tile %d/%d: %w", id.level, id.n, err)
	}
	t, err := expand(data)
	if err != nil {
		return nil, fmt.Errorf("tile %d/%d: %w", id.level, id.n, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[id]; !ok {
		c.m[id] = c.lru.PushFront(&cached{id, t})
		if c.lru.Len() > c.max {
			last := c.lru.Back()
			delete(c.m, last.Value.(*cached).id)
			c.lru.Remove(last)
		}
	}
	return t, nil
}

// Reader reads the hashes of one state of the tree. It implements
// tlog.HashReader.
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
		level, n := tlog.SplitStoredHashIndex(x)
		if h, ok := r.edge.hash(level, n); ok {
			out[i] = h
			continue
		}
		l, h := level/TileHeight, level%TileHeight
		t, err := r.cache.get(tileID{l, n >> (TileHeight - h)})
		if err != nil {
			return nil, err
		}
		out[i] = t[h][n&(1<<(TileHeight-h)-1)]
	}
	return out, nil
}

// Inclusion returns the proof that entry index is in the tree of the given
// size.
func (r *Reader) Inclusion(index, size int64) ([]Hash, error) {
	if size > r.edge.size || index < 0 || index >= size {
		return nil, fmt.Errorf("no entry %d in a tree of %d of a log of %d", index, size, r.edge.size)
	}
	return tlog.ProveRecord(size, index, r)
}

// Consistency returns the proof that the tree of size old is a prefix of the
// tree of the given size.
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
	return tlog.CheckRecord(path, size, root, index, tlog.RecordHash(entry))
}

// CheckConsistency checks that the tree of size old is a prefix of the other.
func CheckConsistency(path []Hash, size int64, root Hash, old int64, oldRoot Hash) error {
	return tlog.CheckTree(path, size, root, old, oldRoot)
}

// LeafIndex returns the stored-hash index of entry n.
func LeafIndex(n int64) int64 { return tlog.StoredHashIndex(0, n) }

// LeafHash returns the leaf hash of an entry (RFC 6962 section 2.1).
func LeafHash(entry []byte) Hash { return tlog.RecordHash(entry) }
