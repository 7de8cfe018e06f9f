package signerd

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/custody/backends"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
)

// What the keeper of a signer does at its console. None of it can be asked
// for over the wire, and the journal's lock keeps it from a signer that runs.

// open opens the signer while nobody else has it.
func (c *command) open() (*Service, error) {
	s, err := c.openWith(slog.New(slog.DiscardHandler))
	if fw.KindOf(err) == fw.Conflict {
		return nil, fw.Wrap(fw.Conflict, err, "the signer in %s is running: stop writ-signer serve first, so that nothing is signed in between", c.dir)
	}
	return s, err
}

// openWith opens the signer with the keys in files and the back ends that the
// environment configures.
func (c *command) openWith(log *slog.Logger) (*Service, error) {
	pass, err := passphrase()
	if err != nil {
		return nil, err
	}
	all, err := backends.FromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	s, err := Open(Options{Dir: c.dir, Passphrase: pass, Backends: all, Now: time.Now, Log: log})
	if err != nil {
		return nil, errors.Join(err, backends.Close(all))
	}
	s.backends = all
	return s, nil
}

func (c *command) rosterCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "roster", Short: "Who may approve: the roster that approvals are checked against",
		Long: `Keep the roster of approvers. Stop writ-signer serve first. A server fetches new
rosters from the signer by itself.

add and remove sign the next version with the signer's own root key. Where the
roots are offline, sign the roster with them and bring it with adopt.`,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "add PERSON KEY.pub", Short: "Add an approver's SSH public key", Args: cobra.ExactArgs(2), RunE: c.run(func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[1])
			if err != nil {
				return fw.Wrap(fw.Invalid, err, "cannot read the public key %s", args[1])
			}
			key, err := approval.ParsePublicKey(strings.TrimSpace(string(b)))
			if err != nil {
				return err
			}
			return c.changeRoster(func(d *approval.RosterDocument) error {
				i := slices.IndexFunc(d.Approvers, func(a approval.Approver) bool { return string(a.Person) == args[0] })
				if i < 0 {
					d.Approvers = append(d.Approvers, approval.Approver{Person: fw.PersonID(args[0]), Keys: []string{key.String()}})
					return nil
				}
				d.Approvers[i].Keys = append(slices.Clone(d.Approvers[i].Keys), key.String())
				return nil
			})
		})},
		&cobra.Command{Use: "remove PERSON", Short: "Take an approver and all their keys off the roster", Args: cobra.ExactArgs(1), RunE: c.run(func(_ *cobra.Command, args []string) error {
			return c.changeRoster(func(d *approval.RosterDocument) error {
				n := len(d.Approvers)
				d.Approvers = slices.DeleteFunc(d.Approvers, func(a approval.Approver) bool { return string(a.Person) == args[0] })
				if len(d.Approvers) == n {
					return fw.Errorf(fw.NotFound, "%s is not an approver", args[0])
				}
				return nil
			})
		})},
		&cobra.Command{Use: "adopt FILE", Short: "Take a roster that the root keys signed elsewhere", Args: cobra.ExactArgs(1), RunE: c.run(func(cmd *cobra.Command, args []string) (err error) {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return fw.Wrap(fw.Invalid, err, "cannot read the roster %s", args[0])
			}
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if err := s.adopt(cmd.Context(), b); err != nil {
				return err
			}
			return c.showRoster(s)
		})},
		&cobra.Command{Use: "show", Short: "Show the roster in force", Args: cobra.NoArgs, RunE: c.run(func(*cobra.Command, []string) (err error) {
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			return c.showRoster(s)
		})},
	)
	return cmd
}

func (c *command) showRoster(s *Service) error {
	r, err := s.desk.Roster()
	if err != nil {
		return err
	}
	if r == nil {
		c.say("there is no roster, so nobody can approve: writ-signer roster add PERSON KEY.pub\n")
		return nil
	}
	c.say("roster version %d, %s\n", r.Version(), r.Digest())
	for _, a := range r.Approvers() {
		for _, k := range r.Keys(a.Person) {
			c.say("%-20s %s\n", a.Person, k.Fingerprint())
		}
	}
	return nil
}

// changeRoster signs and adopts the next version. The file is written first: a
// crash in between leaves a version that the next change makes again.
func (c *command) changeRoster(edit func(*approval.RosterDocument) error) (err error) {
	s, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !s.ks.Holds(RootKeyName) || s.setup.Roots.Threshold != 1 {
		return fw.Errorf(fw.Conflict, "the root keys are not here: sign the roster with them, and bring it with writ-signer roster adopt FILE")
	}
	prev, err := s.desk.Roster()
	if err != nil {
		return err
	}
	now := time.Now()
	doc := approval.RosterDocument{Version: 1, CreatedAt: now.Unix()}
	if prev != nil {
		doc.Version, doc.Previous, doc.Approvers = prev.Version()+1, prev.Digest(), prev.Approvers()
	}
	if err := edit(&doc); err != nil {
		return err
	}
	b, err := doc.Encode()
	if err != nil {
		return err
	}
	// The keeper's own decision: there is no record of a server behind it. The
	// subject makes the permit its own.
	p, err := s.signer.Mint(signer.Grant{Purpose: fw.PurposeRosterRoot, Key: RootKeyName, Subject: fw.DigestOf(b), Verdict: signer.VerdictAllow, By: "console"})
	if err != nil {
		return err
	}
	env, err := s.signer.SignRoster(p, b, now)
	if err != nil {
		return err
	}
	next, err := approval.ParseRoster(b)
	if err != nil {
		return err
	}
	if err := os.Remove(s.rosterPath(next.Version())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fw.Wrap(fw.Unavailable, err, "cannot replace the file of an unfinished change")
	}
	if err := s.fileRoster(next, env); err != nil {
		return err
	}
	if err := s.signer.AdoptRoster(env, now); err != nil {
		return err
	}
	return c.showRoster(s)
}

