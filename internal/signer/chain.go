package signer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// chainSuffix names the certificates of a key, PEM, its own first. They are
// public; formats with CMS signatures put them into images.
const chainSuffix = ".chain.pem"

// Bounds of a chain.
const (
	maxChain      = 64 << 10 // bytes
	maxChainCerts = 8
)

// SetChain stores the certificates of a key, its own first. Each must be
// signed by the next. An earlier chain is replaced: a certificate is renewed
// while its key stays.
func (ks *Keystore) SetChain(name fw.KeyName, chain []*x509.Certificate) error {
	info, err := ks.Public(name)
	if err != nil {
		return err
	}
	if info.Purpose != fw.PurposeImage {
		return fw.Errorf(fw.Invalid, "key %q is for %s: only image keys have certificates", name, info.Purpose)
	}
	if err := checkChain(info, chain); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, c := range chain {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	return writeAtomic(ks.path(name, chainSuffix), b.Bytes())
}

// Chain returns the certificates of a key, its own first; none if it has none.
func (ks *Keystore) Chain(name fw.KeyName) ([]*x509.Certificate, error) {
	info, err := ks.Public(name)
	if err != nil {
		return nil, err
	}
	path := ks.path(name, chainSuffix)
	b, err := readBounded(path, maxChain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fw.Wrap(fw.Corrupt, err, "%s is damaged: store the certificates again", path)
		}
		chain = append(chain, c)
	}
	if err := checkChain(info, chain); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "%s is not of key %q: store the certificates again", path, name)
	}
	return chain, nil
}

func checkChain(info KeyInfo, chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > maxChainCerts {
		return fw.Errorf(fw.Invalid, "a chain has 1 to %d certificates, not %d", maxChainCerts, len(chain))
	}
	if id, err := dsse.KeyID(chain[0].PublicKey); err != nil || id != info.KeyID {
		return fw.Wrap(fw.Invalid, err, "the first certificate is of another key than %q: put the key's own first", info.Name)
	}
	for i, c := range chain[1:] {
		if err := chain[i].CheckSignatureFrom(c); err != nil {
			return fw.Wrap(fw.Invalid, err, "certificate %d of the chain is not signed by the one after it", i+1)
		}
	}
	return nil
}
