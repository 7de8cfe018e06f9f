package cli

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
)

func (a *app) imageCmd() *cobra.Command {
	inspect := &cobra.Command{
		Use: "inspect FILE", Short: "Say what an image claims; no key is needed",
		Long: `Say what an image claims about itself: format, version, security counter,
digests, and who is said to have signed it. Nothing of that is verified but
that the image is well formed and its own digest is right.`,
		Example: examples("writ image inspect zephyr.signed.bin", "writ image inspect -o json zephyr.signed.bin"),
		Args:    exactly("FILE"),
		RunE: a.run(func(cmd *cobra.Command, args []string) error {
			f, size, err := openFile(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			format, err := formats.Detect(f, size)
			if err != nil {
				return imageError(err, args[0])
			}
			info, err := format.Inspect(cmd.Context(), f, size)
			if err != nil {
				return imageError(err, args[0])
			}
			return a.show(info, func(w io.Writer) { imageText(w, info) })
		}),
	}
	var keys []string
	var envelope string
	verify := &cobra.Command{
		Use: "verify FILE --key PUB.pem", Short: "Verify the signature of an image",
		Long: `Verify that an image is signed by one of the given keys, with the code that
writ uses before it publishes a release. Keys are PEM files (PUBLIC KEY or
CERTIFICATE). A raw image has its signature beside it: give --envelope.`,
		Example: examples("writ image verify --key image.pem zephyr.signed.bin", "writ image verify --key image.pem --envelope app.dsse.json app.bin"),
		Args:    exactly("FILE"),
		RunE: a.run(func(cmd *cobra.Command, args []string) error {
			pubs, err := publicKeys(keys)
			if err != nil {
				return err
			}
			var env []byte
			if envelope != "" {
				if env, err = readSmall(envelope); err != nil {
					return err
				}
			}
			f, size, err := openFile(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			format, err := formats.Detect(f, size)
			if err != nil {
				return imageError(err, args[0])
			}
			v, err := format.Verify(cmd.Context(), f, size, env, pubs)
			if err != nil {
				return imageError(err, args[0])
			}
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
		}),
	}
	verify.Flags().StringArrayVar(&keys, "key", nil, "PEM file of a public key to trust (repeat)")
	verify.Flags().StringVar(&envelope, "envelope", "", "detached signature of a raw image")
	need(verify, "key")
	return group("image", "Look at firmware images, offline", "", inspect, verify)
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

func publicKeys(paths []string) ([]crypto.PublicKey, error) {
	var out []crypto.PublicKey
	for _, p := range paths {
		b, err := readSmall(p)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, fw.Errorf(fw.Invalid, "%s holds no PEM: give a PUBLIC KEY or a CERTIFICATE", p)
		}
		var pub crypto.PublicKey
		switch block.Type {
		case "PUBLIC KEY":
			pub, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				pub = c.PublicKey
			}
		default:
			err = errors.New("it holds " + block.Type)
		}
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "%s is no public key: give a PUBLIC KEY or a CERTIFICATE in PEM", p)
		}
		out = append(out, pub)
	}
	return out, nil
}
