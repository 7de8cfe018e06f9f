package server

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

// Names of the keys that the first run makes.
const (
	LogKeyName           fw.KeyName = "log"
	AuthorizationKeyName fw.KeyName = "authorization"
	DeviceCAKeyName      fw.KeyName = "device-ca"
	RootKeyName          fw.KeyName = "root"
	ImageKeyName         fw.KeyName = "image"

	StatementKeyName            fw.KeyName = "statement"
	StatementPostQuantumKeyName fw.KeyName = "statement-pq"
)

// statementKeys sign release statements.
var statementKeys = []fw.KeyName{StatementKeyName, StatementPostQuantumKeyName}

var firstKeys = []struct {
	name      fw.KeyName
	purpose   fw.Purpose
	algorithm signer.Algorithm // empty: the purpose's default
}{
	{LogKeyName, fw.PurposeLog, ""},
	{AuthorizationKeyName, fw.PurposeAuthorization, ""},
	{DeviceCAKeyName, fw.PurposeDeviceCA, ""},
	{RootKeyName, fw.PurposeRosterRoot, ""},
	{ImageKeyName, fw.PurposeImage, ""},
	{StatementKeyName, fw.PurposeStatement, ""},
	{StatementPostQuantumKeyName, fw.PurposeStatement, signer.MLDSA65},
}

// openKeys unlocks the key folder and makes the keys that are missing.
func openKeys(ctx context.Context, c *config.Config) (*signer.Keystore, *signer.Signer, error) {
	ks, err := signer.OpenKeystore(c.Keys(), signer.KeystoreOptions{Passphrase: c.Passphrase, ScryptLogN: c.ScryptLogN})
	if errors.Is(err, signer.ErrPassphrase) {
		return nil, nil, fw.Wrap(fw.Forbidden, err, "wrong passphrase for the key store in %s: set %s, or %s to a file that holds it, to the one it was made with", c.Keys(), config.PassphraseEnv, config.PassphraseFileEnv)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, k := range firstKeys {
		if c.Signer != "" && signerPurposes[k.purpose] {
			continue
		}
		if _, err := ks.Public(k.name); err == nil {
			continue
		} else if fw.KindOf(err) != fw.NotFound {
			return nil, nil, err
		}
		if _, err := ks.Create(ctx, k.name, k.purpose, k.algorithm, time.Now()); err != nil {
			return nil, nil, err
		}
	}
	s, err := signer.Open(ks, signer.Options{})
	return ks, s, err
}

// CreateKey makes a key and records it.
func (s *Server) CreateKey(ctx context.Context, name fw.KeyName, purpose fw.Purpose, alg signer.Algorithm, actor fw.PersonID) (signer.KeyInfo, error) {
	if s.remote != nil && signerPurposes[purpose] {
		return signer.KeyInfo{}, fw.Errorf(fw.Conflict, "the signer keeps the keys for %s: stop writ-signer serve on its host, run writ-signer key create %s --purpose %s, and start it again", purpose, name, purpose)
	}
	info, err := s.Keystore.Create(ctx, name, purpose, alg, time.Now())
	if err != nil {
		return info, err
	}
	if err := s.recordKeys(ctx, string(actor)); err != nil {
		return info, err
	}
	if purpose == fw.PurposeImage || purpose == fw.PurposeAuthorization || purpose == fw.PurposeStatement {
		return info, s.updateTrust(ctx, string(actor))
	}
	return info, nil
}

// CertifyKey gives an image key its certificates and records them.
func (s *Server) CertifyKey(ctx context.Context, name fw.KeyName, chain []*x509.Certificate, actor fw.PersonID) (signer.KeyInfo, error) {
	info, err := s.Keystore.Public(name)
	if err != nil {
		return info, err
	}
	if s.remote != nil && signerPurposes[info.Purpose] {
		return info, fw.Errorf(fw.Conflict, "the signer keeps key %q: stop writ-signer serve on its host, run writ-signer key certify %s FILE, and start it again", name, name)
	}
	if err := s.Keystore.SetChain(name, chain); err != nil {
		return info, err
	}
	data := evidence.KeyCertified{Name: name, KeyID: info.KeyID}
	for _, c := range chain {
		data.Certificates = append(data.Certificates, c.Raw)
	}
	return info, s.DB.Tx(ctx, func(tx *store.Tx) error {
		_, err := s.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeKeyCertified, Actor: string(actor), Streams: []evidence.StreamID{evidence.KeyStream(name)}, Data: data,
		})
		return err
	})
}

