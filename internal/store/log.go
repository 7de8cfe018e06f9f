package store

import (
	"database/sql"
	"errors"
	"fmt"
)

// LogHead is the newest committed state of the log.
type LogHead struct {
	Size       int64
	Root       []byte // 32 bytes
	Checkpoint []byte // signed note
	RootSig    []byte // the log's COSE signature over Root, for receipts
	AtMS       int64
}

// RecordRow is one evidence record. Body and Salt are nil when erased.
type RecordRow struct {
	Index      int64
	Type       string
	MS         int64
	Commitment []byte
	Salt       []byte
	Body       []byte
}

// StreamRow is the head of one stream.
type StreamRow struct {
	ID   string
	N    int64
	Head []byte
}

// LockLogHead reads the log head and, on PostgreSQL, keeps every other
// replica's write transaction waiting until this one ends. It returns a zero
// head for a new log.
func LockLogHead(tx *Tx) (LogHead, error) {
	return logHead(tx.queryRow("SELECT size, root, checkpoint, root_sig, at_ms FROM log_head WHERE id = 1" + tx.db.d.lock))
}

// ReadLogHead reads the log head.
func ReadLogHead(q Queryer) (LogHead, error) {
	return logHead(q.queryRow("SELECT size, root, checkpoint, root_sig, at_ms FROM log_head WHERE id = 1"))
}

func logHead(row *sql.Row) (LogHead, error) {
	var h LogHead
	err := row.Scan(&h.Size, &h.Root, &h.Checkpoint, &h.RootSig, &h.AtMS)
	if errors.Is(err, sql.ErrNoRows) {
		return LogHead{}, nil
	}
	if err != nil {
		return LogHead{}, fmt.Errorf("reading the log head: %w", err)
	}
	return h, nil
}

// PutLogHead stores the log head.
func PutLogHead(tx *Tx, h LogHead) error {
	_, err := tx.exec(`INSERT INTO log_head (id, size, root, checkpoint, root_sig, at_ms) VALUES (1, $1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET size = excluded.size, root = excluded.root, checkpoint = excluded.checkpoint, root_sig = excluded.root_sig, at_ms = excluded.at_ms`,
		h.Size, h.Root, h.Checkpoint, h.RootSig, h.AtMS)
	return err
}

var recordRows = rowsText{head: "INSERT INTO record (idx, type, ms, commitment, salt, body) VALUES ", columns: 6}

// InsertRecords appends records in order. The first index must be the size of
// the log.
func InsertRecords(tx *Tx, records []RecordRow) error {
	return recordRows.exec(tx, len(records), func(i int, args []any) []any {
		r := &records[i]
		return append(args, r.Index, r.Type, r.MS, r.Commitment, r.Salt, r.Body)
	})
}

var linkRows = rowsText{head: "INSERT INTO record_stream (stream, n, idx) VALUES ", columns: 3}

// InsertStreamLinks indexes records by their streams.
func InsertStreamLinks(tx *Tx, links []StreamLink) error {
	return linkRows.exec(tx, len(links), func(i int, args []any) []any {
		return append(args, links[i].Stream, links[i].N, links[i].Index)
	})
}

// ReadStream returns the head of a stream, or a zero row for a new one.
func ReadStream(q Queryer, id string) (StreamRow, error) {
	r := StreamRow{ID: id}
	err := q.queryRow("SELECT n, head FROM stream WHERE id = $1", id).Scan(&r.N, &r.Head)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return StreamRow{}, fmt.Errorf("reading stream %s: %w", id, err)
	}
	return r, nil
}

var streamRows = rowsText{
	head: "INSERT INTO stream (id, n, head) VALUES ", columns: 3,
	tail: " ON CONFLICT (id) DO UPDATE SET n = excluded.n, head = excluded.head",
}

// PutStreams stores the heads of streams, each at most once.
func PutStreams(tx *Tx, rows []StreamRow) error {
	return streamRows.exec(tx, len(rows), func(i int, args []any) []any {
		return append(args, rows[i].ID, rows[i].N, rows[i].Head)
	})
}

