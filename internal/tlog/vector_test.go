package tlog

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// vectors are the golden values of docs/formats/log.md. Entry i of the log is
// 32 bytes of value i, and the log key is made from 32 bytes of value 1.
func vectors(t *testing.T) map[string]string {
	t.Helper()
	v := make(map[string]string)
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = 1
	}
	key := ed25519.NewKeyFromSeed(seed)
	pub, _ := key.Public().(ed25519.PublicKey)
	sign := func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }
	v["public key"] = hex.EncodeToString(pub)
	var err error
	if v["verifier key"], err = VerifierKey(origin, pub); err != nil {
		t.Fatal(err)
	}
	entry := func(i int) []byte {
		b := make([]byte, 32)
		for j := range b {
			b[j] = byte(i)
		}
		return b
	}
	var e Edge
	var full []Tile
	roots := make(map[int64]Hash)
	var five Edge
	for i := range 300 {
		roots[e.Size()] = e.Root()
		if i == 5 {
			five = e
		}
		full = append(full, e.Append(entry(i))...)
	}
	for _, n := range []int64{0, 1, 2, 3, 5, 256} {
		v["root of "+itoa(n)] = hex.EncodeToString(sliceOf(roots[n]))
	}
	v["root of 300"] = hex.EncodeToString(sliceOf(e.Root()))
	v["first hash of tile/0/000"] = hex.EncodeToString(full[0].Data[:32])
	v["tile/1/000.p/1"] = hex.EncodeToString(e.PartialTile(1))
	r := NewReader(&five, NewCache(1, nil))
	path, err := r.Inclusion(2, 5)
	if err != nil {
		t.Fatal(err)
	}
	v["inclusion of 2 in 5"] = hexes(path)
	consistency, err := r.Consistency(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	v["consistency of 3 and 5"] = hexes(consistency)
	note, err := Checkpoint{Origin: origin, Size: 5, Root: five.Root()}.Sign(pub, sign)
	if err != nil {
		t.Fatal(err)
	}
	v["checkpoint of 5"] = string(note)
	rs, err := SignRoot(five.Root(), pub, sign)
	if err != nil {
		t.Fatal(err)
	}
	v["receipt protected header"] = hex.EncodeToString(rs.Protected)
	tbs, err := SigStructure(rs.Protected, five.Root())
	if err != nil {
		t.Fatal(err)
	}
	v["receipt signed bytes"] = hex.EncodeToString(tbs)
	receipt, err := Receipt(rs, 5, 2, path)
	if err != nil {
		t.Fatal(err)
	}
	v["receipt of 2 in 5"] = hex.EncodeToString(receipt)
	if _, err := CheckReceipt(receipt, entry(2), pub); err != nil {
		t.Fatal(err)
	}
	bundle, err := EncodeBundle([][]byte{entry(0), entry(1)})
	if err != nil {
		t.Fatal(err)
	}
	v["tile/entries/000.p/2"] = hex.EncodeToString(bundle)
	return v
}

func sliceOf(h Hash) []byte { return h[:] }

func itoa(n int64) string {
	b, _ := json.Marshal(n) // a number always encodes
	return string(b)
}

func hexes(hs []Hash) string {
	out := make([]string, len(hs))
	for i, h := range hs {
		out[i] = hex.EncodeToString(h[:])
	}
	return strings.Join(out, "\n")
}

func TestTheFormatDocumentTellsTheTruth(t *testing.T) {
	const golden = "testdata/vectors.json"
	got := vectors(t)
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the format changed: logs written before can no longer be read\n%s", d)
	}
	doc, err := os.ReadFile("../../docs/formats/log.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range got {
		if !strings.Contains(string(doc), value) {
			t.Errorf("docs/formats/log.md lacks the vector %q:\n%s", name, value)
		}
	}
}
