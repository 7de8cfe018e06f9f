package cli

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/image/minisign"
)

func (a *app) imageCmd() *cobra.Command {
	inspect := &cobra.Command{
		Use: "inspect FILE", Short: "Say what an image claims; no key is needed",
		Long: `Say what an image claims about itself: format, version, security counter,
digests, and who is said to have signed it. Nothing of that is verified but
that the image is well formed and its own digest is right. The format is found
by the first bytes; --format takes another.`,
		Example: examples("writ image inspect zephyr.signed.bin", "writ image inspect -o json zephyr.signed.bin"),
		Args:    exactly("FILE"),
	}
	format := inspect.Flags().String("format", "", formatUsage)
	inspect.RunE = a.run(func(cmd *cobra.Command, args []string) error {
		f, err := a.openImage(args[0], *format)
		if err != nil {
			return err
		}
		defer f.close()
		info, err := f.format.Inspect(cmd.Context(), f, f.size)
		if err != nil {
			return imageError(err, args[0])
		}
		return a.show(info, func(w io.Writer) { imageText(w, info) })
	})
	return group("image", "Look at firmware images and sign them, offline", "", inspect, a.imageSign(), a.imageVerify())
}

var formatUsage = "format of the image: " + strings.Join(formatNames(), ", ") + " (default: found by its first bytes)"

func formatNames() []string {
	var out []string
	for _, f := range formats.All() {
		out = append(out, f.Name())
	}
	return out
}

func (a *app) imageVerify() *cobra.Command {
	verify := &cobra.Command{
		Use: "verify FILE --key PUBLIC_KEY", Short: "Verify the signature of an image",
		Long: `Verify that an image is signed by one of the given keys, with the code that
writ uses before it publishes a release. Keys are public keys or certificates,
PEM or DER. With --ca, a certificate that the image carries itself (SWUpdate,
RAUC) is believed if that CA issued it. A format whose signature is a file of
its own needs --envelope.

Exits 0 when a key verifies it, 1 with the reason when none does, 2 on usage.`,
		Example: examples("writ image verify --key image.pem zephyr.signed.bin",
			"writ image verify --ca signing-ca.pem update.swu",
			"writ image verify --key image.pem --envelope app.dsse.json app.bin"),
		Args: exactly("FILE"),
	}
	var keys, cas []string
	var envelope, format, recipient string
	verify.Flags().StringArrayVar(&keys, "key", nil, "file of a public key or certificate to trust (repeat)")
	verify.Flags().StringArrayVar(&cas, "ca", nil, "file of a CA whose certificates to trust (repeat)")
	verify.Flags().StringVar(&envelope, "envelope", "", "detached signature, for formats that have one")
	verify.Flags().StringVar(&format, "format", "", formatUsage)
	verify.Flags().StringVar(&recipient, "recipient-key", "", "private key, PEM, that an encrypted image is encrypted to")
	verify.RunE = a.run(func(cmd *cobra.Command, args []string) error {
		trusted, err := trustedKeys(keys, cas)
		if err != nil {
			return err
		}
		if recipient != "" {
			key, err := readRecipient(recipient)
			if err != nil {
				return err
			}
			trusted = append(trusted, key)
		}
		var env []byte
		if envelope != "" {
			if env, err = readSmall(envelope); err != nil {
				return err
			}
		}
		if len(env) > 0 && format == "" {
			format = formats.ForEnvelope(env).Name()
		}
		f, err := a.openImage(args[0], format)
		if err != nil {
			return err
		}
		defer f.close()
		v, err := f.format.Verify(cmd.Context(), f, f.size, env, trusted)
		if err != nil {
			return imageError(err, args[0])
		}
		return a.showVerified(v)
	})
	return verify
}

func (a *app) showVerified(v image.Verified) error {
	out := struct {
		Verified  bool       `json:"verified"`
		KeyID     string     `json:"key_id"`
		Algorithm string     `json:"algorithm"`
		Image     image.Info `json:"image"`
	}{true, v.KeyID, v.Algorithm, v.Info}
	return a.show(out, func(w io.Writer) {
		fields(w, "verified", "yes", "key", v.KeyID, "algorithm", v.Algorithm)
		imageText(w, v.Info)
	})
}

