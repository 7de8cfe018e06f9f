package swu

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Layout is [image.SignOptions.Layout] for this format, a strict JSON object.
// docs/formats/swu.md describes it with examples.
type Layout struct {
	// Signature is what devices are built to check: cms, which is the default,
	// cms-pss, or rsa and rsa-pss for a bare RSA signature.
	Signature string `json:"signature,omitempty"`
	// Purpose is what devices check the certificate for: email_protection,
	// which is the default, or code_signing.
	Purpose cms.Purpose `json:"purpose,omitempty"`
	// SigningTime, in RFC 3339, goes into the CMS signature.
	SigningTime string `json:"signing_time,omitempty"`

	// Hardware are the revisions that devices compare with theirs
	// (hardware-compatibility), in place of the release's hardware ids.
	Hardware []string `json:"hardware,omitempty"`
	// AnyHardware leaves them out, or accepts a description without: for
	// devices built without CONFIG_HW_COMPATIBILITY. Others refuse the update.
	AnyHardware bool `json:"any_hardware,omitempty"`

	// The rest is for building an image, not for signing one anew.

	// Description is a text for people.
	Description string `json:"description,omitempty"`
	// Archive says that the input is a cpio archive (newc or crc) of the files to
	// be installed. Otherwise it is the only file itself.
	Archive bool `json:"archive,omitempty"`
	// Images says what happens with the files, in this order. Every file needs
	// one entry at least.
	Images []Image `json:"images,omitempty"`
}

// Image is an entry of the description. The members are SWUpdate's own.
type Image struct {
	// Filename is the name within the archive. The only file of an image that
	// is not built from an archive may do without.
	Filename string `json:"filename,omitempty"`
	// Section is images, which is the default, files or scripts.
	Section string `json:"section,omitempty"`
	// Type is the handler: raw, rawfile, archive, ubivol, shellscript, …
	Type       string `json:"type,omitempty"`
	Name       string `json:"name,omitempty"`
	Version    string `json:"version,omitempty"`
	Device     string `json:"device,omitempty"`
	Path       string `json:"path,omitempty"`
	Volume     string `json:"volume,omitempty"`
	MTDName    string `json:"mtdname,omitempty"`
	Filesystem string `json:"filesystem,omitempty"`
	Offset     string `json:"offset,omitempty"` // bytes, perhaps with suffix K, M or G
	Compressed string `json:"compressed,omitempty"`
	Data       string `json:"data,omitempty"`

	InstalledDirectly  bool `json:"installed_directly,omitempty"`
	InstallIfDifferent bool `json:"install_if_different,omitempty"`
	InstallIfHigher    bool `json:"install_if_higher,omitempty"`
	PreserveAttributes bool `json:"preserve_attributes,omitempty"`

	// Encrypted says that the file already is encrypted, with the key that
	// devices have and the initialisation vector IVT (32 hexadecimal digits).
	Encrypted bool   `json:"encrypted,omitempty"`
	IVT       string `json:"ivt,omitempty"`

	Properties map[string]string `json:"properties,omitempty"`
}

const (
	defaultFilename = "image.bin"
	maxText         = 255 // bytes; SWUpdate cuts what is longer
	maxHardware     = 64
)

