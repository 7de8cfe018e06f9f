package raw

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-project/writ/internal/image"
)

var firmware = []byte("any bytes at all \x00\xff")

func newP256(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newEd25519(tb testing.TB) ed25519.PrivateKey {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustSign(tb testing.TB, key crypto.Signer, opt image.SignOptions) []byte {
	tb.Helper()
	var out bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(firmware), int64(len(firmware)), key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), firmware) || res.Size != int64(len(firmware)) || res.SHA256 != sha256.Sum256(firmware) {
		tb.Fatalf("output is not the input, or the result does not describe it: %+v", res)
	}
	return res.Envelope
}

func verifyBytes(b, envelope []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return Format{}.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), envelope, keys)
}

var options = image.SignOptions{
	Product: "thermostat <&> Übung", Version: "1.2.3-rc1", SecurityCounter: new(uint64(1<<53 - 1)), Hardware: []string{"board-a", "board-b"},
}

func TestSignedFilesVerify(t *testing.T) {
	for _, key := range []crypto.Signer{newP256(t), newEd25519(t)} {
		for _, opt := range []image.SignOptions{{}, options, {SecurityCounter: new(uint64(0))}} {
			env := mustSign(t, key, opt)
			v, err := verifyBytes(firmware, env, newEd25519(t).Public(), key.Public())
			if err != nil {
				t.Errorf("%+v: %v\n%s", opt, err, env)
				continue
			}
			id, _ := image.KeyID(key.Public())
			sum := fmt.Sprintf("%x", sha256.Sum256(firmware))
			want := image.Info{
				Format: "raw", Product: opt.Product, Version: opt.Version, SecurityCounter: opt.SecurityCounter, Hardware: opt.Hardware,
				Size: int64(len(firmware)),
				Digests: []image.Digest{
					{Scope: "file", Algorithm: "sha256", Hex: sum}, {Scope: "image", Algorithm: "sha256", Hex: sum},
				},
				Signatures: []image.SignatureInfo{{Algorithm: v.Algorithm, KeyID: id}},
			}
			if d := cmp.Diff(want, v.Info); d != "" || v.KeyID != id {
				t.Errorf("verified by %s (-want +got):\n%s", v.KeyID, d)
			}
		}
	}
}

// dsseKey lets the DSSE library check what we sign.
type dsseKey struct{ pub crypto.PublicKey }

func (k dsseKey) Public() crypto.PublicKey { return k.pub }

func (k dsseKey) KeyID() (string, error) { return image.KeyID(k.pub) }

func (k dsseKey) Verify(_ context.Context, data, sig []byte) error {
	ok := false
	switch p := k.pub.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(data)
		ok = ecdsa.VerifyASN1(p, sum[:], sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(p, data, sig)
	}
	if !ok {
		return errors.New("bad signature")
	}
	return nil
}

func TestDSSELibraryAcceptsWhatWeSign(t *testing.T) {
	for _, key := range []crypto.Signer{newP256(t), newEd25519(t)} {
		var env dsse.Envelope
		if err := json.Unmarshal(mustSign(t, key, options), &env); err != nil {
			t.Fatal(err)
		}
		ev, err := dsse.NewEnvelopeVerifier(dsseKey{key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ev.Verify(t.Context(), &env); err != nil {
			t.Error(err)
		}
	}
}

func TestPreAuthIsThatOfTheSpecification(t *testing.T) {
	// The example of DSSE protocol.md.
	if got := string(preAuth("http://example.com/HelloWorld", []byte("hello world"))); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Errorf("got %q", got)
	}
}

// Attack: change one byte of the file or of the envelope. A changed member name
// that DSSE says to ignore cannot occur: every member we write is needed.
func TestVerifyRefusesAnyFlippedByte(t *testing.T) {
	key := newEd25519(t)
	env := mustSign(t, key, options)
	for name, b := range map[string][]byte{"file": bytes.Clone(firmware), "envelope": bytes.Clone(env)} {
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				var err error
				if name == "file" {
					_, err = verifyBytes(b, env, key.Public())
				} else {
					_, err = verifyBytes(firmware, b, key.Public())
				}
				b[i] ^= 1 << bit
				if _, ok := image.ReasonOf(err); !ok {
					t.Fatalf("%s byte %d bit %d: got error %v, want a refusal", name, i, bit, err)
				}
			}
		}
	}
	for n := range env {
		if _, err := verifyBytes(firmware, env[:n], key.Public()); err == nil {
			t.Fatalf("first %d bytes of the envelope verify", n)
		}
	}
	for n := range firmware {
		if _, err := verifyBytes(firmware[:n], env, key.Public()); err == nil {
			t.Fatalf("first %d bytes of the file verify", n)
		}
	}
	_, err := verifyBytes(append(bytes.Clone(firmware), 0xff), env, key.Public())
	wantReason(t, err, image.ErrBadDigest)
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

