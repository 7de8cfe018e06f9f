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
//
// It is the one thing here that grows with the fleet, so its maps hold no
// pointers: a million entries are nothing to the garbage collector.
type idleCache struct {
	mu       sync.RWMutex
	m        map[fw.Digest]idleEntry      // by certificate fingerprint
	byDevice map[uint64]fw.Digest         // by hash of the device id
	products map[fw.ProductID]idleProduct // small

	// drops counts everything that was ever dropped. An answer computed across
	// a drop of its device or product is not stored, because it may rest on
	// what was true before. Devices share dropSlots marks, which is as good: a
	// false alarm costs one more look at the database.
	drops    atomic.Uint64
	ofDevice [dropSlots]uint64
	seed     maphash.Seed
}

type idleProduct struct {
	number  int
	dropped uint64 // see idleCache.drops
}

const dropSlots = 4096

// idleEntry is one remembered answer.
type idleEntry struct {
	device  uint64 // hash of its id
	product int
	trust   int64     // version of the trust bundle the device holds
	until   int64     // Unix seconds: renewal is due, or the certificate ends
	facts   fw.Digest // of the check-in
}

// maxIdle bounds the cache. A device costs about 250 bytes.
const maxIdle = 2_000_000

func newIdleCache() *idleCache {
	return &idleCache{
		m: make(map[fw.Digest]idleEntry), byDevice: make(map[uint64]fw.Digest),
		products: make(map[fw.ProductID]idleProduct), seed: maphash.MakeSeed(),
	}
}

// hash stands for a device id. Two devices with the same hash drop each
// other's entries, which costs a look at the database and no more.
func (c *idleCache) hash(id fw.DeviceID) uint64 { return maphash.String(c.seed, string(id)) }

// get reports whether the certificate has a valid entry with these facts and
// this version of the trust bundle.
func (c *idleCache) get(fingerprint, facts fw.Digest, trust, now int64) bool {
	c.mu.RLock()
	e, ok := c.m[fingerprint]
	c.mu.RUnlock()
	return ok && e.facts == facts && e.trust == trust && now < e.until
}

// put stores an entry, unless its device or product was dropped since mark was
// taken.
func (c *idleCache) put(fingerprint fw.Digest, device fw.DeviceID, of fw.ProductID, e idleEntry, mark uint64) {
	e.device = c.hash(device)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.product(of)
	if c.ofDevice[e.device%dropSlots] > mark || p.dropped > mark {
		return
	}
	if len(c.m) >= maxIdle {
		clear(c.m)
		clear(c.byDevice)
	}
	if old, ok := c.byDevice[e.device]; ok && old != fingerprint {
		delete(c.m, old)
	}
	e.product = p.number
	c.m[fingerprint], c.byDevice[e.device] = e, fingerprint
}

// product returns a product's entry, made if need be. The caller holds mu.
func (c *idleCache) product(id fw.ProductID) idleProduct {
	p, ok := c.products[id]
	if !ok {
		p.number = len(c.products)
		c.products[id] = p
	}
	return p
}

func (c *idleCache) mark() uint64 { return c.drops.Load() }

func (c *idleCache) dropDevice(id fw.DeviceID) {
	device := c.hash(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ofDevice[device%dropSlots] = c.drops.Add(1)
	if f, ok := c.byDevice[device]; ok {
		delete(c.m, f)
		delete(c.byDevice, device)
	}
}

func (c *idleCache) dropProduct(id fw.ProductID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.product(id)
	p.dropped = c.drops.Add(1)
	c.products[id] = p
	for f, e := range c.m {
		if e.product == p.number {
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
