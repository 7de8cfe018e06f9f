package authz

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// encMode is the deterministic encoding (RFC 8949, section 4.2.1).
var encMode = must(func() (cbor.EncMode, error) {
	o := cbor.CoreDetEncOptions()
	o.OmitEmpty = cbor.OmitEmptyGoValue
	return o.EncMode()
}())

// decMode refuses what no format here uses. Tags are looked at by hand: the
// only one is the first byte of a COSE_Sign1.
var decMode = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	MaxNestedLevels:   8,
	MaxArrayElements:  maxElements,
	MaxMapPairs:       maxElements,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
}.DecMode())

// maxElements bounds every array and map; each has a tighter bound of its own.
const maxElements = 128

var errNotDeterministic = errors.New("not the deterministic encoding (RFC 8949, section 4.2.1) of what it says")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // an option out of range: a programmer's error
	}
	return v
}

// unmarshal decodes b into v, a pointer to a struct, and requires that
// encoding v gives b again.
func unmarshal(b []byte, v any, limit int) error {
	if len(b) > limit {
		return fmt.Errorf("%d bytes, over the limit of %d", len(b), limit)
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return errNotDeterministic
	}
	return nil
}
