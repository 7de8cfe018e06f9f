package rollout

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestFalseTripsAreAtMostAlpha runs whole campaigns at exactly the limit and
// looks after every single report. It must hold whatever the order in which
// failures and successes are reported.
func TestFalseTripsAreAtMostAlpha(t *testing.T) {
	const runs, devices = 3000, 400
	for _, tt := range []struct {
		name         string
		limit, alpha float64
		inFlight     int // devices authorized before the first success is reported; failures are reported at once
	}{
		{"one at a time", 0.05, 0.05, 0},
		{"one at a time, half the devices may fail", 0.5, 0.1, 0},
		{"failures arrive long before successes", 0.05, 0.05, 100},
		{"everything is in flight at once", 0.2, 0.05, devices},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			trips := 0
			for range runs {
				failed := 0
				for n := 1; n <= devices; n++ {
					if rng.Float64() < tt.limit {
						failed++
					}
					// Members whose success is not reported yet count as not failed, so
					// the delay of successes makes no difference to what the gate sees;
					// a gate over finished devices would see n=failed for a long time.
					if rateTripped(tt.limit, tt.alpha, max(n, min(tt.inFlight, devices)), failed) {
						trips++
						break
					}
				}
			}
			if rate := float64(trips) / runs; rate > tt.alpha {
				t.Errorf("%.4f of campaigns at the limit tripped, more than alpha %.4f", rate, tt.alpha)
			}
		})
	}
}

func TestRealRegressionsTrip(t *testing.T) {
	const runs, devices = 300, 1000
	for _, tt := range []struct {
		limit, rate float64
		within      int // devices after which 95 of 100 campaigns have tripped
	}{{0.05, 0.5, 15}, {0.05, 0.2, 90}, {0.05, 0.1, 700}, {0.2, 0.4, 120}} {
		rng := rand.New(rand.NewPCG(3, 4))
		late := 0
		for range runs {
			failed, n := 0, 1
			for ; n <= devices; n++ {
				if rng.Float64() < tt.rate {
					failed++
				}
				if rateTripped(tt.limit, 0.05, n, failed) {
					break
				}
			}
			if n > tt.within {
				late++
			}
		}
		if float64(late) > 0.05*runs {
			t.Errorf("a failure rate of %g with limit %g: %d of %d campaigns did not trip within %d devices", tt.rate, tt.limit, late, runs, tt.within)
		}
	}
}

// TestEValueIsTheIntegral compares with the definition, integrated by steps.
func TestEValueIsTheIntegral(t *testing.T) {
	for _, tt := range []struct {
		limit     float64
		n, failed int
	}{{0.05, 1, 1}, {0.05, 2, 2}, {0.05, 40, 6}, {0.2, 100, 15}, {0.5, 30, 20}} {
		const steps = 400_000
		sum := 0.0
		for i := range steps {
			p := tt.limit + (1-tt.limit)*(float64(i)+0.5)/steps
			sum += math.Exp(float64(tt.failed)*math.Log(p/tt.limit) + float64(tt.n-tt.failed)*math.Log((1-p)/(1-tt.limit)))
		}
		want := sum / steps
		if got := EValue(tt.limit, tt.n, tt.failed); math.Abs(got-want) > 1e-6*want {
			t.Errorf("limit %g, %d of %d: %g, want %g", tt.limit, tt.failed, tt.n, got, want)
		}
	}
}

func TestEValueIsSaneAtTheEdges(t *testing.T) {
	for _, n := range []int{0, 1, 10, 1000, 1_000_000} {
		last := -1.0
		for _, f := range []int{0, n / 1000, n / 100, n / 10, n / 2, n} {
			e := EValue(0.01, n, f)
			if math.IsNaN(e) || math.IsInf(e, 0) || e < 0 || e > maxEValue {
				t.Errorf("%d of %d: %g", f, n, e)
			}
			if e < last {
				t.Errorf("%d of %d: %g is less than with fewer failures", f, n, e)
			}
			if float64(f) <= 0.01*float64(n) && e > 1 {
				t.Errorf("%d of %d is evidence against a limit it keeps: %g", f, n, e)
			}
			last = e
		}
	}
	if round4(123456.7) != 123500 || round4(0) != 0 || math.Abs(round4(1e-300)-1e-300) > 1e-303 {
		t.Errorf("rounding: %g %g %g", round4(123456.7), round4(0), round4(1e-300))
	}
}
