package signerd

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/signer"
)

// Exit codes of writ-signer, those of writ.
const (
	ExitOK           = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitNotFound     = 3
	ExitConflict     = 4
	ExitUnauthorized = 5
	ExitUnavailable  = 6
)

const guide = `writ-signer keeps the keys that sign firmware, away from the server that the
internet can reach. It runs as another user, on another host if you can, and
signs an image only when it has seen for itself that

  the manifest of the release was approved by enough people of the roster,
  the roster was signed by the root keys it was set up with,
  the decision to sign is in the server's evidence log,
  the image is byte for byte the approved one, and
  none of that was used for a signature before.

It parses what it signs and signs no digests. A server in the hands of a thief
can ask it for nothing that people have not approved.

Set up, once:

  writ serve --data ./writ-data --print-log-key          # on the server
  writ-signer init --dir /var/lib/writ-signer --log KEY  # here
  writ-signer roster add alice alice.pub                 # who may approve
  writ-signer serve --socket /run/writ/signer.sock --allow-uid UID
  writ serve --data ./writ-data --signer unix:/run/writ/signer.sock

The keys are encrypted with a passphrase from ` + config.PassphraseEnv + ` or from the
file that ` + config.PassphraseFileEnv + ` names.`

// Main runs the command line args and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &command{out: stdout, err: stderr}
	root := &cobra.Command{
		Use: "writ-signer", Short: "Keep the keys that sign firmware, and sign what was approved", Long: guide,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&c.dir, "dir", "/var/lib/writ-signer", "folder of the signer, mode 0700")
	root.AddCommand(c.initCmd(), c.serveCmd(), c.trustLogCmd(), c.rosterCmd(), c.keyCmd(), c.journalCmd())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if !c.ran {
		err = usage(err) // cobra did not understand the arguments
	}
	msg := err.Error()
	if e, ok := errors.AsType[*fw.Error](err); ok {
		msg = e.Error()
	}
	_, _ = fmt.Fprintln(stderr, "writ-signer:", msg) // nobody to tell if it fails
	return exitCode(err)
}

func usage(err error) error { return fw.Errorf(fw.Invalid, "%v", err) }

func exitCode(err error) int {
	switch fw.KindOf(err) {
	case fw.Invalid, fw.TooLarge:
		return ExitUsage
	case fw.NotFound:
		return ExitNotFound
	case fw.Conflict:
		return ExitConflict
	case fw.Unauthenticated, fw.Forbidden:
		return ExitUnauthorized
	case fw.Unavailable, fw.TooMany:
		return ExitUnavailable
	case fw.Corrupt, fw.Internal:
	}
	return ExitFailed
}

// command is one run of writ-signer.
type command struct {
	out, err io.Writer
	dir      string
	ran      bool
}

func (c *command) run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.ran = true
		return f(cmd, args)
	}
}

func (c *command) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, format, args...) // a broken pipe says so by itself
}

func passphrase() ([]byte, error) {
	p, err := config.ReadPassphrase()
	if err == nil && len(p) == 0 {
		err = fw.Errorf(fw.Invalid, "no passphrase for the keys: set %s, or %s to a file that holds it", config.PassphraseEnv, config.PassphraseFileEnv)
	}
	return p, err
}

func (c *command) initCmd() *cobra.Command {
	var log, imageAlg string
	var rootFiles []string
	var threshold, approvals, logN int
	cmd := &cobra.Command{
		Use: "init", Short: "Make a signer's folder and keys", Args: cobra.NoArgs,
		Long: `Make a signer's folder with the keys image, statement and statement-pq.

The roots say who may approve. Without --root a root key is made here, and
rosters are signed with writ-signer roster add. With --root, given for each of
the root keys that were made offline, only their public halves are here, and a
roster needs --threshold signatures of them.

--log is the verifier key of the server's evidence log, which writ serve
--print-log-key prints. Without it nothing is signed before writ-signer
trust-log.`,
		Example: `  writ-signer init --dir /var/lib/writ-signer --log 'writ.local/log+1a2b3c4d+AbC…' --min-approvals 2
  writ-signer init --root a.pub.pem --root b.pub.pem --root c.pub.pem --threshold 2`,
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			pass, err := passphrase()
			if err != nil {
				return err
			}
			set := Setup{Type: typeSetup, Log: log, MinApprovals: approvals, Roots: RootSet{Threshold: threshold}}
			for _, path := range rootFiles {
				der, err := readRoot(path)
				if err != nil {
					return err
				}
				set.Roots.Keys = append(set.Roots.Keys, der)
			}
			if err := c.init(cmd.Context(), &set, pass, signer.Algorithm(imageAlg), logN); err != nil {
				return err
			}
			c.say("made a signer in %s\n\nNext:\n", c.dir)
			if log == "" {
				c.say("  writ-signer trust-log KEY        # from writ serve --print-log-key\n")
			}
			c.say("  writ-signer roster %s\n  writ-signer serve --help\n", map[bool]string{true: "adopt FILE         # signed with the root keys", false: "add NAME KEY.pub   # who may approve"}[len(rootFiles) > 0])
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&log, "log", "", "verifier key of the server's evidence log")
	f.StringArrayVar(&rootFiles, "root", nil, "public key of an offline root, PEM or NAME.pub.json (repeat)")
	f.IntVar(&threshold, "threshold", 1, "how many roots must sign a roster")
	f.IntVar(&approvals, "min-approvals", 1, "smallest number of approvals for a release, whatever its product asks for")
	f.StringVar(&imageAlg, "image-algorithm", "", "algorithm of the image key (default ecdsa-p256)")
	f.IntVar(&logN, "scrypt-log-n", 0, "work factor of the passphrase (default 18, about a second)")
	return cmd
}

