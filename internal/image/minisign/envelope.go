package minisign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// This file reads signature files, without anything of what Sign uses.

// envelope is a signature file as read.
type envelope struct {
	format    string // minisign or signify
	number    Number
	sig       []byte
	untrusted string
	// Only minisign:
	trusted string
	global  []byte // signature over sig and trusted
}

// Details is what [InspectEnvelope] and Verify put into [image.Info.Details].
type Details struct {
	// UntrustedComment is under no signature.
	UntrustedComment string `json:"untrusted_comment"`
	// TrustedComment is signed, by minisign only.
	TrustedComment string `json:"trusted_comment,omitempty"`
}

// DetectEnvelope returns the format of a signature file, or false for what is
// none.
func DetectEnvelope(b []byte) (image.Format, bool) {
	e, err := readEnvelope(b)
	if err != nil {
		return nil, false
	}
	if e.format == (Signify{}).Name() {
		return Signify{}, true
	}
	return Format{}, true
}

// InspectEnvelope says what a signature file claims; no key is needed, and
// nothing is verified. The file has no digest of the image.
func InspectEnvelope(b []byte) (image.Info, error) {
	e, err := readEnvelope(b)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting signature file: %w", err)
	}
	info := image.Info{Size: int64(len(b)), Digests: []image.Digest{}}
	if err := e.describe(&info); err != nil {
		return image.Info{}, fmt.Errorf("inspecting signature file: %w", err)
	}
	return info, nil
}

// describe adds to info what the signature file says.
func (e *envelope) describe(info *image.Info) error {
	info.Format = e.format
	info.Signatures = []image.SignatureInfo{{Algorithm: image.AlgEd25519, KeyID: e.number.String()}}
	details, err := json.Marshal(Details{e.untrusted, e.trusted})
	if err != nil {
		return fmt.Errorf("encoding details: %w", err)
	}
	info.Details = details
	return readClaims(e.trusted, info)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("reading signature file: %s: %w", fmt.Sprintf(format, args...), image.ErrMalformed)
}

func readEnvelope(b []byte) (*envelope, error) {
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("reading signature file: there is none, give the one beside the image: %w", image.ErrUnsigned)
	case len(b) > MaxEnvelope:
		return nil, fmt.Errorf("reading signature file: %d bytes are over the limit of %d: %w", len(b), MaxEnvelope, image.ErrTooLarge)
	case bytes.IndexByte(b, '\r') >= 0:
		return nil, malformed("lines end with CR LF, want LF")
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	var e envelope
	var err error
	if e.untrusted, err = comment(lines[0], untrustedPrefix, maxUntrusted); err != nil {
		return nil, err
	}
	if len(lines) < 2 {
		return nil, malformed("the signature is missing")
	}
	raw, err := decode64(lines[1])
	if err != nil || len(raw) != 2+8+ed25519.SignatureSize {
		return nil, malformed("line 2 is not the base64 of %d bytes", 2+8+ed25519.SignatureSize)
	}
	e.number, e.sig = Number(raw[2:10]), raw[10:]
	switch alg := string(raw[:2]); {
	case alg == algPlain && len(lines) == 2:
		e.format = Signify{}.Name()
		return &e, nil
	case alg == algPlain && len(lines) == 4 && strings.HasPrefix(lines[2], trustedPrefix):
		return nil, fmt.Errorf("reading signature file: it is a legacy one, sign again without minisign -l: %w", image.ErrUnsupported)
	case alg == algPlain:
		return nil, malformed("%d lines, want 2: something follows the signature", len(lines))
	case alg != algPrehashed:
		return nil, fmt.Errorf("reading signature file: algorithm %q is neither Ed nor ED: %w", alg, image.ErrUnsupported)
	case len(lines) != 4:
		return nil, malformed("%d lines, want 4", len(lines))
	}
	e.format = Format{}.Name()
	if e.trusted, err = comment(lines[2], trustedPrefix, maxTrusted); err != nil {
		return nil, err
	}
	if e.global, err = decode64(lines[3]); err != nil || len(e.global) != ed25519.SignatureSize {
		return nil, malformed("line 4 is not the base64 of %d bytes", ed25519.SignatureSize)
	}
	return &e, nil
}

// comment returns a line without its prefix. It ends on terminals, so it is
// printable.
func comment(line, prefix string, limit int) (string, error) {
	text, ok := strings.CutPrefix(line, prefix)
	switch {
	case !ok:
		return "", malformed("a line does not begin with %q", prefix)
	case len(line) > limit:
		return "", malformed("the %s has %d bytes, over the limit of %d", strings.TrimSuffix(prefix, ": "), len(line), limit)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }):
		return "", malformed("the %s is not printable UTF-8", strings.TrimSuffix(prefix, ": "))
	}
	return text, nil
}

// readClaims reads the fields of a trusted comment that this package knows.
func readClaims(trusted string, info *image.Info) error {
	for field := range strings.SplitSeq(trusted, "\t") {
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			continue
		}
		var have bool
		switch name {
		case "product":
			have, info.Product = info.Product != "", value
		case "version":
			have, info.Version = info.Version != "", value
		case "hw":
			if have = len(info.Hardware) == maxHardware; !have {
				info.Hardware = append(info.Hardware, value)
			}
		case "security_counter":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil || n > maxCounter || strconv.FormatUint(n, 10) != value {
				return malformed("security_counter is %.40q, want 0 to %d", value, uint64(maxCounter))
			}
			have, info.SecurityCounter = info.SecurityCounter != nil, &n
		default:
			continue
		}
		if have {
			return malformed("the trusted comment has %s too often", name)
		}
		if value == "" || len(value) > maxText {
			return malformed("%s in the trusted comment has %d bytes, want 1 to %d", name, len(value), maxText)
		}
	}
	return nil
}
