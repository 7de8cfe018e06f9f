package authz

import (
	"crypto"
	"slices"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

// attack is one way to make a device install what it must not. Each changes
// the claims, the message or the device from the good case.
type attack struct {
	name   string
	claims func(*Claims)
	key    crypto.Signer // nil: authzKey
	msg    func([]byte) []byte
	state  func(*DeviceState)
	want   fw.Reason // "": accepted
}

func noReceipt(msg []byte) []byte {
	m, _, err := decodeSign1(msg, TypeAuthorization, MaxAuthorization)
	if err != nil {
		panic(err)
	}
	m.Unprotected.Receipts = nil
	return append([]byte{tagSign1}, must(encMode.Marshal(m))...)
}

func withReceipt(receipt string) func([]byte) []byte {
	return func(msg []byte) []byte { return must(AttachReceipt(noReceipt(msg), []byte(receipt))) }
}

var attacks = []attack{
	{name: "good"},
	{name: "good, signed with P-256", key: authzP256},
	{name: "good, without a clock", state: func(d *DeviceState) { d.Clock, d.Now, d.SinceNonce = ClockNonce, 0, 3599 }},
	{name: "good, one of two receipts", msg: func(b []byte) []byte {
		return must(AttachReceipt(withReceipt("from another log")(b), testReceipt(testClaims().Commitment, 41)))
	}},
	{name: "good, device clock a minute behind", state: func(d *DeviceState) { d.Now = testNow - clockSkew }},
	{name: "good, rollback to an older version", claims: func(c *Claims) {
		c.Rollback, c.Components[0].Version, c.Components[0].SecurityCounter = true, "0.9.0", 2
	}},
	{name: "good, same version again", claims: func(c *Claims) { c.Components[0].Version = "1.0.0" }},
	{
		name: "good, empty slot", claims: func(c *Claims) { c.Components[0].From = fw.Digest{} },
		state: func(d *DeviceState) { d.Components[0] = DeviceComponent{Name: "main", SecurityFloor: 2} },
	},

	{name: "nothing", msg: func([]byte) []byte { return nil }, want: fw.RejectNoAuthorization},
	{name: "truncated", msg: func(b []byte) []byte { return b[:len(b)-1] }, want: fw.RejectMalformed},
	{name: "trailing byte", msg: func(b []byte) []byte { return append(b, 0) }, want: fw.RejectMalformed},
	{name: "oversized", msg: func(b []byte) []byte { return append(b, make([]byte, MaxAuthorization)...) }, want: fw.RejectMalformed},
	{name: "a report instead", msg: func([]byte) []byte { return must(SignReport(testReport(), authzKey)) }, want: fw.RejectMalformed},
	{name: "no trust bundle", state: func(d *DeviceState) { d.Trust = nil }, want: fw.RejectTrustBundle},
	{name: "wrong key", key: otherKey, want: fw.RejectUnknownKey},
	{name: "image key", key: imageKey, want: fw.RejectUnknownKey},
	{name: "retired key", state: func(d *DeviceState) {
		doc := testDocument()
		doc.AuthorizationKeys[0].NotAfter = testNow
		d.Trust = must(OpenTrust(must(SignTrust(doc, rootA, rootB))))
	}, want: fw.RejectUnknownKey},
	{name: "signature of another authorization", msg: func(b []byte) []byte {
		c := testClaims()
		c.Sequence++
		m, _, _ := decodeSign1(b, TypeAuthorization, MaxAuthorization)
		o, _, _ := decodeSign1(authorize(c, authzKey), TypeAuthorization, MaxAuthorization)
		m.Signature = o.Signature
		return append([]byte{tagSign1}, must(encMode.Marshal(m))...)
	}, want: fw.RejectSignature},
	{name: "another device's", claims: func(c *Claims) { c.Device = "SN-0002" }, want: fw.RejectSubject},
	{name: "no device id", state: func(d *DeviceState) { d.DeviceID = "" }, want: fw.RejectSubject},
	{name: "same id, another key", claims: func(c *Claims) { c.Thumbprint = must(Thumbprint(deviceEd.Public())) }, want: fw.RejectKeyBinding},
	{name: "no device key", state: func(d *DeviceState) { d.Thumbprint = fw.Digest{} }, want: fw.RejectKeyBinding},
	{name: "replayed", state: func(d *DeviceState) { d.LastSequence, d.Nonce = 7, Nonce{9} }, want: fw.RejectSequence},
	{name: "replayed with the same nonce", state: func(d *DeviceState) { d.LastSequence = 7 }, want: fw.RejectSequence},
	{name: "kept back, for an earlier check-in", state: func(d *DeviceState) { d.Nonce = Nonce{9} }, want: fw.RejectNonce},
	{name: "not asked for", state: func(d *DeviceState) { d.Nonce = Nonce{} }, want: fw.RejectNonce},
	{name: "expired", state: func(d *DeviceState) { d.Now = testNow + 3600 }, want: fw.RejectExpired},
	{name: "expired, without a clock", state: func(d *DeviceState) { d.Clock, d.SinceNonce = ClockNonce, 3600 }, want: fw.RejectExpired},
	{name: "unknown age", state: func(d *DeviceState) { d.Clock, d.SinceNonce = ClockNonce, -1 }, want: fw.RejectExpired},
	{name: "unknown clock", state: func(d *DeviceState) { d.Clock = "" }, want: fw.RejectExpired},
	{name: "not yet valid", state: func(d *DeviceState) { d.Now = testNow - clockSkew - 1 }, want: fw.RejectNotYetValid},
	{name: "no receipt", msg: noReceipt, want: fw.RejectReceipt},
	{name: "wrong receipt", msg: withReceipt("receipt 40 of something else"), want: fw.RejectReceipt},
	{name: "receipt of another index", msg: withReceipt(string(testReceipt(testClaims().Commitment, 40))), want: fw.RejectReceipt},
	{name: "receipt of another record", msg: withReceipt(string(testReceipt(fw.DigestOf([]byte("x")), 41))), want: fw.RejectReceipt},
	{name: "other hardware", state: func(d *DeviceState) { d.Hardware = "gw-1" }, want: fw.RejectHardware},
	{name: "unknown component", claims: func(c *Claims) { c.Components[0].Name = "modem" }, want: fw.RejectFromDigest},
	{name: "another image is running", state: func(d *DeviceState) { d.Components[0].Digest = fw.DigestOf([]byte("x")) }, want: fw.RejectFromDigest},
	{name: "from nothing, something is running", claims: func(c *Claims) { c.Components[0].From = fw.Digest{} }, want: fw.RejectFromDigest},
	{name: "downgrade", claims: func(c *Claims) { c.Components[0].Version = "0.9.9" }, want: fw.RejectDowngrade},
	{
		name: "downgrade by build number", claims: func(c *Claims) { c.Components[0].Version = "1.0.0+1" },
		state: func(d *DeviceState) { d.Components[0].Version = "1.0.0+2" }, want: fw.RejectDowngrade,
	},
	{name: "unreadable version", claims: func(c *Claims) { c.Components[0].Version = "latest" }, want: fw.RejectDowngrade},
	{name: "counter below the running one", claims: func(c *Claims) { c.Components[0].SecurityCounter = 2 }, want: fw.RejectSecurityCounter},
	{name: "counter below the floor", claims: func(c *Claims) { c.Components[0].SecurityCounter = 1 }, want: fw.RejectSecurityCounter},
	{name: "rollback below the floor", claims: func(c *Claims) {
		c.Rollback, c.Components[0].Version, c.Components[0].SecurityCounter = true, "0.9.0", 1
	}, want: fw.RejectSecurityCounter},
	{name: "second component of two is bad", claims: func(c *Claims) {
		c.Components = append(c.Components, c.Components[0])
		c.Components[1].Name = "modem"
	}, want: fw.RejectFromDigest},
}

func (a attack) make() ([]byte, DeviceState) {
	c, d, key := testClaims(), testState(), crypto.Signer(authzKey)
	if a.claims != nil {
		a.claims(&c)
	}
	if a.key != nil {
		key = a.key
	}
	msg := authorize(c, key)
	if a.msg != nil {
		msg = a.msg(msg)
	}
	if a.state != nil {
		a.state(&d)
	}
	return msg, d
}

func TestEachAttackIsRejectedWithItsReason(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			msg, d := a.make()
			_, v := Open(msg, d, testReceiptCheck)
			if v.OK() != (a.want == "") || v.Reason != a.want {
				t.Fatalf("got %v, want %q", v, a.want)
			}
			if !v.OK() && v.Detail == "" {
				t.Error("rejected without a detail")
			}
		})
	}
}

