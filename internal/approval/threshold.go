package approval

import (
	"crypto/ed25519"
	"slices"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// OpenRosterBy returns the roster in a DSSE envelope that at least threshold
// distinct roots signed.
func OpenRosterBy(env []byte, roots []ed25519.PublicKey, threshold int) (*Roster, error) {
	if threshold < 1 || threshold > len(roots) {
		return nil, fw.Errorf(fw.Invalid, "a threshold of %d among %d root keys can never be met, or always is", threshold, len(roots))
	}
	e, payload, err := dsse.Open(env, RosterPayloadType, envelopeLimits)
	if err != nil {
		return nil, err
	}
	valid := 0
	for i, k := range roots {
		// A key given twice signs once.
		twice := slices.ContainsFunc(roots[:i], func(o ed25519.PublicKey) bool { return o.Equal(k) })
		if !twice && e.SignedBy(k, payload) {
			valid++
		}
	}
	if valid < threshold {
		return nil, fw.Errorf(fw.Forbidden, "the roster is signed by %d root keys and %d are needed", valid, threshold)
	}
	return ParseRoster(payload)
}
