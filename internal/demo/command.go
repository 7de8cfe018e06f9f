package demo

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
)

// Command returns "writ demo".
func Command() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a fleet take a signed, approved, staged and proven update",
		Long: `Starts a server on this machine and a fleet of device agents, each a process of
its own, and walks through a maker's day: a release is signed and approved, a
bad one stops itself at the canary, the fixed one goes out, a corrupted image is
refused, a quarantined device and one with an expired certificate get nothing,
and the exported evidence is verified offline.

Takes under two minutes, needs nothing but this binary, and removes what it
made. Exits 0 only if everything came out as told.`,
		Example: "  writ demo\n  writ demo --image build/zephyr.bin\n  writ demo --keep",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			o.Out = cmd.OutOrStdout()
			return Run(ctx, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Image, "image", "", "your own firmware, any bytes; the demo signs it as MCUboot images")
	f.IntVar(&o.Devices, "devices", 20, "agent processes, at least 5")
	f.BoolVar(&o.Keep, "keep", false, "leave the server and the devices running at the end, until Ctrl-C")
	f.StringVar(&o.Dir, "dir", "", "keep everything in this folder instead of a temporary one")
	return cmd
}
