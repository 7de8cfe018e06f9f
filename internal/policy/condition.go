package policy

import (
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/writ-project/writ/internal/fw"
)

// conjunct is one operand of the expression's top-level conjunction, compiled
// alone so that each answers for itself.
type conjunct struct {
	text    string
	program cel.Program
	refs    []reference // what it asks about, each once, in order
}

// reference is a name a conjunct asks about; key is set for an attribute.
type reference struct{ name, key string }

// CompileCondition compiles a cohort: a boolean CEL expression over the names
// that begin with "device.". The error, of kind Invalid, says what is wrong
// and where.
func CompileCondition(expr string) (*Condition, error) {
	e, err := cohortEnv()
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the expression language could not be set up")
	}
	return compile(e, expr)
}

// compileRule compiles a condition of a policy, which may also ask about the
// release, the campaign and the time.
func compileRule(expr string) (*Condition, error) {
	e, err := policyEnv()
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the expression language could not be set up")
	}
	return compile(e, expr)
}

func compile(e *cel.Env, expr string) (*Condition, error) {
	if len(expr) > MaxExprSize {
		return nil, fw.Errorf(fw.TooLarge, "an expression may have at most %d bytes, not %d", MaxExprSize, len(expr))
	}
	checked, iss := e.Compile(expr)
	if iss.Err() != nil {
		return nil, fw.Errorf(fw.Invalid, "the expression does not compile: %s", iss.Err())
	}
	if t := checked.OutputType(); !t.IsExactType(types.BoolType) {
		return nil, fw.Errorf(fw.Invalid, "the expression must be true or false, but it is of type %s", t)
	}
	est, err := e.EstimateCost(checked, estimator{})
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the cost of the expression cannot be estimated")
	}
	if est.Max > MaxCost {
		return nil, fw.Errorf(fw.Invalid, "the expression may cost up to %d units and at most %d are allowed; compare fewer or shorter things", est.Max, MaxCost)
	}
	c := &Condition{expr: expr}
	for _, part := range conjunctsOf(checked.NativeRep().Expr(), nil) {
		cj, err := compilePart(e, checked, part)
		if err != nil {
			return nil, err
		}
		c.conjuncts = append(c.conjuncts, cj)
	}
	return c, nil
}

// conjunctsOf appends the operands of the conjunction at the top of x.
func conjunctsOf(x ast.Expr, to []ast.Expr) []ast.Expr {
	if x.Kind() == ast.CallKind && x.AsCall().FunctionName() == operators.LogicalAnd {
		for _, arg := range x.AsCall().Args() {
			to = conjunctsOf(arg, to)
		}
		return to
	}
	return append(to, x)
}

// compilePart compiles one operand from its own text, which is also what a
// refusal shows.
func compilePart(e *cel.Env, whole *cel.Ast, part ast.Expr) (conjunct, error) {
	s, err := cel.ExprToString(part, whole.NativeRep().SourceInfo())
	if err != nil {
		return conjunct{}, fw.Wrap(fw.Invalid, err, "the expression cannot be split at its &&")
	}
	checked, iss := e.Compile(s)
	if iss.Err() != nil {
		return conjunct{}, fw.Wrap(fw.Invalid, iss.Err(), "the expression cannot be split at its &&")
	}
	// Optimizing turns constant lists into sets and checks constants early.
	p, err := e.Program(checked, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return conjunct{}, fw.Wrap(fw.Invalid, err, "the expression %q has no meaning", s)
	}
	return conjunct{text: s, program: p, refs: references(checked)}, nil
}

// references lists what a checked expression asks about.
func references(checked *cel.Ast) []reference {
	a := checked.NativeRep()
	names := a.ReferenceMap()
	nameOf := func(x ast.Expr) string {
		if r, ok := names[x.ID()]; ok {
			return r.Name
		}
		return ""
	}
	var refs []reference
	covered := map[int64]bool{} // the attribute map itself, when a key of it is listed
	add := func(r reference) {
		if !slices.Contains(refs, r) {
			refs = append(refs, r)
		}
	}
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if name := nameOf(x); name != "" && !covered[x.ID()] {
			add(reference{name: name})
			return
		}
		switch x.Kind() {
		case ast.SelectKind:
			if s := x.AsSelect(); nameOf(s.Operand()) == attributesName {
				covered[s.Operand().ID()] = true
				add(reference{attributesName, s.FieldName()})
			}
		case ast.CallKind:
			c := x.AsCall()
			if c.FunctionName() != operators.Index || len(c.Args()) != 2 || nameOf(c.Args()[0]) != attributesName {
				return
			}
			if c.Args()[1].Kind() == ast.LiteralKind {
				if key, ok := c.Args()[1].AsLiteral().(types.String); ok {
					covered[c.Args()[0].ID()] = true
					add(reference{attributesName, string(key)})
				}
			}
		case ast.UnspecifiedExprKind, ast.ComprehensionKind, ast.IdentKind, ast.ListKind, ast.LiteralKind, ast.MapKind, ast.StructKind:
		}
	}))
	return refs
}

// answer evaluates the conjunct. Every error, an absent name first among them,
// is "cannot tell".
func (c *conjunct) answer(a *activation) Answer {
	out, _, err := c.program.Eval(a)
	if err != nil {
		return CannotTell
	}
	b, ok := out.(types.Bool)
	switch {
	case !ok:
		return CannotTell
	case bool(b):
		return True
	}
	return False
}

// observed lists what the conjunct saw, and what it did not find.
func (c *conjunct) observed(a *activation) string {
	var b strings.Builder
	for i, r := range c.refs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.name)
		if r.key != "" {
			b.WriteByte('[')
			b.WriteString(strconv.Quote(r.key))
			b.WriteByte(']')
		}
		b.WriteString(a.show(r))
	}
	return b.String()
}

// show returns " = value" or " is absent" for r.
func (a *activation) show(r reference) string {
	if r.name == attributesName {
		if r.key == "" {
			return " = " + strconv.Itoa(len(a.device.Attributes)) + " attributes"
		}
		v, ok := a.device.Attributes[r.key]
		if !ok {
			return " is absent"
		}
		return " = " + strconv.Quote(v)
	}
	v, ok := a.ResolveName(r.name)
	if !ok {
		return " is absent"
	}
	switch v := v.(type) {
	case types.String:
		return " = " + strconv.Quote(string(v))
	case types.Int:
		return " = " + strconv.FormatInt(int64(v), 10)
	case types.Bool:
		return " = " + strconv.FormatBool(bool(v))
	}
	return ""
}
