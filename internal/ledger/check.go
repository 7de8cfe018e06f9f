package ledger

import (
	"fmt"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
)

// load reads the committed head and checks it against what is stored.
func (l *Ledger) load(q store.Queryer) (*head, error) {
	row, err := store.ReadLogHead(q)
	if err != nil {
		return nil, err
	}
	if row.Size == 0 {
		if extra, err := store.Records(q, 0, 1); err != nil {
			return nil, err
		} else if len(extra) > 0 {
			return nil, disagree(nil, "there are records and no checkpoint")
		}
		return &head{edge: &tlog.Edge{}}, nil
	}
	return l.loadAt(q, row)
}

// recheck is how many of the newest records are hashed again at the start.
// Older ones are covered by a full verification (writ log verify).
const recheck = 10000

// loadAt rebuilds the edge at row and requires tree, records and checkpoint
// to agree.
func (l *Ledger) loadAt(q store.Queryer, row store.LogHead) (*head, error) {
	cp, err := tlog.OpenCheckpoint(row.Checkpoint, l.origin, l.signer.Public())
	if err != nil {
		return nil, disagree(err, "its checkpoint is not signed by this server's log key")
	}
	if cp.Size != row.Size || string(cp.Root[:]) != string(row.Root) {
		return nil, disagree(nil, fmt.Sprintf("the checkpoint is of %d records and the head of %d", cp.Size, row.Size))
	}
	edge, err := tlog.RebuildEdge(row.Size,
		func(level int, n int64) ([]byte, error) { return store.ReadTile(q, level, n) },
		func(from, to int64) ([][]byte, error) { return store.Commitments(q, from, to) })
	if err != nil {
		return nil, disagree(err, "its tree cannot be rebuilt")
	}
	if edge.Root() != cp.Root {
		return nil, disagree(nil, fmt.Sprintf("the tree over its %d records has another root than the checkpoint", row.Size))
	}
	if beyond, err := store.Records(q, row.Size, 1); err != nil {
		return nil, err
	} else if len(beyond) > 0 {
		return nil, disagree(nil, fmt.Sprintf("it holds record %d beyond its checkpoint of %d", beyond[0].Index, row.Size))
	}
	if l.head.Load() == nil {
		if err := checkRecords(q, tlog.NewReader(edge, l.cache), max(0, row.Size-recheck), row.Size); err != nil {
			return nil, err
		}
	}
	h := &head{edge: edge, checkpoint: row.Checkpoint, ms: row.AtMS}
	if h.rootSig.Protected, err = tlog.ProtectedHeader(l.signer.Public()); err != nil {
		return nil, fmt.Errorf("encoding the receipt header: %w", err)
	}
	h.rootSig.Signature = row.RootSig
	return h, nil
}

// clockSlack is how far the clock may be behind the newest record. Within it
// records get that record's time, so that times never run backwards. It is the
// allowance that devices make for a server that is ahead: what is signed with a
// time of more than a minute from now they take as not valid yet, so beyond it
// nothing is written.
const clockSlack = time.Minute

// checkClock refuses a clock that is too far behind the newest record.
func checkClock(now time.Time, newest int64) error {
	last := time.UnixMilli(newest).UTC()
	if last.Sub(now) <= clockSlack {
		return nil
	}
	return fw.Errorf(fw.Unavailable, "the clock of this host says %s, but the newest evidence record is of %s: nothing was written; set the clock right (look at NTP), then try again",
		now.UTC().Format(time.RFC3339), last.Format(time.RFC3339))
}

// checkRecords hashes the stored records [from, to) and compares them with
// their commitments and with the tree.
func checkRecords(q store.Queryer, tree *tlog.Reader, from, to int64) error {
	const page = 1000
	for from < to {
		rows, err := store.Records(q, from, int(min(page, to-from)))
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return disagree(nil, fmt.Sprintf("record %d is missing", from))
		}
		for _, r := range rows {
			if r.Index != from {
				return disagree(nil, fmt.Sprintf("record %d is missing", from))
			}
			if r.Body != nil && string(r.Commitment) != commitment(r) {
				return disagree(nil, fmt.Sprintf("record %d is not what was committed to", r.Index))
			}
			hs, err := tree.ReadHashes([]int64{tlog.LeafIndex(r.Index)})
			if err != nil {
				return disagree(err, "its tiles cannot be read")
			}
			if hs[0] != tlog.LeafHash(r.Commitment) {
				return disagree(nil, fmt.Sprintf("record %d is not the one in the tree", r.Index))
			}
			from++
		}
	}
	return nil
}

func commitment(r store.RecordRow) string {
	if len(r.Salt) != len(evidence.Salt{}) {
		return ""
	}
	c := evidence.Commit(evidence.Salt(r.Salt), r.Body)
	return string(c[:])
}

// disagree is the refusal to go on with a log that contradicts itself.
func disagree(err error, what string) error {
	return fw.Wrap(fw.Corrupt, err, "the evidence log contradicts itself: %s. Do not delete anything: stop every writ server on this database, keep a copy of it, and restore the newest backup whose log agrees (writ log verify --database COPY says which part is damaged)", what)
}

// Verify hashes every stored record and compares it with the tree, the
// streams and the checkpoint. It reports how many records it read.
func (l *Ledger) Verify(q store.Queryer) (int64, error) {
	row, err := store.ReadLogHead(q)
	if err != nil || row.Size == 0 {
		return 0, err
	}
	h, err := l.loadAt(q, row)
	if err != nil {
		return 0, err
	}
	if err := checkRecords(q, tlog.NewReader(h.edge, l.cache), 0, row.Size); err != nil {
		return 0, err
	}
	return row.Size, checkStreams(q, row.Size)
}

// checkStreams follows every stream from its first record and compares the
// ends with the stored heads.
func checkStreams(q store.Queryer, size int64) error {
	heads := make(map[evidence.StreamID]evidence.Head)
	for from := int64(0); from < size; {
		rows, err := store.Records(q, from, 1000)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return disagree(nil, fmt.Sprintf("record %d is missing", from))
		}
		for _, r := range rows {
			from = r.Index + 1
			if r.Body == nil {
				continue // erased: its streams are checked by their stored order alone
			}
			rec, err := evidence.Decode(r.Body)
			if err != nil {
				return disagree(err, fmt.Sprintf("record %d cannot be read", r.Index))
			}
			for _, link := range rec.Streams {
				next, err := heads[link.Stream].Extend(link, evidence.Commitment(r.Commitment))
				if err != nil {
					return disagree(err, fmt.Sprintf("record %d does not follow in its stream", r.Index))
				}
				heads[link.Stream] = next
			}
		}
	}
	return store.Streams(q, func(s store.StreamRow) error {
		if h := heads[evidence.StreamID(s.ID)]; h.N != s.N || string(h.Last[:]) != string(s.Head) {
			return disagree(nil, fmt.Sprintf("stream %s does not end where its head says", s.ID))
		}
		return nil
	})
}