func TestZeroVerdictRejects(t *testing.T) {
	if (Verdict{}).OK() {
		t.Fatal("the zero Verdict accepts")
	}
	if v := Check(nil, testState(), testReceiptCheck); v.Reason != fw.RejectNoAuthorization {
		t.Errorf("nil authorization: %v", v)
	}
	a := must(Decode(authorize(testClaims(), authzKey)))
	if v := Check(a, DeviceState{}, testReceiptCheck); v.OK() {
		t.Error("the zero DeviceState accepts")
	}
	if v := Check(a, testState(), nil); v.Reason != fw.RejectReceipt {
		t.Errorf("without a receipt check: %v", v)
	}
}

// Every single flipped bit is caught, and by the check that is there for it.
func TestEveryFlippedBitIsRejected(t *testing.T) {
	caught := []fw.Reason{fw.RejectMalformed, fw.RejectUnknownKey, fw.RejectSignature, fw.RejectReceipt}
	for _, key := range []crypto.Signer{authzKey, authzP256} {
		msg, d := authorize(testClaims(), key), testState()
		count := map[string]int{}
		for i := range msg {
			for bit := range 8 {
				bad := append([]byte(nil), msg...)
				bad[i] ^= 1 << bit
				_, v := Open(bad, d, testReceiptCheck)
				if !slices.Contains(caught, v.Reason) {
					t.Fatalf("bit %d of byte %d: %v", bit, i, v)
				}
				count[string(v.Reason)]++
			}
		}
		for _, r := range caught {
			if count[string(r)] == 0 {
				t.Errorf("no flipped bit gave %q: %v", r, count)
			}
		}
	}
}

