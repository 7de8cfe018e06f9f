package mender

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// headerReader collects the files of header.tar.
type headerReader struct {
	info  []byte
	types []string // what header-info says the payloads are
	out   Details
	meta  bool // the last payload has its meta-data
}

// file takes the next file. Their order is header-info, scripts, and for each
// payload type-info and possibly meta-data.
func (h *headerReader) file(name string, r io.Reader) error {
	if h.info == nil {
		if name != "header-info" {
			return fmt.Errorf("it comes first, want header-info: %w", image.ErrMalformed)
		}
		var err error
		if h.info, err = readJSON(r); err != nil {
			return err
		}
		return h.readInfo()
	}
	n := len(h.out.Payloads)
	switch {
	case strings.HasPrefix(name, "scripts/") && n == 0 && plainName(name[len("scripts/"):]):
		_, err := io.Copy(io.Discard, r)
		return err
	case n < len(h.types) && name == fmt.Sprintf("headers/%04d/type-info", n):
		b, err := readJSON(r)
		if err != nil {
			return err
		}
		p, err := readTypeInfo(b)
		if err != nil {
			return err
		}
		if p.Type != h.types[n] {
			return fmt.Errorf("the type is %q, header-info says %q: %w", p.Type, h.types[n], image.ErrMalformed)
		}
		h.out.Payloads, h.meta = append(h.out.Payloads, p), false
		return nil
	case n > 0 && !h.meta && name == fmt.Sprintf("headers/%04d/meta-data", n-1):
		h.meta = true
		b, err := readJSON(r)
		if err != nil {
			return err
		}
		if len(b) == 0 { // mender-artifact writes an empty file for none
			return nil
		}
		_, err = members(b)
		return err
	}
	return fmt.Errorf("it does not belong there: %w", image.ErrMalformed)
}

// details returns what the header said.
func (h *headerReader) details() (Details, error) {
	if h.info == nil {
		return Details{}, fmt.Errorf("header-info is missing: %w", image.ErrMalformed)
	}
	if len(h.out.Payloads) != len(h.types) {
		return Details{}, fmt.Errorf("type-info of payload %d of %d is missing: %w", len(h.out.Payloads), len(h.types), image.ErrMalformed)
	}
	return h.out, nil
}

func readJSON(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err == nil && len(b) > maxJSON {
		err = fmt.Errorf("more than %d bytes of JSON: %w", maxJSON, image.ErrTooLarge)
	}
	return b, err
}

func (h *headerReader) readInfo() error {
	m, err := members(h.info)
	if err != nil {
		return err
	}
	var payloads []json.RawMessage
	if err := field(m, "payloads", &payloads); err != nil {
		return err
	}
	if len(payloads) == 0 || len(payloads) > maxPayloads {
		return fmt.Errorf("%d payloads, want 1 to %d: %w", len(payloads), maxPayloads, image.ErrMalformed)
	}
	for _, raw := range payloads {
		p, err := members(raw)
		if err != nil {
			return err
		}
		var typ string
		if err := field(p, "type", &typ); err != nil { // null stays empty
			return err
		}
		h.types = append(h.types, typ)
	}
	provides, err := stringMap(m["artifact_provides"])
	if err != nil {
		return fmt.Errorf("artifact_provides: %w", err)
	}
	h.out.ArtifactName, h.out.ArtifactGroup = provides["artifact_name"], provides["artifact_group"]
	if h.out.ArtifactName == "" {
		return fmt.Errorf("artifact_provides has no artifact_name: %w", image.ErrMalformed)
	}
	if h.out.Depends, err = listMap(m["artifact_depends"]); err != nil {
		return fmt.Errorf("artifact_depends: %w", err)
	}
	if len(h.out.Depends["device_type"]) == 0 {
		return fmt.Errorf("artifact_depends has no device_type: %w", image.ErrMalformed)
	}
	return nil
}

func readTypeInfo(b []byte) (Payload, error) {
	var p Payload
	m, err := members(b)
	if err != nil {
		return p, err
	}
	if err := field(m, "type", &p.Type); err != nil {
		return p, err
	}
	if p.Provides, err = stringMap(m["artifact_provides"]); err != nil {
		return p, fmt.Errorf("artifact_provides: %w", err)
	}
	if p.Depends, err = listMap(m["artifact_depends"]); err != nil {
		return p, fmt.Errorf("artifact_depends: %w", err)
	}
	return p, field(m, "clears_artifact_provides", &p.ClearsProvides)
}

func readVersion(b []byte) error {
	m, err := members(b)
	if err != nil {
		return err
	}
	var format string
	var version int
	if err := errors.Join(field(m, "format", &format), field(m, "version", &version)); err != nil {
		return err
	}
	if format != "mender" || len(m) != 2 {
		return fmt.Errorf("it says %s: %w", b, image.ErrMalformed)
	}
	if version != 3 {
		return fmt.Errorf("artifact version %d, want 3: write it with mender-artifact write --version 3: %w", version, image.ErrUnsupported)
	}
	return nil
}

// members reads a JSON object one level deep. It refuses members that occur
// twice, also in another case: readers of JSON differ in which of them they
// take.
func members(b []byte) (map[string]json.RawMessage, error) {
	bad := func(err error) error { return fmt.Errorf("reading JSON: %w: %w", err, image.ErrMalformed) }
	dec := json.NewDecoder(bytes.NewReader(b))
	tok, err := dec.Token()
	if err != nil {
		return nil, bad(err)
	}
	if tok != json.Delim('{') {
		return nil, bad(fmt.Errorf("%v, want an object", tok))
	}
	out, folded := map[string]json.RawMessage{}, map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, bad(err)
		}
		key, _ := tok.(string)
		low := strings.ToLower(key)
		if folded[low] {
			return nil, bad(fmt.Errorf("member %q occurs twice", key))
		}
		folded[low] = true
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, bad(err)
		}
		out[key] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, bad(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad(errors.New("something follows the object"))
	}
	return out, nil
}

// field decodes one member. An absent one leaves v alone.
func field(m map[string]json.RawMessage, name string, v any) error {
	raw, ok := m[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("reading JSON: %s: %w: %w", name, err, image.ErrMalformed)
	}
	return nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func stringMap(raw json.RawMessage) (map[string]string, error) {
	if absent(raw) {
		return nil, nil
	}
	m, err := members(raw)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(m))
	for key := range m {
		var v string
		if err := field(m, key, &v); err != nil {
			return nil, err
		}
		out[key] = v
	}
	return out, nil
}

// listMap reads an object whose values are text or lists of text.
func listMap(raw json.RawMessage) (map[string][]string, error) {
	if absent(raw) {
		return nil, nil
	}
	m, err := members(raw)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]string, len(m))
	for key, value := range m {
		var one string
		var list []string
		if len(value) > 0 && value[0] == '"' {
			err = field(m, key, &one)
			list = []string{one}
		} else {
			err = field(m, key, &list)
		}
		if err != nil {
			return nil, err
		}
		out[key] = list
	}
	return out, nil
}
