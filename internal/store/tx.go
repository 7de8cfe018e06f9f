package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Tx is one closure's view of the write transaction. It must not be used
// after the closure returns.
type Tx struct {
	ctx    context.Context //nolint:containedctx // a Tx is one closure's view and does not outlive it
	db     *DB
	now    time.Time
	wrote  bool
	commit []func()
	batch  *Batch
}

// Batch is what the closures of one commit share. The ledger keeps its
// pending records here.
type Batch struct {
	// Cache holds values that are valid until the commit, because nobody
	// else can write meanwhile. A roll-back drops it.
	Cache map[any]any
	// Changes counts the writes of this commit that make a cached approval
	// count or release state stale: rosters, approvals, release states.
	Changes int

	before []func(*Tx) error // see Tx.BeforeCommit
	late   map[any]bool      // their keys
}

// Now is the time of this transaction, fixed when it began, in UTC with
// millisecond precision.
func (tx *Tx) Now() time.Time { return tx.now }

// NotBefore makes t the time of this transaction if its clock was earlier. It
// is for the hook that begins it: later, closures may have read the time.
func (tx *Tx) NotBefore(t time.Time) {
	if tx.now.Before(t) {
		tx.now = t.UTC()
	}
}

// Context is the context for work inside the closure. It is not cancelled
// with the caller's: a write that has begun ends.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Batch returns what the closures of this commit share.
func (tx *Tx) Batch() *Batch { return tx.batch }

// MarkWritten says that this closure has something to write that a hook will
// write for it: the commit must happen.
func (tx *Tx) MarkWritten() { tx.wrote = true }

// BeforeCommit runs f once at the end of this commit, before it is sealed,
// however many closures ask for it under the same key. It counts as a write of
// each that asks.
func (tx *Tx) BeforeCommit(key any, f func(*Tx) error) {
	tx.wrote = true
	if tx.batch.late == nil {
		tx.batch.late = make(map[any]bool)
	}
	if !tx.batch.late[key] {
		tx.batch.late[key] = true
		tx.batch.before = append(tx.batch.before, f)
	}
}

// OnCommit runs f after the transaction has committed, before DB.Tx returns.
func (tx *Tx) OnCommit(f func()) { tx.commit = append(tx.commit, f) }

func (tx *Tx) exec(q string, args ...any) (int64, error) {
	st, err := tx.db.writeStmts.get(tx.ctx, q)
	if err != nil {
		return 0, err
	}
	tx.wrote = true
	res, err := st.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, fmt.Errorf("writing to the database: %w", err)
	}
	return res.RowsAffected()
}

func (tx *Tx) query(q string, args ...any) (*sql.Rows, error) {
	st, err := tx.db.writeStmts.get(tx.ctx, q)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(tx.ctx, args...)
}

func (tx *Tx) queryRow(q string, args ...any) *sql.Row {
	st, err := tx.db.writeStmts.get(tx.ctx, q)
	if err != nil {
		return tx.db.conn.QueryRowContext(tx.ctx, tx.db.d.rewrite(q), args...) // carries the error of the text
	}
	return st.QueryRowContext(tx.ctx, args...)
}

// ExecForTest runs any statement. Tests use it to damage a database as an
// attacker with a database shell would; nothing else may.
func ExecForTest(tx *Tx, q string, args ...any) error {
	_, err := tx.exec(q, args...)
	return err
}