func (c *command) keyCmd() *cobra.Command {
	var purpose, alg string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make another key", Args: cobra.ExactArgs(1),
		RunE: c.run(func(cmd *cobra.Command, args []string) (err error) {
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			p, err := signerPurpose(purpose)
			if err != nil {
				return err
			}
			info, err := s.ks.Create(cmd.Context(), fw.KeyName(args[0]), p, signer.Algorithm(alg), time.Now())
			if err != nil {
				return err
			}
			c.say("made key %s (%s, %s)\n%s", info.Name, info.Purpose, info.Algorithm, info.PublicKey)
			return nil
		}),
	}
	create.Flags().StringVar(&purpose, "purpose", string(fw.PurposeImage), "image or statement")
	create.Flags().StringVar(&alg, "algorithm", "", "algorithm (default by purpose)")
	var attachPurpose string
	attach := &cobra.Command{
		Use: "attach NAME URI", Short: "Use a key that a token keeps", Args: cobra.ExactArgs(2),
		Long: `Use a key that another place keeps, named there by URI; docs/signing.md says how
to set such a place up.`,
		Example: `  WRIT_PKCS11_MODULE=/usr/lib/softhsm/libsofthsm2.so WRIT_PKCS11_PIN_FILE=pin \
    writ-signer key attach image-hsm 'pkcs11:token=fw;object=image-1'`,
		RunE: c.run(func(cmd *cobra.Command, args []string) (err error) {
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			p, err := signerPurpose(attachPurpose)
			if err != nil {
				return err
			}
			info, err := s.ks.Attach(cmd.Context(), fw.KeyName(args[0]), p, args[1], time.Now())
			if err != nil {
				return err
			}
			c.say("key %s (%s, %s) is kept at %s\n%s", info.Name, info.Purpose, info.Algorithm, info.Custody, info.PublicKey)
			return nil
		}),
	}
	attach.Flags().StringVar(&attachPurpose, "purpose", string(fw.PurposeImage), "image or statement")
	retire := &cobra.Command{
		Use: "retire NAME", Short: "End the use of a key for good", Args: cobra.ExactArgs(1),
		RunE: c.run(func(cmd *cobra.Command, args []string) (err error) {
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			return s.ks.Retire(cmd.Context(), fw.KeyName(args[0]))
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "List the keys", Args: cobra.NoArgs,
		RunE: c.run(func(*cobra.Command, []string) (err error) {
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			for _, k := range s.ks.List() {
				c.say("%-16s %-12s %-12s %-8s %s\n", k.Name, k.Purpose, k.Algorithm, k.State, k.KeyID)
			}
			return nil
		}),
	}
	certify := &cobra.Command{
		Use: "certify NAME CHAIN.pem", Short: "Give an image key its certificates, for formats with CMS", Args: cobra.ExactArgs(2),
		RunE: c.run(func(_ *cobra.Command, args []string) (err error) {
			chain, err := readChain(args[1])
			if err != nil {
				return err
			}
			s, err := c.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			return s.ks.SetChain(fw.KeyName(args[0]), chain)
		}),
	}
	cmd := &cobra.Command{Use: "key", Short: "Make, attach, list, certify and retire keys; stop writ-signer serve first"}
	cmd.AddCommand(create, attach, list, certify, retire)
	return cmd
}

// signerPurpose is a purpose that keys are made for here.
func signerPurpose(s string) (fw.Purpose, error) {
	p := fw.Purpose(s)
	if p != fw.PurposeImage && p != fw.PurposeStatement {
		return "", fw.Errorf(fw.Invalid, "a signer makes keys for %s and %s, not %q", fw.PurposeImage, fw.PurposeStatement, s)
	}
	return p, nil
}

// readChain reads certificates in PEM, the key's own first.
func readChain(path string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(path) //nolint:gosec // G304: the operator names it
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the certificates %s", path)
	}
	if len(b) > maxSetup {
		return nil, fw.Errorf(fw.TooLarge, "%s is over the limit of %d bytes", path, maxSetup)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "%s holds something other than certificates", path)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

func (c *command) journalCmd() *cobra.Command {
	return &cobra.Command{
		Use: "journal", Short: "Check the journal and print what was signed and refused", Args: cobra.NoArgs,
		Long: `Check the chain of the signer's journal, docs/formats/keys.md, and print it as
JSON lines without the rosters. It needs no passphrase, and writ-signer serve
may be running.`,
		RunE: c.run(func(*cobra.Command, []string) error {
			path := filepath.Join(c.dir, keysFolder, "journal.jsonl")
			n, head, err := signer.ReadJournal(path, func(e signer.Entry) error {
				e.Roster = nil
				b, err := json.Marshal(e)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.out, "%s\n", b)
				return err
			})
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "%d entries, each follows the one before; the last is %s\n", n, head)
			return nil
		}),
	}
}
