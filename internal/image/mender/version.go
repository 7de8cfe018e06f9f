package mender

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// versionAtEnd finds the version a name ends in. The leftmost match counts, so
// that "release-1.2-3" says 1.2-3 and not 3.
var versionAtEnd = regexp.MustCompile(`(?:^|[-_/: ])v?([0-9]+\.[0-9A-Za-z.+~_-]+)$`)

// versionIn returns the version that a name says.
func versionIn(name string) (string, bool) {
	m := versionAtEnd.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// versions returns the versions that the names of an artifact say, without
// repetition, that of the artifact's own name first.
func versions(artifactName string, payloads []Payload) []string {
	var out []string
	add := func(v string) {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	if v, ok := versionIn(artifactName); ok {
		add(v)
	}
	for _, p := range payloads {
		var values []string
		for key, v := range p.Provides {
			if strings.HasSuffix(key, ".version") && v != artifactName {
				values = append(values, v)
			}
		}
		slices.Sort(values)
		for _, name := range values {
			v, ok := versionIn(name)
			if !ok {
				v = strings.TrimPrefix(name, "v")
			}
			add(v)
		}
	}
	return out
}

// counter returns the security counter of an artifact, or nil.
func counter(payloads []Payload) (*uint64, error) {
	var out *uint64
	for i, p := range payloads {
		text, ok := p.Provides[counterKey]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != text {
			return nil, fmt.Errorf("payload %d provides %s %q, want a number in decimal: %w", i, counterKey, text, image.ErrMalformed)
		}
		if out != nil && *out != n {
			return nil, fmt.Errorf("payloads provide %s %d and %d: %w", counterKey, *out, n, image.ErrMalformed)
		}
		out = &n
	}
	return out, nil
}
