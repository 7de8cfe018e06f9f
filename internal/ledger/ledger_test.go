package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
)

const origin = "writ.test/log"

func openLedger(t testing.TB, url string, s *signer.Signer) (*store.DB, *ledger.Ledger, error) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	ls, err := s.LogSigner(fwtest.Keys[fw.PurposeLog], origin)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), db, ls)
	return db, l, err
}

func appendOne(db *store.DB, l *ledger.Ledger, device string, fail error) (pos ledger.Position, err error) {
	err = db.Tx(context.Background(), func(tx *store.Tx) error {
		var err error
		pos, err = l.Append(tx, ledger.Entry{
			Type: evidence.TypeDeviceState, Actor: "ann",
			Streams: []evidence.StreamID{evidence.DeviceStream(fw.DeviceID(device)), evidence.LogStream},
			Data:    evidence.DeviceState{Device: fw.DeviceID(device), To: fw.DeviceActive},
		})
		return errors.Join(err, fail)
	})
	return pos, err
}

func TestEveryAppendedRecordIsProvenAcrossFailuresAndRestarts(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		s, _ := fwtest.Signer(t)
		db, l, err := openLedger(t, url, s)
		if err != nil {
			t.Fatal(err)
		}
		type kept struct {
			pos     ledger.Position
			receipt []byte
		}
		var mu sync.Mutex
		var all []kept
		boom := errors.New("boom")
		round := func() {
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for i := range 25 {
						var fail error
						if (w+i)%9 == 0 {
							fail = boom
						}
						pos, err := appendOne(db, l, fmt.Sprintf("d%d", w), fail)
						if fail != nil {
							if !errors.Is(err, boom) {
								t.Errorf("got %v, want boom", err)
							}
							continue
						}
						if err != nil {
							t.Error(err)
							continue
						}
						r, err := l.Receipt(pos.Index)
						if err != nil {
							t.Error(err)
						}
						mu.Lock()
						all = append(all, kept{pos, r})
						mu.Unlock()
					}
				})
			}
			wg.Wait()
		}
		round()
		before := l.Head()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, l, err = openLedger(t, url, s); err != nil {
			t.Fatal(err)
		}
		round()
		defer func() { _ = db.Close() }()

		ls, _ := s.LogSigner(fwtest.Keys[fw.PurposeLog], origin)
		seen := make(map[int64]bool)
		for _, k := range all {
			if seen[k.pos.Index] {
				t.Errorf("index %d given twice", k.pos.Index)
			}
			seen[k.pos.Index] = true
			in, err := tlog.CheckReceipt(k.receipt, k.pos.Commitment[:], ls.Public())
			if err != nil || in.Index != k.pos.Index {
				t.Errorf("receipt of %d: %+v, %v", k.pos.Index, in, err)
			}
		}
		h := l.Head()
		if h.Size != int64(len(all)) {
			t.Errorf("the log has %d records, want %d", h.Size, len(all))
		}
		path, err := l.Reader().Consistency(before.Size, h.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckConsistency(path, h.Size, h.Root, before.Size, before.Root); err != nil {
			t.Error(err)
		}
		if n, err := l.Verify(db.Snapshot(t.Context())); err != nil || n != h.Size {
			t.Errorf("verify: %d, %v", n, err)
		}
		pos, tree, err := l.Epoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := tree.Prove(evidence.DeviceStream("d3"))
		if err != nil {
			t.Fatal(err)
		}
		head, err := evidence.CheckStream(tree.Epoch(), evidence.DeviceStream("d3"), p)
		if err != nil || head.N == 0 || pos.Index != h.Size {
			t.Errorf("epoch: head %+v at %+v, %v", head, pos, err)
		}
		p, err = tree.Prove("device/none")
		if err != nil {
			t.Fatal(err)
		}
		if head, err := evidence.CheckStream(tree.Epoch(), "device/none", p); err != nil || head.N != 0 {
			t.Errorf("absence: %+v, %v", head, err)
		}
	})
}

func TestStartRefusesALogThatContradictsItself(t *testing.T) {
	attacks := map[string]func(t *testing.T, tx *store.Tx){
		"record changed": func(t *testing.T, tx *store.Tx) {
			exec(t, tx, `UPDATE record SET body = $1 WHERE idx = 3`, []byte(`{}`))
		},
		"commitment changed": func(t *testing.T, tx *store.Tx) {
			exec(t, tx, `UPDATE record SET commitment = salt WHERE idx = 3`)
		},
		"last record deleted": func(t *testing.T, tx *store.Tx) { exec(t, tx, `DELETE FROM record WHERE idx = 9`) },
		"record added": func(t *testing.T, tx *store.Tx) {
			exec(t, tx, `INSERT INTO record SELECT 10, type, ms, commitment, salt, body FROM record WHERE idx = 1`)
		},
		"head moved back": func(t *testing.T, tx *store.Tx) { exec(t, tx, `UPDATE log_head SET size = 9`) },
		"head removed":    func(t *testing.T, tx *store.Tx) { exec(t, tx, `DELETE FROM log_head`) },
		"checkpoint forged": func(t *testing.T, tx *store.Tx) {
			exec(t, tx, `UPDATE log_head SET checkpoint = $1`, []byte("writ.test/log\n10\nAAAA\n\n— writ.test/log AAAA\n"))
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			url := fwtest.SQLite(t)
			s, _ := fwtest.Signer(t)
			db, l, err := openLedger(t, url, s)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				if _, err := appendOne(db, l, strconv.Itoa(i%3), nil); err != nil {
					t.Fatal(err)
				}
			}
			db.SetHooks(store.Hooks{})
			if err := db.Tx(t.Context(), func(tx *store.Tx) error { attack(t, tx); return nil }); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db, _, err = openLedger(t, url, s)
			if err == nil {
				defer func() { _ = db.Close() }()
			}
			if fw.KindOf(err) != fw.Corrupt || !strings.Contains(err.Error(), "restore the newest backup") {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func exec(t *testing.T, tx *store.Tx, q string, args ...any) {
	t.Helper()
	if err := store.ExecForTest(tx, q, args...); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	s, _ := fwtest.Signer(b)
	db, l, err := openLedger(b, fwtest.SQLite(b), s)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	b.SetParallelism(128)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := appendOne(db, l, "d", nil); err != nil {
				b.Error(err)
			}
		}
	})
}
