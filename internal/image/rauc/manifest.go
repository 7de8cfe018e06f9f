package rauc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// manifest is what a manifest says that we have a use for.
type manifest struct {
	compatible, version, description, build string

	format string // formatPlain, formatVerity or formatCrypt
	images []Image

	// Of verity and crypt.
	root, salt []byte
	treeSize   int64
}

// readManifest parses a manifest. It is stricter than GLib's key file reader,
// which RAUC uses: that one lets the later of two groups or keys win, and a
// reader with another opinion would install something else.
func readManifest(b []byte) (manifest, error) {
	m, err := parseManifest(b)
	if err != nil {
		return manifest{}, fmt.Errorf("reading manifest: %w", err)
	}
	return m, nil
}

func parseManifest(b []byte) (manifest, error) {
	groups, order, err := parseKeyFile(b)
	if err != nil {
		return manifest{}, err
	}
	m := manifest{format: formatPlain} // RAUC's default when there is no [bundle]
	if v, ok := groups["bundle"]["format"]; ok {
		m.format = v
	}
	update := groups["update"]
	m.compatible, m.version = update["compatible"], update["version"]
	m.description, m.build = update["description"], update["build"]
	for name, v := range map[string]string{"compatible": m.compatible, "version": m.version} {
		if len(v) > maxText || strings.TrimSpace(v) != v || strings.ContainsFunc(v, unicode.IsControl) {
			return manifest{}, malformed("%s %.40q has space around it, a control character or more than %d bytes", name, v, maxText)
		}
	}
	if m.compatible == "" {
		return manifest{}, malformed("[update] has no compatible: say there which hardware the bundle is for")
	}
	for _, g := range order {
		slot, ok := strings.CutPrefix(g, "image.")
		if !ok {
			continue
		}
		img, err := readImage(slot, groups[g])
		if err != nil {
			return manifest{}, err
		}
		if m.images = append(m.images, img); len(m.images) > maxImages {
			return manifest{}, malformed("more than %d images", maxImages)
		}
	}
	switch m.format {
	case formatPlain:
		return m, nil
	case formatVerity, formatCrypt:
		return m, m.readVerity(groups["bundle"])
	default:
		return manifest{}, fmt.Errorf("bundle format %.20q: %w", m.format, image.ErrUnsupported)
	}
}

func readImage(slot string, keys map[string]string) (Image, error) {
	img := Image{Slot: slot, Filename: keys["filename"], SHA256: keys["sha256"]}
	if slot == "" || len(slot) > maxText || len(img.Filename) > maxText {
		return Image{}, malformed("image %.40q: names have 1 to %d bytes", slot, maxText)
	}
	if _, err := decodeSum(img.SHA256); img.SHA256 != "" && err != nil {
		return Image{}, malformed("image %s: sha256: %v", slot, err)
	}
	if v, ok := keys["size"]; ok {
		n, err := parseSize(v)
		if err != nil {
			return Image{}, malformed("image %s: size: %v", slot, err)
		}
		img.Size = &n
	}
	return img, nil
}

func (m *manifest) readVerity(keys map[string]string) error {
	var err error
	if m.root, err = decodeSum(keys["verity-hash"]); err != nil {
		return malformed("verity-hash: %v", err)
	}
	if m.salt, err = decodeSum(keys["verity-salt"]); err != nil {
		return malformed("verity-salt: %v", err)
	}
	if m.treeSize, err = parseSize(keys["verity-size"]); err != nil {
		return malformed("verity-size: %v", err)
	}
	if m.treeSize == 0 || m.treeSize%blockSize != 0 {
		return malformed("verity-size %d is not a positive multiple of %d", m.treeSize, blockSize)
	}
	return nil
}

// parseKeyFile reads GLib's key file format: [group], key=value, # comment. It
// returns the values, unescaped, and the groups in order.
func parseKeyFile(b []byte) (groups map[string]map[string]string, order []string, err error) {
	if len(b) > MaxManifest {
		return nil, nil, fmt.Errorf("%d bytes are over the limit of %d: %w", len(b), MaxManifest, image.ErrTooLarge)
	}
	if !utf8.Valid(b) {
		return nil, nil, malformed("not UTF-8")
	}
	groups = map[string]map[string]string{}
	var keys map[string]string
	n := 0
	for line := range bytes.Lines(b) {
		n++
		s := strings.TrimRight(string(line), "\r\n")
		s = strings.TrimLeft(s, " \t")
		if len(s) > maxLine || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			return nil, nil, malformed("line %d has a control character or more than %d bytes", n, maxLine)
		}
		switch {
		case s == "" || s[0] == '#':
		case s[0] == '[':
			name, ok := strings.CutSuffix(strings.TrimRight(s[1:], " \t"), "]")
			if !ok || name == "" || strings.ContainsAny(name, "[]") {
				return nil, nil, malformed("line %d: %.40q is not [group]", n, s)
			}
			if groups[name] != nil {
				return nil, nil, malformed("line %d: [%.40s] a second time", n, name)
			}
			keys = map[string]string{}
			groups[name], order = keys, append(order, name)
		default:
			k, v, ok := strings.Cut(s, "=")
			k = strings.TrimRight(k, " \t")
			if !ok || k == "" || keys == nil {
				return nil, nil, malformed("line %d: %.40q is not key=value in a group", n, s)
			}
			if _, again := keys[k]; again {
				return nil, nil, malformed("line %d: %.40s a second time", n, k)
			}
			if keys[k], err = unescape(strings.TrimLeft(v, " \t")); err != nil {
				return nil, nil, malformed("line %d: %v", n, err)
			}
		}
	}
	return groups, order, nil
}

// unescape undoes the escapes of GLib's string values.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		at := -1
		if i < len(s) {
			at = strings.IndexByte(`sntr\`, s[i])
		}
		if at < 0 {
			return "", fmt.Errorf("%.40q has an unknown escape", s)
		}
		b.WriteByte(" \n\t\r\\"[at])
	}
	return b.String(), nil
}

func decodeSum(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != veritySum {
		return nil, fmt.Errorf("%.80q is not %d bytes in hexadecimal", s, veritySum)
	}
	return b, nil
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a number of bytes", s)
	}
	return int64(n), nil // fits: parsed with 63 bits
}

func malformed(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, image.ErrMalformed)...)
}
