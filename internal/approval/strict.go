package approval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth bounds the nesting of a signed JSON document.
const maxDepth = 16

// Decode decodes exactly one JSON value, a document that people
// signed. It refuses unknown members,
// trailing data, and members that differ only in case or not at all:
// encoding/json would take the last, another reader the first, and the two
// would see different documents under one signature.
func Decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the document")
	}
	d = json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func checkValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			s, _ := name.(string)
			if s = strings.ToLower(s); seen[s] {
				return fmt.Errorf("member %q appears twice", s)
			}
			seen[s] = true
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
