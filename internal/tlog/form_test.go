package tlog

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/veraison/go-cose"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/fw"
)

const origin = "writ.example/log"

func TestACheckpointOpensUnderItsKeyOnly(t *testing.T) {
	pub, sign := testKey(1)
	want := Checkpoint{Origin: origin, Size: 42, Root: Hash{1, 2, 3}}
	b, err := want.Sign(pub, sign)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenCheckpoint(b, origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The reference implementation of signed notes agrees.
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(b, note.VerifierList(v)); err != nil {
		t.Error(err)
	}
	other, otherSign := testKey(2)
	changed := strings.Replace(string(b), "42", "43", 1)
	elsewhere, err := Checkpoint{Origin: "other.example/log", Size: 42}.Sign(pub, sign)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := want.Sign(pub, otherSign)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"another key":    func() error { _, err := OpenCheckpoint(b, origin, other); return err },
		"a short key":    func() error { _, err := OpenCheckpoint(b, origin, pub[:31]); return err },
		"another origin": func() error { _, err := OpenCheckpoint(b, "x", pub); return err },
		"a bad origin":   func() error { _, err := OpenCheckpoint(b, "a b", pub); return err },
		"a changed size": func() error { _, err := OpenCheckpoint([]byte(changed), origin, pub); return err },
		"another log":    func() error { _, err := OpenCheckpoint(elsewhere, origin, pub); return err },
		"a forgery":      func() error { _, err := OpenCheckpoint(forged, origin, pub); return err },
		"nothing":        func() error { _, err := OpenCheckpoint(nil, origin, pub); return err },
		"too much":       func() error { _, err := OpenCheckpoint(make([]byte, MaxCheckpoint+1), origin, pub); return err },
	} {
		if f() == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestACosignatureDoesNotMatter(t *testing.T) {
	pub, sign := testKey(1)
	b, err := Checkpoint{Origin: origin, Size: 42}.Sign(pub, sign)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, "— witness.example "+base64.StdEncoding.EncodeToString(make([]byte, 76))+"\n"...)
	if _, err := OpenCheckpoint(b, origin, pub); err != nil {
		t.Error(err)
	}
}

func TestACheckpointIsNotSignedInVain(t *testing.T) {
	pub, sign := testKey(1)
	if _, err := (Checkpoint{Origin: "a+b"}).Sign(pub, sign); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a bad origin: %v", err)
	}
	refused := errors.New("refused")
	if _, err := (Checkpoint{Origin: origin}).Sign(pub, func([]byte) ([]byte, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := (Checkpoint{Origin: origin}).Sign(pub, func([]byte) ([]byte, error) { return make([]byte, 32), nil }); err == nil {
		t.Error("a short signature: no error")
	}
}

func TestParseCheckpointAcceptsOneForm(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	if _, err := ParseCheckpoint([]byte(origin + "\n7\n" + root + "\n")); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{
		"empty":               "",
		"no last newline":     origin + "\n7\n" + root,
		"an extension":        origin + "\n7\n" + root + "\nextra\n",
		"no origin":           "\n7\n" + root + "\n",
		"a spaced origin":     "a b\n7\n" + root + "\n",
		"a control character": "a\x00b\n7\n" + root + "\n",
		"not UTF-8":           "a\xff\n7\n" + root + "\n",
		"a leading zero":      origin + "\n07\n" + root + "\n",
		"a plus":              origin + "\n+7\n" + root + "\n",
		"a negative size":     origin + "\n-7\n" + root + "\n",
		"an enormous size":    origin + "\n99999999999999999999\n" + root + "\n",
		"over the largest":    origin + "\n72057594037927936\n" + root + "\n",
		"a short root":        origin + "\n7\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "\n",
		"a root with CR":      origin + "\n7\n" + root[:8] + "\r" + root[8:] + "\n",
		"trailing bits":       origin + "\n7\n" + root[:42] + "B=\n",
		"URL alphabet":        origin + "\n7\n" + strings.Replace(root, "A", "_", 1) + "\n",
		"too large":           strings.Repeat("a", MaxCheckpoint) + "\n7\n" + root + "\n",
	} {
		if c, err := ParseCheckpoint([]byte(in)); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// receiptFor returns a receipt for entry index of a log.
func receiptFor(tb testing.TB, l *memLog, index int64) []byte {
	tb.Helper()
	pub, sign := testKey(1)
	rs, err := SignRoot(l.edge.Root(), pub, sign)
	if err != nil {
		tb.Fatal(err)
	}
	path, err := NewReader(&l.edge, l.cache).Inclusion(index, l.edge.Size())
	if err != nil {
		tb.Fatal(err)
	}
	b, err := Receipt(rs, l.edge.Size(), index, path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestAReceiptProvesItsEntryOnly(t *testing.T) {
	pub, _ := testKey(1)
	other, _ := testKey(2)
	for _, size := range []int{1, 2, 3, 7, 256, 700} {
		l := newMemLog(t, size)
		for i := 0; i < size; i += 1 + size/9 {
			b := receiptFor(t, l, int64(i))
			got, err := CheckReceipt(b, l.entries[i], pub)
			if err != nil || got != (Included{Index: int64(i), Size: int64(size)}) {
				t.Fatalf("entry %d of %d: %+v, %v", i, size, got, err)
			}
			if _, err := CheckReceipt(b, commitment(-1), pub); err == nil {
				t.Fatal("proves another entry")
			}
			if _, err := CheckReceipt(b, l.entries[i], other); err == nil {
				t.Fatal("proves under another key")
			}
			if _, err := CheckReceipt(b, l.entries[i], pub[:5]); err == nil {
				t.Fatal("proves under half a key")
			}
		}
	}
}

// Other people check a receipt with a COSE library and RFC 9162 hashing.
func TestAReceiptIsACOSESign1(t *testing.T) {
	l := newMemLog(t, 700)
	pub, _ := testKey(1)
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(receiptFor(t, l, 5)); err != nil {
		t.Fatal(err)
	}
	if m.Payload != nil {
		t.Error("the payload is not detached")
	}
	root := l.edge.Root()
	m.Payload = root[:]
	v, err := cose.NewVerifier(cose.AlgorithmEdDSA, pub)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(nil, v); err != nil {
		t.Error(err)
	}
	if vds := m.Headers.Protected[int64(labelVDS)]; vds != int64(vdsRFC9162) {
		t.Errorf("verifiable data structure %v", vds)
	}
}

func TestEveryChangedBitOfAReceiptIsRefused(t *testing.T) {
	l := newMemLog(t, 21)
	pub, _ := testKey(1)
	b := receiptFor(t, l, 4)
	for i := range 8 * len(b) {
		c := append([]byte(nil), b...)
		c[i/8] ^= 1 << (i % 8)
		if got, err := CheckReceipt(c, l.entries[4], pub); err == nil && got.Index == 4 && got.Size == 21 {
			t.Errorf("bit %d changed and accepted", i)
		} else if err == nil {
			// The place of the entry is not signed, only the root: see Included.
			t.Logf("bit %d: %+v", i, got)
		}
	}
	for n := range b {
		if _, err := CheckReceipt(b[:n], l.entries[4], pub); err == nil {
			t.Errorf("cut to %d bytes and accepted", n)
		}
	}
}

// The last entry of 21 and the last of 4 have paths with the same turns, so a
// receipt can be rewritten to claim the other place. It still proves only an
// entry of the log.
func TestTheIndexOfAReceiptIsAClaim(t *testing.T) {
	l := newMemLog(t, 21)
	pub, _ := testKey(1)
	rs, _, path, err := decodeReceipt(receiptFor(t, l, 20))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Receipt(rs, 4, 3, path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := CheckReceipt(b, l.entries[20], pub); err != nil || got != (Included{Index: 3, Size: 4}) {
		t.Errorf("%+v, %v: if places are signed now, say so in Included and docs/formats/log.md", got, err)
	}
	if _, err := CheckReceipt(b, l.entries[3], pub); err == nil {
		t.Error("it proves the entry whose place it claims")
	}
}

func TestAReceiptHasOneForm(t *testing.T) {
	l := newMemLog(t, 21)
	pub, _ := testKey(1)
	b := receiptFor(t, l, 4)
	var tag cbor.Tag
	if err := cbor.Unmarshal(b, &tag); err != nil {
		t.Fatal(err)
	}
	rebuild := func(change func(parts []any)) []byte {
		var parts []any
		raw, err := cbor.Marshal(tag.Content)
		if err != nil {
			t.Fatal(err)
		}
		if err := cbor.Unmarshal(raw, &parts); err != nil {
			t.Fatal(err)
		}
		change(parts)
		out, err := encMode.Marshal(cbor.Tag{Number: 18, Content: parts})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := rebuild(func([]any) {}); string(got) != string(b) {
		t.Fatal("the test does not build what Receipt builds")
	}
	unprotected := func(parts []any) map[any]any {
		m, _ := parts[1].(map[any]any)
		return m
	}
	proofs := func(parts []any) map[any]any {
		m, _ := unprotected(parts)[uint64(labelVDP)].(map[any]any)
		return m
	}
	for name, c := range map[string][]byte{
		"empty":                 {},
		"a trailing byte":       append(append([]byte(nil), b...), 0),
		"no tag":                b[1:],
		"another tag":           append([]byte{0xd1}, b[1:]...),
		"a long tag":            append([]byte{0xd8, 18}, b[1:]...),
		"an attached payload":   rebuild(func(p []any) { r := l.edge.Root(); p[2] = r[:] }),
		"an extra header":       rebuild(func(p []any) { unprotected(p)[uint64(4)] = []byte("x") }),
		"no header":             rebuild(func(p []any) { p[1] = map[any]any{} }),
		"a second proof":        rebuild(func(p []any) { l, _ := proofs(p)[int64(-1)].([]any); proofs(p)[int64(-1)] = append(l, []byte{0x80}) }),
		"a consistency proof":   rebuild(func(p []any) { proofs(p)[int64(-2)] = []any{[]byte{0x80}} }),
		"no proof":              rebuild(func(p []any) { unprotected(p)[uint64(396)] = map[any]any{} }),
		"an empty proof":        rebuild(func(p []any) { unprotected(p)[uint64(396)] = map[any]any{int64(-1): []any{[]byte{}}} }),
		"a short signature":     rebuild(func(p []any) { s, _ := p[3].([]byte); p[3] = s[:63] }),
		"no protected header":   rebuild(func(p []any) { p[0] = []byte{} }),
		"another algorithm":     rebuild(func(p []any) { p[0] = must(encMode.Marshal(map[int]any{1: -7, 4: KeyID(pub), 395: 1})) }),
		"another kind of tree":  rebuild(func(p []any) { p[0] = must(encMode.Marshal(map[int]any{1: -8, 4: KeyID(pub), 395: 2})) }),
		"too large":             make([]byte, MaxReceipt+1),
		"a path too long":       rebuild(func(p []any) { withProof(p, inclusion{Size: 21, Index: 4, Path: make([][]byte, 57)}) }),
		"an index out of range": rebuild(func(p []any) { withProof(p, inclusion{Size: 4, Index: 4, Path: [][]byte{}}) }),
		"an enormous tree":      rebuild(func(p []any) { withProof(p, inclusion{Size: 1 << 62, Index: 4, Path: [][]byte{}}) }),
	} {
		if got, err := CheckReceipt(c, l.entries[4], pub); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func withProof(parts []any, p inclusion) {
	parts[1] = map[int]any{labelVDP: map[int]any{proofIncluded: []any{must(encMode.Marshal(p))}}}
}

func TestTilePaths(t *testing.T) {
	for path, id := range map[string]TileID{
		"tile/0/000":                     {0, 0, 256},
		"tile/0/999.p/1":                 {0, 999, 1},
		"tile/1/x001/000":                {1, 1000, 256},
		"tile/2/x001/x234/067.p/255":     {2, 1234067, 255}, // the example of C2SP tlog-tiles
		"tile/entries/x001/x234/067":     {LevelEntries, 1234067, 256},
		"tile/entries/000.p/112":         {LevelEntries, 0, 112},
		"tile/0/x281/x474/x976/x710/654": {0, 281474976710654, 256},
	} {
		if got := id.Path(); got != path {
			t.Errorf("%+v is %s, want %s", id, got, path)
		}
		if got, err := ParseTilePath(path); err != nil || got != id {
			t.Errorf("%s is %+v, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", "tile", "tile/0", "tile/0/", "/tile/0/000", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000",
		"tile/+0/000", "tile/-1/000", "tile/x/000", "tile/64/000", "tile/7/000", "tile/entries", "tile/entries/",
		"tile/0/x000/000", "tile/0/001/000", "tile/0/x001", "tile/0/x001/x000", "tile/0/000.p/0", "tile/0/000.p/256",
		"tile/0/000.p/01", "tile/0/000.p/+1", "tile/0/000.p/", "tile/0/000.p", "tile/0/000.p/1.p/1", "tile/0/000/",
		"tile/0/../000", "tile/0/x-01/000", "tile/0/-01", "tile/0/00a", "tile/6/001", "tile/0/x281/x474/x976/x710/656",
		"tile/0/" + strings.Repeat("x999/", 20) + "999", "tile/0/x999/x999/x999/x999/x999/x999/999",
	} {
		if id, err := ParseTilePath(path); fw.KindOf(err) != fw.NotFound {
			t.Errorf("%q is %+v, %v", path, id, err)
		}
	}
}

func TestBundlesHoldCommitmentsOnly(t *testing.T) {
	for name, in := range map[string][][]byte{
		"none": nil, "too many": make([][]byte, 257), "a short one": {make([]byte, 31)},
	} {
		if _, err := EncodeBundle(in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	good, err := EncodeBundle([][]byte{commitment(1), commitment(2)})
	if err != nil || len(good) != 68 {
		t.Fatalf("%d bytes, %v", len(good), err)
	}
	for name, in := range map[string][]byte{
		"empty":          nil,
		"cut":            good[:67],
		"another length": append([]byte{0, 31}, good[2:]...),
		"too many":       make([]byte, 257*34),
	} {
		if _, err := DecodeBundle(in); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	pub, sign := testKey(1)
	b, err := Checkpoint{Origin: origin, Size: 42, Root: Hash{1}}.Sign(pub, sign)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(Checkpoint{Origin: origin, Size: 42}.Body())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := OpenCheckpoint(b, origin, pub); err == nil && (c != Checkpoint{Origin: origin, Size: 42, Root: Hash{1}}) {
			t.Fatalf("opened as %+v, which was never signed", c)
		}
		if c, err := ParseCheckpoint(b); err == nil && string(c.Body()) != string(b) {
			t.Fatalf("%q is not the one form of %+v", b, c)
		}
	})
}

func FuzzCheckReceipt(f *testing.F) {
	l := newMemLog(f, 21)
	pub, _ := testKey(1)
	f.Add(receiptFor(f, l, 4))
	f.Add(receiptFor(f, l, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, in, path, err := decodeReceipt(b)
		if err != nil {
			return
		}
		again, err := Receipt(rs, in.Size, in.Index, path)
		if err != nil || string(again) != string(b) {
			t.Fatalf("accepted another form: %v", err)
		}
		if _, err := CheckReceipt(b, commitment(-1), pub); err == nil {
			t.Fatal("proves an entry that is not in the log")
		}
	})
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/255")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseTilePath(s)
		if err != nil {
			return
		}
		if id.Path() != s {
			t.Fatalf("%q is %+v, whose path is %q", s, id, id.Path())
		}
	})
}

func BenchmarkSignCheckpoint(b *testing.B) {
	pub, sign := testKey(1)
	c := Checkpoint{Origin: origin, Size: 42}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Sign(pub, sign); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReceipt(b *testing.B) {
	l := newMemLog(b, big)
	pub, sign := testKey(1)
	rs, err := SignRoot(l.edge.Root(), pub, sign)
	if err != nil {
		b.Fatal(err)
	}
	r := NewReader(&l.edge, NewCache(1024, l.tile))
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		index := i * 7919 % big
		path, err := r.Inclusion(index, big)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Receipt(rs, big, index, path); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckReceipt(b *testing.B) {
	l := newMemLog(b, big)
	pub, _ := testKey(1)
	r := receiptFor(b, l, 5)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CheckReceipt(r, l.entries[5], pub); err != nil {
			b.Fatal(err)
		}
	}
}
