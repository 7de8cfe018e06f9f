//go:build !unix

package signer

import "os"

// lockFile does nothing where there is no flock: run one server per key
// directory.
func lockFile(*os.File) error { return nil }
