package swu

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

const sum1, sum2 = "1111111111111111111111111111111111111111111111111111111111111111", "2222222222222222222222222222222222222222222222222222222222222222"

// meaning is what both readers find in a description.
type meaning struct {
	Version  string
	Hardware []string
	Files    []string
}

func readBoth(t *testing.T, in string) (meaning, error) {
	t.Helper()
	d, err := readDescription([]byte(in))
	s, err2 := scan([]byte(in))
	if (err == nil) != (err2 == nil) {
		t.Fatalf("the readers disagree: %v, %v\n%s", err, err2, in)
	}
	if err != nil {
		a, ok := image.ReasonOf(err)
		b, ok2 := image.ReasonOf(err2)
		if !ok || !ok2 || a != b {
			t.Errorf("refused for different reasons: %v, %v", err, err2)
		}
		return meaning{}, err
	}
	m := meaning{Version: d.version, Hardware: d.hardware}
	for _, f := range d.files {
		m.Files = append(m.Files, f.name)
	}
	slices.Sort(m.Files)
	n := meaning{Version: s.version, Hardware: s.hardware}
	for name := range s.files {
		n.Files = append(n.Files, name)
	}
	slices.Sort(n.Files)
	if d := cmp.Diff(m, n); d != "" {
		t.Errorf("the readers disagree (-verify +sign):\n%s", d)
	}
	return m, nil
}

func file(name, sum string) string { return `{ filename = "` + name + `"; sha256 = "` + sum + `"; }` }

var goodDescriptions = map[string]struct {
	in   string
	want meaning
}{
	"least": {`software={version="1"}`, meaning{Version: "1"}},
	"every kind of syntax": {
		`# one
// two
/* three
   * four */
software :
{
	version = "1." "2" /* between */
		".3";
	description : "tab\t quote\" back\\ hex \x41 odd \. ü
second line",
	hardware-compatibility: [ "1.0", "1.2", ],
	numbers = [ 1, -2, +3, 0x1F, 5L, 0xffLL ];
	floats = ( 1.5, .5, 2., -1e9, 1.0E-3, [], (), {} )
	truth = TRUE; lie = false
	*star_name-1* = "x";
	images: (
		` + file("a.bin", sum1) + `,
		{ filename = "b.bin"; sha256 = "` + strings.ToUpper(sum2) + `"; type = "raw"; compressed = true;
		  properties: { filename = "not a file"; version = 2; sha256 = "x"; hardware-compatibility = "y"; }; }
	);
	scripts: ( ` + file("c.lua", sum2) + ` );
	embedded-script = "function f() return 1 end";
	bootenv: ( { name = "version"; value = "2"; } );
	partitions: ( { name = "data"; size = 1024; } );
}`,
		meaning{"1.2.3", []string{"1.0", "1.2"}, []string{"a.bin", "b.bin", "c.lua"}},
	},
	"boards, selections and links": {
		`software = { version = "7";
	board1 = { hardware-compatibility: ["1"]; stable = { copy-1: { images: (` + file("a", sum1) + `) } copy-2: { images: (` + file("a", sum1) + `) } } };
	board2 = { version = "7"; hardware-compatibility: ["2", "1"]; stable: { copy-1: { ref = "#./../common"; } common: { files: (` + file("b", sum2) + `) } } };
}`,
		meaning{"7", []string{"1", "2"}, []string{"a", "b"}},
	},
	"version of a file is its own": {
		`software = { version = "7"; images: ({ filename = "a"; version = "3"; sha256 = "` + sum1 + `" }); one = { version = "4"; hardware-compatibility = "x"; filename = "a"; sha256 = "` + sum1 + `"; in = { version = "5" } } }`,
		meaning{"7", nil, []string{"a"}},
	},
	"json": {
		`{ "software": { "version": "1.2.3", "hardware-compatibility": [ "1.0", "1.2" ], "n": [1, 2.5, true, false, {}],
		"images": [ { "filename": "a.bin", "sha256": "` + sum1 + `", "properties": { "filename": 7 } } ], "b": { "version": "1.2.3" } } }`,
		meaning{"1.2.3", []string{"1.0", "1.2"}, []string{"a.bin"}},
	},
	"other settings beside": {`other = { filename = 1; version = 2; }; software = { version = "1"; }; last = 3`, meaning{Version: "1"}},
}

func TestReadersUnderstandDescriptions(t *testing.T) {
	for name, tc := range goodDescriptions {
		t.Run(name, func(t *testing.T) {
			got, err := readBoth(t, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("meaning (-want +got):\n%s", d)
			}
		})
	}
	d, err := readDescription([]byte(goodDescriptions["every kind of syntax"].in))
	if err != nil {
		t.Fatal(err)
	}
	if want := "tab\t quote\" back\\ hex A odd \\. ü\nsecond line"; d.text != want || !d.script {
		t.Errorf("description %q, want %q; script %v", d.text, want, d.script)
	}
}

