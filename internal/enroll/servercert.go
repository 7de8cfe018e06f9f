package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

// ServerCertificate issues a TLS certificate for names, DNS names and IP
// addresses, to a fresh key that never leaves memory. The server asks at each
// start and before the end of the last one.
func (a *Authority) ServerCertificate(ctx context.Context, names []string, p pki.ServerProfile) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot make a key for the server")
	}
	var der []byte
	err = a.o.DB.Tx(ctx, func(tx *store.Tx) error {
		tmpl, err := pki.ServerTemplate(key.Public(), p, names, tx.Now())
		if err != nil {
			return err
		}
		i, err := a.leaf(issuance{
			template: tmpl, public: key.Public(), actor: server, stream: evidence.LogStream,
			reason: "TLS certificate of the server for " + clip(strings.Join(names, ", ")),
		}, tx.Now())
		if err != nil {
			return err
		}
		der, err = a.issue(tx, i)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("issuing the server's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the server's certificate cannot be read")
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.root.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// serialText is the form in which serials are stored, pki.DeviceIdentity's.
func serialText(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// maxText bounds reasons in bytes.
const maxText = 500

// clip bounds a text that this package composes.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText-3], "") + "..."
}
