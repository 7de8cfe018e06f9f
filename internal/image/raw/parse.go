package raw

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// This file and verify.go read envelopes without the DSSE library that Sign
// uses and without Sign's types.

// members returns the members of the JSON object in b. It refuses duplicate
// names, which readers resolve differently, and trailing data. Names are exact:
// encoding/json alone would also match them regardless of case.
func members(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("member without a name")
		}
		if _, dup := out[name]; dup {
			return nil, fmt.Errorf("member %.40q occurs twice", name)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("member %.40q: %w", name, err)
		}
		out[name] = v
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return out, nil
}

// object reads one JSON object member by member and remembers the first error,
// so that a reader of the code sees the fields and not the plumbing.
type object struct {
	where string
	m     map[string]json.RawMessage
	err   error
}

func newObject(where string, b []byte) *object {
	m, err := members(b)
	o := &object{where: where, m: m}
	if err != nil {
		o.fail("%v", err)
	}
	return o
}

func (o *object) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("reading %s: %s: %w", o.where, fmt.Sprintf(format, args...), image.ErrMalformed)
	}
}

// take decodes a member into v and removes it. It reports whether it was there;
// JSON null counts as a wrong value, not as absence.
func (o *object) take(name string, v any) bool {
	b, ok := o.m[name]
	delete(o.m, name)
	if !ok {
		return false
	}
	if bytes.Equal(b, []byte("null")) {
		o.fail("%s is null", name)
		return true
	}
	if err := json.Unmarshal(b, v); err != nil {
		o.fail("%s: %v", name, err)
	}
	return true
}

// need is take for members that must be there.
func (o *object) need(name string, v any) {
	if !o.take(name, v) {
		o.fail("%s is missing", name)
	}
}

// text is take for bounded strings. A present string must not be empty.
func (o *object) text(name string) string {
	var s string
	if o.take(name, &s) && (s == "" || len(s) > maxText) {
		o.fail("%s has %d bytes, want 1 to %d", name, len(s), maxText)
	}
	return s
}

// done refuses the members that nothing took.
func (o *object) done() error {
	for name := range o.m {
		o.fail("unknown member %.40q", name)
		break
	}
	return o.err
}

// decodeBase64 reads standard or URL-safe base64, as the DSSE envelope
// specification asks, with padding and without the newlines and stray bits
// that encoding/base64 would overlook.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("base64 has line breaks")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		b, err = base64.URLEncoding.Strict().DecodeString(s)
	}
	return b, err
}
