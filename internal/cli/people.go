package cli

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

func (a *app) operatorCmd() *cobra.Command {
	var name string
	add := &cobra.Command{
		Use: "add PERSON", Short: "Add a person", Args: exactly("PERSON"),
		Long: `Add a person. A person is who somebody is, whatever tokens and keys they have:
that two people are needed is decided on it. Give them a token with
writ token create, and let approvers bring their SSH key (writ approver add).`,
		Example: examples("writ operator add erin --name 'Erin Example'"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Operators().AddPerson(ctx, apitypes.Person{ID: fw.PersonID(args[0]), Name: cmp.Or(name, args[0])})
			if err != nil {
				return err
			}
			a.say("next: writ token create --person %s --role ROLE --name WHAT-FOR", p.ID)
			return a.show(p, func(w io.Writer) { putf(w, "added %s\n", p.ID) })
		}),
	}
	add.Flags().StringVar(&name, "name", "", "the person's name (default PERSON)")
	list := &cobra.Command{
		Use: "list", Short: "List the people", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Operators().People(ctx)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "PERSON NAME SINCE DISABLED", rowsOf(l, func(p apitypes.Person) []string {
					return []string{string(p.ID), p.Name, unix(p.CreatedAt), yes(p.Disabled)}
				}))
			})
		}),
	}
	disable := &cobra.Command{
		Use: "disable PERSON", Short: "Disable a person and all their tokens, for good", Args: exactly("PERSON"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.Operators().DisablePerson(ctx, fw.PersonID(args[0])); err != nil {
				return err
			}
			return a.show(apitypes.Person{ID: fw.PersonID(args[0]), Disabled: true}, func(w io.Writer) { putf(w, "disabled %s\n", args[0]) })
		}),
	}
	return group("operator", "People who work with this server", "", add, list, disable)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func (a *app) tokenCmd() *cobra.Command {
	var t apitypes.NewToken
	var person string
	var roles []string
	ttl := life(90 * 24 * time.Hour)
	create := &cobra.Command{
		Use: "create --person PERSON --role ROLE", Short: "Make an API token; its secret is printed once", Args: exactly(),
		Long: `Make an API token for a person. The secret goes to stdout and is shown this
once; everything else goes to stderr.

Roles:
  viewer            sees everything but evidence
  device_operator   suspends and resumes devices, sets attributes
  factory           registers devices, makes enrolment tokens
  release_engineer  uploads, proposes, publishes, runs campaigns
  approver          hands in approvals; the SSH signature is what counts
  security_officer  quarantines, revokes, withdraws
  auditor           reads evidence and exports bundles
  admin             people, tokens and keys; never with approver`,
		Example: examples("writ token create --person erin --role release_engineer --name laptop > erin.token"),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			t.Person, t.TTLSeconds = fw.PersonID(person), ttl.seconds()
			for _, r := range roles {
				t.Roles = append(t.Roles, fw.Role(r))
			}
			tok, err := c.Operators().CreateToken(ctx, t)
			if err != nil {
				return err
			}
			a.say("token %s for %s (%s), until %s. It is shown this once:", tok.ID, tok.Person, joined(tok.Roles), unix(tok.ExpiresAt))
			return a.show(tok, func(w io.Writer) { putln(w, tok.Secret) })
		}),
	}
	f := create.Flags()
	f.StringVar(&person, "person", "", "whose token it is")
	f.StringSliceVar(&roles, "role", nil, "what it may do (repeat)")
	f.StringVar(&t.Name, "name", "cli", "what it is for")
	f.Var(&ttl, "ttl", "how long it works, e.g. 90d")
	need(create, "person", "role")
	a.complete(create, "role", names(fw.Roles)...)
	var of string
	list := &cobra.Command{
		Use: "list", Short: "List the tokens, without their secrets", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Operators().Tokens(ctx, fw.PersonID(of))
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "TOKEN PERSON NAME ROLES EXPIRES REVOKED", rowsOf(l, func(t apitypes.Token) []string {
					return []string{t.ID, string(t.Person), t.Name, joined(t.Roles), unix(t.ExpiresAt), unix(t.RevokedAt)}
				}))
			})
		}),
	}
	list.Flags().StringVar(&of, "person", "", "only this person's")
	revoke := &cobra.Command{
		Use: "revoke TOKEN-ID", Short: "Revoke a token for good, one of yours or as an admin any", Args: exactly("TOKEN-ID"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.Operators().RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			return a.show(map[string]string{"id": args[0], "state": "revoked"}, func(w io.Writer) { putf(w, "revoked %s\n", args[0]) })
		}),
	}
	return group("token", "API tokens", "", create, list, revoke)
}

