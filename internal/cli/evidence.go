package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

func (a *app) logCmd() *cobra.Command {
	checkpoint := &cobra.Command{
		Use: "checkpoint", Short: "Print the newest checkpoint, a signed note", Args: exactly(),
		Long: `Print the newest checkpoint of the evidence log. Keep one outside the operator's
control from time to time: a later bundle must contain it, so nothing before it
can be changed unnoticed.`,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			b, err := c.Evidence().Checkpoint(ctx)
			if err != nil {
				return err
			}
			return a.show(map[string]string{"checkpoint": string(b)}, func(w io.Writer) { put(w, printable(string(b), '\n')) })
		}),
	}
	var from int64
	var limit int
	records := &cobra.Command{
		Use: "records", Short: "List evidence records", Args: exactly(),
		Example: examples("writ log records --from 100 --limit 20", "writ log records -o json | jq '.[].data'"),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Evidence().Records(ctx, from, limit)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) { recordsTable(w, l) })
		}),
	}
	records.Flags().Int64Var(&from, "from", 0, "index of the first one")
	records.Flags().IntVar(&limit, "limit", 100, "how many at most, up to 1000")
	receipt := &cobra.Command{
		Use: "receipt INDEX", Short: "Print a record's receipt: proof that it is in the log", Args: exactly("INDEX"),
		Long: `Print the COSE receipt (RFC 9942) of a record, in base64: proof that it is in the
log. With -o json the record comes with it.`,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || n < 0 {
				return fw.Errorf(fw.Invalid, "INDEX is a number from 0, not %q", args[0])
			}
			r, err := c.Evidence().Record(ctx, n)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { putln(w, base64.StdEncoding.EncodeToString(r.Receipt)) })
		}),
	}
	return group("log", "The evidence log", "", checkpoint, records, receipt, a.logVerifyCmd())
}

func (a *app) logVerifyCmd() *cobra.Command {
	var c config.Config
	cmd := &cobra.Command{
		Use: "verify --data DIR", Short: "Check a whole log where it is stored, on the server's host", Args: exactly(),
		Long: `Hash every stored record again and compare it with the tree, the streams and the
signed checkpoint. It runs on the server's host, on the data folder with its
keys, or on a copy of both. Exit code 0: they agree; 1: they do not.`,
		Example: examples("writ log verify --data ./writ-data", "writ log verify --data ./writ-data --database sqlite:/backup/writ.db"),
		RunE: a.run(func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Passphrase, err = a.passphrase(&c); err != nil {
				return err
			}
			if err := c.Complete(); err != nil {
				return err
			}
			n, err := verifyLog(cmd.Context(), &c)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"verified": true, "records": n}, func(w io.Writer) {
				putf(w, "verified: %d records agree with the tree, the streams and the checkpoint\n", n)
			})
		}),
	}
	cmd.Flags().StringVar(&c.Data, "data", "", "the server's data folder")
	cmd.Flags().StringVar(&c.Database, "database", "", "sqlite:PATH or postgres://… (default SQLite in the data folder)")
	cmd.Flags().StringVar(&c.Name, "name", config.DefaultName, "name of the server, as given to writ serve")
	need(cmd, "data")
	return cmd
}

func verifyLog(ctx context.Context, c *config.Config) (n int64, err error) {
	if _, err := os.Stat(c.Keys()); errors.Is(err, fs.ErrNotExist) {
		return 0, fw.Errorf(fw.NotFound, "%s holds no server: give the folder that writ serve --data was given", c.Data)
	}
	ks, err := signer.OpenKeystore(c.Keys(), signer.KeystoreOptions{Passphrase: c.Passphrase})
	if err != nil {
		return 0, err
	}
	s, err := signer.Open(ks, signer.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	logSigner, err := s.LogSigner(server.LogKeyName, c.Name)
	if err != nil {
		return 0, err
	}
	db, err := store.Open(ctx, store.Options{URL: c.Database})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	l, err := ledger.Open(ctx, db, logSigner)
	if err != nil {
		return 0, err
	}
	return l.Verify(db.Snapshot(ctx))
}

func (a *app) bundleCmd() *cobra.Command {
	var campaign, device string
	export := &cobra.Command{
		Use: "export FILE", Short: "Export the evidence of a campaign or a device", Args: exactly("FILE"),
		Long: `Export the evidence of a campaign or a device into one file that anybody can
verify offline. The file appears only when it is complete.`,
		Example: examples("writ bundle export --campaign cmp_… may.writ-bundle", "writ bundle export --device SN-0001 device.writ-bundle"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := a.export(ctx, c, apitypes.BundleQuery{Campaign: fw.CampaignID(campaign), Device: fw.DeviceID(device)}, args[0])
			if err != nil {
				return err
			}
			a.say("next: writ verify %s", args[0])
			return a.show(map[string]any{"file": args[0], "size": n}, func(w io.Writer) { putf(w, "wrote %s, %s\n", args[0], bytesUnit(n)) })
		}),
	}
	export.Flags().StringVar(&campaign, "campaign", "", "id of a campaign")
	export.Flags().StringVar(&device, "device", "", "id of a device")
	export.MarkFlagsOneRequired("campaign", "device")
	export.MarkFlagsMutuallyExclusive("campaign", "device")
	return group("bundle", "Evidence to take away", "", export)
}

func (a *app) export(ctx context.Context, c *client.Client, q apitypes.BundleQuery, path string) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".writ-bundle-*")
	if err != nil {
		return 0, openError(err, path)
	}
	b := a.newBar("exporting", 0, bytesUnit)
	err = c.Evidence().Bundle(ctx, q, f, func(done int64) {
		size = done
		b.set(done)
	})
	b.end()
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return size, errors.Join(err, os.Remove(f.Name()))
	}
	return size, nil
}
