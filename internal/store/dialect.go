package store

import (
	"strings"
)

// dialect is what differs between the two databases.
type dialect struct {
	name  string
	begin string            // starts the write transaction
	lock  string            // appended to the read of the log head, to serialize replicas
	words map[string]string // in migrations
}

var sqliteDialect = dialect{
	name: "sqlite",
	// IMMEDIATE takes the write lock at once, so that a second process on the
	// same file waits in BEGIN and not half way through.
	begin: "BEGIN IMMEDIATE",
	words: map[string]string{"BYTES": "BLOB", "TEXTC": "TEXT", "/*NOROWID*/": "WITHOUT ROWID", "/*STRICT*/": "STRICT", "BIGINT": "INTEGER"},
}

var postgresDialect = dialect{
	name:  "postgres",
	begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
	lock:  " FOR UPDATE",
	// Collation "C" makes text compare as bytes, as SQLite does.
	words: map[string]string{"BYTES": "BYTEA", "TEXTC": `TEXT COLLATE "C"`, "/*NOROWID*/": "", "/*STRICT*/": "", "BIGINT": "BIGINT"},
}

// rewrite turns $n into ?n for SQLite, where $n would be a named parameter.
// No SQL here has a $ in a literal.
func (d *dialect) rewrite(q string) string {
	if d.name != "sqlite" {
		return q
	}
	return strings.ReplaceAll(q, "$", "?")
}

// ddl replaces the dialect words of a migration.
func (d *dialect) ddl(text string) string {
	for from, to := range d.words {
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}
