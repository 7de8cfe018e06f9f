package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

// keyCertifyCmd gives a key its certificates.
func (a *app) keyCertifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "certify NAME CHAIN.pem", Short: "Give an image key its certificate, for formats with CMS signatures",
		Long: `Give an image key on the server its certificate and those above it, PEM or DER,
the key's own first. SWUpdate and RAUC bundles carry them, and devices check
them against the CA in their image. Your CA needs the public key only; the
private key stays where it is. SWUpdate and RAUC want the extended key usage
emailProtection, or must be told otherwise.`,
		Example: examples(
			"writ key show image > image.pem",
			"openssl x509 -new -force_pubkey image.pem -subj '/CN=firmware signing' -days 3650 \\",
			"  -CA ca.pem -CAkey ca.key -extfile <(echo extendedKeyUsage=emailProtection) -out sign.pem",
			"writ key certify image sign.pem"),
		Args: exactly("NAME", "CHAIN.pem"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			chain, err := readCertificates(args[1])
			if err != nil {
				return err
			}
			var b bytes.Buffer
			for _, cert := range chain {
				if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
					return fw.Wrap(fw.Internal, err, "cannot encode the certificates")
				}
			}
			key, err := c.Server().CertifyKey(ctx, fw.KeyName(args[0]), apitypes.KeyChain{Certificates: b.String()})
			if err != nil {
				return err
			}
			return a.show(key, func(w io.Writer) { putf(w, "key %s has %d certificates\n", key.Name, len(chain)) })
		}),
	}
}
