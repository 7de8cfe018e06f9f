package pkcs11

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Scheme is the scheme of RFC 7512.
const Scheme = "pkcs11"

const maxURI = 2 << 10 // bytes

// Object says which private key of which token is meant. Empty members match
// anything; at least one of Label and ID is given.
type Object struct {
	Token        string `json:"token,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Model        string `json:"model,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Slot         *int64 `json:"slot,omitempty"`
	Label        string `json:"label,omitempty"`
	ID           []byte `json:"id,omitempty"`
}

// URI is a parsed pkcs11: URI.
type URI struct {
	Object Object

	// PINFile is the path of the file with the PIN (pin-source); empty: the
	// back end's own.
	PINFile string

	// Module is the path of the PKCS#11 library (module-path); empty: the
	// back end's own, and any other than that is refused.
	Module string
}

// ParseURI reads a PKCS#11 URI (RFC 7512) that names one private key. An
// attribute that is not known is refused, because it narrows what is meant.
// So is pin-value: a URI is public.
func ParseURI(s string) (URI, error) {
	var u URI
	if len(s) > maxURI {
		return u, fw.Errorf(fw.TooLarge, "the PKCS#11 URI is %d bytes, over the limit of %d", len(s), maxURI)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, Scheme) {
		return u, fw.Errorf(fw.Invalid, "a key on a token is named like pkcs11:token=LABEL;object=LABEL (RFC 7512)")
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := attributes(path, ";", u.Object.set); err != nil {
		return URI{}, err
	}
	if err := attributes(query, "&", u.setQuery); err != nil {
		return URI{}, err
	}
	if u.Object.Label == "" && len(u.Object.ID) == 0 {
		return URI{}, fw.Errorf(fw.Invalid, "the PKCS#11 URI names no key: add object=LABEL or id=%%01")
	}
	return u, nil
}

// attributes calls set with each attribute of s, percent-decoded. None may
// come twice (RFC 7512, section 2.3).
func attributes(s, separator string, set func(name, value string) error) error {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(s, separator) {
		if part == "" {
			continue
		}
		name, raw, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return fw.Errorf(fw.Invalid, "the PKCS#11 URI has a part without =: each is NAME=VALUE")
		}
		if seen[name] {
			return fw.Errorf(fw.Invalid, "the PKCS#11 URI has the attribute %q twice", name)
		}
		seen[name] = true
		value, err := url.PathUnescape(raw)
		if err != nil {
			return fw.Wrap(fw.Invalid, err, "the value of %q in the PKCS#11 URI is not percent-encoded", name)
		}
		if strings.ContainsRune(value, 0) && name != "id" {
			return fw.Errorf(fw.Invalid, "the value of %q in the PKCS#11 URI has a zero byte", name)
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (o *Object) set(name, value string) error {
	switch name {
	case "token":
		o.Token = value
	case "manufacturer":
		o.Manufacturer = value
	case "model":
		o.Model = value
	case "serial":
		o.Serial = value
	case "object":
		o.Label = value
	case "id":
		o.ID = []byte(value)
	case "slot-id":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return fw.Wrap(fw.Invalid, err, "slot-id of the PKCS#11 URI is a number, not %q", value)
		}
		o.Slot = &n
	case "type":
		if value != "private" {
			return fw.Errorf(fw.Invalid, "the PKCS#11 URI is of type %q: a signing key is type=private", value)
		}
	default:
		return fw.Errorf(fw.Invalid, "the attribute %q of the PKCS#11 URI is not supported: use token, serial, manufacturer, model, slot-id, object, id and type", name)
	}
	return nil
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "pin-value":
		return fw.Errorf(fw.Invalid, "a PIN does not belong into a URI, which is public: put it into a file and name it with pin-source=file:/path, or into the environment")
	case "pin-source":
		path := strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
		if !filepath.IsAbs(path) {
			return fw.Errorf(fw.Invalid, "pin-source of the PKCS#11 URI names a file with its whole path, like file:/run/credentials/pin, not %q", value)
		}
		u.PINFile = path
	case "module-path":
		if !filepath.IsAbs(value) {
			return fw.Errorf(fw.Invalid, "module-path of the PKCS#11 URI is the whole path of a library, not %q", value)
		}
		u.Module = value
	default:
		return fw.Errorf(fw.Invalid, "the query attribute %q of the PKCS#11 URI is not supported: use pin-source and module-path", name)
	}
	return nil
}

const maxPIN = 256 // bytes

// readPIN reads the first line of a file that only its owner can read.
func readPIN(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot read the PIN from %s: check the path and its owner", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fw.Errorf(fw.Forbidden, "%s has mode %04o and others could read the PIN: chmod go-rwx %s", path, st.Mode().Perm(), path)
	}
	if st.Size() > maxPIN+2 {
		return nil, fw.Errorf(fw.TooLarge, "%s is %d bytes and a PIN is at most %d", path, st.Size(), maxPIN)
	}
	b, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot read the PIN from %s", path)
	}
	pin := strings.TrimRight(string(b), "\r\n")
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\r\n") {
		return nil, fw.Errorf(fw.Invalid, "%s must hold one line, the PIN", path)
	}
	return []byte(pin), nil
}
