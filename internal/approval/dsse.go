package approval

import "github.com/writ-project/writ/internal/dsse"

// RosterPayloadType is the DSSE payload type of a roster.
const RosterPayloadType = "application/vnd.writ.roster.v1+json"

// envelopeLimits bound the envelope of a roster: two sets of roots sign it.
var envelopeLimits = dsse.Limits{Bytes: 2 << 20, Signatures: 2 * maxRoots}
