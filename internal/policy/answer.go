package policy

import "strings"

// Bounds of what an author may write. They are checked when a document is
// accepted, so that evaluation needs no run-time limit, which would triple its
// cost. MaxCost is in CEL's units; a plain comparison costs two or three.
const (
	MaxPolicySize = 64 << 10
	MaxConditions = 64
	MaxExprSize   = 4 << 10
	MaxNodes      = 500
	MaxDepth      = 40
	MaxCost       = 20_000
)

// Bounds on attribute values, which enrolment and check-in enforce; the cost
// estimate relies on them.
const (
	MaxAttributes     = 64
	MaxAttributeSize  = 256
	maxIdentifierSize = 256
)

// Answer is the three-valued answer of a condition.
type Answer int

// Answers. The zero Answer is the one that knows least; it denies.
const (
	CannotTell Answer = iota // something the condition needs is absent
	False
	True
)

// String returns the answer in words.
func (a Answer) String() string {
	switch a {
	case True:
		return "true"
	case False:
		return "false"
	case CannotTell:
	}
	return "cannot tell"
}

// Condition is a compiled CEL expression. It is immutable and safe for
// concurrent use.
type Condition struct {
	expr      string
	conjuncts []conjunct
}

// String returns the expression as it was written.
func (c *Condition) String() string { return c.expr }

// match answers for the whole conjunction: false if any part is, else cannot
// tell if any part cannot. With an answer other than True it names the parts
// that gave it.
func (c *Condition) match(a *activation) (Answer, string) {
	answer := True
	var seen []string
	for i := range c.conjuncts {
		cj := &c.conjuncts[i]
		switch got := cj.answer(a); got {
		case True:
			continue
		case False:
			answer = False
		case CannotTell:
			if answer == True {
				answer = CannotTell
			}
		}
		seen = append(seen, cj.observed(a))
	}
	return answer, strings.Join(seen, "; ")
}

// MatchCohort answers whether device d is in the cohort c selects. Only True
// selects; a nil condition selects nothing.
func MatchCohort(c *Condition, d DeviceFacts) Answer {
	if c == nil || len(c.conjuncts) == 0 {
		return CannotTell
	}
	a, _ := c.match(newActivation(&d))
	return a
}
