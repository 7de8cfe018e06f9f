package verify

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Exit codes of [Main].
const (
	ExitVerified   = 0
	ExitFailed     = 1
	ExitIncomplete = 2 // or wrong usage, or a file that cannot be read
)

const usage = `writ-verify checks a bundle of evidence offline.

  writ-verify [--log-key KEY|FILE] [--roster-root FILE] [--checkpoint FILE] BUNDLE

It checks that the records are those of the log and none was left out, checks
every signature, and makes every decision and every stage transition again. It
needs no network and no database.

Give it what you got another way than the bundle: the log's key, the roster
root's public key, and a checkpoint from before. Without them it shows that the
bundle agrees with itself and with the keys inside it.

Exit codes: 0 verified, 1 failed, 2 incomplete or wrong usage.

`

// maxInput bounds a key or checkpoint file in bytes.
const maxInput = 64 << 10

// Main is the command writ-verify with the given arguments, without the
// program's name, and returns its exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("writ-verify", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		say(stderr, usage)
		fs.PrintDefaults()
	}
	logKey := fs.String("log-key", "", "log key (NAME+HASH+KEY), or a file that holds it")
	root := fs.String("roster-root", "", "file with the roster root's public key, PEM or DER")
	checkpoint := fs.String("checkpoint", "", "file with a checkpoint of this log that you have from before")
	output := fs.String("o", "text", "text or json")
	memory := fs.Int64("memory", DefaultMemory>>20, "MiB that what is remembered of devices and campaigns may take")
	timeout := fs.Duration("timeout", time.Hour, "give up after this long")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return ExitVerified
		}
		return ExitIncomplete
	}
	if fs.NArg() != 1 || *output != "text" && *output != "json" {
		fs.Usage()
		return ExitIncomplete
	}
	ctx, stop := context.WithTimeout(ctx, *timeout)
	defer stop()
	o, err := options(*logKey, *root, *checkpoint)
	o.MaxMemory = *memory << 20
	var rep *Report
	if err == nil {
		rep, err = file(ctx, fs.Arg(0), o)
	}
	if err != nil {
		say(stderr, "writ-verify: "+err.Error()+"\n")
		if ctx.Err() != nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, errMemory) {
			return ExitIncomplete
		}
		return ExitFailed
	}
	if *output == "json" {
		b, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			say(stderr, "writ-verify: "+err.Error()+"\n")
			return ExitIncomplete
		}
		say(stdout, string(b)+"\n")
	} else {
		say(stdout, rep.Text())
	}
	switch rep.Verdict {
	case Verified:
		return ExitVerified
	case Failed:
		return ExitFailed
	case Incomplete:
	}
	return ExitIncomplete
}

// say writes text whose loss cannot be told to anybody.
func say(w io.Writer, s string) { _, _ = io.WriteString(w, s) }

func options(logKey, root, checkpoint string) (o Options, err error) {
	if o.TrustedLogKey = logKey; logKey != "" && strings.Count(logKey, "+") < 2 {
		b, err := input(logKey)
		if err != nil {
			return o, err
		}
		o.TrustedLogKey = strings.TrimSpace(string(b))
	}
	if root != "" {
		b, err := input(root)
		if err != nil {
			return o, err
		}
		if o.RosterRoot, err = ParseRosterRoot(b); err != nil {
			return o, err
		}
	}
	if checkpoint != "" {
		o.TrustedCheckpoint, err = input(checkpoint)
	}
	return o, err
}

func input(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the file that the person who runs this named
	if err != nil {
		return nil, fmt.Errorf("reading what you gave: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

func file(ctx context.Context, path string, o Options) (*Report, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the file that the person who runs this named
	if err != nil {
		return nil, fmt.Errorf("opening the bundle: %w", err)
	}
	defer f.Close()
	return Verify(ctx, f, o)
}

// Text returns the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...) + "\n") }
	subject := "campaign " + string(r.Scope.Campaign)
	if r.Scope.Device != "" {
		subject = "device " + string(r.Scope.Device)
	}
	line("%s: the evidence of %s", strings.ToUpper(string(r.Verdict)), subject)
	line("")
	line("  log          %s, %d records at its checkpoint", r.Log, r.Size)
	line("  log key      %s", r.LogKey)
	c := r.Counts
	line("  records      %d checked, %d erased, in %d whole streams", c.Records, c.Erased, c.Streams)
	line("  signatures   %d checked", c.Signatures)
	line("  decisions    %d made again: %d allowed, %d refused", c.Decisions, c.Allowed, c.Refused)
	line("  permission   %d authorizations compared with their decisions", c.Authorizations)
	line("  rollout      %d events and %d transitions replayed in %d campaigns", c.Events, c.Transitions, c.Campaigns)
	line("  devices      %d, with %d certificates and %d reports", c.Devices, c.Certificates, c.Reports)
	for _, f := range r.Findings {
		line("  %-10s %s", f.Severity+":", f.What)
	}
	if r.More > 0 {
		line("  and %d more findings", r.More)
	}
	line("\nWhat this does not prove:")
	for _, n := range r.NotProven {
		line("  - %s", n)
	}
	return b.String()
}
