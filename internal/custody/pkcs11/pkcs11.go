// Package pkcs11 signs with keys on PKCS#11 tokens: smart cards, HSMs, and
// SoftHSM in tests. It is the side that the server and the signer link; the
// vendor's library is loaded by the program writ-pkcs11 (package token), which
// this one starts and speaks to over a pipe (docs/adr/0007-pkcs11-in-a-helper.md
// says why).
//
//	b, err := pkcs11.New(pkcs11.Options{Module: "/usr/lib/softhsm/libsofthsm2.so", PIN: pin})
//	key, err := b.Open(ctx, "pkcs11:token=fw;object=fw-signer;id=%01")
//
// The helper ends when the pipe does, so it cannot outlive its parent. When it
// dies, of a fault in the library, what was under way fails and the next use
// starts another.
package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// HelperName is the file name of the helper program.
const HelperName = "writ-pkcs11"

// Options configures a [Backend].
type Options struct {
	// Module is the path of the vendor's library.
	Module string

	// PIN of the user; PINFile is the path of a file with it, which only its
	// owner can read, and comes before PIN. A URI's pin-source comes before
	// both. Without any the token must have a key pad of its own.
	PIN     []byte
	PINFile string

	// Helper is the path of writ-pkcs11. Empty: the one beside the running
	// program, else the one on PATH.
	Helper string

	// Sessions is how many sessions a token is opened with at most, and so how
	// many signatures it makes at a time; 0 means 4.
	Sessions int

	// Timeout bounds each answer of the token; 0 means a minute.
	Timeout time.Duration
}

// Backend is the tokens that one library serves. It is safe for concurrent
// use.
type Backend struct {
	opt Options

	mu      sync.Mutex
	helper  *helper // nil: not started, or dead
	closed  bool
	refused map[[sha256.Size]byte]bool // see pinMark
}

var _ custody.Backend = (*Backend)(nil)

// New returns a back end. The helper starts at the first use.
func New(opt Options) (*Backend, error) {
	if !filepath.IsAbs(opt.Module) {
		return nil, fw.Errorf(fw.Invalid, "give the whole path of the PKCS#11 module, like /usr/lib/softhsm/libsofthsm2.so, not %q", opt.Module)
	}
	if opt.Sessions == 0 {
		opt.Sessions = 4
	}
	if opt.Timeout == 0 {
		opt.Timeout = time.Minute
	}
	opt.PIN = slices.Clone(opt.PIN)
	return &Backend{opt: opt, refused: map[[sha256.Size]byte]bool{}}, nil
}

// Scheme implements custody.Backend.
func (b *Backend) Scheme() string { return Scheme }

// Open implements custody.Backend.
func (b *Backend) Open(ctx context.Context, uri string) (crypto.Signer, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.Module != "" && u.Module != b.opt.Module {
		return nil, fw.Errorf(fw.Forbidden, "the PKCS#11 URI names the module %s and only the configured one, %s, is loaded", u.Module, b.opt.Module)
	}
	k := &key{b: b, uri: u}
	if err := k.open(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Close implements custody.Backend. It waits for the helper to end.
func (b *Backend) Close() error {
	b.mu.Lock()
	h := b.helper
	b.helper, b.closed = nil, true
	b.mu.Unlock()
	clear(b.opt.PIN)
	if h == nil {
		return nil
	}
	return h.stop()
}

// running returns the helper, started if need be.
func (b *Backend) running(ctx context.Context) (*helper, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fw.Errorf(fw.Unavailable, "the PKCS#11 back end is closed")
	}
	if b.helper != nil && b.helper.alive() {
		return b.helper, nil
	}
	path, err := b.opt.helperPath()
	if err != nil {
		return nil, err
	}
	h, err := startHelper(path) //nolint:contextcheck // it outlives the request that starts it
	if err != nil {
		return nil, err
	}
	if _, err := b.ask(ctx, h, Request{Op: OpStart, Module: b.opt.Module, Sessions: b.opt.Sessions}); err != nil {
		return nil, errors.Join(err, h.stop())
	}
	b.helper = h
	return h, nil
}

func (b *Backend) ask(ctx context.Context, h *helper, req Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	return h.ask(ctx, req)
}

func (o Options) helperPath() (string, error) {
	if o.Helper != "" {
		return o.Helper, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), HelperName)
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath(HelperName)
	if err != nil {
		return "", fw.Wrap(fw.Unavailable, err, "the program %s is missing, and keys on a token need it: install it beside this one", HelperName)
	}
	return path, nil
}

func (b *Backend) pin(u URI) ([]byte, error) {
	switch {
	case u.PINFile != "":
		return readPIN(u.PINFile)
	case b.opt.PINFile != "":
		return readPIN(b.opt.PINFile)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.opt.PIN), nil
}

