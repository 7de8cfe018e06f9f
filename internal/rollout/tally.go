package rollout

import "github.com/writ-project/writ/internal/fw"

// failing reports whether reaching state s is a failure report.
func failing(s fw.UpdateState) bool {
	return s == fw.UpdateFailed || s == fw.UpdateRejected || s == fw.UpdateRolledBack
}

// place returns the counter a member in state s occupies, nil for none.
func (t *Tally) place(s fw.UpdateState) *int {
	switch s {
	case fw.UpdateAuthorized, fw.UpdateDelivered, fw.UpdateInstalled:
		return &t.Open
	case fw.UpdateConfirmed:
		return &t.Confirmed
	case fw.UpdateFailed:
		return &t.Failed
	case fw.UpdateRejected:
		return &t.Rejected
	case fw.UpdateRolledBack:
		return &t.RolledBack
	case fw.UpdateCancelled, fw.UpdateSuperseded:
		return &t.Cancelled
	case fw.UpdatePending, fw.UpdateRefused, fw.UpdateDeferred, fw.UpdatePaused:
		return nil
	}
	return nil
}

// move counts a member's update going from one state to another.
func (t *Tally) move(e Event, reverting bool) error {
	if e.NewMember {
		t.Members++
	} else if from := t.place(e.From); from != nil {
		if *from == 0 {
			return fw.Errorf(fw.Corrupt, "the tally of stage %d has no device in state %q that could become %q", e.Stage, e.From, e.To)
		}
		*from--
	}
	switch to := t.place(e.To); {
	case to == nil:
	case to == &t.Cancelled && e.Exhausted && ended(e.From):
		// Already counted in Lost; counting it here too would make the stage
		// two devices smaller for one.
	default:
		*to++
	}
	t.fail(e, reverting)
	if sum := t.Open + t.Confirmed + t.Failed + t.Rejected + t.RolledBack + t.Cancelled; sum > t.Members || t.DevicesFailed > t.Members || t.Lost > t.Members || t.Lost < 0 {
		return fw.Errorf(fw.Corrupt, "the tally of stage %d counts more devices than its %d members: was a device outside the stage reported as a member?", e.Stage, t.Members)
	}
	return nil
}

// fail counts what the move says about failure.
func (t *Tally) fail(e Event, reverting bool) {
	if failing(e.From) {
		// The attempt was given up already. What the device says of it
		// afterwards is no second failure, but it may have made it after all.
		if e.Exhausted && (e.To.Open() || e.To == fw.UpdateConfirmed) && e.To != fw.UpdateAuthorized {
			t.Lost--
		}
		return
	}
	// Falling back is what a campaign that is rolling back asks for.
	if !failing(e.To) || reverting && e.To == fw.UpdateRolledBack {
		return
	}
	t.Failures++
	if e.PriorFailures == 0 {
		t.DevicesFailed++
	}
	if e.Exhausted {
		t.Lost++
	}
}

// ended reports whether a member in state s has no attempt under way, so that
// it is lost if it has none left.
func ended(s fw.UpdateState) bool {
	return failing(s) || s == fw.UpdatePending || s == fw.UpdateRefused || s == fw.UpdateDeferred
}

// forgive makes the gates start again from here.
func (t *Tally) forgive() {
	t.FailuresForgiven = t.Failures
	t.DevicesFailedForgiven = t.DevicesFailed
	t.LostForgiven = t.Lost
}
