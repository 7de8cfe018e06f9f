package swu

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// description is what an sw-description says, as far as it matters here.
type description struct {
	language string // libconfig or json
	version  string
	text     string
	hardware []string
	files    []reference
	script   bool // it has Lua of its own
}

// reference is a file that a description names, once however often it does.
type reference struct {
	name      string
	sha256    []byte
	section   string // images, files, scripts, as SWUpdate calls them
	typ       string
	encrypted bool
}

// Languages of descriptions.
const (
	langConfig = "libconfig"
	langJSON   = "json"
)

// readDescription parses an sw-description. SWUpdate tries libconfig, then JSON;
// a document that starts with { is none in libconfig.
func readDescription(in []byte) (*description, error) {
	d := &description{language: langConfig}
	parse := parseConfig
	if trimmed := bytes.TrimLeft(in, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		d.language, parse = langJSON, parseJSON
	}
	root, err := parse(in)
	if err == nil {
		err = d.interpret(root)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s as %s: %w", nameDescription, d.language, err)
	}
	return d, nil
}

func (d *description) interpret(root *node) error {
	software := root.child("software")
	if software == nil || software.kind != group {
		return malformed("it has no group software")
	}
	if t := software.child("description"); t != nil && t.kind == text {
		d.text = t.text
	}
	d.script = software.child("embedded-script") != nil
	if err := d.walk("software", software, true); err != nil {
		return err
	}
	if d.version == "" {
		return malformed("it has no version")
	}
	return nil
}

// walk collects what a node under that name says. Which part of the tree a
// device looks at depends on its board, on the operator's selection and on links;
// all of them must be right. settings is set where a device may look for
// settings: in groups within groups.
func (d *description) walk(name string, n *node, settings bool) error {
	switch n.kind {
	case list:
		for _, kid := range n.kids {
			if err := d.walk(name, kid, false); err != nil {
				return err
			}
		}
	case group:
		if f := n.child("filename"); f != nil {
			if err := d.reference(name, f, n); err != nil {
				return err
			}
			settings = false
		}
		for i, kid := range n.kids {
			if settings {
				if err := d.setting(n.names[i], kid); err != nil {
					return err
				}
			}
			// The properties of a file are for its handler; they mean nothing here.
			if n.names[i] == "properties" {
				continue
			}
			if err := d.walk(n.names[i], kid, settings); err != nil {
				return err
			}
		}
	case text, scalar:
	}
	return nil
}

// setting takes in a version or a list of hardware.
func (d *description) setting(name string, n *node) error {
	switch name {
	case "version":
		if n.kind == group {
			return fmt.Errorf("the version is a link; write it out: %w", image.ErrUnsupported)
		}
		if n.kind != text || n.text == "" {
			return malformed("the version is no string")
		}
		if d.version != "" && d.version != n.text {
			return fmt.Errorf("it says version %q and, for some boards, %q; make them releases of their own: %w", d.version, n.text, image.ErrUnsupported)
		}
		d.version = n.text
	case "hardware-compatibility":
		if n.kind == group {
			return fmt.Errorf("hardware-compatibility is a link; write it out: %w", image.ErrUnsupported)
		}
		if n.kind != list {
			return malformed("hardware-compatibility is no list")
		}
		for _, h := range n.kids {
			if h.kind != text || h.text == "" {
				return malformed("hardware-compatibility has something in it that is no string")
			}
			if !slices.Contains(d.hardware, h.text) {
				d.hardware = append(d.hardware, h.text)
			}
		}
	}
	return nil
}

// reference takes in a group with a file name.
func (d *description) reference(section string, filename, g *node) error {
	if filename.kind != text {
		return malformed("a file name is no string")
	}
	if err := checkName(filename.text); err != nil || filename.text == "" || len(filename.text) > maxName {
		return malformed("file name %q is not allowed", filename.text)
	}
	if slices.Contains([]string{nameDescription, nameSignature, nameTrailer}, filename.text) {
		return malformed("file name %q has another meaning", filename.text)
	}
	ref := reference{name: filename.text, section: section}
	if h := g.child("sha256"); h != nil && h.kind == text {
		sum, err := hex.DecodeString(h.text)
		if err != nil || len(sum) != 32 {
			return malformed("sha256 %q of file %q is not 64 hexadecimal digits", h.text, ref.name)
		}
		ref.sha256 = sum
	}
	if ref.sha256 == nil {
		return malformed("file %q has no sha256, so nothing would sign it and SWUpdate refuses it", ref.name)
	}
	if t := g.child("type"); t != nil && t.kind == text {
		ref.typ = t.text
	}
	if e := g.child("encrypted"); e != nil && e.text != "false" {
		ref.encrypted = true
	}
	for i := range d.files {
		have := &d.files[i]
		if have.name != ref.name {
			continue
		}
		if !bytes.Equal(have.sha256, ref.sha256) {
			return malformed("file %q has two different sha256", ref.name)
		}
		have.encrypted = have.encrypted || ref.encrypted
		return nil
	}
	if len(d.files) == MaxFiles {
		return fmt.Errorf("it names more than %d files: %w", MaxFiles, image.ErrTooLarge)
	}
	d.files = append(d.files, ref)
	return nil
}
