package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/writ-project/writ/internal/fw"
)

// Tx runs fn in a write transaction and returns after it is durable, or with
// fn's error and nothing written. A context cancelled while waiting for its
// turn leaves nothing behind; once begun, the write ends.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fw.Wrap(fw.Unavailable, err, "the request was cancelled before it was written")
	}
	o := &op{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case <-db.stop:
		return fw.Errorf(fw.Unavailable, "the server is stopping: try again")
	case db.queue <- o:
	case <-ctx.Done():
		return fw.Wrap(fw.Unavailable, ctx.Err(), "the request was cancelled before it was written")
	}
	select {
	case <-o.done:
	case <-db.done:
		// The writer drained the queue before it ended; this op came after.
		select {
		case <-o.done:
		default:
			return fw.Errorf(fw.Unavailable, "the server is stopping: try again")
		}
	}
	return o.err
}

// run is the writer goroutine: it takes what is waiting, commits once, and
// answers.
func (db *DB) run() {
	defer close(db.done)
	var tick <-chan time.Time
	if db.Embedded() {
		t := time.NewTicker(sqliteCheckpointEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case o := <-db.queue:
			db.commitBatch(db.gather(o))
		case <-tick:
			db.checkpointWAL("PASSIVE")
		case <-db.stop:
			for {
				select {
				case o := <-db.queue:
					db.commitBatch(db.gather(o))
					continue
				default:
				}
				break
			}
			if db.Embedded() {
				db.checkpointWAL("TRUNCATE")
			}
			return
		}
	}
}

// gather adds to first whatever else is waiting.
func (db *DB) gather(first *op) []*op {
	ops := []*op{first}
	for len(ops) < maxBatch {
		select {
		case o := <-db.queue:
			ops = append(ops, o)
		default:
			return ops
		}
	}
	return ops
}

// checkpointWAL copies the WAL into the database. Its error is fatal, unless
// it is for want of space.
func (db *DB) checkpointWAL(mode string) {
	if db.Err() != nil {
		return
	}
	var busy, pages, done int
	err := db.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &done)
	if full(err) {
		// What was committed is in the write-ahead log still, and is copied
		// once there is space. Until then commits fail and readers do not.
		db.log.Error("the disk of the database is full: free some space", "error", err)
		return
	}
	if err != nil {
		db.fail(fmt.Errorf("checkpointing the write-ahead log: %w", err))
	}
}

func (db *DB) fail(err error) {
	db.mu.Lock()
	first := db.failed == nil
	if first {
		db.failed = fw.Wrap(fw.Unavailable, err, "the database failed and this server must be restarted: look at its disk first")
	}
	db.mu.Unlock()
	if first {
		db.log.Error("database failed", "error", err)
		if db.onFail != nil {
			db.onFail(err)
		}
	}
}

// commitBatch runs ops in one transaction. When one of them fails after it
// wrote, or the commit itself fails in a way that may be retried, all are run
// again one by one.
func (db *DB) commitBatch(ops []*op) {
	if err := db.Err(); err != nil {
		for _, o := range ops {
			o.err = err
			close(o.done)
		}
		return
	}
	if again := db.try(ops); again {
		for _, o := range ops {
			for attempt := 0; db.try([]*op{o}) && attempt < 10; attempt++ {
				time.Sleep(time.Duration(attempt+1) * 5 * time.Millisecond)
			}
		}
	}
	for _, o := range ops {
		if o.err == nil && o.tx != nil {
			for _, f := range o.tx.commit {
				f()
			}
		}
		o.tx = nil
		close(o.done)
	}
}

// try runs ops in one transaction, sets their errors, and reports whether
// they should be run again alone.
func (db *DB) try(ops []*op) (again bool) {
	ctx := context.Background()
	batch := &Batch{Cache: make(map[any]any)}
	fail := func(err error) bool {
		for _, o := range ops {
			o.err = err
		}
		return len(ops) > 1 || retryable(err)
	}
	if _, err := db.conn.ExecContext(ctx, db.d.begin); err != nil {
		return fail(diskError(err, "beginning a write"))
	}
	rollback := func() {
		if _, err := db.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			// SQLite ends the transaction by itself on some errors, and says
			// so here. Anything worse shows at the next BEGIN.
			db.log.Debug("rolling back", "error", err)
		}
		if db.hooks.Rollback != nil {
			db.hooks.Rollback(batch)
		}
	}
	now := db.now().UTC().Truncate(time.Millisecond)
	own := &Tx{ctx: ctx, db: db, now: now, batch: batch}
	if db.hooks.Begin != nil {
		if err := db.hooks.Begin(own); err != nil {
			rollback()
			return fail(err)
		}
		now = own.now
	}
	wrote := false
	for _, o := range ops {
		o.tx = &Tx{ctx: context.WithoutCancel(o.ctx), db: db, now: now, batch: batch}
		o.err = call(o.fn, o.tx)
		if o.err != nil && (o.tx.wrote || retryable(o.err)) {
			rollback()
			return len(ops) > 1 || retryable(o.err)
		}
		wrote = wrote || o.tx.wrote
	}
	if !wrote {
		rollback()
		return false
	}
	for _, f := range batch.before {
		if err := f(own); err != nil {
			rollback()
			return fail(err)
		}
	}
	if db.hooks.Seal != nil {
		if err := db.hooks.Seal(own); err != nil {
			rollback()
			return fail(fmt.Errorf("sealing the evidence: %w", err))
		}
	}
	if _, err := db.conn.ExecContext(ctx, "COMMIT"); err != nil {
		rollback()
		return fail(diskError(err, "committing"))
	}
	if db.hooks.Commit != nil {
		db.hooks.Commit(batch)
	}
	return false
}

// call runs fn and turns a panic into an error, so that one bad request does
// not take its companions down half written.
func call(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			tx.wrote = true // force the roll-back
			err = fw.Wrap(fw.Internal, fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "internal error: please report it")
		}
	}()
	return fn(tx)
}

// retryable reports whether PostgreSQL asks for the transaction to be run
// again (SQLSTATE class 40).
func retryable(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// full reports whether SQLite found no space on the disk.
func full(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// diskError gives a failure to begin or commit a message that says what to
// look at.
func diskError(err error, what string) error {
	return fw.Wrap(fw.Unavailable, fmt.Errorf("%s: %w", what, err), "the database cannot be written: check that its disk is neither full nor read-only, then try again")
}
