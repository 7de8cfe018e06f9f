package agent

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
)

// Enrolment is what a device needs to become one of the fleet.
type Enrolment struct {
	// Config is stored as config.json. Product may be empty.
	Config Config
	Token  string // one-time
	// Trust is the trust bundle to begin with, as signed. It is believed
	// because it is given here.
	Trust []byte
	// Roots are root keys, SubjectPublicKeyInfo PEM. Instead of Trust: the
	// server's bundle is believed if every root it names is among them.
	Roots []byte
	// Image is the firmware the device left the factory with, Envelope its
	// detached signature, paths; empty: none. It is verified like any other.
	Image, Envelope string
}

// Enrol makes the device's key, gets its certificate and fills the state
// directory. It may be repeated after a failure: the key stays the same. A
// device that has a certificate is left as it is.
func Enrol(ctx context.Context, dir string, e Enrolment) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make the state directory %s", dir)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	return errors.Join(enrol(ctx, dir, e), unlock())
}

func enrol(ctx context.Context, dir string, e Enrolment) error {
	if exists(filepath.Join(dir, "cert.pem")) {
		_, err := recoverIdentity(dir)
		return err
	}
	cfg := e.Config
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return err
	}
	var trust *authz.TrustBundle
	var err error
	switch {
	case len(e.Trust) > 0:
		if trust, err = authz.OpenTrust(e.Trust); err != nil {
			return err
		}
	case len(e.Roots) == 0:
		return fw.Errorf(fw.Invalid, "give the trust bundle (--trust FILE) or the root keys (--root FILE): a device that believes whoever answers first is no use")
	}
	// Before the token is spent.
	if err := placeFactory(ctx, dir, cfg, trust, e); err != nil {
		return err
	}
	key, err := ensureKey(dir, currentID)
	if err != nil {
		return err
	}
	roots, err := serverRoots(trust, cfg.ServerCA)
	if err != nil {
		return err
	}
	csr, err := request(key, cfg.Device)
	if err != nil {
		return err
	}
	c := newClient(cfg.Server, roots, nil)
	defer c.close()
	var reply certificates
	if err := c.postJSON(ctx, pathEnrol, enrolRequest{Token: e.Token, CSR: csr}, &reply); err != nil {
		return err
	}
	if trust == nil {
		if trust, err = trustFromRoots(reply.TrustBundle, e.Roots); err != nil {
			return err
		}
		if err := placeFactory(ctx, dir, cfg, trust, e); err != nil {
			return err
		}
	}
	id := &identity{key: key, chain: reply.Certificates}
	if err := id.check(); err != nil {
		return fw.Wrap(fw.Unavailable, err, "the server's answer is of no use")
	}
	for _, u := range id.leaf.URIs {
		if product, device, err := pki.ParseDeviceURI(u.String()); err == nil && device == cfg.Device {
			e.Config.Product = product
		}
	}
	if err := writeFile(filepath.Join(dir, "trust.json"), trust.Envelope()); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot write the trust bundle")
	}
	if err := e.Config.Save(dir); err != nil {
		return err
	}
	// Last: the certificate says that enrolment is complete.
	_, err = storeChain(dir, currentID, key, reply.Certificates)
	return err
}

type enrolRequest struct {
	Token string `json:"token"`
	CSR   []byte `json:"csr"` // PKCS #10, DER
}

type renewRequest struct {
	CSR []byte `json:"csr"`
}

// certificates answers both.
type certificates struct {
	Certificates [][]byte `json:"certificates"` // DER, the device's own first
	TrustBundle  []byte   `json:"trust_bundle"`
	ServerTime   int64    `json:"server_time"`
}

// trustFromRoots believes a bundle whose roots are all known. Fewer would not
// do: a bundle is signed by a threshold of the roots it names itself.
func trustFromRoots(envelope, roots []byte) (*authz.TrustBundle, error) {
	trust, err := authz.OpenTrust(envelope)
	if err != nil {
		return nil, fw.Wrap(fw.Forbidden, err, "the server's trust bundle cannot be believed")
	}
	var known [][]byte
	for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
		known = append(known, block.Bytes)
	}
	for _, k := range trust.Document().Roots.Keys {
		if !slices.ContainsFunc(known, func(der []byte) bool { return bytes.Equal(der, k.PublicKey) }) {
			return nil, fw.Errorf(fw.Forbidden, "the server's trust bundle names root %s, which was not given with --root", k.ID.Hex())
		}
	}
	return trust, nil
}

// placeFactory verifies the factory's image and puts it into slot a. Without
// a trust bundle, yet, it waits.
func placeFactory(ctx context.Context, dir string, cfg Config, trust *authz.TrustBundle, e Enrolment) (err error) {
	if e.Image == "" || trust == nil {
		return nil
	}
	var envelope []byte
	if e.Envelope != "" {
		if envelope, err = os.ReadFile(e.Envelope); err != nil {
			return fw.Wrap(fw.Invalid, err, "cannot read the signature %s", e.Envelope)
		}
	}
	where := filepath.Join(dir, slotA.dir())
	if err := os.MkdirAll(where, 0o700); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make %s", where)
	}
	part := filepath.Join(where, "factory.part")
	if err := copyFile(part, e.Image); err != nil {
		return err
	}
	info, err := inspect(ctx, part, "", envelope, cfg, trust.ImageKeys(time.Now().Unix()))
	if err != nil {
		return err
	}
	m := meta{Version: info.Version, Digest: info.Digest, Size: info.Size, Format: info.Format, Envelope: info.Envelope}
	if info.SecurityCounter != nil {
		m.SecurityCounter = *info.SecurityCounter
	}
	if len(info.Hardware) > 0 && !slices.Contains(info.Hardware, cfg.Hardware) {
		return fw.Errorf(fw.Invalid, "%s is for hardware %v, this is %s", e.Image, info.Hardware, cfg.Hardware)
	}
	if err := place(where, part, envelope, m); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot place the factory image")
	}
	return switchTo(dir, slotA)
}
