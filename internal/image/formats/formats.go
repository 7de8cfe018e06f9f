// Package formats lists the container formats writ knows and picks one for an
// image, by name or by looking at its first bytes.
//
// The list is an explicit value, not a registry that packages add themselves
// to: what the program accepts is what this file says. Order matters for
// detection. Raw accepts any bytes, so it is last, and an image in a format
// that writ does not know is raw.
package formats

import (
	"fmt"
	"io"
	"slices"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/esp"
	"github.com/writ-project/writ/internal/image/mcuboot"
	"github.com/writ-project/writ/internal/image/mender"
	"github.com/writ-project/writ/internal/image/minisign"
	"github.com/writ-project/writ/internal/image/rauc"
	"github.com/writ-project/writ/internal/image/raw"
	"github.com/writ-project/writ/internal/image/suit"
	"github.com/writ-project/writ/internal/image/swu"
)

// All returns every format in detection order.
func All() []image.Format {
	return []image.Format{mcuboot.Format{}, esp.Format{}, swu.Format{}, rauc.Format{}, suit.Format{}, mender.Format{}, minisign.Format{}, minisign.Signify{}, raw.Format{}}
}

// ForName returns the format with that name.
func ForName(name string) (image.Format, bool) {
	for _, f := range All() {
		if f.Name() == name {
			return f, true
		}
	}
	return nil, false
}

// prober is a format whose first bytes do not tell its images from other files. A
// RAUC bundle starts like any squashfs, or when encrypted like nothing.
type prober interface {
	Probe(r io.ReaderAt, size int64) bool
}

// Detect picks the format of an image by its first bytes, and its last where
// those do not tell. It does not say that the image is well formed; Inspect does.
func Detect(r io.ReaderAt, size int64) (image.Format, error) {
	if size <= 0 {
		return nil, fmt.Errorf("detecting image format: image is empty: %w", image.ErrTruncated)
	}
	prefix := make([]byte, min(size, image.PrefixSize))
	if err := image.ReadAt(r, prefix, 0); err != nil {
		return nil, fmt.Errorf("detecting image format: %w", err)
	}
	for _, f := range All() {
		fits := f.Detect(prefix)
		if p, ok := f.(prober); ok {
			fits = p.Probe(r, size)
		}
		if fits {
			return f, nil
		}
	}
	return nil, fmt.Errorf("detecting image format: no format fits: %w", image.ErrUnsupported)
}

// ForEnvelope picks the format of a detached signature, which the image beside it
// does not show: raw, for DSSE, when it is none of the others.
func ForEnvelope(b []byte) image.Format {
	if f, ok := minisign.DetectEnvelope(b); ok {
		return f
	}
	if f := (suit.Format{}); f.Detect(b) {
		return f
	}
	return raw.Format{}
}

// noCounter are the formats that have no place for a security counter. The
// release statement and the authorization carry it for them.
var noCounter = []string{"swu", "rauc", "mender", "minisign", "signify"}

// HasCounter reports whether images of a format carry a security counter.
func HasCounter(name string) bool { return !slices.Contains(noCounter, name) }

// builders are the formats whose Sign makes an image of a plain binary, and of
// one of their own images something like it.
var builders = []string{"mcuboot", "swu"}

// Builds reports whether images of a format can be made of a plain binary, which
// says nothing of itself.
func Builds(name string) bool { return slices.Contains(builders, name) }
