package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/writ-project/writ/internal/fw"
)

// Queryer is what reads need: a [Tx] or a [Snapshot].
type Queryer interface {
	query(q string, args ...any) (*sql.Rows, error)
	queryRow(q string, args ...any) *sql.Row
}

// preparer is what *sql.Conn and *sql.DB have in common.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// stmts prepares each query text once. The texts are constants of this
// package, so the cache is bounded.
type stmts struct {
	d  *dialect
	on preparer

	mu sync.Mutex
	m  map[string]*sql.Stmt
}

func newStmts(d *dialect, on preparer) *stmts {
	return &stmts{d: d, on: on, m: make(map[string]*sql.Stmt)}
}

func (s *stmts) get(ctx context.Context, q string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.m[q]; st != nil {
		return st, nil
	}
	st, err := s.on.PrepareContext(ctx, s.d.rewrite(q))
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", q, err)
	}
	s.m[q] = st
	return st, nil
}

func (s *stmts) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.m {
		_ = st.Close() // the connection is going away with it
	}
	s.m = make(map[string]*sql.Stmt)
}

// Snapshot reads committed state outside any write. It is cheap; take one per
// request.
type Snapshot struct {
	ctx context.Context //nolint:containedctx // a Snapshot is one request's view and does not outlive it
	st  *stmts
	db  *sql.DB
}

// Snapshot returns a reader of committed state for the life of ctx.
func (db *DB) Snapshot(ctx context.Context) *Snapshot {
	return &Snapshot{ctx: ctx, st: db.readStmts, db: db.read}
}

func (s *Snapshot) query(q string, args ...any) (*sql.Rows, error) {
	st, err := s.st.get(s.ctx, q)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(s.ctx, args...)
}

func (s *Snapshot) queryRow(q string, args ...any) *sql.Row {
	st, err := s.st.get(s.ctx, q)
	if err != nil {
		return s.db.QueryRowContext(s.ctx, s.st.d.rewrite(q), args...) // carries the error of the text
	}
	return st.QueryRowContext(s.ctx, args...)
}

// notFound turns sql.ErrNoRows into an error for the caller and gives any
// other error the verb of what failed.
func notFound(err error, format string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return fw.Errorf(fw.NotFound, format, args...)
	}
	return fmt.Errorf("reading the database: %w", err)
}

// collect reads every row with scan and closes rows.
func collect[T any](rows *sql.Rows, err error, scan func(interface{ Scan(...any) error }) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("reading the database: %w", err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("reading a row: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the database: %w", err)
	}
	return out, nil
}
