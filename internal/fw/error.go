package fw

import (
	"errors"
	"fmt"
)

// Kind is the small set of ways in which a request can fail. Each maps to one
// HTTP status (internal/httpd) and one exit code (internal/cli).
type Kind string

// The kinds, from the caller's fault to ours.
const (
	Invalid         Kind = "invalid"         // malformed or out of bounds; retrying the same is useless
	Unauthenticated Kind = "unauthenticated" // no valid credential
	Forbidden       Kind = "forbidden"       // known caller, not allowed
	NotFound        Kind = "not_found"       // no such thing
	Conflict        Kind = "conflict"        // the thing is not in a state that permits it
	TooLarge        Kind = "too_large"       // over a documented bound
	TooMany         Kind = "too_many"        // slow down
	Unavailable     Kind = "unavailable"     // try again later
	Corrupt         Kind = "corrupt"         // stored state contradicts itself
	Internal        Kind = "internal"        // ours
)

// Error is a failure with a message for the caller and a cause for the
// operator. Msg is safe to show and says what to do next; Err is only logged.
type Error struct {
	Kind Kind
	Msg  string
	Err  error
}

// Errorf returns an Error whose message is for the caller.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// Wrap returns an Error with a message for the caller and cause err, which is
// logged and never shown.
func Wrap(k Kind, err error, format string, args ...any) error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...), Err: err}
}

// Error implements error. It includes the cause, so it is for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of err: Internal for an error without one, "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