var badDescriptions = map[string]string{
	"nothing":              "",
	"no software":          `hardware = { version = "1"; }`,
	"software twice":       `software = { version = "1"; }; software = { version = "2"; };`,
	"software is no group": `software = "1"`,
	"no version":           `software = { images: (); }`,
	"version is a number":  `software = { version = 1; }`,
	"version is a list":    `software = { version = [ "1" ]; }`,
	"version is empty":     `software = { version = ""; }`,
	"version is a link":    `software = { v = "1"; version = { ref = "#./v"; }; }`,
	"two versions":         `software = { version = "1"; board = { version = "2"; }; }`,
	"setting twice":        `software = { version = "1"; version = "1"; }`,
	"file name twice":      `software = { version = "1"; images: ({ filename = "a"; filename = "b"; sha256 = "` + sum1 + `"; }); }`,
	"hardware is text":     `software = { version = "1"; hardware-compatibility = "1"; }`,
	"hardware is a link":   `software = { version = "1"; hardware-compatibility = { ref = "#./x"; }; }`,
	"hardware is numbers":  `software = { version = "1"; hardware-compatibility = [ 1, 2 ]; }`,
	"hardware is nothing":  `software = { version = "1"; hardware-compatibility = [ "" ]; }`,
	"hardware in groups":   `software = { version = "1"; hardware-compatibility = ( { } ); }`,
	"no sha256":            `software = { version = "1"; images: ({ filename = "a"; }); }`,
	"short sha256":         `software = { version = "1"; images: ({ filename = "a"; sha256 = "11"; }); }`,
	"template sha256":      `software = { version = "1"; images: ({ filename = "a"; sha256 = "@a"; }); }`,
	"sha256 is a number":   `software = { version = "1"; images: ({ filename = "a"; sha256 = 1; }); }`,
	"two sha256":           `software = { version = "1"; images: (` + file("a", sum1) + `, ` + file("a", sum2) + `); }`,
	"file is a number":     `software = { version = "1"; images: ({ filename = 1; sha256 = "` + sum1 + `"; }); }`,
	"file is a list":       `software = { version = "1"; images: ({ filename = [ "a" ]; sha256 = "` + sum1 + `"; }); }`,
	"include":              "@include \"other\"\nsoftware = { version = \"1\"; }",
	"open group":           `software = { version = "1";`,
	"open list":            `software = { version = "1"; images: (`,
	"open string":          `software = { version = "1`,
	"open escape":          `software = { version = "1\`,
	"open comment":         `software = { version = "1"; } /* `,
	"closed twice":         `software = { version = "1"; } }`,
	"wrong bracket":        `software = { version = "1"; images: ( ] ; }`,
	"separator twice":      `software = { version = "1";; }`,
	"no comma":             `software = { version = "1"; images: ( "a" "b" 1 2 ); }`,
	"leading comma":        `software = { version = "1"; images: ( , ); }`,
	"groups in an array":   `software = { version = "1"; images: [ { } ]; }`,
	"no value":             `software = { version = "1"; x = ; }`,
	"bare word":            `software = { version = "1"; x = yes; }`,
	"strange number":       `software = { version = "1"; x = 0b11; }`,
	"stranger number":      `software = { version = "1"; x = 1.2.3; }`,
	"no equals":            `software { version = "1"; }`,
	"ambiguous escape":     `software = { version = "\a1"; }`,
	"no utf-8":             "software = { version = \"\xff\"; }",
	"escaped no utf-8":     `software = { version = "\xff"; }`,
	"zero":                 "software = { version = \"1\"; }\x00",
	"escaped zero":         `software = { version = "1\x00"; }`,
	"deep":                 `software = { version = "1"; x = ` + strings.Repeat("(", 100) + strings.Repeat(")", 100) + `; }`,
	"many":                 `software = { version = "1"; x = (` + strings.Repeat("1,", 20000) + `1); }`,
	"xml":                  `<?xml version="1.0"?><software version="1.0"></software>`,
	"json twice":           `{ "software": { "version": "1", "version": "1" } }`,
	"json null":            `{ "software": { "version": "1", "x": null } }`,
	"json and more":        `{ "software": { "version": "1" } } {}`,
	"json cut":             `{ "software": { "version": "1" }`,
	"json zero":            `{ "software": { "version": "1\u0000" } }`,
	"json deep":            `{ "software": { "version": "1", "x": ` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + ` } }`,
	"json many":            `{ "software": { "version": "1", "x": [` + strings.Repeat("1,", 20000) + `1] } }`,
}

func TestReadersRefuseDescriptions(t *testing.T) {
	for name, in := range badDescriptions {
		t.Run(name, func(t *testing.T) {
			if m, err := readBoth(t, in); err == nil {
				t.Errorf("read as %+v", m)
			}
		})
	}
	for _, name := range []string{"..", ".", "a/b", "/a", "", `a\\b`, "a\x01", strings.Repeat("a", 256), nameDescription, nameSignature, nameTrailer} {
		in := `software = { version = "1"; images: (` + file(name, sum1) + `); }`
		if d, err := readDescription([]byte(in)); err == nil {
			t.Errorf("file name %q: read as %+v", name, d)
		}
		if isFileName(strings.ReplaceAll(name, `\\`, `\`)) {
			t.Errorf("file name %q is one for signing", name)
		}
	}
}