// Streams calls f for every stream.
func Streams(q Queryer, f func(StreamRow) error) error {
	rows, err := q.query("SELECT id, n, head FROM stream ORDER BY id")
	if err != nil {
		return fmt.Errorf("reading streams: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r StreamRow
		if err := rows.Scan(&r.ID, &r.N, &r.Head); err != nil {
			return fmt.Errorf("reading a stream: %w", err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

const recordColumns = "idx, type, ms, commitment, salt, body"

func scanRecord(s interface{ Scan(...any) error }) (RecordRow, error) {
	var r RecordRow
	err := s.Scan(&r.Index, &r.Type, &r.MS, &r.Commitment, &r.Salt, &r.Body)
	return r, err
}

// RecordByIndex returns one record.
func RecordByIndex(q Queryer, idx int64) (RecordRow, error) {
	r, err := scanRecord(q.queryRow("SELECT "+recordColumns+" FROM record WHERE idx = $1", idx))
	return r, notFound(err, "the log has no record %d", idx)
}

// Records returns up to limit records from index from, in order.
func Records(q Queryer, from int64, limit int) ([]RecordRow, error) {
	rows, err := q.query("SELECT "+recordColumns+" FROM record WHERE idx >= $1 ORDER BY idx LIMIT $2", from, limit)
	return collect(rows, err, scanRecord)
}

// StreamRecords returns up to limit records of a stream from number from, in
// order.
func StreamRecords(q Queryer, stream string, from int64, limit int) ([]RecordRow, error) {
	rows, err := q.query(`SELECT r.idx, r.type, r.ms, r.commitment, r.salt, r.body FROM record_stream s JOIN record r ON r.idx = s.idx
		WHERE s.stream = $1 AND s.n >= $2 ORDER BY s.n LIMIT $3`, stream, from, limit)
	return collect(rows, err, scanRecord)
}

// Commitments returns the commitments of records [from, to) in order.
func Commitments(q Queryer, from, to int64) ([][]byte, error) {
	rows, err := q.query("SELECT commitment FROM record WHERE idx >= $1 AND idx < $2 ORDER BY idx", from, to)
	return collect(rows, err, func(s interface{ Scan(...any) error }) (b []byte, err error) {
		err = s.Scan(&b)
		return b, err
	})
}

// InsertTile stores a full tile.
func InsertTile(tx *Tx, level int, n int64, data []byte) error {
	_, err := tx.exec("INSERT INTO tile (level, n, data) VALUES ($1, $2, $3)", level, n, data)
	return err
}

// ReadTile returns a full tile.
func ReadTile(q Queryer, level int, n int64) ([]byte, error) {
	var b []byte
	err := q.queryRow("SELECT data FROM tile WHERE level = $1 AND n = $2", level, n).Scan(&b)
	return b, notFound(err, "the log has no tile %d/%d", level, n)
}

// CheckpointRow is a checkpoint kept for later consistency proofs.
type CheckpointRow struct {
	Size int64
	Note []byte
	AtMS int64
}

// PutCheckpoint keeps a checkpoint.
func PutCheckpoint(tx *Tx, c CheckpointRow) error {
	_, err := tx.exec("INSERT INTO checkpoint (size, note, at_ms) VALUES ($1, $2, $3) ON CONFLICT (size) DO NOTHING", c.Size, c.Note, c.AtMS)
	return err
}

// Checkpoints returns the kept checkpoints in order of size.
func Checkpoints(q Queryer) ([]CheckpointRow, error) {
	rows, err := q.query("SELECT size, note, at_ms FROM checkpoint ORDER BY size")
	return collect(rows, err, func(s interface{ Scan(...any) error }) (c CheckpointRow, err error) {
		err = s.Scan(&c.Size, &c.Note, &c.AtMS)
		return c, err
	})
}

// Setting reads a named value; nil when it is not set.
func Setting(q Queryer, name string) ([]byte, error) {
	var b []byte
	err := q.queryRow("SELECT value FROM setting WHERE name = $1", name).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading setting %s: %w", name, err)
	}
	return b, nil
}

// PutSetting stores a named value.
func PutSetting(tx *Tx, name string, value []byte) error {
	_, err := tx.exec("INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
	return err
}
