package cli

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
)

// signFlags are the flags of writ image sign.
type signFlags struct {
	key, certificates, out, envelope, format, layout string
	recipient                                        string
	counter                                          int64
	force                                            bool
	opt                                              image.SignOptions
}

func (a *app) imageSign() *cobra.Command {
	var s signFlags
	cmd := &cobra.Command{
		Use: "sign FILE --key PRIVATE_KEY --out FILE", Short: "Sign an image with a key file, or sign a signed one again",
		Long: `Sign an image with a private key in a file. This is for bring-up and for keys
that are yours alone: a release is signed by the server or writ-signer, under
approval and with a record.

What the format has no place for is ignored; what contradicts the image is
refused. Options that only one format has go into --layout, a JSON object or
@FILE; docs/formats says what each format takes. The result is verified, by
code that shares nothing with the encoder, before it appears under --out.`,
		Example: examples(
			"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out image.key",
			"writ image sign zephyr.bin --format mcuboot --version 1.2.0 --security-counter 3 --key image.key --out zephyr.signed.bin",
			"writ image sign update.swu --key sign.key --certificates sign.pem --out update.signed.swu"),
		Args: exactly("FILE"),
	}
	f := cmd.Flags()
	f.StringVar(&s.key, "key", "", "file of the private key, PEM (PKCS #8, SEC 1 or PKCS #1)")
	f.StringVar(&s.certificates, "certificates", "", "the key's certificate and those above it, for formats with CMS signatures")
	f.StringVar(&s.out, "out", "", "where the signed image goes")
	f.StringVar(&s.envelope, "envelope", "", "where a detached signature goes (default: --out and .sig)")
	f.StringVar(&s.format, "format", "", formatUsage)
	f.StringVar(&s.opt.Version, "version", "", "version the image shall have")
	f.Int64Var(&s.counter, "security-counter", -1, "security counter (anti-rollback)")
	f.StringVar(&s.opt.Product, "product", "", "product")
	f.StringArrayVar(&s.opt.Hardware, "hardware", nil, "compatibility id (repeat)")
	f.StringVar(&s.opt.Vendor, "vendor", "", "vendor, a DNS name or UUID, for formats with UUID binding")
	f.StringVar(&s.recipient, "recipient-key", "", "private key that the image is encrypted to, to verify the result")
	f.StringVar(&s.layout, "layout", "", "options of the format, a JSON object or @FILE")
	f.IntVar(&s.opt.HeaderSize, "header-size", 0, "size of the image header in bytes (MCUboot)")
	f.BoolVar(&s.opt.HeaderInPlace, "header-in-place", false, "the image begins with room for the header (Zephyr)")
	f.Int64Var(&s.opt.SlotSize, "slot-size", 0, "size of the flash slot in bytes (MCUboot)")
	f.BoolVar(&s.force, "force", false, "replace --out if it exists")
	need(cmd, "key")
	need(cmd, "out")
	cmd.RunE = a.run(func(cmd *cobra.Command, args []string) error { return a.signImage(cmd.Context(), args[0], &s) })
	return cmd
}

func (a *app) signImage(ctx context.Context, path string, s *signFlags) error {
	key, err := s.options()
	if err != nil {
		return err
	}
	in, err := a.openImage(path, s.format)
	if err != nil {
		return err
	}
	defer in.close()
	if _, err := os.Stat(s.out); err == nil && !s.force {
		return fw.Errorf(fw.Conflict, "%s exists: name another --out, or give --force", s.out)
	}
	out, err := os.CreateTemp(filepath.Dir(s.out), ".writ-sign-*")
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot write into %s", filepath.Dir(s.out))
	}
	defer func() { _, _ = out.Close(), os.Remove(out.Name()) }() // renamed when all went well
	in.bar.label = "signing"
	res, err := in.format.Sign(ctx, out, in, in.size, key, s.opt)
	if err != nil {
		return imageError(err, path)
	}
	trusted := []crypto.PublicKey{key.Public()}
	if s.recipient != "" {
		r, err := readRecipient(s.recipient)
		if err != nil {
			return err
		}
		trusted = append(trusted, r)
	}
	v, err := in.format.Verify(ctx, out, res.Size, res.Envelope, trusted)
	if errors.Is(err, image.ErrEncrypted) && s.recipient == "" {
		return a.placeEncrypted(ctx, in.format, out, s, res)
	}
	if err != nil {
		return fw.Wrap(fw.Internal, err, "the signed image does not pass verification, so nothing was written: please report it")
	}
	if err := s.place(out, res.Envelope); err != nil {
		return err
	}
	return a.showVerified(v)
}

