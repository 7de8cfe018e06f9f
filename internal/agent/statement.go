package agent

import (
	"context"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// checkStatement gets the release statement and checks that it is signed as
// the trust bundle demands and says of the authorized images what the
// authorization says. Without a demand a release may come without one.
func (a *Agent) checkStatement(ctx context.Context, auth *authz.Authorization) error {
	need := a.trust.Document().Statement
	list := a.state.Update.Artifacts
	i := slices.IndexFunc(list, func(x authz.Artifact) bool { return x.Kind == authz.ArtifactStatement })
	if i < 0 {
		if need == "" {
			return nil
		}
		return unstated("the trust bundle demands a release statement and there is none")
	}
	if need == "" {
		need = statement.NeedClassical
	}
	// Nothing authorizes the statement's digest, and nothing has to: it
	// carries signatures of its own.
	b, err := a.fetch(ctx, list[i].Path, statement.MaxSize)
	if err != nil {
		return err
	}
	signed, err := statement.Open(b)
	if err != nil {
		return unstated(err.Error())
	}
	if err := signed.Verify(a.trust.StatementKeys(a.deviceState().Now), need); err != nil {
		return unstated(err.Error())
	}
	if what := disagrees(&signed.Statement, &auth.Claims, a.cfg.Hardware); what != "" {
		return unstated("the release statement is about another " + what)
	}
	return nil
}

// disagrees names what the statement and the claims say differently, or "".
func disagrees(s *statement.Statement, c *authz.Claims, hardware fw.HardwareID) string {
	switch {
	case s.Predicate.Manifest != c.Manifest:
		return "manifest"
	case !slices.Contains(s.Predicate.Hardware, hardware):
		return "hardware"
	}
	for _, p := range c.Components {
		said, digest, ok := s.Image(p.Name)
		switch {
		case !ok:
			return "component"
		case s.Predicate.Release != p.Release:
			return "release"
		case digest != p.Digest || said.Size != p.Size || said.Envelope != p.Envelope:
			return "image"
		case said.Version != p.Version || said.Format != p.Format || said.SecurityCounter != p.SecurityCounter:
			return "version"
		}
	}
	return ""
}

func unstated(detail string) error {
	return &fault{event: fw.EventRejected, reason: fw.RejectStatement, detail: oneLine(detail)}
}
