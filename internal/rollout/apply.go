package rollout

import "github.com/writ-project/writ/internal/fw"

// Apply applies one event.
func Apply(p *fw.Plan, s Status, e Event, now int64) (Status, []Transition, error) {
	return s.Clone(), nil, nil
}

// NextTimer returns when Apply is to be called with a tick, 0 for never.
func NextTimer(p *fw.Plan, s Status, now int64) int64 { return 0 }

// Validate checks the bounds of a plan.
func Validate(p *fw.Plan) error { return nil }

// StageLimit returns how many devices stage i may take.
func StageLimit(p *fw.Plan, i, cohort, membersSoFar int) int { return 0 }
