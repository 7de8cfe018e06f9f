package policy

import (
	"math"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/writ-project/writ/internal/fw"
)

const attributesName = "device.attributes"

// deviceNames are what both a cohort and a policy can ask about a device.
var deviceNames = map[string]*cel.Type{
	"device.id":               cel.StringType,
	"device.product":          cel.StringType,
	"device.hardware":         cel.StringType,
	"device.state":            cel.StringType,
	"device.integrity":        cel.StringType,
	"device.assurance":        cel.StringType,
	"device.version":          cel.StringType,
	"device.security_counter": cel.IntType,
	"device.cert.state":       cel.StringType,
	"device.cert.not_before":  cel.IntType,
	"device.cert.not_after":   cel.IntType,
	attributesName:            cel.MapType(cel.StringType, cel.StringType),
}

// decisionNames are what only a policy can ask: they mean nothing when a
// cohort is selected.
var decisionNames = map[string]*cel.Type{
	"now":                      cel.IntType,
	"release.id":               cel.StringType,
	"release.version":          cel.StringType,
	"release.type":             cel.StringType,
	"release.security_counter": cel.IntType,
	"campaign.id":              cel.StringType,
	"campaign.approvals":       cel.IntType,
	"campaign.mandatory":       cel.BoolType,
	"update.attempts":          cel.IntType,
	"update.rollback":          cel.BoolType,
	"stage.index":              cel.IntType,
}

// functions are the operators and functions of the language, chosen so that
// every one has an SQL form with the same answer. No matches, no clock, no
// conversion, no arithmetic on floats.
var functions = []string{
	"_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_",
	"@in", "_[_]", "_+_", "_-_", "-_", "startsWith", "endsWith", "contains", "size",
}

// The two environments are constants that cannot be written as such.
var (
	cohortEnv = sync.OnceValues(func() (*cel.Env, error) { return newEnv(deviceNames) })
	policyEnv = sync.OnceValues(func() (*cel.Env, error) { return newEnv(deviceNames, decisionNames) })
)

func newEnv(names ...map[string]*cel.Type) (*cel.Env, error) {
	subset := &env.LibrarySubset{DisableMacros: true}
	for _, f := range functions {
		subset.IncludeFunctions = append(subset.IncludeFunctions, env.NewFunction(f))
	}
	opts := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.ClearMacros(), cel.Macros(cel.HasMacro), // no comprehensions: cost is bounded by the text
		cel.ParserRecursionLimit(MaxDepth),
		cel.ParserExpressionSizeLimit(MaxExprSize),
		cel.ExpressionNodeLimit(MaxNodes),
		cel.ExpressionNestingDepthLimit(MaxDepth),
		cel.CrossTypeNumericComparisons(false),
	}
	for _, m := range names {
		for name, t := range m {
			opts = append(opts, cel.Variable(name, t))
		}
	}
	if len(names) > 1 {
		// Only for policies: it has no SQL form. The answer has the sign of
		// CompareVersions; a version that cannot be read is an error, and an
		// error is "cannot tell".
		opts = append(opts, cel.Function("compare_versions",
			cel.Overload("compare_versions_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.IntType,
				cel.BinaryBinding(func(a, b ref.Val) ref.Val {
					x, okX := a.(types.String)
					y, okY := b.(types.String)
					if !okX || !okY {
						return types.MaybeNoSuchOverloadErr(a)
					}
					c, err := CompareVersions(string(x), string(y))
					if err != nil {
						return types.WrapErr(err)
					}
					return types.Int(c)
				}))))
	}
	return cel.NewCustomEnv(opts...)
}

// estimator bounds the sizes of the variables for the cost estimate.
type estimator struct{}

func (estimator) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function == "compare_versions" {
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(50)}
	}
	return nil
}

func (estimator) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := element.Path()
	if len(path) == 0 {
		return nil
	}
	size := cost.RangedSizeEstimate(0, maxIdentifierSize)
	if len(path) == 1 && path[0] == attributesName {
		size = cost.RangedSizeEstimate(0, MaxAttributes)
	}
	return &size
}

// activation answers CEL's questions about one decision. A name it cannot
// answer is absent, and a condition that needs it cannot tell. No maps are
// built and nothing is reflected upon: this is the hot path.
type activation struct {
	device  *DeviceFacts
	facts   *Facts // nil when a cohort is selected
	terms   *Terms
	version string // of the component that stands for the device
	counter uint64
	assured fw.Assurance
}

var _ interpreter.Activation = (*activation)(nil)

func newActivation(d *DeviceFacts) *activation {
	a := &activation{device: d}
	if c := mainComponent(d); c != nil {
		a.version, a.counter, a.assured = c.Version, c.SecurityCounter, c.Assurance
	}
	return a
}

func (a *activation) Parent() interpreter.Activation { return nil }

func (a *activation) ResolveName(name string) (any, bool) {
	d := a.device
	switch name {
	case "device.id":
		return text(string(d.ID))
	case "device.product":
		return text(string(d.Product))
	case "device.hardware":
		return text(string(d.Hardware))
	case "device.state":
		return text(string(d.State))
	case "device.integrity":
		return text(d.Integrity)
	case "device.assurance":
		return text(string(a.assured))
	case "device.version":
		return text(a.version)
	case "device.security_counter":
		if a.version == "" {
			return nil, false // no component is known, so neither is its counter
		}
		return counter(a.counter)
	case "device.cert.state":
		return text(string(d.Cert.State))
	case "device.cert.not_before":
		return types.Int(d.Cert.NotBefore), d.Cert.Known
	case "device.cert.not_after":
		return types.Int(d.Cert.NotAfter), d.Cert.Known
	case attributesName:
		return d.Attributes, true // a nil map is an empty one
	}
	if a.facts == nil || a.terms == nil {
		return nil, false
	}
	return a.resolveDecision(name)
}

func (a *activation) resolveDecision(name string) (any, bool) {
	f, t := a.facts, a.terms
	switch name {
	case "now":
		return types.Int(f.Now), true
	case "release.id":
		return text(string(t.Manifest.Release))
	case "release.version":
		return text(t.Manifest.Version)
	case "release.type":
		return text(string(t.Manifest.ReleaseType))
	case "release.security_counter":
		return releaseCounter(t.Publication)
	case "campaign.id":
		return text(string(f.Campaign.ID))
	case "campaign.approvals":
		return types.Int(f.Campaign.Approvals), true
	case "campaign.mandatory":
		return types.Bool(t.Plan.Mandatory), true
	case "update.attempts":
		return types.Int(f.Update.Attempts), true
	case "update.rollback":
		return types.Bool(f.Update.Rollback), true
	case "stage.index":
		return types.Int(f.Stage.Index), true
	}
	return nil, false
}

// text is a string value; an empty one is absent.
func text(s string) (any, bool) { return types.String(s), s != "" }

// counter is a counter value. CEL's integers are signed; a counter beyond
// them cannot be compared, so it is absent.
func counter(n uint64) (any, bool) {
	if n > math.MaxInt64 {
		return nil, false
	}
	return types.Int(n), true
}

// releaseCounter is the counter of the release's main image, or its only one.
func releaseCounter(p *fw.Publication) (any, bool) {
	for i := range p.Images {
		if p.Images[i].Component == fw.MainComponent || len(p.Images) == 1 {
			return counter(p.Images[i].SecurityCounter)
		}
	}
	return nil, false
}
