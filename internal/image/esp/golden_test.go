package esp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestVerifyAcceptsWhatEspsecureSigned(t *testing.T) {
	for _, tc := range []struct{ name, alg string }{
		{"rsa3072", image.AlgRSA3072},
		{"ecdsa256", image.AlgECDSAP256},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := sample(t, "app-"+tc.name+".bin")
			v, err := verifyBytes(b, goldenKeys(t)...)
			if err != nil {
				t.Fatal(err)
			}
			if v.Algorithm != tc.alg || v.Info.Version != "1.2.3" || *v.Info.SecurityCounter != 5 || v.Info.Size != int64(len(b)) {
				t.Errorf("got %+v", v)
			}
			if d := cmp.Diff([]string{"esp32c3"}, v.Info.Hardware); d != "" {
				t.Errorf("hardware (-want +got):\n%s", d)
			}
			// The digest that espsecure says to burn into the eFuses.
			fuse := hex.EncodeToString(sample(t, "keys/"+tc.name+".digest.bin"))
			if d := cmp.Diff([]image.SignatureInfo{{Algorithm: tc.alg, KeyID: fuse}}, v.Info.Signatures); d != "" {
				t.Errorf("signatures (-want +got):\n%s", d)
			}
			if id, _ := image.KeyID(v.Key); id != v.KeyID {
				t.Errorf("key id %s is not that of the key, %s", v.KeyID, id)
			}
			info, err := inspectBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(info, v.Info); d != "" {
				t.Errorf("Inspect and Verify differ:\n%s", d)
			}
		})
	}
}

func TestInspectReadsAnUnsignedImage(t *testing.T) {
	info, err := inspectBytes(sample(t, "app-unsigned.bin"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := inspectBytes(sample(t, "app-rsa3072.bin"))
	if err != nil {
		t.Fatal(err)
	}
	// The digest of the image is the one that will be signed.
	a, _ := info.Digest(image.ScopeImage)
	b, _ := signed.Digest(image.ScopeImage)
	if a != b || info.Signatures != nil {
		t.Errorf("got %+v, want the image digest %+v and no signature", info, b)
	}
	var d Details
	if err := json.Unmarshal(info.Details, &d); err != nil {
		t.Fatal(err)
	}
	want := Details{
		ChipID: 5, MaxChipRevision: 99, Project: "sample-app", BuildDate: "Nov 22 2026", BuildTime: "12:00:00", IDF: "v5.5",
		ELFSHA256: "780d84b20d7ae7e6292919399348bdbf96025270136198083fc8a4da398b5ca9",
	}
	if d := cmp.Diff(want, d); d != "" {
		t.Errorf("details (-want +got):\n%s", d)
	}
	_, err = verifyBytes(sample(t, "app-unsigned.bin"), goldenKeys(t)...)
	wantReason(t, err, image.ErrUnsigned)
}

// The golden signature is replayed, so the whole file must be equal.
func TestSignWritesWhatEspsecureWrites(t *testing.T) {
	opt := image.SignOptions{Version: "1.2.3", SecurityCounter: new(uint64(5)), Hardware: []string{"board-a", "ESP32-C3"}, SlotSize: 12288}
	for _, name := range []string{"rsa3072", "ecdsa256"} {
		want := sample(t, "app-"+name+".bin")
		key := replay{publicKey(t, name), want}
		for in, b := range map[string][]byte{
			"unsigned":          sample(t, "app-unsigned.bin"),
			"padded":            want[:8192],
			"signed":            want,
			"signed by another": sample(t, "app-ecdsa256.bin"),
		} {
			if got := mustSign(t, b, key, opt); !bytes.Equal(got, want) {
				t.Errorf("%s, from %s: output differs from espsecure's", name, in)
			}
		}
	}
}
