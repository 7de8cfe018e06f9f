// Package backends sets up the custody back ends that the environment of the
// process configures:
//
//	WRIT_PKCS11_MODULE     path of a vendor's PKCS#11 library
//	WRIT_PKCS11_PIN_FILE   path of a file with the PIN; or
//	WRIT_PKCS11_PIN        the PIN
//	WRIT_PKCS11_HELPER     path of writ-pkcs11, if it is not beside the program
//
// and, in programs built with the tag vault and when WRIT_VAULT is 1:
//
//	VAULT_ADDR             address of the Vault server, https://…
//	VAULT_TOKEN_FILE       path of a file with a token; or
//	VAULT_TOKEN            the token
//	VAULT_CACERT           path of a PEM file with the CA of the server
//	VAULT_NAMESPACE        namespace, where the server has them
//
// The last four are those of Vault's own tools, and VAULT_TOKEN_FILE is what a
// Vault agent writes.
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
	more, err := services(getenv)
	return append(out, more...), err
}

// Close closes all of them.
func Close(all []custody.Backend) error {
	var errs []error
	for _, b := range all {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}
