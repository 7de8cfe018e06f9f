package verify

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/tlog"
)

// logKey is a log's verifier key taken apart.
type logKey struct {
	origin string
	pub    ed25519.PublicKey
}

// parseLogKey reads a signed-note verifier key: name, key hash and key joined
// by plus signs (C2SP signed-note).
func parseLogKey(vkey string) (logKey, error) {
	bad := fw.Errorf(fw.Invalid, "%.80q is not a log key: it must have the form NAME+HASH+KEY", vkey)
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return logKey{}, bad
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return logKey{}, bad
	}
	k := logKey{origin: parts[0], pub: ed25519.PublicKey(raw[1:])}
	if again, err := tlog.VerifierKey(k.origin, k.pub); err != nil || again != vkey {
		return logKey{}, bad
	}
	return k, nil
}

// ParseRosterRoot reads the public key of a roster root: PEM or DER of a
// SubjectPublicKeyInfo with an Ed25519 key.
func ParseRosterRoot(b []byte) (ed25519.PublicKey, error) {
	if block, rest := pem.Decode(b); block != nil && len(bytes.TrimSpace(rest)) == 0 {
		b = block.Bytes
	}
	pub, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "this is not a public key in PEM or DER form")
	}
	key, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fw.Errorf(fw.Invalid, "a roster root key is an Ed25519 key")
	}
	return key, nil
}

// keyring is what the log has said about keys and approvers so far.
type keyring struct {
	keys map[fw.KeyName]evidence.Key
	cas  []*x509.Certificate // with the key only
	// authorization has the keys that sign authorizations, by id.
	authorization map[fw.Digest]crypto.PublicKey
	roots         []ed25519.PublicKey
	fixed         bool // roots are the auditor's own
	trust         *authz.TrustBundle
	roster        *approval.Roster // the newest
}

// created takes in a key_created record.
func (a *auditor) keyCreated(it *item, k *evidence.Key) {
	pub, err := dsse.ParsePublicKey(k.Public)
	if err != nil {
		a.fail(it, "the key %s in it cannot be read", clip(string(k.Name)))
		return
	}
	if k.KeyID != fw.DigestOf(k.Public).Hex() {
		a.fail(it, "the id of key %s is not that of its bytes", clip(string(k.Name)))
	}
	if _, twice := a.ring.keys[k.Name]; twice {
		a.fail(it, "key %s is made twice", clip(string(k.Name)))
	}
	a.hold(2*sizeKey + 2*len(it.rec.Data))
	a.ring.keys[k.Name] = *k
	switch k.Purpose {
	case fw.PurposeDeviceCA:
		a.ring.cas = append(a.ring.cas, anchor(pub))
	case fw.PurposeRosterRoot:
		if root, ok := pub.(ed25519.PublicKey); ok && !a.ring.fixed {
			a.ring.roots = append(a.ring.roots, root)
		}
	case fw.PurposeLog:
		a.logKeyKnown = a.logKeyKnown || a.key.pub.Equal(pub)
	case fw.PurposeAuthorization:
		a.ring.authorizes(k.Public, pub)
	case fw.PurposeImage, fw.PurposeStatement:
	}
}

// anchor wraps a CA's key so that x509 checks signatures with it.
func anchor(pub crypto.PublicKey) *x509.Certificate {
	return &x509.Certificate{PublicKey: pub}
}

// rosterRecord checks a new roster of approvers.
func (a *auditor) rosterRecord(it *item, document []byte) {
	var next *approval.Roster
	err := fw.Errorf(fw.Forbidden, "there is no roster root key")
	for _, root := range a.ring.roots {
		if next, err = approval.OpenRoster(document, root); err == nil {
			break
		}
	}
	if err != nil {
		a.fail(it, "the roster is not signed by a roster root key: %v", err)
		return
	}
	a.counts.Signatures++
	if err := next.Follows(a.ring.roster); err != nil {
		a.fail(it, "%v", err)
	}
	a.ring.roster = next
}

// trustBundle checks a new trust bundle for devices.
func (a *auditor) trustBundle(it *item, document []byte) {
	var next *authz.TrustBundle
	var err error
	if a.ring.trust == nil {
		next, err = authz.OpenTrust(document)
	} else {
		next, err = authz.Accept(a.ring.trust, document)
	}
	if err != nil {
		a.fail(it, "the trust bundle is not signed as it must be: %v", err)
		return
	}
	a.counts.Signatures++
	a.ring.trust = next
}
