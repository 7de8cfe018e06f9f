package authz

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

// The vectors of docs/formats and docs/protocol.md. Go test -update writes
// them; without it, files and pages must be what the code makes.

type keyVector struct {
	Seed       string `json:"seed"`    // the private key, or Ed25519 seed, is the SHA-256 of this text
	Private    string `json:"private"` // hexadecimal
	SPKI       string `json:"spki"`    // SubjectPublicKeyInfo DER, hexadecimal
	KeyID      string `json:"key_id"`
	Thumbprint string `json:"thumbprint"`
}

type authorizationVector struct {
	Note          string               `json:"note"`
	Keys          map[string]keyVector `json:"keys"`
	Claims        Claims               `json:"claims"`
	CoreDigest    fw.Digest            `json:"core_digest"`
	Protected     string               `json:"protected"`
	Payload       string               `json:"payload"`
	SigStructure  string               `json:"sig_structure"`
	Signature     string               `json:"signature"`
	Receipt       string               `json:"receipt"`
	Authorization string               `json:"authorization"`
}

type attackVector struct {
	Name    string      `json:"name"`
	Message string      `json:"message"` // hexadecimal
	State   stateVector `json:"state"`
	Reason  fw.Reason   `json:"reason"` // "": accepted
}

type stateVector struct {
	Device       fw.DeviceID       `json:"device"`
	Thumbprint   fw.Digest         `json:"thumbprint"`
	Hardware     fw.HardwareID     `json:"hardware"`
	Nonce        Nonce             `json:"nonce"`
	LastSequence uint64            `json:"last_sequence"`
	Clock        Clock             `json:"clock"`
	Now          int64             `json:"now"`
	SinceNonce   int64             `json:"since_nonce"`
	TrustFile    string            `json:"trust_file,omitempty"`   // in this directory
	TrustBundle  json.RawMessage   `json:"trust_bundle,omitempty"` // if it is another; neither: none
	Components   []DeviceComponent `json:"components"`
}

func newStateVector(d DeviceState) stateVector {
	s := stateVector{
		Device: d.DeviceID, Thumbprint: d.Thumbprint, Hardware: d.Hardware, Nonce: d.Nonce, LastSequence: d.LastSequence,
		Clock: d.Clock, Now: d.Now, SinceNonce: d.SinceNonce, Components: d.Components,
	}
	switch {
	case d.Trust == nil:
	case d.Trust.Digest() == testTrust().Digest():
		s.TrustFile = "trust-bundle.1.json"
	default:
		s.TrustBundle = d.Trust.Envelope()
	}
	return s
}

func newKeyVectors() map[string]keyVector {
	out := map[string]keyVector{}
	for _, name := range []string{
		"writ test authorization key", "writ test log key", "writ test image key", "writ test device Ed25519 key",
		"writ test root A", "writ test root B", "writ test root C",
	} {
		k := edKey(name)
		out[name] = newKeyVector(name, k.Seed(), trustKey(k), must(Thumbprint(k.Public())))
	}
	for _, name := range []string{"writ test authorization P-256 key", "writ test device key"} {
		k := ecKey(name)
		out[name] = newKeyVector(name, must(k.Bytes()), trustKey(k), must(Thumbprint(k.Public())))
	}
	return out
}

func newKeyVector(seed string, private []byte, k TrustKey, thumbprint fw.Digest) keyVector {
	return keyVector{seed, hex.EncodeToString(private), hex.EncodeToString(k.PublicKey), k.ID.Hex(), thumbprint.Hex()}
}

func vectorFiles() map[string][]byte {
	c := testClaims()
	msg := authorize(c, authzKey)
	a := must(Decode(msg))
	pretty := func(v any) []byte { return append(must(json.MarshalIndent(v, "", "  ")), '\n') }
	var list []attackVector
	for _, k := range attacks {
		m, d := k.make()
		if len(m) > MaxAuthorization {
			continue // a file of zeros
		}
		list = append(list, attackVector{k.name, hex.EncodeToString(m), newStateVector(d), k.want})
	}
	report := must(SignReport(testReport(), deviceKey))
	checkIn := must(EncodeCheckIn(testCheckIn()))
	second := testDocument().Next(testTrust())
	second.Roots.Keys = []TrustKey{trustKey(rootB), trustKey(rootC)}
	return map[string][]byte{
		"authorization.json": pretty(authorizationVector{
			Note: "Private keys of these vectors are public. Never trust them.",
			Keys: newKeyVectors(), Claims: c, CoreDigest: CoreDigest(c),
			Protected: hex.EncodeToString(a.msg.Protected), Payload: hex.EncodeToString(a.msg.Payload),
			SigStructure: hex.EncodeToString(must(encMode.Marshal([]any{"Signature1", a.msg.Protected, []byte{}, a.msg.Payload}))),
			Signature:    hex.EncodeToString(a.msg.Signature), Receipt: hex.EncodeToString(a.Receipts[0]),
			Authorization: hex.EncodeToString(msg),
		}),
		"authorization.cbor": msg,
		"attacks.json":       pretty(list),
		"report.json": pretty(map[string]any{
			"report": testReport(), "payload": hex.EncodeToString(must(DecodeReport(report)).Payload()),
			"signed": hex.EncodeToString(report), "key": "writ test device key",
		}),
		"report.cbor": report,
		"check-in.json": pretty(map[string]any{
			"check_in": hex.EncodeToString(checkIn), "facts_digest": FactsDigest(testCheckIn()),
			"reply": hex.EncodeToString(must(EncodeCheckInReply(testReply()))),
		}),
		"check-in.cbor":       checkIn,
		"check-in-reply.cbor": must(EncodeCheckInReply(testReply())),
		"trust-bundle.1.json": testTrust().Envelope(),
		"trust-bundle.2.json": must(SignTrust(second, rootA, rootB, rootC)),
	}
}

