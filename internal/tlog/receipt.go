package tlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/fw"
)

// COSE labels and values of a receipt.
const (
	labelAlg = 1   // RFC 9052 section 3.1
	labelKid = 4   // RFC 9052 section 3.1
	labelVDS = 395 // RFC 9942 section 4: verifiable data structure
	labelVDP = 396 // RFC 9942 section 4: its proofs

	algEdDSA      = -8 // RFC 9053 section 2.2
	vdsRFC9162    = 1  // RFC 9942 section 5
	proofIncluded = -1 // RFC 9942 section 5.2
	tagSign1      = 18 // RFC 9052 section 4.2
)

// MaxReceipt bounds a receipt: 56 path hashes and what is around them.
const MaxReceipt = 4 << 10

// maxPath is the length of the longest path: a tree of [MaxSize] entries.
const maxPath = TileHeight * maxTileLevels

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxArrayElements: 128, MaxMapPairs: 16, MaxNestedLevels: 8,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options: programmer error
	}
	return v
}

// RootSignature is the log's COSE signature over a root. It is part of every
// receipt of that tree size.
type RootSignature struct {
	Protected []byte
	Signature []byte
}

// KeyID is the kid of a receipt: SHA-256 of the raw public key.
func KeyID(pub ed25519.PublicKey) []byte {
	h := sha256.Sum256(pub)
	return h[:]
}

// ProtectedHeader returns the protected header of a log's receipts.
func ProtectedHeader(pub ed25519.PublicKey) ([]byte, error) {
	return encMode.Marshal(map[int]any{labelAlg: algEdDSA, labelKid: KeyID(pub), labelVDS: vdsRFC9162})
}

// SigStructure returns the bytes that a receipt's signature is over
// (RFC 9052 section 4.4), with the root as detached payload.
func SigStructure(protected []byte, root Hash) ([]byte, error) {
	return encMode.Marshal([]any{"Signature1", protected, []byte{}, root[:]})
}

// SignRoot signs root once for all receipts of its tree size.
func SignRoot(root Hash, pub ed25519.PublicKey, sign SignFunc) (RootSignature, error) {
	p, err := ProtectedHeader(pub)
	if err != nil {
		return RootSignature{}, fmt.Errorf("encoding the receipt header: %w", err)
	}
	msg, err := SigStructure(p, root)
	if err != nil {
		return RootSignature{}, fmt.Errorf("encoding the receipt: %w", err)
	}
	sig, err := sign(msg)
	if err != nil {
		return RootSignature{}, err
	}
	return RootSignature{Protected: p, Signature: sig}, nil
}

// inclusion is the inclusion proof of RFC 9942 section 5.2.
type inclusion struct {
	_     struct{} `cbor:",toarray"`
	Size  int64
	Index int64
	Path  [][]byte
}

type receiptBody struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected map[int]map[int][][]byte
	Payload     []byte // nil: detached
	Signature   []byte
}

// Receipt assembles the receipt for entry index of the tree of the given size,
// from the signature over its root and the inclusion proof. It signs nothing.
func Receipt(rs RootSignature, size, index int64, path []Hash) ([]byte, error) {
	in := inclusion{Size: size, Index: index, Path: make([][]byte, len(path))}
	for i := range path {
		in.Path[i] = path[i][:]
	}
	proof, err := encMode.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encoding the inclusion proof: %w", err)
	}
	return encMode.Marshal(cbor.Tag{Number: tagSign1, Content: receiptBody{
		Protected:   rs.Protected,
		Unprotected: map[int]map[int][][]byte{labelVDP: {proofIncluded: {proof}}},
		Signature:   rs.Signature,
	}})
}

// Included is where a receipt places its entry. The signature is over the root
// alone (RFC 9942 section 5.2), so a receipt proves that the entry is in the
// log; Index and Size are what the path was made for, and another pair whose
// path has the same turns leads to the same root. Whoever needs the index takes
// it from signed or committed bytes and compares.
type Included struct {
	Index, Size int64
}

