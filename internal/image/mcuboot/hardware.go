package mcuboot

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/writ-project/writ/internal/image"
)

// VendorID returns the vendor UUID for a DNS name, as imgtool --vid does: the
// version 5 UUID in the DNS namespace (RFC 9562, section 5.5). A name that
// already is a UUID stands for itself.
func VendorID(vendor string) (string, error) {
	id, err := vendorUUID(vendor)
	return id.String(), err
}

// ClassID returns the class UUID for a hardware name of a vendor, as imgtool
// --cid does: the version 5 UUID within the vendor id.
func ClassID(vendor, hardware string) (string, error) {
	vid, err := vendorUUID(vendor)
	if err != nil {
		return "", err
	}
	id, err := nameUUID(vid, hardware)
	return id.String(), err
}

func vendorUUID(vendor string) (uuid.UUID, error) { return nameUUID(uuid.NameSpaceDNS, vendor) }

func nameUUID(space uuid.UUID, name string) (uuid.UUID, error) {
	if name == "" {
		return uuid.UUID{}, fmt.Errorf("deriving UUID: name is empty: %w", image.ErrBadOptions)
	}
	// Only the plain form: uuid.Parse also reads urn:uuid: and braces, which
	// imgtool takes for names.
	if len(name) == 36 || len(name) == 32 {
		if id, err := uuid.Parse(name); err == nil {
			return id, nil
		}
	}
	return uuid.NewSHA1(space, []byte(name)), nil
}
