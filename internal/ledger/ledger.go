package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
)

// cachedTiles bounds the tile cache: 16 KiB each.
const cachedTiles = 1024

// Ledger appends to one log.
type Ledger struct {
	db     *store.DB
	signer *signer.LogSigner
	origin string
	cache  *tlog.Cache

	// head is the newest committed state; batches replace it whole.
	head atomic.Pointer[head]

	// heads are the committed heads of streams in recent use. Only the writer
	// touches it.
	heads map[evidence.StreamID]evidence.Head
}

// maxHeads bounds the remembered stream heads, of about 150 bytes each.
const maxHeads = 50_000

// head is one committed state of the log. It is never changed.
type head struct {
	edge       *tlog.Edge
	checkpoint []byte
	rootSig    tlog.RootSignature
	ms         int64 // Unix milliseconds of its newest record, 0 without one
}

// Entry is a record to be appended. Data is encoded as JSON.
type Entry struct {
	Type    evidence.Type
	Actor   string
	Streams []evidence.StreamID
	Data    any
}

// Position is where a record stands.
type Position struct {
	Index      int64
	Commitment evidence.Commitment
}

// pending is what the closures of one commit append.
type pending struct {
	base    int64 // size of the log before
	edge    tlog.Edge
	records []store.RecordRow // written together when the commit is sealed
	links   []store.StreamLink
	streams map[evidence.StreamID]*streamState
	sealed  *head
}

type streamState struct {
	head  evidence.Head
	dirty bool
}

type pendingKey struct{}

// Open checks the log in db and makes l the writer of its records: from here
// on every commit of db is sealed by this ledger.
func Open(ctx context.Context, db *store.DB, s *signer.LogSigner) (*Ledger, error) {
	l := &Ledger{db: db, signer: s, origin: s.Name(), heads: make(map[evidence.StreamID]evidence.Head)}
	l.cache = tlog.NewCache(cachedTiles, func(level int, n int64) ([]byte, error) { //nolint:contextcheck // the cache outlives every request
		return store.ReadTile(db.Snapshot(context.Background()), level, n)
	})
	h, err := l.load(db.Snapshot(ctx))
	if err != nil {
		return nil, err
	}
	l.head.Store(h)
	db.SetHooks(store.Hooks{Begin: l.begin, Seal: l.seal, Commit: l.commit, Rollback: l.rollback})
	return l, nil
}

// VerifierKey returns the log's key as a signed-note verifier key.
func VerifierKey(s *signer.LogSigner) (string, error) {
	return tlog.VerifierKey(s.Name(), s.Public())
}

// Origin is the name of the log.
func (l *Ledger) Origin() string { return l.origin }

func (l *Ledger) begin(tx *store.Tx) error {
	h := l.head.Load()
	if !l.db.Embedded() {
		// Another replica may have moved the log. The lock keeps the next one
		// out until this transaction ends.
		row, err := store.LockLogHead(tx)
		if err != nil {
			return err
		}
		if row.Size != h.edge.Size() {
			if h, err = l.catchUp(tx, h, row); err != nil {
				return err
			}
			l.head.Store(h)
			clear(l.heads)
		}
	}
	if err := checkClock(tx.Now(), h.ms); err != nil {
		return err
	}
	tx.NotBefore(time.UnixMilli(h.ms))
	tx.Batch().Cache[pendingKey{}] = &pending{base: h.edge.Size(), edge: *h.edge, streams: make(map[evidence.StreamID]*streamState)}
	return nil
}

// catchUp brings the edge up to what another replica committed.
func (l *Ledger) catchUp(tx *store.Tx, h *head, row store.LogHead) (*head, error) {
	if row.Size < h.edge.Size() {
		return nil, disagree(nil, fmt.Sprintf("it had %d records and now has %d", h.edge.Size(), row.Size))
	}
	commits, err := store.Commitments(tx, h.edge.Size(), row.Size)
	if err != nil {
		return nil, err
	}
	edge := *h.edge
	for _, c := range commits {
		edge.Append(c)
	}
	if root := edge.Root(); edge.Size() != row.Size || string(root[:]) != string(row.Root) {
		return nil, disagree(nil, fmt.Sprintf("what another server wrote up to record %d does not continue what this one knows", row.Size))
	}
	next := &head{edge: &edge, checkpoint: row.Checkpoint, ms: row.AtMS}
	if next.rootSig.Protected, err = tlog.ProtectedHeader(l.signer.Public()); err != nil {
		return nil, fmt.Errorf("encoding the receipt header: %w", err)
	}
	next.rootSig.Signature = row.RootSig
	return next, nil
}

