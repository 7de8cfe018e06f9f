// Package approval verifies approvals: signatures by an approver's own SSH key
// over the exact bytes of what is approved. It is pure; the server, the signer
// and the offline verifier run the same code.
//
// # An approval
//
// An approval is an armored SSHSIG (OpenSSH PROTOCOL.sshsig) with namespace
// [Namespace] and hash sha512 over the document's bytes, as made by
//
//	ssh-keygen -Y sign -f KEY -n writ-approval document.json
//
// The document is never re-encoded: one changed byte voids the approval. The
// namespace keeps a signature made for anything else (a git commit, a login)
// from counting. Keys may be Ed25519, ECDSA P-256, their FIDO2 forms (sk-), or
// RSA of at least 3072 bits with rsa-sha2-512. FIDO2 signatures must show that
// the user touched the key.
//
// # A roster
//
// The roster says who may approve and with which keys: a JSON document
// ([RosterDocument]) in a DSSE envelope signed by the Ed25519 roster root key.
// Each version names the digest of the one before ([Roster.Follows]). A key
// belongs to one person. docs/formats/approval.md has the bytes.
//
// # A quorum
//
// [Quorum] counts persons, not signatures: distinct, on the roster, not the
// proposer, each with a valid signature over exactly the document. The result
// names who counted, and why each other approval did not. The zero [Result]
// denies.
//
//	roster, err := approval.OpenRoster(envelope, rootPub)
//	res := approval.Quorum(manifest, approvals, roster, 2, proposer)
//	if !res.Met() { /* res.Rejected says why */ }
package approval
