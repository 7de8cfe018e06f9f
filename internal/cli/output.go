package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// results is stdout. It keeps the first error, so that a result which did not
// get out is a failure, whoever wrote it.
type results struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (r *results) Write(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.w.Write(b)
	r.err = err
	return n, err
}

// putf, putln and put write text. An error on stdout is kept by results; one
// on stderr cannot be told to anybody.
func putf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
func putln(w io.Writer, args ...any)               { _, _ = fmt.Fprintln(w, args...) }
func put(w io.Writer, args ...any)                 { _, _ = fmt.Fprint(w, args...) }

// format is how results are written.
type format string

const (
	formatText format = "text"
	formatJSON format = "json"
)

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	switch format(s) {
	case formatText, formatJSON:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("must be text or json, not %q", s)
}

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "text|json" }

// show writes v as JSON, or calls text.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.format == formatJSON {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		if !a.lines {
			enc.SetIndent("", "  ")
		}
		if err := enc.Encode(v); err != nil {
			return fw.Wrap(fw.Internal, err, "cannot write the result")
		}
		return nil
	}
	text(a.out)
	return nil
}

// say writes a line of text that is no result, such as the next step.
func (a *app) say(format string, args ...any) {
	if a.format == formatText {
		putf(a.err, format+"\n", args...)
	}
}

// table writes rows in aligned columns under a header.
func table(w io.Writer, header string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	putln(t, strings.ReplaceAll(header, " ", "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] = oneLine(r[i]); r[i] == "" {
				r[i] = "-"
			}
		}
		putln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush() // results keeps the error
}

// rowsOf makes a row of each element.
func rowsOf[T any](list []T, row func(T) []string) [][]string {
	out := make([][]string, len(list))
	for i, v := range list {
		out[i] = row(v)
	}
	return out
}

// fields writes one "name: value" line per pair that has a value.
func fields(w io.Writer, pairs ...string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := oneLine(pairs[i+1]); v != "" {
			putf(t, "%s:\t%s\n", pairs[i], v)
		}
	}
	_ = t.Flush() // results keeps the error
}

// unix prints Unix seconds; 0 is "".
func unix(t int64) string {
	if t == 0 {
		return ""
	}
	return time.Unix(t, 0).UTC().Format(time.RFC3339)
}

// joined prints strings of any kind with commas.
func joined[S ~string](list []S) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

// count prints n; 0 is "".
func count[N ~int | ~int64 | ~uint64](n N) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
