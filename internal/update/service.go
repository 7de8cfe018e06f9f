package update

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// Options configure a Service.
type Options struct {
	DB        *store.DB
	Ledger    *ledger.Ledger
	Signer    *signer.Signer
	Key       fw.KeyName // authorization key
	Issuer    string     // the server's name in authorizations
	Campaigns *campaign.Register
	Devices   *enroll.Devices
	// Trust returns the device trust bundle of a version, or nil when there is none.
	Trust    func(q store.Queryer, version int64) ([]byte, error)
	Interval time.Duration // between check-ins of an idle device
	Grace    time.Duration // after an authorization expired, before the update counts as failed
	Now      func() time.Time
	Log      *slog.Logger
}

// Service answers devices.
type Service struct {
	o       Options
	idle    *idleCache
	refused recent // who was refused at the last check-in
	trust   trustVersion

	mu      sync.Mutex
	seen    map[fw.Digest]int64    // by certificate fingerprint: when, not yet stored
	repeats map[fw.UpdateID]int64  // refusals given again, not yet stored
	denied  map[deniedKey]struct{} // turned away and recorded, by this process
}

type deniedKey struct {
	device fw.DeviceID
	reason fw.Reason
}

// Peer is the device certificate of a TLS connection. The TLS layer has
// checked that it chains to the device CA and that the peer holds its key;
// everything else about it is decided here.
type Peer struct {
	Certificate *x509.Certificate
	Fingerprint fw.Digest
}

// NewPeer returns the peer with certificate c.
func NewPeer(c *x509.Certificate) Peer {
	return Peer{Certificate: c, Fingerprint: sha256.Sum256(c.Raw)}
}

// New returns a Service.
func New(o Options) *Service {
	return &Service{
		o: o, idle: newIdleCache(), refused: recent{m: make(map[fw.Digest]struct{})},
		seen: make(map[fw.Digest]int64), repeats: make(map[fw.UpdateID]int64), denied: make(map[deniedKey]struct{}),
	}
}

// DeviceChanged drops what is remembered of a device.
func (s *Service) DeviceChanged(id fw.DeviceID) { s.idle.dropDevice(id) }

// ProductChanged drops what is remembered of a product's devices.
func (s *Service) ProductChanged(p fw.ProductID) { s.idle.dropProduct(p) }

// TrustChanged says that a new trust bundle is on file.
func (s *Service) TrustChanged(version int64) { s.trust.set(version) }

// interval is when a device should ask again, in seconds: the configured
// interval, give or take a quarter, so that a fleet does not march in step.
func (s *Service) interval() int64 {
	i := s.o.Interval.Seconds()
	return max(1, int64(i*(0.75+rand.Float64()/2))) //nolint:gosec // G404: jitter, not a secret
}

// identify finds the certificate and the device behind a connection.
func identify(q store.Queryer, p Peer) (store.Identity, error) {
	i, err := store.IdentityByFingerprint(q, p.Fingerprint[:])
	if fw.KindOf(err) == fw.NotFound {
		err = fw.Errorf(fw.Unauthenticated, "this certificate is not on file: enrol the device again (%s)", fw.ReasonCertificateUnknown)
	}
	return i, err
}

// barred returns why a device may not talk to us at all, or "".
func barred(i *store.Identity) fw.Reason {
	c, d := &i.Certificate, &i.Device
	switch {
	case d.State == fw.DeviceRevoked || c.State == fw.CertRevoked:
		return fw.ReasonCertificateRevoked
	case c.State == fw.CertHeld:
		return fw.ReasonCertificateHeld
	case c.State == fw.CertSuperseded:
		return fw.ReasonCertificateUnknown
	case d.State != fw.DeviceActive && d.State != fw.DeviceQuarantined && d.State != fw.DeviceSuspended && d.State != fw.DeviceDecommissioned:
		return fw.ReasonLifecycle
	}
	return ""
}

// deny records that a known device was turned away, once per reason and
// process, and returns the error for it.
func (s *Service) deny(ctx context.Context, c *store.Certificate, why fw.Reason, what string) error {
	refusal := fw.Errorf(fw.Forbidden, "device %s is refused: %s", c.Device, why)
	k := deniedKey{c.Device, why}
	s.mu.Lock()
	_, known := s.denied[k]
	if !known {
		if len(s.denied) >= maxDenied {
			clear(s.denied)
		}
		s.denied[k] = struct{}{}
	}
	s.mu.Unlock()
	if known {
		return refusal
	}
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		_, err := s.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeAccessDenied, Actor: string(c.Device), Streams: []evidence.StreamID{evidence.DeviceStream(c.Device)},
			Data: evidence.AccessDenied{Device: c.Device, Serial: c.Serial, Reason: why, What: what},
		})
		return err
	})
	if err != nil {
		return err
	}
	return refusal
}

// maxDenied bounds the memory of refusals already recorded.
const maxDenied = 10000

// Flush stores the last-seen times and repeat counts gathered since the last
// call. The server calls it every half minute and before it stops; what a
// crash loses of them is harmless.
func (s *Service) Flush(ctx context.Context) error {
	s.mu.Lock()
	seen, repeats := s.seen, s.repeats
	s.seen, s.repeats = make(map[fw.Digest]int64), make(map[fw.UpdateID]int64)
	s.mu.Unlock()
	page := make(map[fw.Digest]int64, flushPage)
	flush := func() error {
		if len(page) == 0 {
			return nil
		}
		err := s.o.DB.Tx(ctx, func(tx *store.Tx) error { return store.TouchDevices(tx, page) })
		clear(page)
		return err
	}
	for id, at := range seen {
		page[id] = at
		if len(page) == flushPage {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if len(repeats) == 0 {
		return nil
	}
	return s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		for id, n := range repeats {
			if err := store.AddRefusals(tx, id, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// flushPage keeps one flush from holding up the writer.
const flushPage = 500

func (s *Service) touch(fingerprint fw.Digest, now int64) {
	s.mu.Lock()
	s.seen[fingerprint] = now
	s.mu.Unlock()
}

// certificateOK reports whether the clock lets a certificate be used.
func certificateOK(c *store.Certificate, now int64) bool {
	return now >= c.NotBefore && now <= c.NotAfter // RFC 5280 section 4.1.2.5: both inclusive
}

// reply encodes an answer without an update.
func (s *Service) reply(r authz.CheckInReply, now int64) ([]byte, error) {
	r.ServerTime, r.NextCheckIn = now, s.interval()
	if r.Action == "" {
		r.Action = authz.ActionNone
	}
	return authz.EncodeCheckInReply(r)
}
