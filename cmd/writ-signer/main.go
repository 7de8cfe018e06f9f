// Command writ-signer keeps the keys that sign firmware in a process of its
// own, and signs what people have approved. `writ-signer --help` explains how
// to set it up, package signerd what it promises.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/writ-project/writ/internal/signerd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := signerd.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
