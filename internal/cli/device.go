package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

func (a *app) deviceCmd() *cobra.Command {
	return group("device", "Units, their identities and their life", "",
		a.deviceRegisterCmd(), a.deviceListCmd(), a.deviceShowCmd(), a.deviceTokenCmd(), a.deviceAttributesCmd(), a.deviceTimelineCmd(),
		a.moveCmd("claim", fw.DeviceClaimed, "Take a device into possession, or hand it to its next owner"),
		a.moveCmd("suspend", fw.DeviceSuspended, "Hold a device: no updates"),
		a.moveCmd("resume", fw.DeviceActive, "End a hold"),
		a.moveCmd("quarantine", fw.DeviceQuarantined, "Doubt a device: remediation releases only, until two people say otherwise"),
		a.deviceReleaseCmd(),
		a.moveCmd("revoke", fw.DeviceRevoked, "Take all trust from a device, for ever"),
		a.moveCmd("decommission", fw.DeviceDecommissioned, "Retire a device, for ever"),
	)
}

// registerBatch is how many lines one request carries.
const registerBatch = 500

// lineProblem is a line of a serial list that was not registered.
type lineProblem struct {
	Line    int         `json:"line"`
	ID      fw.DeviceID `json:"id"`
	Outcome string      `json:"outcome"`
	Detail  string      `json:"detail,omitempty"`
}

// registration is what became of a serial list.
type registration struct {
	Registered int           `json:"registered"`
	Exists     int           `json:"exists"`
	Failed     []lineProblem `json:"failed"`
}

func (a *app) deviceRegisterCmd() *cobra.Command {
	var product, hardware string
	cmd := &cobra.Command{
		Use: "register FILE", Short: "Register devices from a serial list", Args: exactly("FILE"),
		Long: `Register devices from a serial list, - for stdin: CSV whose first line names the
columns (id, hardware, and any attributes), or JSON (an array, or one object per
line, with id, hardware, attributes). Lines that cannot be registered do not stop
the others; they are listed, and the exit code is 1. The same list again is no
error: what is there already counts as such.`,
		Example: examples("writ device register serials.csv --product thermostat --hardware rev-a", "printf 'id\\nSN-0001\\n' | writ device register - --product thermostat --hardware rev-a"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			in := a.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return openError(err, args[0])
				}
				defer f.Close()
				in = f
			}
			list, err := readDevices(in, fw.HardwareID(hardware))
			if err != nil {
				return err
			}
			res, err := a.register(ctx, c, fw.ProductID(product), list)
			if err != nil {
				return err
			}
			if err := a.show(res, func(w io.Writer) {
				putf(w, "registered %d, there already %d, failed %d\n", res.Registered, res.Exists, len(res.Failed))
				for _, p := range res.Failed {
					putf(w, "line %d: %s: %s: %s\n", p.Line, dash(oneLine(string(p.ID))), p.Outcome, oneLine(p.Detail))
				}
			}); err != nil {
				return err
			}
			if len(res.Failed) > 0 {
				return exitError(ExitFailed)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&product, "product", "", "what they are")
	cmd.Flags().StringVar(&hardware, "hardware", "", "hardware of lines that name none")
	need(cmd, "product")
	return cmd
}

func (a *app) register(ctx context.Context, c *client.Client, product fw.ProductID, list []listed) (registration, error) {
	res := registration{Failed: []lineProblem{}}
	b := a.newBar("registering", int64(len(list)), countUnit("devices"))
	defer b.end()
	for start := 0; start < len(list); start += registerBatch {
		part := list[start:min(start+registerBatch, len(list))]
		r := apitypes.Registration{Product: product, Devices: make([]apitypes.NewDevice, len(part))}
		for i, d := range part {
			r.Devices[i] = apitypes.NewDevice{ID: d.id, Hardware: d.hardware, Attributes: d.attributes}
		}
		out, err := c.Devices().Register(ctx, r)
		if err == nil && len(out) != len(part) {
			err = fw.Errorf(fw.Internal, "the server answered for %d lines of %d: is it a writ server of this version?", len(out), len(part))
		}
		if err != nil {
			if start > 0 {
				a.say("lines before %s were registered; the same command goes on from there", part[0])
			}
			return res, err
		}
		for i, o := range out {
			switch o.Outcome {
			case "registered":
				res.Registered++
			case "exists":
				res.Exists++
			default:
				res.Failed = append(res.Failed, lineProblem{part[i].line, part[i].id, o.Outcome, o.Detail})
			}
		}
		b.set(int64(start + len(part)))
	}
	return res, nil
}

