package swu

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
)

// This is the encoder's own reader of descriptions, deliberately not the one
// that Inspect and Verify use: it builds no tree, but notes what it needs while
// tokens pass.

// said is what a description says that signing must agree with.
type said struct {
	version  string
	hardware []string
	files    map[string]string // sha256 in lower-case hexadecimal by name
}

func noGood(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), image.ErrMalformed)
}

// agree checks that the options that are set say what the description says.
func (s *settings) agree(d *said) error {
	if s.version != "" && s.version != d.version {
		return fmt.Errorf("comparing options with the image: version is %s, the image says %s: %w", s.version, d.version, image.ErrBadOptions)
	}
	if len(s.Hardware) == 0 {
		return nil
	}
	for _, h := range s.Hardware {
		ok, err := d.runsOn(h)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("comparing options with the image: it is not for hardware %s, which is none of %q; name the revisions that "+
				"devices have as hardware in the layout, or give any_hardware: %w", h, d.hardware, image.ErrBadOptions)
		}
	}
	for _, h := range d.hardware {
		if !strings.HasPrefix(h, rePrefix) && !slices.Contains(s.Hardware, h) {
			return fmt.Errorf("comparing options with the image: it is for hardware %s too, and the release is for %q: %w", h, s.Hardware, image.ErrBadOptions)
		}
	}
	return nil
}

// rePrefix marks a revision that is a POSIX extended regular expression.
const rePrefix = "#RE:"

// runsOn reports whether a device of that revision would take the image.
func (d *said) runsOn(revision string) (bool, error) {
	for _, h := range d.hardware {
		if h == revision {
			return true, nil
		}
		if expr, ok := strings.CutPrefix(h, rePrefix); ok {
			re, err := regexp.CompilePOSIX(expr)
			if err != nil {
				return false, fmt.Errorf("comparing options with the image: hardware %q: %w: %w", h, err, image.ErrUnsupported)
			}
			if re.MatchString(revision) {
				return true, nil
			}
		}
	}
	return false, nil
}

// scan reads a description in either language.
func scan(in []byte) (*said, error) {
	if !utf8.Valid(in) || bytes.IndexByte(in, 0) >= 0 {
		return nil, noGood("it is not text in UTF-8")
	}
	n := &notes{said: said{files: map[string]string{}}}
	var err error
	if start := bytes.TrimLeft(in, " \t\r\n"); len(start) > 0 && start[0] == '{' {
		err = scanJSON(in, n)
	} else {
		err = (&lexer{in: string(in), line: 1}).scan(n)
	}
	if err != nil {
		return nil, err
	}
	if n.software != 1 || n.version == "" {
		return nil, noGood("it has no group software with a version")
	}
	return &n.said, nil
}

// notes is what is known while a description passes.
type notes struct {
	said
	stack    []*frame
	values   int
	software int
}

// frame is a group or list that has begun and not ended.
type frame struct {
	name     string // of the setting; empty within lists
	group    bool
	ignored  bool // properties, and what is not software
	names    map[string]bool
	strings  []string // of a list
	others   bool     // the list has something else in it
	filename *string
	sha256   string
	pending  []setting // those of this group and the ones in it

	// Of the lexer: what ends the frame, and whether a value has just ended.
	closing byte
	after   bool
}

// setting is a version or a list of hardware that has not been taken in yet:
// those of a file mean something else, and a file is known at its end.
type setting struct {
	name   string
	values []string
	err    error
}

func (n *notes) top() *frame {
	if len(n.stack) == 0 {
		return nil
	}
	return n.stack[len(n.stack)-1]
}

// name checks the name of the next setting.
func (n *notes) name(name string) error {
	f := n.top()
	if f.names[name] {
		return noGood("setting %q is there twice", name)
	}
	f.names[name] = true
	return nil
}

// begin notes that a group or list begins.
func (n *notes) begin(name string, group bool) error {
	if err := n.count(); err != nil {
		return err
	}
	f := &frame{name: name, group: group, names: map[string]bool{}}
	if p := n.top(); p != nil {
		f.ignored = p.ignored || p.group && name == "properties" || len(n.stack) == 1 && name != "software"
		p.others = true
		if p.group && !f.ignored {
			switch {
			case name == "filename":
				return noGood("a file name is no string")
			case name == "version" && group, name == "hardware-compatibility" && group:
				p.pending = append(p.pending, setting{name: name, err: fmt.Errorf("%s is a link: %w", name, image.ErrUnsupported)})
			case name == "version":
				p.pending = append(p.pending, setting{name: name, err: noGood("the version is no string")})
			}
		}
	}
	n.stack = append(n.stack, f)
	if len(n.stack) > maxDepth+1 {
		return noGood("nested deeper than %d", maxDepth)
	}
	return nil
}

