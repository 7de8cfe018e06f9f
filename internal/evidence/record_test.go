package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/fw"
)

func sample() Record {
	return Record{
		V: 1, Index: 7, Type: TypeDeviceState, MS: 1767225600123, Actor: "ann",
		Streams: []Link{
			{Stream: DeviceStream("sn-1"), N: 3, Prev: Commitment{0xab, 31: 1}},
			{Stream: LogStream, N: 1},
		},
		Data: json.RawMessage(`{"device":"sn-1","from":"active","to":"quarantined","reason":"rejected twice"}`),
	}
}

func TestARecordDecodesToWhatWasEncoded(t *testing.T) {
	want := sample()
	b, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The form is plain JSON to everybody else.
	var other Record
	if err := json.Unmarshal(b, &other); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, other); d != "" {
		t.Error(d)
	}
	again, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, b) {
		t.Errorf("json.Marshal differs:\n%s\n%s", again, b)
	}
	p, err := Payload[DeviceState](got)
	if err != nil || p.To != fw.DeviceQuarantined {
		t.Errorf("payload %+v, %v", p, err)
	}
	if _, err := Payload[Withdrawn](got); fw.KindOf(err) != fw.Invalid {
		t.Errorf("payload of another type: %v", err)
	}
}

func TestDecodeAcceptsOneForm(t *testing.T) {
	good, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	g := string(good)
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	tests := map[string]string{
		"empty":                        "",
		"null":                         "null",
		"an array":                     "[" + g + "]",
		"cut short":                    g[:len(g)-1],
		"trailing newline":             g + "\n",
		"trailing record":              g + g,
		"leading space":                " " + g,
		"a space after a comma":        strings.Replace(g, `,"t"`, `, "t"`, 1),
		"another order":                strings.Replace(g, `{"v":1,"i":7,`, `{"i":7,"v":1,`, 1),
		"a member twice":               strings.Replace(g, `"i":7,`, `"i":7,"i":7,`, 1),
		"a member in upper case":       strings.Replace(g, `"actor"`, `"Actor"`, 1),
		"an unknown member":            g[:len(g)-1] + `,"x":1}`,
		"a later version":              strings.Replace(g, `"v":1`, `"v":2`, 1),
		"a version in exponents":       strings.Replace(g, `"v":1`, `"v":1e0`, 1),
		"a negative index":             strings.Replace(g, `"i":7`, `"i":-7`, 1),
		"an index with leading zero":   strings.Replace(g, `"i":7`, `"i":07`, 1),
		"an index without digits":      strings.Replace(g, `"i":7`, `"i":`, 1),
		"an index over 2^53":           strings.Replace(g, `"i":7`, `"i":9007199254740992`, 1),
		"an index over 2^64":           strings.Replace(g, `"i":7`, `"i":99999999999999999999`, 1),
		"an index as string":           strings.Replace(g, `"i":7`, `"i":"7"`, 1),
		"a type with capitals":         strings.Replace(g, `device_state`, `Device_state`, 1),
		"no type":                      strings.Replace(g, `device_state`, ``, 1),
		"an escaped type":              strings.Replace(g, `device_state`, `device\u005fstate`, 1),
		"no actor":                     strings.Replace(g, `"ann"`, `""`, 1),
		"an actor needlessly escaped":  strings.Replace(g, `"ann"`, `"\u0061nn"`, 1),
		"an actor with a raw bracket":  strings.Replace(g, `"ann"`, `"a<n"`, 1),
		"an actor not UTF-8":           strings.Replace(g, `"ann"`, "\"a\xffn\"", 1),
		"an actor with a raw newline":  strings.Replace(g, `"ann"`, "\"a\nn\"", 1),
		"an actor of half a character": strings.Replace(g, `"ann"`, `"\ud800"`, 1),
		"an actor too long":            strings.Replace(g, `ann`, strings.Repeat("a", maxName+1), 1),
		"no streams":                   g[:strings.Index(g, `"streams":[`)+11] + g[strings.Index(g, `],"data"`):],
		"a stream twice":               strings.Replace(g, `{"s":"log","n":1}`, `{"s":"log","n":1},{"s":"log","n":1}`, 1),
		"nine streams":                 strings.Replace(g, `{"s":"log","n":1}`, `{"s":"1","n":1},{"s":"2","n":1},{"s":"3","n":1},{"s":"4","n":1},{"s":"5","n":1},{"s":"6","n":1},{"s":"7","n":1},{"s":"8","n":1}`, 1),
		"number zero of a stream":      strings.Replace(g, `"log","n":1`, `"log","n":0`, 1),
		"a later link without prev":    strings.Replace(g, `"log","n":1`, `"log","n":2`, 1),
		"a first link with prev":       strings.Replace(g, `"n":3`, `"n":1`, 1),
		"a zero prev":                  strings.Replace(g, `"p":"ab`+strings.Repeat("00", 30)+"01", `"p":"`+strings.Repeat("0", 64), 1),
		"an upper-case prev":           strings.Replace(g, `"p":"ab`, `"p":"AB`, 1),
		"a short prev":                 strings.Replace(g, `"p":"ab`, `"p":"a`, 1),
		"a prev that ends the input":   g[:strings.Index(g, `"p":"ab`)+10],
		"data that is an array":        dataOf(g, `[]`),
		"data that is null":            dataOf(g, `null`),
		"data with whitespace":         dataOf(g, `{ "a":1}`),
		"data with a member twice":     dataOf(g, `{"a":1,"b":2,"a":3}`),
		"data with a hidden double":    dataOf(g, `{"a":1,"\u0061":3}`),
		"data with an inner double":    dataOf(g, `{"x":[{"a":1,"a":3}]}`),
		"data with many and a double":  dataOf(g, manyWithDouble()),
		"data too deep":                dataOf(g, `{"x":`+deep+`}`),
		"data with a bare word":        dataOf(g, `{"x":yes}`),
		"data with a leading zero":     dataOf(g, `{"x":01}`),
		"data with a plus":             dataOf(g, `{"x":+1}`),
		"data with a bare point":       dataOf(g, `{"x":1.}`),
		"data with a bare exponent":    dataOf(g, `{"x":1e}`),
		"data with NaN":                dataOf(g, `{"x":NaN}`),
		"data with a trailing comma":   dataOf(g, `{"x":1,}`),
		"data with a comma in a list":  dataOf(g, `{"x":[1,]}`),
		"data with an odd escape":      dataOf(g, `{"x":"\x41"}`),
		"data with a lone low half":    dataOf(g, `{"x":"\udc00"}`),
		"data with a lone high half":   dataOf(g, `{"x":"\ud800\u0041"}`),
		"data with an unended string":  dataOf(g, `{"x":"`),
		"data with a number as name":   dataOf(g, `{1:1}`),
		"data with NUL":                dataOf(g, "{\"x\":\x00}"),
		"over the limit":               dataOf(g, `{"x":"`+strings.Repeat("a", MaxRecord)+`"}`),
	}
	for name, in := range tests {
		if in == g {
			t.Fatalf("%s: the test changes nothing", name)
		}
		if r, err := Decode([]byte(in)); err == nil {
			t.Errorf("%s: accepted as %+v", name, r)
		} else if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
			t.Errorf("%s: kind %s: %v", name, k, err)
		}
	}
}

