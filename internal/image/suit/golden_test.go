package suit

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/veraison/go-cose"

	"github.com/writ-project/writ/internal/image"
)

const (
	draftVendor = "fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffe"
	draftClass  = "1492af14-2569-5e48-bf42-9b2d51f2ab45"
	draftSum    = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"
	draftSum2   = "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff"
)

func example(tb testing.TB, n int) []byte {
	tb.Helper()
	return sample(tb, fmt.Sprintf("draft37-ex%d.suit", n))
}

func TestVerifyAcceptsTheDraftsExamples(t *testing.T) {
	sha := func(x string) image.Digest { return image.Digest{Scope: image.ScopeImage, Algorithm: "sha256", Hex: x} }
	first, second := new(uint64(34768)), new(uint64(76834))
	const file, file1, file2 = "http://example.com/file.bin", "http://example.com/file1.bin", "http://example.com/file2.bin"
	for i, tc := range []struct {
		components, sequences []string
		images                []ImageDetails
	}{
		{[]string{"00"}, []string{"validate", "invoke"}, []ImageDetails{{Component: "00", Digest: sha(draftSum), Size: first}}},
		{[]string{"00"}, []string{"install", "validate"}, []ImageDetails{{Component: "00", Digest: sha(draftSum), Size: first, URIs: []string{file}}}},
		{
			[]string{"00"},
			[]string{"install", "validate", "invoke"},
			[]ImageDetails{{Component: "00", Digest: sha(draftSum), Size: first, URIs: []string{"http://example.com/very/long/path/to/file/file.bin"}}},
		},
		{
			[]string{"00"},
			[]string{"install", "validate"},
			[]ImageDetails{
				{Component: "00", Slot: new(uint64(0)), Digest: sha(draftSum), Size: first, URIs: []string{file1}},
				{Component: "00", Slot: new(uint64(1)), Digest: sha(draftSum2), Size: second, URIs: []string{file2}},
			},
		},
		{
			[]string{"00", "02", "01"},
			[]string{"payload-fetch", "install", "validate", "load", "invoke"},
			[]ImageDetails{
				{Component: "02", Digest: sha(draftSum), URIs: []string{file}},
				{Component: "00", Digest: sha(draftSum), Size: first},
				{Component: "01", Digest: sha(draftSum2), Size: second},
			},
		},
		{
			[]string{"00", "01"},
			[]string{"install", "validate", "invoke"},
			[]ImageDetails{
				{Component: "00", Digest: sha(draftSum), Size: first, URIs: []string{file1}},
				{Component: "01", Digest: sha(draftSum2), Size: second, URIs: []string{file2}},
			},
		},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			b := example(t, i)
			v, err := verifyBytes(b, nil, newP256(t).Public(), draftKey(t))
			if err != nil {
				t.Fatal(err)
			}
			if v.Algorithm != image.AlgECDSAP256 || *v.Info.SecurityCounter != uint64(i) || v.Info.Vendor != draftVendor ||
				!slices.Equal(v.Info.Hardware, []string{draftClass}) || v.Info.Size != int64(len(b)) {
				t.Errorf("got %+v", v)
			}
			d := detailsOf(t, v.Info)
			if d.Draft != "draft-ietf-suit-manifest-37" || !slices.Equal(d.Components, tc.components) || !slices.Equal(d.Sequences, tc.sequences) {
				t.Errorf("got %+v", d)
			}
			if diff := cmp.Diff(tc.images, d.Images); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
			info, err := inspectBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(info, v.Info); diff != "" {
				t.Errorf("Inspect and Verify differ:\n%s", diff)
			}
			if !(Format{}).Detect(b) {
				t.Error("not detected")
			}
		})
	}
}

