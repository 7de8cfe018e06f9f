package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// Config describes a listener. Its zero values are good for the internet.
type Config struct {
	Addr string // host:port; port 0 takes a free one
	// Listener, when not nil, is served instead of Addr: a Unix socket, say.
	// ConnContext may add what is known of a connection to its requests.
	Listener    net.Listener
	ConnContext func(context.Context, net.Conn) context.Context

	TLS     *tls.Config  // nil: plain HTTP, for loopback and behind a proxy
	Handler http.Handler // required
	Log     *slog.Logger // nil: none

	ReadHeaderTimeout time.Duration // 0: 10 s, from the first byte to the last header
	ReadTimeout       time.Duration // 0: 30 s, the whole request; see Route.Stall
	WriteTimeout      time.Duration // 0: 60 s, from the headers to the end of the response
	// IdleTimeout is how long a connection is kept between requests. The TLS
	// handshake is what a polling fleet costs, so it should be longer than the
	// polling interval where file descriptors allow. 0: 6 min.
	IdleTimeout time.Duration
	// DrainTimeout is how long requests may take to end after the context of
	// Serve ended. 0: 20 s.
	DrainTimeout   time.Duration
	MaxHeaderBytes int             // 0: 32 KiB
	Protocols      *http.Protocols // nil: HTTP/1.1, and HTTP/2 over TLS
}

// Server is a bound listener and what serves it.
type Server struct {
	http  http.Server
	lis   net.Listener
	drain time.Duration
}

// New binds the address, so that a taken port is known before anything else
// starts, and nothing is served before [Server.Serve].
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Handler == nil {
		panic("httpd.New: no handler")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	lis := c.Listener
	if lis == nil {
		var lc net.ListenConfig
		var err error
		if lis, err = lc.Listen(ctx, "tcp", c.Addr); err != nil {
			return nil, fw.Wrap(fw.Unavailable, err, "cannot listen on %s: is the port taken, or another writ running?", c.Addr)
		}
	}
	s := &Server{lis: lis, drain: or(c.DrainTimeout, 20*time.Second)}
	s.http = http.Server{
		Handler:           c.Handler,
		ReadHeaderTimeout: or(c.ReadHeaderTimeout, 10*time.Second),
		ReadTimeout:       or(c.ReadTimeout, 30*time.Second),
		WriteTimeout:      or(c.WriteTimeout, 60*time.Second),
		IdleTimeout:       or(c.IdleTimeout, 6*time.Minute),
		MaxHeaderBytes:    or(c.MaxHeaderBytes, 32<<10),
		Protocols:         c.Protocols,
		ConnContext:       c.ConnContext,
		// What net/http has to say is about single connections, such as failed
		// handshakes: anybody can cause it, so it is not worth more than debug.
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	if c.TLS != nil {
		s.http.TLSConfig = c.TLS.Clone()
	}
	return s, nil
}

func or[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Addr returns the bound address, with the real port.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Serve serves until ctx ends, then lets requests end within the drain time
// and cuts those that do not. It returns nil after an orderly end. Call it once.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() {
		if s.http.TLSConfig != nil {
			failed <- s.http.ServeTLS(s.lis, "", "") // the certificates are in TLSConfig
			return
		}
		failed <- s.http.Serve(s.lis)
	}()
	select {
	case err := <-failed:
		return fw.Wrap(fw.Unavailable, err, "the server stopped serving %s", s.Addr())
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
	defer cancel()
	err := s.http.Shutdown(drain)
	if err != nil {
		err = errors.Join(fw.Wrap(fw.Unavailable, err, "some requests did not end within %v and were cut", s.drain), s.http.Close())
	}
	<-failed //nolint:errcheck // Serve says only that it was shut down
	return err
}

// Close releases the port of a server that was never served, or cuts all
// connections of one that is.
func (s *Server) Close() error {
	err := s.http.Close()
	if cerr := s.lis.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}
