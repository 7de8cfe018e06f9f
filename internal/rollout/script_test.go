package rollout

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestScripts plays testdata/*.txt. A script is blocks of commands, one per
// line, each block followed by "----" and what it printed, up to an empty line.
//
//	plan {json}          the plan, over small defaults; must be valid
//	at N                 the clock
//	start COHORT, tick [COHORT], recount COHORT, pause, resume, abort keep|revert,
//	approve STAGE, rollback-done [ACTOR]
//	new D...             first authorization of each device, in the current stage
//	D... STATE           each device's update moves there; "retry" authorizes again,
//	                     "STATE!" says that no attempt is left
//	status               prints where everything stands
//	timer                prints the next timer
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(text))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; run with -update and read the change:\n%s", name, got)
			}
		})
	}
}

type script struct {
	p       *fw.Plan
	s       Status
	now     int64
	devices map[string]*scriptDevice
}

type scriptDevice struct {
	state    fw.UpdateState
	stage    int
	failures int
	attempts int
	lost     bool
}

func playScript(t *testing.T, text string) string {
	t.Helper()
	sc := &script{devices: map[string]*scriptDevice{}}
	var out, printed strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		out.WriteString(line)
		if i < len(lines)-1 {
			out.WriteByte('\n')
		}
		switch {
		case line == "----":
			for i+1 < len(lines) && lines[i+1] != "" { // skip the old output
				i++
			}
			if printed.Len() == 0 {
				printed.WriteString("ok\n")
			}
			out.WriteString(printed.String())
			printed.Reset()
		case line == "" || strings.HasPrefix(line, "#"):
		default:
			printed.WriteString(sc.do(t, line))
		}
	}
	return out.String()
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (sc *script) do(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	count := func() int {
		if len(words) < 2 {
			return 0
		}
		return number(t, words[1])
	}
	switch words[0] {
	case "plan":
		p := testPlan()
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "plan")), p); err != nil {
			t.Fatal(err)
		}
		if err := Validate(p); err != nil {
			return "invalid: " + err.Error() + "\n"
		}
		sc.p, sc.s = p, New(p)
		return ""
	case "at":
		sc.now = int64(count())
		return ""
	case "status":
		return sc.status()
	case "timer":
		return fmt.Sprintf("timer %d\n", NextTimer(sc.p, sc.s, sc.now))
	case "start":
		return sc.apply(Event{Kind: EventStarted, Cohort: count()})
	case "tick":
		return sc.apply(Event{Kind: EventTick, Cohort: count()})
	case "recount":
		return sc.apply(Event{Kind: EventRecount, Cohort: count()})
	case "pause":
		return sc.apply(Event{Kind: EventPause})
	case "resume":
		return sc.apply(Event{Kind: EventResume})
	case "abort":
		return sc.apply(Event{Kind: EventKind("abort_" + arg(1))})
	case "approve":
		return sc.apply(Event{Kind: EventStageApproved, Stage: count()})
	case "rollback-done":
		return sc.apply(Event{Kind: EventRollbackDone, Actor: fw.PersonID(arg(1))})
	case "new":
		var out strings.Builder
		for _, d := range words[1:] {
			out.WriteString(sc.move(d, fw.UpdateAuthorized, false))
		}
		return out.String()
	}
	state, last := strings.CutSuffix(words[len(words)-1], "!")
	if state == "retry" {
		state = string(fw.UpdateAuthorized)
	}
	var out strings.Builder
	for _, d := range words[:len(words)-1] {
		out.WriteString(sc.move(d, fw.UpdateState(state), last))
	}
	return out.String()
}

func (sc *script) move(name string, to fw.UpdateState, last bool) string {
	d, known := sc.devices[name]
	if !known {
		d = &scriptDevice{stage: sc.s.Stage}
	}
	before := sc.s
	out := sc.apply(Event{Kind: EventUpdateMoved, Stage: d.stage, From: d.state, To: to, NewMember: !known, PriorFailures: d.failures, Exhausted: last})
	if strings.HasPrefix(out, "error") {
		sc.s = before
		return name + ": " + out
	}
	d.state = to
	if failing(to) {
		d.failures++
	}
	sc.devices[name] = d
	return out
}

func (sc *script) apply(e Event) string {
	s, moves, err := Apply(sc.p, sc.s, e, sc.now)
	if err != nil {
		return "error " + string(fw.KindOf(err)) + ": " + err.Error() + "\n"
	}
	sc.s = s
	var b bytes.Buffer
	for _, m := range moves {
		what := "campaign"
		if m.Kind == TransitionStage {
			what = "stage " + strconv.Itoa(m.Stage)
		}
		fmt.Fprintf(&b, "%s: %s -> %s (%s", what, m.From, m.To, m.Reason)
		if m.Gate != m.Stage {
			fmt.Fprintf(&b, " in stage %d", m.Gate)
		}
		if m.E != 0 {
			fmt.Fprintf(&b, ", e=%g", m.E)
		}
		b.WriteString(")\n")
	}
	return b.String()
}

func (sc *script) status() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, at stage %d\n", sc.s.State, sc.s.Stage)
	for i, st := range sc.s.Stages {
		tally, err := json.Marshal(st.Tally)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "  %d %s limit %d %s\n", i, st.State, st.Limit, strings.ReplaceAll(string(tally), `"`, ""))
	}
	return b.String()
}

func testPlan() *fw.Plan {
	return &fw.Plan{
		Type: fw.TypePlan, Campaign: "cmp_a", Name: "test", Product: "gw", Release: "rel_b",
		Publication: fw.DigestOf([]byte("p")), Cohort: "true", Attempts: 3, AuthorizationTTL: 3600,
		OnFailure: fw.FailurePause, Quorum: 1,
	}
}
