package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/signerd"
	"github.com/writ-project/writ/internal/store"
)

// remote is a writ-signer that keeps the image and statement keys, and the
// roots. Nil: this process does.
type remote struct {
	client *signerd.Client
	last   atomic.Pointer[signerd.Info] // as of the last look
}

func (r *remote) info() *signerd.Info { return r.last.Load() }

// signerPurposes are the keys that a server with a signer does not hold: with
// one of them, whoever has the server could make firmware that devices trust,
// or approvers that the signer trusts.
var signerPurposes = map[fw.Purpose]bool{
	fw.PurposeImage: true, fw.PurposeStatement: true, fw.PurposeRosterRoot: true,
	fw.PurposeAuthorization: false, fw.PurposeLog: false, fw.PurposeDeviceCA: false,
}

// signerLook is how often the server looks at what changed at the signer.
const signerLook = 10 * time.Second

// dial asks the signer who it is, for as long as it may take to start.
func dial(ctx context.Context, c *config.Config) (*remote, error) {
	client, err := signerd.NewClient(signerd.ClientConfig{Address: c.Signer, CA: c.SignerCA, Certificate: c.SignerCert, Key: c.SignerKey})
	if err != nil {
		return nil, err
	}
	r := &remote{client: client}
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		var info signerd.Info
		info, err = client.Info(ctx)
		r.last.Store(&info)
		if err == nil || fw.KindOf(err) != fw.Unavailable || wait > 4*time.Second {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fw.Wrap(fw.Unavailable, ctx.Err(), "stopped while waiting for the signer at %s", c.Signer)
		case <-time.After(wait):
		}
	}
	if err != nil {
		return nil, fw.Wrap(fw.KindOf(err), err, "the signer at %s: %s", c.Signer, signer.Reason(err))
	}
	if r.info().Version != signerd.Version {
		return nil, fw.Errorf(fw.Conflict, "the signer at %s speaks version %d of the protocol and this server %d: update the older one", c.Signer, r.info().Version, signerd.Version)
	}
	return r, nil
}

// mirror puts the public halves of the signer's keys and roots on file, and
// refuses a key folder that still has the private ones.
func (r *remote) mirror(ks *signer.Keystore, info *signerd.Info) error {
	for _, k := range ks.List() {
		if signerPurposes[k.Purpose] && k.State == signer.KeyActive && ks.Holds(k.Name) {
			return fw.Errorf(fw.Conflict, "with --signer this server holds no keys for %s, and its key folder has the private part of %q: move it to the signer's key folder (docs/signing.md), or retire it", k.Purpose, k.Name)
		}
	}
	infos, err := infosOf(info)
	if err != nil {
		return err
	}
	if err := ks.Mirror(infos); err != nil {
		return err
	}
	for name, ders := range info.Chains {
		var chain []*x509.Certificate
		for _, der := range ders {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return fw.Wrap(fw.Corrupt, err, "the signer has a certificate for key %q that cannot be read", name)
			}
			chain = append(chain, c)
		}
		old, err := ks.Chain(name)
		if err != nil {
			return err
		}
		if !sameChain(old, chain) {
			if err := ks.SetChain(name, chain); err != nil {
				return err
			}
		}
	}
	return nil
}

func sameChain(a, b []*x509.Certificate) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// infosOf returns the signer's keys, and the roots that it only knows.
func infosOf(info *signerd.Info) ([]signer.KeyInfo, error) {
	var out []signer.KeyInfo
	held := map[string]bool{}
	for _, k := range info.Keys {
		if signerPurposes[k.Purpose] {
			out = append(out, k)
			held[k.KeyID] = true
		}
	}
	for _, der := range info.Roots.Keys {
		pub, err := dsse.ParsePublicKey(der)
		if err != nil {
			return nil, fw.Wrap(fw.Corrupt, err, "the signer has a root key that cannot be read")
		}
		id, err := dsse.KeyID(pub)
		if err != nil {
			return nil, err
		}
		if held[id] {
			continue
		}
		out = append(out, signer.KeyInfo{
			Type: signer.TypeKey, Name: fw.KeyName("root-" + id[:8]), Purpose: fw.PurposeRosterRoot, Algorithm: signer.Ed25519,
			PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), KeyID: id, State: signer.KeyActive,
		})
	}
	return out, nil
}

