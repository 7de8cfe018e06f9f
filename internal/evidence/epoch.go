package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/fw"
)

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

// leafSize is the size of an entry of the tree: the SHA-256 of the stream id,
// so that a list of entries names nobody, then the count in eight bytes, most
// significant first, and the last commitment.
const leafSize = sha256.Size + 8 + sha256.Size

type leaf [leafSize]byte

func (s StreamHead) leaf() (l leaf) {
	id := sha256.Sum256([]byte(s.Stream))
	copy(l[:], id[:])
	binary.BigEndian.PutUint64(l[sha256.Size:], uint64(s.Head.N)) //nolint:gosec // NewEpochTree takes counts from 1
	copy(l[sha256.Size+8:], s.Head.Last[:])
	return l
}

// id is the hash of the stream's id.
func (l *leaf) id() []byte { return l[:sha256.Size] }

func (l *leaf) head() Head {
	n := int64(binary.BigEndian.Uint64(l[sha256.Size:])) //nolint:gosec // ProofEntry.check refuses what comes out negative
	return Head{N: n, Last: Commitment(l[sha256.Size+8:])}
}

// EpochTree is the Merkle tree over stream heads, about 140 bytes each.
type EpochTree struct {
	leaves []leaf        // sorted
	levels [][]tlog.Hash // complete subtrees by height
}

// NewEpochTree builds the tree over heads, in any order. Each stream must be
// there once and have a record; anything else is a programmer error.
func NewEpochTree(heads []StreamHead) *EpochTree {
	t := &EpochTree{leaves: make([]leaf, len(heads))}
	for i, h := range heads {
		if h.Head.N < 1 {
			panic("evidence: stream " + string(h.Stream) + " has no records")
		}
		t.leaves[i] = h.leaf()
	}
	slices.SortFunc(t.leaves, func(a, b leaf) int { return bytes.Compare(a[:], b[:]) })
	for i := 1; i < len(t.leaves); i++ {
		if bytes.Equal(t.leaves[i-1].id(), t.leaves[i].id()) {
			panic("evidence: a stream is in the epoch twice")
		}
	}
	level := make([]tlog.Hash, len(t.leaves))
	for i := range t.leaves {
		level[i] = tlog.RecordHash(t.leaves[i][:])
	}
	for len(level) > 0 {
		t.levels = append(t.levels, level)
		next := make([]tlog.Hash, len(level)/2)
		for i := range next {
			next[i] = tlog.NodeHash(level[2*i], level[2*i+1])
		}
		level = next
	}
	return t
}

// ReadHashes implements tlog.HashReader.
func (t *EpochTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		if level >= len(t.levels) || n >= int64(len(t.levels[level])) {
			return nil, fw.Errorf(fw.Internal, "the epoch tree has no hash %d of height %d", n, level)
		}
		out[i] = t.levels[level][n]
	}
	return out, nil
}

// emptyRoot is the root of a tree without entries (RFC 6962 section 2.1).
var emptyRoot = fw.Digest(sha256.Sum256(nil))

// Epoch returns the payload of the epoch record.
func (t *EpochTree) Epoch() Epoch {
	if len(t.leaves) == 0 {
		return Epoch{Root: emptyRoot}
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
	i, found := slices.BinarySearchFunc(t.leaves, id[:], func(l leaf, id []byte) int { return bytes.Compare(l.id(), id) })
	first, last := i, i
	if !found {
		first, last = max(i-1, 0), min(i, len(t.leaves)-1)
	}
	var p StreamProof
	for n := first; n <= last; n++ {
		path, err := tlog.ProveRecord(int64(len(t.leaves)), int64(n), t)
		if err != nil {
			return StreamProof{}, fw.Wrap(fw.Internal, err, "cannot prove stream %s", s)
		}
		e := ProofEntry{Index: int64(n), Leaf: slices.Clone(t.leaves[n][:])}
		for _, h := range path {
			e.Path = append(e.Path, h[:])
		}
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

// CheckStream returns the head that p proves stream s to have had at epoch e.
// A proven absence is the zero Head.
//
// A proof shows what the epoch says. That the epoch is right, sorted and with
// every stream once, is for a party that holds all records to check, by making
// the tree again.
func CheckStream(e Epoch, s StreamID, p StreamProof) (Head, error) {
	id := sha256.Sum256([]byte(s))
	leaves := make([]leaf, len(p.Entries))
	if len(leaves) > 2 {
		return Head{}, fw.Errorf(fw.Invalid, "an epoch proof has at most 2 entries, not %d", len(leaves))
	}
	for i, n := range p.Entries {
		var err error
		if leaves[i], err = n.check(e); err != nil {
			return Head{}, err
		}
	}
	if len(leaves) == 1 && bytes.Equal(leaves[0].id(), id[:]) {
		return leaves[0].head(), nil
	}
	if !absent(e, id[:], p.Entries, leaves) {
		return Head{}, fw.Errorf(fw.Corrupt, "the epoch proof is not about stream %s", s)
	}
	return Head{}, nil
}

// absent reports whether entries are the neighbours between which id would be.
func absent(e Epoch, id []byte, entries []ProofEntry, leaves []leaf) bool {
	switch len(entries) {
	case 0:
		return e.Streams == 0 && e.Root == emptyRoot
	case 1: // before the first or after the last
		order := bytes.Compare(leaves[0].id(), id)
		return order < 0 && entries[0].Index == e.Streams-1 || order > 0 && entries[0].Index == 0
	default:
		return entries[1].Index == entries[0].Index+1 && bytes.Compare(leaves[0].id(), id) < 0 && bytes.Compare(leaves[1].id(), id) > 0
	}
}

// maxEpoch bounds the streams of an epoch: as many as a proof can be checked
// for without overflow, and more than there can be.
const maxEpoch = 1 << 48

// check checks that n is in the tree of e and returns its leaf.
func (n ProofEntry) check(e Epoch) (leaf, error) {
	if len(n.Leaf) != leafSize || len(n.Path) > 48 || e.Streams < 0 || e.Streams > maxEpoch {
		return leaf{}, fw.Errorf(fw.Invalid, "the epoch proof is malformed")
	}
	path := make(tlog.RecordProof, len(n.Path))
	for i, h := range n.Path {
		if len(h) != tlog.HashSize {
			return leaf{}, fw.Errorf(fw.Invalid, "the epoch proof is malformed")
		}
		path[i] = tlog.Hash(h)
	}
	if err := tlog.CheckRecord(path, e.Streams, tlog.Hash(e.Root), n.Index, tlog.RecordHash(n.Leaf)); err != nil {
		return leaf{}, fw.Wrap(fw.Corrupt, err, "the epoch proof does not lead to the epoch's root")
	}
	l := leaf(n.Leaf)
	if l.head().N < 1 {
		return leaf{}, fw.Errorf(fw.Corrupt, "the epoch counts %d records in a stream", l.head().N)
	}
	return l, nil
}
