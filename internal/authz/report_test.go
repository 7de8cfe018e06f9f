package authz

import (
	"crypto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
)

func TestReportRoundTrip(t *testing.T) {
	for _, key := range []crypto.Signer{deviceKey, deviceEd} {
		b, err := SignReport(testReport(), key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyReport(b, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(testReport(), got); diff != "" {
			t.Error(diff)
		}
		if _, err := VerifyReport(b, otherKey.Public()); fw.KindOf(err) != fw.Forbidden {
			t.Errorf("under another key: %v", err)
		}
	}
}

func TestEveryFlippedBitVoidsAReport(t *testing.T) {
	b := must(SignReport(testReport(), deviceKey))
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := VerifyReport(b, deviceKey.Public()); err == nil {
				t.Fatalf("bit %d of byte %d: accepted", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
}

func TestReportsOutOfBoundsAreRefused(t *testing.T) {
	for what, change := range map[string]func(*Report){
		"no device":            func(r *Report) { r.Device = "" },
		"no sequence":          func(r *Report) { r.Sequence = 0 },
		"no boot":              func(r *Report) { r.Boot = BootID{} },
		"unknown event":        func(r *Report) { r.Event = "exploded" },
		"failed, no reason":    func(r *Report) { r.Event = fw.EventFailed },
		"confirmed, nothing":   func(r *Report) { r.Components = nil },
		"no update":            func(r *Report) { r.Update = "" },
		"long detail":          func(r *Report) { r.Detail = strings.Repeat("x", maxDetail+1) },
		"detail is not UTF-8":  func(r *Report) { r.Detail = "\xff" },
		"negative time":        func(r *Report) { r.Time = -1 },
		"component twice":      func(r *Report) { r.Components = append(r.Components, r.Components[0]) },
		"too many components":  func(r *Report) { r.Components = make([]ReportedComponent, MaxComponents+1) },
		"binary slot":          func(r *Report) { r.Components[0].Slot = "\x00" },
		"reason with a space":  func(r *Report) { r.Reason = "a b" },
		"bad component's name": func(r *Report) { r.Components[0].Name = "/" },
	} {
		r := testReport()
		change(&r)
		if _, err := SignReport(r, deviceKey); err == nil {
			t.Errorf("%s: signed", what)
		}
		b := must(signMessage(must(encMode.Marshal(r)), deviceKey, TypeReport))
		if _, err := DecodeReport(b); err == nil {
			t.Errorf("%s: decoded", what)
		}
	}
	rejection := Report{Device: "SN-0001", Sequence: 1, Boot: BootID{1}, Event: fw.EventRejected, Reason: fw.RejectNoAuthorization}
	if _, err := SignReport(rejection, deviceKey); err != nil {
		t.Errorf("a rejection without an authorization: %v", err)
	}
	if _, err := DecodeReport(authorize(testClaims(), deviceKey)); err == nil {
		t.Error("an authorization was read as a report")
	}
}
