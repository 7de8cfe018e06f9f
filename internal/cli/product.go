package cli

import (
	"cmp"
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

func (a *app) productCmd() *cobra.Command {
	var p apitypes.Product
	var hardware []string
	var key, support string
	var rule apitypes.ProvenanceRule
	var ruleKeys []string
	create := &cobra.Command{
		Use: "create ID", Short: "Add a product", Args: exactly("ID"),
		Long: `Add what is sold. Products do not change afterwards: list every hardware variant,
and choose how many approvers a release needs.`,
		Example: examples("writ product create thermostat --name 'Room thermostat' --hardware rev-a --hardware rev-b --quorum 2"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			p.ID, p.Name, p.ImageKey = fw.ProductID(args[0]), cmp.Or(p.Name, args[0]), fw.KeyName(key)
			for _, h := range hardware {
				p.Hardware = append(p.Hardware, fw.HardwareID(h))
			}
			var err error
			if p.SupportUntil, err = parseTime("support-until", support); err != nil {
				return err
			}
			for _, file := range ruleKeys {
				b, err := readSmall(file)
				if err != nil {
					return err
				}
				rule.Keys = append(rule.Keys, string(b))
			}
			if rule.Builder != "" || rule.Source != "" || rule.Keys != nil {
				p.Provenance = &rule
			}
			got, err := c.Products().Create(ctx, p)
			if err != nil {
				return err
			}
			a.say("next: writ device register FILE --product %s", got.ID)
			return a.show(got, func(w io.Writer) { putf(w, "added product %s\n", got.ID) })
		}),
	}
	f := create.Flags()
	f.StringVar(&p.Name, "name", "", "its name for people (default ID)")
	f.StringSliceVar(&hardware, "hardware", nil, "compatibility id of a variant, board and revision (repeat)")
	f.StringVar(&key, "image-key", "image", "signing key of its images")
	f.IntVar(&p.Quorum, "quorum", 1, "approvers a release needs")
	f.IntVar(&p.RetentionYears, "retention-years", 0, "how long evidence about its devices is kept (default 10)")
	f.StringVar(&support, "support-until", "", "end of the support period, YYYY-MM-DD")
	f.StringVar(&rule.Builder, "provenance-builder", "", "releases need build provenance by this builder id")
	f.StringVar(&rule.Source, "provenance-source", "", "and from this source, a URI without revision")
	f.StringArrayVar(&ruleKeys, "provenance-key", nil, "and signed by this key, a PEM file (repeat)")
	need(create, "hardware")
	list := &cobra.Command{
		Use: "list", Short: "List the products", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Products().List(ctx)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "PRODUCT NAME HARDWARE KEY QUORUM SUPPORT-UNTIL", rowsOf(l, func(p apitypes.Product) []string {
					return []string{string(p.ID), p.Name, joined(p.Hardware), string(p.ImageKey), count(p.Quorum), unix(p.SupportUntil)}
				}))
			})
		}),
	}
	show := &cobra.Command{
		Use: "show ID", Short: "Show a product", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Products().Get(ctx, fw.ProductID(args[0]))
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) {
				fields(w, "product", string(p.ID), "name", p.Name, "hardware", joined(p.Hardware), "image key", string(p.ImageKey),
					"quorum", count(p.Quorum), "retention years", count(p.RetentionYears), "support until", unix(p.SupportUntil), "created", unix(p.CreatedAt))
			})
		}),
	}
	return group("product", "What is sold", "", create, list, show)
}

func (a *app) policyCmd() *cobra.Command {
	add := &cobra.Command{
		Use: "add FILE", Short: "Store a policy for plans to name", Args: exactly("FILE"),
		Long: `Store a policy: conditions in CEL that narrow what a campaign may do. The file's
exact bytes are kept, and their digest is the policy's name.

  {"type": "writ-policy/v1", "name": "lab hours", "conditions": [
    {"name": "has power", "expr": "device.attributes.power == 'mains'"}]}`,
		Example: examples("writ policy add power.json", "writ campaign create --policy sha256:… …"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			p, err := c.Policies().Add(ctx, b)
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { putf(w, "stored policy %q, %s\n", oneLine(p.Name), p.Digest) })
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "List the policies", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Policies().List(ctx)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "POLICY NAME SINCE", rowsOf(l, func(p apitypes.Policy) []string { return []string{p.Digest.String(), p.Name, unix(p.CreatedAt)} }))
			})
		}),
	}
	show := &cobra.Command{
		Use: "show DIGEST", Short: "Print a policy", Args: exactly("DIGEST"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			d, err := fw.ParseDigest(args[0])
			if err != nil {
				return err
			}
			p, err := c.Policies().Get(ctx, d)
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { putf(w, "%s\n", p.Document) })
		}),
	}
	return group("policy", "Conditions that narrow what campaigns may do", "", add, list, show)
}
