package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
)

var releaseTypes = []string{string(fw.ReleaseSecurity), string(fw.ReleaseFunctional), string(fw.ReleaseMixed)}

// draftFlags are what a release is made of on the command line.
type draftFlags struct {
	product, version, kind, mixed, from, format, vendor string
	hardware, images, counters, layouts                 []string
	sbom, provenance, notes, advisory                   string
}

func (d *draftFlags) bind(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.product, "product", "", "the product it is for")
	f.StringVar(&d.version, "version", "", "semantic version; for MCUboot major.minor.patch+build")
	f.StringVar(&d.kind, "type", "", "security, functional or mixed")
	f.StringVar(&d.mixed, "mixed-reason", "", "for mixed: why the changes cannot be separated")
	f.StringSliceVar(&d.hardware, "hardware", nil, "compatible hardware (repeat; default all of the product's)")
	f.StringVar(&d.from, "from", "", "constraint on the installed version, e.g. '>=1.0.0, <2.0.0'")
	f.StringArrayVar(&d.images, "image", nil, "[COMPONENT=]FILE, in install order (repeat)")
	f.StringVar(&d.format, "format", "", "format of the images (default: found by looking)")
	f.StringArrayVar(&d.counters, "security-counter", nil, "[COMPONENT=]N: devices never go below the counter they have seen")
	f.StringVar(&d.vendor, "vendor", "", "bind images of formats with UUIDs to this vendor, a DNS name or UUID, and the hardware")
	f.StringArrayVar(&d.layouts, "layout", nil, "[COMPONENT=]JSON or [COMPONENT=]@FILE: options of the image's format (docs/formats)")
	f.StringVar(&d.sbom, "sbom", "", "SBOM file, JSON")
	f.StringVar(&d.provenance, "provenance", "", "build provenance: SLSA, in-toto, in a DSSE envelope")
	f.StringVar(&d.notes, "notes", "", "file of release notes for users")
	f.StringVar(&d.advisory, "advisory", "", "file that says what is fixed; security releases need one")
	need(cmd, "product", "version", "type", "image")
	a.complete(cmd, "type", releaseTypes...)
	a.complete(cmd, "format", formatNames()...)
}

func (a *app) releaseCmd() *cobra.Command {
	return group("release", "Versions of firmware, from images to signed releases", "",
		a.releaseCreateCmd(), a.releaseListCmd(), a.releaseShowCmd(), a.releasePublishCmd(), a.releaseEditCmd(), a.releaseWithdrawCmd())
}

func (a *app) releaseCreateCmd() *cobra.Command {
	var d draftFlags
	cmd := &cobra.Command{
		Use: "create", Short: "Upload images and propose a release", Args: exactly(),
		Long: `Upload images and propose a release. The images are unsigned builds: they are
signed with the product's key when the approved release is published. If an
upload is interrupted, run the same command again: it goes on where it stopped.`,
		Example: examples(
			"writ release create --product thermostat --version 1.2.0+0 --type security --image zephyr.bin \\",
			"  --security-counter 3 --advisory advisory.md --sbom sbom.cdx.json",
			"writ release create --product gateway --version 2.0.0 --type functional --image radio=radio.bin --image main=rootfs.img",
		),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			draft, err := a.draft(ctx, c, &d)
			if err != nil {
				return err
			}
			r, err := c.Releases().Propose(ctx, draft)
			if err != nil {
				return err
			}
			a.say("next: an approver, not you, runs writ approve release %s; then writ release publish %s", r.ID, r.ID)
			return a.show(r, func(w io.Writer) { putln(w, r.ID) })
		}),
	}
	d.bind(a, cmd)
	return cmd
}

func (a *app) releaseEditCmd() *cobra.Command {
	var d draftFlags
	cmd := &cobra.Command{
		Use: "edit ID", Short: "Replace what is proposed; approvals of the old bytes are void", Args: exactly("ID"),
		Long: `Replace what is proposed, with the flags of writ release create; all of them are
given again. Approvals of the old bytes are void, and you are the proposer.`,
		Example: examples("writ release edit rel_… --product thermostat --version 1.2.1 --type functional --image zephyr.bin"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			draft, err := a.draft(ctx, c, &d)
			if err != nil {
				return err
			}
			r, err := c.Releases().Edit(ctx, fw.ReleaseID(args[0]), draft)
			if err != nil {
				return err
			}
			a.say("next: an approver, not you, runs writ approve release %s", r.ID)
			return a.show(r, func(w io.Writer) { putln(w, r.ID) })
		}),
	}
	d.bind(a, cmd)
	return cmd
}

