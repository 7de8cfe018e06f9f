package agent

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// errDecommissioned says that the server has retired this device for good.
var errDecommissioned = fw.Errorf(fw.Conflict, "this device is decommissioned and does not check in any more")

// renewPause is how long a refused renewal is left alone.
const renewPause = 10 * time.Minute

// client returns the connection to the server under the identity in use.
func (a *Agent) client() *client {
	if a.conn == nil {
		id := a.id
		if a.useNext {
			id = a.next
		}
		a.conn = newClient(a.cfg.Server, a.roots, id)
	}
	return a.conn
}

// reconnect makes the next request use a new connection: identity or anchors
// have changed.
func (a *Agent) reconnect() {
	if a.conn != nil {
		a.conn.close()
		a.conn = nil
	}
}

// checkIn asks for work and acts upon the answer. It returns the time to the
// next check-in. Called only when no update is under way and the outbox is
// empty.
func (a *Agent) checkIn(ctx context.Context) (time.Duration, error) {
	if a.answered || a.state.Nonce.IsZero() {
		var n authz.Nonce
		rand.Read(n[:]) // never fails: crypto/rand.Read, Go 1.24
		if err := a.save(func(s *state) error { s.Nonce = n; return nil }); err != nil {
			return 0, err
		}
		a.answered = false
	}
	body, err := authz.EncodeCheckIn(authz.CheckIn{Nonce: a.state.Nonce, Facts: authz.Facts{
		Hardware: a.cfg.Hardware, Components: a.reported(), Attributes: a.cfg.Attributes,
		Preference:   authz.Preference(a.cfg.Preference),
		LastSequence: a.state.LastSequence, TrustVersion: a.trust.Version(), LastReceiptIndex: a.state.LastReceipt,
	}})
	if err != nil {
		return 0, err
	}
	b, err := a.client().post(ctx, pathCheckIn, mediaCBOR, body, authz.MaxReply)
	if err != nil {
		if a.next != nil && turnedAway(err) {
			// The server knows one of the two: which, is found out.
			a.useNext = !a.useNext
			a.reconnect()
		}
		return 0, err
	}
	reply, err := authz.DecodeCheckInReply(b)
	if err != nil {
		return 0, fw.Wrap(fw.Unavailable, err, "the server's answer cannot be read")
	}
	if err := a.settleIdentity(); err != nil {
		return 0, err
	}
	return a.act(ctx, reply)
}

// act does what a reply asks for.
func (a *Agent) act(ctx context.Context, reply authz.CheckInReply) (time.Duration, error) {
	wait := time.Duration(reply.NextCheckIn) * time.Second
	if a.cfg.Poll > 0 {
		wait = jitter(time.Duration(a.cfg.Poll), time.Duration(a.cfg.Poll)/10)
	}
	if reply.LastReport > a.state.ReportSequence || reply.RenewBefore != a.state.RenewBefore {
		if err := a.save(func(s *state) error {
			s.ReportSequence, s.RenewBefore = max(s.ReportSequence, reply.LastReport), reply.RenewBefore
			return nil
		}); err != nil {
			return 0, err
		}
	}
	// Before the authorization, whose key may be in it.
	if len(reply.TrustBundle) > 0 {
		newer, err := a.acceptTrust(ctx, reply.TrustBundle)
		if err != nil {
			return 0, err
		}
		if newer {
			wait = 0 // there may be one more
		}
	}
	if len(reply.Refused) > 0 {
		a.log.InfoContext(ctx, "no update", "refused", reply.Refused)
	}
	switch reply.Action {
	case authz.ActionUpdate:
		return wait, a.accept(ctx, reply)
	case authz.ActionDecommission:
		if err := a.save(func(s *state) error { s.Decommissioned, s.Nonce = true, authz.Nonce{}; return nil }); err != nil {
			return 0, err
		}
		return 0, errDecommissioned
	case authz.ActionRenew:
		a.renewNow = true
		if a.renewDue() { // not when it was refused a moment ago
			wait = 0
		}
	case authz.ActionNone:
	}
	// The nonce stays on disk until the next check-in replaces it: one write
	// less each time, and what it could still answer was nothing.
	a.answered = true
	return wait, nil
}