// CheckReceipt checks a receipt for entry under the log's key. It accepts
// exactly the bytes that [Receipt] makes: a receipt has one form, and nothing
// can be added to it, left out or written in another way.
func CheckReceipt(receipt, entry []byte, pub ed25519.PublicKey) (Included, error) {
	if len(pub) != ed25519.PublicKeySize {
		return Included{}, fw.Errorf(fw.Invalid, "a log key has %d bytes, not %d", ed25519.PublicKeySize, len(pub))
	}
	rs, in, path, err := decodeReceipt(receipt)
	if err != nil {
		return Included{}, err
	}
	want, err := ProtectedHeader(pub)
	if err != nil {
		return Included{}, fmt.Errorf("encoding the receipt header: %w", err)
	}
	// The header of a receipt is a function of the key, so it is compared
	// whole: another algorithm or kind of tree cannot slip in.
	if !bytes.Equal(rs.Protected, want) {
		return Included{}, fw.Errorf(fw.Invalid, "the receipt is not by this log's key")
	}
	root, err := rootFromPath(path, in.Size, in.Index, LeafHash(entry))
	if err != nil {
		return Included{}, fw.Wrap(fw.Invalid, err, "malformed receipt: the inclusion proof has the wrong length")
	}
	msg, err := SigStructure(rs.Protected, root)
	if err != nil {
		return Included{}, fmt.Errorf("encoding the receipt: %w", err)
	}
	if !ed25519.Verify(pub, msg, rs.Signature) {
		return Included{}, fw.Errorf(fw.Corrupt, "the receipt does not prove this record under this log's key")
	}
	return in, nil
}

// decodeReceipt reads the parts of a receipt and checks their form.
func decodeReceipt(b []byte) (RootSignature, Included, []Hash, error) {
	bad := func(what string) (RootSignature, Included, []Hash, error) {
		return RootSignature{}, Included{}, nil, fw.Errorf(fw.Invalid, "malformed receipt: %s", what)
	}
	if len(b) > MaxReceipt {
		return bad("too large")
	}
	var tag cbor.RawTag
	if err := decMode.Unmarshal(b, &tag); err != nil || tag.Number != tagSign1 {
		return bad("not a COSE_Sign1")
	}
	var r receiptBody
	if err := decMode.Unmarshal(tag.Content, &r); err != nil {
		return bad("not a COSE_Sign1")
	}
	proofs := r.Unprotected[labelVDP][proofIncluded]
	if len(proofs) != 1 || len(r.Signature) != ed25519.SignatureSize {
		return bad("it must hold one inclusion proof and one signature")
	}
	var p inclusion
	if err := decMode.Unmarshal(proofs[0], &p); err != nil || len(p.Path) > maxPath || p.Size > MaxSize || p.Index < 0 || p.Index >= p.Size {
		return bad("the inclusion proof")
	}
	path := make([]Hash, len(p.Path))
	for i, h := range p.Path {
		if len(h) != len(Hash{}) {
			return bad("the inclusion proof")
		}
		path[i] = Hash(h)
	}
	rs := RootSignature{Protected: r.Protected, Signature: r.Signature}
	in := Included{Index: p.Index, Size: p.Size}
	again, err := Receipt(rs, in.Size, in.Index, path)
	if err != nil {
		return RootSignature{}, Included{}, nil, err
	}
	if !bytes.Equal(again, b) {
		return bad("it is not in the deterministic encoding (RFC 8949 section 4.2.1), or holds more than a receipt")
	}
	return rs, in, path, nil
}

// rootFromPath computes the root that an inclusion proof leads to (RFC 9162
// section 2.1.3.2).
func rootFromPath(path []Hash, size, index int64, leaf Hash) (Hash, error) {
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return Hash{}, errors.New("the path is too long")
		}
		if fn&1 == 1 || fn == sn {
			r = tlog.NodeHash(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = tlog.NodeHash(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return Hash{}, errors.New("the path is too short")
	}
	return r, nil
}