var (
	sections   = []string{"images", "files", "scripts"}
	settingRE  = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_]{0,63}$`)
	ivtRE      = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
	compressed = []string{"", "zlib", "zstd"}
)

// settings is Layout and SignOptions, checked as far as possible without the
// image and the key.
type settings struct {
	Layout
	version string
	time    time.Time
	opt     image.SignOptions
}

func badOptions(format string, args ...any) error {
	return fmt.Errorf("reading options: %w: %w", fmt.Errorf(format, args...), image.ErrBadOptions)
}

func readOptions(opt image.SignOptions) (*settings, error) {
	s := &settings{version: opt.Version, opt: opt}
	if len(opt.Layout) != 0 {
		if err := dsse.Decode(opt.Layout, &s.Layout); err != nil {
			return nil, badOptions("layout: %w", err)
		}
	}
	if s.Signature == "" {
		s.Signature = signCMS
	}
	switch s.Signature {
	case signCMS, signCMSPSS:
	case signRSA, signRSAPSS:
		if s.Purpose != "" || s.SigningTime != "" {
			return nil, badOptions("a signature of kind %s has neither certificate nor signing time", s.Signature)
		}
	default:
		return nil, badOptions("signature %q is unknown, use %s, %s, %s or %s", s.Signature, signCMS, signCMSPSS, signRSA, signRSAPSS)
	}
	if s.SigningTime != "" {
		var err error
		if s.time, err = time.Parse(time.RFC3339, s.SigningTime); err != nil {
			return nil, badOptions("signing time: %w", err)
		}
	}
	if s.Hardware == nil {
		s.Hardware = opt.Hardware
	}
	if s.AnyHardware {
		s.Hardware = nil
	} else if len(s.Hardware) == 0 {
		return s, nil // which is right for an image that is signed anew
	}
	if len(s.Hardware) > maxHardware {
		return nil, badOptions("%d hardware revisions are over the limit of %d", len(s.Hardware), maxHardware)
	}
	for i, h := range s.Hardware {
		if err := plain("hardware revision", h); err != nil {
			return nil, err
		}
		if h == "" || slices.Contains(s.Hardware[:i], h) {
			return nil, badOptions("hardware revision %q is empty or there twice", h)
		}
	}
	return s, nil
}

// plain refuses text that SWUpdate would cut or readers would take for
// something else.
func plain(what, s string) error {
	if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return badOptions("%s %q is not at most %d bytes of printable text", what, s, maxText)
	}
	return nil
}

// forBuilding checks what only a new image needs.
func (s *settings) forBuilding() error {
	switch {
	case s.version == "":
		return badOptions("a new image needs a version")
	case len(s.Hardware) == 0 && !s.AnyHardware:
		return badOptions("a new image needs the hardware revisions that may install it; give any_hardware if devices do not check them")
	case len(s.Images) == 0:
		return badOptions("a new image needs images in its layout, which say what a device does with each file: at least a type and a device or path")
	case len(s.Images) > MaxFiles:
		return badOptions("%d images are over the limit of %d", len(s.Images), MaxFiles)
	case !s.Archive && len(s.Images) != 1:
		return badOptions("the input is one file and the layout has %d images; give several files as a cpio archive, and archive in the layout", len(s.Images))
	}
	if err := plain("version", s.version); err != nil {
		return err
	}
	if err := plain("description", s.Description); err != nil {
		return err
	}
	for i := range s.Images {
		if err := s.Images[i].check(s.Archive); err != nil {
			return err
		}
	}
	return nil
}

func (m *Image) check(archive bool) error {
	if m.Filename == "" && !archive {
		m.Filename = defaultFilename
	}
	if m.Section == "" {
		m.Section = sections[0]
	}
	if !isFileName(m.Filename) {
		return badOptions("file name %q is not that of a file", m.Filename)
	}
	for what, text := range map[string]string{
		"type": m.Type, "name": m.Name, "version": m.Version, "device": m.Device, "path": m.Path, "volume": m.Volume,
		"mtdname": m.MTDName, "filesystem": m.Filesystem, "offset": m.Offset, "data": m.Data,
	} {
		if err := plain(what+" of "+m.Filename, text); err != nil {
			return err
		}
	}
	for name, value := range m.Properties {
		if !settingRE.MatchString(name) {
			return badOptions("property %q of %s is no name of a setting", name, m.Filename)
		}
		if err := plain("property "+name+" of "+m.Filename, value); err != nil {
			return err
		}
	}
	switch {
	case !slices.Contains(sections, m.Section):
		return badOptions("section %q of %s is unknown, use one of %v", m.Section, m.Filename, sections)
	case m.Section == "images" && m.Type == "" && m.Device == "" && m.Volume == "":
		return badOptions("%s has no type, device or volume, so no device knows what to do with it", m.Filename)
	case m.Section == "files" && m.Path == "":
		return badOptions("%s is among the files and has no path", m.Filename)
	case !slices.Contains(compressed, m.Compressed):
		return badOptions("compression %q of %s is unknown, use zlib or zstd", m.Compressed, m.Filename)
	case m.IVT != "" && (!m.Encrypted || !ivtRE.MatchString(m.IVT)):
		return badOptions("ivt of %s is not 32 hexadecimal digits, or the file is not encrypted", m.Filename)
	}
	return nil
}

// isFileName reports whether a file in the archive may have that name.
func isFileName(s string) bool {
	return s != "" && len(s) <= maxName && s != "." && s != ".." && utf8.ValidString(s) &&
		s != nameDescription && s != nameSignature && s != nameTrailer &&
		!strings.ContainsFunc(s, func(c rune) bool { return c == '/' || c == '\\' || !unicode.IsPrint(c) })
}
