package update

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/writ-project/writ/internal/fw"
)

// idleCache remembers, per certificate, the facts with which a device last
// checked in and had nothing to do. An entry is valid until something about
// the device or its product changes, or its time is over.
type idleCache struct {
	mu       sync.RWMutex
	m        map[fw.Digest]*idleEntry // by certificate fingerprint
	byDevice map[fw.DeviceID]fw.Digest

	// drops counts everything that was ever dropped. An answer computed across
	// a drop of its device or product is not stored, because it may rest on
	// what was true before. Devices share dropSlots marks, which is as good: a
	// false alarm costs one more look at the database.
	drops     atomic.Uint64
	ofDevice  [dropSlots]uint64
	ofProduct map[fw.ProductID]uint64
	seed      maphash.Seed
}

const dropSlots = 4096

func (c *idleCache) slot(id fw.DeviceID) *uint64 {
	return &c.ofDevice[maphash.String(c.seed, string(id))%dropSlots]
}

// idleEntry is one remembered answer. It is never changed.
type idleEntry struct {
	device  fw.DeviceID
	product fw.ProductID
	facts   fw.Digest
	trust   int64 // version of the trust bundle the device holds
	until   int64 // Unix seconds: renewal is due, or the certificate ends
}

// maxIdle bounds the cache. A device costs about 400 bytes.
const maxIdle = 2_000_000

func newIdleCache() *idleCache {
	return &idleCache{
		m: make(map[fw.Digest]*idleEntry), byDevice: make(map[fw.DeviceID]fw.Digest),
		ofProduct: make(map[fw.ProductID]uint64), seed: maphash.MakeSeed(),
	}
}

// get returns the valid entry of a certificate with these facts, or nil.
func (c *idleCache) get(fingerprint, facts fw.Digest, now int64) *idleEntry {
	c.mu.RLock()
	e := c.m[fingerprint]
	c.mu.RUnlock()
	if e == nil || e.facts != facts || now >= e.until {
		return nil
	}
	return e
}

// put stores e, unless its device or product was dropped since mark was taken.
func (c *idleCache) put(fingerprint fw.Digest, e *idleEntry, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *c.slot(e.device) > mark || c.ofProduct[e.product] > mark {
		return
	}
	if len(c.m) >= maxIdle {
		clear(c.m)
		clear(c.byDevice)
	}
	if old, ok := c.byDevice[e.device]; ok && old != fingerprint {
		delete(c.m, old)
	}
	c.m[fingerprint], c.byDevice[e.device] = e, fingerprint
}

func (c *idleCache) mark() uint64 { return c.drops.Load() }

func (c *idleCache) dropDevice(id fw.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.slot(id) = c.drops.Add(1)
	if f, ok := c.byDevice[id]; ok {
		delete(c.m, f)
		delete(c.byDevice, id)
	}
}

func (c *idleCache) dropProduct(p fw.ProductID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ofProduct[p] = c.drops.Add(1)
	for f, e := range c.m {
		if e.product == p {
			delete(c.m, f)
			delete(c.byDevice, e.device)
		}
	}
}

// trustVersion is the newest trust bundle version.
type trustVersion struct{ v atomic.Int64 }

func (t *trustVersion) set(v int64) { t.v.Store(v) }
func (t *trustVersion) get() int64  { return t.v.Load() }

// recent is a bounded set of certificates, by fingerprint. It steers which way
// is tried first and may forget.
type recent struct {
	mu sync.RWMutex
	m  map[fw.Digest]struct{}
}

// maxRecent bounds the set. An entry costs about 50 bytes.
const maxRecent = 200_000

func (r *recent) has(fingerprint fw.Digest) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.m[fingerprint]
	return ok
}

func (r *recent) set(fingerprint fw.Digest, in bool) {
	if r.has(fingerprint) == in {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !in {
		delete(r.m, fingerprint)
		return
	}
	if len(r.m) >= maxRecent {
		clear(r.m)
	}
	r.m[fingerprint] = struct{}{}
}
