package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

func (a *app) campaignCmd() *cobra.Command {
	return group("campaign", "Releases on their way to devices, stage by stage", "",
		a.campaignProposeCmd("create", "Propose a campaign"),
		a.campaignProposeCmd("edit ID", "Replace the plan; approvals of the old bytes are void"),
		a.campaignListCmd(), a.campaignShowCmd(), a.campaignWatchCmd(), a.campaignUpdatesCmd(),
		a.campaignStartCmd(), a.stageOpenCmd(),
		a.campaignOperateCmd("pause ID", "Stop new authorizations at once", func(ctx context.Context, s client.Campaigns, id fw.CampaignID, note string) (apitypes.Campaign, error) {
			return s.Pause(ctx, id, note)
		}),
		a.campaignOperateCmd("resume ID", "Continue, acknowledging the failures so far", func(ctx context.Context, s client.Campaigns, id fw.CampaignID, note string) (apitypes.Campaign, error) {
			return s.Resume(ctx, id, note)
		}),
		a.campaignAbortCmd(),
		a.campaignOperateCmd("end-rollback ID", "Declare a rollback done although devices remain", func(ctx context.Context, s client.Campaigns, id fw.CampaignID, note string) (apitypes.Campaign, error) {
			return s.EndRollback(ctx, id, note)
		}),
	)
}

// planFlags are a plan on the command line.
type planFlags struct {
	file                        string
	plan                        fw.Plan
	release, policy, rollback   string
	onFailure, notBefore, until string
	window                      string
	stages                      []string
	backoff, ttl                life
}

func (p *planFlags) bind(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.file, "plan", "", "the whole plan as a JSON file, - for stdin, instead of the flags below")
	f.StringVar(&p.release, "release", "", "the published release to offer")
	f.StringVar(&p.plan.Name, "name", "", "a name for people")
	f.StringArrayVar(&p.stages, "stage", nil, "\"NAME key=value…\", in order (repeat); keys: "+stageKeys)
	f.StringVar(&p.plan.Cohort, "cohort", "true", "which devices, a CEL condition")
	f.StringVar(&p.policy, "policy", "", "digest of the policy that narrows the campaign")
	f.StringVar(&p.onFailure, "on-failure", string(fw.FailurePause), "what a failed gate does: pause or roll_back")
	f.StringVar(&p.rollback, "rollback", "", "the published release that a rollback leads to (default: the device's other slot)")
	f.IntVar(&p.plan.Attempts, "attempts", 1, "authorizations per device")
	p.backoff, p.ttl = 0, life(time.Hour)
	f.Var(&p.backoff, "backoff", "pause before the second attempt; it doubles each time")
	f.Var(&p.ttl, "ttl", "life of one authorization")
	f.IntVar(&p.plan.MaxConcurrent, "max-concurrent", 0, "devices that update at the same time; 0: no limit")
	f.IntVar(&p.plan.RatePerMinute, "rate-per-minute", 0, "new authorizations; 0: no limit")
	f.StringVar(&p.window, "window", "", "when devices may be authorized, UTC, e.g. \"22:00-04:00 mon,tue\"")
	f.StringVar(&p.notBefore, "not-before", "", "scheduled start, a date or a time of RFC 3339")
	f.StringVar(&p.until, "not-after", "", "no authorization after it")
	f.IntVar(&p.plan.Quorum, "quorum", 1, "approvers needed to start")
	f.BoolVar(&p.plan.Mandatory, "mandatory", false, "users cannot postpone it")
	f.BoolVar(&p.plan.Remediation, "remediation", false, "quarantined devices may receive it")
	f.BoolVar(&p.plan.QuarantineFailed, "quarantine-failed", false, "quarantine devices that fail or refuse")
	cmd.MarkFlagsOneRequired("plan", "release")
	cmd.MarkFlagsMutuallyExclusive("plan", "release")
	cmd.MarkFlagsMutuallyExclusive("plan", "stage")
	a.complete(cmd, "on-failure", string(fw.FailurePause), string(fw.FailureRollBack))
}

// read returns the plan that the flags say. What the server fills in stays
// empty.
func (p *planFlags) read(a *app) (fw.Plan, error) {
	if p.file != "" {
		b, err := a.readInput(p.file)
		if err != nil {
			return fw.Plan{}, err
		}
		var plan fw.Plan
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&plan); err != nil {
			return plan, fw.Wrap(fw.Invalid, err, "%s is no plan: see docs/cli.md for its members", p.file)
		}
		if dec.More() {
			return plan, fw.Errorf(fw.Invalid, "%s holds more than one plan", p.file)
		}
		plan.Type = fw.TypePlan
		return plan, nil
	}
	plan := p.plan
	plan.Type, plan.Release, plan.OnFailure = fw.TypePlan, fw.ReleaseID(p.release), fw.FailureAction(p.onFailure)
	plan.BackoffSeconds, plan.AuthorizationTTL = p.backoff.seconds(), p.ttl.seconds()
	if len(p.stages) == 0 {
		return plan, fw.Errorf(fw.Invalid, "at least one --stage is needed, e.g. --stage 'canary count=2 max-failures=0' --stage 'rest percent=100'")
	}
	for _, s := range p.stages {
		stage, err := parseStage(s)
		if err != nil {
			return plan, err
		}
		plan.Stages = append(plan.Stages, stage)
	}
	if p.rollback != "" {
		plan.Rollback = &fw.RollbackTo{Release: fw.ReleaseID(p.rollback)}
	}
	var err error
	if p.policy != "" {
		if plan.Policy, err = fw.ParseDigest(p.policy); err != nil {
			return plan, err
		}
	}
	if plan.Window, err = parseWindow(p.window); err != nil {
		return plan, err
	}
	if plan.NotBefore, err = parseTime("not-before", p.notBefore); err != nil {
		return plan, err
	}
	plan.NotAfter, err = parseTime("not-after", p.until)
	return plan, err
}

