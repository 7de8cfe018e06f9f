// Package signer is the only package that touches private keys. It holds one
// invariant: no private key is used without a decision (DESIGN I2).
//
// # Keys
//
// A key has a name, one purpose and one Go type for it: [ImageKey],
// [AuthorizationKey], [LogKey], [DeviceCAKey], [RosterRootKey]. A key of one
// purpose cannot be used for another: the operations take a key name, look it
// up among the keys of their own type, and refuse the rest. Keys rest in a
// [Keystore], a directory specified in docs/formats/keys.md.
//
// # Permits
//
// To use a key one needs a [Permit]. A permit comes only from [Signer.Mint],
// which takes a [Grant]: what an allowing decision says may be signed. The zero
// Grant denies. A permit is bound to the key, the purpose and the SHA-256 of
// exactly what may be signed, works once, and only with the Signer that minted
// it. Its id is derived from the grant, so that one decision cannot mint two
// permits that both work.
//
// Permits for the purposes image, device_ca and roster_root are redeemed
// through a journal, an fsynced, hash-chained file ([Journal]). A permit id in
// the journal is refused for ever, also after a restart. Permits for
// authorizations are not journalled: they are redeemed thousands of times per
// second, and what they sign is already in the signed evidence log (I1).
//
// A permit is spent by the attempt, not by the success. When an operation fails
// after the permit was redeemed, a new decision is needed. This is the safe
// side: it is not known what left the process.
//
// # No digest oracle
//
// No operation signs bytes or digests of the caller's choice:
//
//   - [Signer.SignImage] reads the image itself, checks it against the approved
//     manifest, checks the approvals itself against a roster under the roster
//     root key, and runs the format's encoder with a signer that works only
//     during the call.
//   - [Signer.SignAuthorization] signs a COSE Sig_structure (RFC 9052, section
//     4.4) whose payload is the permit's subject.
//   - [LogSigner] signs well-formed checkpoints of its own log that never
//     shrink and never fork, and receipts whose root it signed as a checkpoint.
//   - [Signer.IssueCertificate] and [Signer.SignCRL] sign the TBS bytes whose
//     digest is the permit's subject ([CertificateDigest], [CRLDigest]).
//   - [Signer.SignRoster] and [Signer.SignTrustBundle] sign DSSE envelopes of
//     their own payload types.
//
// # Example
//
//	ks, err := signer.OpenKeystore(dir, signer.KeystoreOptions{Passphrase: pass})
//	s, err := signer.Open(ks, signer.Options{})
//	permit, err := s.Mint(signer.Grant{
//		Purpose: fw.PurposeAuthorization, Key: "authz-1",
//		Subject: fw.DigestOf(claims), Evidence: index, Verdict: signer.VerdictAllow,
//	})
//	sig, err := s.SignAuthorization(permit, sigStructure)
//
// # What it does not do
//
// The Signer trusts the process it runs in to report decisions truthfully in
// the Grant. For images it does not need that trust, because it checks the
// approvals itself; for authorizations, certificates and checkpoints it does,
// and the evidence log is what makes a lie visible.
package signer