// draft uploads what the flags name and returns the draft. All files are
// opened before the first byte is sent.
func (a *app) draft(ctx context.Context, c *client.Client, d *draftFlags) (apitypes.Draft, error) {
	out := apitypes.Draft{
		Product: fw.ProductID(d.product), Version: d.version, Type: fw.ReleaseType(d.kind), MixedReason: d.mixed, FromVersion: d.from,
	}
	// Before gigabytes are sent.
	if !slices.Contains(releaseTypes, d.kind) {
		return out, fw.Errorf(fw.Invalid, "--type must be %s, not %q", strings.Join(releaseTypes, ", "), d.kind)
	}
	for _, h := range d.hardware {
		out.Hardware = append(out.Hardware, fw.HardwareID(h))
	}
	counters, err := parseCounters(d.counters)
	if err != nil {
		return out, err
	}
	for _, text := range []struct {
		path string
		to   *string
	}{{d.notes, &out.Notes}, {d.advisory, &out.Advisory}} {
		if text.path == "" {
			continue
		}
		b, err := a.readInput(text.path)
		if err != nil {
			return out, err
		}
		*text.to = string(b)
	}
	files := make([]*os.File, 0, len(d.images)+1)
	defer func() {
		for _, f := range files {
			f.Close() //nolint:gosec // nothing was written
		}
	}()
	open := func(path string) error {
		f, _, err := openFile(path)
		if err == nil {
			files = append(files, f)
		}
		return err
	}
	for _, s := range d.images {
		name, path := componentOf(s)
		if err := open(path); err != nil {
			return out, err
		}
		n, ok := counters[name]
		if !ok && len(d.images) == 1 {
			n, ok = counters[fw.MainComponent] // a number without a name is the only image's
		}
		if ok {
			delete(counters, name)
			delete(counters, fw.MainComponent)
		}
		out.Components = append(out.Components, apitypes.DraftComponent{Name: name, Format: d.format, SecurityCounter: n, Vendor: d.vendor})
	}
	for name := range counters {
		return out, fw.Errorf(fw.Invalid, "--security-counter names component %q, which has no --image", name)
	}
	if err := d.setLayouts(out.Components); err != nil {
		return out, err
	}
	if d.sbom != "" {
		if err := open(d.sbom); err != nil {
			return out, err
		}
	}
	if d.provenance != "" {
		if err := open(d.provenance); err != nil {
			return out, err
		}
	}
	for i, f := range files {
		got, err := a.upload(ctx, c, f)
		if err != nil {
			return out, err
		}
		switch {
		case i < len(out.Components):
			out.Components[i].Input = got.Digest
		case i == len(out.Components) && d.sbom != "":
			out.SBOM = got.Digest
		default:
			out.Provenance = got.Digest
		}
	}
	return out, nil
}

// setLayouts gives the components the layouts that flags name.
func (d *draftFlags) setLayouts(list []apitypes.DraftComponent) error {
	for _, s := range d.layouts {
		name, text := fw.MainComponent, s
		if !strings.HasPrefix(s, "{") && !strings.HasPrefix(s, "@") {
			name, text = componentOf(s)
		} else if len(list) == 1 {
			name = list[0].Name
		}
		i := slices.IndexFunc(list, func(c apitypes.DraftComponent) bool { return c.Name == name })
		if i < 0 {
			return fw.Errorf(fw.Invalid, "--layout names component %q, which has no --image", name)
		}
		b := []byte(text)
		if file, ok := strings.CutPrefix(text, "@"); ok {
			var err error
			if b, err = readSmall(file); err != nil {
				return err
			}
		}
		if !json.Valid(b) {
			return fw.Errorf(fw.Invalid, "the layout of component %q is no JSON", name)
		}
		list[i].Layout = b
	}
	return nil
}

// upload sends one file, from where an earlier run stopped.
func (a *app) upload(ctx context.Context, c *client.Client, f *os.File) (apitypes.Uploaded, error) {
	info, err := f.Stat()
	if err != nil {
		return apitypes.Uploaded{}, openError(err, f.Name())
	}
	b := a.newBar("uploading "+oneLine(info.Name()), info.Size(), bytesUnit)
	up, err := c.Releases().Upload(ctx, f, info.Size(), func(done, _ int64) { b.set(done) })
	b.end()
	if err != nil && ctx.Err() != nil {
		return up, fw.Errorf(fw.Unavailable, "interrupted: run the same command again and the upload of %s goes on where it stopped", f.Name())
	}
	return up, err
}