func dataOf(g, data string) string { return g[:strings.Index(g, `"data":`)+7] + data + "}" }

func manyWithDouble() string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range 3 * manyMembers {
		fmt.Fprintf(&b, `"m%d":{"inner":%d},`, i, i)
	}
	return b.String() + `"m30":0}`
}

func TestDecodeAcceptsAllThatJSONMarshalWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := map[string]any{
			"s": rapid.String().Draw(t, "s"),
			"m": rapid.MapOf(rapid.String(), rapid.Float64Range(-1e300, 1e300)).Draw(t, "m"),
			"l": rapid.SliceOf(rapid.Int64()).Draw(t, "l"),
			"b": rapid.Bool().Draw(t, "b"),
			"n": nil,
			"e": map[string]any{}, "a": []any{},
		}
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		want := sample()
		want.Data = data
		want.Index = rapid.Int64Range(0, maxNumber).Draw(t, "i")
		want.Actor = rapid.StringN(1, 60, maxName).Draw(t, "actor")
		want.Streams[1].Stream = StreamID(rapid.StringN(1, 60, maxName).Draw(t, "stream"))
		b, err := Encode(want)
		if err != nil {
			if fw.KindOf(err) == fw.TooLarge {
				return
			}
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	tests := map[string]func(*Record){
		"no actor":              func(r *Record) { r.Actor = "" },
		"an actor not UTF-8":    func(r *Record) { r.Actor = "a\xff" },
		"no streams":            func(r *Record) { r.Streams = nil },
		"a stream twice":        func(r *Record) { r.Streams[1].Stream = r.Streams[0].Stream },
		"a malformed type":      func(r *Record) { r.Type = `x","i":9` },
		"a negative time":       func(r *Record) { r.MS = -1 },
		"data with a double":    func(r *Record) { r.Data = json.RawMessage(`{"a":1,"a":2}`) },
		"data that is indented": func(r *Record) { r.Data = json.RawMessage("{\n}") },
		"data that goes on":     func(r *Record) { r.Data = json.RawMessage(`{}}`) },
		"no data":               func(r *Record) { r.Data = nil },
	}
	for name, change := range tests {
		r := sample()
		change(&r)
		if b, err := Encode(r); fw.KindOf(err) != fw.Internal {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	r := sample()
	r.Data = json.RawMessage(`{"x":"` + strings.Repeat("a", MaxRecord) + `"}`)
	if _, err := Encode(r); fw.KindOf(err) != fw.TooLarge {
		t.Errorf("too large: %v", err)
	}
}

func TestTypesAreListedOnceAndKnown(t *testing.T) {
	seen := make(map[Type]bool)
	for _, typ := range Types {
		if seen[typ] || !typ.Known() || !wellFormed(string(typ)) {
			t.Errorf("%q is listed twice or malformed", typ)
		}
		seen[typ] = true
	}
	if Type("").Known() || Type("later").Known() {
		t.Error("a type that is not listed is known")
	}
}

func TestCommitmentText(t *testing.T) {
	var c Commitment
	for _, s := range []string{"ab", strings.Repeat("0", 64), strings.Repeat("g", 64), strings.Repeat("a", 66)} {
		if err := c.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
	if err := c.UnmarshalText(nil); err != nil || !c.IsZero() {
		t.Errorf("empty text: %v", err)
	}
}

func TestSaltsDiffer(t *testing.T) {
	if a, b := NewSalt(), NewSalt(); a == b {
		t.Error("two salts are the same")
	}
}

func TestStreamErrors(t *testing.T) {
	s := DeviceStream("sn-1")
	c := func(n byte) Commitment { return Commitment{n} }
	links := []Linked{
		{Link{Stream: s, N: 1}, c(1)},
		{Link{Stream: s, N: 2, Prev: c(1)}, c(2)},
		{Link{Stream: s, N: 3, Prev: c(2)}, c(3)},
	}
	h, err := CheckLinks(s, Head{}, links)
	if err != nil || h != (Head{N: 3, Last: c(3)}) {
		t.Fatalf("%+v, %v", h, err)
	}
	if next := h.Next(s); next != (Link{Stream: s, N: 4, Prev: c(3)}) {
		t.Errorf("next is %+v", next)
	}
	tests := map[string]struct {
		links []Linked
		want  error
	}{
		"one left out":      {[]Linked{links[0], links[2]}, ErrGap},
		"the first missing": {links[1:], ErrGap},
		"one twice":         {[]Linked{links[0], links[1], links[1]}, ErrFork},
		"order changed":     {[]Linked{links[0], links[1], links[0]}, ErrFork},
		"one replaced":      {[]Linked{links[0], {links[1].Link, c(9)}, links[2]}, ErrBroken},
	}
	for name, tt := range tests {
		if _, err := CheckLinks(s, Head{}, tt.links); !errors.Is(err, tt.want) || fw.KindOf(err) != fw.Corrupt {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := CheckLinks("log", Head{}, links); err == nil {
		t.Error("another stream's records accepted")
	}
}

func FuzzDecode(f *testing.F) {
	good, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(dataOf(string(good), manyWithDouble())))
	f.Add([]byte(dataOf(string(good), `{"a":["\ud83d\ude00",-0.5e+7,true,null,{}]}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if k := fw.KindOf(err); k != fw.Invalid && k != fw.TooLarge {
				t.Fatalf("kind %s: %v", k, err)
			}
			return
		}
		again, err := Encode(r)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted and not the one form: %v\n%s\n%s", err, b, again)
		}
		if !json.Valid(b) {
			t.Fatal("accepted and not JSON")
		}
	})
}

// benchRecord is of the size of a decision: about 1.5 KB.
func benchRecord() Record {
	r := sample()
	facts := make(map[string]any)
	for i := range 20 {
		facts[fmt.Sprintf("check_%02d", i)] = map[string]any{"ok": i%2 == 0, "observed": fmt.Sprintf("1.2.3-rc%d", i), "wanted": ">=1.0.0"}
	}
	r.Data, _ = json.Marshal(facts)
	return r
}

func BenchmarkEncode(b *testing.B) {
	r := benchRecord()
	b.SetBytes(int64(len(r.Data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	body, err := Encode(benchRecord())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	body, err := Encode(benchRecord())
	if err != nil {
		b.Fatal(err)
	}
	salt := NewSalt()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		Commit(salt, body)
	}
}
