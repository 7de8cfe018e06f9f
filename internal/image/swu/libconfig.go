package swu

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// kind is what a node of a description is.
type kind int

const (
	group  kind = iota + 1 // named settings
	list                   // ( … ) or [ … ]
	text                   // a string
	scalar                 // a number or a truth value, as written
)

// node is a value in a description, whatever language that is in.
type node struct {
	kind  kind
	text  string   // of text and scalar
	names []string // of a group: those of kids
	kids  []*node
	line  int
}

// child returns the setting of that name in a group, or nil.
func (n *node) child(name string) *node {
	if n == nil || n.kind != group {
		return nil
	}
	for i, have := range n.names {
		if have == name {
			return n.kids[i]
		}
	}
	return nil
}

// Bounds on a description; real ones stay far below.
const (
	maxNodes = 8192
	maxDepth = 24
)

// config is a reader of libconfig's language, as its manual gives the grammar.
// It leaves out what SWUpdate forbids (@include) and what only some releases of
// libconfig read, since devices have different ones.
type config struct {
	in    []byte
	pos   int
	line  int
	nodes int
}

func parseConfig(in []byte) (*node, error) {
	if !utf8.Valid(in) || bytes.IndexByte(in, 0) >= 0 {
		return nil, malformed("it is not text in UTF-8")
	}
	c := &config{in: in, line: 1}
	root := &node{kind: group, line: 1}
	if err := c.settings(root, 0); err != nil {
		return nil, fmt.Errorf("line %d: %w", c.line, err)
	}
	if c.pos != len(c.in) {
		return nil, fmt.Errorf("line %d: %w", c.line, malformed("%q where the name of a setting is due", c.in[c.pos]))
	}
	return root, nil
}

// space skips white space and comments.
func (c *config) space() error {
	for c.pos < len(c.in) {
		rest := c.in[c.pos:]
		switch {
		case rest[0] == '\n':
			c.line++
			c.pos++
		case strings.IndexByte(" \t\r\f", rest[0]) >= 0:
			c.pos++
		case rest[0] == '#', bytes.HasPrefix(rest, []byte("//")):
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			c.pos += n
		case bytes.HasPrefix(rest, []byte("/*")):
			n := bytes.Index(rest[2:], []byte("*/"))
			if n < 0 {
				return malformed("a comment does not end")
			}
			c.line += bytes.Count(rest[:n+4], []byte{'\n'})
			c.pos += n + 4
		default:
			return nil
		}
	}
	return nil
}

// next skips white space and returns the next byte without taking it; 0 at the
// end.
func (c *config) next() (byte, error) {
	if err := c.space(); err != nil || c.pos == len(c.in) {
		return 0, err
	}
	return c.in[c.pos], nil
}

func (c *config) add(n *node) (*node, error) {
	c.nodes++
	if c.nodes > maxNodes {
		return nil, fmt.Errorf("more than %d values: %w", maxNodes, image.ErrTooLarge)
	}
	n.line = c.line
	return n, nil
}

// settings reads settings into a group until something that is none.
func (c *config) settings(g *node, depth int) error {
	for {
		b, err := c.next()
		if err != nil {
			return err
		}
		if !letter(b) && b != '*' {
			return nil
		}
		start := c.pos
		for c.pos < len(c.in) && inName(c.in[c.pos]) {
			c.pos++
		}
		name := string(c.in[start:c.pos])
		if g.child(name) != nil {
			return malformed("setting %q is there twice", name)
		}
		if b, err = c.next(); err != nil {
			return err
		}
		if b != '=' && b != ':' {
			return malformed("setting %q is not followed by = or :", name)
		}
		c.pos++
		v, err := c.value(depth)
		if err != nil {
			return err
		}
		g.names, g.kids = append(g.names, name), append(g.kids, v)
		if b, err = c.next(); err != nil {
			return err
		}
		if b == ';' || b == ',' {
			c.pos++
		}
	}
}

func letter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }

func inName(b byte) bool {
	return letter(b) || b >= '0' && b <= '9' || b == '-' || b == '_' || b == '*'
}

func (c *config) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, malformed("nested deeper than %d", maxDepth)
	}
	b, err := c.next()
	if err != nil {
		return nil, err
	}
	switch b {
	case '{':
		c.pos++
		g, err := c.add(&node{kind: group})
		if err != nil {
			return nil, err
		}
		if err := c.settings(g, depth+1); err != nil {
			return nil, err
		}
		return g, c.closing('}')
	case '(':
		return c.list(')', depth+1)
	case '[':
		return c.list(']', depth+1)
	case '"':
		return c.string()
	default:
		return c.scalar()
	}
}