// placeEncrypted ends the signing of an image that only its recipient can
// verify.
func (a *app) placeEncrypted(ctx context.Context, f image.Format, out *os.File, s *signFlags, res image.SignResult) error {
	info, err := f.Inspect(ctx, out, res.Size)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "the signed image is not well formed, so nothing was written: please report it")
	}
	if err := s.place(out, res.Envelope); err != nil {
		return err
	}
	a.say("only the holder of the recipient's private key can verify it: give --recipient-key to have that done here")
	return a.show(info, func(w io.Writer) { imageText(w, info) })
}

// readRecipient reads the private key that an image is encrypted to.
func readRecipient(path string) (image.Recipient, error) {
	b, err := readSmall(path)
	if err != nil {
		return image.Recipient{}, err
	}
	defer clear(b)
	var parsed any
	if block, _ := pem.Decode(b); block != nil && block.Type == "PRIVATE KEY" {
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	} else {
		parsed, err = parsePrivate(b)
	}
	if err == nil {
		switch k := parsed.(type) {
		case *ecdh.PrivateKey:
			return image.Recipient{PrivateKey: k}, nil
		case *ecdsa.PrivateKey:
			var e *ecdh.PrivateKey
			if e, err = k.ECDH(); err == nil {
				return image.Recipient{PrivateKey: e}, nil
			}
		}
	}
	return image.Recipient{}, fw.Wrap(fw.Invalid, err, "%s is no private key for decryption: give a P-256 or X25519 key in PEM", path)
}

// options reads the files that the flags name.
func (s *signFlags) options() (crypto.Signer, error) {
	if s.counter >= 0 {
		n := uint64(s.counter)
		s.opt.SecurityCounter = &n
	}
	switch file, isFile := strings.CutPrefix(s.layout, "@"); {
	case isFile:
		b, err := readSmall(file)
		if err != nil {
			return nil, err
		}
		s.opt.Layout = b
	case s.layout != "":
		s.opt.Layout = json.RawMessage(s.layout)
	}
	if len(s.opt.Layout) > 0 && !json.Valid(s.opt.Layout) {
		return nil, fw.Errorf(fw.Invalid, "--layout is no JSON")
	}
	if s.certificates != "" {
		var err error
		if s.opt.Certificates, err = readCertificates(s.certificates); err != nil {
			return nil, err
		}
	}
	return readPrivate(s.key)
}

// readPrivate reads the private key in a PEM file.
func readPrivate(path string) (crypto.Signer, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	key, err := parsePrivate(b)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "%s is no private key: give PEM, as openssl genpkey writes it", path)
	}
	return key, nil
}

// parsePrivate reads a private key in PEM.
func parsePrivate(b []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("it is encrypted: decrypt it with openssl pkey into a place of your own")
		default:
			continue // such as EC PARAMETERS before the key
		}
		if err != nil {
			return nil, err
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
	}
	return nil, errors.New("it holds no private key")
}

// place moves the signed image, and its envelope if there is one, to where
// they shall be. The image comes last: what is there is complete.
func (s *signFlags) place(out *os.File, envelope []byte) error {
	fail := func(err error, path string) error {
		return fw.Wrap(fw.Unavailable, err, "cannot write %s", path)
	}
	if len(envelope) > 0 {
		path := s.envelope
		if path == "" {
			path = s.out + ".sig"
		}
		if err := writeWhole(path, envelope); err != nil {
			return fail(err, path)
		}
	}
	if err := errors.Join(out.Chmod(0o644), out.Sync()); err != nil {
		return fail(err, s.out)
	}
	if err := os.Rename(out.Name(), s.out); err != nil {
		return fail(err, s.out)
	}
	return nil
}

// writeWhole writes a file that is either complete or not there.
func writeWhole(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".writ-*")
	if err != nil {
		return err
	}
	_, err = io.Writer(f).Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
