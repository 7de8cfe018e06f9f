package authz

import (
	"bytes"
	"testing"
)

// Whatever a decoder accepts, encoding it again gives the same bytes; that is
// what one encoding means. No input makes a decoder panic, and none that was
// not signed by a trusted key is accepted.

func FuzzDecode(f *testing.F) {
	signed := map[string]bool{}
	for _, a := range attacks {
		msg, _ := a.make()
		f.Add(msg)
		if d, err := Decode(msg); err == nil {
			signed[string(d.Payload())] = true
		}
	}
	state := testState()
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err != nil {
			return
		}
		payload, err := Encode(a.Claims)
		if err != nil || !bytes.Equal(payload.Bytes(), a.Payload()) {
			t.Fatalf("claims do not encode to their payload: %v", err)
		}
		if v := Check(a, state, testReceiptCheck); v.OK() && !signed[string(payload.Bytes())] {
			t.Fatal("accepted what nobody signed")
		}
	})
}

func FuzzDecodeReport(f *testing.F) {
	f.Add(must(SignReport(testReport(), deviceKey)))
	f.Add(must(SignReport(testReport(), deviceEd)))
	f.Add(authorize(testClaims(), authzKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeReport(b)
		if err != nil {
			return
		}
		if payload, err := encMode.Marshal(s.Report); err != nil || !bytes.Equal(payload, s.Payload()) {
			t.Fatalf("report does not encode to its payload: %v", err)
		}
	})
}

func FuzzDecodeCheckIn(f *testing.F) {
	f.Add(must(EncodeCheckIn(testCheckIn())))
	f.Add([]byte{0x82, 0x50})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCheckIn(b)
		if err != nil {
			return
		}
		if again, err := EncodeCheckIn(c); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("check-in does not encode to its bytes: %v", err)
		}
		if _, d, err := PeekCheckIn(b); err != nil || d != FactsDigest(c) {
			t.Fatalf("facts digest differs: %v", err)
		}
	})
}

func FuzzDecodeCheckInReply(f *testing.F) {
	f.Add(must(EncodeCheckInReply(testReply())))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeCheckInReply(b)
		if err != nil {
			return
		}
		if again, err := EncodeCheckInReply(r); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("reply does not encode to its bytes: %v", err)
		}
	})
}

func FuzzOpenTrust(f *testing.F) {
	f.Add(testTrust().Envelope())
	f.Add(must(SignTrust(testDocument())))
	want := testTrust()
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Accept(want, b); err == nil {
			t.Fatal("accepted what no root signed")
		}
	})
}
