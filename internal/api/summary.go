package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/rollout"
)

// gist is what a summary needs of any payload. Payloads share these names.
type gist struct {
	Decision struct {
		Reasons []fw.Reason `json:"reasons"`
	} `json:"decision"`
	Says        string               `json:"says"`
	From        string               `json:"from"`
	To          string               `json:"to"`
	Reason      string               `json:"reason"`
	Note        string               `json:"note"`
	Person      string               `json:"person"`
	SubjectType string               `json:"subject_type"`
	Serial      string               `json:"serial"`
	What        string               `json:"what"`
	Purpose     string               `json:"purpose"`
	Component   string               `json:"component"`
	Event       rollout.Event        `json:"event"`
	Transitions []rollout.Transition `json:"transitions"`
}

// summary says in a line what a record is about. It is for people; a record
// whose payload says nothing more than its type has none.
func summary(t evidence.Type, data json.RawMessage) string {
	var g gist
	err := json.Unmarshal(data, &g)
	if _, other := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !other {
		return "" // a payload of another form: its data is still there to read
	}
	parts := g.parts(t)
	for _, m := range g.Transitions {
		what := string(m.Kind)
		if m.Kind == rollout.TransitionStage {
			what += " " + strconv.Itoa(m.Stage)
		}
		parts = append(parts, what+": "+move(m.From, m.To, string(m.Reason)))
	}
	return strings.Join(parts, "; ")
}

func (g *gist) parts(t evidence.Type) []string {
	switch t { //nolint:exhaustive // the others say it all in their type
	case evidence.TypeDecision:
		return []string{g.To + because(join(g.Decision.Reasons))}
	case evidence.TypeReport:
		return []string{"device says " + g.Says + because(g.Reason), move(g.From, g.To, g.Note)}
	case evidence.TypeDeviceState, evidence.TypeUpdateMoved:
		return []string{move(g.From, g.To, g.Reason)}
	case evidence.TypeCertificateState, evidence.TypeCertificateIssued:
		return []string{"certificate " + g.Serial + ": " + move(g.From, g.To, g.Reason)}
	case evidence.TypeCampaignEvent:
		return []string{string(g.Event.Kind) + because(g.Event.Note)}
	case evidence.TypeApproval:
		return []string{g.SubjectType + " approved by " + g.Person}
	case evidence.TypeAccessDenied:
		return []string{g.What + " refused" + because(g.Reason)}
	case evidence.TypeReleaseSigned:
		return []string{"component " + g.Component}
	case evidence.TypeReleaseWithdrawn, evidence.TypeIntegrity, evidence.TypeKeyUse, evidence.TypeSigningRefused:
		return []string{strings.TrimPrefix(g.Purpose+": "+g.Reason, ": ")}
	}
	return nil
}

func move(from, to, why string) string {
	switch from {
	case to:
		return cmp.Or(to, "nothing") + " stays" + because(why)
	case "":
		return to + because(why)
	}
	return from + " → " + to + because(why)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func join(reasons []fw.Reason) string {
	s := make([]string, len(reasons))
	for i, r := range reasons {
		s[i] = string(r)
	}
	return strings.Join(s, ", ")
}
