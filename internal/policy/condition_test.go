package policy

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

func TestCohortHasThreeAnswers(t *testing.T) {
	_, f := allowed(t)
	d := f.Device
	tests := []struct {
		expr string
		want Answer
	}{
		{"true", True},
		{"device.attributes.region == 'eu'", True},
		{"device.attributes['region'] in ['uk', 'us']", False},
		{"device.attributes.site == 'x'", CannotTell},
		{"device.attributes.site == 'x' && false", False},
		{"device.attributes.site == 'x' || true", True},
		{"!(device.attributes.site == 'x')", CannotTell},
		{"has(device.attributes.site)", False},
		{"!has(device.attributes.site) && device.attributes.region == 'eu'", True},
		{"device.integrity == 'ok'", CannotTell},
		{"device.version == '1.2.0' && device.security_counter >= 7", True},
		{"size(device.attributes) == 1", True},
		{"'region' in device.attributes", True},
		{"device.id.startsWith('d-') && device.hardware.endsWith('7') && device.product.contains('w')", True},
	}
	for _, tt := range tests {
		if got := MatchCohort(condition(t, tt.expr), d); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.expr, got, tt.want)
		}
	}
	if MatchCohort(nil, d) == True || MatchCohort(&Condition{}, d) == True {
		t.Error("no condition selects")
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := map[string]string{
		"nothing":                    "",
		"a name that does not exist": "device.model == 'x'",
		"a wrong type":               "device.security_counter == 'x'",
		"something not boolean":      "device.id",
		"a regular expression":       "device.id.matches('^a')",
		"a loop":                     "device.attributes.all(k, k != 'x')",
		"a conversion":               "int(device.version) > 1",
		"a release in a cohort":      "release.version == '1.0.0'",
		"a clock in a cohort":        "now > 1",
		"deep nesting":               strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200),
		"too many nodes":             strings.Repeat("device.id == 'a' || ", 190) + "true",
		"too much text":              "device.id == '" + strings.Repeat("a", MaxExprSize) + "'",
	}
	for name, expr := range tests {
		if _, err := CompileCondition(expr); err == nil {
			t.Errorf("%s was accepted", name)
		} else if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
			t.Errorf("%s: kind %s: %v", name, k, err)
		}
	}
}

func TestEveryPartOfAConjunctionAnswersForItself(t *testing.T) {
	terms, f := allowed(t)
	terms.Policy = mustPolicy(t, `{"type":"writ-policy/v1","name":"p","conditions":[
		{"name":"power","expr":"device.attributes.power == 'mains' && device.attributes.region == 'us' && now > 0","message":"Plug it in."}]}`)
	d := Evaluate(terms, f)
	checks := d.Checks[len(d.Checks)-3:]
	want := []Check{
		{Name: "policy:power#1", Reason: fw.ReasonPolicyAbsent, Observed: `device.attributes["power"] is absent`, Wanted: `device.attributes.power == "mains"`, Message: "Plug it in."},
		{Name: "policy:power#2", Reason: fw.ReasonPolicy, Observed: `device.attributes["region"] = "eu"`, Wanted: `device.attributes.region == "us"`, Message: "Plug it in."},
		{Name: "policy:power#3", OK: true, Wanted: "now > 0"},
	}
	if !slices.Equal(checks, want) {
		t.Errorf("checks:\n%+v\nwant\n%+v", checks, want)
	}
}

func TestPolicyDocumentIsStrict(t *testing.T) {
	ok := `{"type":"writ-policy/v1","name":"p","conditions":[{"name":"c","expr":"true"}]}`
	mustPolicy(t, ok)
	tests := map[string]string{
		"another type":         strings.Replace(ok, "/v1", "/v2", 1),
		"no name":              strings.Replace(ok, `"p"`, `""`, 1),
		"a misspelt member":    strings.Replace(ok, `"expr"`, `"exp"`, 1),
		"no conditions":        `{"type":"writ-policy/v1","name":"p","conditions":[]}`,
		"more after the end":   ok + "{}",
		"two of one name":      strings.Replace(ok, `[`, `[{"name":"c","expr":"true"},`, 1),
		"a bad expression":     strings.Replace(ok, `true`, `device.nope`, 1),
		"not UTF-8":            strings.Replace(ok, `"p"`, "\"\xff\"", 1),
		"not JSON":             "conditions:",
		"more than the bound":  ok + strings.Repeat(" ", MaxPolicySize),
		"too many conditions":  strings.Replace(ok, `[`, `[`+strings.Repeat(`{"name":"c","expr":"true"},`, MaxConditions), 1),
		"a very long message":  strings.Replace(ok, `"expr"`, `"message":"`+strings.Repeat("x", 501)+`","expr"`, 1),
		"a condition unnamed":  strings.Replace(ok, `"c"`, `""`, 1),
		"an expression absent": strings.Replace(ok, `,"expr":"true"`, ``, 1),
	}
	for name, text := range tests {
		if _, err := ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		} else if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
			t.Errorf("%s: kind %s: %v", name, k, err)
		}
	}
	_, err := ParsePolicy([]byte(tests["a bad expression"]))
	if msg := messageOf(err); !strings.Contains(msg, `"c"`) {
		t.Errorf("the message does not name the condition: %s", msg)
	}
}

