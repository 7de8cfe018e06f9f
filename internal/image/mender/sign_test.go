package mender

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestWhatIsSignedVerifies(t *testing.T) {
	many := make([]byte, 300000)
	_, _ = rand.Read(many)
	two := `{"payloads":[{"type":"rootfs-image"},{"type":null}],"artifact_provides":{"artifact_name":"n","artifact_group":"g"},"artifact_depends":{"device_type":["board-a"],"artifact_name":["m"]}}`
	for name, key := range map[string]crypto.Signer{"rsa3072-pkcs1-sha256": rsaKey(), image.AlgECDSAP256: newEC(t, elliptic.P256())} {
		for in, s := range map[string]spec{
			"plain":        {},
			"gzip":         {ext: ".gz", headerExt: ".gz"},
			"zstd":         {ext: ".zst", headerExt: ".zst"},
			"mixed":        {ext: ".gz"},
			"large":        {data: [][]file{{{"a", many}, {"b", nil}}}, ext: ".gz"},
			"two payloads": {info: two, types: []string{goodType, `{"type":null,"artifact_provides":{"x.version":"1.2.3"}}`}, data: [][]file{{{"a", many}}, {}}},
		} {
			b := build(s)
			info, err := inspectBytes(b)
			if err != nil || info.Signatures != nil {
				t.Errorf("%s: %+v, %v", in, info.Signatures, err)
			}
			// Signing twice replaces the first signature.
			out := mustSign(t, mustSign(t, b, newEC(t, elliptic.P256()), image.SignOptions{}), key, image.SignOptions{})
			v, err := verifyBytes(out, key.Public())
			if err != nil {
				t.Errorf("%s, %s: %v", name, in, err)
				continue
			}
			if v.Algorithm != name || v.Info.Version != "1.2.3" || *v.Info.SecurityCounter != 7 || len(v.Info.Signatures) != 1 {
				t.Errorf("%s, %s: got %+v", name, in, v)
			}
			if string(v.Info.Details) != string(info.Details) {
				t.Errorf("%s: signing changed %s to %s", in, info.Details, v.Info.Details)
			}
		}
	}
}

func TestInspectReadsProvidesAndDepends(t *testing.T) {
	info, err := inspectBytes(build(spec{}))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"board-a", "board-b"}, info.Hardware); d != "" {
		t.Error(d)
	}
	var got Details
	if err := json.Unmarshal(info.Details, &got); err != nil {
		t.Fatal(err)
	}
	p := got.Payloads[0]
	p.Files = nil
	want := Payload{
		Type:           "rootfs-image",
		Provides:       map[string]string{"rootfs-image.version": "1.2.3", "writ.security_counter": "7"},
		Depends:        map[string][]string{"rootfs-image.checksum": {"aa"}, "x": {"1", "2"}},
		ClearsProvides: []string{"rootfs-image.*"},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestVersionInAName(t *testing.T) {
	for name, want := range map[string]string{
		"release-1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3": "1.2.3", "raspberrypi4-64-v2.0-rc1": "2.0-rc1",
		"release-1.2-3": "1.2-3", "a/b_1.0+5": "1.0+5", "app:3.4": "3.4", "release 7.1": "7.1",
		"board-2-1.2.3": "1.2.3", "stable": "", "release-7": "", "mender4.2": "", "x1.2.3": "", "": "", "1.2.3 (beta)": "",
	} {
		got, ok := versionIn(name)
		if got != want || ok != (want != "") {
			t.Errorf("%q says %q, want %q", name, got, want)
		}
	}
}

func TestSignRefusesOptionsThatContradictTheArtifact(t *testing.T) {
	info := func(name string) string {
		return fmt.Sprintf(`{"payloads":[{"type":"t"}],"artifact_provides":{"artifact_name":%q},"artifact_depends":{"device_type":["board-a"]}}`, name)
	}
	provides := func(key, value string) []string {
		return []string{fmt.Sprintf(`{"type":"t","artifact_provides":{%q:%q}}`, key, value)}
	}
	type option = image.SignOptions
	both := []string{"board-b", "board-a"}
	for name, tc := range map[string]struct {
		in  spec
		opt option
		ok  bool
	}{
		"all that agree":       {spec{}, option{Version: "1.2.3", SecurityCounter: new(uint64(7)), Hardware: both, Product: "p"}, true},
		"v":                    {spec{}, option{Version: "v1.2.3"}, false},
		"version":              {spec{}, option{Version: "1.2.4"}, false},
		"end of the version":   {spec{}, option{Version: "2.3"}, false},
		"counter":              {spec{}, option{SecurityCounter: new(uint64(6))}, false},
		"zero counter":         {spec{}, option{SecurityCounter: new(uint64(0))}, false},
		"fewer devices":        {spec{}, option{Hardware: []string{"board-a"}}, false},
		"more devices":         {spec{}, option{Hardware: []string{"board-a", "board-b", "board-c"}}, false},
		"vendor":               {spec{}, option{Vendor: "example.com"}, false},
		"header":               {spec{}, option{HeaderSize: 32}, false},
		"layout":               {spec{}, option{Layout: json.RawMessage(`{"append":true}`)}, false},
		"no counter, zero":     {spec{info: info("a"), types: provides("x", "y")}, option{SecurityCounter: new(uint64(0))}, true},
		"no counter, one":      {spec{info: info("a"), types: provides("x", "y")}, option{SecurityCounter: new(uint64(1))}, false},
		"no version":           {spec{info: info("stable"), types: provides("x.version", "stable")}, option{Version: "9"}, true},
		"version only in name": {spec{info: info("a-1.0"), types: provides("x", "2.0")}, option{Version: "1.0"}, true},
		"payload differs":      {spec{info: info("a-1.0"), types: provides("x.version", "2.0")}, option{Version: "1.0"}, false},
		"name differs":         {spec{info: info("a-2.0"), types: provides("x.version", "1.0")}, option{Version: "1.0"}, false},
		"without a dot":        {spec{info: info("stable"), types: provides("x.version", "v7")}, option{Version: "7"}, true},
		"without a dot, other": {spec{info: info("stable"), types: provides("x.version", "7")}, option{Version: "8"}, false},
	} {
		_, _, err := signBytes(build(tc.in), rsaKey(), tc.opt)
		if tc.ok && err != nil || !tc.ok && !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, text := range []string{"-1", "07", "x", "", "18446744073709551616", " 7"} {
		b := build(spec{info: info("a"), types: provides(counterKey, text)})
		_, _, err := signBytes(b, rsaKey(), option{SecurityCounter: new(uint64(7))})
		wantReason(t, err, image.ErrMalformed)
		_, err = inspectBytes(b)
		wantReason(t, err, image.ErrMalformed)
	}
	_, _, err := signBytes(build(spec{}), rsaKey(), option{SlotSize: 1000})
	wantReason(t, err, image.ErrTooLarge)
}

func TestSignRefusesKeysThatMenderHasNoPlaceFor(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newEC(t, elliptic.P384()), small} {
		_, _, err := signBytes(build(spec{}), key, image.SignOptions{})
		wantReason(t, err, image.ErrUnsupported)
		if signedBy(key.Public(), nil, nil) {
			t.Error("verified")
		}
	}
}
