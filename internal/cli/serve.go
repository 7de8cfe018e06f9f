package cli

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/server"
)

// ready is what --ready-file tells a script.
type ready struct {
	URL         string    `json:"url"`
	CA          string    `json:"ca_pem"`
	Fingerprint fw.Digest `json:"ca_fingerprint"`
	Token       string    `json:"token,omitempty"` // on the first run only
}

func (a *app) serveCmd() *cobra.Command {
	var c config.Config
	var readyFile, logFormat string
	var printLogKey bool
	var level slog.Level
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server: one HTTPS port for devices, operators and auditors.

The first run makes the keys, a CA, and an admin with a token that is printed
once. The keys live on this host, encrypted with the passphrase, which comes
from ` + config.PassphraseEnv + `, from the file that ` + config.PassphraseFileEnv + ` names, or from the
terminal. Whoever has the data folder and the passphrase has the keys.

In production the keys that sign firmware belong into writ-signer, a process of
another user or on another host, which signs what people approved and nothing
else: see writ-signer --help, and --signer.`,
		Example: examples(
			"writ serve --data ./writ-data",
			"writ serve --data /var/lib/writ --listen :8443 --hostname updates.example.org",
			"writ serve --data /var/lib/writ --database postgres://writ@db/writ",
			"writ serve --data /var/lib/writ --print-log-key",
			"writ serve --data /var/lib/writ --signer unix:/run/writ/signer.sock",
		),
		Args: exactly(),
		RunE: a.run(func(cmd *cobra.Command, _ []string) error {
			log, err := a.newLogger(logFormat, level)
			if err != nil {
				return err
			}
			if c.Passphrase, err = a.passphrase(&c); err != nil {
				return err
			}
			if printLogKey {
				key, err := server.LogKey(cmd.Context(), c)
				if err == nil {
					putf(a.out, "%s\n", key)
				}
				return err
			}
			return a.serve(cmd.Context(), c, readyFile, log)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&c.Data, "data", "", "folder of everything the server keeps, on a local disk")
	f.StringVar(&c.Database, "database", "", "sqlite:PATH or postgres://… (default SQLite in the data folder)")
	f.StringVar(&c.Listen, "listen", config.DefaultListen, "HOST:PORT of the HTTPS port; port 0 takes a free one")
	f.StringSliceVar(&c.Hostnames, "hostname", nil, "name or address that clients use, for the certificate (repeat)")
	f.StringVar(&c.Name, "name", config.DefaultName, "name of this server in its log and authorizations; it cannot change later")
	f.DurationVar(&c.Interval, "interval", config.DefaultInterval, "how often an idle device checks in")
	f.DurationVar(&c.Grace, "grace", config.DefaultGrace, "how long after its authorization expired an update without report counts as failed")
	f.DurationVar(&c.CertificateLife, "certificate-life", config.DefaultCertificateLife, "life of device certificates")
	f.DurationVar(&c.RenewBefore, "renew-before", 0, "how long before its end a certificate is renewed (default 720h, at most a third of its life)")
	f.Int64Var(&c.MaxUpload, "max-upload", config.DefaultMaxUpload, "largest file taken, in bytes")
	f.IntVar(&c.ScryptLogN, "scrypt-log-n", 0, "work factor of the passphrase for a new key folder (default 18, about a second)")
	f.StringVar(&c.Signer, "signer", "", "writ-signer that keeps the image keys: unix:PATH or https://HOST:PORT")
	f.StringVar(&c.SignerCA, "signer-ca", "", "PEM file with the CA of the signer's certificate, for https")
	f.StringVar(&c.SignerCert, "signer-cert", "", "PEM file with this server's certificate for the signer")
	f.StringVar(&c.SignerKey, "signer-key", "", "PEM file with the key of --signer-cert")
	f.BoolVar(&printLogKey, "print-log-key", false, "make this server's keys if there are none, print the verifier key of its log, which writ-signer init wants, and end")
	f.StringVar(&readyFile, "ready-file", "", "write address, CA and, on the first run, the token to this file once the port is open (mode 0600)")
	f.StringVar(&logFormat, "log-format", "text", "text or json; the log goes to stderr")
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	need(cmd, "data")
	a.complete(cmd, "log-format", "text", "json")
	a.complete(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

func (a *app) newLogger(format string, level slog.Level) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.err, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, o)), nil
	}
	return nil, fw.Errorf(fw.Invalid, "--log-format must be text or json, not %q", format)
}

// passphrase returns the passphrase from the environment or the terminal; nil
// when there is neither, which Config.Complete explains.
func (a *app) passphrase(c *config.Config) ([]byte, error) {
	pass, err := config.ReadPassphrase()
	if err != nil || pass != nil || !isTerminal(a.in) {
		return pass, err
	}
	if _, err := os.Stat(c.Keys()); errors.Is(err, fs.ErrNotExist) {
		return a.newPassphrase()
	}
	return a.prompt("Passphrase for the keys in " + c.Keys())
}

func (a *app) serve(ctx context.Context, c config.Config, readyFile string, log *slog.Logger) (err error) {
	s, first, err := server.Open(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	cert := s.Authority.CA()
	r := ready{
		URL:         clientURL(s.Addr(), c.Hostnames),
		CA:          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		Fingerprint: pki.Fingerprint(cert),
	}
	if first != nil {
		r.Token = first.Secret.Reveal()
	}
	a.greet(c, r, first)
	if readyFile != "" {
		b, err := json.Marshal(r)
		if err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode the ready file")
		}
		if err := writePrivate(readyFile, append(b, '\n')); err != nil {
			return err
		}
	}
	log.Info("serving", "url", r.URL, "addr", s.Addr(), "version", server.Version)
	if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
}

// clientURL is the address for clients: one that listens on every address is
// found by its first name.
func clientURL(addr string, hostnames []string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "https://" + addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	if len(hostnames) > 0 {
		host = hostnames[0]
	}
	return (&url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}).String()
}

// greet tells the person at the terminal what runs; after a first run, what
// they must keep and do next.
func (a *app) greet(c config.Config, r ready, first *access.Issued) {
	if a.format == formatJSON {
		if first == nil {
			r.Token = ""
		}
		if b, err := json.Marshal(r); err == nil {
			putf(a.out, "%s\n", b)
		}
		return
	}
	if first == nil {
		putf(a.out, "writ serves %s\nCA fingerprint: %s\n", r.URL, r.Fingerprint)
		return
	}
	keys, err := filepath.Abs(c.Keys())
	if err != nil {
		keys = c.Keys()
	}
	what, approver := "THE KEYS LIVE ON THIS HOST", "writ approver add NAME KEY.pub     # who may approve; never who proposes"
	if c.Signer != "" {
		what = "THE KEYS OF FIRMWARE ARE AT THE SIGNER, " + c.Signer + ".\nThe keys of the log, of authorizations and of the device CA are on this host"
		approver = "writ-signer roster add NAME KEY.pub  # at the signer: who may approve"
	}
	putf(a.out, `
================================ FIRST RUN ================================

%s, in %s.
Whoever has that folder and the passphrase can sign as this server. Keep the
passphrase elsewhere. Without it the keys are lost.

The admin token, shown this once. It ends on %s:

  %s

CA fingerprint:

  %s

Next, on any machine:

  writ login %s \
    --ca-fingerprint %s
  %s
  writ operator add NAME
  writ product create --help

The admin cannot approve: approvals are signatures by other people's SSH keys.
===========================================================================

`, what, keys, first.ExpiresAt.UTC().Format("2006-01-02"), r.Token, r.Fingerprint, r.URL, r.Fingerprint, approver)
}
