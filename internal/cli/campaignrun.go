package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

func (a *app) showState(c apitypes.Campaign) error {
	return a.show(c, func(w io.Writer) { putf(w, "%s is %s\n", c.ID, c.State) })
}

func (a *app) campaignStartCmd() *cobra.Command {
	return &cobra.Command{
		Use: "start ID", Short: "Start an approved campaign", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			got, err := c.Campaigns().Start(ctx, fw.CampaignID(args[0]))
			if err != nil {
				return err
			}
			a.say("next: writ campaign watch %s", got.ID)
			return a.showState(got)
		}),
	}
}

// campaignOperateCmd is an operator's word to a running campaign.
func (a *app) campaignOperateCmd(use, short string, f func(ctx context.Context, s client.Campaigns, id fw.CampaignID, note string) (apitypes.Campaign, error)) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			got, err := f(ctx, c.Campaigns(), fw.CampaignID(args[0]), note)
			if err != nil {
				return err
			}
			return a.showState(got)
		}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why; it goes on record")
	return cmd
}

func (a *app) campaignAbortCmd() *cobra.Command {
	var keep, revert bool
	var note string
	cmd := &cobra.Command{
		Use: "abort ID --keep|--revert", Short: "End a campaign, keeping or reverting what was updated", Args: exactly("ID"),
		Long: `End a campaign. With --keep, devices that were updated stay so; with --revert they
go back to the plan's rollback release.`,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			o := apitypes.Operation{Mode: apitypes.AbortKeep, Note: note}
			if revert {
				o.Mode = apitypes.AbortRevert
			}
			got, err := c.Campaigns().Abort(ctx, fw.CampaignID(args[0]), o)
			if err != nil {
				return err
			}
			return a.showState(got)
		}),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "updated devices stay updated")
	cmd.Flags().BoolVar(&revert, "revert", false, "updated devices go back")
	cmd.Flags().StringVar(&note, "note", "", "why; it goes on record")
	cmd.MarkFlagsOneRequired("keep", "revert")
	cmd.MarkFlagsMutuallyExclusive("keep", "revert")
	return cmd
}

func (a *app) stageOpenCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stage-open ID STAGE", Short: "Open a stage whose approval is complete", Args: exactly("ID", "STAGE"),
		Long: `Open a stage that the plan holds back until it is approved (approval=yes). Stages
are numbered from 0. Approvers sign with writ approve stage ID --stage N.`,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return fw.Errorf(fw.Invalid, "STAGE is a number from 0, not %q", args[1])
			}
			got, err := c.Campaigns().OpenStage(ctx, fw.CampaignID(args[0]), n)
			if err != nil {
				return err
			}
			return a.showState(got)
		}),
	}
}

func (a *app) campaignWatchCmd() *cobra.Command {
	every := life(time.Second)
	var wait bool
	cmd := &cobra.Command{
		Use: "watch ID", Short: "Follow a campaign until it ends", Args: exactly("ID"),
		Long: `Follow a campaign: one line whenever something changed, and a bar on a terminal.
With -o json each line is the campaign. It ends with 0 when the campaign is
completed, and with 1 when it was aborted, rolled back or paused; with
--through-pauses it stays when the campaign is paused.`,
		Example: examples("writ campaign watch cmp_…", "writ campaign watch cmp_… -o json | jq -c .state"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			return a.watch(ctx, c, watched{fw.CampaignID(args[0]), time.Duration(every), wait})
		}),
	}
	cmd.Flags().Var(&every, "every", "how often to look")
	cmd.Flags().BoolVar(&wait, "through-pauses", false, "stay while the campaign is paused")
	return cmd
}

// watched is what to watch and how.
type watched struct {
	id            fw.CampaignID
	every         time.Duration
	throughPauses bool
}

func (a *app) watch(ctx context.Context, c *client.Client, o watched) error {
	a.lines = true
	b := a.newBar("confirmed", 0, countUnit("devices"))
	defer b.end()
	tick := time.NewTicker(max(o.every, 100*time.Millisecond))
	defer tick.Stop()
	for last := ""; ; {
		got, err := c.Campaigns().Get(ctx, o.id)
		if err != nil {
			return err
		}
		if line := watchLine(got); line != last {
			last = line
			b.clear()
			err := a.show(got, func(w io.Writer) { putf(w, "%s  %s\n", time.Now().Format(time.TimeOnly), line) })
			if err != nil {
				return err
			}
		}
		b.total = int64(got.CohortSize)
		b.set(int64(confirmed(got)))
		switch got.State {
		case fw.CampaignCompleted:
			return nil
		case fw.CampaignAborted, fw.CampaignRolledBack:
			return exitError(ExitFailed)
		case fw.CampaignPaused:
			if !o.throughPauses {
				b.end()
				a.say("paused: look at writ campaign updates %s, then resume or abort it", o.id)
				return exitError(ExitFailed)
			}
		case fw.CampaignDraft, fw.CampaignInReview, fw.CampaignApproved, fw.CampaignScheduled, fw.CampaignRunning, fw.CampaignRollingBack:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// watchLine says where a campaign is; the line changes when something does.
func watchLine(c apitypes.Campaign) string {
	parts := []string{string(c.State)}
	for _, s := range c.Stages {
		words := []string{fmt.Sprintf("%s: %s", oneLine(s.Name), s.State)}
		if s.Members > 0 {
			words[0] += fmt.Sprintf(" %d/%d confirmed", s.Confirmed, s.Limit)
			for _, n := range []struct {
				what string
				n    int
			}{{"open", s.Open}, {"failed", s.Failed}, {"rejected", s.Rejected}, {"rolled back", s.RolledBack}} {
				if n.n > 0 {
					words = append(words, fmt.Sprintf("%d %s", n.n, n.what))
				}
			}
		}
		parts = append(parts, strings.Join(words, ", "))
	}
	return strings.Join(parts, " | ")
}
