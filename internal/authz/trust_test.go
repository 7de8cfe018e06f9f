package authz

import (
	"bytes"
	"crypto"
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

func TestTrustBundleRoundTrip(t *testing.T) {
	b := testTrust()
	if b.Version() != 1 || b.Digest().IsZero() {
		t.Errorf("version %d, digest %s", b.Version(), b.Digest())
	}
	again, err := OpenTrust(b.Envelope())
	if err != nil || again.Digest() != b.Digest() {
		t.Errorf("%v", err)
	}
	if _, ok := b.AuthorizationKey(trustKey(authzKey).ID, testNow); !ok {
		t.Error("the authorization key is missing")
	}
	if _, ok := b.AuthorizationKey(trustKey(imageKey).ID, testNow); ok {
		t.Error("an image key authorizes")
	}
}

func TestTrustIsAcceptedOnlyFromItsPredecessor(t *testing.T) {
	current := testTrust()
	next := testDocument().Next(current)
	newRoots := next
	newRoots.Roots = Roots{Threshold: 1, Keys: []TrustKey{trustKey(otherKey)}}
	skipped := next
	skipped.Version++
	same := testDocument()
	other := next
	other.Previous = fw.DigestOf([]byte("another version 1"))
	lower := next
	lower.Roots.Threshold = 1
	for _, c := range []struct {
		name    string
		doc     TrustDocument
		signers []crypto.Signer
		want    fw.Kind // "": accepted
	}{
		{"signed by two of three", next, []crypto.Signer{rootA, rootC}, ""},
		{"signed by all", next, []crypto.Signer{rootC, rootB, rootA}, ""},
		{"signed by one", next, []crypto.Signer{rootA}, fw.Forbidden},
		{"signed by one twice", next, []crypto.Signer{rootA, rootA}, fw.Forbidden},
		{"signed by one and a stranger", next, []crypto.Signer{rootA, otherKey}, fw.Forbidden},
		{"unsigned", next, nil, fw.Forbidden},
		{"new roots, signed by both", newRoots, []crypto.Signer{rootA, rootB, otherKey}, ""},
		{"new roots, signed by the new only", newRoots, []crypto.Signer{otherKey}, fw.Forbidden},
		{"new roots, signed by the old only", newRoots, []crypto.Signer{rootA, rootB}, fw.Forbidden},
		{"lower threshold, signed by one", lower, []crypto.Signer{rootA}, fw.Forbidden},
		{"lower threshold, signed by two", lower, []crypto.Signer{rootA, rootB}, ""},
		{"a version skipped", skipped, []crypto.Signer{rootA, rootB}, fw.Conflict},
		{"the same version", same, []crypto.Signer{rootA, rootB}, fw.Conflict},
		{"another predecessor", other, []crypto.Signer{rootA, rootB}, fw.Conflict},
	} {
		env, err := SignTrust(c.doc, c.signers...)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := Accept(current, env)
		if fw.KindOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err == nil && got.Version() != 2 {
			t.Errorf("%s: version %d", c.name, got.Version())
		}
	}
	if _, err := Accept(nil, current.Envelope()); err == nil {
		t.Error("accepted after nothing")
	}
}

func TestSignaturesFromDifferentPlacesJoin(t *testing.T) {
	d := testDocument()
	a, b := must(SignTrust(d, rootA)), must(SignTrust(d, rootB))
	joined, err := JoinSignatures(a, b, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTrust(joined); err != nil {
		t.Error(err)
	}
	d.CreatedAt++
	if _, err := JoinSignatures(a, must(SignTrust(d, rootB))); fw.KindOf(err) != fw.Conflict {
		t.Errorf("of different bundles: %v", err)
	}
}

func TestEveryFlippedBitVoidsATrustBundle(t *testing.T) {
	env, want := testTrust().Envelope(), testTrust().Digest()
	for i := range env {
		bad := bytes.Clone(env)
		bad[i] ^= 1
		// Spaces and the case of member names are outside the signature; the
		// content is not.
		if b, err := OpenTrust(bad); err == nil && b.Digest() != want {
			t.Fatalf("byte %d: accepted with other content", i)
		}
	}
}

func TestMalformedTrustBundlesAreRefused(t *testing.T) {
	for what, change := range map[string]func(*TrustDocument){
		"other type":             func(d *TrustDocument) { d.Type = "writ-roster/v1" },
		"version 0":              func(d *TrustDocument) { d.Version = 0 },
		"version 1, predecessor": func(d *TrustDocument) { d.Previous = fw.DigestOf(nil) },
		"version 2, none":        func(d *TrustDocument) { d.Version = 2 },
		"no threshold":           func(d *TrustDocument) { d.Roots.Threshold = 0 },
		"threshold too high":     func(d *TrustDocument) { d.Roots.Threshold = 4 },
		"a root twice":           func(d *TrustDocument) { d.Roots.Keys[1] = d.Roots.Keys[0] },
		"a P-256 root":           func(d *TrustDocument) { d.Roots.Keys[0] = trustKey(deviceKey) },
		"wrong id":               func(d *TrustDocument) { d.ImageKeys[0].ID = fw.DigestOf(nil) },
		"broken key":             func(d *TrustDocument) { d.ImageKeys[0].PublicKey = []byte{1} },
		"key ends early":         func(d *TrustDocument) { d.ImageKeys[0].NotBefore, d.ImageKeys[0].NotAfter = 2, 1 },
		"log without origin":     func(d *TrustDocument) { d.LogKeys[0].Origin = "" },
		"broken certificate":     func(d *TrustDocument) { d.DeviceCAs = [][]byte{{1}} },
		"broken anchor":          func(d *TrustDocument) { d.TLSAnchors = [][]byte{{1}} },
		"too many keys":          func(d *TrustDocument) { d.ImageKeys = make([]TrustKey, maxKeys+1) },
	} {
		d := testDocument()
		change(&d)
		if _, err := d.Encode(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
	good := string(must(testDocument().Encode()))
	for what, doc := range map[string]string{
		"a member twice":            strings.Replace(good, `"version":1`, `"version":1,"version":2`, 1),
		"a member twice, one upper": strings.Replace(good, `"version":1`, `"Version":9,"version":1`, 1),
		"an unknown member":         strings.Replace(good, `"version":1`, `"version":1,"note":"x"`, 1),
		"trailing data":             good + "{}",
		"nested too deep":           strings.Replace(good, `"version":1`, `"version":`+strings.Repeat("[", 50)+strings.Repeat("]", 50), 1),
	} {
		if doc == good {
			t.Fatalf("%s: nothing changed", what)
		}
		if _, err := parseTrust([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	var e dsse.Envelope
	if err := json.Unmarshal(testTrust().Envelope(), &e); err != nil {
		t.Fatal(err)
	}
	e.PayloadType = "application/vnd.writ.roster.v1+json"
	if _, err := OpenTrust(must(json.Marshal(e))); err == nil {
		t.Error("a payload of another type")
	}
	if _, err := OpenTrust(make([]byte, MaxTrustBundle+1)); fw.KindOf(err) != fw.TooLarge {
		t.Errorf("oversized: %v", err)
	}
}

func TestKeysCountInTheirTime(t *testing.T) {
	d := testDocument()
	d.AuthorizationKeys[0].NotBefore, d.AuthorizationKeys[0].NotAfter = 100, 200
	b := must(OpenTrust(must(SignTrust(d, rootA, rootB))))
	for at, want := range map[int64]bool{99: false, 100: true, 200: true, 201: false} {
		if _, ok := b.AuthorizationKey(d.AuthorizationKeys[0].ID, at); ok != want {
			t.Errorf("at %d: %v", at, ok)
		}
	}
}
