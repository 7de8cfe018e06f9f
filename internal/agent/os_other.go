//go:build !unix

package agent

import (
	"errors"
	"os"
	"os/exec"
)

// lockFile does nothing where there is no flock: run one agent per directory.
func lockFile(*os.File) error { return nil }

func ownGroup(*exec.Cmd) {}

// reexec is not possible here; the supervisor restarts the agent.
func reexec() error { return errors.ErrUnsupported }

func noSpace(error) bool { return false }
