// Package signerd is writ-signer: a process of its own, with a user or a host
// of its own, that keeps the keys of images and release statements. A server
// that uses it holds none of them. What is signed is decided by the code of
// internal/signer ([signer.Desk]), the same that an embedded server runs; this
// package is the wall around it.
//
// # Who may ask
//
// On a Unix socket, processes of the configured user ids, as the kernel names
// them. Over TLS, clients with a certificate from the configured CA that holds
// a configured name. To be allowed to ask is not to be believed: an order
// carries the approved manifest, the approvals, the roster and the decision
// record with its receipt, and each is checked. docs/adr/0006 says why.
//
// # The protocol, version 1
//
// HTTP/1.1. Bodies are JSON without unknown members, at most 2 MiB, except
// images. Errors are RFC 9457 problems.
//
//	GET    /v1/signer                    who this is: keys, roots, log (Info)
//	GET    /v1/rosters?after=N           signed rosters after version N
//	POST   /v1/rosters                   adopt the next roster
//	POST   /v1/orders                    an order (signer.ImageOrder) → Status
//	PUT    /v1/orders/{permit}/input     the image, with Content-Length → 202, Status
//	GET    /v1/orders/{permit}           Status: how far it is, and the signing record
//	GET    /v1/orders/{permit}/output    the signed image; ranges are served
//	DELETE /v1/orders/{permit}           cancel, or forget what was fetched
//	POST   /v1/statements                signer.StatementOrder → signer.Record
//	POST   /v1/trust-bundles             signer.TrustOrder → signer.Record
//
// An order is judged before its image is sent. The image goes to a staging
// file, the signed one to another; memory does not grow with their size. There
// is no request that signs a digest.
//
// # After a crash
//
// The permit of an order is a function of its decision, so the same order
// finds its place again:
//
//   - the image was not all here, or signing had not begun: send it again;
//   - it is signed and its file is here: the same answer;
//   - the permit was redeemed and the file is not here: refused with a
//     conflict, because what left the process is not known. A new decision,
//     that is, publishing again, gets a new permit.
//
// Signed images wait a day to be fetched.
package signerd
