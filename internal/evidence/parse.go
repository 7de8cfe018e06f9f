package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// parser reads the envelope of a record, which has one form: these members in
// this order, without whitespace. The first error sticks.
type parser struct {
	b   []byte
	i   int
	err error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("at byte %d: %s", p.i, fmt.Sprintf(format, args...))
	}
}

func (p *parser) record(r *Record) {
	p.literal(`{"v":`)
	r.V = int(p.number())
	if p.err == nil && r.V != Version {
		p.fail("version %d is not known: use a newer writ", r.V)
	}
	p.literal(`,"i":`)
	r.Index = p.number()
	p.literal(`,"t":`)
	t := p.text()
	if k, ok := known[string(t)]; ok {
		r.Type = k
	} else {
		r.Type = Type(t)
	}
	p.literal(`,"ms":`)
	r.MS = p.number()
	p.literal(`,"actor":`)
	r.Actor = string(p.text())
	p.literal(`,"streams":[`)
	r.Streams = make([]Link, 0, 2)
	for p.err == nil {
		if len(r.Streams) == maxStreams {
			p.fail("more than %d streams", maxStreams)
			break
		}
		r.Streams = append(r.Streams, p.link())
		if !p.have(",") {
			break
		}
	}
	p.literal(`],"data":`)
	if p.err != nil {
		return
	}
	s := scanner{b: p.b, i: p.i, names: make([][]byte, 0, 2*manyMembers)}
	if err := s.object(0); err != nil {
		p.err = err
		return
	}
	r.Data = p.b[p.i:s.i:s.i]
	p.i = s.i
	p.literal(`}`)
	if p.err == nil && p.i != len(p.b) {
		p.fail("%d bytes after the end", len(p.b)-p.i)
	}
}

func (p *parser) link() (l Link) {
	p.literal(`{"s":`)
	l.Stream = StreamID(p.text())
	p.literal(`,"n":`)
	l.N = p.number()
	if p.have(`,"p":"`) {
		const digits = 2 * len(l.Prev)
		if len(p.b)-p.i < digits {
			p.fail("the commitment is cut off")
			return l
		}
		h := p.b[p.i : p.i+digits]
		if _, err := hex.Decode(l.Prev[:], h); err != nil || bytes.ContainsAny(h, "ABCDEF") || l.Prev.IsZero() {
			p.fail("a commitment is 64 lower-case hexadecimal digits, not all zero")
		}
		p.i += digits
		p.literal(`"`)
	}
	p.literal(`}`)
	return l
}

// have consumes s if it is next.
func (p *parser) have(s string) bool {
	if p.err != nil || len(p.b)-p.i < len(s) || string(p.b[p.i:p.i+len(s)]) != s {
		return false
	}
	p.i += len(s)
	return true
}

func (p *parser) literal(s string) {
	if !p.have(s) {
		p.fail("want %s", s)
	}
}

// number reads a whole number from 0 to maxNumber without leading zeros.
func (p *parser) number() int64 {
	start := p.i
	var n int64
	for p.err == nil && p.i < len(p.b) && p.b[p.i] >= '0' && p.b[p.i] <= '9' {
		if n = n*10 + int64(p.b[p.i]-'0'); n > maxNumber {
			p.fail("a number over %d", int64(maxNumber))
		}
		p.i++
	}
	if p.i == start || p.b[start] == '0' && p.i > start+1 {
		p.fail("want a whole number")
	}
	return n
}

// text reads a string. It must be written as json.Marshal writes it.
func (p *parser) text() []byte {
	if p.err != nil {
		return nil
	}
	s := scanner{b: p.b, i: p.i}
	if err := s.string(); err != nil {
		p.err = err
		return nil
	}
	raw := p.b[p.i:s.i]
	p.i = s.i
	if len(raw) > 6*maxName+2 { // every byte escaped
		p.fail("a name over %d bytes", maxName)
		return nil
	}
	plain := raw[1 : len(raw)-1]
	if !s.escaped && !s.special {
		return plain
	}
	var v string
	if err := json.Unmarshal(raw, &v); err != nil {
		p.fail("a malformed string: %v", err)
		return nil
	}
	if !bytes.Equal(appendString(nil, v), raw) {
		p.fail("the string %.80s is not written in its one form", raw)
	}
	return []byte(v)
}
