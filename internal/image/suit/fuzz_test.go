package suit

import (
	"bytes"
	"context"
	"crypto"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func seed(f *testing.F) {
	f.Helper()
	for i := range 6 {
		f.Add(example(f, i))
	}
	for _, l := range []Layout{{Integrated: true}, {}, {SeverInstall: true, Invoke: true, Devices: []string{
		"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002",
	}}} {
		out, env := mustSign(f, []byte("a small image"), newEd25519(f), options(f, l))
		if env != nil {
			out = env
		}
		f.Add(out)
	}
}

// reseat puts the right digest of the manifest into an envelope that is
// otherwise well formed, so that the fuzzer gets past it.
func reseat(b []byte) []byte {
	e, err := readEnvelope(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return b
	}
	a, err := readAuthentication(e.authentication)
	if err != nil {
		return b
	}
	b = bytes.Clone(b)
	if i := bytes.Index(b, []byte(a.manifest.sum)); i > 0 {
		copy(b[i:], a.manifest.of(e.manifest.head, e.manifest.body))
	}
	return b
}

// Whatever Inspect accepts, it describes without contradiction.
func FuzzInspect(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = reseat(b)
		info, err := inspectBytes(b)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if info.Size != int64(len(b)) {
			t.Fatalf("size %d of %d bytes", info.Size, len(b))
		}
		if !(Format{}).Detect(b) {
			return
		}
		d := detailsOf(t, info)
		if d.Draft != Draft || *info.SecurityCounter != d.SequenceNumber || len(info.Signatures) == 0 {
			t.Fatalf("got %+v, %+v", info, d)
		}
		// The image digest is there exactly when there is one image.
		_, ok := info.Digest(image.ScopeImage)
		for _, i := range d.Images {
			if ok && i.Digest != d.Images[0].Digest {
				t.Fatalf("one image digest for %+v", d.Images)
			}
		}
	})
}

// Nothing verifies under the draft's key but the draft's manifests: the fuzzer
// has no private key.
func FuzzVerify(f *testing.F) {
	seed(f)
	key := draftKey(f)
	signed := map[string]bool{}
	for i := range 6 {
		signed[authenticationOf(f, example(f, i)).manifest.sum] = true
	}
	img := sample(f, "payload.bin")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range []struct{ file, env []byte }{{b, nil}, {img, b}} {
			_, err := verifyBytes(c.file, c.env, key)
			if err != nil {
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("refused without a reason: %v", err)
				}
				continue
			}
			if !signed[authenticationOf(t, b).manifest.sum] || c.env != nil {
				t.Fatalf("verified what nobody signed: %x", b)
			}
		}
	})
}

// Manifests as their signer may write them: what is signed need not be sane.
func FuzzManifest(f *testing.F) {
	for i := range 6 {
		e, _, err := openEnvelope(bytes.NewReader(example(f, i)), int64(len(example(f, i))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.manifest.body)
	}
	f.Add(goodManifest(f))
	key := newEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxEnvelope/2 {
			return
		}
		_, err := verifyBytes(reseal(t, key, b, nil), nil, key.Public())
		if _, ok := image.ReasonOf(err); err != nil && !ok {
			t.Fatalf("refused without a reason: %v", err)
		}
	})
}

func goodManifest(tb testing.TB) []byte {
	tb.Helper()
	p := goodParts()
	p.seal(tb, newEd25519(tb))
	return encode(tb, p.manifest)
}

// What Sign makes of any image and text always verifies and says the same.
func FuzzSign(f *testing.F) {
	f.Add([]byte("firmware"), "1.2.3", "thermostat", "#image", uint64(7), true)
	f.Add([]byte{0xd8, 0x6b, 0xa2, 0x02}, "", "", "https://example.com", uint64(1<<63), false)
	key := newEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte, version, product, uri string, counter uint64, integrated bool) {
		l := options(t, Layout{URI: uri, Integrated: integrated}).Layout
		opt := image.SignOptions{
			Version: version, Product: product, SecurityCounter: &counter, Vendor: "example.com", Hardware: []string{"board-a"}, Layout: l,
		}
		var out bytes.Buffer
		res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(b), int64(len(b)), key, opt)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		v, err := Format{}.Verify(context.Background(), bytes.NewReader(out.Bytes()), res.Size, res.Envelope, []crypto.PublicKey{key.Public()})
		if err != nil {
			t.Fatalf("signed but not verified: %v", err)
		}
		if v.Info.Version != version || v.Info.Product != product || *v.Info.SecurityCounter != counter {
			t.Fatalf("signed %+v, verified %+v", opt, v.Info)
		}
	})
}
