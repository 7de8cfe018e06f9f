package minisign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestVerifyAcceptsTheSamples(t *testing.T) {
	b, key := sample(t, "payload.bin"), sampleKey(t)
	for _, f := range both {
		for _, k := range []crypto.PublicKey{key, key.Key} {
			v, err := verifyBytes(f, b, sampleEnvelope(t, f), newKey(t).Public(), k)
			if err != nil {
				t.Fatalf("%s with %T: %v", f.Name(), k, err)
			}
			if id, _ := image.KeyID(key.Key); v.KeyID != id || !key.Key.Equal(v.Key) || v.Algorithm != image.AlgEd25519 {
				t.Errorf("%s: got key %s, %s", f.Name(), v.KeyID, v.Algorithm)
			}
			const sum = "2cd5a00d765f529f2f4f2f2731280fe759939caf1f98ff0c2aa2fd94387aa92a"
			if d, ok := v.Info.Digest(image.ScopeImage); !ok || d.Hex != sum || v.Info.Size != 4099 || v.Info.Format != f.Name() {
				t.Errorf("%s: got %+v", f.Name(), v.Info)
			}
		}
	}
	v, err := verifyBytes(Format{}, b, sampleEnvelope(t, Format{}), key)
	if err != nil || v.Info.Version != "1.2.3" || !slices.Equal(v.Info.Hardware, []string{"board-a"}) || v.Info.SecurityCounter != nil {
		t.Errorf("claims: got %+v, %v", v.Info, err)
	}
}

