package rollout

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/fw"
)

// step is an accepted event with its time and what came of it.
type step struct {
	event Event
	now   int64
	after Status
	moves []Transition
}

func drawPlan(rt *rapid.T) *fw.Plan {
	p := testPlan()
	percent := 0
	for i := range rapid.IntRange(1, 4).Draw(rt, "stages") {
		sp := fw.StagePlan{Name: string(rune('a' + i))}
		if percent < 90 && rapid.Bool().Draw(rt, "by percent") {
			percent = rapid.IntRange(percent+1, 100).Draw(rt, "percent")
			sp.Percent = percent
		} else {
			sp.Count = rapid.IntRange(1, 6).Draw(rt, "count")
			sp.MinConfirmed = rapid.IntRange(0, sp.Count).Draw(rt, "min confirmed")
		}
		if rapid.Bool().Draw(rt, "count gate") {
			n := rapid.IntRange(0, 3).Draw(rt, "max failures")
			sp.MaxFailures = &n
		}
		sp.MaxFailurePercent = rapid.SampledFrom([]float64{0, 0, 10, 30}).Draw(rt, "max failure percent")
		sp.SoakSeconds = rapid.SampledFrom([]int64{0, 0, 20}).Draw(rt, "soak")
		sp.NeedsApproval = rapid.IntRange(0, 3).Draw(rt, "needs approval") == 0
		p.Stages = append(p.Stages, sp)
	}
	p.OnFailure = rapid.SampledFrom([]fw.FailureAction{fw.FailurePause, fw.FailureRollBack}).Draw(rt, "on failure")
	p.NotBefore = rapid.SampledFrom([]int64{0, 0, 30}).Draw(rt, "not before")
	p.NotAfter = rapid.SampledFrom([]int64{0, 0, 400}).Draw(rt, "not after")
	if err := Validate(p); err != nil {
		rt.Fatalf("drawn plan is invalid: %v", err)
	}
	return p
}

// drawEvent proposes something that could happen, right or wrong.
func drawEvent(rt *rapid.T, p *fw.Plan, s Status, devices []scriptDevice) (Event, int) {
	kinds := []EventKind{EventUpdateMoved, EventUpdateMoved, EventUpdateMoved, EventUpdateMoved, EventUpdateMoved, EventUpdateMoved, EventTick, EventTick, EventStageApproved, EventPause, EventResume, EventRecount, EventRollbackDone}
	if rapid.IntRange(0, 30).Draw(rt, "abort") == 0 {
		kinds = []EventKind{EventAbortKeep, EventAbortRevert}
	}
	e := Event{Kind: rapid.SampledFrom(kinds).Draw(rt, "kind")}
	if s.State == fw.CampaignApproved {
		e.Kind = EventStarted
	}
	switch e.Kind {
	case EventStarted, EventRecount:
		e.Cohort = rapid.IntRange(1, 20).Draw(rt, "cohort")
	case EventStageApproved:
		e.Stage = s.Stage
	case EventUpdateMoved:
		i := rapid.IntRange(0, len(devices)-1).Draw(rt, "device")
		d := devices[i]
		e.Stage, e.From, e.PriorFailures = d.stage, d.state, d.failures
		if d.state == "" {
			e.Stage, e.To, e.NewMember = s.Stage, fw.UpdateAuthorized, true
		} else {
			e.To = rapid.SampledFrom(fw.UpdateStates).Draw(rt, "to")
			if e.To == fw.UpdateAuthorized && d.attempts >= p.Attempts {
				e.To = fw.UpdateRefused // as the decision would
			}
			e.Exhausted = d.attempts >= p.Attempts
		}
		return e, i
	case EventTick, EventPause, EventResume, EventAbortKeep, EventAbortRevert, EventRollbackDone:
	}
	return e, -1
}

// take is the model: what the device knows of itself.
func (d *scriptDevice) take(e Event, reverting bool) {
	if e.To == fw.UpdateAuthorized {
		d.attempts++
	}
	if failing(e.To) && (!reverting || e.To != fw.UpdateRolledBack) && !failing(e.From) {
		d.failures++
		d.lost = e.Exhausted
	}
	if e.To.Open() || e.To == fw.UpdateConfirmed {
		d.lost = false
	}
	d.state, d.stage = e.To, e.Stage
}

// compare counts the devices and holds the tallies to it.
func compare(rt *rapid.T, s Status, devices []scriptDevice) {
	want := make([]Tally, len(s.Stages))
	for _, d := range devices {
		if d.state == "" {
			continue
		}
		t := &want[d.stage]
		t.Members++
		if place := t.place(d.state); place != nil && (place != &t.Cancelled || !d.lost) {
			*place++
		}
		t.Failures += d.failures
		if d.failures > 0 {
			t.DevicesFailed++
		}
		if d.lost {
			t.Lost++
		}
	}
	for i, st := range s.Stages {
		got := st.Tally
		got.FailuresForgiven, got.DevicesFailedForgiven, got.LostForgiven = 0, 0, 0
		if diff := cmp.Diff(want[i], got); diff != "" {
			rt.Fatalf("the tally of stage %d is not what its devices say (-want +got):\n%s", i, diff)
		}
	}
}

