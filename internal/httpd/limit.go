package httpd

import (
	"container/list"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/writ-project/writ/internal/fw"
)

// Limiter gives each caller's network a token bucket. A caller is an IPv4
// address or an IPv6 /64, which is what one subscriber gets. The buckets in
// use are bounded; when there are too many, the one idle longest is forgotten,
// and its caller starts afresh.
type Limiter struct {
	rate  rate.Limit
	burst int
	most  int
	now   func() time.Time

	mu   sync.Mutex
	m    map[netip.Prefix]*list.Element
	idle list.List // of *bucket, most recently used first
}

type bucket struct {
	caller netip.Prefix
	tokens *rate.Limiter
}

// LimiterConfig sets a [Limiter].
type LimiterConfig struct {
	PerSecond float64          // lasting rate; must be positive
	Burst     int              // requests at once; at least 1
	Callers   int              // buckets kept; 0: 16384, about 4 MB
	Now       func() time.Time // required
}

// NewLimiter returns a Limiter.
func NewLimiter(c LimiterConfig) *Limiter {
	if c.PerSecond <= 0 || c.Burst < 1 || c.Now == nil {
		panic("httpd.NewLimiter: rate, burst and clock are required")
	}
	return &Limiter{
		rate: rate.Limit(c.PerSecond), burst: c.Burst, most: or(c.Callers, 16384), now: c.Now,
		m: make(map[netip.Prefix]*list.Element),
	}
}

// Limit returns h behind the limiter: [fw.TooMany] with the time until the
// next request would pass.
func (l *Limiter) Limit(h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := l.Allow(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// Allow takes a token for the caller of r, or returns [fw.TooMany].
func (l *Limiter) Allow(r *http.Request) error {
	now := l.now()
	res := l.bucket(caller(r)).ReserveN(now, 1)
	delay := res.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	res.CancelAt(now) // a refused request costs no token
	return RetryAfter(fw.Errorf(fw.TooMany, "too many requests from your address: wait %v", delay.Round(time.Millisecond)), delay)
}

func (l *Limiter) bucket(c netip.Prefix) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.m[c]; e != nil {
		l.idle.MoveToFront(e)
		return e.Value.(*bucket).tokens //nolint:errcheck // the list holds nothing else
	}
	if len(l.m) >= l.most {
		e := l.idle.Back()
		l.idle.Remove(e)
		delete(l.m, e.Value.(*bucket).caller) //nolint:errcheck // the list holds nothing else
	}
	b := &bucket{caller: c, tokens: rate.NewLimiter(l.rate, l.burst)}
	l.m[c] = l.idle.PushFront(b)
	return b.tokens
}

// caller returns the network of the peer. An address that cannot be read
// shares one bucket, the zero prefix, with all like it.
func caller(r *http.Request) netip.Prefix {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
