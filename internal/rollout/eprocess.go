package rollout

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// defaultAlpha is the chance of a false trip where a plan names none.
const defaultAlpha = 0.05

// maxEValue bounds what is recorded: JSON has no infinity, and beyond this
// nobody needs to know by how much.
const maxEValue = 1e12

// EValue is the evidence against "the failure rate is at most limit" after
// failed of n devices failed: the Beta-binomial mixture likelihood ratio
//
//	e = ∫ p^f (1-p)^(n-f) dp / ((1-limit) · limit^f (1-limit)^(n-f)),   p from limit to 1
//
// whose mixture is uniform over the rates above the limit, so that a low rate
// is never evidence. For every rate at or under the limit it is a
// supermartingale starting at 1, so by Ville's inequality the chance that it
// ever reaches 1/α is at most α, however often one looks. It grows with
// failed at fixed n; see the package comment for why that matters.
func EValue(limit float64, n, failed int) float64 {
	if n <= 0 || failed < 0 || failed > n || limit <= 0 || limit >= 1 {
		return 1 // no evidence either way
	}
	f, ok := float64(failed), float64(n-failed)
	// The upper tail of the Beta distribution, as the lower tail of its
	// mirror image: 1-I would cancel to nothing when the tail is small.
	tail := mathext.RegIncBeta(ok+1, f+1, 1-limit)
	if tail <= 0 {
		return 0
	}
	log := mathext.Lbeta(f+1, ok+1) + math.Log(tail) - math.Log1p(-limit) -
		f*math.Log(limit) - ok*math.Log1p(-limit)
	return min(math.Exp(log), maxEValue)
}

// rateTripped reports whether the rate gate trips. The e-value is at most 1
// while the observed rate is at most the limit, so most calls need no
// mathematics.
func rateTripped(limit, alpha float64, n, failed int) bool {
	if float64(failed) <= limit*float64(n) {
		return false
	}
	return EValue(limit, n, failed) >= 1/alpha
}

// round4 keeps four significant digits: processors with fused multiply-add
// differ in the last bits, and a verifier on another machine must find the
// same record.
func round4(x float64) float64 {
	if x == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	if r := math.Round(x*scale) / scale; !math.IsInf(r, 0) && !math.IsNaN(r) {
		return r
	}
	return 0
}
