package policy

import (
	"cmp"
	"errors"
	"strconv"

	"github.com/Masterminds/semver/v3"

	"github.com/writ-project/writ/internal/fw"
)

// maxVersionSize bounds a version before it is parsed.
const maxVersionSize = 128

// version is a parsed version: Semantic Versioning 2.0.0 and the build number
// that MCUboot orders by (its header's iv_build_num, written "+4").
type version struct {
	sem   *semver.Version
	build uint64
}

// parseVersion is strict: "1.2" and "v1.2.3" are not versions. A version that
// is guessed, or taken for 0.0.0, would make every release an upgrade.
func parseVersion(s string) (version, error) {
	if len(s) > maxVersionSize {
		return version{}, fw.Errorf(fw.Invalid, "a version may have at most %d bytes", maxVersionSize)
	}
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return version{}, fw.Wrap(fw.Invalid, err, "%q is not a version like 1.2.3 or 1.2.3+4", s)
	}
	out := version{sem: v}
	if m := v.Metadata(); numeric(m) {
		if out.build, err = strconv.ParseUint(m, 10, 64); err != nil {
			return version{}, fw.Wrap(fw.Invalid, err, "the build number of version %q is too large", s)
		}
	}
	return out, nil
}

// numeric reports whether s is digits only, and at least one.
func numeric(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// compare orders by precedence, then by build number. Without a build number
// it is 0, as in MCUboot. Build metadata that is no number orders nothing.
func (v version) compare(w version) int {
	if c := v.sem.Compare(w.sem); c != 0 {
		return c
	}
	return cmp.Compare(v.build, w.build)
}

// CompareVersions returns -1, 0 or +1 as a is before, level with or after b.
// Its error means that one of them cannot be read and nothing is known.
func CompareVersions(a, b string) (int, error) {
	v, errA := parseVersion(a)
	w, errB := parseVersion(b)
	if err := errors.Join(errA, errB); err != nil {
		return 0, fw.Wrap(fw.Invalid, err, "%s", messageOf(cmp.Or(errA, errB)))
	}
	return v.compare(w), nil
}

// ParseFromVersion checks a manifest's from-version constraint, such as
// ">=1.0.0, <2.0.0".
func ParseFromVersion(s string) error {
	_, err := parseConstraint(s)
	return err
}

func parseConstraint(s string) (*semver.Constraints, error) {
	if len(s) > maxVersionSize {
		return nil, fw.Errorf(fw.Invalid, "a version constraint may have at most %d bytes", maxVersionSize)
	}
	c, err := semver.NewConstraint(s)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "%q is not a version constraint like \">=1.0.0, <2.0.0\"", s)
	}
	c.IncludePrerelease = true // 1.2.0-rc.1 is before 1.2.0 and after 1.1.0, here as everywhere
	return c, nil
}

// messageOf returns the part of err that is for the caller.
func messageOf(err error) string {
	if e, ok := errors.AsType[*fw.Error](err); ok {
		return e.Msg
	}
	return err.Error()
}
