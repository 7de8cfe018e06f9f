package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/api"
	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/proto/native"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/update"
)

// Version is the version of this build.
const Version = "0.1.0-dev"

// Server is an open server.
type Server struct {
	Config    config.Config
	DB        *store.DB
	Keystore  *signer.Keystore
	Signer    *signer.Signer // of the keys in this process
	Custody   signer.Custody // of the image and statement keys
	Ledger    *ledger.Ledger
	Blobs     *blob.Dir
	Access    *access.Access
	Approvers *review.Approvers
	Approvals *review.Approvals
	Authority *enroll.Authority
	Devices   *enroll.Devices
	Enrolment *enroll.Enrolment
	Releases  *release.Service
	Register  *campaign.Register
	Campaigns *campaign.Service
	Updates   *update.Service

	log     *slog.Logger
	http    *httpd.Server
	logKey  string
	front   *httpd.Front
	limiter *httpd.Limiter
	trustMu sync.Mutex
	remote  *remote // nil: the signer is in this process
	failed  chan error
}

// Open opens everything and binds the port. FirstRun is not nil when this run
// made the first operator.
func Open(ctx context.Context, c config.Config, log *slog.Logger) (s *Server, first *access.Issued, err error) {
	if err := c.Complete(); err != nil {
		return nil, nil, err
	}
	s = &Server{Config: c, log: log, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.Keystore, s.Signer, err = openKeys(ctx, &c); err != nil {
		return s, nil, err
	}
	if c.Signer == "" {
		log.Warn("EMBEDDED SIGNER: the image keys are in this process, so whoever has this host has them; run writ-signer for production", "keys", c.Keys())
	} else {
		if s.remote, err = dial(ctx, &c); err != nil {
			return s, nil, err
		}
		if err := s.remote.mirror(s.Keystore, s.remote.info()); err != nil {
			return s, nil, err
		}
	}
	s.DB, err = store.Open(ctx, store.Options{URL: c.Database, Log: log, OnFail: func(err error) {
		select {
		case s.failed <- err:
		default:
		}
	}})
	if err != nil {
		return s, nil, err
	}
	logSigner, err := s.Signer.LogSigner(LogKeyName, c.Name)
	if err != nil {
		return s, nil, err
	}
	if s.Ledger, err = ledger.Open(ctx, s.DB, logSigner); err != nil {
		return s, nil, err
	}
	s.Custody = signer.NewDesk(s.Signer, signer.DeskOptions{Log: logSigner.Public(), Now: time.Now})
	if s.remote != nil {
		if err := s.remote.trustsLog(logSigner); err != nil {
			return s, nil, err
		}
		s.Custody = s.remote.client
	}
	// Before the first use of any of them is recorded.
	if err := s.recordKeys(ctx, "server"); err != nil {
		return s, nil, err
	}
	if s.Blobs, err = blob.Open(c.Blobs()); err != nil {
		return s, nil, err
	}
	if err := s.wire(ctx); err != nil {
		return s, nil, err
	}
	if first, err = s.begin(ctx, logSigner); err != nil {
		return s, nil, err
	}
	return s, first, s.bind(ctx)
}

// wire makes the services.
func (s *Server) wire(ctx context.Context) error {
	c := &s.Config
	s.Access = access.New(s.DB, func(tx *store.Tx, typ string, streams []string, actor string, data any) (int64, error) {
		ids := make([]evidence.StreamID, len(streams))
		for i, id := range streams {
			ids[i] = evidence.StreamID(id)
		}
		pos, err := s.Ledger.Append(tx, ledger.Entry{Type: evidence.Type(typ), Actor: actor, Streams: ids, Data: data})
		return pos.Index, err
	})
	s.Approvers = review.NewApprovers(review.Options{DB: s.DB, Ledger: s.Ledger, Signer: s.Signer, Custody: s.Custody, Keystore: s.Keystore})
	s.Approvals = review.NewApprovals(s.Ledger, s.Approvers)
	s.Register = campaign.NewRegister(s.Approvers.Roster, s.productChanged)
	s.Campaigns = campaign.New(campaign.Options{DB: s.DB, Ledger: s.Ledger, Register: s.Register})
	var err error
	s.Authority, err = enroll.OpenAuthority(ctx, enroll.AuthorityOptions{
		DB: s.DB, Ledger: s.Ledger, Signer: s.Signer, Keystore: s.Keystore, Key: DeviceCAKeyName, Name: "writ CA " + c.Name,
	})
	if err != nil {
		return err
	}
	devices := enroll.Options{
		DB: s.DB, Ledger: s.Ledger, Authority: s.Authority, Profile: pki.DeviceProfile{Life: c.CertificateLife, RenewBefore: c.RenewBefore},
		Count: s.Approvals.Count, Changed: s.deviceChanged,
	}
	s.Devices, s.Enrolment = enroll.New(devices), enroll.NewEnrolment(devices)
	s.Releases = release.New(release.Options{
		DB: s.DB, Ledger: s.Ledger, Blobs: s.Blobs, Custody: s.Custody, Keystore: s.Keystore, Approvals: s.Approvals, Approvers: s.Approvers,
		CampaignApproved: s.Campaigns.Approved, StageDocument: campaign.StageDocument, Changed: s.productChanged, MaxUpload: c.MaxUpload,
		StatementKeys: statementKeys,
	})
	s.Updates = update.New(update.Options{
		DB: s.DB, Ledger: s.Ledger, Signer: s.Signer, Key: AuthorizationKeyName, Issuer: c.Name,
		Campaigns: s.Register, Devices: s.Devices, Trust: s.trustBundle,
		Interval: c.Interval, Grace: c.Grace, Now: time.Now, Log: s.log,
	})
	return nil
}

func (s *Server) productChanged(p fw.ProductID) { s.Updates.ProductChanged(p) }
func (s *Server) deviceChanged(d fw.DeviceID)   { s.Updates.DeviceChanged(d) }

// begin records that the server runs, and makes what the first run makes.
func (s *Server) begin(ctx context.Context, logSigner *signer.LogSigner) (*access.Issued, error) {
	vkey, err := ledger.VerifierKey(logSigner)
	if err != nil {
		return nil, err
	}
	s.logKey = vkey
	database := "postgres"
	if s.DB.Embedded() {
		database = "sqlite"
	}
	err = s.DB.Tx(ctx, func(tx *store.Tx) error {
		_, err := s.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeServerStarted, Actor: "server", Streams: []evidence.StreamID{evidence.LogStream},
			Data: evidence.Started{Version: Version, Database: database, LogKey: vkey},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.updateTrust(ctx, "server"); err != nil {
		return nil, err
	}
	if s.remote != nil {
		if err := s.fetchRosters(ctx); err != nil {
			return nil, err
		}
	}
	return s.Access.Bootstrap(ctx)
}

// Limits on callers who have not said who they are.
const (
	strangersPerSecond = 20
	strangersBurst     = 200
)

// bind issues the server's certificate and binds the port.
func (s *Server) bind(ctx context.Context) error {
	cert, err := s.Authority.ServerCertificate(ctx, serverNames(s.Config.Hostnames), pki.ServerProfile{})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Authority.CA())
	front := httpd.NewFront(s.log, time.Now)
	limiter := httpd.NewLimiter(httpd.LimiterConfig{PerSecond: strangersPerSecond, Burst: strangersBurst, Now: time.Now})
	mux := http.NewServeMux()
	mux.Handle("/", front.Handle(httpd.Route{}, httpd.Fallback(mux)))
	mux.Handle("GET /healthz", front.Handle(httpd.Route{Audience: httpd.Devices}, s.health))
	logRoutes(mux, front, limiter, s.Ledger, s.DB)
	native.Register(mux, native.Options{
		Front: front, Limiter: limiter, Updates: s.Updates, Enroller: s.Enrolment, Artifacts: s.Blobs, Trust: s.TrustBundle, Now: time.Now,
	})
	s.front, s.limiter = front, limiter
	api.Register(mux, s.APIOptions())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // one request at a time per device: HTTP/2 would only cost
	s.http, err = httpd.New(ctx, httpd.Config{
		Addr: s.Config.Listen, Handler: mux, Log: s.log, Protocols: protocols, IdleTimeout: s.Config.Interval*2 + time.Minute,
		TLS: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert,
			VerifyConnection: native.VerifyPeer(roots, pki.DeviceProfile{}, time.Now),
		},
	})
	return err
}

// serverNames are the names in the server's certificate.
func serverNames(names []string) []string {
	all := slices.Clone(names)
	for _, n := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// APIOptions are the services behind the REST API.
func (s *Server) APIOptions() api.Options {
	return api.Options{
		Front: s.front, Limiter: s.limiter, DB: s.DB, Ledger: s.Ledger, Access: s.Access, Approvers: s.Approvers, Approvals: s.Approvals,
		Authority: s.Authority, Devices: s.Devices, Enrolment: s.Enrolment, Releases: s.Releases, Campaigns: s.Campaigns,
		Keys: s, Version: Version, Now: time.Now,
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	if err := s.DB.Err(); err != nil {
		return err
	}
	_, err := w.Write([]byte("ok\n"))
	return err
}

// Addr is the bound address.
func (s *Server) Addr() string { return s.http.Addr() }

// URL is where clients find the server.
func (s *Server) URL() string { return "https://" + s.Addr() }

// Run serves until ctx ends or the database fails.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.http.Serve(ctx) })
	g.Go(func() error {
		select {
		case err := <-s.failed:
			return fmt.Errorf("the database failed, so this server ends: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	s.every(ctx, g, time.Second, "timers", func(ctx context.Context) error { return s.Campaigns.Tick(ctx, time.Now().Unix()) })
	s.every(ctx, g, 5*time.Second, "expired authorizations", s.Updates.Sweep)
	s.every(ctx, g, 30*time.Second, "last seen", s.Updates.Flush)
	s.every(ctx, g, ledger.EpochEvery, "epoch", func(ctx context.Context) error {
		_, _, err := s.Ledger.Epoch(ctx)
		return err
	})
	if s.remote != nil {
		s.every(ctx, g, signerLook, "looking at the signer", s.lookAtSigner)
	}
	s.every(ctx, g, time.Hour, "stale uploads", func(context.Context) error {
		_, err := s.Blobs.Sweep(time.Now().Add(-7 * 24 * time.Hour))
		return err
	})
	err := g.Wait()
	// Nothing is served any more; what is only in memory goes to the database.
	if ferr := s.Updates.Flush(context.WithoutCancel(ctx)); ferr != nil && err == nil {
		err = ferr
	}
	return err
}

// every runs f again and again. An error is logged, and the next turn tries
// again: a failing loop must not stop the server from answering devices.
func (s *Server) every(ctx context.Context, g *errgroup.Group, d time.Duration, what string, f func(context.Context) error) {
	g.Go(func() error {
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
				if err := f(ctx); err != nil && ctx.Err() == nil {
					s.log.Error("background work failed", "what", what, "error", err)
				}
			}
		}
	})
}

// Close releases everything. Call it after Run returned.
func (s *Server) Close() error {
	var errs []error
	if s.http != nil {
		errs = append(errs, s.http.Close())
	}
	if s.DB != nil {
		errs = append(errs, s.DB.Close())
	}
	if s.remote != nil {
		s.remote.client.Close()
	}
	if s.Signer != nil {
		errs = append(errs, s.Signer.Close())
	}
	if s.Blobs != nil {
		errs = append(errs, s.Blobs.Close())
	}
	return errors.Join(errs...)
}
