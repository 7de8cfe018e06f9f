package api

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

type timelineQuery[ID ~string] struct {
	ID    ID    `path:"id"`
	After int64 `query:"after" minimum:"0" doc:"how many records of this stream to skip"`
	Limit int   `query:"limit" maximum:"1000" doc:"100 unless given"`
}

// timeline adds the operation that shows the records of one subject's stream.
// Found fails with NotFound when there is no such subject.
func timeline[ID ~string](s *server, path string, scope access.Scope, stream func(ID) evidence.StreamID, found func(store.Queryer, ID) error) {
	register(s, op{http.MethodGet, path, scope, "Its evidence records, oldest first"}, func(ctx context.Context, in *timelineQuery[ID]) (*body[[]apitypes.Record], error) {
		q := s.o.DB.Snapshot(ctx)
		if err := found(q, in.ID); err != nil {
			return nil, err
		}
		rows, err := store.StreamRecords(q, string(stream(in.ID)), in.After+1, limit(in.Limit))
		if err != nil {
			return nil, err
		}
		return records(rows)
	})
}

// records decodes stored records for people.
func records(rows []store.RecordRow) (*body[[]apitypes.Record], error) {
	out := make([]apitypes.Record, len(rows))
	for i, row := range rows {
		var err error
		if out[i], err = recordOf(row); err != nil {
			return nil, err
		}
	}
	return list(out, nil)
}

func recordOf(row store.RecordRow) (apitypes.Record, error) {
	r := apitypes.Record{Index: row.Index, Type: row.Type, MS: row.MS, Commitment: hex.EncodeToString(row.Commitment)}
	if row.Body == nil {
		return r, nil // erased: position and order remain
	}
	rec, err := evidence.Decode(row.Body)
	if err != nil {
		return r, fw.Wrap(fw.Corrupt, err, "record %d cannot be read", row.Index)
	}
	r.Actor, r.Data, r.Summary = rec.Actor, rec.Data, summary(rec.Type, rec.Data)
	return r, nil
}