// Append adds a record in tx. Its position is final if tx commits.
func (l *Ledger) Append(tx *store.Tx, e Entry) (Position, error) {
	p, ok := tx.Batch().Cache[pendingKey{}].(*pending)
	if !ok {
		return Position{}, fw.Errorf(fw.Internal, "a record was appended outside a write")
	}
	data, err := json.Marshal(e.Data)
	if err != nil {
		return Position{}, fw.Wrap(fw.Internal, err, "cannot encode a %s record", e.Type)
	}
	rec := evidence.Record{Index: p.base + int64(len(p.records)), Type: e.Type, MS: tx.Now().UnixMilli(), Actor: e.Actor, Data: data, Streams: make([]evidence.Link, len(e.Streams))}
	states := make([]*streamState, len(e.Streams))
	for i, id := range e.Streams {
		if states[i], err = l.stream(tx, p, id); err != nil {
			return Position{}, err
		}
		rec.Streams[i] = states[i].head.Next(id)
	}
	body, err := evidence.Encode(rec)
	if err != nil {
		return Position{}, err
	}
	salt := evidence.NewSalt()
	c := evidence.Commit(salt, body)
	tx.MarkWritten()
	p.records = append(p.records, store.RecordRow{Index: rec.Index, Type: string(e.Type), MS: rec.MS, Commitment: c[:], Salt: salt[:], Body: body})
	for i, link := range rec.Streams {
		p.links = append(p.links, store.StreamLink{Stream: string(link.Stream), N: link.N, Index: rec.Index})
		states[i].head, states[i].dirty = evidence.Head{N: link.N, Last: c}, true
	}
	return Position{Index: rec.Index, Commitment: c}, nil
}

// stream returns the head of a stream as this commit has it so far.
func (l *Ledger) stream(tx *store.Tx, p *pending, id evidence.StreamID) (*streamState, error) {
	if s := p.streams[id]; s != nil {
		return s, nil
	}
	h, ok := l.heads[id]
	if !ok {
		row, err := store.ReadStream(tx, string(id))
		if err != nil {
			return nil, err
		}
		h.N = row.N
		if row.Head != nil {
			h.Last = evidence.Commitment(row.Head)
		}
	}
	s := &streamState{head: h}
	p.streams[id] = s
	return s, nil
}

// seal extends the tree over the records of this commit and signs the new
// checkpoint. Nobody sees the signature until the commit succeeded.
func (l *Ledger) seal(tx *store.Tx) error {
	p, ok := tx.Batch().Cache[pendingKey{}].(*pending)
	if !ok || len(p.records) == 0 {
		return nil // state without evidence: last-seen times and the like
	}
	if err := store.InsertRecords(tx, p.records); err != nil {
		return err
	}
	if err := store.InsertStreamLinks(tx, p.links); err != nil {
		return err
	}
	heads := make([]store.StreamRow, 0, len(p.streams))
	for id, s := range p.streams {
		if s.dirty {
			heads = append(heads, store.StreamRow{ID: string(id), N: s.head.N, Head: s.head.Last[:]})
		}
	}
	slices.SortFunc(heads, func(a, b store.StreamRow) int { return strings.Compare(a.ID, b.ID) })
	if err := store.PutStreams(tx, heads); err != nil {
		return err
	}
	for i := range p.records {
		for _, t := range p.edge.Append(p.records[i].Commitment) {
			if err := store.InsertTile(tx, t.Level, t.N, t.Data); err != nil {
				return err
			}
		}
	}
	h, err := l.sign(&p.edge)
	if err != nil {
		return err
	}
	h.ms = tx.Now().UnixMilli()
	p.sealed = h
	root := p.edge.Root()
	return store.PutLogHead(tx, store.LogHead{Size: p.edge.Size(), Root: root[:], Checkpoint: h.checkpoint, RootSig: h.rootSig.Signature, AtMS: h.ms})
}

func (l *Ledger) sign(edge *tlog.Edge) (*head, error) {
	e := *edge
	h := &head{edge: &e}
	var err error
	c := tlog.Checkpoint{Origin: l.origin, Size: e.Size(), Root: e.Root()}
	if h.checkpoint, err = c.Sign(l.signer.Public(), l.signer.Sign); err != nil {
		return nil, fmt.Errorf("signing the checkpoint: %w", err)
	}
	if h.rootSig, err = tlog.SignRoot(c.Root, l.signer.Public(), l.signer.SignReceipt); err != nil {
		return nil, fmt.Errorf("signing the root: %w", err)
	}
	return h, nil
}

