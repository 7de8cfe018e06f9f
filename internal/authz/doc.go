// Package authz encodes, decodes and checks the authorization: the permission
// for one device to install one release, signed, short-lived and single-use.
// The device-side checks live here too, so that the agent, the server's own
// tests and the offline verifier run the same code. It is pure: it does no I/O,
// reads no clock and keeps no state.
//
// # The authorization
//
// An authorization is a COSE_Sign1 (RFC 9052, section 4.2; tag 18) over CWT
// claims (RFC 8392). The protected header holds alg, kid and typ, and nothing
// else. The one parameter allowed in the unprotected header is receipts (394,
// RFC 9942): proofs that the record of the decision is in the evidence log. A
// receipt is attached after signing and changes no signed byte.
//
//	18([ << {1: -8, 4: kid, 16: "application/writ-authorization+cwt"} >>,
//	     {394: [receipt]},
//	     << claims >>,
//	     signature ])
//
// # How decision, authorization and receipt are bound
//
// The authorization names the decision record (its index) and the record's
// commitment, so the record cannot in turn hold a digest of the authorization.
// It holds [CoreDigest]: the digest of the claims without those two. So:
//
//   - the signature binds claims, index and commitment;
//   - the receipt binds commitment and index to the log;
//   - the record, under the commitment, binds the core digest, and with it
//     every claim the decision was about.
//
// The device checks the first two; the offline verifier checks all three.
//
// # One encoding
//
// Every decoder here takes exactly one encoding of a value, the deterministic
// one (RFC 8949, section 4.2.1), and of a known set of members: it decodes,
// checks the bounds, encodes again and requires the same bytes. Duplicate
// members, long-form integers, null for absent, trailing bytes and parameters
// marked critical (RFC 9052, section 3.1) all fail that way.
//
// # Denial
//
// A [Verdict] accepts only when a check ran to its end; the zero Verdict
// rejects. A rejection is a value with a reason that the device reports under
// its own key.
//
// # Example
//
//	claims.Decision, claims.Commitment = index, commitment
//	payload, err := authz.Encode(claims)
//	msg, err := authz.Sign(payload, key)
//	msg, err = authz.AttachReceipt(msg, receipt)
//
//	auth, v := authz.Open(msg, state, checkReceipt) // on the device
//	if !v.OK() { /* report v.Reason, v.Detail */ }
//	v = authz.CheckImage(auth.Claims.Components[0], info, state)
//
// Also here, with the same strictness: the device's signed [Report], the
// check-in messages [CheckIn] and [CheckInReply], and the [TrustBundle] that says
// which keys a device believes. docs/formats/authorization.md, report.md and
// trust-bundle.md give the bytes with test vectors, docs/protocol.md the
// exchange.
package authz
