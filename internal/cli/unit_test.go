package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
)

func TestParseStageReadsAllKeys(t *testing.T) {
	two := 2
	tests := []struct {
		in   string
		want fw.StagePlan
	}{
		{"canary count=2 max-failures=2 min-confirmed=2 soak=10s", fw.StagePlan{Name: "canary", Count: 2, MaxFailures: &two, MinConfirmed: 2, SoakSeconds: 10}},
		{"rest percent=100% max-failure-percent=2.5 alpha=0.01 approval=yes", fw.StagePlan{Name: "rest", Percent: 100, MaxFailurePercent: 2.5, Alpha: 0.01, NeedsApproval: true}},
		{`lab count=1 cohort='device.attributes.site == "lab"'`, fw.StagePlan{Name: "lab", Count: 1, Cohort: `device.attributes.site == "lab"`}},
	}
	for _, tt := range tests {
		got, err := parseStage(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%q: %s", tt.in, d)
		}
	}
}

func TestParseStageRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, in := range []string{
		"", "   ", "count=2", "canary count", "canary count=", "canary count=two", "canary count=1 count=2",
		"canary counts=2", "canary soak=10", "canary soak=-1s", "canary soak=1.5s", "canary approval=maybe", `canary cohort='a`,
	} {
		if p, err := parseStage(in); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%q: got %+v, %v, want an Invalid error", in, p, err)
		}
	}
}

func TestReadDevicesReadsEveryForm(t *testing.T) {
	want := []listed{
		{line: 2, id: "a-1", hardware: "rev-a", attributes: map[string]string{"site": "lab"}},
		{line: 3, id: "a-2", hardware: "rev-b"},
	}
	tests := map[string]string{
		"csv":       "id,hardware,site\na-1,,lab\na-2,rev-b,\n",
		"csv crlf":  "\xef\xbb\xbfid,hardware,site\r\na-1,rev-a,lab\r\na-2,rev-b,\r\n",
		"json":      `[{"id":"a-1","attributes":{"site":"lab"}},{"id":"a-2","hardware":"rev-b"}]`,
		"json line": `{"id":"a-1","attributes":{"site":"lab"}}` + "\n" + `{"id":"a-2","hardware":"rev-b"}`,
	}
	for name, in := range tests {
		got, err := readDevices(strings.NewReader(in), "rev-a")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range got {
			if strings.HasPrefix(name, "json") {
				got[i].line++
			}
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(listed{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestReadDevicesRefusesBrokenLists(t *testing.T) {
	for _, in := range []string{"", "  \n", "serials\na\n", "id,hardware\na,b,c\n", "id\n\"a\n", `[{"id":1}]`, `[{"idd":"a"}]`, `[1`, `{"id":"a"`} {
		if got, err := readDevices(strings.NewReader(in), ""); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%q: got %v, %v, want an Invalid error", in, got, err)
		}
	}
}

func TestADocumentIsShownWithEveryMember(t *testing.T) {
	doc := `{"type":"writ-stage/v1","campaign":"cmp_x","stage":1,"name":"a\u001b[2Kb\u202e","list":[{"x":true},null],"created_at":1000000000}`
	d, err := readDocument([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	d.print(&b)
	for _, want := range []string{"type", "cmp_x", "list[0].x", "true", "list[1]", "null", "2001-09-09", fw.DigestOf([]byte(doc)).String()} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not shown:\n%s", want, b.String())
		}
	}
	if strings.ContainsAny(b.String(), "\x1b\u202e") {
		t.Errorf("control characters reach the terminal: %q", b.String())
	}
}

func TestADocumentThatReadersReadDifferentlyIsRefused(t *testing.T) {
	for _, in := range []string{
		`{"type":"a","type":"b"}`, `{"type":"a","Type":"b"}`, `{"a":{"x":1,"x":2}}`, `{"type":"a"} {"type":"b"}`, `{"type":"a"`, ``,
	} {
		if d, err := readDocument([]byte(in)); err == nil {
			t.Errorf("%s: got %v, want an error", in, d.members)
		}
	}
}

func TestADocumentAboutSomethingElseIsNotSigned(t *testing.T) {
	d, err := readDocument([]byte(`{"type":"writ-release/v1","release":"rel_a"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.about(fw.TypeManifest, "release", "rel_a"); err != nil {
		t.Error(err)
	}
	if d.about(fw.TypeManifest, "release", "rel_b") == nil || d.about(fw.TypePlan, "release", "rel_a") == nil {
		t.Error("a document about something else passes")
	}
}

func TestEveryKindHasItsExitCode(t *testing.T) {
	want := map[fw.Kind]Exit{
		"": 0, fw.Invalid: 2, fw.TooLarge: 2, fw.NotFound: 3, fw.Conflict: 4, fw.Unauthenticated: 5, fw.Forbidden: 5,
		fw.Unavailable: 6, fw.TooMany: 6, fw.Corrupt: 1, fw.Internal: 1,
	}
	for k, e := range want {
		if got := exitOf(k); got != e {
			t.Errorf("%s: exit %d, want %d", k, got, e)
		}
	}
}
