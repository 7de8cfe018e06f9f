package store

import "fmt"

// StreamLink says that record Index is number N of a stream.
type StreamLink struct {
	Stream string
	N      int64
	Index  int64
}

// StreamIndexes calls f with the index of every record of a stream up to
// index last, in order.
func StreamIndexes(q Queryer, stream string, last int64, f func(idx int64) error) error {
	rows, err := q.query("SELECT idx FROM record_stream WHERE stream = $1 AND idx <= $2 ORDER BY n", stream, last)
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	defer rows.Close()
	for rows.Next() {
		var idx int64
		if err := rows.Scan(&idx); err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		if err := f(idx); err != nil {
			return err
		}
	}
	return rows.Err()
}

// RecordLinks returns the places of a record in its streams, for records whose
// body was erased. Streams are in no order that means anything.
func RecordLinks(q Queryer, idx int64) ([]StreamLink, error) {
	rows, err := q.query("SELECT stream, n, idx FROM record_stream WHERE idx = $1 ORDER BY stream", idx)
	return collect(rows, err, func(s interface{ Scan(...any) error }) (l StreamLink, err error) {
		err = s.Scan(&l.Stream, &l.N, &l.Index)
		return l, err
	})
}

// StreamIDs returns the ids of the streams from id from up to, and without, id
// to, in order.
func StreamIDs(q Queryer, from, to string) ([]string, error) {
	rows, err := q.query("SELECT id FROM stream WHERE id >= $1 AND id < $2 ORDER BY id", from, to)
	return collect(rows, err, func(s interface{ Scan(...any) error }) (id string, err error) {
		err = s.Scan(&id)
		return id, err
	})
}