// draftSettings are those of an example that our encoder can make.
func draftSettings(t *testing.T, sequence uint64, l Layout) *settings {
	t.Helper()
	l.Vendor, l.Class, l.Algorithm, l.KeyID, l.SequenceNumber = draftVendor, draftClass, "ES256", keyIDNone, &sequence
	opt := options(t, l)
	opt.Product, opt.Version, opt.SecurityCounter = "", "", nil
	s, err := readOptions(1, replay{pub: draftKey(t)}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What we encode is what the draft prints, byte by byte, signature and all.
func TestSignWritesWhatTheDraftPrints(t *testing.T) {
	img := imageOf{size: 34768}
	if _, err := hex.Decode(img.sha256[:], []byte(draftSum)); err != nil {
		t.Fatal(err)
	}
	ex2, err := inspectBytes(example(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[int]*settings{
		1: draftSettings(t, 1, Layout{URI: "http://example.com/file.bin"}),
		2: draftSettings(t, 2, Layout{
			URI: "http://example.com/very/long/path/to/file/file.bin", ReferenceURI: "https://git.io/JJYoj", SeverInstall: true, Invoke: true,
			Text: map[string]Text{"en-US": {
				Manifest:  detailsOf(t, ex2).Description,
				Component: "This component is a demonstration. The digest is a sample pattern, not a real one.",
			}},
		}),
	}
	cases[2].domain = "arm.com" // not known from a vendor that is a UUID
	for n, s := range cases {
		want := example(t, n)
		a := authenticationOf(t, want)
		sig := a.blocks[0].signature
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.envelope(img, replay{draftKey(t), der}, "")
		if err != nil {
			t.Fatalf("example %d: %v", n, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("example %d differs:\n got %x\nwant %x", n, got, want)
		}
	}
}

func authenticationOf(tb testing.TB, b []byte) authentication {
	tb.Helper()
	_, a, err := openEnvelope(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func TestSignedImagesVerifyAndKeepTheirClaims(t *testing.T) {
	in := sample(t, "payload.bin")
	for _, key := range []crypto.Signer{newP256(t), newEd25519(t)} {
		for _, integrated := range []bool{false, true} {
			opt := options(t, Layout{Integrated: integrated, Devices: []string{"00000000-0000-4000-8000-000000000001"}})
			out, env := mustSign(t, in, key, opt)
			if (env == nil) != integrated || !integrated && !bytes.Equal(out, in) || integrated && !bytes.HasSuffix(out, in) {
				t.Fatalf("integrated %v: the image is not where it should be", integrated)
			}
			v, err := verifyBytes(out, env, newP256(t).Public(), key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if v.Info.Version != "1.2.3" || v.Info.Product != "thermostat" || *v.Info.SecurityCounter != 7 ||
				v.Info.Vendor != VendorID("example.com") || !slices.Equal(v.Info.Hardware, []string{ClassID("example.com", "board-a")}) {
				t.Errorf("got %+v", v.Info)
			}
			d := detailsOf(t, v.Info)
			size := new(uint64(4099))
			digest, _ := v.Info.Digest(image.ScopeImage)
			want := []ImageDetails{{Component: "00", Digest: digest, Size: size, URIs: []string{"#image"}, Integrated: integrated}}
			if diff := cmp.Diff(want, d.Images); diff != "" || digest.Hex != "2cd5a00d765f529f2f4f2f2731280fe759939caf1f98ff0c2aa2fd94387aa92a" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
			if !slices.Equal(d.DeviceIDs, []string{"00000000-0000-4000-8000-000000000001"}) {
				t.Errorf("devices: got %v", d.DeviceIDs)
			}
			if id, _ := image.KeyID(key.Public()); v.KeyID != id || v.Info.Signatures[0].KeyID != id {
				t.Errorf("key: got %s and %s, want %s", v.KeyID, v.Info.Signatures[0].KeyID, id)
			}
		}
	}
}

// VID and CID as imgtool derives them, which testdata of the mcuboot package
// proves.
func TestIDsAreThoseOfMCUboot(t *testing.T) {
	if got := VendorID("example.com"); got != "cfbff0d1-9375-5685-968c-48ce8b15ae17" {
		t.Errorf("vendor: got %s", got)
	}
	if got := ClassID("example.com", "board-a"); got != "5f363112-95cf-534f-a3d1-fc8ef6f4962a" {
		t.Errorf("class: got %s", got)
	}
	if got := ClassID("example.com", strings.ReplaceAll(draftClass, "-", "")); got != draftClass {
		t.Errorf("class by id: got %s", got)
	}
}

func TestSeveralHardwareIDsAndDevicesAreAlternatives(t *testing.T) {
	in, key := sample(t, "payload.bin"), newEd25519(t)
	opt := options(t, Layout{Devices: []string{"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"}})
	opt.Hardware = nil
	var want []string
	for i := range 32 {
		opt.Hardware = append(opt.Hardware, fmt.Sprintf("board-%d", i))
		want = append(want, ClassID("example.com", opt.Hardware[i]))
	}
	out, env := mustSign(t, in, key, opt)
	v, err := verifyBytes(out, env, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, v.Info.Hardware); d != "" || len(detailsOf(t, v.Info).DeviceIDs) != 2 || v.Info.Version != "1.2.3" {
		t.Errorf("got %+v\n%s", v.Info, d)
	}
	opt.Hardware = append(opt.Hardware, "one more")
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), 4099, key, opt)
	wantReason(t, err, image.ErrBadOptions)
}

// The text, and with it the version, may be dropped on the way: the rest stays
// signed.
func TestSeveredMembersMayBeDropped(t *testing.T) {
	in, key := sample(t, "payload.bin"), newP256(t)
	out, env := mustSign(t, in, key, options(t, Layout{SeverInstall: true, URI: "https://example.com/app.bin"}))
	v, err := verifyBytes(out, env, key.Public())
	if err != nil || v.Info.Version != "1.2.3" || detailsOf(t, v.Info).Severed != nil {
		t.Fatalf("got %+v, %v", v.Info, err)
	}
	env = edit(t, env, func(m map[any]cbor.RawMessage) { delete(m, uint64(keyInstall)); delete(m, uint64(keyText)) })
	if v, err = verifyBytes(out, env, key.Public()); err != nil {
		t.Fatal(err)
	}
	if d := detailsOf(t, v.Info); v.Info.Version != "" || !slices.Equal(d.Severed, []string{"install", "text"}) || !slices.Equal(d.Sequences, []string{"validate"}) {
		t.Errorf("got %+v", d)
	}
}

// edit changes the outer map of an envelope and encodes it again.
func edit(tb testing.TB, env []byte, f func(map[any]cbor.RawMessage)) []byte {
	tb.Helper()
	var tag cbor.RawTag
	if err := cbor.Unmarshal(env, &tag); err != nil {
		tb.Fatal(err)
	}
	m := map[any]cbor.RawMessage{}
	if err := cbor.Unmarshal(tag.Content, &m); err != nil {
		tb.Fatal(err)
	}
	f(m)
	return encode(tb, cbor.Tag{Number: tagEnvelope, Content: m})
}

func encode(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := encMode.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// The COSE library, which reads with code of its own, accepts our signatures
// under the numbers that it knows.
func TestCOSELibraryAcceptsOurSignatures(t *testing.T) {
	for _, tc := range []struct {
		name string
		alg  cose.Algorithm
		key  crypto.Signer
	}{{"ES256", cose.AlgorithmES256, newP256(t)}, {"EdDSA", cose.AlgorithmEdDSA, newEd25519(t)}} {
		_, env := mustSign(t, sample(t, "payload.bin"), tc.key, options(t, Layout{Algorithm: tc.name}))
		e, a, err := openEnvelope(bytes.NewReader(env), int64(len(env)))
		if err != nil {
			t.Fatal(err)
		}
		var wrapper [][]byte
		if err := cbor.Unmarshal(e.authentication, &wrapper); err != nil {
			t.Fatal(err)
		}
		var m cose.Sign1Message
		if err := m.UnmarshalCBOR(wrapper[1]); err != nil {
			t.Fatal(err)
		}
		m.Payload = a.signed
		v, err := cose.NewVerifier(tc.alg, tc.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(nil, v); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestDefaultAlgorithmsAreThoseOfTheProfiles(t *testing.T) {
	for alg, key := range map[int64]crypto.Signer{algESP256: newP256(t), algEd25519: newEd25519(t)} {
		_, env := mustSign(t, sample(t, "payload.bin"), key, options(t, Layout{}))
		if a := authenticationOf(t, env); a.blocks[0].alg != alg {
			t.Errorf("%T: got %d, want %d", key, a.blocks[0].alg, alg)
		}
	}
}
