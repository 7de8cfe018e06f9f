package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/fw"
)

// app is one run of the command.
type app struct {
	in       io.Reader
	out, err io.Writer

	server, tokenFile, ca, profile string
	format                         format
	lines                          bool // JSON documents, one per line

	ran  bool   // the arguments were understood
	path string // of the command, for error messages
}

// Main runs the command line args and returns the exit code. Extra are
// commands that other packages bring.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, extra ...*cobra.Command) int {
	out := &results{w: stdout}
	a := &app{in: stdin, out: out, err: stderr, format: formatText, path: "writ", profile: defaultProfile}
	root := a.root() //nolint:contextcheck // commands get theirs when they run
	for _, c := range extra {
		a.adopt(c)
		root.AddCommand(c)
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	// Errors of flags come before -o is known.
	for i, s := range args {
		if s == "-ojson" || s == "-o=json" || s == "--output=json" || (s == "-o" || s == "--output") && i+1 < len(args) && args[i+1] == "json" {
			a.format = formatJSON
		}
	}
	cmd, err := root.ExecuteContextC(ctx)
	if cmd != nil {
		a.path = cmd.CommandPath()
	}
	if err == nil && out.err != nil {
		a.ran = true
		err = fw.Wrap(fw.Internal, out.err, "the result could not be written")
	}
	return int(a.fail(err))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "writ",
		Short: "Decide, enforce and prove which device may install which firmware",
		Long: `writ decides which device may install which firmware, enforces it, and can
prove it later. One binary is the server and its command line.

A first server, in three commands:

  export WRIT_PASSPHRASE_FILE=./passphrase   # encrypts the keys of this host
  writ serve --data ./writ-data              # prints a token and a fingerprint
  writ login https://localhost:8443 --ca-fingerprint FINGERPRINT

Then, from firmware to devices:

  writ product create      what is sold
  writ device register     the serial list
  writ release create      a version, from an image
  writ approve release     somebody else signs that it may go out
  writ release publish     it is signed with the product's key
  writ campaign create     who gets it, in which stages
  writ approve campaign    somebody else signs the plan
  writ campaign start      and writ campaign watch
  writ bundle export       the proof of all of it, for writ verify

To see all of that happen on this machine first: writ demo`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: groupRun,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", "", "address of the server, https://HOST:PORT (or "+serverEnv+")")
	f.StringVar(&a.tokenFile, "token-file", "", "file that holds the API token, - for stdin (or the token in "+tokenEnv+")")
	f.StringVar(&a.ca, "ca", "", "PEM file of the CA that issued the server's certificate (or "+caEnv+")")
	f.StringVar(&a.profile, "profile", defaultProfile, "which stored login to use")
	f.VarP(&a.format, "output", "o", "how results are printed")
	a.complete(root, "output", "text", "json")
	root.AddGroup(
		&cobra.Group{ID: groupServer, Title: "Servers and people:"},
		&cobra.Group{ID: groupWork, Title: "Firmware, devices, campaigns:"},
		&cobra.Group{ID: groupProof, Title: "Proof:"},
		&cobra.Group{ID: groupTry, Title: "Try and measure:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupServer, a.serveCmd(), a.loginCmd(), a.logoutCmd(), a.whoamiCmd(), a.statusCmd(), a.operatorCmd(), a.tokenCmd(), a.approverCmd(), a.keyCmd(), a.versionCmd())
	add(groupWork, a.productCmd(), a.deviceCmd(), a.releaseCmd(), a.policyCmd(), a.campaignCmd(), a.approveCmd())
	add(groupProof, a.logCmd(), a.bundleCmd(), a.verifyCmd(), a.imageCmd())
	root.AddCommand(a.agentCmd(), &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes})
	return root
}

// The groups of commands in the help.
const (
	groupServer = "server"
	groupWork   = "work"
	groupProof  = "proof"
	groupTry    = "try"
)

// adopt makes a command from another package obey this one's rules: its errors
// are not usage errors once it runs.
func (a *app) adopt(c *cobra.Command) {
	c.GroupID = groupTry
	a.adoptRun(c)
}

func (a *app) adoptRun(c *cobra.Command) {
	if c.RunE != nil {
		c.RunE = a.run(c.RunE)
	}
	for _, sub := range c.Commands() {
		a.adoptRun(sub)
	}
}

type runFunc = func(cmd *cobra.Command, args []string) error

// run marks that the command line was understood, so that later errors are
// about the work.
func (a *app) run(f runFunc) runFunc {
	return func(cmd *cobra.Command, args []string) error {
		a.ran = true
		return f(cmd, args)
	}
}

// group returns a command that only holds others.
func group(use, short, long string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: groupRun}
	g.AddCommand(cmds...)
	return g
}

func groupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	msg := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return fw.Errorf(fw.Invalid, "%s", msg)
}

// exactly wants as many arguments as it has names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fw.Errorf(fw.Invalid, "%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return fw.Errorf(fw.Invalid, "%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// need marks flags that must be given.
func need(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // a flag that is not there
		}
	}
}

// complete offers values of a flag to the shell.
func (a *app) complete(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // a flag that is not there, or twice
	}
}

// names turns closed string values into completions.
func names[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// examples indents the lines of an example as cobra prints them.
func examples(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }

// dash is s, or a dash for none.
func dash(s string) string { return cmp.Or(s, "-") }