func TestRecheckAfterRestart(t *testing.T) {
	a := must(Decode(authorize(testClaims(), authzKey)))
	d := testState()
	d.Nonce, d.LastSequence = Nonce{}, 7 // as stored when it was accepted
	if v := Recheck(a, d, testReceiptCheck); !v.OK() {
		t.Fatal(v)
	}
	d.LastSequence = 8
	if v := Recheck(a, d, testReceiptCheck); v.Reason != fw.RejectSequence {
		t.Errorf("after a later one: %v", v)
	}
	d.LastSequence, d.Now = 7, testNow+3600
	if v := Recheck(a, d, testReceiptCheck); v.Reason != fw.RejectExpired {
		t.Errorf("after its expiry: %v", v)
	}
}

func TestImageIsWhatWasAuthorized(t *testing.T) {
	four := uint64(4)
	p := testClaims().Components[0]
	good := ImageInfo{
		Size: p.Size, Digest: p.Digest, Envelope: p.Envelope, SignedBy: trustKey(imageKey).ID,
		Format: "raw", Version: "1.1.0", SecurityCounter: &four, Hardware: []fw.HardwareID{"gw-1", "gw-2"},
	}
	three := uint64(3)
	for _, c := range []struct {
		name   string
		change func(*ImageInfo, *DeviceState)
		want   fw.Reason
	}{
		{"good", func(*ImageInfo, *DeviceState) {}, ""},
		{"unbound to hardware", func(i *ImageInfo, _ *DeviceState) { i.Hardware = nil }, ""},
		{"longer", func(i *ImageInfo, _ *DeviceState) { i.Size++ }, fw.RejectImageSize},
		{"other bytes", func(i *ImageInfo, _ *DeviceState) { i.Digest = fw.DigestOf([]byte("x")) }, fw.RejectImageDigest},
		{"unsigned", func(i *ImageInfo, _ *DeviceState) { i.SignedBy = fw.Digest{} }, fw.RejectImageSignature},
		{"signed with another key", func(i *ImageInfo, _ *DeviceState) { i.SignedBy = trustKey(authzKey).ID }, fw.RejectImageSignature},
		{"other envelope", func(i *ImageInfo, _ *DeviceState) { i.Envelope = fw.Digest{} }, fw.RejectImageSignature},
		{"other format", func(i *ImageInfo, _ *DeviceState) { i.Format = "mcuboot" }, fw.RejectImageFormat},
		{"other version", func(i *ImageInfo, _ *DeviceState) { i.Version = "1.0.9" }, fw.RejectImageVersion},
		{"other hardware", func(i *ImageInfo, _ *DeviceState) { i.Hardware = []fw.HardwareID{"gw-1"} }, fw.RejectHardware},
		{"other counter", func(i *ImageInfo, _ *DeviceState) { i.SecurityCounter = &three }, fw.RejectSecurityCounter},
		{"no counter", func(i *ImageInfo, _ *DeviceState) { i.SecurityCounter = nil }, fw.RejectSecurityCounter},
		{"no trust bundle", func(_ *ImageInfo, d *DeviceState) { d.Trust = nil }, fw.RejectTrustBundle},
	} {
		i, d := good, testState()
		c.change(&i, &d)
		if v := CheckImage(p, i, d); v.OK() != (c.want == "") || v.Reason != c.want {
			t.Errorf("%s: got %v, want %q", c.name, v, c.want)
		}
	}
	if v := CheckImage(Component{}, ImageInfo{}, testState()); v.OK() {
		t.Error("the zero component accepts the zero image")
	}
}
