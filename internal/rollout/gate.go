package rollout

import "github.com/writ-project/writ/internal/fw"

// alpha returns the chance of a false trip of the stage's rate gate.
func alpha(sp *fw.StagePlan) float64 {
	if sp.Alpha > 0 {
		return sp.Alpha
	}
	return defaultAlpha
}

// judged returns what the rate gate looks at: members, and those among them
// that ever failed, without the failures an operator acknowledged. Members
// whose end is not known yet count as not failed.
func (t *Tally) judged() (n, failed int) {
	return t.Members - t.DevicesFailedForgiven, t.DevicesFailed - t.DevicesFailedForgiven
}

// eValue returns the e-value of the stage's rate gate as it is recorded, 0 if
// the stage has none.
func eValue(sp *fw.StagePlan, t *Tally) float64 {
	if sp.MaxFailurePercent <= 0 {
		return 0
	}
	n, failed := t.judged()
	return round4(EValue(sp.MaxFailurePercent/100, n, failed))
}

// failureGate returns why a failure gate of the stage trips, "" if none does.
func failureGate(sp *fw.StagePlan, t *Tally) Reason {
	if sp.MaxFailures != nil && t.Failures-t.FailuresForgiven > *sp.MaxFailures {
		return ReasonMaxFailures
	}
	if sp.MaxFailurePercent > 0 {
		if n, failed := t.judged(); rateTripped(sp.MaxFailurePercent/100, alpha(sp), n, failed) {
			return ReasonFailureRate
		}
	}
	return ""
}

// needed returns how many devices of an open stage must be confirmed.
func needed(sp *fw.StagePlan, st *Stage) int {
	if st.Limit == 0 {
		return 0
	}
	t := &st.Tally
	size := st.Limit - t.Cancelled
	n := min(sp.MinConfirmed, st.Limit)
	if n == 0 {
		n = size
		if sp.MaxFailures != nil || sp.MaxFailurePercent > 0 {
			n -= t.Lost // the failure gates say how many of these are too many
		}
	}
	// What an operator acknowledged is no longer waited for; but a stage in
	// which nothing was confirmed has shown nothing and never passes.
	return max(1, min(n, size-min(t.Lost, t.LostForgiven)))
}

// reachable returns how many devices of the stage are confirmed or still may be.
func reachable(st *Stage) int { return st.Limit - st.Tally.Cancelled - st.Tally.Lost }

// tripped returns why the open stage must fail, "" if it need not.
func tripped(sp *fw.StagePlan, st *Stage) Reason {
	if r := failureGate(sp, &st.Tally); r != "" {
		return r
	}
	if reachable(st) < needed(sp, st) {
		return ReasonUnreachable
	}
	return ""
}

// StageLimit returns how many devices stage i may take from a cohort of the
// given size when the stages before it have membersSoFar. A percentage is the
// cumulative share of the cohort, rounded up, that is reached when the stage
// is full; a count is devices in this stage. A stage with its own cohort takes
// its share of that one, whoever went before. No stage takes more devices
// than are left.
func StageLimit(p *fw.Plan, i, cohort, membersSoFar int) int {
	sp := &p.Stages[i]
	if sp.Cohort != "" {
		membersSoFar = 0
	}
	left := max(0, cohort-membersSoFar)
	if sp.Count > 0 {
		return min(sp.Count, left)
	}
	// In 64 bits and rounded up, so that a canary of 1 percent of 50 has one device.
	reach := int((int64(cohort)*int64(sp.Percent) + 99) / 100)
	return max(0, min(reach-membersSoFar, left))
}
