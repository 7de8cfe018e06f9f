package signer

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/mcuboot"
	"github.com/writ-project/writ/internal/image/raw"
)

// The encoders that exist make images that verify, with the claims of the
// approved manifest, when all they get is a lent key.
func TestSignImageWithRealFormats(t *testing.T) {
	for _, f := range []image.Format{mcuboot.Format{}, raw.Format{}} {
		for _, alg := range []Algorithm{ECDSAP256, Ed25519} {
			t.Run(f.Name()+" "+string(alg), func(t *testing.T) {
				w := newWorld(t)
				if _, err := w.ks.Create(t.Context(), "image-2", fw.PurposeImage, alg, t0); err != nil {
					t.Fatal(err)
				}
				w.manifest.Components[0].Format, w.manifest.Components[0].Key = f.Name(), "image-2"
				req := w.request(t, "alice", "bob")
				var out bytes.Buffer
				req.Format, req.Output = f, &out
				p := w.mint(t, Grant{Purpose: fw.PurposeImage, Key: "image-2", Subject: fw.DigestOf(w.input), Evidence: 1})
				res, err := w.s.SignImage(t.Context(), p, req)
				if err != nil {
					t.Fatal(err)
				}
				v, err := f.Verify(t.Context(), bytes.NewReader(out.Bytes()), int64(out.Len()), res.Envelope, []crypto.PublicKey{w.public(t, "image-2")})
				if err != nil {
					t.Fatal(err)
				}
				info, err := w.ks.Public("image-2")
				if err != nil {
					t.Fatal(err)
				}
				if v.KeyID != info.KeyID || v.Info.SecurityCounter == nil || *v.Info.SecurityCounter != 7 {
					t.Errorf("%+v", v)
				}
				if got := fw.DigestOf(out.Bytes()); got != fw.Digest(res.SHA256) {
					t.Errorf("wrote %s and says %x", got, res.SHA256)
				}
			})
		}
	}
}