// recordKeys writes a record for every key that has none.
func (s *Server) recordKeys(ctx context.Context, actor string) error {
	return s.DB.Tx(ctx, func(tx *store.Tx) error {
		for _, k := range s.Keystore.List() {
			setting := "key/" + string(k.Name)
			known, err := store.Setting(tx, setting)
			if err != nil {
				return err
			}
			if known != nil {
				continue
			}
			pub, err := k.Public()
			if err != nil {
				return err
			}
			der, err := dsse.MarshalPublicKey(pub)
			if err != nil {
				return fw.Wrap(fw.Corrupt, err, "key %s cannot be encoded", k.Name)
			}
			_, err = s.Ledger.Append(tx, ledger.Entry{
				Type: evidence.TypeKeyCreated, Actor: actor, Streams: []evidence.StreamID{evidence.KeyStream(k.Name), evidence.LogStream},
				Data: evidence.Key{Name: k.Name, Purpose: k.Purpose, Algorithm: string(k.Algorithm), KeyID: k.KeyID, Public: der, Custody: s.custodyOf(k)},
			})
			if err != nil {
				return err
			}
			if err := store.PutSetting(tx, setting, []byte(k.KeyID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// custodyOf says where a key is kept, as evidence has it.
func (s *Server) custodyOf(k signer.KeyInfo) string {
	switch {
	case k.Custody != "":
		return custody.SchemeOf(k.Custody)
	case s.Keystore.Holds(k.Name):
		return signer.CustodyEmbedded
	case s.remote != nil && s.remote.holds(k):
		return signer.CustodyRemote
	}
	return signer.CustodyOffline
}

// trustDocument says which keys devices should believe now.
func (s *Server) trustDocument() (authz.TrustDocument, error) {
	var d authz.TrustDocument
	d.Roots.Threshold = 1
	for _, k := range s.Keystore.List() {
		if k.State != signer.KeyActive {
			continue
		}
		pub, err := k.Public()
		if err != nil {
			return d, err
		}
		t, err := authz.NewTrustKey(pub)
		if err != nil {
			return d, err
		}
		switch k.Purpose {
		case fw.PurposeRosterRoot:
			d.Roots.Keys = append(d.Roots.Keys, t)
		case fw.PurposeAuthorization:
			d.AuthorizationKeys = append(d.AuthorizationKeys, t)
		case fw.PurposeImage:
			d.ImageKeys = append(d.ImageKeys, t)
		case fw.PurposeStatement:
			d.StatementKeys = append(d.StatementKeys, t)
		case fw.PurposeLog:
			d.LogKeys = append(d.LogKeys, authz.LogKey{Origin: s.Ledger.Origin(), TrustKey: t})
		case fw.PurposeDeviceCA:
			// Devices believe its certificate, below.
		}
	}
	if s.remote != nil {
		var err error
		if d.Roots, err = s.remote.roots(); err != nil {
			return d, err
		}
	}
	ca := s.Authority.CA().Raw
	d.DeviceCAs, d.TLSAnchors = [][]byte{ca}, [][]byte{ca}
	d.Statement = statement.NeedBoth
	return d, nil
}

// updateTrust signs the next trust bundle if what it would say has changed.
func (s *Server) updateTrust(ctx context.Context, actor string) error {
	s.trustMu.Lock()
	defer s.trustMu.Unlock()
	doc, err := s.trustDocument()
	if err != nil {
		return err
	}
	row, err := store.LatestVersioned(s.DB.Snapshot(ctx), store.TrustBundleTable)
	var prev *authz.TrustBundle
	switch {
	case err == nil:
		if prev, err = authz.OpenTrust(row.Envelope); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the stored trust bundle cannot be read")
		}
	case fw.KindOf(err) != fw.NotFound:
		return err
	}
	if prev != nil && sameTrust(prev.Document(), doc) {
		s.Updates.TrustChanged(prev.Version())
		return nil
	}
	root := RootKeyName
	if s.remote != nil {
		if root = s.remote.root(); root == "" {
			s.log.Warn("the keys that devices should believe changed, and the root keys are offline: sign the next trust bundle in a ceremony")
			return nil
		}
	}
	doc.CreatedAt = time.Now().Unix()
	doc = doc.Next(prev)
	payload, err := doc.Encode()
	if err != nil {
		return err
	}
	var index int64
	err = s.DB.Tx(ctx, func(tx *store.Tx) error {
		pos, err := s.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeKeyUse, Actor: actor, Streams: []evidence.StreamID{evidence.KeyStream(root), evidence.LogStream},
			Data: evidence.KeyUse{Purpose: fw.PurposeRosterRoot, Key: root, Subject: fw.DigestOf(payload), Reason: "the keys that devices believe changed", Document: payload},
		})
		index = pos.Index
		return err
	})
	if err != nil {
		return err
	}
	env, err := s.signTrust(ctx, root, payload, index, actor)
	if err != nil {
		return err
	}
	err = s.DB.Tx(ctx, func(tx *store.Tx) error {
		if err := store.InsertVersioned(tx, store.TrustBundleTable, store.Versioned{Version: doc.Version, Envelope: env}); err != nil {
			return err
		}
		_, err := s.Ledger.Append(tx, ledger.Entry{Type: evidence.TypeTrustBundle, Actor: actor, Streams: []evidence.StreamID{evidence.LogStream}, Data: evidence.Proposed{Document: env}})
		return err
	})
	if err == nil {
		s.Updates.TrustChanged(doc.Version)
	}
	return err
}

// signTrust signs a trust bundle under the decision in record index.
func (s *Server) signTrust(ctx context.Context, root fw.KeyName, payload []byte, index int64, actor string) ([]byte, error) {
	if s.remote != nil {
		d, err := s.decision(ctx, index)
		if err != nil {
			return nil, err
		}
		r, err := s.remote.client.SignTrustBundle(ctx, signer.TrustOrder{Document: payload, Decision: d, By: fw.PersonID(actor)})
		return r.Envelope, err
	}
	permit, err := s.Signer.Mint(signer.Grant{Purpose: fw.PurposeRosterRoot, Key: root, Subject: fw.DigestOf(payload), Evidence: index, Verdict: signer.VerdictAllow})
	if err != nil {
		return nil, err
	}
	return s.Signer.SignTrustBundle(permit, payload, time.Now())
}

// sameTrust reports whether next says nothing new. Times and versions aside.
func sameTrust(prev, next authz.TrustDocument) bool {
	next.Type, next.Version, next.Previous, next.CreatedAt = prev.Type, prev.Version, prev.Previous, prev.CreatedAt
	a, errA := prev.Encode()
	b, errB := next.Encode()
	return errA == nil && errB == nil && string(a) == string(b)
}

// trustBundle returns a version of the trust bundle, nil when there is none.
func (s *Server) trustBundle(q store.Queryer, version int64) ([]byte, error) {
	docs, err := store.VersionedDocs(q, store.TrustBundleTable)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		if d.Version == version {
			return d.Envelope, nil
		}
	}
	return nil, nil
}

// TrustBundle returns the newest trust bundle's envelope.
func (s *Server) TrustBundle(ctx context.Context) ([]byte, error) {
	row, err := store.LatestVersioned(s.DB.Snapshot(ctx), store.TrustBundleTable)
	return row.Envelope, err
}

// ListKeys returns the signing keys, public halves.
func (s *Server) ListKeys() []signer.KeyInfo { return s.Keystore.List() }

// LogVerifierKey returns the log's key as a signed-note verifier key.
func (s *Server) LogVerifierKey() string { return s.logKey }
