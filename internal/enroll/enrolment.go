package enroll

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

// RetryWindow is for how long after its success a request may be repeated,
// because its reply may have been lost.
const RetryWindow = 10 * time.Minute

// Reasons in access_denied records that only enrolment gives.
const (
	ReasonTokenUsed     fw.Reason = "token_used"
	ReasonTokenReplaced fw.Reason = "token_replaced"
	ReasonTokenExpired  fw.Reason = "token_expired"
	ReasonRequest       fw.Reason = "certificate_request" // it names somebody else
	ReasonKeyInUse      fw.Reason = "key_in_use"          // by another device
)

// Enrolment gives devices their certificates. It is safe for concurrent use.
type Enrolment struct {
	d *Devices

	mu     sync.Mutex
	denied map[deniedKey]struct{} // refusals already recorded, by this process
}

type deniedKey struct {
	device fw.DeviceID
	reason fw.Reason
}

// NewEnrolment returns the enrolment into the register that [New] returns for
// the same options.
func NewEnrolment(o Options) *Enrolment {
	return &Enrolment{d: New(o), denied: make(map[deniedKey]struct{})}
}

// refusal is a request of a known device that is turned down.
type refusal struct {
	reason fw.Reason
	err    error
}

func refuse(reason fw.Reason, kind fw.Kind, format string, args ...any) *refusal {
	return &refusal{reason, fw.Errorf(kind, format, args...)}
}

// request is a checked certificate request.
type request struct {
	csr   *pki.CSR
	thumb []byte // RFC 9679 of its key
}

func parseRequest(b []byte) (*request, error) {
	csr, err := pki.ParseCSR(b)
	if err != nil {
		return nil, err
	}
	t, err := pki.Thumbprint(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	return &request{csr, t[:]}, nil
}

// Enrol redeems a token for a certificate and returns the chain in DER, the
// device's certificate first. A claimed device becomes active.
func (e *Enrolment) Enrol(ctx context.Context, token string, csr []byte) ([][]byte, error) {
	hash, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	// Strangers are turned away before any signature is checked, and without
	// a turn in the queue of writers.
	if _, err := store.EnrolmentTokenByHash(e.d.o.DB.Snapshot(ctx), hash[:]); err != nil {
		if fw.KindOf(err) == fw.NotFound {
			return nil, fw.Wrap(fw.Unauthenticated, err, "this enrolment token is not known: ask for a new one")
		}
		return nil, err
	}
	req, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	return e.answer(ctx, "enrol", func(tx *store.Tx) (reply, error) { return e.enrol(tx, hash, req) })
}

// reply is what a closure found: a certificate, or why there is none.
type reply struct {
	device fw.DeviceID
	serial string // of the certificate presented, if any
	der    []byte
	no     *refusal
}

// answer runs f in a write, records its refusal, and returns the chain after
// the commit.
func (e *Enrolment) answer(ctx context.Context, what string, f func(*store.Tx) (reply, error)) ([][]byte, error) {
	var r reply
	err := e.d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if r, err = f(tx); err != nil || r.no == nil {
			return err
		}
		return e.deny(tx, evidence.AccessDenied{Device: r.device, Serial: r.serial, Reason: r.no.reason, What: what})
	})
	switch {
	case err != nil:
		return nil, err
	case r.no != nil:
		return nil, r.no.err
	}
	return [][]byte{r.der, e.d.CA().Raw}, nil
}

// maxDenied bounds the memory of refusals already recorded.
const maxDenied = 10000

// deny records in tx that a known device was refused, once per reason and
// process.
func (e *Enrolment) deny(tx *store.Tx, a evidence.AccessDenied) error {
	k := deniedKey{a.Device, a.Reason}
	e.mu.Lock()
	_, known := e.denied[k]
	e.mu.Unlock()
	if known {
		return nil
	}
	tx.OnCommit(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.denied) >= maxDenied {
			clear(e.denied)
		}
		e.denied[k] = struct{}{}
	})
	return e.d.append(tx, evidence.TypeAccessDenied, string(a.Device), a.Device, a)
}

func (e *Enrolment) enrol(tx *store.Tx, hash fw.Digest, req *request) (reply, error) {
	tok, err := store.EnrolmentTokenByHash(tx, hash[:])
	if err != nil {
		return reply{}, err
	}
	row, err := store.DeviceByID(tx, tok.Device)
	if err != nil {
		return reply{}, err
	}
	r := reply{device: row.ID}
	if tok.UsedAt != 0 && enrolled(row.State) {
		r.der, err = again(tx, row.ID, req, tok.UsedAt)
		if err != nil || r.der != nil {
			return r, err
		}
	}
	if r.no, err = e.admit(tx, &tok, &row, req); err != nil || r.no != nil {
		return r, err
	}
	free, err := store.UseEnrolmentToken(tx, hash[:])
	if err != nil {
		return r, err
	}
	if !free {
		return r, fw.Errorf(fw.Conflict, "this enrolment token was used meanwhile")
	}
	if r.der, err = e.issue(tx, &row, req, "enrolment"); err != nil || row.State != fw.DeviceClaimed {
		return r, err
	}
	return r, e.d.move(tx, &row, evidence.DeviceState{To: fw.DeviceActive, Reason: "enrolled"}, string(row.ID))
}

