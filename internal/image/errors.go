package image

import "errors"

// ReasonError is why an image was refused. Its text is a stable code for JSON
// and evidence; the error that wraps it says where and by how much.
type ReasonError string

// The closed set of reasons.
const (
	// ErrTruncated means the image ends before its own lengths say it does.
	ErrTruncated ReasonError = "truncated"
	// ErrMalformed means the structure breaks the format's rules.
	ErrMalformed ReasonError = "malformed"
	// ErrTooLarge means the image is larger than the format or slot allows.
	ErrTooLarge ReasonError = "too_large"
	// ErrBadDigest means the bytes are not those that were hashed.
	ErrBadDigest ReasonError = "bad_digest"
	// ErrUnsigned means there is no signature at all.
	ErrUnsigned ReasonError = "unsigned"
	// ErrUnknownKey means no signature is by one of the given keys.
	ErrUnknownKey ReasonError = "unknown_key"
	// ErrBadSignature means a signature names a given key and is not by it.
	ErrBadSignature ReasonError = "bad_signature"
	// ErrWrongPurpose means a signature or certificate that is good, for
	// something other than signing updates.
	ErrWrongPurpose ReasonError = "wrong_purpose"
	// ErrEncrypted means the operation needs the plaintext.
	ErrEncrypted ReasonError = "encrypted"
	// ErrUnsupported means a well-formed image, key or algorithm that this
	// implementation does not handle.
	ErrUnsupported ReasonError = "unsupported"
	// ErrBadOptions means the sign options are out of range or contradict the
	// image to be signed.
	ErrBadOptions ReasonError = "bad_options"
)

// Error returns the code.
func (e ReasonError) Error() string { return string(e) }

// ReasonOf returns the reason err carries, or false for an error that says
// nothing about the image, such as a failing disk.
func ReasonOf(err error) (ReasonError, bool) {
	return errors.AsType[ReasonError](err)
}