func TestCompareVersions(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"1.2.3", "1.2.3", 0},
		{"1.2.3", "1.10.0", -1},
		{"2.0.0", "10.0.0", -1},
		{"1.0.0-rc.1", "1.0.0", -1},
		{"1.0.0-rc.2", "1.0.0-rc.10", -1},
		{"1.0.0+2", "1.0.0+10", -1},
		{"1.0.0", "1.0.0+0", 0},
		{"1.0.0", "1.0.0+1", -1},
		{"1.0.0+abc", "1.0.0+def", 0},
		{"1.0.1", "1.0.0+99", 1},
	}
	for _, tt := range tests {
		if got, err := CompareVersions(tt.a, tt.b); err != nil || got != tt.want {
			t.Errorf("%s against %s: %d %v", tt.a, tt.b, got, err)
		}
		if got, err := CompareVersions(tt.b, tt.a); err != nil || got != -tt.want {
			t.Errorf("%s against %s: %d %v", tt.b, tt.a, got, err)
		}
	}
	for _, bad := range []string{"", "1", "1.2", "v1.2.3", "1.2.3.4", "latest", "1.02.3", "1.0.0+99999999999999999999", " 1.0.0", strings.Repeat("1", 200) + ".0.0"} {
		if _, err := CompareVersions(bad, "1.0.0"); err == nil {
			t.Errorf("%q was read as a version", bad)
		}
		if _, err := CompareVersions("1.0.0", bad); err == nil {
			t.Errorf("%q was read as a version", bad)
		}
	}
}

func TestProgramsAreSafeForConcurrentUse(t *testing.T) {
	terms, f := allowed(t)
	terms.Policy = mustPolicy(t, twoConditions)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if !Evaluate(terms, f).Allow {
					t.Error("denied")
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompileCondition(f *testing.F) {
	for _, s := range []string{"true", "device.attributes.a == 'b' && has(device.attributes['c'])", "!(device.security_counter in [1, 2]) || device.id + 'x' < 'y'", "device.attributes[device.id] == ''", "[[1]][0][0] == 1", "{'a': 1}['b'] == 1", "a ? b : c"} {
		f.Add(s)
	}
	d := DeviceFacts{ID: "d", Attributes: map[string]string{"a": "b"}}
	f.Fuzz(func(t *testing.T, expr string) {
		c, err := CompileCondition(expr)
		if err != nil {
			if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
				t.Fatalf("kind %s: %v", k, err)
			}
			return
		}
		first := MatchCohort(c, d)
		again, err := CompileCondition(c.String())
		if err != nil || MatchCohort(again, d) != first {
			t.Fatalf("%q does not mean the same twice: %v", expr, err)
		}
		// The parts together must mean what the whole means.
		e, _ := cohortEnv()
		checked, iss := e.Compile(expr)
		if iss.Err() != nil {
			t.Fatal(iss.Err())
		}
		p, err := e.Program(checked)
		if err != nil {
			t.Fatal(err)
		}
		whole := conjunct{program: p}
		if got := whole.answer(newActivation(&d)); got != first {
			t.Fatalf("%q: the whole is %v, its parts are %v", expr, got, first)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(twoConditions))
	f.Add([]byte(`{"type":"writ-policy/v1","name":"p","conditions":[{"name":"c","expr":"now > 1"}]}`))
	f.Add([]byte(`{`))
	terms, facts := allowed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
				t.Fatalf("kind %s: %v", k, err)
			}
			return
		}
		with := &Terms{Plan: terms.Plan, Manifest: terms.Manifest, Publication: terms.Publication, Cohort: terms.Cohort, Policy: p}
		d := Evaluate(with, facts)
		if d.Allow != (len(d.Reasons) == 0) {
			t.Fatalf("allow %v with reasons %v", d.Allow, d.Reasons)
		}
	})
}
