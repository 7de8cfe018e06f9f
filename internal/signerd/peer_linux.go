package signerd

import (
	"net"
	"syscall"

	"github.com/writ-project/writ/internal/fw"
)

// peerUID asks the kernel who is at the other end of a Unix socket
// (SO_PEERCRED): nothing the peer sends can change the answer.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fw.Wrap(fw.Unavailable, err, "the caller cannot be identified")
	}
	var cred *syscall.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || cerr != nil {
		return 0, fw.Wrap(fw.Unavailable, cerr, "the caller cannot be identified")
	}
	return cred.Uid, nil
}
