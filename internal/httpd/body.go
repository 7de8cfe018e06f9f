package httpd

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Body reads the body of r, at most limit bytes. Its media type must be one
// of types; with no types any is taken. It is [fw.TooLarge] (413) or, for the
// wrong type, [fw.Invalid] with status 415.
func Body(r *http.Request, limit int64, types ...string) ([]byte, error) {
	if err := MediaType(r, types...); err != nil {
		return nil, err
	}
	if r.ContentLength > limit {
		return nil, fw.Errorf(fw.TooLarge, "%s", tooLarge(limit))
	}
	var b []byte
	var err error
	if r.ContentLength >= 0 {
		// net/http ends the body at Content-Length.
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, b)
	} else {
		var buf bytes.Buffer
		_, err = buf.ReadFrom(io.LimitReader(r.Body, limit+1))
		b = buf.Bytes()
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fw.Errorf(fw.TooLarge, "%s", tooLarge(e.Limit))
	}
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the body was cut off: send the request again")
	}
	if int64(len(b)) > limit {
		return nil, fw.Errorf(fw.TooLarge, "%s", tooLarge(limit))
	}
	return b, nil
}

// MediaType checks the Content-Type of r against types, and that the body is
// not compressed: nothing here would unpack it.
func MediaType(r *http.Request, types ...string) error {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return unsupported("the body must not be compressed (Content-Encoding)")
	}
	got := r.Header.Get("Content-Type")
	if len(types) == 0 || slices.Contains(types, got) {
		return nil // without parameters, as our own clients send it
	}
	if media, _, err := mime.ParseMediaType(got); err == nil && slices.Contains(types, media) {
		return nil
	}
	return unsupported("the body must have Content-Type " + strings.Join(types, " or "))
}

func unsupported(msg string) error {
	return &failure{err: fw.Errorf(fw.Invalid, "%s", msg), status: http.StatusUnsupportedMediaType}
}

// Bearer returns the token of the Authorization header (RFC 6750 section 2.1).
func Bearer(r *http.Request) (string, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", fw.Errorf(fw.Unauthenticated, "this needs an access token: send Authorization: Bearer writ_…")
	}
	return token, nil
}
