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
	lru *list.List // of *cached, most recent first
	m   map[tileKey]*list.Element
}

type tileKey struct {
	level int
	n     int64
}

type cached struct {
	key tileKey
	t   *nodes
}

// NewCache returns a cache of at most limit tiles read by tile.
func NewCache(limit int, tile TileFunc) *Cache {
	return &Cache{tile: tile, max: limit, lru: list.New(), m: make(map[tileKey]*list.Element)}
}

// get returns a tile, nil when it is not in the cache.
func (c *Cache) get(k tileKey) *nodes {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.m[k]
	if !ok {
		return nil
	}
	c.lru.MoveToFront(el)
	return el.Value.(*cached).t
}

func (c *Cache) put(k tileKey, t *nodes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[k]; ok {
		return // another reader was faster
	}
	c.m[k] = c.lru.PushFront(&cached{k, t})
	if c.lru.Len() > c.max {
		last := c.lru.Back()
		delete(c.m, last.Value.(*cached).key)
		c.lru.Remove(last)
	}
}