// openKey asks for a key. A PIN that the token did not take is not sent again,
// not even to another helper: a few wrong ones lock a token.
func (b *Backend) openKey(ctx context.Context, h *helper, o Object, pin []byte) (Response, error) {
	mark := pinMark(o, pin)
	b.mu.Lock()
	known := b.refused[mark]
	b.mu.Unlock()
	if known {
		return Response{}, fw.Errorf(fw.Forbidden, "the token has refused this PIN and it is not tried again, because a few wrong ones lock the token: correct it and restart")
	}
	resp, err := b.ask(ctx, h, Request{Op: OpOpen, Object: o, PIN: pin})
	if err != nil && resp.PINRefused {
		b.mu.Lock()
		b.refused[mark] = true
		b.mu.Unlock()
	}
	return resp, err
}

// pinMark stands for one PIN at one token.
func pinMark(o Object, pin []byte) [sha256.Size]byte {
	slot := int64(-1)
	if o.Slot != nil {
		slot = *o.Slot
	}
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d %q", o.Token, o.Manufacturer, o.Model, o.Serial, slot, pin))
}

// key is a private key on a token.
type key struct {
	b   *Backend
	uri URI

	mu     sync.Mutex
	public crypto.PublicKey
	helper *helper // in which number counts
	number int
}

// Public implements crypto.Signer.
func (k *key) Public() crypto.PublicKey { return k.public }

// open opens the key in the running helper. A second time, after the helper
// died, it must find the same key.
func (k *key) open(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.b.running(ctx)
	if err != nil {
		return err
	}
	if k.helper == h {
		return nil
	}
	pin, err := k.b.pin(k.uri)
	if err != nil {
		return err
	}
	defer clear(pin)
	resp, err := k.b.openKey(ctx, h, k.uri.Object, pin)
	if err != nil {
		return err
	}
	pub, err := dsse.ParsePublicKey(resp.Public)
	if err != nil {
		return err
	}
	same, ok := pub.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || k.public != nil && !same.Equal(k.public) {
		return fw.Errorf(fw.Conflict, "the token has another key under the same name now")
	}
	k.public, k.helper, k.number = pub, h, resp.Key
	return nil
}

// Sign implements crypto.Signer. It ignores rand: the token has its own.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := custody.CheckInput(k.public, digest, opts); err != nil {
		return nil, err
	}
	req, err := request(k.public, digest, opts)
	if err != nil {
		return nil, err
	}
	// crypto.Signer has no context; the back end's time-out is the bound.
	ctx := context.Background()
	if err := k.open(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	h := k.helper
	req.Key = k.number
	k.mu.Unlock()
	resp, err := k.b.ask(ctx, h, req)
	if err != nil {
		return nil, err
	}
	sig := resp.Signature
	if req.Mechanism == MechanismECDSA {
		if sig, err = derSignature(sig); err != nil {
			return nil, err
		}
	}
	if err := custody.Verify(k.public, digest, sig, opts); err != nil {
		return nil, err
	}
	return sig, nil
}

func request(pub crypto.PublicKey, digest []byte, opts crypto.SignerOpts) (Request, error) {
	req := Request{Op: OpSign, Data: digest}
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		req.Mechanism = MechanismEdDSA
	case *ecdsa.PublicKey:
		req.Mechanism = MechanismECDSA
		// A token may refuse a digest longer than the curve instead of cutting
		// it (FIPS 186-5, section 6.4.1).
		req.Data = digest[:min(len(digest), (pub.Curve.Params().BitSize+7)/8)]
	case *rsa.PublicKey:
		pss, ok := opts.(*rsa.PSSOptions)
		if !ok {
			info, err := digestInfo(digest, opts.HashFunc())
			req.Mechanism, req.Data = MechanismPKCS1, info
			return req, err
		}
		req.Mechanism, req.Hash, req.Salt = MechanismPSS, len(digest)*8, pss.SaltLength
		switch pss.SaltLength {
		case rsa.PSSSaltLengthEqualsHash:
			req.Salt = len(digest)
		case rsa.PSSSaltLengthAuto: // as much as fits (RFC 8017, section 9.1.1)
			req.Salt = (pub.N.BitLen()-1+7)/8 - 2 - len(digest)
		}
	}
	return req, nil
}

var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{ // the others are refused
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

// digestInfo is RFC 8017, section 9.2, step 2.
func digestInfo(digest []byte, hash crypto.Hash) ([]byte, error) {
	oid, ok := hashOIDs[hash]
	if !ok {
		return nil, fw.Errorf(fw.Invalid, "RSA signatures here are over SHA-256, SHA-384 or SHA-512, not %s", hash)
	}
	type algorithm struct {
		OID  asn1.ObjectIdentifier
		Null asn1.RawValue
	}
	return asn1.Marshal(struct {
		Algorithm algorithm
		Digest    []byte
	}{algorithm{oid, asn1.NullRawValue}, digest})
}

// derSignature turns r‖s into the ASN.1 that crypto.Signer answers with.
func derSignature(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fw.Errorf(fw.Corrupt, "the token answered %d bytes, which is no ECDSA signature", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// environment is what the helper gets: the vendor's variables, and none of
// ours, in which there may be secrets.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WRIT_") })
}