func TestInspectDescribesSignatureFiles(t *testing.T) {
	for _, f := range both {
		b := sampleEnvelope(t, f)
		if !f.Detect(b[:min(len(b), image.PrefixSize)]) {
			t.Errorf("%s: not detected", f.Name())
		}
		if g, ok := DetectEnvelope(b); !ok || g != f {
			t.Errorf("%s: detected as %v", f.Name(), g)
		}
		info, err := f.Inspect(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		// What minisign prints for the sample's key.
		want := []image.SignatureInfo{{Algorithm: image.AlgEd25519, KeyID: "2b9ac093a12731df"}}
		if d := cmp.Diff(want, info.Signatures); d != "" || info.Format != f.Name() {
			t.Errorf("%s: got %+v", f.Name(), info)
		}
		var d Details
		if err := json.Unmarshal(info.Details, &d); err != nil || d.UntrustedComment == "" || (d.TrustedComment != "") != (f == both[0]) {
			t.Errorf("%s: details %s, %v", f.Name(), info.Details, err)
		}
	}
	for _, f := range both {
		b := sample(t, "payload.bin")
		info, err := f.Inspect(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil || f.Detect(b[:min(len(b), image.PrefixSize)]) || info.Size != 4099 || info.Signatures != nil || info.Format != f.Name() {
			t.Errorf("%s: payload: got %+v, %v", f.Name(), info, err)
		}
		b = sample(t, "minisign.pub")
		_, err = f.Inspect(t.Context(), bytes.NewReader(b), int64(len(b)))
		wantReason(t, err, image.ErrMalformed)
	}
}

// A minisign comment too long for the detection prefix must not make the file a
// signify one.
func TestDetectWithALongComment(t *testing.T) {
	b := []byte(untrustedPrefix + strings.Repeat("x", image.PrefixSize))
	if !(Format{}).Detect(b[:image.PrefixSize]) || (Signify{}).Detect(b[:image.PrefixSize]) {
		t.Error("want minisign to take it, and Inspect to tell")
	}
	env := bytes.Replace(sampleEnvelope(t, Signify{}), []byte("verify with"), bytes.Repeat([]byte("x"), image.PrefixSize), 1)
	info, err := Format{}.Inspect(t.Context(), bytes.NewReader(env), int64(len(env)))
	if err != nil || info.Format != "signify" {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestSignedImagesVerifyAndKeepTheirClaims(t *testing.T) {
	key, b := newKey(t), sample(t, "payload.bin")
	opt := image.SignOptions{
		Product: "thermostat", Version: "1.2.3:rc1", SecurityCounter: new(uint64(0)), Hardware: []string{"board-a", "Платa b"},
		SlotSize: 4099,
	}
	for _, f := range both {
		res := mustSign(t, f, b, key, opt)
		v, err := verifyBytes(f, b, res.Envelope, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if v.KeyID != res.KeyID || res.Size != 4099 || res.Image != v.Info.Digests[1] {
			t.Errorf("%s: result %+v, verified %+v", f.Name(), res, v)
		}
		want := image.Info{}
		if f == both[0] {
			want = image.Info{Product: opt.Product, Version: opt.Version, SecurityCounter: opt.SecurityCounter, Hardware: opt.Hardware}
		}
		got := image.Info{Product: v.Info.Product, Version: v.Info.Version, SecurityCounter: v.Info.SecurityCounter, Hardware: v.Info.Hardware}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: claims (-want +got):\n%s", f.Name(), d)
		}
		n, err := NumberOf(key.Public().(ed25519.PublicKey))
		if err != nil || v.Info.Signatures[0].KeyID != n.String() {
			t.Errorf("%s: number %s, want %s: %v", f.Name(), v.Info.Signatures[0].KeyID, n, err)
		}
	}
}

func TestLayoutGivesTheDevicesKeyNumber(t *testing.T) {
	key, b := newKey(t), sample(t, "payload.bin")
	mine := PublicKey{Number{1, 2, 3, 4, 5, 6, 7, 8}, key.Public().(ed25519.PublicKey)}
	_, text, _ := strings.Cut(string(mine.File()), "\n")
	for _, f := range both {
		l := Layout{PublicKey: strings.TrimSpace(text)}
		if f == both[0] {
			l.Timestamp, l.File = 1795000000, "payload.bin"
		}
		res := mustSign(t, f, b, key, image.SignOptions{Version: "1.2.3", Layout: layout(t, l)})
		v, err := verifyBytes(f, b, res.Envelope, mine)
		if err != nil || v.Info.Signatures[0].KeyID != "0807060504030201" {
			t.Errorf("%s: got %+v, %v", f.Name(), v, err)
		}
		if f == both[0] && !strings.Contains(string(res.Envelope), "\ntrusted comment: timestamp:1795000000\tfile:payload.bin\thashed\tversion:1.2.3\n") {
			t.Errorf("envelope:\n%s", res.Envelope)
		}
		// Both programs refuse a key with another number.
		_, err = verifyBytes(f, b, res.Envelope, PublicKey{Number{9}, mine.Key})
		wantReason(t, err, image.ErrUnknownKey)
	}
}

// Attack: a changed image, comment, number or signature; another key; the other
// format's file.
func TestVerifyRefuses(t *testing.T) {
	b, key := sample(t, "payload.bin"), sampleKey(t)
	changed := bytes.Clone(b)
	changed[4098] ^= 1
	for _, f := range both {
		env := sampleEnvelope(t, f)
		_, err := verifyBytes(f, changed, env, key)
		wantReason(t, err, image.ErrBadSignature)
		_, err = verifyBytes(f, b[:4098], env, key)
		wantReason(t, err, image.ErrBadSignature)
		_, err = verifyBytes(f, append(bytes.Clone(b), 0), env, key)
		wantReason(t, err, image.ErrBadSignature)
		_, err = verifyBytes(f, b, env, newKey(t).Public())
		wantReason(t, err, image.ErrUnknownKey)
		_, err = verifyBytes(f, b, env)
		wantReason(t, err, image.ErrUnknownKey)
		_, err = verifyBytes(f, b, env, &newP256(t).PublicKey, ed25519.PublicKey{1}, PublicKey{Number: key.Number})
		wantReason(t, err, image.ErrUnknownKey)
		_, err = verifyBytes(f, b, nil, key)
		wantReason(t, err, image.ErrUnsigned)
		_, err = verifyBytes(f, b, make([]byte, MaxEnvelope+1), key)
		wantReason(t, err, image.ErrTooLarge)
		_, err = verifyBytes(f, nil, env, key)
		wantReason(t, err, image.ErrTruncated)
		_, err = f.Verify(t.Context(), bytes.NewReader(b), MaxSize+1, env, []crypto.PublicKey{key})
		wantReason(t, err, image.ErrTooLarge)
	}
	_, err := verifyBytes(Format{}, b, sampleEnvelope(t, Signify{}), key)
	wantReason(t, err, image.ErrMalformed)
	_, err = verifyBytes(Signify{}, b, sampleEnvelope(t, Format{}), key)
	wantReason(t, err, image.ErrMalformed)

	// A key without a number still tells a changed image, by the comment.
	_, err = verifyBytes(Format{}, changed, sampleEnvelope(t, Format{}), key.Key)
	wantReason(t, err, image.ErrBadSignature)
	_, err = verifyBytes(Signify{}, changed, sampleEnvelope(t, Signify{}), key.Key)
	wantReason(t, err, image.ErrUnknownKey)
}

// Attack: change one byte of the signature file, anywhere but in the untrusted
// comment, which nobody signed.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	b, key := sample(t, "payload.bin"), sampleKey(t)
	for _, f := range both {
		env := sampleEnvelope(t, f)
		free := bytes.IndexByte(env, '\n')
		for i := range env {
			if i >= len(untrustedPrefix) && i < free {
				continue
			}
			for _, mask := range []byte{0x01, 0x20, 0x80, 0xff} {
				env[i] ^= mask
				_, err := verifyBytes(f, b, env, key)
				env[i] ^= mask
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("%s: byte %d xor %#02x: got %v, want a refusal", f.Name(), i, mask, err)
				}
			}
		}
		for n := range len(env) - 1 { // the last line feed may be missing
			if _, err := verifyBytes(f, b, env[:n], key); err == nil {
				t.Fatalf("%s: the first %d bytes verify", f.Name(), n)
			}
		}
	}
}

func TestReadEnvelopeRefuses(t *testing.T) {
	mini, sigfy := string(sampleEnvelope(t, Format{})), string(sampleEnvelope(t, Signify{}))
	relabel := func(s, alg string) string {
		lines := strings.Split(s, "\n")
		raw, _ := base64.StdEncoding.DecodeString(lines[1])
		copy(raw, alg)
		lines[1] = base64.StdEncoding.EncodeToString(raw)
		return strings.Join(lines, "\n")
	}
	for name, tc := range map[string]struct {
		env  string
		want image.ReasonError
	}{
		"legacy minisign":      {relabel(mini, "Ed"), image.ErrUnsupported},
		"other algorithm":      {relabel(sigfy, "Sd"), image.ErrUnsupported},
		"signify said hashed":  {relabel(sigfy, "ED"), image.ErrMalformed},
		"carriage returns":     {strings.ReplaceAll(mini, "\n", "\r\n"), image.ErrMalformed},
		"something follows":    {mini + "x\n", image.ErrMalformed},
		"empty line follows":   {mini + "\n", image.ErrMalformed},
		"embedded message":     {sigfy + "message\n", image.ErrMalformed},
		"no prefix":            {strings.TrimPrefix(mini, "un"), image.ErrMalformed},
		"only a comment":       {untrustedPrefix + "\n", image.ErrMalformed},
		"escape sequence":      {strings.Replace(mini, "comment: sig", "comment: \x1b[2J", 1), image.ErrMalformed},
		"not UTF-8":            {strings.Replace(mini, "comment: sig", "comment: \xff", 1), image.ErrMalformed},
		"long comment":         {strings.Replace(mini, "comment: sig", "comment: "+strings.Repeat("x", 1024), 1), image.ErrMalformed},
		"long trusted comment": {strings.Replace(mini, "board-a", strings.Repeat("x", 8192), 1), image.ErrMalformed},
		"stray base64 bits":    {strings.Replace(mini, "ORAw==", "ORAx==", 1), image.ErrMalformed},
		"two versions":         {strings.Replace(mini, "\tversion:", "\tversion:9\tversion:", 1), image.ErrMalformed},
		"empty version":        {strings.Replace(mini, "version:1.2.3", "version:", 1), image.ErrMalformed},
		"signed counter":       {strings.Replace(mini, "version:", "security_counter:+1\tversion:", 1), image.ErrMalformed},
		"huge counter":         {strings.Replace(mini, "version:", "security_counter:9007199254740992\tversion:", 1), image.ErrMalformed},
		"much hardware":        {strings.Replace(mini, "hw:board-a", strings.Repeat("hw:b\t", 65)+"x", 1), image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.env == mini || tc.env == sigfy {
				t.Fatal("the attack changed nothing")
			}
			_, err := InspectEnvelope([]byte(tc.env))
			wantReason(t, err, tc.want)
		})
	}
}

func TestSignRefusesWhatItCannotSay(t *testing.T) {
	key := newKey(t)
	other, _, _ := strings.Cut(strings.SplitN(string(sample(t, "minisign.pub")), "\n", 2)[1], "\n")
	many := make([]string, 65)
	for i := range many {
		many[i] = "b"
	}
	long := make([]string, 40)
	for i := range long {
		long[i] = strings.Repeat("b", 256)
	}
	for name, tc := range map[string]struct {
		opt  image.SignOptions
		only image.Format
	}{
		"vendor":         {image.SignOptions{Vendor: "example.com", Hardware: []string{"a"}}, nil},
		"header":         {image.SignOptions{HeaderSize: 32}, nil},
		"other key":      {image.SignOptions{Layout: layout(t, Layout{PublicKey: other})}, nil},
		"no key":         {image.SignOptions{Layout: layout(t, Layout{PublicKey: "RW"})}, nil},
		"unknown option": {image.SignOptions{Layout: []byte(`{"key":1}`)}, nil},
		"tab":            {image.SignOptions{Version: "1\thw:b"}, Format{}},
		"line feed":      {image.SignOptions{Product: "a\nb"}, Format{}},
		"long":           {image.SignOptions{Version: strings.Repeat("1", 257)}, Format{}},
		"counter":        {image.SignOptions{SecurityCounter: new(uint64(1 << 53))}, Format{}},
		"many":           {image.SignOptions{Hardware: many}, Format{}},
		"too long":       {image.SignOptions{Hardware: long}, Format{}},
		"empty hardware": {image.SignOptions{Hardware: []string{""}}, Format{}},
		"timestamp":      {image.SignOptions{Layout: []byte(`{"timestamp":-1}`)}, Format{}},
		"comment":        {image.SignOptions{Layout: []byte(`{"file":"x"}`)}, Signify{}},
	} {
		for _, f := range both {
			if tc.only == nil || tc.only == f {
				_, err := f.Sign(t.Context(), io.Discard, strings.NewReader("x"), 1, key, tc.opt)
				if _, ok := image.ReasonOf(err); !ok {
					t.Errorf("%s, %s: got %v", f.Name(), name, err)
				}
				wantReason(t, err, image.ErrBadOptions)
			}
		}
	}
	for _, f := range both {
		_, err := f.Sign(t.Context(), io.Discard, strings.NewReader("xx"), 2, key, image.SignOptions{SlotSize: 1})
		wantReason(t, err, image.ErrTooLarge)
		_, err = f.Sign(t.Context(), io.Discard, strings.NewReader("x"), 1, newP256(t), image.SignOptions{})
		wantReason(t, err, image.ErrUnsupported)
		_, err = f.Sign(t.Context(), io.Discard, strings.NewReader("x"), 2, key, image.SignOptions{})
		wantReason(t, err, image.ErrTruncated)
	}
	_, err := Signify{}.Sign(t.Context(), io.Discard, zeros{}, MaxSignifySign+1, key, image.SignOptions{})
	wantReason(t, err, image.ErrTooLarge)
}

// The largest image that signify signs, and a larger one that still verifies:
// the signature is made here with the standard library.
func TestSignifyVerifiesMoreThanItSigns(t *testing.T) {
	key := newKey(t)
	res, err := Signify{}.Sign(t.Context(), io.Discard, zeros{}, MaxSignifySign, key, image.SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Signify{}).Verify(t.Context(), zeros{}, MaxSignifySign, res.Envelope, []crypto.PublicKey{key.Public()}); err != nil {
		t.Error(err)
	}
	const size = MaxSignifySign + 1
	raw := slices.Concat([]byte("Ed12345678"), ed25519.Sign(key, make([]byte, size)))
	env := []byte("untrusted comment: x\n" + base64.StdEncoding.EncodeToString(raw))
	if _, err := (Signify{}).Verify(t.Context(), zeros{}, size, env, []crypto.PublicKey{key.Public()}); err != nil {
		t.Error(err)
	}
	_, err = Signify{}.Verify(t.Context(), zeros{}, size+1, env, []crypto.PublicKey{key.Public()})
	wantReason(t, err, image.ErrUnknownKey)
}

func TestParsePublicKeyReadsBothTools(t *testing.T) {
	k := sampleKey(t)
	for _, text := range []string{string(sample(t, "signify.pub")), string(k.File()), strings.Split(string(k.File()), "\n")[1]} {
		got, err := ParsePublicKey([]byte(text))
		if err != nil || got.Number != k.Number || !got.Key.Equal(k.Key) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	file := string(k.File())
	for _, text := range []string{
		"", "\n", untrustedPrefix, file + "x", strings.Replace(file, "RW", "RU", 1), file[:len(file)-3],
		strings.Replace(file, "un", "", 1), strings.Repeat("A", 5000), string(sampleEnvelope(t, Format{})),
	} {
		_, err := ParsePublicKey([]byte(text))
		wantReason(t, err, image.ErrMalformed)
	}
}

func newP256(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// zeros is an endless file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
