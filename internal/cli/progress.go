package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// redraw is how often a bar is drawn at most.
const redraw = 100 * time.Millisecond

// barWidth is the width of a bar in characters.
const barWidth = 24

// bar is a progress bar on a terminal; elsewhere it draws nothing.
type bar struct {
	w     io.Writer // nil: draw nothing
	label string
	unit  func(int64) string
	total int64 // 0: not known
	begin time.Time
	first int64 // where this run began, for the rate
	drawn time.Time
	wide  int
}

// isTerminal reports whether v is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newBar returns a bar on the command's stderr.
func (a *app) newBar(label string, total int64, unit func(int64) string) *bar {
	b := &bar{label: label, total: total, unit: unit, begin: time.Now(), first: -1}
	if isTerminal(a.err) && a.format == formatText {
		b.w = a.err
	}
	return b
}

// set shows that done of the total is done.
func (b *bar) set(done int64) {
	if b.w == nil {
		return
	}
	now := time.Now()
	if b.first < 0 {
		b.first = done
	}
	if now.Sub(b.drawn) < redraw && done < b.total {
		return
	}
	b.drawn = now
	line := fmt.Sprintf("%s %s", b.label, b.unit(done))
	if b.total > 0 {
		n := int(barWidth * min(done, b.total) / b.total)
		line = fmt.Sprintf("%s [%s%s] %3d%%  %s of %s", b.label, strings.Repeat("#", n), strings.Repeat("-", barWidth-n),
			100*min(done, b.total)/b.total, b.unit(done), b.unit(b.total))
	}
	if s := now.Sub(b.begin).Seconds(); s > 0.5 {
		line += fmt.Sprintf("  %s/s", b.unit(int64(float64(done-b.first)/s)))
	}
	pad := max(0, b.wide-len(line))
	b.wide = len(line)
	putf(b.w, "\r%s%s", line, strings.Repeat(" ", pad))
}

// end leaves the line of the bar.
func (b *bar) end() {
	if b.w != nil && b.wide > 0 {
		putln(b.w)
		b.wide = 0
	}
}

// bytesUnit prints a number of bytes in binary units.
func bytesUnit(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func countUnit(what string) func(int64) string {
	return func(n int64) string { return fmt.Sprintf("%d %s", n, what) }
}

// clear removes the bar, so that a line can be written in its place.
func (b *bar) clear() {
	if b.w != nil && b.wide > 0 {
		putf(b.w, "\r%s\r", strings.Repeat(" ", b.wide))
		b.wide, b.drawn = 0, time.Time{}
	}
}
