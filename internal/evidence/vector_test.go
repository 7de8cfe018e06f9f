package evidence

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// vectors are the golden values of docs/formats/evidence.md.
func vectors(t *testing.T) map[string]string {
	t.Helper()
	v := make(map[string]string)
	var salt Salt
	for i := range salt {
		salt[i] = byte(i)
	}
	v["salt"] = hex.EncodeToString(salt[:])
	record := func(name string, r Record) Commitment {
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		c := Commit(salt, b)
		v[name], v[name+" commitment"] = string(b), hex.EncodeToString(c[:])
		return c
	}
	device := DeviceStream("sn-1")
	first := record("record 1", Record{
		Index: 0, Type: TypeDeviceRegistered, MS: 1767225600000, Actor: "ann",
		Streams: []Link{Head{}.Next(device)},
		Data:    json.RawMessage(`{"device":"sn-1","product":"pump","hardware":"pump-a","state":"manufactured"}`),
	})
	second := record("record 2", Record{
		Index: 1, Type: TypeDeviceState, MS: 1767225600123, Actor: "Zoë <zoe>",
		Streams: []Link{Head{N: 1, Last: first}.Next(device), Head{}.Next(LogStream)},
		Data:    json.RawMessage(`{"device":"sn-1","from":"manufactured","to":"claimed","reason":"sold"}`),
	})
	tree := NewEpochTree([]StreamHead{{device, Head{N: 2, Last: second}}, {LogStream, Head{N: 1, Last: second}}})
	for i := range tree.leaves {
		v["epoch leaf "+string(rune('0'+i))] = hex.EncodeToString(tree.leaves[i][:])
	}
	e, err := json.Marshal(tree.Epoch())
	if err != nil {
		t.Fatal(err)
	}
	v["epoch"] = string(e)
	p, err := tree.Prove("device/none")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	v["absence of device/none"] = string(b)
	return v
}

func TestTheFormatDocumentTellsTheTruth(t *testing.T) {
	const golden = "testdata/vectors.json"
	got := vectors(t)
	if *update {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(got); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
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
		t.Errorf("the format changed: records written before can no longer be read\n%s", d)
	}
	doc, err := os.ReadFile("../../docs/formats/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range got {
		if !strings.Contains(string(doc), value) {
			t.Errorf("docs/formats/evidence.md lacks the vector %q:\n%s", name, value)
		}
	}
	for _, typ := range Types {
		if !strings.Contains(string(doc), "`"+string(typ)+"`") {
			t.Errorf("docs/formats/evidence.md does not explain the type %s", typ)
		}
	}
}