func (n *notes) count() error {
	n.values++
	if n.values > maxNodes {
		return fmt.Errorf("more than %d values: %w", maxNodes, image.ErrTooLarge)
	}
	return nil
}

// value notes a string, or something else that is no group or list.
func (n *notes) value(name, s string, isString bool) error {
	if err := n.count(); err != nil {
		return err
	}
	f := n.top()
	switch {
	case !f.group:
		f.strings = append(f.strings, s)
		f.others = f.others || !isString || s == ""
	case f.ignored || len(n.stack) == 1:
	case name == "filename":
		if !isString {
			return noGood("a file name is no string")
		}
		f.filename = &s
	case name == "sha256" && isString:
		f.sha256 = s
	case name == "version":
		p := setting{name: name, values: []string{s}}
		if !isString || s == "" {
			p.err = noGood("the version is no string")
		}
		f.pending = append(f.pending, p)
	case name == "hardware-compatibility":
		f.pending = append(f.pending, setting{name: name, err: noGood("%s is no list", name)})
	}
	return nil
}

// end notes that a group or list ends.
func (n *notes) end() error {
	f := n.top()
	n.stack = n.stack[:len(n.stack)-1]
	p := n.top()
	if f.ignored || p == nil {
		return nil
	}
	if f.filename != nil {
		f.pending = nil
		if err := n.file(*f.filename, f.sha256); err != nil {
			return err
		}
	}
	if !f.group {
		if p.group && f.name == "hardware-compatibility" && len(n.stack) > 1 {
			s := setting{name: f.name, values: f.strings}
			if f.others {
				s.err = noGood("%s has something in it that is no string", f.name)
			}
			p.pending = append(p.pending, s)
		}
		return nil // groups in lists are files, or mean something to handlers only
	}
	if len(n.stack) > 1 {
		if p.group {
			p.pending = append(p.pending, f.pending...)
		}
		return nil
	}
	n.software++
	return n.settle(f.pending)
}

func (n *notes) settle(list []setting) error {
	for _, s := range list {
		if s.err != nil {
			return s.err
		}
		if s.name == "hardware-compatibility" {
			for _, h := range s.values {
				if !slices.Contains(n.hardware, h) {
					n.hardware = append(n.hardware, h)
				}
			}
			continue
		}
		if n.version != "" && n.version != s.values[0] {
			return fmt.Errorf("it has versions %q and %q: %w", n.version, s.values[0], image.ErrUnsupported)
		}
		n.version = s.values[0]
	}
	return nil
}

func (n *notes) file(name, sum string) error {
	if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
		return noGood("file %q has sha256 %q, want 64 hexadecimal digits", name, sum)
	}
	sum = strings.ToLower(sum)
	if have, ok := n.files[name]; ok && have != sum {
		return noGood("file %q has two different sha256", name)
	}
	n.files[name] = sum
	return nil
}

// scanJSON walks what encoding/json made of the description. dsse.Decode
// refuses members that are there twice.
func scanJSON(in []byte, n *notes) error {
	var v any
	if err := dsse.Decode(in, &v); err != nil {
		return noGood("no JSON: %w", err)
	}
	return n.walk("", v)
}

func (n *notes) walk(name string, v any) error {
	switch v := v.(type) {
	case map[string]any:
		if err := n.begin(name, true); err != nil {
			return err
		}
		// In the order of names: the order of the text is lost, and does not matter.
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := n.walk(name, v[name]); err != nil {
				return err
			}
		}
		return n.end()
	case []any:
		if err := n.begin(name, false); err != nil {
			return err
		}
		for _, e := range v {
			if err := n.walk("", e); err != nil {
				return err
			}
		}
		return n.end()
	case string:
		if strings.ContainsRune(v, 0) {
			return noGood("a string has a zero in it")
		}
		return n.value(name, v, true)
	case float64, json.Number, bool:
		return n.value(name, "", false)
	default:
		return noGood("null where a value is due")
	}
}

// lexer splits libconfig's language into tokens.
type lexer struct {
	in   string
	line int
}

// token is a punctuation mark as itself, or a word, a string or the end.
type token struct {
	kind byte // one of ={}()[];, or the constants below
	text string
}

func (t token) String() string {
	if t.kind == word || t.kind == stringTok {
		return t.text
	}
	return strings.Trim(string(rune(t.kind)), "\x00")
}

const (
	word      = 'w'
	stringTok = '"'
	endTok    = 0
)

var (
	skipRE = regexp.MustCompile(`^(?:[ \t\r\n\f]+|(?:#|//)[^\n]*|/\*(?s:.*?)\*/)+`)
	wordRE = regexp.MustCompile(`^[-+.*A-Za-z0-9_]+`)
	nameRE = regexp.MustCompile(`^[A-Za-z*][-A-Za-z0-9_*]*$`)
	restRE = regexp.MustCompile(`^(?i:true|false|0x[0-9a-f]+l{0,2}|[-+]?[0-9]+l{0,2}|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?[0-9]+e[-+]?[0-9]+)$`)
	// Escapes that all releases of libconfig read the same way. A backslash
	// before anything else stands for itself.
	escapeRE = regexp.MustCompile(`\\(?:[nrtf\\"]|x[0-9A-Fa-f]{2})`)
)

