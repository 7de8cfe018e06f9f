// Package backends sets up the custody back ends that the environment of the
// process configures:
//
//	WRIT_PKCS11_MODULE     path of a vendor's PKCS#11 library
//	WRIT_PKCS11_PIN_FILE   path of a file with the PIN; or
//	WRIT_PKCS11_PIN        the PIN
//	WRIT_PKCS11_HELPER     path of writ-pkcs11, if it is not beside the program
package backends

import (
	"errors"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/custody/pkcs11"
	"github.com/writ-project/writ/internal/fw"
)

// FromEnv returns the back ends that getenv configures; none is fine.
func FromEnv(getenv func(string) string) ([]custody.Backend, error) {
	var out []custody.Backend
	if module := getenv("WRIT_PKCS11_MODULE"); module != "" {
		pin, file := getenv("WRIT_PKCS11_PIN"), getenv("WRIT_PKCS11_PIN_FILE")
		if pin != "" && file != "" {
			return nil, fw.Errorf(fw.Invalid, "set WRIT_PKCS11_PIN or WRIT_PKCS11_PIN_FILE, not both")
		}
		b, err := pkcs11.New(pkcs11.Options{Module: module, PIN: []byte(pin), PINFile: file, Helper: getenv("WRIT_PKCS11_HELPER")})
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// Close closes all of them.
func Close(all []custody.Backend) error {
	var errs []error
	for _, b := range all {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}
