package policy

// Answer is the three-valued answer of a condition.
type Answer int

// Answers. The zero Answer is the one that denies most loudly.
const (
	CannotTell Answer = iota // something the condition needs is absent
	False
	True
)

// Condition is a compiled CEL expression over a device. It is immutable and
// safe for concurrent use.
type Condition struct{ expr string }

// CompileCondition compiles expr.
func CompileCondition(expr string) (*Condition, error) { return &Condition{expr: expr}, nil }

// MatchCohort answers whether device d is in the cohort c selects.
func MatchCohort(c *Condition, d DeviceFacts) Answer { return CannotTell }

// Policy is a compiled policy document. It is immutable and safe for
// concurrent use.
type Policy struct{ Name string }

// ParsePolicy reads and compiles a policy document.
func ParsePolicy(text []byte) (*Policy, error) { return &Policy{}, nil }

// CompareVersions compares two versions.
func CompareVersions(a, b string) (int, error) { return 0, nil }
