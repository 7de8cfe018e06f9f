//go:build !writ_cel

package policy

import "github.com/writ-project/writ/internal/fw"

// This file stands in for condition.go and environment.go until go.mod has the
// requirements of cel.dev/cel-go; then it goes, and so do the writ_cel build
// tags. It knows the cohort "true" and refuses everything else, so that
// nothing is allowed by it that CEL would deny.

type conjunct struct{ text string }

func (c *conjunct) answer(*activation) Answer   { return True }
func (c *conjunct) observed(*activation) string { return "" }

type activation struct {
	facts *Facts
	terms *Terms
}

func newActivation(*DeviceFacts) *activation { return &activation{} }

// CompileCondition compiles a cohort.
func CompileCondition(expr string) (*Condition, error) {
	if expr != "true" {
		return nil, fw.Errorf(fw.Unavailable, "this build has no expression language; the only expression it knows is \"true\"")
	}
	return &Condition{expr: expr, conjuncts: []conjunct{{text: expr}}}, nil
}

func compileRule(expr string) (*Condition, error) { return CompileCondition(expr) }