func TestVectorsAreWhatTheCodeMakes(t *testing.T) {
	for name, want := range vectorFiles() {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code makes: run go test ./internal/authz -update and see what changed", path)
		}
	}
}

// The stored bytes, not those made now, are read and checked: a format must
// stay readable.
func TestStoredVectorsAreAccepted(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first, err := OpenTrust(read("trust-bundle.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []attackVector
	if err := json.Unmarshal(read("attacks.json"), &list); err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		d := DeviceState{
			DeviceID: a.State.Device, Thumbprint: a.State.Thumbprint, Hardware: a.State.Hardware, Nonce: a.State.Nonce,
			LastSequence: a.State.LastSequence, Clock: a.State.Clock, Now: a.State.Now, SinceNonce: a.State.SinceNonce,
			Components: a.State.Components,
		}
		switch {
		case a.State.TrustFile != "":
			d.Trust = first
		case len(a.State.TrustBundle) > 0:
			if d.Trust, err = OpenTrust(a.State.TrustBundle); err != nil {
				t.Fatal(err)
			}
		}
		msg, err := hex.DecodeString(a.Message)
		if err != nil {
			t.Fatal(err)
		}
		if _, v := Open(msg, d, testReceiptCheck); v.Reason != a.Reason || v.OK() != (a.Reason == "") {
			t.Errorf("%s: %v, want %q", a.Name, v, a.Reason)
		}
	}
	if _, err := VerifyReport(read("report.cbor"), deviceKey.Public()); err != nil {
		t.Error(err)
	}
	if _, err := DecodeCheckIn(read("check-in.cbor")); err != nil {
		t.Error(err)
	}
	if _, err := DecodeCheckInReply(read("check-in-reply.cbor")); err != nil {
		t.Error(err)
	}
	if _, err := Accept(first, read("trust-bundle.2.json")); err != nil {
		t.Error(err)
	}
}

var docVector = regexp.MustCompile("(?s)<!-- vector ([a-z-]+) -->\n```\n(.*?)```")

// The hexadecimal blocks on the pages are the vectors.
func TestDocsShowTheVectors(t *testing.T) {
	c := testClaims()
	a := must(Decode(authorize(c, authzKey)))
	bare := must(Sign(must(Encode(c)), authzKey))
	report := must(SignReport(testReport(), deviceKey))
	core := CoreDigest(c)
	vectors := map[string][]byte{
		"protected": a.msg.Protected, "payload": a.msg.Payload, "unreceipted": bare, "core-digest": core[:],
		"report-payload": must(DecodeReport(report)).Payload(), "report": report,
		"check-in": must(EncodeCheckIn(testCheckIn())),
		"idle-reply": must(EncodeCheckInReply(CheckInReply{
			ServerTime: testNow, NextCheckIn: 900, Action: ActionNone, Refused: []fw.Reason{fw.ReasonWindow},
		})),
	}
	shown := map[string]bool{}
	for _, page := range []string{"formats/authorization.md", "formats/report.md", "formats/trust-bundle.md", "protocol.md"} {
		path := filepath.Join("..", "..", "docs", filepath.FromSlash(page))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := docVector.ReplaceAllFunc(b, func(block []byte) []byte {
			name := string(docVector.FindSubmatch(block)[1])
			v, ok := vectors[name]
			if !ok {
				t.Errorf("%s shows unknown vector %q", page, name)
				return block
			}
			shown[name] = true
			return []byte("<!-- vector " + name + " -->\n```\n" + wrapped(v) + "```")
		})
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(b, want) {
			t.Errorf("%s does not show what the code makes: run go test ./internal/authz -update", page)
		}
	}
	for name := range vectors {
		if !shown[name] {
			t.Errorf("no page shows vector %q", name)
		}
	}
}

// wrapped is b in hexadecimal, 32 bytes to a line.
func wrapped(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		s.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return s.String()
}

// Every label and reason of the formats is on the page that specifies it.
func TestDocsNameEveryReason(t *testing.T) {
	b, err := os.ReadFile("../../docs/formats/authorization.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []fw.Reason{
		fw.RejectMalformed, fw.RejectSignature, fw.RejectUnknownKey, fw.RejectSubject, fw.RejectKeyBinding, fw.RejectNonce,
		fw.RejectSequence, fw.RejectExpired, fw.RejectNotYetValid, fw.RejectReceipt, fw.RejectNoAuthorization,
		fw.RejectImageDigest, fw.RejectImageSize, fw.RejectImageSignature, fw.RejectImageFormat, fw.RejectImageVersion,
		fw.RejectHardware, fw.RejectSecurityCounter, fw.RejectFromDigest, fw.RejectDowngrade, fw.RejectTrustBundle,
	} {
		if !bytes.Contains(b, []byte("`"+string(r)+"`")) {
			t.Errorf("docs/formats/authorization.md does not name %q", r)
		}
	}
}