// envelope signs any payload, as a trusted but careless signer would.
func envelope(t *testing.T, key crypto.Signer, payload string) []byte {
	t.Helper()
	es, err := dsse.NewEnvelopeSigner(signer{key, must(image.KeyID(key.Public()))})
	if err != nil {
		t.Fatal(err)
	}
	env, err := es.SignPayload(t.Context(), PayloadType, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return must(json.Marshal(env))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestVerifyIsStrictAboutTheStatement(t *testing.T) {
	key := newEd25519(t)
	sum := fmt.Sprintf("%x", sha256.Sum256(firmware))
	good := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"n","digest":{"sha256":"` + sum + `"}}],` +
		`"predicateType":"https://writ-project.dev/firmware-release/v1",` +
		`"predicate":{"version":"1","security_counter":7,"hardware":["a"],"format":"raw","size":` + strconv.Itoa(len(firmware)) + `}}`
	for _, tc := range []struct {
		name, from, to string
		want           image.ReasonError // "" accepts
	}{
		{"good", "", "", ""},
		{"spaces", `{"name"`, "{ \n\t\"name\" ", ""},
		{"no subject name", `"name":"n",`, "", ""},
		{"statement type", "Statement/v1", "Statement/v0.1", image.ErrMalformed},
		{"predicate type", "firmware-release/v1", "firmware-release/v2", image.ErrMalformed},
		{"unknown member", `"_type"`, `"x":1,"_type"`, image.ErrMalformed},
		{"unknown predicate member", `"version"`, `"only_on_mondays":true,"version"`, image.ErrMalformed},
		{"member in other case", `"version"`, `"Version"`, image.ErrMalformed},
		{"duplicate member", `"version"`, `"version":"2","version"`, image.ErrMalformed},
		{"duplicate by escape", `"version"`, `"v\u0065rsion":"2","version"`, image.ErrMalformed},
		{"two subjects", `"subject":[`, `"subject":[{"name":"m","digest":{"sha256":"` + sum + `"}},`, image.ErrMalformed},
		{"no subjects", `[{"name":"n","digest":{"sha256":"` + sum + `"}}]`, `[]`, image.ErrMalformed},
		{"second digest", `{"sha256"`, `{"md5":"","sha256"`, image.ErrMalformed},
		{"upper-case digest", sum, strings.ToUpper(sum), image.ErrMalformed},
		{"short digest", sum, sum[:62], image.ErrMalformed},
		{"other digest", sum, strings.Repeat("0", 64), image.ErrBadDigest},
		{"other size", `"size":19`, `"size":20`, image.ErrBadDigest},
		{"negative size", `"size":19`, `"size":-19`, image.ErrBadDigest},
		{"size as fraction", `"size":19`, `"size":19.0`, image.ErrMalformed},
		{"size missing", `,"size":19`, ``, image.ErrMalformed},
		{"other format", `"raw"`, `"mcuboot"`, image.ErrMalformed},
		{"counter null", `:7`, `:null`, image.ErrMalformed},
		{"counter negative", `:7`, `:-7`, image.ErrMalformed},
		{"counter text", `:7`, `:"7"`, image.ErrMalformed},
		{"counter not exact in a double", `:7`, `:9007199254740992`, image.ErrMalformed},
		{"counter over 64 bits", `:7`, `:18446744073709551616`, image.ErrMalformed},
		{"no hardware", `["a"]`, `[]`, image.ErrMalformed},
		{"null hardware", `["a"]`, `["a",null]`, image.ErrMalformed},
		{"empty hardware", `["a"]`, `[""]`, image.ErrMalformed},
		{"empty version", `"version":"1"`, `"version":""`, image.ErrMalformed},
		{"long version", `"version":"1"`, `"version":"` + strings.Repeat("1", 257) + `"`, image.ErrMalformed},
		{"not UTF-8", `"version":"1"`, "\"version\":\"\xff\"", image.ErrMalformed},
		{"predicate is a list", `"predicate":{`, `"predicate":[],"x":{`, image.ErrMalformed},
		{"trailing data", `19}}`, `19}}{}`, image.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			payload := strings.Replace(good, tc.from, tc.to, 1)
			if tc.from != "" && payload == good {
				t.Fatal("the case changes nothing")
			}
			_, err := verifyBytes(firmware, envelope(t, key, payload), key.Public())
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, tc.want)
		})
	}
}

func TestVerifyReadsEnvelopes(t *testing.T) {
	key, other := newEd25519(t), newP256(t)
	var env dsse.Envelope
	if err := json.Unmarshal(mustSign(t, key, options), &env); err != nil {
		t.Fatal(err)
	}
	var foreign dsse.Envelope
	if err := json.Unmarshal(mustSign(t, other, options), &foreign); err != nil {
		t.Fatal(err)
	}
	s := env.Signatures[0]
	bad := dsse.Signature{KeyID: s.KeyID, Sig: base64.StdEncoding.EncodeToString(make([]byte, 64))}
	with := func(sigs ...dsse.Signature) []byte {
		return must(json.Marshal(dsse.Envelope{PayloadType: env.PayloadType, Payload: env.Payload, Signatures: sigs}))
	}
	plain := string(with(s))
	payload := must(base64.StdEncoding.DecodeString(env.Payload))
	for _, tc := range []struct {
		name string
		env  []byte
		want image.ReasonError // "" accepts
	}{
		{"plain", with(s), ""},
		{"member to ignore", []byte(`{"later":[{}],` + plain[1:]), ""},
		{"url-safe base64", []byte(strings.Replace(plain, env.Payload, base64.URLEncoding.EncodeToString(payload), 1)), ""},
		{"foreign first", with(foreign.Signatures[0], s), ""},
		{"foreign last", with(s, foreign.Signatures[0]), ""},
		{"good then bad", with(s, bad), image.ErrBadSignature},
		{"bad then good", with(bad, s), image.ErrBadSignature},
		{"foreign only", with(foreign.Signatures[0]), image.ErrUnknownKey},
		{"no key id", with(dsse.Signature{Sig: s.Sig}), image.ErrUnknownKey},
		{"no signatures", with(), image.ErrMalformed}, // null
		{"empty signatures", []byte(`{"payload":"","payloadType":"` + PayloadType + `","signatures":[]}`), image.ErrUnsigned},
		{"many signatures", with(s, s, s, s, s, s, s, s, s), image.ErrMalformed},
		{"nothing", nil, image.ErrUnsigned},
		{"not JSON", []byte("firmware"), image.ErrMalformed},
		{"list", []byte("[]"), image.ErrMalformed},
		{"deep", bytes.Repeat([]byte("["), 60_000), image.ErrMalformed},
		{"deep member", append([]byte(`{"a":`), bytes.Repeat([]byte("["), 60_000)...), image.ErrMalformed},
		{"too large", append([]byte(plain), bytes.Repeat([]byte(" "), MaxEnvelope)...), image.ErrTooLarge},
		{"trailing data", []byte(plain + "{}"), image.ErrMalformed},
		{"payload twice", []byte(`{"payload":"",` + plain[1:]), image.ErrMalformed},
		{"other payload type", []byte(strings.Replace(plain, "in-toto", "in_toto", 1)), image.ErrMalformed},
		{"line break in base64", []byte(strings.Replace(plain, env.Payload, env.Payload[:4]+`\n`+env.Payload[4:], 1)), image.ErrMalformed},
		{"payload swapped", []byte(strings.Replace(plain, env.Payload, base64.StdEncoding.EncodeToString([]byte("{}")), 1)), image.ErrBadSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verifyBytes(firmware, tc.env, key.Public())
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, tc.want)
		})
	}
}

func TestSignRefuses(t *testing.T) {
	type o = image.SignOptions
	key := newP256(t)
	for name, opt := range map[string]o{
		"counter":           {SecurityCounter: new(uint64(1 << 53))},
		"empty hardware id": {Hardware: []string{""}},
		"many hardware ids": {Hardware: make([]string, maxHardware+1)},
		"not UTF-8":         {Product: "\xff"},
		"long version":      {Version: strings.Repeat("1", maxText+1)},
		"vendor":            {Vendor: "example.com", Hardware: []string{"a"}},
		"header":            {HeaderSize: 0x200},
		"escapes":           {Hardware: strings.Split(strings.Repeat(strings.Repeat("\x01", maxText)+",", maxHardware-1)+"a", ",")},
	} {
		_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(firmware), int64(len(firmware)), key, opt)
		if !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%s: got %v, want bad_options", name, err)
		}
	}
	_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(firmware), int64(len(firmware)), key, o{SlotSize: 3})
	wantReason(t, err, image.ErrTooLarge)
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(firmware), int64(len(firmware))+1, key, o{})
	wantReason(t, err, image.ErrTruncated)
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(firmware), math.MaxInt64, key, o{})
	wantReason(t, err, image.ErrTooLarge)
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(nil), 0, key, o{})
	wantReason(t, err, image.ErrTruncated)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	_, err = Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(firmware), int64(len(firmware)), rsaKey, o{})
	wantReason(t, err, image.ErrUnsupported)
}

func TestKeysOfOtherKindsNeverMatch(t *testing.T) {
	key := newP256(t)
	env := mustSign(t, key, options)
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	_, err := verifyBytes(firmware, env, p384.Public(), rsaKey.Public(), nil, "text", ed25519.PublicKey{})
	wantReason(t, err, image.ErrUnknownKey)
}
