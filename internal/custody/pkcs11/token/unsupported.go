//go:build !((linux || darwin) && (amd64 || arm64))

package token

import (
	"io"

	"github.com/writ-project/writ/internal/fw"
)

// Serve says that tokens cannot be used on this system.
func Serve(io.Reader, io.Writer) error {
	return fw.Errorf(fw.Unavailable, "PKCS#11 modules can be loaded on Linux and macOS on amd64 and arm64")
}
