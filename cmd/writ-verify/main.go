// Command writ-verify checks a bundle of evidence offline.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/writ-project/writ/verify"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := verify.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
