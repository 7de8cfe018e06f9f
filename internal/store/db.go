package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
	_ "modernc.org/sqlite"             // registers "sqlite"

	"github.com/writ-project/writ/internal/fw"
)

// Hooks are called around each commit. The ledger uses them to extend the
// Merkle tree in the same transaction as the business writes.
type Hooks struct {
	Begin    func(tx *Tx) error // after BEGIN, once per commit
	Seal     func(tx *Tx) error // after the closures, before COMMIT
	Commit   func(b *Batch)     // after COMMIT succeeded
	Rollback func(b *Batch)     // the transaction is gone
}

// DB is an open database.
type DB struct {
	d     *dialect
	log   *slog.Logger
	write *sql.DB
	read  *sql.DB

	conn       *sql.Conn // the only one that writes; owned by the writer goroutine
	writeStmts *stmts
	readStmts  *stmts

	hooks Hooks
	now   func() time.Time

	queue chan *op
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex
	failed error // set once, when the database can no longer be trusted
	onFail func(error)
}

type op struct {
	ctx  context.Context //nolint:containedctx // handed to the writer goroutine with the closure
	fn   func(*Tx) error
	tx   *Tx
	err  error
	done chan struct{}
}

// Options open a database.
type Options struct {
	URL    string           // "sqlite:PATH" or "postgres://…"
	Now    func() time.Time // nil: the wall clock
	Log    *slog.Logger     // nil: none
	OnFail func(error)      // called once when the database fails for good; the process should end
}

// maxBatch bounds how many closures share a commit.
const maxBatch = 512

// Open opens the database, brings its schema up to date and starts the
// writer. It refuses a database whose durability settings do not hold.
func Open(ctx context.Context, o Options) (*DB, error) {
	db := &DB{
		log: o.Log, now: o.Now, onFail: o.OnFail,
		queue: make(chan *op, 4*maxBatch), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.now == nil {
		db.now = time.Now
	}
	var err error
	switch {
	case strings.HasPrefix(o.URL, "sqlite:"):
		db.d = &sqliteDialect
		err = db.openSQLite(ctx, strings.TrimPrefix(o.URL, "sqlite:"))
	case strings.HasPrefix(o.URL, "postgres://"), strings.HasPrefix(o.URL, "postgresql://"):
		db.d = &postgresDialect
		err = db.openPostgres(ctx, o.URL)
	default:
		err = fw.Errorf(fw.Invalid, "database must be sqlite:PATH or postgres://USER@HOST/NAME, not %q", o.URL)
	}
	if err != nil {
		return nil, errors.Join(err, db.closeConns())
	}
	if err := db.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.closeConns())
	}
	db.writeStmts = newStmts(db.d, db.conn)
	db.readStmts = newStmts(db.d, db.read)
	go db.run() //nolint:contextcheck // the writer outlives every request
	return db, nil
}

// sqliteCheckpointEvery is how often the WAL is copied into the database.
const sqliteCheckpointEvery = 2 * time.Second

func (db *DB) openSQLite(ctx context.Context, path string) error {
	if dir := filepath.Dir(path); dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fw.Wrap(fw.Unavailable, err, "cannot make the database folder %s: check the path and its permissions", dir)
		}
	}
	dsn := func(pragmas ...string) string {
		v := url.Values{"_pragma": pragmas}
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
	}
	// A reader's cache is dropped whenever the writer commits, so only the
	// writer gets a large one.
	common := []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)"}
	var err error
	// Automatic checkpoints are off: an error inside one would be silent.
	if db.write, err = sql.Open("sqlite", dsn(append(common, "wal_autocheckpoint(0)", "cache_size(-32768)")...)); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	db.write.SetMaxOpenConns(2) // the writer, and the checkpointer
	if db.conn, err = db.write.Conn(ctx); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot open the database %s: check that it is a file this user may write and that the disk is not full", path)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "wal_autocheckpoint": "0"} {
		var got string
		if err := db.conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
			return fmt.Errorf("reading PRAGMA %s: %w", pragma, err)
		}
		if got != want {
			return fw.Errorf(fw.Unavailable, "the database %s runs with %s=%s and writ needs %s: is it on a network file system or read-only?", path, pragma, got, want)
		}
	}
	if db.read, err = sql.Open("sqlite", dsn(append(common, "query_only(ON)", "cache_size(-4096)")...)); err != nil {
		return fmt.Errorf("opening the database for reading: %w", err)
	}
	db.read.SetMaxOpenConns(8)
	db.read.SetMaxIdleConns(8)
	return nil
}

func (db *DB) openPostgres(ctx context.Context, dsn string) error {
	var err error
	if db.write, err = sql.Open("pgx", dsn); err != nil {
		return fw.Wrap(fw.Invalid, err, "cannot read the database URL")
	}
	db.write.SetMaxOpenConns(2)
	if db.conn, err = db.write.Conn(ctx); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot reach PostgreSQL: check --database, the network and the password")
	}
	var commit string
	if err := db.conn.QueryRowContext(ctx, "SHOW synchronous_commit").Scan(&commit); err != nil {
		return fmt.Errorf("reading synchronous_commit: %w", err)
	}
	if commit == "off" {
		return fw.Errorf(fw.Unavailable, "PostgreSQL runs with synchronous_commit=%s, which loses committed evidence in a crash: set it to on", commit)
	}
	if db.read, err = sql.Open("pgx", dsn); err != nil {
		return fw.Wrap(fw.Invalid, err, "cannot read the database URL")
	}
	db.read.SetMaxOpenConns(16)
	db.read.SetMaxIdleConns(16)
	return nil
}

// SetHooks sets the commit hooks. Call it before the first Tx.
func (db *DB) SetHooks(h Hooks) { db.hooks = h }

// Embedded reports whether this process is the only writer, so that what it
// caches after its own commits is current.
func (db *DB) Embedded() bool { return db.d.name == "sqlite" }

// Err returns why the database can no longer be used, or nil.
func (db *DB) Err() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.failed
}

// Close waits for queued writes, then closes.
func (db *DB) Close() error {
	db.once.Do(func() { close(db.stop) })
	<-db.done
	db.writeStmts.close()
	db.readStmts.close()
	return db.closeConns()
}

func (db *DB) closeConns() error {
	var errs []error
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	for _, d := range []*sql.DB{db.write, db.read} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}
