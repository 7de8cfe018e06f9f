package server

import (
	"net/http"
	"strings"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
)

// logRoutes serves the log as C2SP tlog-tiles under /log/: anybody may read
// it, because its entries are salted commitments.
func logRoutes(mux *http.ServeMux, front *httpd.Front, limiter *httpd.Limiter, l *ledger.Ledger, db *store.DB) {
	route := httpd.Route{Audience: httpd.Operators}
	mux.Handle("GET /log/checkpoint", front.Handle(route, limiter.Limit(func(w http.ResponseWriter, _ *http.Request) error {
		cp := l.Head().Checkpoint
		if cp == nil {
			return fw.Errorf(fw.NotFound, "the log is empty")
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, err := w.Write(cp)
		return err
	})))
	mux.Handle("GET /log/tile/{path...}", front.Handle(route, limiter.Limit(func(w http.ResponseWriter, r *http.Request) error {
		data, err := tile(r, l, db)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if !strings.Contains(r.PathValue("path"), ".p/") {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, err = w.Write(data) //nolint:gosec // G705: hashes and notes, and says so
		return err
	})))
}

func tile(r *http.Request, l *ledger.Ledger, db *store.DB) ([]byte, error) {
	t, err := tlog.ParseTilePath("tile/" + r.PathValue("path"))
	if err != nil {
		return nil, err
	}
	size := l.Head().Size
	have := size >> (tlog.TileHeight * max(t.Level, 0))
	if t.N*tlog.TileWidth+int64(t.Width) > have {
		return nil, fw.Errorf(fw.NotFound, "the log has no such tile at size %d", size)
	}
	q := db.Snapshot(r.Context())
	if t.Level == tlog.LevelEntries {
		cs, err := store.Commitments(q, t.N*tlog.TileWidth, t.N*tlog.TileWidth+int64(t.Width))
		if err != nil {
			return nil, err
		}
		return tlog.EncodeBundle(cs)
	}
	// A partial tile is a prefix of the tile being filled, or of a full one.
	width := t.Width * len(tlog.Hash{})
	if t.N == have/tlog.TileWidth {
		if b := l.PartialTile(t.Level); len(b) >= width {
			return b[:width], nil
		}
	}
	b, err := store.ReadTile(q, t.Level, t.N)
	if err != nil {
		return nil, err
	}
	return b[:width], nil
}
