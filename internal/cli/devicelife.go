package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// moveCmd moves a device to one state.
func (a *app) moveCmd(verb string, to fw.DeviceState, short string) *cobra.Command {
	var reason string
	var sure bool
	cmd := &cobra.Command{
		Use: verb + " ID --reason TEXT", Short: short, Args: exactly("ID"),
		Example: examples(fmt.Sprintf("writ device %s SN-0001 --reason 'returned to the lab'", verb)),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if to.Final() && !sure {
				if err := a.confirm(ctx, fmt.Sprintf("%s will be %s for ever. Go on?", args[0], to)); err != nil {
					return err
				}
			}
			d, err := c.Devices().Move(ctx, fw.DeviceID(args[0]), apitypes.Move{To: to, Reason: reason})
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) { putf(w, "%s is %s\n", d.ID, d.State) })
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it goes on record")
	need(cmd, "reason")
	if to.Final() {
		cmd.Long = short + ". This cannot be undone, and the id stays taken."
		cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	}
	return cmd
}

func (a *app) deviceReleaseCmd() *cobra.Command {
	var r apitypes.ReleaseRequest
	var apply bool
	cmd := &cobra.Command{
		Use: "release ID", Short: "Let a device out of quarantine: ask, then, when somebody else approved, --apply", Args: exactly("ID"),
		Long: `Leaving quarantine takes two people, and something that speaks for the device: a
version confirmed since the quarantine began, or evidence that you name.

  1. writ device release ID --reason …    you ask
  2. writ approve device ID               somebody else signs
  3. writ device release ID --apply       it is out`,
		Example: examples("writ device release SN-0001 --reason 'false alarm' --evidence 'lab report 17, flash dump matches'", "writ device release SN-0001 --apply"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			id := fw.DeviceID(args[0])
			if apply {
				d, err := c.Devices().Release(ctx, id)
				if err != nil {
					return err
				}
				return a.show(d, func(w io.Writer) { putf(w, "%s is %s\n", d.ID, d.State) })
			}
			if r.Reason == "" {
				return fw.Errorf(fw.Invalid, "say why with --reason, or --apply an approved request")
			}
			doc, err := c.Devices().RequestRelease(ctx, id, r)
			if err != nil {
				return err
			}
			a.say("next: somebody else runs writ approve device %s, then writ device release %s --apply", id, id)
			return a.show(doc, func(w io.Writer) { putf(w, "asked; the request is %s\n", doc.Digest) })
		}),
	}
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why; it is part of what is signed")
	cmd.Flags().StringVar(&r.Evidence, "evidence", "", "what was examined since the quarantine began")
	cmd.Flags().BoolVar(&apply, "apply", false, "carry out the approved request")
	cmd.MarkFlagsMutuallyExclusive("reason", "apply")
	return cmd
}

func (a *app) deviceAttributesCmd() *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "attributes ID KEY=VALUE…", Short: "Replace what operators say of a device",
		Long: `Replace what operators say of a device. Attributes select cohorts and feed policy
conditions. All of them are given each time; --clear removes them.`,
		Example: examples("writ device attributes SN-0001 site=lab ring=canary"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fw.Errorf(fw.Invalid, "ID is missing")
			}
			return nil
		},
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			attributes := map[string]string{}
			for _, kv := range args[1:] {
				k, v, ok := strings.Cut(kv, "=")
				if _, dup := attributes[k]; !ok || k == "" || dup {
					return fw.Errorf(fw.Invalid, "%q must be KEY=VALUE, each key once", kv)
				}
				attributes[k] = v
			}
			if len(attributes) == 0 != none {
				return fw.Errorf(fw.Invalid, "give KEY=VALUE pairs, or --clear to remove all")
			}
			d, err := c.Devices().SetAttributes(ctx, fw.DeviceID(args[0]), attributes)
			if err != nil {
				return err
			}
			return a.showDevice(d)
		}),
	}
	cmd.Flags().BoolVar(&none, "clear", false, "remove all attributes")
	return cmd
}

func (a *app) deviceTimelineCmd() *cobra.Command {
	var after int64
	var limit int
	cmd := &cobra.Command{
		Use: "timeline ID", Short: "Show what happened to a device, from the evidence log", Args: exactly("ID"),
		Example: examples("writ device timeline SN-0001", "writ device timeline SN-0001 -o json | jq '.[] | select(.type==\"decision\")'"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.Devices().Timeline(ctx, fw.DeviceID(args[0]), after, limit)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) { recordsTable(w, l) })
		}),
	}
	cmd.Flags().Int64Var(&after, "after", 0, "number of the record of this device to begin after")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most, up to 1000")
	return cmd
}

func recordsTable(w io.Writer, list []apitypes.Record) {
	table(w, "RECORD AT TYPE ACTOR", rowsOf(list, func(r apitypes.Record) []string {
		kind := r.Type
		if len(r.Data) == 0 {
			kind += " (erased)"
		}
		return []string{strconv.FormatInt(r.Index, 10), time.UnixMilli(r.MS).UTC().Format("2006-01-02T15:04:05.000Z"), kind, r.Actor}
	}))
}
