// Command writ is the server, its command line, and a demonstration of both.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/cli"
	"github.com/writ-project/writ/internal/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, demo.Command(), bench.Command())
	stop()
	os.Exit(code)
}
