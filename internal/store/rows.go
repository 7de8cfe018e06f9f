package store

import (
	"strconv"
	"strings"
	"sync"
)

// rowsText is an INSERT of many rows in one statement. A commit of a hundred
// records would otherwise spend more on statements than on rows.
type rowsText struct {
	head    string
	columns int
	tail    string

	once  sync.Once
	texts [len(rowsPer)]string
}

// rowsPer is how many rows a statement takes, largest first. Each size is a
// prepared statement of its own.
var rowsPer = [...]int{32, 8, 1}

// exec inserts n rows; row appends the arguments of row i.
func (t *rowsText) exec(tx *Tx, n int, row func(i int, args []any) []any) error {
	t.once.Do(t.prepare)
	args := make([]any, 0, min(n, rowsPer[0])*t.columns)
	for i, k := 0, 0; i < n; {
		if rowsPer[k] > n-i {
			k++
			continue
		}
		args = args[:0]
		for range rowsPer[k] {
			args = row(i, args)
			i++
		}
		if _, err := tx.exec(t.texts[k], args...); err != nil {
			return err
		}
	}
	return nil
}

func (t *rowsText) prepare() {
	for k, rows := range rowsPer {
		var b strings.Builder
		b.WriteString(t.head)
		for i := range rows * t.columns {
			switch {
			case i == 0:
				b.WriteString("($")
			case i%t.columns == 0:
				b.WriteString("), ($")
			default:
				b.WriteString(", $")
			}
			b.WriteString(strconv.Itoa(i + 1))
		}
		b.WriteString(")")
		b.WriteString(t.tail)
		t.texts[k] = b.String()
	}
}
