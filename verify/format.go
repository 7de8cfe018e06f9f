package verify

import (
	"github.com/writ-project/writ/internal/authz"
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
	// Bounds of a place of an erased record, in bytes and as a number.
	maxStream = 512
	maxPlace  = 1<<53 - 1
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
	frameRecord        byte = 1
	frameErased        byte = 2
	frameLeaves        byte = 3
	frameAuthorization byte = 4
)

// Place is where an erased record stood in one stream.
type Place struct {
	Stream evidence.StreamID
	N      int64
}

// Frame is one item of a records member: a record, what is left of an erased
// one (Places instead of Body), commitments of records that are not exported
// (Leaves), or the authorization that was signed on the decision in the frame
// before (Authorization), whose index it has.
type Frame struct {
	Index         int64
	Commitment    evidence.Commitment
	Salt          evidence.Salt
	Body          []byte
	Places        []Place
	Path          []tlog.Hash // with ProofPaths
	Leaves        []byte      // 32 bytes each, from Index on
	Authorization []byte      // COSE_Sign1 without receipts
}

// Append appends the encoding of f to b. The bounds of the format hold for f:
// indexes are not negative and counts fit their fields.
func (f *Frame) Append(b []byte) []byte {
	kind := frameRecord
	switch {
	case f.Leaves != nil:
		kind = frameLeaves
	case f.Authorization != nil:
		kind = frameAuthorization
	case f.Body == nil:
		kind = frameErased
	}
	b = appendNumber(append(b, kind), 8, f.Index)
	switch kind {
	case frameLeaves:
		b = appendNumber(b, 4, int64(len(f.Leaves)/len(f.Commitment)))
		return append(b, f.Leaves...)
	case frameAuthorization:
		return appendBytes(b, 4, f.Authorization)
	case frameRecord:
		b = append(append(b, f.Commitment[:]...), f.Salt[:]...)
		b = appendBytes(b, 4, f.Body)
	default:
		b = appendNumber(append(b, f.Commitment[:]...), 1, int64(len(f.Places)))
		for _, p := range f.Places {
			b = appendNumber(appendBytes(b, 2, []byte(p.Stream)), 8, p.N)
		}
	}
	b = appendNumber(b, 1, int64(len(f.Path)))
	for i := range f.Path {
		b = append(b, f.Path[i][:]...)
	}
	return b
}

// appendNumber appends the size low bytes of n, most significant first.
func appendNumber(b []byte, size int, n int64) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)&0xff))
	}
	return b
}

// appendBytes appends v behind its length in size bytes.
func appendBytes(b []byte, size int, v []byte) []byte {
	return append(appendNumber(b, size, int64(len(v))), v...)
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

// number takes size bytes, most significant first, as a number up to limit.
func (c *cutter) number(size int, limit int64) int64 {
	var n int64
	for _, x := range c.take(size) {
		if n >= 1<<55 {
			c.bad = true
			return 0
		}
		n = n<<8 | int64(x)
	}
	if n > limit {
		c.bad = true
		return 0
	}
	return n
}

// bytes takes bytes behind their length, of size bytes and up to limit.
func (c *cutter) bytes(size int, limit int64) []byte {
	return c.take(int(c.number(size, limit)))
}

// cutFrame takes one frame off b. What f holds shares its memory.
func cutFrame(b []byte, f *Frame) ([]byte, error) {
	c := cutter{b: b}
	kind := c.number(1, 0xff)
	*f = Frame{Index: c.number(8, tlog.MaxSize-1)}
	switch byte(kind & 0xff) {
	case frameLeaves:
		f.Leaves = c.take(int(c.number(4, maxRun)) * len(f.Commitment))
		c.bad = c.bad || len(f.Leaves) == 0
	case frameRecord:
		copy(f.Commitment[:], c.take(len(f.Commitment)))
		copy(f.Salt[:], c.take(len(f.Salt)))
		f.Body = c.bytes(4, evidence.MaxRecord)
		c.bad = c.bad || len(f.Body) == 0
		c.path(f)
	case frameErased:
		copy(f.Commitment[:], c.take(len(f.Commitment)))
		for range c.number(1, maxLinks) {
			f.Places = append(f.Places, Place{Stream: evidence.StreamID(c.bytes(2, maxStream)), N: c.number(8, maxPlace)})
		}
		c.path(f)
	case frameAuthorization:
		f.Authorization = c.bytes(4, authz.MaxAuthorization)
		c.bad = c.bad || len(f.Authorization) == 0
	default:
		return nil, fw.Errorf(fw.Invalid, "a frame of unknown kind %d: use a newer writ-verify, or get the bundle again", kind)
	}
	if c.bad {
		return nil, fw.Errorf(fw.Invalid, "the frame of record %d is cut off or over the limits of the format: get the bundle again", f.Index)
	}
	return c.b, nil
}

func (c *cutter) path(f *Frame) {
	n := c.number(1, maxPath)
	if n == 0 || c.bad {
		return
	}
	f.Path = make([]tlog.Hash, n)
	for i := range f.Path {
		copy(f.Path[i][:], c.take(len(tlog.Hash{})))
	}
}
