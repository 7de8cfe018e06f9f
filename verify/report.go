package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Verdict is the result of a verification.
type Verdict string

// Verdicts.
const (
	Verified   Verdict = "verified"
	Failed     Verdict = "failed"     // something in the bundle is wrong
	Incomplete Verdict = "incomplete" // nothing is wrong, but something could not be judged
)

// Severity says what a finding does to the verdict.
type Severity string

// Severities.
const (
	SeverityFailed     Severity = "failed"
	SeverityIncomplete Severity = "incomplete"
	SeverityNote       Severity = "note" // does not change the verdict
)

// Finding is one thing that the verification found.
type Finding struct {
	Severity Severity `json:"severity"`
	Index    int64    `json:"index"` // of the record; -1: of the bundle as a whole
	What     string   `json:"what"`
}

// Counts says how much was checked.
type Counts struct {
	Records     int64 `json:"records"`
	Erased      int64 `json:"erased,omitempty"`
	Streams     int64 `json:"streams"`
	Checkpoints int64 `json:"checkpoints"`
	Signatures  int64 `json:"signatures"` // of approvers, roots, the CA and devices
	Decisions   int64 `json:"decisions"`  // made again
	Allowed     int64 `json:"allowed"`
	Refused     int64 `json:"refused"`
	Events      int64 `json:"events"` // replayed
	Transitions int64 `json:"transitions"`
	// Authorizations are those whose signature and claims were compared, and
	// Unbound those of devices whose certificate is not in the bundle.
	Authorizations int64 `json:"authorizations"`
	Unbound        int64 `json:"authorizations_without_certificate,omitempty"`
	Reports        int64 `json:"reports"`
	Unsigned       int64 `json:"reports_without_certificate,omitempty"` // the certificate is not in the bundle
	OutOfScope     int64 `json:"out_of_scope,omitempty"`                // records of campaigns that are not in the bundle
	Campaigns      int64 `json:"campaigns"`
	Devices        int64 `json:"devices"`
	Releases       int64 `json:"releases"`
	Certificates   int64 `json:"certificates"`
}

// Report is what a verification found.
type Report struct {
	Verdict   Verdict   `json:"verdict"`
	Scope     Scope     `json:"scope"`
	Log       string    `json:"log"`     // the log's name
	LogKey    string    `json:"log_key"` // the key that the checkpoint was checked with
	Size      int64     `json:"size"`    // of the log at the checkpoint
	Tool      string    `json:"tool"`    // what made the bundle
	CreatedAt int64     `json:"created_at"`
	Counts    Counts    `json:"counts"`
	Findings  []Finding `json:"findings"` // the first [MaxFindings] in order of index
	More      int64     `json:"more_findings,omitempty"`
	NotProven []string  `json:"not_proven"`
}

// MaxFindings is how many findings a report lists. All count.
const MaxFindings = 1000

// maxWhat bounds the text of a finding, in bytes: it may quote the bundle.
const maxWhat = 1000

// findings collects findings from all workers.
type findings struct {
	mu         sync.Mutex
	list       []Finding
	more       int64
	failed     bool
	incomplete bool
}

func (f *findings) add(sev Severity, index int64, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if len(what) > maxWhat {
		what = strings.ToValidUTF8(what[:maxWhat], "") + "..."
	}
	f.put(Finding{sev, index, what})
}

func (f *findings) put(n Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = f.failed || n.Severity == SeverityFailed
	f.incomplete = f.incomplete || n.Severity == SeverityIncomplete
	if len(f.list) >= 2*MaxFindings {
		f.shrink()
	}
	f.list = append(f.list, n)
}

// shrink keeps the first findings. Workers finish out of order, so some that
// come later may belong before.
func (f *findings) shrink() {
	f.sort()
	if len(f.list) > MaxFindings {
		f.more += int64(len(f.list) - MaxFindings)
		f.list = f.list[:MaxFindings]
	}
}

func (f *findings) sort() {
	rank := map[Severity]int{SeverityFailed: 0, SeverityIncomplete: 1, SeverityNote: 2}
	slices.SortStableFunc(f.list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.Severity], rank[b.Severity]), cmp.Compare(a.Index, b.Index), cmp.Compare(a.What, b.What))
	})
}

func (f *findings) fail(index int64, format string, args ...any) {
	f.add(SeverityFailed, index, format, args...)
}

func (f *findings) lack(index int64, format string, args ...any) {
	f.add(SeverityIncomplete, index, format, args...)
}

func (f *findings) verdict() Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.failed:
		return Failed
	case f.incomplete:
		return Incomplete
	}
	return Verified
}
