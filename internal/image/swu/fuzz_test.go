package swu

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

func seedImages(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.swu")
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(pack(f, plainDescription, nil))
	f.Add(pack(f, `{"software":{"version":"1","files":[`+`{"filename":"rootfs.bin","sha256":"`+payloadSum+`"}]}}`, nil))
	f.Add(pack(f, `software={version="1"}`, func(p []packed) []packed { return p[:1] }))
}

func reasoned(t *testing.T, err error) {
	t.Helper()
	if _, ok := image.ReasonOf(err); !ok {
		t.Fatalf("refused without a reason: %v", err)
	}
}

// Whatever Inspect accepts, it describes without contradiction. What Sign makes
// of any bytes verifies and says the same as before.
func FuzzImage(f *testing.F) {
	seedImages(f)
	signer := cmstest.NewCA(f, "root").Signer(f, cmstest.P256, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = fixDigests(bytes.Clone(b))
		info, inspectErr := inspectBytes(b)
		if inspectErr != nil {
			reasoned(t, inspectErr)
		} else if info.Size != int64(len(b)) || info.Version == "" {
			t.Fatalf("got %+v", info)
		}
		out, err := signBytes(b, signer, image.SignOptions{})
		if err != nil {
			reasoned(t, err)
			return
		}
		v, err := verifyBytes(out, signer.Public())
		if err != nil {
			t.Fatalf("signed but not verified: %v", err)
		}
		if inspectErr != nil {
			return
		}
		was, _ := info.Digest(image.ScopeImage)
		if is, _ := v.Info.Digest(image.ScopeImage); is != was || v.Info.Version != info.Version || !slices.Equal(v.Info.Hardware, info.Hardware) {
			t.Fatalf("signing changed %+v to %+v", info, v.Info)
		}
	})
}

// fixDigests puts the right digests into the description of an image that is
// otherwise well formed, so that the fuzzer gets past them.
func fixDigests(b []byte) []byte {
	a, err := readArchive(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil || len(a.entries) == 0 || a.entries[0].size > MaxDescription {
		return b
	}
	text := b[a.entries[0].off : a.entries[0].off+a.entries[0].size]
	d, err := readDescription(text)
	if err != nil {
		return b
	}
	o := opened{archive: a, description: d}
	for _, e := range a.entries {
		if ref := o.reference(e.name); ref != nil {
			s := source{off: e.off, size: e.size}
			if s.digest(context.Background(), bytes.NewReader(b)) == nil {
				copy(text, bytes.ReplaceAll(text, []byte(hex.EncodeToString(ref.sha256)), []byte(hex.EncodeToString(s.sha256[:]))))
			}
		}
	}
	return b
}

// Only images with a description that one of the samples has verify under the
// samples' CA: the fuzzer has no private key.
func FuzzVerify(f *testing.F) {
	seedImages(f)
	ca := sampleCA(f)
	info, err := inspectBytes(sample(f, "cms-rsa.swu"))
	if err != nil {
		f.Fatal(err)
	}
	signed, _ := info.Digest(image.ScopeImage)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := verifyBytes(b, ca)
		if err != nil {
			reasoned(t, err)
			return
		}
		if d, _ := v.Info.Digest(image.ScopeImage); d != signed {
			t.Fatalf("verified an image nobody signed: %+v", v.Info)
		}
	})
}

// The two readers of descriptions find the same, whatever they are given, or at
// least the one that signs is not the more lenient.
func FuzzDescription(f *testing.F) {
	for _, d := range goodDescriptions {
		f.Add([]byte(d.in))
	}
	for _, d := range badDescriptions {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := readDescription(b)
		if err != nil {
			reasoned(t, err)
		}
		s, err2 := scan(b)
		if err2 != nil {
			reasoned(t, err2)
			return
		}
		if err != nil {
			// Names of files are for the archive to judge.
			for name := range s.files {
				if !isFileName(name) {
					return
				}
			}
			if len(s.files) > MaxFiles {
				return
			}
			t.Fatalf("signing reads what verifying refuses: %v", err)
		}
		files := map[string]string{}
		for _, ref := range d.files {
			files[ref.name] = hex.EncodeToString(ref.sha256)
		}
		if d.language == langJSON { // whose order is lost
			slices.Sort(d.hardware)
			slices.Sort(s.hardware)
		}
		if diff := cmp.Diff(files, s.files); diff != "" || d.version != s.version || !slices.Equal(d.hardware, s.hardware) {
			t.Fatalf("the readers disagree: %+v, %+v\n%s", d, s, diff)
		}
	})
}

// Any layout is refused with a reason or makes an image that verifies.
func FuzzLayout(f *testing.F) {
	f.Add([]byte(`{"hardware":["1.0"],"images":[{"type":"raw","device":"/dev/x"}]}`))
	f.Add([]byte(`{"any_hardware":true,"description":"\"\\","images":[{"filename":"a","section":"files","path":"/x","properties":{"a":"b"}}]}`))
	f.Add([]byte(`{"signature":"cms-pss","purpose":"code_signing","signing_time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"archive":true,"hardware":["#RE:^1$"],"images":[{"filename":"x","section":"scripts","encrypted":true,"ivt":"00112233445566778899aabbccddeeff"}]}`))
	signer := cmstest.NewCA(f, "root").Signer(f, cmstest.P256, nil, x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection)
	inputs := [][]byte{[]byte("payload"), pack(f, "", func([]packed) []packed { return []packed{{"x", []byte("payload")}} })}
	f.Fuzz(func(t *testing.T, layout []byte) {
		for _, in := range inputs {
			out, err := signBytes(in, signer, image.SignOptions{Version: "1", Layout: layout})
			if err != nil {
				reasoned(t, err)
				continue
			}
			v, err := verifyBytes(out, signer.Public())
			if err != nil || v.Info.Version != "1" {
				t.Fatalf("signed but not verified: %+v, %v\n%s", v, err, out)
			}
		}
	})
}
