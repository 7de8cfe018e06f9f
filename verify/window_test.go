package verify

import (
	"math/rand/v2"
	"testing"
)

// The window must count as the server's SQL does: every authorization whose
// time is at or after, whatever its place in the log.
func TestAWindowCountsAsTheServerDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var w window
	var all []int64
	now := int64(1_700_000_000)
	for range 20_000 {
		switch r.IntN(500) {
		case 0:
			now -= r.Int64N(3000) // the clock is set back
		case 1:
			now += r.Int64N(5000)
		default:
			now += r.Int64N(3)
		}
		want := 0
		for _, at := range all {
			if at >= now-60 {
				want++
			}
		}
		if got, exact := w.since(now - 60); exact && got != want {
			t.Fatalf("at %d: %d, want %d", now, got, want)
		} else if !exact && now >= w.seconds[len(w.seconds)-1].at-3600 {
			t.Fatalf("at %d: not exact, within the hour", now)
		}
		w.add(now)
		all = append(all, now)
		if len(w.seconds) > kept+1 {
			t.Fatalf("it remembers %d seconds", len(w.seconds))
		}
	}
}

func TestAWindowSaysWhatItHasForgotten(t *testing.T) {
	var w window
	w.add(1_000_000)
	w.add(1_000_000 + kept + 1)
	if n, exact := w.since(1_000_000); exact {
		t.Errorf("it counts %d and has dropped one", n)
	}
	if n, exact := w.since(1_000_001); !exact || n != 1 {
		t.Errorf("%d, %t: want 1 of what it has", n, exact)
	}
}