func (l *Ledger) commit(b *store.Batch) {
	p, ok := b.Cache[pendingKey{}].(*pending)
	if !ok || p.sealed == nil {
		return
	}
	l.head.Store(p.sealed)
	if len(l.heads)+len(p.streams) > maxHeads {
		clear(l.heads)
	}
	for id, s := range p.streams {
		if s.dirty {
			l.heads[id] = s.head
		}
	}
}

func (l *Ledger) rollback(b *store.Batch) {
	p, ok := b.Cache[pendingKey{}].(*pending)
	if !ok || p.sealed == nil {
		return
	}
	// The checkpoint never left the process, so its size may be signed again.
	// A failure here makes the next signature fail, which is where it shows.
	_ = l.signer.Abandon(p.sealed.edge.Size(), p.sealed.edge.Root())
}

// Head is a committed state of the log.
type Head struct {
	Size       int64
	Root       tlog.Hash
	Checkpoint []byte // signed note
}

// Head returns the newest state committed by this process.
func (l *Ledger) Head() Head {
	h := l.head.Load()
	return Head{Size: h.edge.Size(), Root: h.edge.Root(), Checkpoint: h.checkpoint}
}

// Receipt returns a COSE receipt that record index is in the log. The record
// must be committed.
func (l *Ledger) Receipt(index int64) ([]byte, error) {
	h := l.head.Load()
	if index >= h.edge.Size() {
		return nil, fw.Errorf(fw.Unavailable, "record %d is not in a checkpoint yet: try again", index)
	}
	path, err := tlog.NewReader(h.edge, l.cache).Inclusion(index, h.edge.Size())
	if err != nil {
		return nil, fmt.Errorf("proving record %d: %w", index, err)
	}
	return tlog.Receipt(h.rootSig, h.edge.Size(), index, path)
}

// Reader returns a reader of the tree as it is now.
func (l *Ledger) Reader() *tlog.Reader { return tlog.NewReader(l.head.Load().edge, l.cache) }

// PartialTile returns the hashes of the tile that is being filled.
func (l *Ledger) PartialTile(level int) []byte { return l.head.Load().edge.PartialTile(level) }

// Epoch appends a record that commits to every stream head, and keeps the
// checkpoint of that commit for later consistency proofs. It returns the
// record's position and the tree over the heads as they were before it.
func (l *Ledger) Epoch(ctx context.Context) (Position, *evidence.EpochTree, error) {
	var pos Position
	var tree *evidence.EpochTree
	err := l.db.Tx(ctx, func(tx *store.Tx) error {
		p, ok := tx.Batch().Cache[pendingKey{}].(*pending)
		if !ok {
			return fw.Errorf(fw.Internal, "an epoch was taken outside a write")
		}
		var heads []evidence.StreamHead
		seen := make(map[evidence.StreamID]bool)
		for id, s := range p.streams {
			if seen[id] = s.head.N > 0; seen[id] {
				heads = append(heads, evidence.StreamHead{Stream: id, Head: s.head})
			}
		}
		err := store.Streams(tx, func(r store.StreamRow) error {
			if !seen[evidence.StreamID(r.ID)] {
				heads = append(heads, evidence.StreamHead{Stream: evidence.StreamID(r.ID), Head: evidence.Head{N: r.N, Last: evidence.Commitment(r.Head)}})
			}
			return nil
		})
		if err != nil {
			return err
		}
		tree = evidence.NewEpochTree(heads)
		pos, err = l.Append(tx, Entry{Type: evidence.TypeEpoch, Actor: "server", Streams: []evidence.StreamID{evidence.LogStream}, Data: tree.Epoch()})
		return err
	})
	if err != nil {
		return Position{}, nil, err
	}
	h := l.Head()
	err = l.db.Tx(ctx, func(tx *store.Tx) error {
		return store.PutCheckpoint(tx, store.CheckpointRow{Size: h.Size, Note: h.Checkpoint, AtMS: tx.Now().UnixMilli()})
	})
	return pos, tree, err
}

// EpochEvery is how often the server takes an epoch.
const EpochEvery = time.Hour