// trustedKeys reads what --key and --ca name.
func trustedKeys(keys, cas []string) ([]crypto.PublicKey, error) {
	if len(keys)+len(cas) == 0 {
		return nil, fw.Errorf(fw.Invalid, "say whom to trust: give --key with a public key or certificate, or --ca")
	}
	var out []crypto.PublicKey
	for _, p := range keys {
		b, err := readSmall(p)
		if err != nil {
			return nil, err
		}
		pub, err := parsePublic(b)
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "%s is no public key: give a PUBLIC KEY or a CERTIFICATE, PEM or DER", p)
		}
		out = append(out, pub)
	}
	for _, p := range cas {
		chain, err := readCertificates(p)
		if err != nil {
			return nil, err
		}
		for _, c := range chain {
			out = append(out, image.CA{Certificate: c})
		}
	}
	return out, nil
}

// parsePublic reads a public key or certificate, PEM or DER.
func parsePublic(b []byte) (crypto.PublicKey, error) {
	if block, _ := pem.Decode(b); block != nil {
		if strings.Contains(block.Type, "PRIVATE") {
			return nil, errors.New("it holds a private key, which no verifier needs")
		}
		b = block.Bytes
	}
	if pub, err := dsse.ParsePublicKey(b); err == nil {
		return pub, nil
	}
	if c, err := x509.ParseCertificate(b); err == nil {
		return c.PublicKey, nil
	}
	if pub, err := x509.ParsePKCS1PublicKey(b); err == nil {
		return pub, nil // as MCUboot bootloaders embed RSA keys
	}
	if pub, err := minisign.ParsePublicKey(b); err == nil {
		return pub, nil
	}
	return nil, errors.New("it is neither a SubjectPublicKeyInfo nor a certificate")
}

// readCertificates reads one or more certificates, PEM or DER.
func readCertificates(path string) ([]*x509.Certificate, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	var der []byte
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
	if der == nil {
		der = b
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil || len(chain) == 0 {
		return nil, fw.Wrap(fw.Invalid, err, "%s holds no certificate: give CERTIFICATE in PEM, or DER", path)
	}
	return chain, nil
}

// openedImage is an image file, its format, and a bar that shows how far it
// was read.
type openedImage struct {
	*os.File

	format image.Format
	size   int64
	bar    *bar

	mu  sync.Mutex
	far int64
}

// ReadAt implements io.ReaderAt.
func (f *openedImage) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.far = max(f.far, off+int64(n)); f.size >= barFrom {
		f.bar.set(f.far)
	}
	return n, err
}

// barFrom is the size from which reading an image takes long enough to show.
const barFrom = 32 << 20

func (f *openedImage) close() {
	f.bar.end()
	_ = f.Close() // only read
}

func (a *app) openImage(path, format string) (*openedImage, error) {
	f, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	out := &openedImage{File: f, size: size, bar: a.newBar("reading", size, bytesUnit)}
	if format == "" {
		if out.format, err = formats.Detect(f, size); err != nil {
			return nil, errors.Join(imageError(err, path), f.Close())
		}
		return out, nil
	}
	var ok bool
	if out.format, ok = formats.ForName(format); !ok {
		return nil, errors.Join(fw.Errorf(fw.Invalid, "unknown format %q: use one of %s", format, strings.Join(formatNames(), ", ")), f.Close())
	}
	return out, nil
}

func imageText(w io.Writer, i image.Info) {
	counter := ""
	if i.SecurityCounter != nil {
		counter = count(*i.SecurityCounter)
		if counter == "" {
			counter = "0"
		}
	}
	pairs := []string{
		"format", i.Format, "product", i.Product, "version", i.Version, "security counter", counter,
		"hardware", joined(i.Hardware), "vendor", i.Vendor, "size", bytesUnit(i.Size),
	}
	for _, d := range i.Digests {
		pairs = append(pairs, "digest of "+d.Scope, d.Algorithm+":"+d.Hex)
	}
	for _, s := range i.Signatures {
		pairs = append(pairs, "signature", s.Algorithm+" by "+s.KeyID)
	}
	if i.Encrypted {
		pairs = append(pairs, "encrypted", "yes")
	}
	fields(w, pairs...)
}

// imageError tells a refused image (exit 1) from a file that cannot be read.
func imageError(err error, path string) error {
	if reason, ok := image.ReasonOf(err); ok {
		return fw.Wrap(fw.Internal, err, "%s is refused (%s)", path, reason)
	}
	return fw.Wrap(fw.Invalid, err, "cannot read %s", path)
}

// openFile opens a regular file.
func openFile(path string) (*os.File, int64, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the user's own file
	if err != nil {
		return nil, 0, openError(err, path)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, 0, fw.Wrap(fw.Invalid, errors.Join(err, f.Close()), "cannot use %s", path)
	}
	return f, info.Size(), nil
}
