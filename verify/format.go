package verify

import (
	"encoding/binary"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/tlog"
)

// Type is the "type" member of a bundle's manifest.
const Type = "writ-bundle/v1"

// Members of a bundle, in order. Records and streams are cut into members
// that are numbered from 0.
const (
	MemberManifest    = "MANIFEST.json"
	MemberTrust       = "trust.json"
	MemberCheckpoint  = "checkpoint"
	MemberCheckpoints = "checkpoints.json"
	MemberReadme      = "VERIFY.md"
	MemberRecords     = "records/%08d"
	MemberStreams     = "streams/%08d"
)

// SegmentSize is from how many bytes on a writer ends a numbered member. The
// last item may go over it by its own size.
const SegmentSize = 1 << 20

// Bounds of the members, in bytes.
const (
	maxManifest    = 1 << 20
	maxCheckpoints = 4 << 20
	maxSegment     = SegmentSize + 2<<20
)

// Bounds of counts.
const (
	// MaxCheckpoints is how many earlier checkpoints a bundle carries.
	MaxCheckpoints = 512
	// MaxCampaigns is how many campaigns a bundle replays.
	MaxCampaigns = 10_000

	maxPath  = 64      // hashes of a proof
	maxLinks = 8       // streams of a record
	maxRun   = 1 << 15 // commitments of one frame
)

// Proofs says how a bundle proves that its records are in the log.
type Proofs string

// Ways of proving.
const (
	// ProofPaths: every record has its inclusion proof.
	ProofPaths Proofs = "paths"
	// ProofLeaves: the bundle has the commitment of every record of the log,
	// and the tree is made again from them.
	ProofLeaves Proofs = "leaves"
)

// Scope is what a bundle was exported for: a campaign or a device.
type Scope struct {
	Campaign fw.CampaignID `json:"campaign,omitempty"`
	Device   fw.DeviceID   `json:"device,omitempty"`
}

// Manifest says what a bundle holds. Nothing in it is believed: the counts
// must come true, and the campaigns must have their whole streams.
type Manifest struct {
	Type      string          `json:"type"` // Type
	Tool      string          `json:"tool"` // what wrote it
	CreatedAt int64           `json:"created_at"`
	Scope     Scope           `json:"scope"`
	Campaigns []fw.CampaignID `json:"campaigns"` // replayed
	Size      int64           `json:"size"`      // of the log at the checkpoint
	Epoch     int64           `json:"epoch"`     // index of the epoch record, the last that is exported
	Records   int64           `json:"records"`   // erased ones among them
	Streams   int64           `json:"streams"`   // exported whole
	Proofs    Proofs          `json:"proofs"`
}

// Trust is what the writer of a bundle says its keys are. It proves nothing:
// an auditor compares it with what they got another way.
type Trust struct {
	LogKey      string   `json:"log_key"`      // signed-note verifier key
	RosterRoots [][]byte `json:"roster_roots"` // SubjectPublicKeyInfo, Ed25519
	DeviceCAs   [][]byte `json:"device_cas"`   // certificates
}

// OldCheckpoint is an earlier checkpoint with the proof that its tree is a
// prefix of the bundle's. Without a note it is only the proof, for a
// checkpoint that the auditor has.
type OldCheckpoint struct {
	Size int64    `json:"size"`
	Note string   `json:"note,omitempty"`
	Path [][]byte `json:"path"`
}

// StreamEnd proves where an exported stream ends.
type StreamEnd struct {
	Stream evidence.StreamID    `json:"stream"`
	Proof  evidence.StreamProof `json:"proof"`
}

// Kinds of frames.
const (
	frameRecord byte = 1
	frameErased byte = 2
	frameLeaves byte = 3
)

// Place is where an erased record stood in one stream.
type Place struct {
	Stream evidence.StreamID
	N      int64
}

