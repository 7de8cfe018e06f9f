package cli

import (
	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/agent"
	"github.com/writ-project/writ/verify"
)

// agentCmd is writ-agent inside this binary, so that the demo can start
// devices wherever this binary runs.
func (a *app) agentCmd() *cobra.Command {
	return &cobra.Command{
		Use: "agent", Short: "Be a device (writ-agent)", Hidden: true, DisableFlagParsing: true,
		RunE: a.run(func(cmd *cobra.Command, args []string) error {
			if code := agent.Main(cmd.Context(), args, a.out, a.err); code != 0 {
				return exitError(code)
			}
			return nil
		}),
	}
}

// verifyCmd is writ-verify inside this binary. Auditors should rather build the
// small one themselves.
func (a *app) verifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify [FLAGS] BUNDLE", Short: "Verify an exported bundle offline (writ-verify)", DisableFlagParsing: true,
		RunE: a.run(func(cmd *cobra.Command, args []string) error {
			if code := verify.Main(cmd.Context(), args, a.out, a.err); code != 0 {
				return exitError(code)
			}
			return nil
		}),
	}
}
