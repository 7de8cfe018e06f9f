package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema forward, one transaction per step. Steps are
// forward-only, and a database newer than this binary is refused.
func (db *DB) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("listing migrations: %w", err)
	}
	if _, err := db.conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)"); err != nil {
		return diskError(err, "making the schema table")
	}
	if _, err := db.conn.ExecContext(ctx, db.d.begin); err != nil {
		return diskError(err, "beginning the migration")
	}
	if err := db.applyMigrations(ctx, files); err != nil {
		if _, rerr := db.conn.ExecContext(ctx, "ROLLBACK"); rerr != nil {
			db.log.Debug("rolling back", "error", rerr)
		}
		return err
	}
	if _, err := db.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return diskError(err, "committing the migration")
	}
	return nil
}

func (db *DB) applyMigrations(ctx context.Context, files []string) error {
	if db.d == &postgresDialect {
		// Two replicas may start at once.
		if _, err := db.conn.ExecContext(ctx, "LOCK TABLE schema_version IN EXCLUSIVE MODE"); err != nil {
			return fmt.Errorf("locking the schema: %w", err)
		}
	}
	var have int
	if err := db.conn.QueryRowContext(ctx, "SELECT COALESCE(MAX(version), 0) FROM schema_version").Scan(&have); err != nil {
		return fmt.Errorf("reading the schema version: %w", err)
	}
	if have > len(files) {
		return fw.Errorf(fw.Conflict, "the database has schema %d and this binary knows %d: use a newer writ", have, len(files))
	}
	for _, name := range files[have:] {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "migrations/")[:4])
		if err != nil {
			return fmt.Errorf("naming migration %s: %w", name, err)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return fmt.Errorf("reading migration %s: %w", name, err)
		}
		for stmt := range strings.SplitSeq(db.d.ddl(string(text)), ";\n") {
			if strings.TrimSpace(stmt) == "" {
				continue
			}
			if _, err := db.conn.ExecContext(ctx, stmt); err != nil {
				return fmt.Errorf("applying migration %s: %w\n%s", name, err, stmt)
			}
		}
		if _, err := db.conn.ExecContext(ctx, db.d.rewrite("INSERT INTO schema_version (version) VALUES ($1)"), n); err != nil {
			return fmt.Errorf("recording migration %s: %w", name, err)
		}
	}
	return nil
}