func (l *lexer) advance(n int) string {
	taken := l.in[:n]
	l.line += strings.Count(taken, "\n")
	l.in = l.in[n:]
	return taken
}

func (l *lexer) skip() { l.advance(len(skipRE.FindString(l.in))) }

func (l *lexer) next() (token, error) {
	l.skip()
	if l.in == "" {
		return token{kind: endTok}, nil
	}
	c := l.in[0]
	switch {
	case c == ':':
		l.advance(1)
		return token{kind: '='}, nil
	case strings.IndexByte("={}()[];,", c) >= 0:
		l.advance(1)
		return token{kind: c}, nil
	case c == '"':
		var out strings.Builder
		for strings.HasPrefix(l.in, `"`) {
			s, err := l.quoted()
			if err != nil {
				return token{}, err
			}
			out.WriteString(s)
			l.skip()
		}
		if s := out.String(); utf8.ValidString(s) && !strings.ContainsRune(s, 0) {
			return token{stringTok, s}, nil
		}
		return token{}, noGood("a string is not text in UTF-8")
	default:
		if w := wordRE.FindString(l.in); w != "" {
			return token{word, l.advance(len(w))}, nil
		}
		return token{}, noGood("%q has no meaning here", c)
	}
}

func (l *lexer) quoted() (string, error) {
	end := 1
	for ; end < len(l.in) && l.in[end] != '"'; end++ {
		if l.in[end] == '\\' && end+1 < len(l.in) && (l.in[end+1] == '"' || l.in[end+1] == '\\') {
			end++
		} else if l.in[end] == '\\' && end+1 < len(l.in) && strings.IndexByte("abv", l.in[end+1]) >= 0 {
			return "", noGood("a string has an escape that releases of libconfig read differently")
		}
	}
	if end >= len(l.in) {
		return "", noGood("a string does not end")
	}
	s := l.advance(end + 1)
	return escapeRE.ReplaceAllStringFunc(s[1:end], func(e string) string {
		if e[1] == 'x' {
			b, err := strconv.ParseUint(e[2:], 16, 8)
			if err != nil {
				return e
			}
			return string([]byte{byte(b)})
		}
		return map[byte]string{'n': "\n", 'r': "\r", 't': "\t", 'f': "\f", '\\': `\`, '"': `"`}[e[1]]
	}), nil
}

// scan feeds the tokens to n. What is open is on n's stack.
func (l *lexer) scan(n *notes) error {
	if err := n.begin("", true); err != nil {
		return err
	}
	for len(n.stack) > 0 {
		if err := l.step(n); err != nil {
			return fmt.Errorf("line %d: %w", l.line, err)
		}
	}
	return nil
}

// step reads a setting, an element of a list, a separator or an end.
func (l *lexer) step(n *notes) error {
	f := n.top()
	t, err := l.next()
	if err != nil {
		return err
	}
	after := f.after
	f.after = false
	switch {
	case t.kind == f.closing:
		if err := n.end(); err != nil {
			return err
		}
		if p := n.top(); p != nil {
			p.after = true
		}
		return nil
	case after && (t.kind == ',' || t.kind == ';' && f.group):
		return nil
	case after && !f.group:
		return noGood("%q within a list where a comma or its end is due", t)
	case f.group:
		return l.setting(n, t)
	default:
		return l.value(n, "", t)
	}
}

func (l *lexer) setting(n *notes, t token) error {
	if t.kind != word || !nameRE.MatchString(t.text) {
		return noGood("%q where the name of a setting is due", t)
	}
	if err := n.name(t.text); err != nil {
		return err
	}
	name := t.text
	t, err := l.next()
	if err != nil {
		return err
	}
	if t.kind != '=' {
		return noGood("setting %q is not followed by = or :", name)
	}
	if t, err = l.next(); err != nil {
		return err
	}
	return l.value(n, name, t)
}

func (l *lexer) value(n *notes, name string, t token) error {
	f := n.top()
	closing := map[byte]byte{'{': '}', '(': ')', '[': ']'}[t.kind]
	switch {
	case closing != 0 && f.closing == ']':
		return noGood("a group or list within [ ]")
	case closing != 0:
		if err := n.begin(name, closing == '}'); err != nil {
			return err
		}
		n.top().closing = closing
		return nil
	case t.kind == stringTok || t.kind == word && restRE.MatchString(t.text):
		f.after = true
		return n.value(name, t.text, t.kind == stringTok)
	default:
		return noGood("%q where a value is due", t)
	}
}
