package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/fw"
)

// Head is the end of a stream: how many records it has and the commitment of
// the last. The zero Head is a stream without records.
type Head struct {
	N    int64      `json:"n"`
	Last Commitment `json:"last"`
}

// Next returns the link of the record after h in stream s.
func (h Head) Next(s StreamID) Link { return Link{Stream: s, N: h.N + 1, Prev: h.Last} }

// Extend checks that l comes right after h and returns the head with the
// linked record, whose commitment is c.
func (h Head) Extend(l Link, c Commitment) (Head, error) {
	if l.N != h.N+1 {
		return h, fw.Errorf(fw.Corrupt, "stream %s goes from record %d to %d: something is missing or twice", l.Stream, h.N, l.N)
	}
	if l.Prev != h.Last {
		return h, fw.Errorf(fw.Corrupt, "record %d of stream %s does not follow record %d", l.N, l.Stream, h.N)
	}
	return Head{N: l.N, Last: c}, nil
}

// StreamHead is a stream and its head.
type StreamHead struct {
	Stream StreamID
	Head   Head
}

// Epoch is the payload of an epoch record: the root of a Merkle tree (RFC 6962
// hashing) over all stream heads as they were before this record, in order of
// the SHA-256 of their ids.
type Epoch struct {
	Streams int64     `json:"streams"`
	Root    fw.Digest `json:"root"`
}

// leaf is the tree entry of one stream head: the hash of the id, so that a
// list of them names nobody, then the count and the last commitment.
func (s StreamHead) leaf() []byte {
	id := sha256.Sum256([]byte(s.Stream))
	b := make([]byte, 0, 72)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Head.N))
	return append(b, s.Head.Last[:]...)
}

// EpochTree is the Merkle tree over stream heads.
type EpochTree struct {
	leaves [][]byte // sorted; the first 32 bytes are the hash of the stream id
	hashes []tlog.Hash
}

// NewEpochTree builds the tree over heads, in any order.
func NewEpochTree(heads []StreamHead) *EpochTree {
	t := &EpochTree{leaves: make([][]byte, len(heads))}
	for i, h := range heads {
		t.leaves[i] = h.leaf()
	}
	slices.SortFunc(t.leaves, slices.Compare)
	for i, l := range t.leaves {
		hs, err := tlog.StoredHashes(int64(i), l, t)
		if err != nil {
			panic(err) // reads only what was appended: programmer error
		}
		t.hashes = append(t.hashes, hs...)
	}
	return t
}

// ReadHashes implements tlog.HashReader.
func (t *EpochTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t.hashes)) {
			return nil, fw.Errorf(fw.Internal, "the epoch tree has no hash %d", x)
		}
		out[i] = t.hashes[x]
	}
	return out, nil
}

// Epoch returns the payload of the epoch record.
func (t *EpochTree) Epoch() Epoch {
	if len(t.leaves) == 0 {
		return Epoch{Root: fw.Digest(sha256.Sum256(nil))} // RFC 6962 section 2.1: the empty tree
	}
	root, err := tlog.TreeHash(int64(len(t.leaves)), t)
	if err != nil {
		panic(err) // every hash is there: programmer error
	}
	return Epoch{Streams: int64(len(t.leaves)), Root: fw.Digest(root)}
}

// StreamProof proves where a stream ended at an epoch, or that there was no
// such stream: then it holds the neighbours between which it would be.
type StreamProof struct {
	Entries []ProofEntry `json:"entries"` // the stream's own, or its one or two neighbours
}

// ProofEntry is one leaf of an epoch tree with its inclusion proof.
type ProofEntry struct {
	Index int64    `json:"index"`
	Leaf  []byte   `json:"leaf"`
	Path  [][]byte `json:"path"`
}

// Prove returns the proof for stream s.
func (t *EpochTree) Prove(s StreamID) (StreamProof, error) {
	id := sha256.Sum256([]byte(s))
	i, found := slices.BinarySearchFunc(t.leaves, id[:], func(l, id []byte) int { return slices.Compare(l[:32], id) })
	var at []int
	switch {
	case found:
		at = []int{i}
	default:
		if i > 0 {
			at = append(at, i-1)
		}
		if i < len(t.leaves) {
			at = append(at, i)
		}
	}
	var p StreamProof
	for _, n := range at {
		path, err := tlog.ProveRecord(int64(len(t.leaves)), int64(n), t)
		if err != nil {
			return StreamProof{}, fw.Wrap(fw.Internal, err, "cannot prove stream %s", s)
		}
		e := ProofEntry{Index: int64(n), Leaf: t.leaves[n]}
		for _, h := range path {
			e.Path = append(e.Path, h[:])
		}
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

// CheckStream returns the head that p proves stream s to have had at epoch e.
// A proven absence is the zero Head.
func CheckStream(e Epoch, s StreamID, p StreamProof) (Head, error) {
	id := sha256.Sum256([]byte(s))
	for _, n := range p.Entries {
		if err := n.check(e); err != nil {
			return Head{}, err
		}
	}
	if len(p.Entries) == 1 && slices.Equal(p.Entries[0].Leaf[:32], id[:]) {
		l := p.Entries[0].Leaf
		return Head{N: int64(binary.BigEndian.Uint64(l[32:40])), Last: Commitment(l[40:72])}, nil
	}
	if !absent(e, id[:], p.Entries) {
		return Head{}, fw.Errorf(fw.Corrupt, "the epoch proof is not about stream %s", s)
	}
	return Head{}, nil
}

// absent reports whether entries are the neighbours between which id would be.
func absent(e Epoch, id []byte, entries []ProofEntry) bool {
	before := func(n ProofEntry) bool { return slices.Compare(n.Leaf[:32], id) < 0 }
	switch {
	case e.Streams == 0:
		return len(entries) == 0
	case len(entries) == 1:
		n := entries[0]
		return before(n) && n.Index == e.Streams-1 || !before(n) && n.Index == 0 && !slices.Equal(n.Leaf[:32], id)
	case len(entries) == 2:
		a, b := entries[0], entries[1]
		return b.Index == a.Index+1 && before(a) && slices.Compare(b.Leaf[:32], id) > 0
	}
	return false
}

func (n ProofEntry) check(e Epoch) error {
	if len(n.Leaf) != 72 || len(n.Path) > 63 {
		return fw.Errorf(fw.Invalid, "the epoch proof is malformed")
	}
	var path tlog.RecordProof
	for _, h := range n.Path {
		if len(h) != tlog.HashSize {
			return fw.Errorf(fw.Invalid, "the epoch proof is malformed")
		}
		path = append(path, tlog.Hash(h))
	}
	if err := tlog.CheckRecord(path, e.Streams, tlog.Hash(e.Root), n.Index, tlog.RecordHash(n.Leaf)); err != nil {
		return fw.Wrap(fw.Corrupt, err, "the epoch proof does not lead to the epoch's root")
	}
	return nil
}
