//go:build !linux

package signerd

import (
	"net"

	"github.com/writ-project/writ/internal/fw"
)

// peerUID has no portable form.
func peerUID(*net.UnixConn) (uint32, error) {
	return 0, fw.Errorf(fw.Unavailable, "on this system a caller on a Unix socket cannot be identified: use --listen with TLS")
}