func final(s fw.CampaignState) bool {
	return s == fw.CampaignCompleted || s == fw.CampaignAborted || s == fw.CampaignRolledBack
}

func TestApplyKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		s, now := New(p), int64(0)
		devices := make([]scriptDevice, 24)
		var history []step
		for range rapid.IntRange(1, 80).Draw(rt, "length") {
			now += rapid.Int64Range(0, 15).Draw(rt, "seconds")
			e, i := drawEvent(rt, p, s, devices)
			before, err := json.Marshal(s)
			if err != nil {
				rt.Fatal(err)
			}
			next, moves, err := Apply(p, s, e, now)
			if after, _ := json.Marshal(s); string(after) != string(before) {
				rt.Fatalf("Apply changed its argument: %s to %s", before, after)
			}
			if err != nil {
				if fw.KindOf(err) == fw.Corrupt {
					rt.Fatalf("%+v: %v", e, err)
				}
				if diff := cmp.Diff(s, next); diff != "" || moves != nil {
					rt.Fatalf("a refused event changed something: %s", diff)
				}
				continue
			}
			if i >= 0 {
				devices[i].take(e, s.State == fw.CampaignRollingBack || s.State == fw.CampaignRolledBack)
			}
			compare(rt, next, devices)
			check(rt, p, s, next, moves, now)
			history = append(history, step{e, now, next, moves})
			s = next
		}
		replay(rt, p, history)
	})
}

// check holds one application to the promises of the package.
func check(rt *rapid.T, p *fw.Plan, before, after Status, moves []Transition, now int64) {
	for i, st := range after.Stages {
		if st.Tally.Members > st.Limit {
			rt.Fatalf("stage %d has %d members and room for %d", i, st.Tally.Members, st.Limit)
		}
		if n, failed := st.Tally.judged(); failed < 0 || n < failed {
			rt.Fatalf("stage %d judges %d failures of %d", i, failed, n)
		}
	}
	if final(before.State) && (len(moves) > 0 || after.State != before.State) {
		rt.Fatalf("final state %s moved to %s", before.State, after.State)
	}
	campaign, stages := before.State, map[int]fw.StageState{}
	for i, st := range before.Stages {
		stages[i] = st.State
	}
	for _, m := range moves {
		switch m.Kind {
		case TransitionCampaign:
			if string(campaign) != m.From || !campaign.CanMove(fw.CampaignState(m.To)) {
				rt.Fatalf("campaign %s: %+v is not in its table", campaign, m)
			}
			campaign = fw.CampaignState(m.To)
		case TransitionStage:
			if string(stages[m.Stage]) != m.From || !stages[m.Stage].CanMove(fw.StageState(m.To)) {
				rt.Fatalf("stage %s: %+v is not in its table", stages[m.Stage], m)
			}
			stages[m.Stage] = fw.StageState(m.To)
		}
	}
	if campaign != after.State {
		rt.Fatalf("the transitions lead to %s, the status says %s", campaign, after.State)
	}
	for i, st := range after.Stages {
		if stages[i] != st.State {
			rt.Fatalf("the transitions lead stage %d to %s, the status says %s", i, stages[i], st.State)
		}
	}
	// A tick changes nothing that the event before it did not settle.
	if again, more, err := Apply(p, after, Event{Kind: EventTick}, now); err != nil || len(more) > 0 || !cmp.Equal(again, after) {
		rt.Fatalf("not settled: %+v %v", more, err)
	}
	if next := NextTimer(p, after, now); next != 0 && next <= now {
		rt.Fatalf("the next timer %d is not after %d", next, now)
	}
}

// replay is what the verifier does: from JSON, from the start.
func replay(rt *rapid.T, p *fw.Plan, history []step) {
	s := New(p)
	for i, h := range history {
		b, err := json.Marshal(h.event)
		if err != nil {
			rt.Fatal(err)
		}
		var e Event
		if err := json.Unmarshal(b, &e); err != nil {
			rt.Fatal(err)
		}
		next, moves, err := Apply(p, s, e, h.now)
		if err != nil {
			rt.Fatalf("replaying event %d: %v", i, err)
		}
		if diff := cmp.Diff(h.after, next); diff != "" {
			rt.Fatalf("event %d replays to another status:\n%s", i, diff)
		}
		if diff := cmp.Diff(h.moves, moves); diff != "" {
			rt.Fatalf("event %d replays to other transitions:\n%s", i, diff)
		}
		s = next
	}
}
