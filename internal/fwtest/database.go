// Package fwtest has what tests across packages share: databases of both
// dialects, and a server with real TLS and devices in process.
package fwtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
)

// EachDatabase runs f on a fresh SQLite database, and on a fresh PostgreSQL
// schema when WRIT_TEST_POSTGRES names a server, as make test arranges.
func EachDatabase(t *testing.T, f func(t *testing.T, databaseURL string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// SQLite returns the URL of a fresh SQLite database.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "writ.db")
}

// Postgres returns the URL of a fresh schema in the server that
// WRIT_TEST_POSTGRES names. Without one it skips, or fails under
// WRIT_REQUIRE_TOOLS.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv("WRIT_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("WRIT_REQUIRE_TOOLS") != "" {
			t.Fatal("WRIT_TEST_POSTGRES is not set: make test starts a server and sets it")
		}
		t.Skip("skipped: no PostgreSQL (set WRIT_TEST_POSTGRES, or use make test)")
	}
	admin, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatalf("opening %s: %v", server, err)
	}
	var b [8]byte
	rand.Read(b[:])
	schema := "t_" + hex.EncodeToString(b[:])
	ctx := context.Background()
	if _, err := admin.ExecContext(ctx, "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("making schema: %v", err)
	}
	t.Cleanup(func() {
		if _, err := admin.ExecContext(ctx, "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			t.Errorf("dropping schema: %v", err)
		}
		_ = admin.Close() // nothing left to lose
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("parsing %s: %v", server, err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}
