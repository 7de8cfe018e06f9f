package approval

import (
	"crypto/ed25519"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// RosterPayloadType is the DSSE payload type of a roster.
const RosterPayloadType = "application/vnd.writ.roster.v1+json"

// envelopeLimits bound the envelope of a roster.
var envelopeLimits = dsse.Limits{Bytes: 2 << 20, Signatures: 8}

// openEnvelope returns the payload of a roster's envelope that root signed.
func openEnvelope(env []byte, root ed25519.PublicKey) ([]byte, error) {
	e, payload, err := dsse.Open(env, RosterPayloadType, envelopeLimits)
	if err != nil {
		return nil, err
	}
	if !e.SignedBy(root, payload) {
		return nil, fw.Errorf(fw.Forbidden, "the roster is not signed by the root key")
	}
	return payload, nil
}