// accept checks the authorization and makes it durable with its sequence
// number, or reports why not, in one write.
func (a *Agent) accept(ctx context.Context, reply authz.CheckInReply) error {
	auth, v := authz.Open(reply.Authorization, a.deviceState(), a.checkReceipt)
	if !v.OK() {
		a.log.WarnContext(ctx, "authorization rejected", "reason", v.Reason, "detail", v.Detail)
		return a.save(func(s *state) error {
			s.Nonce = authz.Nonce{}
			return a.report(s, auth, fw.EventRejected, rejected(v))
		})
	}
	c := auth.Claims
	a.log.InfoContext(ctx, "update authorized", "authorization", c.ID, "campaign", c.Campaign, "version", c.Components[0].Version)
	return a.save(func(s *state) error {
		s.Nonce, s.LastSequence, s.LastReceipt = authz.Nonce{}, c.Sequence, c.Decision
		s.Update = &update{
			Phase: phaseAccepted, Authorization: reply.Authorization, Artifacts: reply.Artifacts,
			Slot: a.running.slot.other(), From: a.running.slot,
		}
		return nil
	})
}

// acceptTrust takes the next version of the trust bundle. A bundle that does
// not follow from ours is reported once.
func (a *Agent) acceptTrust(ctx context.Context, envelope []byte) (bool, error) {
	next, err := authz.Accept(a.trust, envelope)
	if err != nil {
		digest := fw.DigestOf(envelope)
		if digest == a.state.RefusedTrust {
			return false, nil
		}
		a.log.WarnContext(ctx, "trust bundle rejected", "err", err)
		return false, a.save(func(s *state) error {
			s.RefusedTrust = digest
			return a.report(s, nil, fw.EventRejected, &fault{event: fw.EventRejected, reason: fw.RejectTrustBundle, detail: err.Error()})
		})
	}
	roots, err := serverRoots(next, a.cfg.ServerCA)
	if err != nil {
		return false, err
	}
	if err := writeFile(filepath.Join(a.dir, "trust.json"), envelope); err != nil {
		return false, fw.Wrap(fw.Internal, err, "cannot write the trust bundle")
	}
	a.trust, a.roots = next, roots
	a.reconnect()
	a.log.InfoContext(ctx, "trust bundle accepted", "version", next.Version())
	return true, nil
}

// renewDue reports whether it is time for a new certificate. The reports in
// the outbox and the authorization of an update are bound to the present key,
// so both go first.
func (a *Agent) renewDue() bool {
	now := a.now()
	if a.next != nil || a.state.Update != nil || len(a.state.Outbox) > 0 || now.Before(a.renewAfter) {
		return false
	}
	return a.renewNow || a.id.renewDue(now) || a.state.RenewBefore > 0 && now.Unix() >= a.state.RenewBefore
}

// renew gets a certificate for a new key. Both are kept beside the present
// ones until the server has accepted them.
func (a *Agent) renew(ctx context.Context) error {
	a.renewNow, a.renewAfter = false, a.now().Add(renewPause)
	key, err := ensureKey(a.dir, nextID)
	if err != nil {
		return err
	}
	csr, err := request(key, a.cfg.Device)
	if err != nil {
		return err
	}
	var reply certificates
	if err := a.client().postJSON(ctx, pathRenew, renewRequest{CSR: csr}, &reply); err != nil {
		return err
	}
	id, err := storeChain(a.dir, nextID, key, reply.Certificates)
	if err != nil {
		return err
	}
	a.log.InfoContext(ctx, "certificate renewed", "not_after", id.leaf.NotAfter)
	a.next, a.useNext = id, true
	a.reconnect()
	return nil
}

// settleIdentity ends a renewal after the server has answered under one of the
// two identities.
func (a *Agent) settleIdentity() error {
	switch {
	case a.next == nil:
		return nil
	case a.useNext:
		if err := adopt(a.dir); err != nil {
			return err
		}
		a.id = a.next
	default:
		for _, name := range []string{"cert.pem", "key.pem"} {
			if err := remove(filepath.Join(a.dir, nextID+name)); err != nil {
				return err
			}
		}
	}
	a.next, a.useNext = nil, false
	return nil
}
