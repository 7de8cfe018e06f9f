package suit

import (
	"bytes"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// This file reads CBOR (RFC 8949) in its deterministic form (section 4.2.1) and
// no other: shortest heads, definite lengths, map keys in order and so never
// twice. It is written for Verify, apart from the library that Sign encodes
// with. Nothing here allocates by a length that the input merely claims.

// decoder reads one byte string item by item and remembers the first error, so
// that a reader of the code sees the structure and not the plumbing.
type decoder struct {
	where string
	b     []byte
	err   error
}

func newDecoder(where string, b []byte) *decoder { return &decoder{where: where, b: b} }

func (d *decoder) fail(format string, args ...any) {
	d.refuse(image.ErrMalformed, format, args...)
}

func (d *decoder) refuse(reason image.ReasonError, format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("reading %s: %s: %w", d.where, fmt.Sprintf(format, args...), reason)
	}
	d.b = nil
}

// parseHead reads the head of an item: major type, argument and how many bytes
// that took. An item cut short is [image.ErrTruncated].
func parseHead(b []byte) (major byte, arg uint64, n int, err error) {
	if len(b) == 0 {
		return 0, 0, 0, fmt.Errorf("it ends too early: %w", image.ErrTruncated)
	}
	major, info := b[0]>>5, b[0]&0x1f
	switch {
	case info < 24:
		return major, uint64(info), 1, nil
	case info > 27 || major == majorSimple:
		// Reserved, indefinite lengths, floating point and one-byte simple values.
		return 0, 0, 0, fmt.Errorf("item %#02x has no place here or no definite length: %w", b[0], image.ErrMalformed)
	}
	n = 1 + 1<<(info-24)
	if len(b) < n {
		return 0, 0, 0, fmt.Errorf("it ends too early: %w", image.ErrTruncated)
	}
	for _, c := range b[1:n] {
		arg = arg<<8 | uint64(c)
	}
	if least := [...]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]; arg < least {
		return 0, 0, 0, fmt.Errorf("%d is not in its shortest form: %w", arg, image.ErrMalformed)
	}
	return major, arg, n, nil
}

func (d *decoder) head() (major byte, arg uint64) {
	if d.err != nil {
		return 0, 0
	}
	major, arg, n, err := parseHead(d.b)
	if err != nil {
		d.err, d.b = fmt.Errorf("reading %s: %w", d.where, err), nil
		return 0, 0
	}
	d.b = d.b[n:]
	return major, arg
}

// next returns the major type of the next item.
func (d *decoder) next() byte {
	if len(d.b) == 0 {
		return majorSimple
	}
	return d.b[0] >> 5
}

func (d *decoder) want(major byte, what string) uint64 {
	m, arg := d.head()
	if d.err == nil && m != major {
		d.fail("major type %d, want %s", m, what)
		return 0
	}
	return arg
}

func (d *decoder) uint() uint64 { return d.want(majorUint, "an unsigned integer") }

func (d *decoder) int() int64 {
	m, arg := d.head()
	switch {
	case d.err != nil:
	case m > majorNint:
		d.fail("major type %d, want an integer", m)
	case arg > math.MaxInt64:
		d.fail("integer is out of range")
	case m == majorNint:
		return -1 - int64(arg)
	default:
		return int64(arg)
	}
	return 0
}

func (d *decoder) take(n uint64) []byte {
	if d.err != nil {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.refuse(image.ErrTruncated, "%d bytes are announced, %d are left", n, len(d.b))
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) bytes() []byte { return d.take(d.want(majorBytes, "a byte string")) }

// text reads a text of at most limit bytes.
func (d *decoder) text(limit int) string {
	b := d.take(d.want(majorText, "a text"))
	if len(b) > limit || !utf8.Valid(b) {
		d.fail("text of %d bytes is longer than %d or not UTF-8", len(b), limit)
		return ""
	}
	return string(b)
}

// list reads the head of an array of at least least and at most most items.
func (d *decoder) list(least, most uint64) int {
	n := d.want(majorArray, "an array")
	if d.err == nil && (n < least || n > most) {
		d.fail("array of %d items, want %d to %d", n, least, most)
	}
	if d.err != nil {
		return 0
	}
	return int(n) //nolint:gosec // G115: at most most
}

// simple reads true, false or null (20, 21, 22).
func (d *decoder) simple() uint64 { return d.want(majorSimple, "true, false or null") }

const (
	simpleFalse = 20
	simpleTrue  = 21
	simpleNull  = 22
)

func (d *decoder) bool() bool {
	v := d.simple()
	if d.err == nil && v != simpleFalse && v != simpleTrue {
		d.fail("simple value %d, want true or false", v)
	}
	return v == simpleTrue
}

// entries calls f for each key of a map, which f reads with its value. Keys are
// in the order of their bytes.
func (d *decoder) entries(f func()) {
	n := d.want(majorMap, "a map")
	var last []byte
	for i := uint64(0); i < n && d.err == nil; i++ {
		key := newDecoder(d.where, d.b)
		key.skip(maxDepth)
		if key.err != nil {
			d.err, d.b = key.err, nil
			return
		}
		raw := d.b[:len(d.b)-len(key.b)]
		if c := bytes.Compare(last, raw); i > 0 && c >= 0 {
			d.fail("map key %x is there twice or out of order", raw[:min(len(raw), 16)])
			return
		}
		last = raw
		f()
	}
}

// skip passes over one item of any kind that is nested at most depth deep.
func (d *decoder) skip(depth int) {
	if depth < 0 {
		d.fail("it is nested too deep")
		return
	}
	major, arg := d.head()
	if d.err != nil {
		return
	}
	switch major {
	case majorBytes:
		d.take(arg)
	case majorText:
		if b := d.take(arg); !utf8.Valid(b) {
			d.fail("text is not UTF-8")
		}
	case majorArray:
		for i := uint64(0); i < arg && d.err == nil; i++ {
			d.skip(depth - 1)
		}
	case majorMap:
		// The head is read: entries wants it back. Keys are compared here too.
		var last []byte
		for i := uint64(0); i < arg && d.err == nil; i++ {
			start := d.b
			d.skip(depth - 1)
			raw := start[:len(start)-len(d.b)]
			if d.err == nil && i > 0 && bytes.Compare(last, raw) >= 0 {
				d.fail("map key %x is there twice or out of order", raw[:min(len(raw), 16)])
			}
			last = raw
			d.skip(depth - 1)
		}
	case majorTag:
		d.skip(depth - 1)
	}
}

// done refuses what is left.
func (d *decoder) done() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes follow", len(d.b))
	}
	return d.err
}
