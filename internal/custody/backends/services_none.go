//go:build !vault

package backends

import (
	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/fw"
)

// services are the cloud back ends, which only programs built for them have.
func services(getenv func(string) string) ([]custody.Backend, error) {
	if getenv("WRIT_VAULT") != "" {
		return nil, fw.Errorf(fw.Invalid, "WRIT_VAULT is set and this program was built without Vault: build it with -tags vault")
	}
	return nil, nil
}
