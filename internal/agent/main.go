package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/fw"
)

// Exit codes of [Main].
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2
	ExitRefused = 3  // install: refused, as always
	ExitRestart = 75 // run: start me again, from the slot active points to
)

const guide = `writ-agent keeps the firmware of one device up to date.

It installs only what its server has authorized for this very device, verifies
every byte, switches between two slots, and goes back by itself when the new
firmware fails its health check. Everything it needs is in one directory.

A device joins once and then runs:

  writ-agent enroll --server https://writ.example --ca ca.pem --trust trust.json \
      --device SN-0001 --hardware gw-2 --token TOKEN --dir /var/lib/writ
  writ-agent run --dir /var/lib/writ

Hooks are shell commands; $1 and $WRIT_IMAGE are the path of the image:

  --install-hook 'dd if="$1" of=/dev/disk/by-partlabel/rootfs-$WRIT_SLOT'
  --activate-hook 'fw_setenv slot $WRIT_SLOT && reboot' --restart reboot
  --health-hook '/usr/bin/self-test'

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 firmware refused, 75 start me
again from the active slot (run --exit-to-restart).`

// Main is the command writ-agent with the given arguments, without the
// program's name, and returns its exit code. Logs go to stderr, one JSON
// object per line.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use: "writ-agent", Short: "Keep the firmware of this device up to date", Long: guide,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().String("dir", "/var/lib/writ", "state directory of the device")
	root.AddCommand(enrollCommand(), runCommand(), installCommand(), statusCommand()) //nolint:contextcheck // cobra hands it to them
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	return exitCode(root.ExecuteContext(ctx), stderr)
}

// usage is a mistake on the command line.
type usage struct{ error }

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, ErrRestart) {
		return ExitRestart
	}
	// A failed write to stderr cannot be told to anybody.
	_, _ = fmt.Fprintln(stderr, "writ-agent:", err)
	if _, ok := errors.AsType[usage](err); ok || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		return ExitUsage
	}
	if errors.Is(err, errRefused) {
		return ExitRefused
	}
	return ExitFailed
}

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

func dirOf(cmd *cobra.Command) string {
	dir, err := cmd.Flags().GetString("dir")
	if err != nil {
		panic(err) // defined in Main
	}
	return dir
}

func enrollCommand() *cobra.Command {
	var e Enrolment
	var ca, trust, root, install, activate, health, poll, backoff string
	var device, hardware, component string
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Make this device's key, get its certificate and write its configuration",
		Long: `Make this device's key, get its certificate with a one-time token, and write
the configuration. After a failure, run it again: the key stays the same. A
device that is enrolled already is left as it is.

Either --trust or --root is needed, from a source you trust: it decides whose
firmware this device will run.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&e.Config.Server, "server", "", "URL of the server, https://…")
	f.StringVar(&ca, "ca", "", "CA of the server's certificate, PEM file")
	f.StringVar(&device, "device", "", "device id")
	f.StringVar(&hardware, "hardware", "", "hardware id")
	f.StringVar(&component, "component", "", `component this device updates (default "main")`)
	f.StringVar(&e.Token, "token", "", "one-time enrolment token")
	f.StringVar(&trust, "trust", "", "trust bundle to begin with, file")
	f.StringVar(&root, "root", "", "instead of --trust: root public keys, PEM file; the server's bundle must name no others")
	f.StringVar(&e.Image, "image", "", "firmware the device has now, file; it must verify")
	f.StringVar(&e.Envelope, "envelope", "", "detached signature of --image, file")
	f.StringVar(&install, "install-hook", "", "command to run when an image was verified in its slot")
	f.StringVar(&activate, "activate-hook", "", "command to run when the active slot was switched")
	f.StringVar(&health, "health-hook", "", "command that decides in the new slot whether it stays")
	f.StringVar(&e.Config.Restart, "restart", "", "how the new slot starts: exec, exit or reboot (default exec)")
	f.StringVar(&poll, "poll", "", "check in this often, e.g. 10s (default: when the server says)")
	f.StringVar(&backoff, "max-backoff", "", "longest wait after failures (default 15m)")
	f.StringToStringVar(&e.Config.Attributes, "attribute", nil, "fact for policies and cohorts, name=value; may be repeated")
	for _, name := range []string{"server", "device", "hardware", "token"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // defined above
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := &e.Config
		c.Device, c.Hardware, c.Component = fw.DeviceID(device), fw.HardwareID(hardware), fw.ComponentName(component)
		c.Hooks = Hooks{Install: shell(install), Activate: shell(activate), Health: shell(health)}
		var pinned []byte
		for _, in := range []struct {
			path string
			to   *[]byte
		}{{ca, &pinned}, {trust, &e.Trust}, {root, &e.Roots}} {
			if in.path == "" {
				continue
			}
			b, err := os.ReadFile(in.path)
			if err != nil {
				return usage{err}
			}
			*in.to = b
		}
		c.ServerCA = string(pinned)
		for _, d := range []struct {
			text string
			to   *Duration
		}{{poll, &c.Poll}, {backoff, &c.MaxBackoff}} {
			if d.text == "" {
				continue
			}
			if err := d.to.UnmarshalText([]byte(d.text)); err != nil {
				return usage{err}
			}
		}
		if err := Enrol(cmd.Context(), dirOf(cmd), e); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "enrolled %s; now: writ-agent run --dir %s\n", device, dirOf(cmd))
		return err
	}
	return cmd
}

// shell makes a hook of a shell command. The image becomes its $1.
func shell(command string) []string {
	if command == "" {
		return nil
	}
	return []string{"/bin/sh", "-c", command, "sh"}
}

func runCommand() *cobra.Command {
	var exit bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Check in, update, confirm and report, until stopped",
		Long: `Check in, update, confirm and report, until stopped with SIGINT or SIGTERM. It
may be killed at any moment and goes on where it was.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&exit, "exit-to-restart", false, "to start the new slot, end with code 75 instead of executing anew")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log := logger(cmd.ErrOrStderr())
		cfg, err := LoadConfig(dirOf(cmd))
		if err != nil {
			return err
		}
		err = Run(cmd.Context(), dirOf(cmd), log)
		if !errors.Is(err, ErrRestart) || exit || cfg.Restart != RestartExec {
			return err
		}
		if failed := reexec(); failed != nil {
			log.ErrorContext(cmd.Context(), "executing anew", "err", failed)
		}
		return err
	}
	return cmd
}

func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE",
		Short: "Try to install firmware by hand: refused and reported",
		Long: `Try to install firmware by hand. It is refused, however well it is signed, and
the attempt is reported to the server: firmware is installed only under an
authorization for this device.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return usage{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return Drop(cmd.Context(), dirOf(cmd), args[0], logger(cmd.ErrOrStderr()))
		},
	}
}

func statusCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs and what is under way",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if format != "text" && format != "json" {
			return usage{fw.Errorf(fw.Invalid, "-o is text or json, not %q", format)}
		}
		s, err := ReadStatus(dirOf(cmd))
		if err != nil {
			return err
		}
		return s.write(cmd.OutOrStdout(), format)
	}
	return cmd
}
