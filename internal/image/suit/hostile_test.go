package suit

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/writ-project/writ/internal/image"
)

// Attack: change one byte of the envelope, anywhere, or of the image.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	in, key := sample(t, "payload.bin"), newEd25519(t)
	integrated, _ := mustSign(t, in, key, options(t, Layout{Integrated: true, SeverInstall: true}))
	out, env := mustSign(t, in, key, options(t, Layout{}))
	for name, tc := range map[string]struct {
		b      []byte
		verify func(b []byte) error
	}{
		"detached":   {env, func(b []byte) error { _, err := verifyBytes(out, b, key.Public()); return err }},
		"integrated": {integrated, func(b []byte) error { _, err := verifyBytes(b, nil, key.Public()); return err }},
		"image":      {out, func(b []byte) error { _, err := verifyBytes(b, env, key.Public()); return err }},
		"example":    {example(t, 2), func(b []byte) error { _, err := verifyBytes(b, nil, draftKey(t)); return err }},
	} {
		if err := tc.verify(tc.b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range tc.b {
			if i > 1200 && i%16 != 0 { // within the image
				continue
			}
			for _, mask := range []byte{0x01, 0x20, 0x80, 0xff} {
				tc.b[i] ^= mask
				err := tc.verify(tc.b)
				tc.b[i] ^= mask
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("%s: byte %d xor %#02x: got %v, want a refusal", name, i, mask, err)
				}
			}
		}
	}
}

// Attack: cut it off anywhere, or add to it.
func TestVerifyRefusesEveryPrefixAndAnyAddition(t *testing.T) {
	key := newP256(t)
	b, _ := mustSign(t, []byte("a small image"), key, options(t, Layout{Integrated: true}))
	for n := range b {
		_, err := verifyBytes(b[:n], nil, key.Public())
		if _, ok := image.ReasonOf(err); !ok {
			t.Fatalf("first %d bytes: got %v, want a refusal", n, err)
		}
	}
	for _, extra := range [][]byte{{0}, b, bytes.Repeat([]byte{0xff}, 100)} {
		_, err := verifyBytes(slices.Concat(b, extra), nil, key.Public())
		wantReason(t, err, image.ErrMalformed)
	}
}

func TestVerifyRefuses(t *testing.T) {
	in, key := sample(t, "payload.bin"), newP256(t)
	out, env := mustSign(t, in, key, options(t, Layout{}))
	whole, _ := mustSign(t, in, key, options(t, Layout{Integrated: true}))
	other := newP256(t).Public()
	changed := bytes.Clone(in)
	changed[0] ^= 1

	for name, tc := range map[string]struct {
		b, env []byte
		key    crypto.PublicKey
		want   image.ReasonError
	}{
		"changed image":         {changed, env, key.Public(), image.ErrBadDigest},
		"short image":           {in[:100], env, key.Public(), image.ErrBadDigest},
		"long image":            {append(bytes.Clone(in), 0), env, key.Public(), image.ErrBadDigest},
		"other key":             {out, env, other, image.ErrUnknownKey},
		"key of another kind":   {out, env, newEd25519(t).Public(), image.ErrUnknownKey},
		"image without it":      {out, nil, key.Public(), image.ErrUnsigned},
		"image in both":         {in, whole, key.Public(), image.ErrMalformed},
		"large envelope":        {in, make([]byte, MaxEnvelope+1), key.Public(), image.ErrTooLarge},
		"nothing":               {nil, env, key.Public(), image.ErrTruncated},
		"choice of two":         {in, example(t, 3), draftKey(t), image.ErrUnsupported},
		"example's other image": {in, example(t, 1), draftKey(t), image.ErrBadDigest},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifyBytes(tc.b, tc.env, tc.key)
			wantReason(t, err, tc.want)
		})
	}
	if _, err := (Format{}).Verify(t.Context(), bytes.NewReader(in), MaxSize+1, env, nil); !errors.Is(err, image.ErrTooLarge) {
		t.Errorf("huge: got %v", err)
	}
	// A signature that names a given key and is not by it.
	a := authenticationOf(t, env)
	a.blocks[0].signature[0] ^= 1
	_, err := a.check([]crypto.PublicKey{key.Public()})
	wantReason(t, err, image.ErrBadSignature)
}

