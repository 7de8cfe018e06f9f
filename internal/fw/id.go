package fw

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// The ids of things that outsiders name. Ids chosen by the maker (products,
// hardware, components, devices) are validated; ids minted here are of [NewID].
type (
	// ProductID names what is sold, chosen by the maker: [a-z0-9-], 1 to 64 bytes.
	ProductID string
	// HardwareID is a compatibility id of a product variant (board and
	// revision), chosen by the maker.
	HardwareID string
	// ComponentName is an updatable part of a device; "main" when there is one.
	ComponentName string
	// DeviceID names one unit, chosen by the maker, often the serial number.
	DeviceID string
	// ReleaseID names a release, "rel_" and 20 characters.
	ReleaseID string
	// CampaignID names a campaign, "cmp_" and 20 characters.
	CampaignID string
	// UpdateID names one device in one campaign, "upd_" and 20 characters.
	UpdateID string
	// AuthorizationID names one authorization, "aut_" and 20 characters.
	AuthorizationID string
	// PermitID names one single-use right to use a key, "prm_" and 20 characters.
	PermitID string
	// PersonID is who an operator is, whatever accounts and keys they hold:
	// separation of duties is decided on it.
	PersonID string
	// KeyName names a signing key within the server.
	KeyName string
)

// MainComponent is the component of a device that has only one.
const MainComponent ComponentName = "main"

// idEncoding has no look-alikes, and sorts as the bytes do.
var idEncoding = base32.NewEncoding("23456789abcdefghijkmnpqrstuvwxyz").WithPadding(base32.NoPadding)

// NewID returns prefix, an underscore and 20 lower-case characters: at, in
// units of 10 ms, and 60 random bits. Ids in order of time keep an index
// over millions of them growing at one end. They are names, not secrets.
func NewID(prefix string, at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(0, at.UnixMilli()/10)))
	rand.Read(b[8:]) // never fails: crypto/rand.Read, Go 1.24
	return prefix + "_" + idEncoding.EncodeToString(b[3:])[:20]
}

// ParseName checks a name chosen outside: 1 to 64 bytes of
// [A-Za-z0-9._:-], beginning with a letter or digit. What says what is being
// named, for the error.
func ParseName(what, s string) (string, error) {
	if s == "" || len(s) > 64 {
		return "", Errorf(Invalid, "%s must be 1 to 64 characters, not %d", what, len(s))
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._:-", rune(c))) {
			return "", Errorf(Invalid, "%s %q may hold only letters, digits and . _ : - and must begin with a letter or digit", what, s)
		}
	}
	return s, nil
}