// campaignProposeCmd makes "create" and "edit ID", which differ in the id.
func (a *app) campaignProposeCmd(use, short string) *cobra.Command {
	var p planFlags
	edit := use != "create"
	args := exactly()
	if edit {
		args = exactly("ID")
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		Long: short + `. The plan is what approvers sign: the exact terms, from
the cohort to the gates. Stages run one after the other; a stage passes when
enough of its devices confirmed that they run the new version.`,
		Example: examples(
			"writ campaign create --release rel_… --name 'May fixes' \\",
			"  --stage 'canary count=2 max-failures=0 min-confirmed=2 soak=10m' \\",
			"  --stage 'rest percent=100 max-failure-percent=2' --cohort 'device.attributes.site == \"lab\"'",
			"writ campaign create --plan plan.json",
		),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			plan, err := p.read(a)
			if err != nil {
				return err
			}
			var got apitypes.Campaign
			if edit {
				got, err = c.Campaigns().Edit(ctx, fw.CampaignID(args[0]), plan)
			} else {
				got, err = c.Campaigns().Propose(ctx, plan)
			}
			if err != nil {
				return err
			}
			a.say("next: an approver, not you, runs writ approve campaign %s; then writ campaign start %s", got.ID, got.ID)
			return a.show(got, func(w io.Writer) { putln(w, got.ID) })
		}),
	}
	p.bind(a, cmd)
	return cmd
}

func (a *app) campaignListCmd() *cobra.Command {
	var product string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List campaigns, newest first", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			f := client.CampaignFilter{Product: fw.ProductID(product)}
			l, err := pages(limit, func(n int) (l []apitypes.Campaign, err error) {
				f.Limit = n
				if l, err = c.Campaigns().List(ctx, f); len(l) > 0 {
					f.After = l[len(l)-1].ID
				}
				return l, err
			})
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "CAMPAIGN NAME PRODUCT RELEASE STATE STAGE CONFIRMED", rowsOf(l, func(c apitypes.Campaign) []string {
					return []string{string(c.ID), c.Name, string(c.Product), string(c.Release), string(c.State), stageName(c), fmt.Sprintf("%d of %d", confirmed(c), c.CohortSize)}
				}))
				a.more(limit, len(l))
			})
		}),
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product's")
	limitFlag(cmd, &limit)
	return cmd
}

func stageName(c apitypes.Campaign) string {
	if c.Stage < 0 || c.Stage >= len(c.Stages) {
		return ""
	}
	return c.Stages[c.Stage].Name
}

func confirmed(c apitypes.Campaign) int {
	n := 0
	for _, s := range c.Stages {
		n += s.Confirmed
	}
	return n
}

func (a *app) campaignShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a campaign, its stages and its plan", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			got, err := c.Campaigns().Get(ctx, fw.CampaignID(args[0]))
			if err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) {
				fields(w, "campaign", string(got.ID), "name", got.Name, "state", string(got.State), "product", string(got.Product),
					"release", string(got.Release), "devices", count(got.CohortSize), "started", unix(got.StartedAt))
				putln(w)
				stagesTable(w, got)
				memberText(w, "plan", got.Plan)
			})
		}),
	}
}

func stagesTable(w io.Writer, c apitypes.Campaign) {
	var rows [][]string
	for i, s := range c.Stages {
		rows = append(rows, []string{
			strconv.Itoa(i), s.Name, string(s.State), strconv.Itoa(s.Limit), strconv.Itoa(s.Members), strconv.Itoa(s.Open), strconv.Itoa(s.Confirmed),
			strconv.Itoa(s.Failed), strconv.Itoa(s.Rejected), strconv.Itoa(s.RolledBack),
		})
	}
	table(w, "STAGE NAME STATE LIMIT DEVICES OPEN CONFIRMED FAILED REJECTED ROLLED-BACK", rows)
}

func (a *app) campaignUpdatesCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "updates ID", Short: "List a campaign's devices and where each is", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			all := []apitypes.Update{}
			for after := fw.DeviceID(""); ; {
				l, err := c.Campaigns().Updates(ctx, fw.CampaignID(args[0]), after, pageSize)
				if err != nil {
					return err
				}
				all = append(all, l...)
				if len(l) < pageSize {
					break
				}
				after = l[len(l)-1].Device
			}
			return a.show(all, func(w io.Writer) { updatesTable(w, all) })
		}),
	}
	return cmd
}
