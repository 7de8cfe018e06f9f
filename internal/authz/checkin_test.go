package authz

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
)

func TestCheckInRoundTrip(t *testing.T) {
	want := testCheckIn()
	b, err := EncodeCheckIn(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeCheckIn(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	nonce, facts, err := PeekCheckIn(b)
	if err != nil || nonce != want.Nonce || facts != FactsDigest(want) || facts.IsZero() {
		t.Errorf("PeekCheckIn = %v, %v, %v", nonce, facts, err)
	}
}

func TestFactsDigestIgnoresOnlyTheNonce(t *testing.T) {
	c := testCheckIn()
	want := FactsDigest(c)
	c.Nonce = Nonce{1}
	if FactsDigest(c) != want {
		t.Error("the nonce counts")
	}
	for what, change := range map[string]func(*CheckIn){
		"hardware":   func(c *CheckIn) { c.Hardware = "gw-3" },
		"version":    func(c *CheckIn) { c.Components[0].Version = "1.0.1" },
		"slot":       func(c *CheckIn) { c.Components[0].Slot = "b" },
		"attribute":  func(c *CheckIn) { c.Attributes["region"] = "us" },
		"preference": func(c *CheckIn) { c.Preference.OptedOut = true },
		"postponed":  func(c *CheckIn) { c.Preference.PostponedUntil = testNow },
		"sequence":   func(c *CheckIn) { c.LastSequence++ },
		"trust":      func(c *CheckIn) { c.TrustVersion++ },
		"receipt":    func(c *CheckIn) { c.LastReceiptIndex++ },
	} {
		c := testCheckIn()
		change(&c)
		if FactsDigest(c) == want {
			t.Errorf("%s does not count", what)
		}
	}
}

func TestCheckInsOutOfBoundsAreRefused(t *testing.T) {
	for what, change := range map[string]func(*CheckIn){
		"no nonce":       func(c *CheckIn) { c.Nonce = Nonce{} },
		"no hardware":    func(c *CheckIn) { c.Hardware = "" },
		"no components":  func(c *CheckIn) { c.Components = nil },
		"bad name":       func(c *CheckIn) { c.Components[0].Name = "" },
		"bad attribute":  func(c *CheckIn) { c.Attributes[""] = "x" },
		"long attribute": func(c *CheckIn) { c.Attributes["x"] = strings.Repeat("x", maxAttribute+1) },
		"not UTF-8":      func(c *CheckIn) { c.Attributes["x"] = "\xff" },
		"negative time":  func(c *CheckIn) { c.Preference.PostponedUntil = -1 },
		"many attributes": func(c *CheckIn) {
			for i := range MaxAttributes + 1 {
				c.Attributes[strings.Repeat("x", i+1)] = ""
			}
		},
	} {
		c := testCheckIn()
		change(&c)
		if _, err := EncodeCheckIn(c); err == nil {
			t.Errorf("%s: encoded", what)
		}
		if _, err := DecodeCheckIn(must(encMode.Marshal(wireCheckIn{Nonce: c.Nonce[:], Facts: c.Facts}))); err == nil {
			t.Errorf("%s: decoded", what)
		}
	}
	good := must(EncodeCheckIn(testCheckIn()))
	for what, b := range map[string][]byte{
		"empty":        nil,
		"truncated":    good[:len(good)-1],
		"trailing":     append(bytes.Clone(good), 0),
		"oversized":    append(bytes.Clone(good), make([]byte, MaxCheckIn)...),
		"unknown fact": must(encMode.Marshal([]any{make([]byte, 16), map[int]any{99: 1}})),
		"short nonce":  must(encMode.Marshal([]any{make([]byte, 15), map[int]any{1: "gw-2"}})),
		"JSON":         []byte(`{"nonce":"00000000000000000000000000000000"}`),
	} {
		if _, err := DecodeCheckIn(b); fw.KindOf(err) != fw.Invalid && fw.KindOf(err) != fw.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReplyRoundTrip(t *testing.T) {
	for _, want := range []CheckInReply{
		testReply(),
		{ServerTime: testNow, NextCheckIn: 900, Action: ActionNone, Refused: []fw.Reason{fw.ReasonQuarantined}},
		{ServerTime: testNow, NextCheckIn: 1, Action: ActionRenew, TrustBundle: testTrust().Envelope()},
		{ServerTime: testNow, NextCheckIn: 1, Action: ActionDecommission},
	} {
		b, err := EncodeCheckInReply(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeCheckInReply(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRepliesOutOfBoundsAreRefused(t *testing.T) {
	for what, change := range map[string]func(*CheckInReply){
		"no action":               func(r *CheckInReply) { r.Action = "" },
		"unknown action":          func(r *CheckInReply) { r.Action = "explode" },
		"update without one":      func(r *CheckInReply) { r.Authorization = nil },
		"update, no artifacts":    func(r *CheckInReply) { r.Artifacts = nil },
		"none with one":           func(r *CheckInReply) { r.Action = ActionNone },
		"no time":                 func(r *CheckInReply) { r.ServerTime = 0 },
		"at once, for ever":       func(r *CheckInReply) { r.NextCheckIn = 0 },
		"never":                   func(r *CheckInReply) { r.NextCheckIn = maxInterval + 1 },
		"path to another server":  func(r *CheckInReply) { r.Artifacts[0].Path = "//evil.example/x" },
		"path with a scheme":      func(r *CheckInReply) { r.Artifacts[0].Path = "https://evil.example/x" },
		"relative path":           func(r *CheckInReply) { r.Artifacts[0].Path = "x" },
		"path with a new line":    func(r *CheckInReply) { r.Artifacts[0].Path = "/x\r\nHost: evil" },
		"unknown kind":            func(r *CheckInReply) { r.Artifacts[0].Kind = "script" },
		"no digest":               func(r *CheckInReply) { r.Artifacts[0].Digest = fw.Digest{} },
		"reason that is no code":  func(r *CheckInReply) { r.Refused = []fw.Reason{"because I say so"} },
		"oversized authorization": func(r *CheckInReply) { r.Authorization = make([]byte, MaxAuthorization+1) },
	} {
		r := testReply()
		change(&r)
		if _, err := EncodeCheckInReply(r); err == nil {
			t.Errorf("%s: encoded", what)
		}
		if _, err := DecodeCheckInReply(must(encMode.Marshal(r))); err == nil {
			t.Errorf("%s: decoded", what)
		}
	}
}
