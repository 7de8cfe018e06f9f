package bench

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
)

// Command returns "writ bench".
func Command() *cobra.Command {
	o := Options{}
	var jsonOut string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what this machine can serve",
		Long: `Starts a server of its own in a temporary folder and loads it with many devices
over real mutual TLS. Prints server CPU per operation, throughput and latency
for idle check-ins, check-ins that end in an authorization, signed reports,
evidence records and bundle verification, for each fleet size.

Nothing is switched off: keys, signatures, fsync and evidence are those of
"writ serve".`,
		Example: "  writ bench\n  writ bench --fleets 100,1000 --duration 2s\n  writ bench --database postgres://postgres@localhost/bench --fleets 1000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if jsonOut == "json" {
				o.Out = cmd.ErrOrStderr()
			}
			res, err := Run(cmd.Context(), o)
			if err == nil && jsonOut == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(res)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Fleets, "fleets", []int{100, 1000, 100_000}, "registered devices, one run each")
	f.IntVar(&o.Active, "active", 1000, "devices that enrol and talk")
	f.DurationVar(&o.Duration, "duration", 5*time.Second, "of each measurement")
	f.StringVar(&o.Database, "database", "", "database URL; empty is the embedded default")
	f.StringVarP(&jsonOut, "output", "o", "text", "text or json")
	cmd.AddCommand(serverCommand())
	return cmd
}

func serverCommand() *cobra.Command {
	var data, database string
	cmd := &cobra.Command{
		Use: "server", Short: "The server process of a benchmark", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ServerMain(cmd.Context(), data, database, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data folder")
	cmd.Flags().StringVar(&database, "database", "", "database URL")
	return cmd
}
