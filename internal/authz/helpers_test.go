package authz

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/tlog"
)

var update = flag.Bool("update", false, "write testdata and the vectors in docs again")

const testNow = 1_790_000_000

// The private keys of the test vectors. Never trust them.
var (
	authzKey  = edKey("writ test authorization key")
	authzP256 = ecKey("writ test authorization P-256 key")
	otherKey  = edKey("writ test key nobody trusts")
	deviceKey = ecKey("writ test device key")
	deviceEd  = edKey("writ test device Ed25519 key")
	logKey    = edKey("writ test log key")
	imageKey  = edKey("writ test image key")
	rootA     = edKey("writ test root A")
	rootB     = edKey("writ test root B")
	rootC     = edKey("writ test root C")
)

// edKey is the Ed25519 key whose seed is the SHA-256 of name.
func edKey(name string) ed25519.PrivateKey {
	seed := fw.DigestOf([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// ecKey is the P-256 key whose scalar is the SHA-256 of name.
func ecKey(name string) deterministic {
	d := fw.DigestOf([]byte(name))
	return deterministic{must(ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:]))}
}

func trustKey(key crypto.Signer) TrustKey { return must(NewTrustKey(key.Public())) }

func testDocument() TrustDocument {
	return TrustDocument{
		CreatedAt:         testNow - 1000,
		Roots:             Roots{Threshold: 2, Keys: []TrustKey{trustKey(rootA), trustKey(rootB), trustKey(rootC)}},
		AuthorizationKeys: []TrustKey{trustKey(authzKey), trustKey(authzP256)},
		ImageKeys:         []TrustKey{trustKey(imageKey)},
		LogKeys:           []LogKey{{Origin: "writ.example/log", TrustKey: trustKey(logKey)}},
	}.Next(nil)
}

func testTrust() *TrustBundle {
	return must(OpenTrust(must(SignTrust(testDocument(), rootA, rootB))))
}

func testClaims() Claims {
	return Claims{
		Issuer: "writ.example", Device: "SN-0001", IssuedAt: testNow, NotBefore: testNow, Expires: testNow + 3600,
		ID: "aut_aaaabbbbccccddddeeee", Thumbprint: must(Thumbprint(deviceKey.Public())),
		Nonce: Nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Sequence: 7,
		Campaign: "cmp_aaaabbbbccccddddeeee", Update: "upd_aaaabbbbccccddddeeee", Hardware: "gw-2",
		Plan: fw.DigestOf([]byte("plan")), Policy: fw.DigestOf([]byte("policy")),
		Manifest: fw.DigestOf([]byte("manifest")), Published: fw.DigestOf([]byte("publication")),
		Components: []Component{{
			Name: "main", From: fw.DigestOf([]byte("old image")), Release: "rel_aaaabbbbccccddddeeee",
			Version: "1.1.0", Digest: fw.DigestOf([]byte("new image")), Size: 9, Format: "raw", SecurityCounter: 4,
			Envelope: fw.DigestOf([]byte("envelope")),
		}},
		Decision: 41, Commitment: fw.DigestOf([]byte("decision record")),
	}
}

func testState() DeviceState {
	c := testClaims()
	return DeviceState{
		DeviceID: c.Device, Thumbprint: c.Thumbprint, Hardware: c.Hardware, Nonce: c.Nonce, LastSequence: 6,
		Clock: ClockTrusted, Now: testNow + 10, Trust: testTrust(),
		Components: []DeviceComponent{{
			Name: "main", Version: "1.0.0", Digest: fw.DigestOf([]byte("old image")), SecurityCounter: 3, SecurityFloor: 2,
		}},
	}
}

// testReceipt returns the receipt for a record in a log of 48.
func testReceipt(commitment fw.Digest, index uint64) []byte {
	var edge tlog.Edge
	for i := range uint64(48) {
		entry := fw.DigestOf(fmt.Appendf(nil, "record %d", i))
		if i == index {
			entry = commitment
		}
		edge.Append(entry[:])
	}
	path := must(tlog.NewReader(&edge, nil).Inclusion(int64(index), edge.Size()))
	pub, _ := logKey.Public().(ed25519.PublicKey)
	root := must(tlog.SignRoot(edge.Root(), pub, func(msg []byte) ([]byte, error) { return ed25519.Sign(logKey, msg), nil }))
	return must(tlog.Receipt(root, edge.Size(), int64(index), path))
}

// testReceiptCheck is what a device does.
func testReceiptCheck(receipt []byte, commitment fw.Digest, index uint64, keys []LogKey) error {
	err := errors.New("no log key")
	for _, k := range keys {
		pub, _ := must(k.Public()).(ed25519.PublicKey)
		var in tlog.Included
		if in, err = tlog.CheckReceipt(receipt, commitment[:], pub); err == nil && uint64(in.Index) != index {
			err = fmt.Errorf("it is the receipt of record %d", in.Index)
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// deterministic signs as RFC 6979 has it, so that vectors come out the same
// each time.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

// authorize encodes, signs and attaches the receipt.
func authorize(c Claims, key crypto.Signer) []byte {
	return must(AttachReceipt(must(Sign(must(Encode(c)), key)), testReceipt(c.Commitment, c.Decision)))
}

func testReport() Report {
	return Report{
		Device: "SN-0001", Time: testNow + 300, Nonce: testClaims().Nonce, Sequence: 12, Boot: BootID{0xb0, 0x07, 15: 1},
		Authorization: "aut_aaaabbbbccccddddeeee", Update: "upd_aaaabbbbccccddddeeee", Event: fw.EventConfirmed,
		Components: []ReportedComponent{{Name: "main", Version: "1.1.0", Digest: fw.DigestOf([]byte("new image")), SecurityCounter: 4, Slot: "b"}},
	}
}

func testCheckIn() CheckIn {
	return CheckIn{
		Nonce: testClaims().Nonce,
		Facts: Facts{
			Hardware:     "gw-2",
			Components:   []ReportedComponent{{Name: "main", Version: "1.0.0", Digest: fw.DigestOf([]byte("old image")), SecurityCounter: 3, Slot: "a"}},
			Attributes:   map[string]string{"region": "eu", "battery": "81"},
			LastSequence: 6, TrustVersion: 1, LastReceiptIndex: 17,
		},
	}
}

func testReply() CheckInReply {
	c := testClaims()
	p := c.Components[0]
	return CheckInReply{
		ServerTime: testNow, NextCheckIn: 900, Action: ActionUpdate, Authorization: authorize(c, authzKey),
		Artifacts: []Artifact{
			{Digest: p.Digest, Size: p.Size, Path: "/device/v1/artifacts/" + p.Digest.Hex(), Component: p.Name, Kind: ArtifactImage},
			{Digest: p.Envelope, Size: 300, Path: "/device/v1/artifacts/" + p.Envelope.Hex(), Component: p.Name, Kind: ArtifactEnvelope},
		},
		RenewBefore: testNow + 86400*30, LastReport: 11,
	}
}