// reseal signs a manifest anew, with any members beside it.
func reseal(tb testing.TB, key crypto.Signer, manifest []byte, more map[any]any, protected ...byte) []byte {
	tb.Helper()
	e := &encoder{}
	digest := encode(tb, digestOf(e.encode(manifest)))
	s := &settings{alg: algEd25519, Layout: Layout{KeyID: keyIDNone}}
	sig, err := s.sign1(digest, key, "")
	if err != nil {
		tb.Fatal(err)
	}
	if protected != nil {
		made, err := image.MakeSignature(key, [32]byte{}, toBeSigned(protected, digest))
		if err != nil {
			tb.Fatal(err)
		}
		sig = encode(tb, cbor.Tag{Number: tagSign1, Content: []any{protected, map[int]any{}, nil, made}})
	}
	m := map[any]any{keyAuthentication: encode(tb, []any{digest, sig}), keyManifest: manifest}
	maps.Copy(m, more)
	return encode(tb, cbor.Tag{Number: tagEnvelope, Content: m})
}

// parts are those of a good manifest, for attacks to change.
type parts struct {
	manifest, common map[any]any
	shared, install  []any
	more             map[any]any
	protected        []byte
}

func goodParts() *parts {
	sum := make([]byte, 32)
	return &parts{
		manifest: map[any]any{keyVersion: 1, keySequence: 3},
		common:   map[any]any{keyComponents: []any{[][]byte{{0}}}},
		shared: []any{
			dirOverride, map[int]any{
				paramVendor: make([]byte, 16), paramClass: make([]byte, 16), paramSize: 5,
				paramDigest: []byte("\x82\x2f\x58\x20" + string(sum)),
			}, condVendor, 15, condClass, 15,
		},
		install: []any{dirOverride, map[int]any{paramURI: "#x"}, dirFetch, 2, condImageMatch, 15},
		more:    map[any]any{},
	}
}

func (p *parts) seal(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	if p.shared != nil {
		p.common[keyShared] = encode(tb, p.shared)
	}
	p.manifest[keyCommon] = encode(tb, p.common)
	if p.install != nil {
		p.manifest[keyInstall] = encode(tb, p.install)
	}
	return reseal(tb, key, encode(tb, p.manifest), p.more, p.protected...)
}

