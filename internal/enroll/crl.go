package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"strconv"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

const settingCRL = "ca/crl"

// crlRow is the newest revocation list as it is stored.
type crlRow struct {
	Number int64     `json:"number"`
	Of     fw.Digest `json:"of"` // of the serials and states it lists
	Next   int64     `json:"next"`
	DER    []byte    `json:"der"`
}

// keptCRL is the newest list with when to look again.
type keptCRL struct {
	der         []byte
	renew       int64
	revocations int64 // of this process, when it was read
}

// revocation is when and why a certificate was revoked.
type revocation struct {
	At     int64                `json:"at"`
	Reason pki.RevocationReason `json:"reason"`
}

func settingRevoked(serial string) string { return "revoked/" + serial }

// CRL returns the current certificate revocation list (RFC 5280, section 5) in
// DER. A new one is signed when the certificates it lists have changed, and
// when half of its life is over. Nothing inside writ depends on it: the
// state of a certificate is read at every request. It is for others.
func (a *Authority) CRL(ctx context.Context) ([]byte, error) {
	now := a.o.Now()
	seen := a.revocations.Load()
	if k := a.crl.Load(); k != nil && a.o.DB.Embedded() && k.revocations == seen && now.Unix() < k.renew {
		return k.der, nil
	}
	q := a.o.DB.Snapshot(ctx)
	rows, err := store.RevokedCertificates(q, now.Unix())
	if err != nil {
		return nil, err
	}
	of := digestRevoked(rows)
	row, err := readCRL(q)
	if err != nil {
		return nil, err
	}
	half := int64(a.o.CRLLife.Seconds()) / 2
	if row.Of != of || now.Unix() >= row.Next-half {
		revoked, err := revokedEntries(q, rows)
		if err != nil {
			return nil, err
		}
		if row, err = a.signCRL(ctx, of, revoked); err != nil {
			return nil, err
		}
	}
	a.crl.Store(&keptCRL{der: row.DER, renew: row.Next - half, revocations: seen})
	return row.DER, nil
}

func readCRL(q store.Queryer) (crlRow, error) {
	var row crlRow
	b, err := store.Setting(q, settingCRL)
	if err != nil || b == nil {
		return row, err
	}
	if err := json.Unmarshal(b, &row); err != nil {
		return row, fw.Wrap(fw.Corrupt, err, "the stored revocation list cannot be read")
	}
	return row, nil
}

func digestRevoked(rows []store.Certificate) fw.Digest {
	h := sha256.New()
	h.Write([]byte("writ-crl/v1\x00"))
	for _, c := range rows {
		h.Write([]byte(c.Serial + " " + string(c.State) + "\n"))
	}
	return fw.Digest(h.Sum(nil))
}

func revokedEntries(q store.Queryer, rows []store.Certificate) ([]pki.Revoked, error) {
	out := make([]pki.Revoked, 0, len(rows))
	for _, c := range rows {
		n, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			return nil, fw.Errorf(fw.Corrupt, "a stored certificate has the serial %q", c.Serial)
		}
		r := revocation{At: c.CreatedAt}
		b, err := store.Setting(q, settingRevoked(c.Serial))
		if err != nil {
			return nil, err
		}
		if b != nil {
			if err := json.Unmarshal(b, &r); err != nil {
				return nil, fw.Wrap(fw.Corrupt, err, "the revocation of certificate %s cannot be read", c.Serial)
			}
		}
		out = append(out, pki.Revoked{Serial: n, At: time.Unix(r.At, 0), Reason: r.Reason})
	}
	return out, nil
}

// signCRL signs the next list. A revocation that commits meanwhile changes the
// digest of what is to be listed, so that the next request makes another.
func (a *Authority) signCRL(ctx context.Context, of fw.Digest, revoked []pki.Revoked) (crlRow, error) {
	var row crlRow
	err := a.o.DB.Tx(ctx, func(tx *store.Tx) error {
		last, err := readCRL(tx)
		if err != nil {
			return err
		}
		now := tx.Now()
		row = crlRow{Number: last.Number + 1, Of: of, Next: now.Add(a.o.CRLLife).Unix()}
		tmpl, err := pki.NewCRLTemplate(big.NewInt(row.Number), revoked, now, time.Unix(row.Next, 0))
		if err != nil {
			return err
		}
		subject, err := signer.CRLDigest(tmpl, a.root)
		if err != nil {
			return err
		}
		permit, err := a.permit(tx, subject, server, "revocation list "+strconv.FormatInt(row.Number, 10), evidence.LogStream)
		if err != nil {
			return err
		}
		if row.DER, err = a.o.Signer.SignCRL(permit, tmpl, a.root, now); err != nil {
			return err
		}
		b, err := json.Marshal(row)
		if err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode the revocation list")
		}
		return store.PutSetting(tx, settingCRL, b)
	})
	return row, err
}
