package update

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

// CheckIn answers a check-in, an encoded authz.CheckIn, with an encoded
// authz.CheckInReply.
func (s *Service) CheckIn(ctx context.Context, p Peer, body []byte) ([]byte, error) {
	_, facts, err := authz.PeekCheckIn(body)
	if err != nil {
		return nil, err
	}
	now := s.o.Now().Unix()
	if s.idle.get(p.Fingerprint, facts, s.trust.get(), now) {
		s.touch(p.Fingerprint, now)
		return s.reply(authz.CheckInReply{}, now)
	}
	return s.checkIn(ctx, p, body, facts)
}

// visit is one check-in that needs a closer look.
type visit struct {
	peer   Peer
	in     authz.CheckIn
	digest fw.Digest // of the facts
	who    store.Identity
	facts  policy.DeviceFacts
	now    int64
}

// found is what a look at a visit came to.
type found struct {
	barred  fw.Reason // may not talk to us at all
	granted *store.Authorization
	target  *campaign.Target // of granted
	refused []fw.Reason
	idle    bool // no campaign has or may get anything for it before something changes
	write   bool // there is something to write, and the look was only a reading one
}

func (s *Service) checkIn(ctx context.Context, p Peer, body []byte, digest fw.Digest) ([]byte, error) {
	mark := s.idle.mark()
	in, err := authz.DecodeCheckIn(body)
	if err != nil {
		return nil, err
	}
	v := &visit{peer: p, in: in, digest: digest, now: s.o.Now().Unix()}
	f := found{write: true}
	// Most who are not idle are about to be decided about, which is the
	// writer's. Looking first without it pays for those who wait and, where
	// replicas cannot remember who is idle, for everybody.
	if !s.o.DB.Embedded() || s.refused.has(p.Fingerprint) {
		if f, err = s.look(s.o.DB.Snapshot(ctx), v); err != nil {
			return nil, err
		}
	}
	if f.write {
		err = s.o.DB.Tx(ctx, func(tx *store.Tx) (err error) {
			v.now = tx.Now().Unix()
			f, err = s.look(tx, v)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	device, cert := &v.who.Device, &v.who.Certificate
	s.touch(p.Fingerprint, v.now)
	if f.barred != "" {
		return nil, s.deny(ctx, cert, f.barred, "check_in")
	}
	if device.State == fw.DeviceDecommissioned {
		return s.reply(authz.CheckInReply{Action: authz.ActionDecommission}, v.now)
	}
	if !certificateOK(cert, v.now) && len(f.refused) == 0 {
		// No campaign had an occasion to refuse it and leave a record.
		why := fw.ReasonCertificateExpired
		if v.now < cert.NotBefore {
			why = fw.ReasonCertificateNotYet
		}
		if err := s.deny(ctx, cert, why, "check_in"); fw.KindOf(err) != fw.Forbidden {
			return nil, err
		}
		f.refused = []fw.Reason{why}
	}
	s.refused.set(p.Fingerprint, len(f.refused) > 0)
	reply := authz.CheckInReply{Refused: f.refused, LastReport: uint64(max(0, v.who.LastReport)), RenewBefore: cert.NotAfter}
	if v.in.TrustVersion < s.trust.get() {
		if reply.TrustBundle, err = s.o.Trust(s.o.DB.Snapshot(ctx), v.in.TrustVersion+1); err != nil {
			return nil, err
		}
		f.idle = false
	}
	renew := s.o.Devices.RenewAt(cert)
	switch {
	case f.granted != nil:
		if err := s.deliver(&reply, f.granted, f.target); err != nil {
			return nil, err
		}
	case v.now >= renew && certificateOK(cert, v.now):
		reply.Action = authz.ActionRenew
	case f.idle && s.o.DB.Embedded() && certificateOK(cert, v.now):
		s.idle.put(p.Fingerprint, device.ID, device.Product, idleEntry{facts: digest, trust: v.in.TrustVersion, until: renew}, mark)
	}
	return s.reply(reply, v.now)
}

// look finds out who is there and what the campaigns have for it. With a
// [store.Tx] it stores and records what comes of that; with a snapshot it
// stops where there would be something to write, and says so.
func (s *Service) look(q store.Queryer, v *visit) (found, error) {
	var err error
	if v.who, err = identify(q, v.peer); err != nil {
		return found{}, err
	}
	if why := barred(&v.who); why != "" || v.who.Device.State == fw.DeviceDecommissioned {
		return found{barred: why}, nil
	}
	if done, err := s.settle(q, v); err != nil || !done {
		return found{write: true}, err
	}
	if v.facts, err = v.deviceFacts(); err != nil {
		return found{}, err
	}
	return s.consider(q, v)
}

// settle stores what a check-in says that is not on file: new facts, and the
// first use of a new certificate. It reports false when there is something to
// store and q only reads.
func (s *Service) settle(q store.Queryer, v *visit) (bool, error) {
	cert, device := &v.who.Certificate, &v.who.Device
	first := cert.State == fw.CertIssued && certificateOK(cert, v.now)
	changed := !slices.Equal(device.FactsDigest, v.digest[:])
	if !first && !changed {
		return true, nil
	}
	tx, writing := q.(*store.Tx)
	if !writing {
		return false, nil
	}
	if first {
		if err := s.o.Devices.ConfirmCertificate(tx, cert); err != nil {
			return false, err
		}
	}
	if !changed {
		return true, nil
	}
	said := campaign.Reported{Attributes: v.in.Attributes, Components: make([]policy.ComponentFacts, len(v.in.Components))}
	for i, c := range v.in.Components {
		said.Components[i] = policy.ComponentFacts{Name: c.Name, Version: c.Version, Digest: c.Digest, SecurityCounter: c.SecurityCounter, Assurance: fw.AssuranceMTLS}
	}
	facts, err := json.Marshal(said)
	if err != nil {
		return false, fw.Wrap(fw.Internal, err, "cannot encode the facts of %s", device.ID)
	}
	device.Facts, device.FactsDigest = facts, v.digest[:]
	device.OptedOut, device.PostponedUntil = v.in.Preference.OptedOut, v.in.Preference.PostponedUntil
	return true, store.SetDeviceFacts(tx, device)
}

// deviceFacts is what a decision about this visit is told of the device.
func (v *visit) deviceFacts() (policy.DeviceFacts, error) {
	f, err := campaign.DeviceFacts(&v.who.Device)
	if err != nil {
		return f, err
	}
	c := &v.who.Certificate
	f.Cert = policy.CertFacts{Known: true, State: c.State, Serial: c.Serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	if v.in.Hardware != v.who.Device.Hardware {
		// What was registered counts, and the contradiction is a doubt.
		f.Integrity = policy.IntegritySuspect
	}
	return f, nil
}