func (c *config) closing(want byte) error {
	b, err := c.next()
	if err != nil {
		return err
	}
	if b != want {
		if c.pos == len(c.in) {
			return malformed("the file ends where %q is due", want)
		}
		return malformed("%q where %q is due", b, want)
	}
	c.pos++
	return nil
}

// list reads a list, or, ending in ], an array, which holds scalars only.
func (c *config) list(end byte, depth int) (*node, error) {
	c.pos++
	l, err := c.add(&node{kind: list})
	if err != nil {
		return nil, err
	}
	for {
		b, err := c.next()
		if err != nil {
			return nil, err
		}
		if b == end {
			c.pos++
			return l, nil
		}
		v, err := c.value(depth)
		if err != nil {
			return nil, err
		}
		if end == ']' && v.kind != text && v.kind != scalar {
			return nil, malformed("a group or list within [ ]")
		}
		l.kids = append(l.kids, v)
		if b, err = c.next(); err != nil {
			return nil, err
		}
		if b == ',' {
			c.pos++
		} else if b != end {
			return nil, c.closing(end)
		}
	}
}

// string reads a string. Strings that follow each other are one.
func (c *config) string() (*node, error) {
	n, err := c.add(&node{kind: text})
	if err != nil {
		return nil, err
	}
	var out []byte
	for {
		b, err := c.next()
		if err != nil {
			return nil, err
		}
		if b != '"' {
			if !utf8.Valid(out) || bytes.IndexByte(out, 0) >= 0 {
				return nil, malformed("a string is not text in UTF-8")
			}
			n.text = string(out)
			return n, nil
		}
		c.pos++
		if out, err = c.quoted(out); err != nil {
			return nil, err
		}
	}
}

func (c *config) quoted(out []byte) ([]byte, error) {
	for c.pos < len(c.in) {
		b := c.in[c.pos]
		c.pos++
		switch b {
		case '"':
			return out, nil
		case '\n':
			c.line++
			out = append(out, b)
		case '\\':
			var err error
			if out, err = c.escape(out); err != nil {
				return nil, err
			}
		default:
			out = append(out, b)
		}
	}
	return nil, malformed("a string does not end")
}

// escape reads what follows a backslash. Before anything that is no escape
// sequence it stands for itself, which regular expressions make use of.
func (c *config) escape(out []byte) ([]byte, error) {
	if c.pos == len(c.in) {
		return nil, malformed("a string does not end")
	}
	b := c.in[c.pos]
	if i := strings.IndexByte(`nrtf\"`, b); i >= 0 {
		c.pos++
		return append(out, "\n\r\t\f\\\""[i]), nil
	}
	if strings.IndexByte("abv", b) >= 0 {
		return nil, malformed(`\%c in a string, which releases of libconfig read differently`, b)
	}
	if b == 'x' && len(c.in)-c.pos >= 3 {
		high, ok := hexDigit(c.in[c.pos+1])
		low, ok2 := hexDigit(c.in[c.pos+2])
		if ok && ok2 {
			c.pos += 3
			return append(out, byte(high<<4|low)), nil //nolint:gosec // G115: two digits
		}
	}
	return append(out, '\\'), nil
}

// scalar reads a number or a truth value as it is written. What it is worth
// makes no difference here.
func (c *config) scalar() (*node, error) {
	start := c.pos
	for c.pos < len(c.in) && (inName(c.in[c.pos]) && c.in[c.pos] != '*' || c.in[c.pos] == '.' || c.in[c.pos] == '+') {
		c.pos++
	}
	word := string(c.in[start:c.pos])
	lower := strings.ToLower(word)
	if lower != "true" && lower != "false" && !number(word) {
		if word == "" && start < len(c.in) {
			word = string(c.in[start : start+1])
		}
		return nil, malformed("%q where a value is due", word)
	}
	return c.add(&node{kind: scalar, text: lower})
}

// number reports whether s is an integer, perhaps hexadecimal and with a size
// suffix, or a decimal fraction.
func number(s string) bool {
	if digits, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits = suffix(digits)
		return digits != "" && strings.Trim(digits, "0123456789abcdef") == ""
	}
	s = strings.TrimLeft(s[:min(1, len(s))], "+-") + s[min(1, len(s)):]
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(s), "e")
	if hasExponent {
		exponent = strings.TrimLeft(exponent[:min(1, len(exponent))], "+-") + exponent[min(1, len(exponent)):]
		if !digits(exponent) {
			return false
		}
	}
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	if hasPoint || hasExponent {
		return digits(whole) && (fraction == "" || digits(fraction)) || whole == "" && digits(fraction)
	}
	return digits(suffix(mantissa))
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// suffix cuts the L or LL that marks 64 bits.
func suffix(s string) string {
	s = strings.ToUpper(s)
	s = strings.TrimSuffix(strings.TrimSuffix(s, "L"), "L")
	return strings.ToLower(s)
}
