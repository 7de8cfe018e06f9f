package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The built binary tells the whole story, with real agent processes, and every
// expected outcome is observed. It takes about 70 seconds, most of them waiting
// for a certificate to end, so only make test runs it.
func TestTheDemoComesOutAsTold(t *testing.T) {
	if os.Getenv("WRIT_REQUIRE_TOOLS") == "" {
		t.Skip("skipped: takes over a minute (make test runs it)")
	}
	writ := filepath.Join(t.TempDir(), "writ")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", writ, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), writ, "demo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Everything came out as told") || strings.Contains(string(out), "✗") {
		t.Errorf("demo: %v\n%s", err, out)
	}
}
