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
	if e := s.idle.get(p.Fingerprint, facts, now); e != nil && e.trust == s.trust.get() {
		s.touch(e.device, now)
		return s.reply(authz.CheckInReply{}, now)
	}
	return s.checkIn(ctx, p, body, facts)
}

// visit is one check-in that needs a closer look.
type visit struct {
	peer   Peer
	in     authz.CheckIn
	digest fw.Digest // of the facts
	cert   store.Certificate
	device store.Device
	facts  policy.DeviceFacts
	now    int64
}

func (s *Service) checkIn(ctx context.Context, p Peer, body []byte, digest fw.Digest) ([]byte, error) {
	mark := s.idle.mark()
	in, err := authz.DecodeCheckIn(body)
	if err != nil {
		return nil, err
	}
	v := &visit{peer: p, in: in, digest: digest, now: s.o.Now().Unix()}
	q := s.o.DB.Snapshot(ctx)
	if v.cert, v.device, err = identify(q, p); err != nil {
		return nil, err
	}
	s.touch(v.device.ID, v.now)
	if why := barred(&v.cert, &v.device); why != "" {
		return nil, s.deny(ctx, &v.cert, why, "check_in")
	}
	if v.device.State == fw.DeviceDecommissioned {
		return s.reply(authz.CheckInReply{Action: authz.ActionDecommission}, v.now)
	}
	if err := s.settle(ctx, v); err != nil {
		return nil, err
	}
	if v.facts, err = v.deviceFacts(); err != nil {
		return nil, err
	}
	out, idle, err := s.consider(ctx, q, v)
	if err != nil {
		return nil, err
	}
	if !certificateOK(&v.cert, v.now) && len(out.refused) == 0 {
		// No campaign had an occasion to refuse it and leave a record.
		why := fw.ReasonCertificateExpired
		if v.now < v.cert.NotBefore {
			why = fw.ReasonCertificateNotYet
		}
		if err := s.deny(ctx, &v.cert, why, "check_in"); fw.KindOf(err) != fw.Forbidden {
			return nil, err
		}
		out.refused = []fw.Reason{why}
	}
	last, err := store.LastReport(q, v.device.ID)
	if err != nil {
		return nil, err
	}
	reply := authz.CheckInReply{Refused: out.refused, LastReport: uint64(last)}
	if v.in.TrustVersion < s.trust.get() {
		if reply.TrustBundle, err = s.o.Trust(q, v.in.TrustVersion+1); err != nil {
			return nil, err
		}
		idle = false
	}
	renew := s.o.Devices.RenewAt(&v.cert)
	reply.RenewBefore = v.cert.NotAfter
	switch {
	case out.authorization != nil:
		reply.Action, reply.Authorization, reply.Artifacts = authz.ActionUpdate, out.authorization, out.artifacts
	case v.now >= renew && certificateOK(&v.cert, v.now):
		reply.Action = authz.ActionRenew
	case idle && s.o.DB.Embedded() && certificateOK(&v.cert, v.now):
		s.idle.put(p.Fingerprint, &idleEntry{device: v.device.ID, product: v.device.Product, facts: digest, trust: v.in.TrustVersion, until: renew}, mark)
	}
	return s.reply(reply, v.now)
}

// settle stores what a check-in says that is not on file: new facts, and the
// first use of a new certificate.
func (s *Service) settle(ctx context.Context, v *visit) error {
	first := v.cert.State == fw.CertIssued && certificateOK(&v.cert, v.now)
	changed := !slices.Equal(v.device.FactsDigest, v.digest[:])
	if !first && !changed {
		return nil
	}
	var facts []byte
	if changed {
		said := campaign.Reported{Attributes: v.in.Attributes, Components: make([]policy.ComponentFacts, len(v.in.Components))}
		for i, c := range v.in.Components {
			said.Components[i] = policy.ComponentFacts{Name: c.Name, Version: c.Version, Digest: c.Digest, SecurityCounter: c.SecurityCounter, Assurance: fw.AssuranceMTLS}
		}
		var err error
		if facts, err = json.Marshal(said); err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode the facts of %s", v.device.ID)
		}
	}
	return s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		cert, device, err := identify(tx, v.peer)
		if err != nil {
			return err
		}
		if first && cert.State == fw.CertIssued {
			if err := s.o.Devices.ConfirmCertificate(tx, &cert); err != nil {
				return err
			}
		}
		if changed {
			device.Facts, device.FactsDigest = facts, v.digest[:]
			device.OptedOut, device.PostponedUntil = v.in.Preference.OptedOut, v.in.Preference.PostponedUntil
			if err := store.SetDeviceFacts(tx, &device); err != nil {
				return err
			}
		}
		v.cert, v.device = cert, device
		return nil
	})
}

// deviceFacts is what a decision about this visit is told of the device.
func (v *visit) deviceFacts() (policy.DeviceFacts, error) {
	f, err := campaign.DeviceFacts(&v.device)
	if err != nil {
		return f, err
	}
	f.Cert = policy.CertFacts{Known: true, State: v.cert.State, Serial: v.cert.Serial, NotBefore: v.cert.NotBefore, NotAfter: v.cert.NotAfter}
	if v.in.Hardware != v.device.Hardware {
		// What was registered counts, and the contradiction is a doubt.
		f.Integrity = policy.IntegritySuspect
	}
	return f, nil
}
