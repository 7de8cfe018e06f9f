package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/store"
)

func (s *server) evidence() {
	register(s, op{http.MethodGet, "/records", access.EvidenceRead, "Evidence records from index after, in order"}, func(ctx context.Context, in *struct {
		After int64 `query:"after" minimum:"0" doc:"the first index wanted"`
		Limit int   `query:"limit" maximum:"1000"`
	},
	) (*body[[]apitypes.Record], error) {
		rows, err := store.Records(s.o.DB.Snapshot(ctx), in.After, limit(in.Limit))
		if err != nil {
			return nil, err
		}
		return records(rows)
	})
	register(s, op{http.MethodGet, "/records/{index}", access.EvidenceRead, "A record with a COSE receipt that it is in the log"}, func(ctx context.Context, in *struct {
		Index int64 `path:"index" minimum:"0"`
	},
	) (*body[apitypes.Record], error) {
		row, err := store.RecordByIndex(s.o.DB.Snapshot(ctx), in.Index)
		if err != nil {
			return nil, err
		}
		rec, err := recordOf(row)
		if err != nil {
			return nil, err
		}
		rec.Receipt, err = s.o.Ledger.Receipt(in.Index)
		return one(rec, err)
	})
	register(s, op{http.MethodGet, "/checkpoint", access.EvidenceRead, "The newest checkpoint, a signed note; also public at /log/checkpoint"}, func(context.Context, *empty) (*raw, error) {
		return &raw{"text/plain; charset=utf-8", s.o.Ledger.Head().Checkpoint}, nil
	})
	s.stream(op{http.MethodPost, "/bundles", access.EvidenceRead, "Export the evidence of a campaign or a device, for writ-verify"}, func(d *huma.Operation) {
		d.RequestBody = &huma.RequestBody{Required: true, Content: jsonOf[apitypes.BundleQuery](s)}
		d.Responses = map[string]*huma.Response{"200": {Description: "The bundle. A broken connection means that it is not whole.", Content: binary()}}
	}, func(w http.ResponseWriter, r *http.Request, _ access.Principal) error {
		b, err := httpd.Body(r, 1<<10, "application/json")
		if err != nil {
			return err
		}
		var q apitypes.BundleQuery
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			return fw.Wrap(fw.Invalid, err, "the body is not the JSON it should be: {\"campaign\":ID} or {\"device\":ID}")
		}
		if (q.Campaign == "") == (q.Device == "") {
			return fw.Errorf(fw.Invalid, "name a campaign or a device, one of the two")
		}
		if size := s.o.Ledger.Head().Size; q.Since < 0 || q.Since > size {
			return fw.Errorf(fw.Invalid, "since is the size of an earlier checkpoint: this log has %d records", size)
		}
		// What is missing is said before the first byte is sent.
		snap := s.o.DB.Snapshot(r.Context())
		if q.Campaign != "" {
			_, err = store.CampaignByID(snap, q.Campaign)
		} else {
			_, err = store.DeviceByID(snap, q.Device)
		}
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		// An error after the first byte cuts the connection (httpd), so that
		// nobody takes half a bundle for a whole one.
		return s.o.Ledger.Export(r.Context(), ledger.BundleQuery{Campaign: q.Campaign, Device: q.Device, Since: q.Since, Tool: "writ " + s.o.Version}, w, nil)
	})
}