// Frame is one item of a records member: a record, what is left of an erased
// one (Places instead of Body), or commitments of records that are not
// exported (Leaves).
type Frame struct {
	Index      int64
	Commitment evidence.Commitment
	Salt       evidence.Salt
	Body       []byte
	Places     []Place
	Path       []tlog.Hash // with ProofPaths
	Leaves     []byte      // 32 bytes each, from Index on
}

// Append appends the encoding of f to b.
func (f *Frame) Append(b []byte) []byte {
	kind := frameRecord
	switch {
	case f.Leaves != nil:
		kind = frameLeaves
	case f.Body == nil:
		kind = frameErased
	}
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Index)) //nolint:gosec // an index is never negative
	if kind == frameLeaves {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Leaves)/len(f.Commitment))) //nolint:gosec // bounded by maxRun
		return append(b, f.Leaves...)
	}
	b = append(b, f.Commitment[:]...)
	if kind == frameRecord {
		b = append(b, f.Salt[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Body))) //nolint:gosec // bounded by evidence.MaxRecord
		b = append(b, f.Body...)
	} else {
		b = append(b, byte(len(f.Places)))
		for _, p := range f.Places {
			b = binary.BigEndian.AppendUint16(b, uint16(len(p.Stream))) //nolint:gosec // bounded by evidence
			b = append(b, p.Stream...)
			b = binary.BigEndian.AppendUint64(b, uint64(p.N)) //nolint:gosec // never negative
		}
	}
	b = append(b, byte(len(f.Path)))
	for i := range f.Path {
		b = append(b, f.Path[i][:]...)
	}
	return b
}

// cutter takes fields off the front of a member.
type cutter struct {
	b   []byte
	bad bool
}

func (c *cutter) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cutter) number(size int) uint64 {
	var n uint64
	for _, x := range c.take(size) {
		n = n<<8 | uint64(x)
	}
	return n
}

// cutFrame takes one frame off b. Body, Leaves and Path share its memory.
func cutFrame(b []byte, f *Frame) ([]byte, error) {
	c := cutter{b: b}
	kind, index := byte(c.number(1)), c.number(8)
	if index >= tlog.MaxSize {
		return nil, fw.Errorf(fw.Invalid, "a frame has index %d", index)
	}
	*f = Frame{Index: int64(index)}
	switch kind {
	case frameLeaves:
		n := c.number(4)
		if n == 0 || n > maxRun {
			return nil, fw.Errorf(fw.Invalid, "a frame has %d commitments", n)
		}
		f.Leaves = c.take(int(n) * len(f.Commitment))
	case frameRecord:
		copy(f.Commitment[:], c.take(len(f.Commitment)))
		copy(f.Salt[:], c.take(len(f.Salt)))
		n := c.number(4)
		if n == 0 || n > evidence.MaxRecord {
			return nil, fw.Errorf(fw.Invalid, "record %d would have %d bytes", index, n)
		}
		f.Body = c.take(int(n))
		c.path(f)
	case frameErased:
		copy(f.Commitment[:], c.take(len(f.Commitment)))
		c.places(f)
		c.path(f)
	default:
		return nil, fw.Errorf(fw.Invalid, "a frame of unknown kind %d", kind)
	}
	if c.bad {
		return nil, fw.Errorf(fw.Invalid, "the frame of record %d is cut off", index)
	}
	return c.b, nil
}

func (c *cutter) path(f *Frame) {
	n := int(c.number(1))
	if n > maxPath {
		c.bad = true
		return
	}
	if n == 0 {
		return
	}
	f.Path = make([]tlog.Hash, n)
	for i := range f.Path {
		copy(f.Path[i][:], c.take(len(tlog.Hash{})))
	}
}

func (c *cutter) places(f *Frame) {
	n := int(c.number(1))
	if n > maxLinks {
		c.bad = true
		return
	}
	for range n {
		size := int(c.number(2))
		p := Place{Stream: evidence.StreamID(c.take(size)), N: int64(c.number(8) & (1<<53 - 1))} //nolint:gosec // masked
		f.Places = append(f.Places, p)
	}
}
