package enroll

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

const settingRoot = "ca/root"

// server is the actor of what nobody asked for.
const server = "server"

// AuthorityOptions configure [OpenAuthority].
type AuthorityOptions struct {
	DB       *store.DB
	Ledger   *ledger.Ledger
	Signer   *signer.Signer
	Keystore *signer.Keystore
	Key      fw.KeyName       // the device CA key; made if it is missing
	Name     string           // of the CA; empty means "writ device CA" and a part of its key id
	Life     time.Duration    // of the CA's own certificate; 0 means 10 years
	CRLLife  time.Duration    // from one revocation list to the next; 0 means 7 days
	Now      func() time.Time // nil: the wall clock
}

// Authority is the device CA. It is safe for concurrent use.
type Authority struct {
	o    AuthorityOptions
	root *x509.Certificate

	revocations atomic.Int64 // by this process; says when the kept list is old
	crl         atomic.Pointer[keptCRL]
}

// OpenAuthority opens the CA. On the first run it makes the CA key and the
// CA's self-signed certificate, with their records.
func OpenAuthority(ctx context.Context, o AuthorityOptions) (*Authority, error) {
	if o.CRLLife == 0 {
		o.CRLLife = 7 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the clock of what happens outside transactions
	}
	a := &Authority{o: o}
	info, err := a.key(ctx)
	if err != nil {
		return nil, err
	}
	pub, err := info.Public()
	if err != nil {
		return nil, err
	}
	if a.o.Name == "" {
		// Two CAs never share a name (RFC 5280, section 4.1.2.6).
		a.o.Name = "writ device CA " + info.KeyID[:8]
	}
	err = o.DB.Tx(ctx, func(tx *store.Tx) error {
		a.root = nil
		der, err := store.Setting(tx, settingRoot)
		if err != nil {
			return err
		}
		if der == nil {
			if der, err = a.makeRoot(tx, pub); err != nil {
				return err
			}
		}
		if a.root, err = x509.ParseCertificate(der); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the CA certificate in the database cannot be read: restore the database from a backup")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if k, ok := pub.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(a.root.PublicKey) {
		return nil, fw.Errorf(fw.Conflict, "the database belongs to the CA %q and key %q is another CA's: use the key directory that belongs to this database", a.root.Subject.CommonName, o.Key)
	}
	return a, nil
}

func (a *Authority) key(ctx context.Context) (signer.KeyInfo, error) {
	info, err := a.o.Keystore.Public(a.o.Key)
	if fw.KindOf(err) == fw.NotFound {
		info, err = a.o.Keystore.Create(ctx, a.o.Key, fw.PurposeDeviceCA, "", a.o.Now())
	}
	if err != nil {
		return info, err
	}
	if info.Purpose != fw.PurposeDeviceCA {
		return info, fw.Errorf(fw.Invalid, "key %q is for %s: name a key for %s as the device CA key", a.o.Key, info.Purpose, fw.PurposeDeviceCA)
	}
	return info, nil
}

func (a *Authority) makeRoot(tx *store.Tx, pub crypto.PublicKey) ([]byte, error) {
	tmpl, err := pki.NewCATemplate(a.o.Name, pub, a.o.Life, tx.Now())
	if err != nil {
		return nil, err
	}
	der, err := a.issue(tx, issuance{template: tmpl, ca: pub, actor: server, reason: "certificate of the device CA itself", stream: evidence.LogStream})
	if err != nil {
		return nil, err
	}
	return der, store.PutSetting(tx, settingRoot, der)
}

// CA returns the CA's certificate.
func (a *Authority) CA() *x509.Certificate { return a.root }

// issuance is one certificate to be made.
type issuance struct {
	template *x509.Certificate
	parent   *x509.Certificate // nil for the CA's own
	ca       crypto.PublicKey  // the CA's
	public   crypto.PublicKey  // the subject's; nil for the CA's own
	device   fw.DeviceID       // empty for the CA's own and the server's
	thumb    []byte            // of the device's key
	actor    string
	reason   string
	stream   evidence.StreamID // of the subject
}

// leaf fills in the parent of a certificate below the CA and keeps it within
// the CA's own life.
func (a *Authority) leaf(i issuance, now time.Time) (issuance, error) {
	if now.After(a.root.NotAfter) {
		return i, fw.Errorf(fw.Unavailable, "the device CA expired on %s and issues nothing more: set up a new one", a.root.NotAfter.Format(time.DateOnly))
	}
	if i.template.NotAfter.After(a.root.NotAfter) {
		i.template.NotAfter = a.root.NotAfter
	}
	i.parent, i.ca = a.root, a.root.PublicKey
	return i, nil
}

// issue records the decision, signs under a permit minted from that record,
// and records the certificate. The caller lets the DER out after the commit.
func (a *Authority) issue(tx *store.Tx, i issuance) ([]byte, error) {
	req := signer.CertificateRequest{Template: i.template, Parent: i.parent, PublicKey: i.public, At: tx.Now()}
	subject, err := signer.CertificateDigest(req, i.ca)
	if err != nil {
		return nil, err
	}
	permit, err := a.permit(tx, subject, i.actor, i.reason, i.stream)
	if err != nil {
		return nil, err
	}
	der, err := a.o.Signer.IssueCertificate(permit, req)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	_, err = a.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeCertificateIssued, Actor: i.actor, Streams: []evidence.StreamID{i.stream},
		Data: evidence.Certificate{
			Device: i.device, Serial: serialText(i.template.SerialNumber), To: fw.CertIssued, Reason: i.reason, Thumbprint: i.thumb,
			NotBefore: i.template.NotBefore.Unix(), NotAfter: i.template.NotAfter.Unix(), DER: der, Permit: permit.ID(),
		},
	})
	return der, err
}

// permit records that the CA key may be used on subject.
func (a *Authority) permit(tx *store.Tx, subject fw.Digest, actor, reason string, stream evidence.StreamID) (*signer.Permit, error) {
	pos, err := a.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeKeyUse, Actor: actor, Streams: []evidence.StreamID{evidence.KeyStream(a.o.Key), stream},
		Data: evidence.KeyUse{Purpose: fw.PurposeDeviceCA, Key: a.o.Key, Subject: subject, Reason: reason},
	})
	if err != nil {
		return nil, err
	}
	return a.o.Signer.Mint(signer.Grant{Purpose: fw.PurposeDeviceCA, Key: a.o.Key, Subject: subject, Evidence: pos.Index, Verdict: signer.VerdictAllow})
}