// RootKeyName is the signer's own root key, and the others are the names that
// a server without a signer gives to its keys.
const (
	RootKeyName                 fw.KeyName = "root"
	ImageKeyName                fw.KeyName = "image"
	StatementKeyName            fw.KeyName = "statement"
	StatementPostQuantumKeyName fw.KeyName = "statement-pq"
)

// init makes the folder. The setup comes last: without it there is no signer.
func (c *command) init(ctx context.Context, set *Setup, pass []byte, imageAlg signer.Algorithm, logN int) error {
	if _, err := os.Stat(filepath.Join(c.dir, setupFile)); err == nil {
		return fw.Errorf(fw.Conflict, "there is a signer in %s already", c.dir)
	}
	own := len(set.Roots.Keys) == 0
	if !own {
		if err := set.check(); err != nil {
			return err // before anything is made
		}
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot make the folder %s: check its owner and permissions", c.dir)
	}
	ks, err := signer.OpenKeystore(filepath.Join(c.dir, keysFolder), signer.KeystoreOptions{Passphrase: pass, ScryptLogN: logN})
	if err != nil {
		return err
	}
	list := []struct {
		name    fw.KeyName
		purpose fw.Purpose
		alg     signer.Algorithm
	}{
		{ImageKeyName, fw.PurposeImage, imageAlg},
		{StatementKeyName, fw.PurposeStatement, ""},
		{StatementPostQuantumKeyName, fw.PurposeStatement, signer.MLDSA65},
	}
	if own {
		list = append(list, struct {
			name    fw.KeyName
			purpose fw.Purpose
			alg     signer.Algorithm
		}{RootKeyName, fw.PurposeRosterRoot, ""})
	}
	for _, k := range list {
		if _, err := ks.Public(k.name); err == nil {
			continue // an earlier init was cut short, or the keys moved here from a server
		}
		if _, err := ks.Create(ctx, k.name, k.purpose, k.alg, time.Now()); err != nil {
			return err
		}
	}
	if own {
		info, err := ks.Public(RootKeyName)
		if err != nil {
			return err
		}
		pub, err := info.Public()
		if err != nil {
			return err
		}
		der, err := dsse.MarshalPublicKey(pub)
		if err != nil {
			return fw.Wrap(fw.Internal, err, "the root key cannot be encoded")
		}
		set.Roots.Keys = [][]byte{der}
	}
	if err := set.check(); err != nil {
		return err
	}
	return set.write(c.dir)
}

// maxRootFile bounds a root key's file, in bytes.
const maxRootFile = 64 << 10

// readRoot reads the public key of a root: PEM, or the key store's metadata.
func readRoot(path string) ([]byte, error) {
	b, err := os.ReadFile(path) //nolint:gosec // G304: the operator names it
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the root key %s", path)
	}
	if len(b) > maxRootFile {
		return nil, fw.Errorf(fw.TooLarge, "%s is over the limit of %d bytes", path, maxRootFile)
	}
	if info, err := signer.ParseKeyInfo(b); err == nil {
		b = []byte(info.PublicKey)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fw.Errorf(fw.Invalid, "%s holds no public key: give the PEM that begins with PUBLIC KEY, or a NAME.pub.json", path)
	}
	pub, err := dsse.ParsePublicKey(block.Bytes)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "%s holds a malformed public key", path)
	}
	if _, ok := pub.(ed25519.PublicKey); !ok {
		return nil, fw.Errorf(fw.Invalid, "%s is a %T: root keys are Ed25519", path, pub)
	}
	return dsse.MarshalPublicKey(pub)
}

