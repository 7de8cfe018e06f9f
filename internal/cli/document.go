package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// document is what somebody is asked to sign: exact bytes, and every member of
// them, in order, in a form that a person can read.
type document struct {
	bytes   []byte
	digest  fw.Digest
	members []member
}

// member is one value with the way to it, e.g. "stages[0].count" and "2".
type member struct{ path, value string }

// maxMembers bounds what a person is asked to read.
const maxMembers = 2000

// readDocument takes the bytes apart without leaving anything out: a signer
// must not be shown less than what is signed. A member that appears twice is
// refused, because readers differ in which one they believe.
func readDocument(b []byte) (*document, error) {
	d := &document{bytes: b, digest: fw.DigestOf(b)}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := d.walk(dec, ""); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "the server's document is not one a person should sign")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fw.Errorf(fw.Corrupt, "the server's document is not one a person should sign: something follows its end")
	}
	return d, nil
}

func (d *document) walk(dec *json.Decoder, path string) error {
	if len(d.members) > maxMembers {
		return fmt.Errorf("over %d members", maxMembers)
	}
	t, err := dec.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		seen := map[string]bool{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return err
			}
			name, ok := k.(string)
			// encoding/json matches names without regard to case.
			if !ok || seen[strings.ToLower(name)] {
				return fmt.Errorf("member %q appears twice", name)
			}
			seen[strings.ToLower(name)] = true
			if err := d.walk(dec, strings.TrimPrefix(path+"."+name, ".")); err != nil {
				return err
			}
		}
		_, err = dec.Token()
		return err
	case json.Delim('['):
		for i := 0; dec.More(); i++ {
			if err := d.walk(dec, path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
		_, err = dec.Token()
		return err
	}
	d.members = append(d.members, member{path, value(path, t)})
	return nil
}

// value prints a value; times also as dates.
func value(path string, t json.Token) string {
	switch v := t.(type) {
	case string:
		return v
	case json.Number:
		n, err := v.Int64()
		name := path[strings.LastIndex(path, ".")+1:]
		if err == nil && n > 0 && (strings.HasSuffix(name, "_at") || name == "not_before" || name == "not_after" || name == "since") {
			return fmt.Sprintf("%d (%s)", n, unix(n))
		}
		return v.String()
	case nil:
		return "null"
	}
	return fmt.Sprint(t)
}

// get returns the value at path, "" when there is none.
func (d *document) get(path string) string {
	for _, m := range d.members {
		if m.path == path {
			return m.value
		}
	}
	return ""
}

// about checks that the document is of type typ and about what was asked for:
// a server must not get another signature than the one the person meant.
func (d *document) about(typ, path, id string) error {
	if got := d.get("type"); got != typ {
		return fw.Errorf(fw.Corrupt, "the server gave a document of type %q where %s was asked for: nothing was signed", oneLine(got), typ)
	}
	if got := d.get(path); got != id {
		return fw.Errorf(fw.Corrupt, "the server gave a document about %q where %s was asked for: nothing was signed", oneLine(got), id)
	}
	return nil
}

// headline says in one line what a signature would mean.
func (d *document) headline() string {
	switch d.get("type") {
	case fw.TypeManifest:
		return fmt.Sprintf("release %s %s (%s), proposed by %s", d.get("product"), d.get("version"), d.get("release_type"), d.get("proposed_by"))
	case fw.TypePlan:
		return fmt.Sprintf("campaign %q: offer release %s to devices of %s, proposed by %s", d.get("name"), d.get("release"), d.get("product"), d.get("proposed_by"))
	case fw.TypeStageGo:
		return fmt.Sprintf("stage %s (%s) of campaign %s may begin", d.get("stage"), d.get("name"), d.get("campaign"))
	case fw.TypeLifecycle:
		return fmt.Sprintf("device %s goes from %s to %s, asked by %s", d.get("device"), d.get("from"), d.get("to"), d.get("requested_by"))
	}
	return d.get("type")
}

// print shows everything that would be signed.
func (d *document) print(w io.Writer) {
	putf(w, "You are asked to sign:\n\n  %s\n\n", oneLine(d.headline()))
	d.list(w)
	putf(w, "\n  %d bytes, %s\n\n", len(d.bytes), d.digest)
}

// list writes every member on a line of its own.
func (d *document) list(w io.Writer) {
	width := 0
	for _, m := range d.members {
		width = max(width, len(m.path))
	}
	for _, m := range d.members {
		text := strings.ReplaceAll(printable(m.value, '\n'), "\n", "\n"+strings.Repeat(" ", width+4))
		putf(w, "  %-*s  %s\n", width, oneLine(m.path), text)
	}
}
