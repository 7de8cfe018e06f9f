package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/verify"
)

// readAhead is how many records are read at once where they lie close.
const readAhead = 256

// segments cuts what it is given into records members.
type segments struct {
	b   *bundle
	buf []byte
	n   int
}

func (s *segments) add(f *verify.Frame) error {
	s.buf = f.Append(s.buf)
	if len(s.buf) < verify.SegmentSize {
		return nil
	}
	return s.flush()
}

func (s *segments) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	err := s.b.member(fmt.Sprintf(verify.MemberRecords, s.n), s.buf)
	s.buf, s.n = s.buf[:0], s.n+1
	return err
}

// records writes the picked records in order of index and, with leaves, the
// commitments between and after them.
func (b *bundle) records(ctx context.Context) error {
	s := &segments{b: b}
	leaves := b.manifest.Proofs == verify.ProofLeaves
	at, done := int64(0), int64(0) // next index; records written
	page := &pageReader{b: b}
	for i := b.picked.next(0); i >= 0; i = b.picked.next(i + 1) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if leaves {
			if err := b.leaves(s, at, i); err != nil {
				return err
			}
		}
		row, err := page.read(i)
		if err != nil {
			return err
		}
		f, err := b.frame(row)
		if err != nil {
			return err
		}
		if err := s.add(f); err != nil {
			return err
		}
		if f, err = b.authorization(row); err != nil {
			return err
		}
		if f != nil {
			if err := s.add(f); err != nil {
				return err
			}
		}
		at, done = i+1, done+1
		if b.progress != nil && (done%1000 == 0 || done == b.picked.count) {
			b.progress(done, b.picked.count)
		}
	}
	if leaves {
		if err := b.leaves(s, at, b.size); err != nil {
			return err
		}
	}
	return s.flush()
}

// leaves writes the commitments of records [from, to).
func (b *bundle) leaves(s *segments, from, to int64) error {
	const page = 8192
	for from < to {
		list, err := store.Commitments(b.q, from, min(to, from+page))
		if err != nil {
			return err
		}
		if int64(len(list)) != min(to-from, page) {
			return disagree(nil, fmt.Sprintf("a record between %d and %d is missing", from, to))
		}
		if err := s.add(&verify.Frame{Index: from, Leaves: bytes.Join(list, nil)}); err != nil {
			return err
		}
		from += int64(len(list))
	}
	return nil
}

func (b *bundle) frame(row store.RecordRow) (*verify.Frame, error) {
	if len(row.Commitment) != len(evidence.Commitment{}) || row.Body != nil && len(row.Salt) != len(evidence.Salt{}) {
		return nil, disagree(nil, fmt.Sprintf("record %d has no commitment", row.Index))
	}
	f := &verify.Frame{Index: row.Index, Commitment: evidence.Commitment(row.Commitment), Body: row.Body}
	if row.Body != nil {
		f.Salt = evidence.Salt(row.Salt)
	} else {
		links, err := store.RecordLinks(b.q, row.Index)
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			f.Places = append(f.Places, verify.Place{Stream: evidence.StreamID(l.Stream), N: l.N})
		}
	}
	if b.manifest.Proofs == verify.ProofPaths {
		var err error
		if f.Path, err = b.tree.Inclusion(row.Index, b.size); err != nil {
			return nil, fmt.Errorf("proving record %d: %w", row.Index, err)
		}
	}
	return f, nil
}

// authorization returns the authorization that was signed on a decision of an
// exported campaign, nil when there is none. It is not in the record, because
// it names the record's place; the record has the digest of its claims.
func (b *bundle) authorization(row store.RecordRow) (*verify.Frame, error) {
	if row.Body == nil || row.Type != string(evidence.TypeDecision) {
		return nil, nil
	}
	rec, err := evidence.Decode(row.Body)
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "record %d cannot be read", row.Index)
	}
	var said struct {
		Campaign      fw.CampaignID      `json:"campaign"`
		Authorization fw.AuthorizationID `json:"authorization"`
	}
	if err := json.Unmarshal(rec.Data, &said); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "record %d cannot be read", row.Index)
	}
	if said.Authorization == "" || !b.replayed[said.Campaign] {
		return nil, nil
	}
	a, err := store.AuthorizationByID(b.q, said.Authorization)
	if fw.KindOf(err) == fw.NotFound {
		return nil, nil // the verifier will say that it is missing
	}
	if err != nil {
		return nil, err
	}
	return &verify.Frame{Index: row.Index, Authorization: a.COSE}, nil
}

// pageReader reads rows singly where few are picked and in pages where many
// are.
type pageReader struct {
	b    *bundle
	rows []store.RecordRow
}

func (p *pageReader) read(i int64) (store.RecordRow, error) {
	for len(p.rows) > 0 && p.rows[0].Index < i {
		p.rows = p.rows[1:]
	}
	if len(p.rows) > 0 && p.rows[0].Index == i {
		return p.rows[0], nil
	}
	near := 0
	for j := i; j < min(i+readAhead, p.b.size); j++ {
		if p.b.picked.has(j) {
			near++
		}
	}
	if near < readAhead/8 {
		return store.RecordByIndex(p.b.q, i)
	}
	var err error
	if p.rows, err = store.Records(p.b.q, i, readAhead); err != nil {
		return store.RecordRow{}, err
	}
	if len(p.rows) == 0 || p.rows[0].Index != i {
		return store.RecordRow{}, disagree(nil, fmt.Sprintf("record %d is missing", i))
	}
	return p.rows[0], nil
}

// checkpoints returns the kept checkpoints, thinned out evenly when there are
// too many, each with the proof that its tree is a prefix of this one.
func (b *bundle) checkpoints() ([]verify.OldCheckpoint, error) {
	rows, err := store.Checkpoints(b.q)
	if err != nil {
		return nil, err
	}
	step := len(rows)/(verify.MaxCheckpoints-1) + 1
	out := []verify.OldCheckpoint{}
	for i, r := range rows {
		if i%step != 0 && i != len(rows)-1 || r.Size < 1 || r.Size >= b.size {
			continue
		}
		c, err := b.consistency(r.Size)
		if err != nil {
			return nil, err
		}
		c.Note = string(r.Note)
		out = append(out, c)
	}
	if s := b.query.Since; s > 0 {
		if s > b.size {
			return nil, fw.Errorf(fw.Invalid, "the log has %d records, fewer than the %d of the checkpoint to continue from: is it from another log?", b.size, s)
		}
		if s < b.size {
			c, err := b.consistency(s)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func (b *bundle) consistency(size int64) (verify.OldCheckpoint, error) {
	path, err := b.tree.Consistency(size, b.size)
	if err != nil {
		return verify.OldCheckpoint{}, fmt.Errorf("proving the tree of %d records: %w", size, err)
	}
	c := verify.OldCheckpoint{Size: size, Path: [][]byte{}}
	for i := range path {
		c.Path = append(c.Path, path[i][:])
	}
	return c, nil
}
