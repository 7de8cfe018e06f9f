package signerd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
)

// Listen says where a signer is reached and by whom.
type Listen struct {
	// Socket is the path of a Unix socket. UIDs are the users whose processes
	// may ask on it.
	Socket string
	UIDs   []uint32

	// Addr is HOST:PORT for TLS 1.3 with client certificates. Certificate and
	// Key are PEM files of the signer; ClientCA is a PEM file of what issues
	// the servers' certificates; ClientNames are the DNS names in them that
	// may ask.
	Addr, Certificate, Key, ClientCA string
	ClientNames                      []string
}

// peerKey is where a connection's uid is kept.
type peerKey struct{}

// peer is who is at the other end of a Unix socket.
type peer struct {
	uid uint32
	err error
}

// config binds what l says and returns what judges its requests.
func (l *Listen) config(ctx context.Context, log *slog.Logger) (httpd.Config, func(*http.Request) error, error) {
	switch {
	case (l.Socket == "") == (l.Addr == ""):
		return httpd.Config{}, nil, fw.Errorf(fw.Invalid, "give --socket PATH or --listen HOST:PORT, one of them")
	case l.Socket != "":
		return l.unix(ctx, log)
	default:
		return l.tls(log)
	}
}

func (l *Listen) unix(ctx context.Context, log *slog.Logger) (httpd.Config, func(*http.Request) error, error) {
	lis, err := listenUnix(ctx, l.Socket)
	if err != nil {
		return httpd.Config{}, nil, err
	}
	c := httpd.Config{Listener: lis, Log: log, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		p := peer{err: fw.Errorf(fw.Unavailable, "the caller cannot be identified")}
		if u, ok := c.(*net.UnixConn); ok {
			p.uid, p.err = peerUID(u)
		}
		return context.WithValue(ctx, peerKey{}, p)
	}}
	return c, func(r *http.Request) error {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || p.err != nil {
			return errors.Join(fw.Errorf(fw.Forbidden, "the caller cannot be identified"), p.err)
		}
		if !slices.Contains(l.UIDs, p.uid) {
			return fw.Errorf(fw.Forbidden, "user %d may not ask this signer: start it with --allow-uid %d if it is the server", p.uid, p.uid)
		}
		return nil
	}, nil
}

// listenUnix binds a socket, over the one that a killed signer left behind.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return nil, errors.Join(fw.Errorf(fw.Conflict, "a process serves %s already: stop it first", path), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fw.Wrap(fw.Unavailable, err, "cannot replace the socket %s: check its owner and permissions", path)
		}
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot listen on %s: the path must be free, in a folder that exists, and under 108 bytes", path)
	}
	// Who may ask is decided by user id, request by request; a mode could only
	// say it less exactly.
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // G302: see above
		return nil, errors.Join(fw.Wrap(fw.Unavailable, err, "cannot open the socket %s to the server's user", path), lis.Close())
	}
	return lis, nil
}

func (l *Listen) tls(log *slog.Logger) (httpd.Config, func(*http.Request) error, error) {
	if l.Certificate == "" || l.Key == "" || l.ClientCA == "" || len(l.ClientNames) == 0 {
		return httpd.Config{}, nil, fw.Errorf(fw.Invalid, "--listen needs --tls-cert, --tls-key, --client-ca and --client-name: nobody else may ask")
	}
	cert, pool, err := loadTLS(l.Certificate, l.Key, l.ClientCA)
	if err != nil {
		return httpd.Config{}, nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	c := httpd.Config{Addr: l.Addr, Log: log, Protocols: protocols, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}}
	return c, func(r *http.Request) error {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return fw.Errorf(fw.Unauthenticated, "this needs a client certificate")
		}
		names := r.TLS.PeerCertificates[0].DNSNames
		if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(l.ClientNames, n) }) {
			return fw.Errorf(fw.Forbidden, "a client named %q may not ask this signer: start it with --client-name if it is the server", names)
		}
		return nil
	}, nil
}

// loadTLS reads a certificate with its key, and the certificates that others
// must come from.
func loadTLS(certFile, keyFile, caFile string) (tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return cert, nil, fw.Wrap(fw.Invalid, err, "cannot use the certificate %s with the key %s: they are PEM files that belong together", certFile, keyFile)
	}
	b, err := os.ReadFile(caFile) //nolint:gosec // G304: the operator names it
	if err != nil {
		return cert, nil, fw.Wrap(fw.Invalid, err, "cannot read the CA file %s", caFile)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return cert, nil, fw.Errorf(fw.Invalid, "%s holds no PEM certificate", caFile)
	}
	return cert, pool, nil
}