// admit returns why the holder of tok gets no certificate.
func (e *Enrolment) admit(tx *store.Tx, tok *store.EnrolmentToken, row *store.Device, req *request) (*refusal, error) {
	if row.State != fw.DeviceClaimed && !enrolled(row.State) {
		return refuse(fw.ReasonLifecycle, fw.Forbidden, "device %s is %s and cannot enrol", row.ID, row.State), nil
	}
	newest, err := store.Setting(tx, settingToken(row.ID))
	if err != nil {
		return nil, err
	}
	switch {
	case tok.UsedAt != 0:
		return refuse(ReasonTokenUsed, fw.Conflict, "this enrolment token has been used: ask the operator to reopen the enrolment of device %s", row.ID), nil
	case !bytes.Equal(newest, tok.Hash):
		return refuse(ReasonTokenReplaced, fw.Conflict, "this enrolment token was replaced by a newer one or withdrawn: ask for a new one"), nil
	case tx.Now().Unix() >= tok.ExpiresAt:
		return refuse(ReasonTokenExpired, fw.Forbidden, "this enrolment token has expired: ask for a new one"), nil
	}
	return e.acceptable(tx, row, req)
}

// acceptable returns why a request is not one that the device may make.
func (e *Enrolment) acceptable(tx *store.Tx, row *store.Device, req *request) (*refusal, error) {
	if err := req.csr.CheckDevice(row.Product, row.ID); err != nil {
		return &refusal{ReasonRequest, err}, nil //nolint:nilerr // a refusal is an answer
	}
	other, err := store.DeviceOfThumbprint(tx, req.thumb, row.ID)
	if err != nil {
		return nil, err
	}
	if other != "" {
		// Whose key it is, is not for the caller to know; the record says when.
		return refuse(ReasonKeyInUse, fw.Conflict, "this key is in use by another device: make a key of its own for device %s", row.ID), nil
	}
	return nil, nil
}

// again returns the certificate that the same request was given at time at, if
// that was a moment ago.
func again(tx *store.Tx, id fw.DeviceID, req *request, at int64) ([]byte, error) {
	now := tx.Now().Unix()
	if now-at > int64(RetryWindow.Seconds()) {
		return nil, nil
	}
	all, err := store.CertificatesOfDevice(tx, id)
	if err != nil {
		return nil, err
	}
	for i := range all {
		c := &all[i]
		if c.CreatedAt == at && bytes.Equal(c.Thumbprint, req.thumb) && CertStatus(c, now).Reason == "" {
			return c.DER, nil
		}
	}
	return nil, nil
}

// issue makes the next certificate of a device, in place of one that was
// issued before and never used.
func (e *Enrolment) issue(tx *store.Tx, row *store.Device, req *request, reason string) ([]byte, error) {
	a := e.d.o.Authority
	tmpl, err := pki.DeviceTemplate(req.csr, e.d.o.Profile, row.Product, row.ID, tx.Now())
	if err != nil {
		return nil, err
	}
	all, err := store.CertificatesOfDevice(tx, row.ID)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].State == fw.CertIssued {
			if err := e.d.setCertificate(tx, &all[i], fw.CertSuperseded, certChange{actor: string(row.ID), reason: "never used"}); err != nil {
				return nil, err
			}
		}
	}
	i, err := a.leaf(issuance{
		template: tmpl, public: req.csr.PublicKey, device: row.ID, thumb: req.thumb,
		actor: string(row.ID), reason: reason, stream: evidence.DeviceStream(row.ID),
	}, tx.Now())
	if err != nil {
		return nil, err
	}
	der, err := a.issue(tx, i)
	if err != nil {
		return nil, err
	}
	fingerprint := fw.DigestOf(der)
	e.d.changed(tx, row.ID)
	return der, store.InsertCertificate(tx, store.Certificate{
		Serial: serialText(tmpl.SerialNumber), Device: row.ID, State: fw.CertIssued, Fingerprint: fingerprint[:], Thumbprint: req.thumb,
		NotBefore: tmpl.NotBefore.Unix(), NotAfter: tmpl.NotAfter.Unix(), DER: der, CreatedAt: tx.Now().Unix(),
	})
}
