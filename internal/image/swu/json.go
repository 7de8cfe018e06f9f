package swu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// parseJSON reads a description in JSON. encoding/json would take the last of
// two members of the same name and json-c, on the device, may not: there must be
// one.
func parseJSON(in []byte) (*node, error) {
	if !utf8.Valid(in) {
		return nil, malformed("it is not text in UTF-8")
	}
	p := &jsonReader{d: json.NewDecoder(bytes.NewReader(in))}
	p.d.UseNumber()
	n, err := p.value(0)
	if err != nil {
		return nil, fmt.Errorf("at byte %d: %w", p.d.InputOffset(), err)
	}
	if _, err := p.d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("something follows the document at byte %d", p.d.InputOffset())
	}
	return n, nil
}

type jsonReader struct {
	d     *json.Decoder
	nodes int
}

func (p *jsonReader) token() (json.Token, error) {
	t, err := p.d.Token()
	if err != nil {
		return nil, malformed("no JSON: %w", err)
	}
	return t, nil
}

func (p *jsonReader) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, malformed("nested deeper than %d", maxDepth)
	}
	p.nodes++
	if p.nodes > maxNodes {
		return nil, fmt.Errorf("more than %d values: %w", maxNodes, image.ErrTooLarge)
	}
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case string:
		if strings.ContainsRune(t, 0) {
			return nil, malformed("a string has a zero in it")
		}
		return &node{kind: text, text: t}, nil
	case json.Number:
		return &node{kind: scalar, text: t.String()}, nil
	case bool:
		return &node{kind: scalar, text: strconv.FormatBool(t)}, nil
	case json.Delim:
		if t == '{' {
			return p.object(depth)
		}
		return p.array(depth)
	default:
		return nil, malformed("null where a value is due")
	}
}

func (p *jsonReader) object(depth int) (*node, error) {
	g := &node{kind: group}
	for p.d.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok || g.child(name) != nil {
			return nil, malformed("member %q is there twice", name)
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		g.names, g.kids = append(g.names, name), append(g.kids, v)
	}
	_, err := p.token()
	return g, err
}

func (p *jsonReader) array(depth int) (*node, error) {
	l := &node{kind: list}
	for p.d.More() {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l.kids = append(l.kids, v)
	}
	_, err := p.token()
	return l, err
}
