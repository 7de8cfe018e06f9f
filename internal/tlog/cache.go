package tlog

import (
	"container/list"
	"sync"
)

// Cache keeps recently used full tiles with their inner nodes, 16 KiB each.
// It holds only tiles that a [Reader] found to be in the tree. It is safe for
// concurrent use, by readers of any state of one log.
type Cache struct {
	tile TileFunc
	max  int

	mu  sync.Mutex
	lru *list.List // of tileKey, most recent first
	m   map[tileKey]cached
}

type tileKey struct {
	level int
	n     int64
}

type cached struct {
	t  *nodes
	at *list.Element // in lru
}

// NewCache returns a cache of at most limit tiles read by tile.
func NewCache(limit int, tile TileFunc) *Cache {
	return &Cache{tile: tile, max: limit, lru: list.New(), m: make(map[tileKey]cached)}
}

// get returns a tile, nil when it is not in the cache.
func (c *Cache) get(k tileKey) *nodes {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[k]
	if !ok {
		return nil
	}
	c.lru.MoveToFront(e.at)
	return e.t
}

func (c *Cache) put(k tileKey, t *nodes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[k]; ok {
		return // another reader was faster
	}
	c.m[k] = cached{t, c.lru.PushFront(k)}
	if c.lru.Len() > c.max {
		if last, ok := c.lru.Remove(c.lru.Back()).(tileKey); ok {
			delete(c.m, last)
		}
	}
}