// Attack: what a stolen or careless key signs must still be a manifest that is
// understood in full.
func TestVerifyRefusesManifestsItDoesNotUnderstand(t *testing.T) {
	key := newEd25519(t)
	good := goodParts()
	if _, err := verifyBytes(good.seal(t, key), nil, key.Public()); err != nil {
		t.Fatal(err)
	}
	sequence := func(items ...any) func(*parts) { return func(p *parts) { p.install = append([]any{}, items...) } }
	override := func(k int, v any) func(*parts) { return sequence(dirOverride, map[int]any{k: v}) }
	raw := func(x string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(x, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	deep := []any{dirInvoke, 2}
	for range 10 {
		deep = []any{dirRun, encode(t, deep)}
	}
	wide := []any{}
	for i := range 7 { // 2^7 ways
		branch := func(n int) []byte { return encode(t, []any{dirOverride, map[int]any{paramSize: n}}) }
		wide = append(wide, dirTryEach, [][]byte{branch(2 * i), branch(2*i + 1)})
	}
	many := slices.Repeat([]any{dirInvoke, 2}, maxCommands+1)
	bomb := encode(t, []any{dirInvoke, 2})
	for range 6 { // 16^6 commands
		bomb = encode(t, slices.Repeat([]any{dirRun, bomb}, 16))
		if len(bomb) > 20000 {
			break
		}
	}
	for name, tc := range map[string]struct {
		change func(*parts)
		want   image.ReasonError
	}{
		"other version":         {func(p *parts) { p.manifest[keyVersion] = 2 }, image.ErrUnsupported},
		"no sequence number":    {func(p *parts) { delete(p.manifest, keySequence) }, image.ErrMalformed},
		"unknown member":        {func(p *parts) { p.manifest[5] = []byte{0x80} }, image.ErrUnsupported},
		"dependencies":          {func(p *parts) { p.common[1] = map[int]any{} }, image.ErrUnsupported},
		"no components":         {func(p *parts) { delete(p.common, keyComponents) }, image.ErrMalformed},
		"unnamed severed text":  {func(p *parts) { p.more[keyText] = []byte{0xa0} }, image.ErrMalformed},
		"unnamed payload":       {func(p *parts) { p.more["#y"] = []byte("extra") }, image.ErrMalformed},
		"wrong payload":         {func(p *parts) { p.more["#x"] = []byte("wrong") }, image.ErrBadDigest},
		"payload of other size": {func(p *parts) { p.more["#x"] = []byte("larger") }, image.ErrBadDigest},
		"delegation":            {func(p *parts) { p.more[1] = []byte{0x80} }, image.ErrUnsupported},
		"negative member":       {func(p *parts) { p.more[-1] = []byte{0x80} }, image.ErrMalformed},
		"member no byte string": {func(p *parts) { p.more["#x"] = "text" }, image.ErrMalformed},
		"wrong severed member": {func(p *parts) {
			p.manifest[keyText] = digestOf([]byte{0x41, 0xa0})
			p.more[keyText] = []byte{0xa1, 0x60, 0xa0}
		}, image.ErrBadDigest},
		"digest of content only": {func(p *parts) {
			p.manifest[keyText] = digestOf([]byte{0xa0})
			p.more[keyText] = []byte{0xa0}
		}, image.ErrBadDigest},
		"unknown text":         {func(p *parts) { p.manifest[keyText] = raw("a1 6165 a1 05 6178") }, image.ErrUnsupported},
		"text of no component": {func(p *parts) { p.manifest[keyText] = raw("a1 6165 a1 81 41 07 a1 01 6178") }, image.ErrMalformed},
		"unknown command":      {sequence(33, 2), image.ErrUnsupported},
		"custom command":       {sequence(-300, 2), image.ErrUnsupported},
		"set-parameters":       {sequence(19, map[int]any{paramURI: "#x"}), image.ErrMalformed},
		"odd sequence":         {sequence(dirInvoke, 2, dirInvoke), image.ErrMalformed},
		"empty sequence":       {sequence(), image.ErrMalformed},
		"reporting policy":     {sequence(dirInvoke, 16), image.ErrMalformed},
		"fetch from nowhere":   {sequence(dirFetch, 2), image.ErrMalformed},
		"copy from nowhere":    {sequence(dirCopy, 2), image.ErrMalformed},
		"write nothing":        {sequence(dirWrite, 2), image.ErrMalformed},
		"slot not set":         {sequence(condSlot, 15), image.ErrMalformed},
		"device not set":       {sequence(condDevice, 15), image.ErrMalformed},
		"unknown parameter":    {override(19, []byte{}), image.ErrUnsupported},
		"encryption":           {override(19, []byte{0xd8, 0x60}), image.ErrUnsupported},
		"enterprise number":    {override(paramVendor, cbor.Tag{Number: 112, Content: []byte{1}}), image.ErrUnsupported},
		"short id":             {override(paramClass, make([]byte, 15)), image.ErrMalformed},
		"no parameters":        {sequence(dirOverride, map[int]any{}), image.ErrMalformed},
		"component 1 of 1":     {sequence(dirSetIndex, 1), image.ErrMalformed},
		"component false":      {sequence(dirSetIndex, false), image.ErrMalformed},
		"component twice":      {sequence(dirSetIndex, []int{0, 0}), image.ErrMalformed},
		"source 1 of 1":        {override(paramSource, 1), image.ErrMalformed},
		"digest algorithm":     {override(paramDigest, raw("82 28 40")), image.ErrUnsupported},
		"short digest":         {override(paramDigest, raw("82 2f 41 00")), image.ErrMalformed},
		"digest extension":     {override(paramDigest, raw("83 2f 41 00 00")), image.ErrMalformed},
		"try one":              {sequence(dirTryEach, [][]byte{{0x82, 0x17, 0x02}}), image.ErrMalformed},
		"try nothing first":    {sequence(dirTryEach, []any{nil, []byte{0x82, 0x17, 0x02}}), image.ErrMalformed},
		"fetch while shared":   {func(p *parts) { p.shared = append(p.shared, dirInvoke, 2) }, image.ErrMalformed},
		"depth bomb":           {sequence(deep...), image.ErrMalformed},
		"too many ways":        {sequence(wide...), image.ErrTooLarge},
		"too many commands":    {sequence(many...), image.ErrMalformed},
		"exponential commands": {func(p *parts) { p.install = nil; p.manifest[keyInstall] = bomb }, image.ErrTooLarge},
		"critical header":      {func(p *parts) { p.protected = raw("a2 01 32 02 81 04") }, image.ErrUnsupported},
		"no algorithm":         {func(p *parts) { p.protected = raw("a0") }, image.ErrMalformed},
		"algorithm of P-256":   {func(p *parts) { p.protected = raw("a1 01 26") }, image.ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			p := goodParts()
			tc.change(p)
			b := p.seal(t, key)
			_, err := verifyBytes(b, nil, key.Public())
			wantReason(t, err, tc.want)
		})
	}
}

// Attack: CBOR in a form that two readers could understand differently.
func TestReadersRefuseOtherFormsOfCBOR(t *testing.T) {
	key := newEd25519(t)
	for name, x := range map[string]string{
		"key twice":           "a3 01 01 02 03 02 04",
		"keys out of order":   "a2 02 03 01 01",
		"long form":           "a1 18 01 01",
		"long integer":        "a1 01 1b 0000000000000001",
		"indefinite map":      "bf 01 01 ff",
		"indefinite string":   "a1 03 5f 41 00 ff",
		"reserved":            "a1 01 1c",
		"floating point":      "a1 01 f9 3c00",
		"announced map":       "bb ffffffffffffffff",
		"announced string":    "a1 03 5b ffffffffffffffff",
		"more follows":        "a1 01 01 00",
		"sequence not a uint": "a1 02 20",
		"huge negative":       "a1 3b ffffffffffffffff 01",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(x, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		_, err = verifyBytes(reseal(t, key, b, nil), nil, key.Public())
		if _, ok := image.ReasonOf(err); !ok {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		// The same as a signature header, which is read before anything is
		// verified, and as an envelope.
		if _, err := readBlock(append([]byte{0xd2, 0x84, 0x40 | byte(len(b))}, append(b, 0xa0, 0xf6, 0x40)...)); err == nil {
			t.Errorf("%s: accepted as a header", name)
		}
		_, err = inspectBytes(append([]byte{0xd8, tagEnvelope}, b...))
		if err == nil && (Format{}).Detect(append([]byte{0xd8, tagEnvelope}, b...)) {
			t.Errorf("%s: accepted as an envelope", name)
		}
	}
	// Depth bombs where anything may stand: an unknown header, somebody else's
	// signature.
	nest := bytes.Repeat([]byte{0x81}, 20000)
	header := append([]byte{0xa2, 0x01, 0x32, 0x05}, append(nest, 0)...)
	block := slices.Concat([]byte{0xd2, 0x84}, appendHead(nil, majorBytes, uint64(len(header))), header, []byte{0xa0, 0xf6, 0x40})
	_, err := readBlock(block)
	wantReason(t, err, image.ErrMalformed)
	_, err = readBlock(append([]byte{0xd1}, append(nest, 0)...))
	wantReason(t, err, image.ErrMalformed)
}

func TestBlocksOfOthersArePassedOver(t *testing.T) {
	in, key := sample(t, "payload.bin"), newEd25519(t)
	out, env := mustSign(t, in, key, options(t, Layout{}))
	_, second := mustSign(t, in, newP256(t), options(t, Layout{Algorithm: "ES256", KeyID: keyIDNone}))
	join := func(extra []byte) []byte {
		return edit(t, env, func(m map[any]cbor.RawMessage) {
			var raw []byte
			var list [][]byte
			if err := errors.Join(cbor.Unmarshal(m[uint64(keyAuthentication)], &raw), cbor.Unmarshal(raw, &list)); err != nil {
				t.Fatal(err)
			}
			m[uint64(keyAuthentication)] = encode(t, encode(t, []any{list[0], extra, list[1]}))
		})
	}
	e, _, err := openEnvelope(bytes.NewReader(second), int64(len(second)))
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	if err := cbor.Unmarshal(e.authentication, &list); err != nil {
		t.Fatal(err)
	}
	mac := encode(t, cbor.Tag{Number: 17, Content: []any{[]byte{}, map[int]any{}, nil, make([]byte, 32)}})
	for name, extra := range map[string][]byte{"foreign": list[1], "mac": mac} {
		v, err := verifyBytes(out, join(extra), key.Public())
		if err != nil || len(v.Info.Signatures) != 2 {
			t.Errorf("%s: got %+v, %v", name, v, err)
		}
	}
	for name, extra := range map[string][]byte{
		"embedded payload":     encode(t, cbor.Tag{Number: tagSign1, Content: []any{[]byte{0xa1, 1, 0x26}, map[int]any{}, []byte{}, []byte{}}}),
		"unprotected headers":  encode(t, cbor.Tag{Number: tagSign1, Content: []any{[]byte{0xa1, 1, 0x26}, map[int]any{33: []byte{}}, nil, []byte{}}}),
		"no tag":               {0x80},
		"something after mac":  append(bytes.Clone(mac), 0),
		"something after sign": append(bytes.Clone(list[1]), 0),
	} {
		_, err := verifyBytes(out, join(extra), key.Public())
		if _, ok := image.ReasonOf(err); !ok {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestSignRefusesWhatItCannotSay(t *testing.T) {
	in := []byte("firmware")
	for name, change := range map[string]func(*image.SignOptions){
		"no counter":     func(o *image.SignOptions) { o.SecurityCounter = nil },
		"two counters":   func(o *image.SignOptions) { o.Layout = []byte(`{"sequence_number":8}`) },
		"no vendor":      func(o *image.SignOptions) { o.Vendor = "" },
		"no hardware":    func(o *image.SignOptions) { o.Hardware = nil },
		"empty hardware": func(o *image.SignOptions) { o.Hardware = []string{""} },
		"header":         func(o *image.SignOptions) { o.HeaderSize = 32 },
		"unknown option": func(o *image.SignOptions) { o.Layout = []byte(`{"integrate":true}`) },
		"device":         func(o *image.SignOptions) { o.Layout = []byte(`{"devices":["x"]}`) },
		"component":      func(o *image.SignOptions) { o.Layout = []byte(`{"component":["0"]}`) },
		"algorithm":      func(o *image.SignOptions) { o.Layout = []byte(`{"algorithm":"EdDSA"}`) },
		"key id":         func(o *image.SignOptions) { o.Layout = []byte(`{"key_id":"x"}`) },
		"integrated by uri": func(o *image.SignOptions) {
			o.Layout = []byte(`{"integrated":true,"uri":"https://example.com/x"}`)
		},
		"language":      func(o *image.SignOptions) { o.Layout = []byte(`{"text":{"english language":{}}}`) },
		"text not UTF8": func(o *image.SignOptions) { o.Version = "\xff" },
		"long text":     func(o *image.SignOptions) { o.Product = strings.Repeat("x", maxText+1) },
		"much text": func(o *image.SignOptions) {
			o.Layout = []byte(`{"text":{"en":{"manifest":"` + strings.Repeat("x", MaxEnvelope) + `"}}}`)
		},
	} {
		opt := options(t, Layout{})
		change(&opt)
		_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), int64(len(in)), newP256(t), opt)
		if !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%s: got %v, want bad options", name, err)
		}
	}
	opt := options(t, Layout{})
	_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(example(t, 0)), 237, newP256(t), opt)
	wantReason(t, err, image.ErrUnsupported)
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(nil), 0, newP256(t), opt)
	wantReason(t, err, image.ErrTruncated)
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), 9, newP256(t), opt)
	wantReason(t, err, image.ErrTruncated)
	opt.SlotSize = 7
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), 8, newP256(t), opt)
	wantReason(t, err, image.ErrTooLarge)
}

// Attack: a file that changes between the two times that it is read.
func TestSignNoticesAnImageThatChanges(t *testing.T) {
	r := &fickle{}
	_, err := Format{}.Sign(context.Background(), io.Discard, r, 1000, newEd25519(t), options(t, Layout{Integrated: true}))
	if err == nil || r.reads < 3 {
		t.Errorf("got %v after %d reads", err, r.reads)
	}
}

type fickle struct{ reads byte }

func (f *fickle) ReadAt(p []byte, _ int64) (int, error) {
	f.reads++
	for i := range p {
		p[i] = f.reads
	}
	return len(p), nil
}
