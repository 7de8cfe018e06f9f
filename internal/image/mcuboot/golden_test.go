package mcuboot

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

func TestVerifyAcceptsWhatImgtoolSigned(t *testing.T) {
	for _, tc := range []struct {
		file, alg string
		counter   *uint64
		class     []string
	}{
		{file: "p256.bin", alg: image.AlgECDSAP256},
		{file: "p256-seccnt.bin", alg: image.AlgECDSAP256, counter: new(uint64(7))},
		{file: "p256-full.bin", alg: image.AlgECDSAP256, counter: new(uint64(0x01020003)), class: []string{"5f363112-95cf-534f-a3d1-fc8ef6f4962a"}},
		{file: "p256-pubkey.bin", alg: image.AlgECDSAP256},
		{file: "ed25519.bin", alg: image.AlgEd25519},
		{file: "rsa2048.bin", alg: image.AlgRSA2048},
	} {
		t.Run(tc.file, func(t *testing.T) {
			b := sample(t, tc.file)
			v, err := verifyBytes(b, allKeys(t)...)
			if err != nil {
				t.Fatal(err)
			}
			if v.Algorithm != tc.alg || v.Info.Version != "1.2.3+4" || v.Info.Size != int64(len(b)) || v.Info.Encrypted {
				t.Errorf("got %+v", v)
			}
			if d := cmp.Diff(tc.counter, v.Info.SecurityCounter); d != "" {
				t.Errorf("security counter (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tc.class, v.Info.Hardware); d != "" {
				t.Errorf("hardware (-want +got):\n%s", d)
			}
			if id, _ := image.KeyID(v.Key); id != v.KeyID {
				t.Errorf("key id %s is not that of the key, %s", v.KeyID, id)
			}
			info, err := Format{}.Inspect(t.Context(), bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(info, v.Info); d != "" {
				t.Errorf("Inspect and Verify differ:\n%s", d)
			}
		})
	}
}

func TestClassIDIsWhatImgtoolStores(t *testing.T) {
	info, err := Format{}.Inspect(t.Context(), bytes.NewReader(sample(t, "p256-full.bin")), int64(len(sample(t, "p256-full.bin"))))
	if err != nil {
		t.Fatal(err)
	}
	vid, _ := VendorID("example.com")
	cid, _ := ClassID("example.com", "board-a")
	if info.Vendor != vid || len(info.Hardware) != 1 || info.Hardware[0] != cid {
		t.Errorf("image has vendor %s, class %v; derived %s, %s", info.Vendor, info.Hardware, vid, cid)
	}
}

func TestInspectReportsEncryptedAndVerifyRefusesIt(t *testing.T) {
	b := sample(t, "p256-enc128.bin")
	info, err := Format{}.Inspect(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if !info.Encrypted || info.Version != "1.2.3+4" || len(info.Signatures) != 1 {
		t.Errorf("got %+v", info)
	}
	_, err = verifyBytes(b, allKeys(t)...)
	wantReason(t, err, image.ErrEncrypted)
}

func TestVerifyRefusesUnsignedAndForeign(t *testing.T) {
	_, err := verifyBytes(sample(t, "nosig.bin"), allKeys(t)...)
	wantReason(t, err, image.ErrUnsigned)
	_, err = verifyBytes(sample(t, "p256.bin"), publicKey(t, "ed25519"), &newP256(t).PublicKey)
	wantReason(t, err, image.ErrUnknownKey)
	_, err = verifyBytes(sample(t, "p256.bin"))
	wantReason(t, err, image.ErrUnknownKey)
	b := sample(t, "p256.bin")
	_, err = Format{}.Verify(t.Context(), bytes.NewReader(b), int64(len(b)), []byte("{}"), allKeys(t))
	wantReason(t, err, image.ErrMalformed)
}

// The golden signature is replayed, so the whole file must be equal, not only
// what comes before the signature.
func TestSignWritesWhatImgtoolWrites(t *testing.T) {
	for _, tc := range []struct {
		golden, key string
		opt         image.SignOptions
	}{
		{"p256.bin", "ecdsa-p256", image.SignOptions{Version: "1.2.3+4", SlotSize: 0x40000}},
		{"p256-seccnt.bin", "ecdsa-p256", image.SignOptions{Version: "1.2.3+4", SecurityCounter: new(uint64(7)), HeaderSize: 0x200}},
		{"ed25519.bin", "ed25519", image.SignOptions{Version: "1.2.3+4"}},
		{"rsa2048.bin", "rsa-2048", image.SignOptions{Version: "1.2.3+4"}},
		{"p256-pubkey.bin", "ecdsa-p256", withLayout("1.2.3+4", `{"key": "full"}`)},
		{"p256-full.bin", "ecdsa-p256", image.SignOptions{
			Version: "1.2.3+4", SecurityCounter: new(uint64(0x01020003)), Vendor: "example.com", Hardware: []string{"board-a"},
			Layout: []byte(`{
				"boot_record": "APP",
				"dependencies": [{"image": 1, "version": "2.0.0+5"}, {"image": 2, "version": "0.1.0"}],
				"tlvs": [{"type": "0xa0", "data": "deadbeef"}, {"type": "0x00a1", "data": "68656c6c6f"}]
			}`),
		}},
	} {
		t.Run(tc.golden, func(t *testing.T) {
			want := sample(t, tc.golden)
			key := replay{publicKey(t, tc.key), lastTLV(t, want)}
			inputs := map[string][]byte{
				"created": sample(t, "payload.bin"), "re-signed": want,
				"re-signed padded": append(bytes.Clone(want), bytes.Repeat([]byte{0xff}, 100)...),
			}
			if tc.opt.SecurityCounter == nil && tc.opt.Vendor == "" {
				inputs["unsigned"] = sample(t, "nosig.bin")
			}
			for name, in := range inputs {
				if d := cmp.Diff(want, mustSign(t, in, key, tc.opt)); d != "" {
					t.Errorf("%s differs (-imgtool +writ):\n%s", name, d)
				}
			}
		})
	}
}

// The recipient's private key was not kept, so the ciphertext cannot be compared.
// All else must be equal, and the signature that is replayed is over the digest
// of what we encrypt.
func TestSignEncryptsWhatImgtoolEncrypted(t *testing.T) {
	want := sample(t, "p256-enc128.bin")
	l, err := parse(t.Context(), bytes.NewReader(want), int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	recipient := newRecipient(t, ecdh.P256())
	got := mustSign(t, sample(t, "payload.bin"), replay{publicKey(t, "ecdsa-p256"), l.tlvs[2].data}, withLayout("1.2.3+4", encryptTo(t, recipient, 128, "")))
	wrapped := int(l.tlvs[3].off) + tlvHeadSize
	for _, b := range [][]byte{got, want} {
		clear(b[l.hdrSize : l.hdrSize+l.imgSize])
		clear(b[wrapped : wrapped+65+32+16])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("differs (-imgtool +writ):\n%s", d)
	}
}

func TestInspectShowsDetails(t *testing.T) {
	for file, want := range map[string]Details{
		"p256.bin": {Hash: "sha256", HeaderSize: 512, PayloadSize: 4099},
		"p256-enc128.bin": {
			Hash: "sha256", HeaderSize: 512, PayloadSize: 4112,
			Flags: []string{"encrypted_aes128"}, Encryption: &Cipher{"aes-128-ctr", "ecies-p256"},
		},
		"p256-full.bin": {
			Hash: "sha256", HeaderSize: 512, PayloadSize: 4099,
			Dependencies: []Dependency{{1, "2.0.0+5"}, {2, "0.1.0"}},
			BootRecord:   &BootRecord{Type: "APP", Version: "1.2.3", Hash: "SHA256", Signer: "b0851c991e7e07627564d5aedc8f060ba936194097696135be93c27c59346412"},
			TLVs:         []OtherTLV{{"0x00a0", 4, "deadbeef"}, {"0x00a1", 5, "68656c6c6f"}},
		},
	} {
		if d := cmp.Diff(want, details(t, sample(t, file))); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}

func lastTLV(t *testing.T, b []byte) []byte {
	t.Helper()
	l, err := parse(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return l.tlvs[len(l.tlvs)-1].data
}
