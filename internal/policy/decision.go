package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync/atomic"

	"github.com/Masterminds/semver/v3"

	"github.com/writ-project/writ/internal/fw"
)

// EngineVersion names the rules that made a decision. It is recorded with each
// one; a verifier that re-executes a decision made by other rules says so
// instead of guessing.
const EngineVersion = "writ-policy/1 cel-go v0.33.2"

// Terms are the documents a decision applies, resolved by their digests in
// [Facts]. Resolving them by digest is the caller's part. Terms may be shared
// by concurrent decisions and must not change or be copied after the first.
type Terms struct {
	Plan        *fw.Plan
	Manifest    *fw.Manifest    // of the release that would be installed
	Publication *fw.Publication // of the release that would be installed
	Policy      *Policy         // nil: the plan names none
	Cohort      *Condition      // the plan's cohort
	StageCohort *Condition      // nil: the stage does not narrow it

	// fromVersion keeps the manifest's constraint parsed between decisions.
	fromVersion atomic.Pointer[semver.Constraints]
}

// Check is one question of a decision and its answer. Wanted and Observed are
// for people; the machine reads Name, OK and Reason.
type Check struct {
	Name     string    `json:"name"`
	OK       bool      `json:"ok"`
	Reason   fw.Reason `json:"reason,omitempty"`
	Observed string    `json:"observed,omitempty"`
	Wanted   string    `json:"wanted,omitempty"`
	Message  string    `json:"message,omitempty"` // of the failed policy condition, in its author's words
}

// Decision is an answer with everything that led to it. The zero Decision
// denies.
type Decision struct {
	Allow    bool        `json:"allow"`
	Deferred bool        `json:"deferred,omitempty"` // denied by the device's own preference and nothing else
	Checks   []Check     `json:"checks"`
	Reasons  []fw.Reason `json:"reasons,omitempty"` // of the failed checks, in order, each once
}

// Record is the part of a decision's evidence record that this package owns;
// the record of an authorization or a refusal embeds it.
type Record struct {
	EngineVersion string   `json:"engine"`
	Facts         Facts    `json:"facts"`
	Decision      Decision `json:"decision"`
}

// NewRecord returns the record of d, made from f by this engine.
func NewRecord(f Facts, d Decision) Record {
	return Record{EngineVersion: EngineVersion, Facts: f, Decision: d}
}

// RefusalKey returns a key that two refusals share when their reasons are the
// same, in whatever order: the caller counts a repeated refusal instead of
// recording it again. It does not depend on observed values, or a clock in
// one would make every refusal new. It is "" for a decision that allows.
func RefusalKey(d Decision) string {
	if d.Allow {
		return ""
	}
	reasons := slices.Clone(d.Reasons)
	slices.Sort(reasons)
	h := sha256.New()
	for _, r := range slices.Compact(reasons) {
		h.Write([]byte(r)) // a hash never fails to write
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
