package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a record's data.
const maxDepth = 32

// manyMembers is from how many members on an object's names are kept in a map:
// below it comparing all is faster.
const manyMembers = 24

// scanner walks compact I-JSON (RFC 7493): RFC 8259 without insignificant
// whitespace, without duplicate members, without unpaired surrogates. Two
// readers of what it accepts cannot differ over which member counts.
type scanner struct {
	b       []byte
	i       int
	names   [][]byte // of the objects that are open, outermost first
	escaped bool     // the last string held a backslash
	special bool     // the last string held a byte that json.Marshal escapes, or beyond ASCII
}

// checkObject checks that b is one object and nothing else.
func checkObject(b []byte) error {
	s := scanner{b: b, names: make([][]byte, 0, 2*manyMembers)}
	if err := s.object(0); err != nil {
		return err
	}
	if s.i != len(b) {
		return s.fail("data after the object")
	}
	return nil
}

func (s *scanner) fail(what string) error { return fmt.Errorf("at byte %d: %s", s.i, what) }

// peek returns the next byte, 0 at the end: 0 is in no JSON.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) value(depth int) error {
	switch c := s.peek(); c {
	case '{':
		return s.object(depth)
	case '[':
		return s.array(depth)
	case '"':
		return s.string()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.fail("want a value")
	}
	s.i += len(w)
	return nil
}

func (s *scanner) array(depth int) error {
	if depth >= maxDepth {
		return s.fail("nested too deeply")
	}
	s.i++
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.fail("want , or ] (and no whitespace)")
		}
	}
}

func (s *scanner) object(depth int) error {
	if s.peek() != '{' {
		return s.fail("want an object (and no whitespace)")
	}
	if depth >= maxDepth {
		return s.fail("nested too deeply")
	}
	s.i++
	if s.peek() == '}' {
		s.i++
		return nil
	}
	base := len(s.names)
	var many map[string]bool
	for {
		if s.peek() != '"' {
			return s.fail("want a member name (and no whitespace)")
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if many, err = s.unique(name, base, many); err != nil {
			return err
		}
		if s.peek() != ':' {
			return s.fail("want : (and no whitespace)")
		}
		s.i++
		if err := s.value(depth + 1); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			s.names = s.names[:base]
			return nil
		default:
			return s.fail("want , or } (and no whitespace)")
		}
	}
}

// name reads a member name and returns it unescaped.
func (s *scanner) name() ([]byte, error) {
	start := s.i
	if err := s.string(); err != nil {
		return nil, err
	}
	raw := s.b[start:s.i]
	if !s.escaped {
		return raw[1 : len(raw)-1], nil
	}
	var v string
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("at byte %d: %w", start, err)
	}
	return []byte(v), nil
}

// unique adds a name to those of the object whose names begin at base.
func (s *scanner) unique(name []byte, base int, many map[string]bool) (map[string]bool, error) {
	seen := s.names[base:]
	if many == nil && len(seen) == manyMembers {
		many = make(map[string]bool, 4*manyMembers)
		for _, n := range seen {
			many[string(n)] = true
		}
	}
	if many != nil {
		if many[string(name)] {
			return nil, s.fail(fmt.Sprintf("member %.80q is there twice", name))
		}
		many[string(name)] = true
		return many, nil
	}
	for _, n := range seen {
		if bytes.Equal(n, name) {
			return nil, s.fail(fmt.Sprintf("member %.80q is there twice", name))
		}
	}
	s.names = append(s.names, name)
	return nil, nil
}

// plain are the bytes of a string that stand for themselves and that
// json.Marshal writes so.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

func (s *scanner) string() error {
	s.escaped, s.special = false, false
	if s.peek() != '"' {
		return s.fail("want a string")
	}
	i := s.i + 1
	for {
		for i < len(s.b) && plain[s.b[i]] {
			i++
		}
		if i >= len(s.b) {
			s.i = i
			return s.fail("a string does not end")
		}
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return nil
		case c == '\\':
			s.escaped = true
			n := escape(s.b[i:])
			if n == 0 {
				s.i = i
				return s.fail("a malformed escape or an unpaired surrogate")
			}
			i += n
		case c < 0x20:
			s.i = i
			return s.fail("a control character in a string")
		case c < utf8.RuneSelf:
			s.special = true
			i++
		default:
			s.special = true
			r, n := utf8.DecodeRune(s.b[i:])
			if r == utf8.RuneError && n == 1 {
				s.i = i
				return s.fail("a string is not UTF-8")
			}
			i += n
		}
	}
}

// escape returns the length of the escape that b begins with, 0 when it is
// malformed (RFC 8259 section 7) or an unpaired surrogate (RFC 7493 section
// 2.1).
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	switch u := unit(b); {
	case u < 0 || u >= 0xdc00 && u < 0xe000:
		return 0
	case u < 0xd800 || u >= 0xe000:
		return 6
	}
	if low := unit(b[6:]); low < 0xdc00 || low >= 0xe000 {
		return 0
	}
	return 12
}

// unit returns the UTF-16 code unit of the \uXXXX that b begins with, or -1.
func unit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	u := 0
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			u = u<<4 | int(c-'A'+10)
		default:
			return -1
		}
	}
	return u
}

// number reads a number (RFC 8259 section 6).
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return s.fail("want a value (and no whitespace)")
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.fail("a malformed number")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.fail("a malformed number")
		}
	}
	return nil
}

// digits skips digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}
