package rollout

import (
	"math"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds of a plan.
const (
	MaxStages     = 32
	MaxAttempts   = 10
	MaxNameLength = 200
	MaxExprLength = 4096
	MaxDevices    = 100_000_000
	MinTTL        = 60          // seconds
	MaxTTL        = 30 * 86400  // seconds
	MaxBackoff    = 7 * 86400   // seconds, before the second attempt
	MaxSoak       = 365 * 86400 // seconds
	MaxQuorum     = 20
	minutesPerDay = 24 * 60
)

// Validate checks that p is a plan the rules can carry out. Its error, of kind
// Invalid, says what to change.
func Validate(p *fw.Plan) error {
	if p == nil {
		return invalid("there is no plan")
	}
	switch {
	case p.Type != fw.TypePlan:
		return invalid("the plan's type is %q; it must be %q", p.Type, fw.TypePlan)
	case p.Campaign == "" || p.Product == "" || p.Release == "":
		return invalid("the plan must name its campaign, product and release")
	case p.Publication.IsZero():
		return invalid("the plan must name the digest of the release's publication; publish the release first")
	case p.Name == "" || len(p.Name) > MaxNameLength:
		return invalid("the plan's name must be 1 to %d bytes", MaxNameLength)
	case p.Cohort == "" || len(p.Cohort) > MaxExprLength:
		return invalid("the cohort must be an expression of at most %d bytes; \"true\" selects every device of the product", MaxExprLength)
	case p.Attempts < 1 || p.Attempts > MaxAttempts:
		return invalid("attempts must be 1 to %d, not %d", MaxAttempts, p.Attempts)
	case p.BackoffSeconds < 0 || p.BackoffSeconds > MaxBackoff:
		return invalid("backoff_seconds must be 0 to %d, not %d", int64(MaxBackoff), p.BackoffSeconds)
	case p.AuthorizationTTL < MinTTL || p.AuthorizationTTL > MaxTTL:
		return invalid("authorization_ttl_seconds must be %d (a minute) to %d (30 days), not %d", int64(MinTTL), int64(MaxTTL), p.AuthorizationTTL)
	case p.MaxConcurrent < 0 || p.MaxConcurrent > MaxDevices:
		return invalid("max_concurrent must be 0 (no limit) to %d, not %d", MaxDevices, p.MaxConcurrent)
	case p.RatePerMinute < 0 || p.RatePerMinute > MaxDevices:
		return invalid("rate_per_minute must be 0 (no limit) to %d, not %d", MaxDevices, p.RatePerMinute)
	case p.OnFailure != fw.FailurePause && p.OnFailure != fw.FailureRollBack:
		return invalid("on_failure must be %q or %q, not %q", fw.FailurePause, fw.FailureRollBack, p.OnFailure)
	case p.Quorum < 1 || p.Quorum > MaxQuorum:
		return invalid("quorum must be 1 to %d approvers, not %d", MaxQuorum, p.Quorum)
	case p.NotBefore < 0 || p.NotAfter < 0:
		return invalid("not_before and not_after are Unix seconds and cannot be negative")
	case p.NotAfter != 0 && p.NotAfter <= p.NotBefore:
		return invalid("not_after must be later than not_before")
	case p.Rollback != nil && (p.Rollback.Release == "" || p.Rollback.Publication.IsZero()):
		return invalid("rollback must name a release and the digest of its publication")
	case p.Rollback != nil && p.Rollback.Release == p.Release:
		return invalid("rollback must lead to another release than the plan's own")
	}
	if err := validateWindow(p.Window); err != nil {
		return err
	}
	return validateStages(p)
}

func invalid(format string, args ...any) error { return fw.Errorf(fw.Invalid, format, args...) }

func validateWindow(w *fw.Window) error {
	if w == nil {
		return nil
	}
	switch {
	case w.StartMinute < 0 || w.StartMinute >= minutesPerDay:
		return invalid("the window's start_minute must be 0 to %d, not %d", minutesPerDay-1, w.StartMinute)
	case w.EndMinute < 0 || w.EndMinute > minutesPerDay:
		return invalid("the window's end_minute must be 0 to %d, not %d", minutesPerDay, w.EndMinute)
	case w.StartMinute == w.EndMinute:
		return invalid("the window is empty; leave it out to allow every minute of the day")
	}
	seen := [7]bool{}
	for _, d := range w.Weekdays {
		if d < 0 || d > 6 || seen[d] {
			return invalid("the window's weekdays must be different numbers from 0 (Sunday) to 6")
		}
		seen[d] = true
	}
	return nil
}

func validateStages(p *fw.Plan) error {
	if len(p.Stages) < 1 || len(p.Stages) > MaxStages {
		return invalid("a plan has 1 to %d stages, not %d", MaxStages, len(p.Stages))
	}
	names := make(map[string]bool, len(p.Stages))
	percent := 0
	for i := range p.Stages {
		sp := &p.Stages[i]
		if err := validateStage(i, sp); err != nil {
			return err
		}
		if names[sp.Name] {
			return invalid("two stages are named %q", sp.Name)
		}
		names[sp.Name] = true
		if sp.Percent == 0 || sp.Cohort != "" {
			continue // a share of its own cohort says nothing about the others
		}
		if sp.Percent <= percent {
			return invalid("stage %q reaches %d percent of the cohort, but a stage before it already reaches %d; percentages are cumulative and must rise", sp.Name, sp.Percent, percent)
		}
		percent = sp.Percent
	}
	return nil
}

func validateStage(i int, sp *fw.StagePlan) error {
	if sp.Name == "" || len(sp.Name) > MaxNameLength {
		return invalid("the name of stage %d must be 1 to %d bytes", i, MaxNameLength)
	}
	switch {
	case (sp.Count == 0) == (sp.Percent == 0):
		return invalid("stage %q must have exactly one of count and percent", sp.Name)
	case sp.Count < 0 || sp.Count > MaxDevices:
		return invalid("the count of stage %q must be 1 to %d, not %d", sp.Name, MaxDevices, sp.Count)
	case sp.Percent < 0 || sp.Percent > 100:
		return invalid("the percentage of stage %q must be 1 to 100, not %d", sp.Name, sp.Percent)
	case len(sp.Cohort) > MaxExprLength:
		return invalid("the cohort of stage %q must be at most %d bytes", sp.Name, MaxExprLength)
	case sp.MinConfirmed < 0 || sp.MinConfirmed > MaxDevices:
		return invalid("min_confirmed of stage %q must be 0 (every device of the stage) to %d, not %d", sp.Name, MaxDevices, sp.MinConfirmed)
	case sp.Count > 0 && sp.MinConfirmed > sp.Count:
		return invalid("stage %q has %d devices and can never confirm %d", sp.Name, sp.Count, sp.MinConfirmed)
	case sp.MaxFailures != nil && (*sp.MaxFailures < 0 || *sp.MaxFailures > MaxDevices):
		return invalid("max_failures of stage %q must be 0 to %d, not %d; leave it out for no limit", sp.Name, MaxDevices, *sp.MaxFailures)
	case math.IsNaN(sp.MaxFailurePercent) || sp.MaxFailurePercent != 0 && (sp.MaxFailurePercent < 0.01 || sp.MaxFailurePercent > 99):
		return invalid("max_failure_percent of stage %q must be 0 (no limit) or 0.01 to 99, not %g", sp.Name, sp.MaxFailurePercent)
	case math.IsNaN(sp.Alpha) || sp.Alpha != 0 && (sp.Alpha < 1e-6 || sp.Alpha > 0.5):
		return invalid("alpha of stage %q must be 0 (meaning %g) or 0.000001 to 0.5, not %g", sp.Name, defaultAlpha, sp.Alpha)
	case sp.Alpha != 0 && sp.MaxFailurePercent == 0:
		return invalid("stage %q has an alpha but no max_failure_percent for it to qualify", sp.Name)
	case sp.SoakSeconds < 0 || sp.SoakSeconds > MaxSoak:
		return invalid("soak_seconds of stage %q must be 0 to %d, not %d", sp.Name, int64(MaxSoak), sp.SoakSeconds)
	}
	return nil
}