func (a *app) approverCmd() *cobra.Command {
	add := &cobra.Command{
		Use: "add PERSON KEYFILE", Short: "Put a person's SSH public key on the roster", Args: exactly("PERSON", "KEYFILE"),
		Long: `Put a person's SSH public key on the signed roster of approvers. Keys: ed25519,
ecdsa-sha2-nistp256, their hardware forms (ssh-keygen -t ed25519-sk), RSA from
3072 bits. Nobody adds a key for themselves.`,
		Example: examples("writ approver add alice ~alice/.ssh/id_ed25519.pub", "ssh-add -L | grep alice | writ approver add alice -"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := a.readInput(args[1])
			if err != nil {
				return err
			}
			key, err := approval.ParsePublicKey(string(b))
			if err != nil {
				return err
			}
			r, err := c.Operators().AddApprover(ctx, apitypes.NewApprover{Person: fw.PersonID(args[0]), Key: key.String()})
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) {
				putf(w, "added key %s of %s; roster version %d\n", key.Fingerprint(), args[0], r.Version)
			})
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "Show the roster", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			r, err := c.Operators().Roster(ctx)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { rosterText(w, r) })
		}),
	}
	remove := &cobra.Command{
		Use: "remove PERSON", Short: "Take a person off the roster; their approvals no longer count", Args: exactly("PERSON"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Operators().RemoveApprover(ctx, fw.PersonID(args[0]))
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { putf(w, "removed %s; roster version %d\n", args[0], r.Version) })
		}),
	}
	return group("approver", "Who may approve, and with which SSH keys", "", add, list, remove)
}

func rosterText(w io.Writer, r apitypes.Roster) {
	var rows [][]string
	for _, p := range r.Approvers {
		for _, k := range p.Keys {
			shown, kind := k, ""
			if key, err := approval.ParsePublicKey(k); err == nil {
				shown, kind = key.Fingerprint(), key.Type()
			}
			rows = append(rows, []string{string(p.Person), kind, shown})
		}
	}
	table(w, "PERSON TYPE KEY", rows)
}

func (a *app) keyCmd() *cobra.Command {
	var k apitypes.NewKey
	purpose := string(fw.PurposeImage)
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a signing key on the server", Args: exactly("NAME"),
		Long: `Make a signing key on the server. Image keys sign firmware: give the public key
to the bootloader of the product (writ key show NAME > image.pem).`,
		Example: examples("writ key create thermostat --algorithm ed25519"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			k.Name, k.Purpose = fw.KeyName(args[0]), fw.Purpose(purpose)
			key, err := c.Server().CreateKey(ctx, k)
			if err != nil {
				return err
			}
			return a.show(key, func(w io.Writer) {
				putf(w, "made %s key %s (%s), id %s\n", key.Purpose, key.Name, key.Algorithm, key.KeyID)
			})
		}),
	}
	create.Flags().StringVar(&purpose, "purpose", purpose, "what it signs")
	create.Flags().StringVar(&k.Algorithm, "algorithm", "", "ecdsa-p256 or ed25519 (default: the purpose's)")
	a.complete(create, "purpose", string(fw.PurposeImage), string(fw.PurposeAuthorization), string(fw.PurposeLog), string(fw.PurposeDeviceCA), string(fw.PurposeRosterRoot))
	list := &cobra.Command{
		Use: "list", Short: "List the signing keys, public halves", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			l, err := c.Server().Keys(ctx)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				table(w, "NAME PURPOSE ALGORITHM STATE ID", rowsOf(l, func(k apitypes.Key) []string {
					return []string{string(k.Name), string(k.Purpose), k.Algorithm, k.State, k.KeyID}
				}))
			})
		}),
	}
	show := &cobra.Command{
		Use: "show NAME", Short: "Print a public key as PEM", Args: exactly("NAME"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.Server().Keys(ctx)
			if err != nil {
				return err
			}
			for _, k := range l {
				if string(k.Name) == args[0] {
					return a.show(k, func(w io.Writer) { put(w, k.Public) })
				}
			}
			return fw.Errorf(fw.NotFound, "there is no key %s: writ key list has them all", args[0])
		}),
	}
	return group("key", "Signing keys of the server, and what devices are given to believe", "", create, list, show, a.keyCertifyCmd(),
		a.printCmd("trust-bundle", "Print the trust bundle that devices begin with (writ-agent enroll --trust)", client.Server.TrustBundle),
		a.printCmd("ca", "Print the CA's certificate, PEM (writ-agent enroll --ca)", client.Server.CA))
}

// printCmd prints a file that the server publishes, byte for byte.
func (a *app) printCmd(use, short string, get func(client.Server, context.Context) ([]byte, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: exactly(),
		Example: examples("writ key " + use + " > " + use),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			b, err := get(c.Server(), ctx)
			if err == nil {
				_, err = a.out.Write(b)
			}
			return err
		}),
	}
}
