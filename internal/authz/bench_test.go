package authz

import "testing"

func BenchmarkEncodeAndSign(b *testing.B) {
	c := testClaims()
	receipt := make([]byte, 780)
	b.ReportAllocs()
	for b.Loop() {
		must(AttachReceipt(must(Sign(must(Encode(c)), authzKey)), receipt))
	}
}

func BenchmarkCoreDigest(b *testing.B) {
	c := testClaims()
	b.ReportAllocs()
	for b.Loop() {
		CoreDigest(c)
	}
}

func BenchmarkOpen(b *testing.B) {
	msg, d := authorize(testClaims(), authzKey), testState()
	b.ReportAllocs()
	for b.Loop() {
		if _, v := Open(msg, d, testReceiptCheck); !v.OK() {
			b.Fatal(v)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	msg := authorize(testClaims(), authzKey)
	b.ReportAllocs()
	for b.Loop() {
		must(Decode(msg))
	}
}

func BenchmarkVerifyReport(b *testing.B) {
	for name, msg := range map[string][]byte{"ES256": must(SignReport(testReport(), deviceKey)), "EdDSA": must(SignReport(testReport(), deviceEd))} {
		pub := deviceKey.Public()
		if name == "EdDSA" {
			pub = deviceEd.Public()
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(VerifyReport(msg, pub))
			}
		})
	}
}

func BenchmarkDecodeCheckIn(b *testing.B) {
	msg := must(EncodeCheckIn(testCheckIn()))
	b.ReportAllocs()
	for b.Loop() {
		must(DecodeCheckIn(msg))
	}
}

func BenchmarkPeekCheckIn(b *testing.B) {
	msg := must(EncodeCheckIn(testCheckIn()))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := PeekCheckIn(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeIdleReply(b *testing.B) {
	r := CheckInReply{ServerTime: testNow, NextCheckIn: 900, Action: ActionNone}
	b.ReportAllocs()
	for b.Loop() {
		must(EncodeCheckInReply(r))
	}
}