func (a *app) deviceListCmd() *cobra.Command {
	var product, state string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List devices", Args: exactly(),
		Example: examples("writ device list --product thermostat --state quarantined", "writ device list --limit 0 -o json | jq -r '.[].id'"),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			f := client.DeviceFilter{Product: fw.ProductID(product), State: fw.DeviceState(state)}
			all, err := pages(limit, func(n int) (l []apitypes.Device, err error) {
				f.Limit = n
				if l, err = c.Devices().List(ctx, f); len(l) > 0 {
					f.After = l[len(l)-1].ID
				}
				return l, err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) {
				table(w, "DEVICE PRODUCT HARDWARE STATE VERSION", rowsOf(all, func(d apitypes.Device) []string {
					return []string{string(d.ID), string(d.Product), string(d.Hardware), string(d.State), versions(d.Components)}
				}))
				a.more(limit, len(all))
			})
		}),
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product's")
	cmd.Flags().StringVar(&state, "state", "", "only those in this state")
	limitFlag(cmd, &limit)
	a.complete(cmd, "state", names(fw.DeviceStates)...)
	return cmd
}

// pageSize is how much of a list one request asks for.
const pageSize = 1000

// pages gathers up to limit items, 0 for all, from list, which returns the
// next n.
func pages[T any](limit int, list func(n int) ([]T, error)) ([]T, error) {
	all := []T{}
	for limit == 0 || len(all) < limit {
		n := pageSize
		if limit > 0 {
			n = min(n, limit-len(all))
		}
		l, err := list(n)
		if err != nil {
			return nil, err
		}
		all = append(all, l...)
		if len(l) < n {
			break
		}
	}
	return all, nil
}

func limitFlag(cmd *cobra.Command, limit *int) {
	cmd.Flags().IntVar(limit, "limit", 100, "how many at most; 0 for all")
}

// more says that a list was cut at its limit.
func (a *app) more(limit, n int) {
	if limit > 0 && n == limit {
		a.say("the first %d; --limit 0 lists all", limit)
	}
}

func versions(list []apitypes.Component) string {
	out := make([]string, len(list))
	for i, c := range list {
		if out[i] = c.Version; c.Name != fw.MainComponent {
			out[i] = string(c.Name) + "=" + c.Version
		}
	}
	return strings.Join(out, ", ")
}

func (a *app) deviceShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a device with its certificates and updates", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			d, err := c.Devices().Get(ctx, fw.DeviceID(args[0]))
			if err != nil {
				return err
			}
			return a.showDevice(d)
		}),
	}
}

func (a *app) showDevice(d apitypes.Device) error {
	return a.show(d, func(w io.Writer) {
		pairs := []string{
			"device", string(d.ID), "product", string(d.Product), "hardware", string(d.Hardware), "state", string(d.State),
			"since", unix(d.StateAt), "because", d.StateReason, "last seen", unix(d.LastSeen), "opted out", yes(d.OptedOut),
		}
		for _, k := range sortedKeys(d.Attributes) {
			pairs = append(pairs, "attribute "+k, d.Attributes[k])
		}
		for _, c := range d.Components {
			pairs = append(pairs, "component "+string(c.Name), fmt.Sprintf("%s counter %d %s (%s)", c.Version, c.SecurityCounter, c.Digest, c.Assurance))
		}
		for _, c := range d.Certificates {
			pairs = append(pairs, "certificate "+c.Serial, fmt.Sprintf("%s, %s, until %s", c.State, c.Status, unix(c.NotAfter)))
		}
		fields(w, pairs...)
		if len(d.Updates) > 0 {
			putln(w)
			updatesTable(w, d.Updates)
		}
	})
}

func updatesTable(w io.Writer, list []apitypes.Update) {
	table(w, "DEVICE CAMPAIGN STATE STAGE ATTEMPTS FAILURES REASON AT", rowsOf(list, func(u apitypes.Update) []string {
		return []string{string(u.Device), string(u.Campaign), string(u.State), strconv.Itoa(u.Stage), count(u.Attempts), count(u.Failures), string(u.Reason), unix(u.UpdatedAt)}
	}))
}

func (a *app) deviceTokenCmd() *cobra.Command {
	ttl := life(24 * time.Hour)
	var reopen bool
	cmd := &cobra.Command{
		Use: "token ID", Short: "Make a one-time enrolment token; its secret is printed once", Args: exactly("ID"),
		Long: `Make a one-time token with which the device gets its certificate. The secret goes
to stdout; earlier tokens of the device stop working. --reopen is for a device
that has enrolled before and lost its key or let its certificate expire.`,
		Example: examples("writ-agent enroll --device SN-0001 --token $(writ device token SN-0001) …"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.Devices().Token(ctx, fw.DeviceID(args[0]), apitypes.TokenRequest{TTLSeconds: ttl.seconds(), Reopen: reopen})
			if err != nil {
				return err
			}
			a.say("enrolment token of %s, until %s. It is shown this once and works once:", t.Device, unix(t.ExpiresAt))
			return a.show(t, func(w io.Writer) { putln(w, t.Secret) })
		}),
	}
	cmd.Flags().Var(&ttl, "ttl", "how long it works, e.g. 7d")
	cmd.Flags().BoolVar(&reopen, "reopen", false, "for a device that has enrolled before")
	return cmd
}