// trustsLog checks that the signer was set up with this server's log.
func (r *remote) trustsLog(l *signer.LogSigner) error {
	vkey, err := ledger.VerifierKey(l)
	if err != nil || r.info().Log == vkey {
		return err
	}
	return fw.Errorf(fw.Conflict, "the signer does not trust this server's evidence log: stop writ-signer serve on its host, run writ-signer trust-log '%s' there, and start it again", vkey)
}

// holds reports whether the signer has the private part of k, or its place.
func (r *remote) holds(k signer.KeyInfo) bool {
	for _, i := range r.info().Keys {
		if i.KeyID == k.KeyID {
			return true
		}
	}
	return false
}

// root is the root key with which the signer signs trust bundles; "" if the
// roots are offline and it is done in a ceremony.
func (r *remote) root() fw.KeyName {
	if r.info().Roots.Threshold != 1 {
		return ""
	}
	for _, k := range r.info().Keys {
		if k.Purpose == fw.PurposeRosterRoot && k.State == signer.KeyActive {
			return k.Name
		}
	}
	return ""
}

// roots are what devices are told of the roots.
func (r *remote) roots() (authz.Roots, error) {
	out := authz.Roots{Threshold: r.info().Roots.Threshold}
	for _, der := range r.info().Roots.Keys {
		pub, err := dsse.ParsePublicKey(der)
		if err != nil {
			return out, fw.Wrap(fw.Corrupt, err, "the signer has a root key that cannot be read")
		}
		k, err := authz.NewTrustKey(pub)
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

// lookAtSigner takes up new keys and rosters of the signer.
func (s *Server) lookAtSigner(ctx context.Context) error {
	info, err := s.remote.client.Info(ctx)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(info, *s.remote.info()) {
		if err := s.remote.mirror(s.Keystore, &info); err != nil {
			return err
		}
		s.remote.last.Store(&info)
		if err := s.recordKeys(ctx, "server"); err != nil {
			return err
		}
		if err := s.updateTrust(ctx, "server"); err != nil {
			return err
		}
	}
	return s.fetchRosters(ctx)
}

// fetchRosters puts the signer's rosters on file.
func (s *Server) fetchRosters(ctx context.Context) error {
	for {
		var have int64
		roster, err := s.Approvers.Roster(s.DB.Snapshot(ctx))
		switch {
		case err == nil:
			have = roster.Version()
		case fw.KindOf(err) != fw.NotFound:
			return err
		}
		if s.remote.info().Roster <= have {
			return nil
		}
		list, err := s.remote.client.Rosters(ctx, have)
		if err != nil {
			return err
		}
		for _, env := range list {
			if err := s.Approvers.Import(ctx, env, "signer"); err != nil {
				return err
			}
		}
		if len(list) == 0 {
			return nil
		}
	}
}

// decision returns a committed key_use record with the proof that the log has
// it.
func (s *Server) decision(ctx context.Context, index int64) (signer.Decision, error) {
	row, err := store.RecordByIndex(s.DB.Snapshot(ctx), index)
	if err != nil {
		return signer.Decision{}, err
	}
	receipt, err := s.Ledger.Receipt(index)
	return signer.Decision{Salt: row.Salt, Record: row.Body, Receipt: receipt}, err
}

// LogKey makes the keys of a new server, unless they are there, and returns
// the verifier key of its log: what a writ-signer is set up with.
func LogKey(ctx context.Context, c config.Config) (string, error) {
	if err := c.Complete(); err != nil {
		return "", err
	}
	_, sg, err := openKeys(ctx, &c)
	if err != nil {
		return "", err
	}
	l, err := sg.LogSigner(LogKeyName, c.Name)
	if err != nil {
		return "", errors.Join(err, sg.Close())
	}
	vkey, err := ledger.VerifierKey(l)
	return vkey, errors.Join(err, sg.Close())
}
