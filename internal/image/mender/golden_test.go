package mender

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestVerifyAcceptsWhatMenderArtifactSigned(t *testing.T) {
	for _, tc := range []struct{ name, alg string }{
		{"rsa", "rsa3072-pkcs1-sha256"},
		{"ec", image.AlgECDSAP256},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := sample(t, tc.name+".mender")
			v, err := verifyBytes(b, goldenKeys(t)...)
			if err != nil {
				t.Fatal(err)
			}
			if v.Algorithm != tc.alg || v.Info.Version != "1.2.3" || v.Info.SecurityCounter != nil || v.Info.Size != int64(len(b)) {
				t.Errorf("got %+v", v)
			}
			if d := cmp.Diff([]image.SignatureInfo{{Algorithm: tc.alg, KeyID: v.KeyID}}, v.Info.Signatures); d != "" {
				t.Errorf("signatures (-want +got):\n%s", d)
			}
			if id, _ := image.KeyID(v.Key); id != v.KeyID {
				t.Errorf("key id %s is not that of the key, %s", v.KeyID, id)
			}
			var got Details
			if err := json.Unmarshal(v.Info.Details, &got); err != nil {
				t.Fatal(err)
			}
			want := Details{
				ArtifactName: "release-1.2.3",
				Depends:      map[string][]string{"device_type": {"board-a"}},
				Payloads: []Payload{{
					Type:           "single-file",
					Provides:       map[string]string{"rootfs-image.single-file.version": "release-1.2.3"},
					ClearsProvides: []string{"rootfs-image.single-file.*"},
					Files:          []File{{Name: "fw.bin", Size: 4099, SHA256: "2cd5a00d765f529f2f4f2f2731280fe759939caf1f98ff0c2aa2fd94387aa92a"}},
				}},
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("details (-want +got):\n%s", d)
			}
			info, err := inspectBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			info.Signatures[0].KeyID = v.KeyID // which Inspect cannot know
			if d := cmp.Diff(info, v.Info); d != "" {
				t.Errorf("Inspect and Verify differ:\n%s", d)
			}
		})
	}
	_, err := verifyBytes(sample(t, "unsigned.mender"), goldenKeys(t)...)
	wantReason(t, err, image.ErrUnsigned)
	_, err = verifyBytes(sample(t, "ec.mender"), publicKey(t, "rsa"))
	wantReason(t, err, image.ErrUnknownKey)
	_, err = verifyBytes(sample(t, "ec.mender"))
	wantReason(t, err, image.ErrUnknownKey)
	_, err = Format{}.Verify(t.Context(), bytes.NewReader(sample(t, "ec.mender")), 14336, []byte("{}"), goldenKeys(t))
	wantReason(t, err, image.ErrMalformed)
}

// The golden signature is replayed, so the whole file must be equal.
func TestSignWritesWhatMenderArtifactWrites(t *testing.T) {
	opt := image.SignOptions{Version: "1.2.3", Hardware: []string{"board-a"}, SecurityCounter: new(uint64)}
	for _, name := range []string{"rsa", "ec"} {
		want := sample(t, name+".mender")
		key := replay{publicKey(t, name), want}
		for _, in := range []string{"unsigned", "rsa", "ec"} {
			if got := mustSign(t, sample(t, in+".mender"), key, opt); !bytes.Equal(got, want) {
				t.Errorf("%s, from %s: output differs from mender-artifact's", name, in)
			}
		}
	}
}

func TestManifestIsWhatMenderArtifactSigns(t *testing.T) {
	a, err := read(t.Context(), bytes.NewReader(sample(t, "unsigned.mender")), 13312, func(*artifact) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(sample(t, "unsigned.manifest")), string(a.manifest)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