// componentOf splits [COMPONENT=]FILE.
func componentOf(s string) (fw.ComponentName, string) {
	if name, path, ok := strings.Cut(s, "="); ok && !strings.ContainsAny(name, `/\`) {
		return fw.ComponentName(name), path
	}
	return fw.MainComponent, s
}

func parseCounters(list []string) (map[fw.ComponentName]uint64, error) {
	out := make(map[fw.ComponentName]uint64)
	for _, s := range list {
		name, v := componentOf(s)
		n, err := strconv.ParseUint(v, 10, 64)
		if _, dup := out[name]; err != nil || dup {
			return nil, fw.Errorf(fw.Invalid, "--security-counter must be [COMPONENT=]N, once per component, not %q", s)
		}
		out[name] = n
	}
	return out, nil
}

func (a *app) releaseListCmd() *cobra.Command {
	var product string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List releases, newest first", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			f := client.ReleaseFilter{Product: fw.ProductID(product)}
			l, err := pages(limit, func(n int) (l []apitypes.Release, err error) {
				f.Limit = n
				if l, err = c.Releases().List(ctx, f); len(l) > 0 {
					f.After = l[len(l)-1].ID
				}
				return l, err
			})
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "RELEASE PRODUCT VERSION TYPE STATE PROPOSER CREATED", rowsOf(l, func(r apitypes.Release) []string {
					return []string{string(r.ID), string(r.Product), r.Version, string(r.Type), string(r.State), string(r.Proposer), unix(r.CreatedAt)}
				}))
				a.more(limit, len(l))
			})
		}),
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product's")
	limitFlag(cmd, &limit)
	return cmd
}

func (a *app) releaseShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a release and what is signed of it", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Releases().Get(ctx, fw.ReleaseID(args[0]))
			if err != nil {
				return err
			}
			signing, err := signingRecords(ctx, c, r.ID)
			if err != nil {
				return err
			}
			return a.show(struct {
				apitypes.Release

				Signing []apitypes.Record `json:"signing,omitempty"`
			}{r, signing}, func(w io.Writer) {
				fields(w, "release", string(r.ID), "state", string(r.State), "published", unix(r.PublishedAt), "withdrawn because", r.WithdrawnReason)
				memberText(w, "manifest", r.Manifest)
				memberText(w, "publication", r.Publication)
				for _, rec := range signing {
					memberText(w, rec.Type+", record "+strconv.FormatInt(rec.Index, 10), rec.Data)
				}
			})
		}),
	}
}

// signingRecords are the records of what was signed of a release, with which
// key and on what grounds, and of what was refused.
func signingRecords(ctx context.Context, c *client.Client, id fw.ReleaseID) ([]apitypes.Record, error) {
	var out []apitypes.Record
	for after := int64(0); ; {
		const page = 100
		l, err := c.Releases().Timeline(ctx, id, after, page)
		if err != nil {
			return nil, err
		}
		for _, r := range l {
			switch evidence.Type(r.Type) { //nolint:exhaustive // the others are not about keys
			case evidence.TypeReleaseSigned, evidence.TypeReleaseStated, evidence.TypeSigningRefused:
				out = append(out, r)
			}
		}
		if len(l) < page {
			return out, nil
		}
		after += page
	}
}

// memberText prints a stored document member by member.
func memberText(w io.Writer, what string, b []byte) {
	if len(b) == 0 {
		return
	}
	putf(w, "\n%s:\n", what)
	d, err := readDocument(b)
	if err != nil {
		putf(w, "  %s\n", printable(string(b), ' '))
		return
	}
	d.list(w)
}

func (a *app) releasePublishCmd() *cobra.Command {
	return &cobra.Command{
		Use: "publish ID", Short: "Have an approved release signed, verified and published", Args: exactly("ID"),
		Long: `Have an approved release signed with the product's key, verified by other code
than signed it, and published. After a failure, publish again.`,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Releases().Publish(ctx, fw.ReleaseID(args[0]))
			if err != nil {
				return err
			}
			a.say("next: writ campaign create --release %s --name NAME --stage 'canary count=2 max-failures=0' --stage 'rest percent=100'", r.ID)
			return a.show(r, func(w io.Writer) { putf(w, "published %s %s\n", r.Product, r.Version) })
		}),
	}
}

func (a *app) releaseWithdrawCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "withdraw ID --reason TEXT", Short: "Take a release back: no device is offered it again", Args: exactly("ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Releases().Withdraw(ctx, fw.ReleaseID(args[0]), reason)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { putf(w, "withdrew %s %s\n", r.Product, r.Version) })
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it goes on record")
	need(cmd, "reason")
	return cmd
}
