package rollout

import (
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

func TestValidateSaysWhatToChange(t *testing.T) {
	tests := []struct {
		want   string // in the message
		change func(*fw.Plan)
	}{
		{"type", func(p *fw.Plan) { p.Type = "plan" }},
		{"product", func(p *fw.Plan) { p.Product = "" }},
		{"publication", func(p *fw.Plan) { p.Publication = fw.Digest{} }},
		{"cohort", func(p *fw.Plan) { p.Cohort = "" }},
		{"attempts must be 1 to 10", func(p *fw.Plan) { p.Attempts = 0 }},
		{"attempts must be 1 to 10", func(p *fw.Plan) { p.Attempts = 11 }},
		{"backoff", func(p *fw.Plan) { p.BackoffSeconds = -1 }},
		{"60 (a minute)", func(p *fw.Plan) { p.AuthorizationTTL = 59 }},
		{"30 days", func(p *fw.Plan) { p.AuthorizationTTL = 30*86400 + 1 }},
		{"on_failure", func(p *fw.Plan) { p.OnFailure = "" }},
		{"quorum", func(p *fw.Plan) { p.Quorum = 0 }},
		{"not_after", func(p *fw.Plan) { p.NotBefore, p.NotAfter = 5, 5 }},
		{"rollback must name", func(p *fw.Plan) { p.Rollback = &fw.RollbackTo{} }},
		{"another release", func(p *fw.Plan) { p.Rollback = &fw.RollbackTo{Release: p.Release, Publication: p.Publication} }},
		{"start_minute", func(p *fw.Plan) { p.Window = &fw.Window{StartMinute: 1440} }},
		{"empty", func(p *fw.Plan) { p.Window = &fw.Window{StartMinute: 5, EndMinute: 5} }},
		{"weekdays", func(p *fw.Plan) { p.Window = &fw.Window{EndMinute: 5, Weekdays: []int{1, 1}} }},
		{"1 to 32 stages", func(p *fw.Plan) { p.Stages = nil }},
		{"exactly one of count and percent", func(p *fw.Plan) { p.Stages[0].Percent = 5 }},
		{"exactly one of count and percent", func(p *fw.Plan) { p.Stages[1].Percent = 0 }},
		{"must rise", func(p *fw.Plan) { p.Stages[2].Percent = 50 }},
		{"named", func(p *fw.Plan) { p.Stages[1].Name = "canary" }},
		{"can never confirm", func(p *fw.Plan) { p.Stages[0].MinConfirmed = 3 }},
		{"leave it out", func(p *fw.Plan) { n := -1; p.Stages[0].MaxFailures = &n }},
		{"max_failure_percent", func(p *fw.Plan) { p.Stages[0].MaxFailurePercent = 100 }},
		{"alpha", func(p *fw.Plan) { p.Stages[0].MaxFailurePercent, p.Stages[0].Alpha = 5, 1 }},
		{"no max_failure_percent", func(p *fw.Plan) { p.Stages[0].Alpha = 0.1 }},
		{"soak_seconds", func(p *fw.Plan) { p.Stages[0].SoakSeconds = -1 }},
	}
	good := func() *fw.Plan {
		p := testPlan()
		p.Stages = []fw.StagePlan{{Name: "canary", Count: 2}, {Name: "half", Percent: 50}, {Name: "rest", Percent: 100}}
		return p
	}
	if err := Validate(good()); err != nil {
		t.Fatal(err)
	}
	if Validate(nil) == nil {
		t.Error("no plan is valid")
	}
	for _, tt := range tests {
		p := good()
		tt.change(p)
		err := Validate(p)
		if fw.KindOf(err) != fw.Invalid || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("want an error that mentions %q, got %v", tt.want, err)
		}
	}
}

func TestStageLimit(t *testing.T) {
	p := &fw.Plan{Stages: []fw.StagePlan{{Count: 2}, {Percent: 10}, {Percent: 100}, {Percent: 50, Cohort: "true"}}}
	for _, tt := range []struct{ stage, cohort, before, want int }{
		{0, 100, 0, 2},
		{0, 1, 0, 1},
		{0, 0, 0, 0},
		{1, 100, 2, 8},
		{1, 101, 2, 9},
		{1, 15, 2, 0},
		{1, 1, 0, 1},
		{2, 100, 10, 90},
		{2, 5, 5, 0},
		{2, 5, 9, 0},
		{3, 7, 100, 4}, // its own cohort: half of seven, whoever went before
		{2, MaxDevices, 0, MaxDevices},
	} {
		if got := StageLimit(p, tt.stage, tt.cohort, tt.before); got != tt.want {
			t.Errorf("stage %d of %d with %d before: %d, want %d", tt.stage, tt.cohort, tt.before, got, tt.want)
		}
	}
}

func TestApplyRefusesNonsense(t *testing.T) {
	p := testPlan()
	p.Stages = []fw.StagePlan{{Name: "all", Percent: 100}}
	s, _, err := Apply(p, New(p), Event{Kind: EventStarted, Cohort: 3}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		e    Event
		kind fw.Kind
	}{
		"an unknown kind":                   {Event{Kind: "hope"}, fw.Invalid},
		"a second start":                    {Event{Kind: EventStarted, Cohort: 3}, fw.Conflict},
		"a move not in the table":           {Event{Kind: EventUpdateMoved, From: fw.UpdateConfirmed, To: fw.UpdateAuthorized}, fw.Conflict},
		"a stage the plan does not have":    {Event{Kind: EventUpdateMoved, Stage: 7, To: fw.UpdateAuthorized, NewMember: true}, fw.Invalid},
		"a first authorization of a member": {Event{Kind: EventUpdateMoved, To: fw.UpdateAuthorized}, fw.Invalid},
		"a member that is new":              {Event{Kind: EventUpdateMoved, From: fw.UpdateFailed, To: fw.UpdateAuthorized, NewMember: true}, fw.Invalid},
		"a refusal that makes a member":     {Event{Kind: EventUpdateMoved, To: fw.UpdateRefused, NewMember: true}, fw.Invalid},
		"a report of nobody":                {Event{Kind: EventUpdateMoved, From: fw.UpdateAuthorized, To: fw.UpdateConfirmed}, fw.Corrupt},
		"a recount of nothing":              {Event{Kind: EventRecount}, fw.Invalid},
	} {
		if _, _, err := Apply(p, s, tt.e, 2); fw.KindOf(err) != tt.kind {
			t.Errorf("%s: want %s, got %v", name, tt.kind, err)
		}
	}
	// A device in no stage counts nowhere.
	got, _, err := Apply(p, s, Event{Kind: EventUpdateMoved, From: fw.UpdatePending, To: fw.UpdateCancelled, Outside: true}, 2)
	if err != nil || got.Stages[0].Tally != (Tally{}) {
		t.Errorf("%+v %v", got, err)
	}
	if _, _, err := Apply(p, Status{State: fw.CampaignRunning, Stages: make([]Stage, 2)}, Event{Kind: EventTick}, 2); fw.KindOf(err) != fw.Corrupt {
		t.Errorf("a status of another plan: %v", err)
	}
}
