package authz

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/Masterminds/semver/v3"
)

// compareVersions orders versions as Semantic Versioning 2.0.0 does, and
// versions that differ in nothing else by their build number, as MCUboot's
// "1.2.3+4" needs. Versions it cannot read it cannot order.
func compareVersions(a, b string) (int, error) {
	if a == b {
		return 0, nil
	}
	x, err := semver.NewVersion(a)
	if err != nil {
		return 0, fmt.Errorf("version %q is unreadable", a)
	}
	y, err := semver.NewVersion(b)
	if err != nil {
		return 0, fmt.Errorf("version %q is unreadable", b)
	}
	if c := x.Compare(y); c != 0 {
		return c, nil
	}
	m, err := build(x)
	if err != nil {
		return 0, err
	}
	n, err := build(y)
	if err != nil {
		return 0, err
	}
	return cmp.Compare(m, n), nil
}

// build returns the number after the plus sign, 0 if there is none.
func build(v *semver.Version) (uint64, error) {
	if v.Metadata() == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v.Metadata(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("build %q is no number", v.Metadata())
	}
	return n, nil
}