func (c *command) trustLogCmd() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use: "trust-log KEY", Short: "Set whose decisions count: the server's evidence log", Args: cobra.ExactArgs(1),
		Long: `Set the verifier key of the server's evidence log, as writ serve --print-log-key
prints it. A running writ-signer takes it up when it is started again. Another
key than before needs --replace: whoever changes it decides which server may
ask.`,
		RunE: c.run(func(_ *cobra.Command, args []string) error {
			set, err := readSetup(c.dir)
			if err != nil {
				return err
			}
			if _, err := logKey(args[0]); err != nil {
				return err
			}
			if set.Log != "" && set.Log != args[0] && !replace {
				return fw.Errorf(fw.Conflict, "this signer trusts %s: add --replace to trust another log", set.Log)
			}
			set.Log = args[0]
			return set.write(c.dir)
		}),
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "trust this log instead of the one before")
	return cmd
}

func (c *command) serveCmd() *cobra.Command {
	var l Listen
	var uids []uint
	var readyFile string
	var level slog.Level
	cmd := &cobra.Command{
		Use: "serve", Short: "Sign what was approved, for a server", Args: cobra.NoArgs,
		Long: `Take orders from a writ server, on a Unix socket or over TLS.

On a Unix socket the kernel says which user asks; --allow-uid names the users
that may. Run writ-signer as a user of its own: whoever runs as the same user
can read its files. Over TLS 1.3 both sides have certificates: the server's
comes from --client-ca and holds a --client-name.

The passphrase comes from ` + config.PassphraseEnv + ` or the file that
` + config.PassphraseFileEnv + ` names.`,
		Example: `  writ-signer serve --socket /run/writ/signer.sock --allow-uid "$(id -u writ)"
  writ-signer serve --listen :8444 --tls-cert signer.pem --tls-key signer.key --client-ca ca.pem --client-name writ.example.org`,
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
			for _, u := range uids {
				l.UIDs = append(l.UIDs, uint32(u)) //nolint:gosec // G115: a user id has 32 bits; a larger one is some other user, who may not ask
			}
			return c.serve(cmd.Context(), &l, readyFile, log)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&l.Socket, "socket", "", "path of the Unix socket")
	f.UintSliceVar(&uids, "allow-uid", nil, "id of the user that the server runs as (repeat)")
	f.StringVar(&l.Addr, "listen", "", "HOST:PORT for TLS, instead of a socket")
	f.StringVar(&l.Certificate, "tls-cert", "", "PEM file with the signer's certificate chain")
	f.StringVar(&l.Key, "tls-key", "", "PEM file with its private key")
	f.StringVar(&l.ClientCA, "client-ca", "", "PEM file with the CA of the server's certificate")
	f.StringSliceVar(&l.ClientNames, "client-name", nil, "DNS name in the server's certificate (repeat)")
	f.StringVar(&readyFile, "ready-file", "", "write the address to this file once it is open")
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	return cmd
}

func (c *command) serve(ctx context.Context, l *Listen, readyFile string, log *slog.Logger) (err error) {
	if l.Socket != "" && len(l.UIDs) == 0 {
		return fw.Errorf(fw.Invalid, "name the user that the server runs as: --allow-uid UID")
	}
	for _, u := range l.UIDs {
		if int(u) == os.Getuid() {
			log.Warn("the server runs as the same user as this signer, so it could read the keys: give each a user of its own")
		}
	}
	s, err := c.openWith(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.setup.Log == "" {
		log.Warn("nothing is signed before writ-signer trust-log has named the server's evidence log")
	}
	conf, allow, err := l.config(ctx, log)
	if err != nil {
		return err
	}
	conf.Handler = s.Handler(httpd.NewFront(log, time.Now), allow)
	h, err := httpd.New(ctx, conf)
	if err != nil {
		return err
	}
	if readyFile != "" {
		if err := replaceFile(readyFile, []byte(h.Addr()+"\n")); err != nil {
			return errors.Join(err, h.Close())
		}
	}
	go s.run(ctx, log)
	seq, head := s.desk.JournalHead()
	log.Info("signing", "addr", h.Addr(), "log", s.setup.Log, "journal_entries", seq, "journal_head", head)
	return h.Serve(ctx)
}
