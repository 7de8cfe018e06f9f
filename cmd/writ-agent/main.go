// Command writ-agent is the device side of writ for Linux-class devices: it
// enrols the device, asks for updates, verifies them, installs them into the
// other of two slots and reports what happened. `writ-agent --help` explains
// its commands, package agent what it promises.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/writ-project/writ/internal/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := agent.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
