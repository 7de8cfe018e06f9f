// Command writ is the server of writ and its command line. `writ --help`
// explains its commands, package cli what they promise.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/writ-project/writ/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
