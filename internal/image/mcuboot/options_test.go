package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func TestSignRefusesLayouts(t *testing.T) {
	p256, ed := newP256(t), newEd25519(t)
	rsaKey, p384 := theRSA(t, rsa2048), newP384(t)
	pem := func(k *ecdh.PrivateKey) string {
		b, err := json.Marshal(string(publicPEM(t, k.PublicKey())))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	onP256, onX25519, onP384 := pem(newRecipient(t, ecdh.P256())), pem(newRecipient(t, ecdh.X25519())), pem(newRecipient(t, ecdh.P384()))
	private, err := json.Marshal(string(privatePEM(t, p256)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		key    crypto.Signer
		layout string
	}{
		{"not an object", p256, `[]`},
		{"not JSON", p256, `{`},
		{"data after it", p256, `{} {}`},
		{"unknown member", p256, `{"hash_algorithm": "sha256"}`},
		{"repeated member", p256, `{"hash": "sha256", "hash": "sha256"}`},
		{"other case", p256, `{"hash": "sha256", "Hash": "sha384"}`},
		{"unknown hash", p256, `{"hash": "md5"}`},
		{"hash of another key", p256, `{"hash": "sha384"}`},
		{"p384 with sha256", p384, `{"hash": "sha256"}`},
		{"rsa with sha512", rsaKey, `{"hash": "sha512"}`},
		{"ed25519 with sha384", ed, `{"hash": "sha384"}`},
		{"pure ecdsa", p256, `{"pure": true}`},
		{"pure with sha256", ed, `{"pure": true, "hash": "sha256"}`},
		{"unknown key form", p256, `{"key": "none"}`},
		{"unknown signatures", p256, `{"signatures": "keep"}`},
		{"adding to nothing", p256, `{"signatures": "add"}`},
		{"long software type", p256, `{"boot_record": "thirteen byte"}`},
		{"dependency version", p256, `{"dependencies": [{"image": 1, "version": "1.2"}]}`},
		{"dependency number", p256, `{"dependencies": [{"image": 256, "version": "1.2.3"}]}`},
		{"two dependencies on one image", p256, `{"dependencies": [{"image": 1, "version": "1.2.3"}, {"image": 1, "version": "1.2.4"}]}`},
		{"reserved TLV", p256, `{"tlvs": [{"type": "0x50", "data": "00"}]}`},
		{"last TLV", p256, `{"tlvs": [{"type": "0xffff", "data": "00"}]}`},
		{"wide TLV", p256, `{"tlvs": [{"type": "0x100a0", "data": "00"}]}`},
		{"two TLVs of a type", p256, `{"tlvs": [{"type": "0xa0", "data": "00"}, {"type": "160", "data": "00"}]}`},
		{"odd TLV", p256, `{"tlvs": [{"type": "0xa0", "data": "0"}]}`},
		{"TLV of a word", p256, `{"tlvs": [{"type": "0xa0", "data": "hello"}]}`},
		{"large TLV", p256, fmt.Sprintf(`{"tlvs": [{"type": "0xa0", "data": "%s"}]}`, strings.Repeat("00", 0xffff-7))},
		{"class without vendor", p256, `{"class": "board-a"}`},
		{"vendor without class", p256, `{"vendor": "example.com"}`},
		{"encryption to nobody", p256, `{"encryption": {}}`},
		{"deferred with recipient", p256, `{"encryption": {"deferred": true, "recipient": ` + onP256 + `}}`},
		{"aes192", p256, `{"encryption": {"aes": 192, "recipient": ` + onP256 + `}}`},
		{"unknown hmac", p256, `{"encryption": {"hmac": "sha1", "recipient": ` + onP256 + `}}`},
		{"sha512 on p256", p256, `{"encryption": {"hmac": "sha512", "recipient": ` + onP256 + `}}`},
		{"private key", p256, `{"encryption": {"recipient": ` + string(private) + `}}`},
		{"p384 recipient", p384, `{"encryption": {"recipient": ` + onP384 + `}}`},
		{"x25519 recipient of a p256 signature", p256, `{"encryption": {"recipient": ` + onX25519 + `}}`},
		{"p256 recipient of an ed25519 signature", ed, `{"encryption": {"recipient": ` + onP256 + `}}`},
		{"p256 recipient of an rsa signature", rsaKey, `{"encryption": {"recipient": ` + onP256 + `}}`},
		{"no recipient at all", p256, `{"encryption": {"recipient": "me"}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := Format{}.Sign(t.Context(), &out, strings.NewReader("firmware"), 8, tc.key, withLayout("1.2.3", tc.layout))
			wantReason(t, err, image.ErrBadOptions)
			if out.Len() != 0 {
				t.Errorf("wrote %d bytes", out.Len())
			}
		})
	}
}

// The layout and the fields of SignOptions that mean the same must agree.
func TestLayoutAgreesWithOptions(t *testing.T) {
	key := newP256(t)
	for _, tc := range []struct {
		name, layout string
		opt          image.SignOptions
		ok           bool
	}{
		{"header size twice", `{"header_size": 64}`, image.SignOptions{HeaderSize: 64}, true},
		{"other header size", `{"header_size": 64}`, image.SignOptions{HeaderSize: 128}, false},
		{"slot size", `{"slot_size": 65536}`, image.SignOptions{}, true},
		{"other slot size", `{"slot_size": 65536}`, image.SignOptions{SlotSize: 32768}, false},
		{"other vendor", `{"vendor": "example.com"}`, image.SignOptions{Vendor: "example.org", Hardware: []string{"a"}}, false},
		{"class of the hardware", `{"vendor": "example.com", "class": "b"}`, image.SignOptions{Hardware: []string{"a", "b"}}, true},
		{"class by uuid", `{"vendor": "example.com", "class": "5f363112-95cf-534f-a3d1-fc8ef6f4962a"}`, image.SignOptions{Hardware: []string{"board-a"}}, true},
		{"class of other hardware", `{"vendor": "example.com", "class": "c"}`, image.SignOptions{Hardware: []string{"a", "b"}}, false},
		{"vendor for one hardware", `{"vendor": "example.com"}`, image.SignOptions{Hardware: []string{"a"}}, true},
		{"vendor for two", `{"vendor": "example.com"}`, image.SignOptions{Hardware: []string{"a", "b"}}, false},
	} {
		tc.opt.Version, tc.opt.Layout = "1.2.3", json.RawMessage(tc.layout)
		_, err := Format{}.Sign(t.Context(), io.Discard, strings.NewReader("firmware"), 8, key, tc.opt)
		if tc.ok && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if !tc.ok {
			wantReason(t, err, image.ErrBadOptions)
		}
	}
}

// What an image says of itself is not changed by signing it again.
func TestResigningRefusesOtherClaims(t *testing.T) {
	full, key := sample(t, "p256-full.bin"), newP256(t)
	for layout, want := range map[string]error{
		`{"boot_record": "APP"}`:                                      nil,
		`{"boot_record": "BL"}`:                                       image.ErrBadOptions,
		`{"boot_record": "APP2"}`:                                     image.ErrBadOptions,
		`{"dependencies": [{"image": 2, "version": "0.1.0"}]}`:        nil,
		`{"dependencies": [{"image": 2, "version": "0.1.1"}]}`:        image.ErrBadOptions,
		`{"dependencies": [{"image": 3, "version": "0.1.0"}]}`:        image.ErrBadOptions,
		`{"tlvs": [{"type": "0xa1", "data": "68656c6c6f"}]}`:          nil,
		`{"tlvs": [{"type": "0xa1", "data": ""}]}`:                    image.ErrBadOptions,
		`{"tlvs": [{"type": "0xa2", "data": "00"}]}`:                  image.ErrBadOptions,
		`{"vendor": "example.com", "class": "board-a"}`:               nil,
		`{"vendor": "example.com", "class": "board-b"}`:               image.ErrBadOptions,
		`{"hash": "sha256", "key": "full", "signatures": "add"}`:      nil,
		`{"header_size": 1024}`:                                       image.ErrBadOptions,
		`{"signatures": "add", "encryption": {"deferred": true}}`:     image.ErrBadOptions,
		`{"signatures": "replace", "encryption": {"deferred": true}}`: nil,
	} {
		_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(full), int64(len(full)), key, withLayout("", layout))
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", layout, err, want)
		}
	}
	// The boot record holds a digest by SHA-256.
	for layout, k := range map[string]crypto.Signer{"{}": newP384(t), `{"hash": "sha512"}`: newEd25519(t), `{"pure": true}`: newEd25519(t)} {
		_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(full), int64(len(full)), k, withLayout("", layout))
		wantReason(t, err, image.ErrBadOptions)
	}
}

// Re-signing keeps the mode of the image unless it is told otherwise or the key
// has another.
func TestResigningKeepsTheMode(t *testing.T) {
	payload, ed := sample(t, "payload.bin"), newEd25519(t)
	from := map[string][]byte{
		"pure":   mustSign(t, payload, ed, withLayout("1.0.0", `{"pure": true, "key": "full"}`)),
		"sha512": mustSign(t, payload, ed, withLayout("1.0.0", `{"hash": "sha512"}`)),
		"sha384": mustSign(t, payload, newP384(t), withLayout("1.0.0", `{}`)),
		"sha256": mustSign(t, payload, ed, withLayout("1.0.0", `{"key": "full"}`)),
	}
	for _, tc := range []struct {
		from   string
		key    crypto.Signer
		layout string
		hash   string
		pure   bool
	}{
		{"pure", ed, `{}`, "sha512", true},
		{"pure", ed, `{"pure": false}`, "sha512", false},
		{"pure", ed, `{"pure": false, "hash": "sha256"}`, "sha256", false},
		{"pure", newP256(t), `{}`, "sha256", false},
		{"sha512", ed, `{}`, "sha512", false},
		{"sha512", ed, `{"pure": true}`, "sha512", true},
		{"sha512", newP384(t), `{}`, "sha384", false},
		{"sha384", ed, `{}`, "sha256", false},
		{"sha384", theRSA(t, rsa3072), `{}`, "sha256", false},
		{"sha256", ed, `{}`, "sha256", false},
		{"sha256", ed, `{"hash": "sha512"}`, "sha512", false},
	} {
		b := mustSign(t, from[tc.from], tc.key, withLayout("", tc.layout))
		v, err := verifyBytes(b, tc.key.Public())
		if err != nil {
			t.Errorf("%s %s: %v", tc.from, tc.layout, err)
			continue
		}
		if d := details(t, b); d.Hash != tc.hash || d.Pure != tc.pure || len(v.Info.Signatures) != 1 {
			t.Errorf("%s %s: got %s, pure %t", tc.from, tc.layout, d.Hash, d.Pure)
		}
		l, err := parse(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		wasFull := tc.from == "pure" || tc.from == "sha256"
		if isFull := l.tlvs[len(l.tlvs)-2].typ == tlvPubKey; isFull != wasFull {
			t.Errorf("%s %s: key in full is %t", tc.from, tc.layout, isFull)
		}
	}
	// One digest for all signatures of an image.
	for _, tc := range []struct {
		from   string
		key    crypto.Signer
		layout string
	}{
		{"pure", newP256(t), `{"signatures": "add"}`},
		{"pure", ed, `{"signatures": "add", "pure": false}`},
		{"sha512", ed, `{"signatures": "add", "pure": true}`},
		{"sha256", newP384(t), `{"signatures": "add"}`},
		{"sha384", newP256(t), `{"signatures": "add"}`},
	} {
		_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(from[tc.from]), int64(len(from[tc.from])), tc.key, withLayout("", tc.layout))
		wantReason(t, err, image.ErrBadOptions)
	}
}
