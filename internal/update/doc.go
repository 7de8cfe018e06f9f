// Package update is what happens between a device and its campaigns: a
// check-in becomes a decision, an allowing decision becomes an authorization,
// and a report becomes a state.
//
// # What it promises
//
//   - No authorization without evidence (invariant I1). The decision record,
//     the authorization signed over its index, the place it takes in its stage
//     and the new checkpoint commit together; the authorization leaves the
//     process only after that, with a receipt that proves the record.
//   - Stage limits hold under any interleaving (I7): the tallies are read,
//     judged and changed in one closure of the serial writer.
//   - A check-in may be repeated. A device that asks again with the same nonce
//     gets the same authorization, not a second one, with a fresh receipt.
//   - Every refusal is recorded with its checks and inputs. One that repeats
//     the reasons of the last is counted instead, and the count goes into the
//     next record.
//   - A pause and an abort withdraw authorizations: what the device has not
//     reported as delivered is taken back at its next contact, a check-in or
//     the start of a download, with a record of its own. It becomes paused, to
//     be authorized anew, or cancelled. The attempt is not used up, unless the
//     device reports that it was made all the same.
//   - A report is believed for what it is: device-signed bytes, kept whole in
//     the evidence. "Confirmed" counts only when the reported running digests
//     are those of the release (I6). A report of the same sequence number is
//     answered and not repeated.
//   - The idle check-in, nothing changed and nothing to do, reads no table and
//     writes nothing. What makes that answer possible is dropped after every
//     commit that could change it, so that a revocation or quarantine counts
//     at the very next check-in. With several replicas nothing is remembered.
package update
