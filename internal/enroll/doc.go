// Package enroll registers devices, gives them certificates, and moves them
// through their lifecycle. It also keeps the device CA.
//
// # Types
//
//   - [Authority] is the CA: its root certificate, the certificates of devices
//     and of the server, the revocation list.
//   - [Devices] is the register: serial lists, attributes, the lifecycle, the
//     states of certificates.
//   - [Enrolment] turns a one-time token and a certificate request into a
//     certificate, and a certificate into the next one.
//
// # What it promises
//
//   - State and record commit together. Every change of a device's or a
//     certificate's state has a device_state or certificate_state record in
//     the device's stream, in the same transaction.
//   - No certificate without a decision. A key_use record names the digest of
//     the exact TBS bytes; its index goes into the permit; the certificate,
//     its row and its certificate_issued record follow in the same
//     transaction. Nothing leaves before the commit. When the store runs a
//     closure again, a new serial and a new permit are made, and what was
//     signed before is dropped unseen.
//   - A token works once. It is used up in the transaction that stores the
//     certificate, so that of many racing enrolments one wins. Only the newest
//     token of a device works, and only its SHA-256 is kept.
//   - A lost reply is no dead end: for [RetryWindow] after its use, the same
//     token with the same public key gives the same certificate, and a renewal
//     with the same key gives the same renewal.
//   - One key, one device, for ever: a key that another device ever had a
//     certificate for is refused.
//   - A device has at most one active and one issued certificate. The first
//     use of the issued one ([Devices.ConfirmCertificate]) makes it active and
//     supersedes the other, so that a device that loses power in a renewal
//     still has one that works.
//   - Revoked and decommissioned are final, and the device id stays taken.
//     Revocation revokes every certificate in the same transaction.
//     Decommissioning leaves them, because a device must still be able to hear
//     that it is decommissioned; its state refuses everything else.
//   - Trust rises only by two people (DESIGN I5). Leaving quarantine takes a
//     document ([ReleaseRequest]) that names the doubt and the reason, the
//     signature of somebody else over exactly its bytes, and either a version
//     confirmed since the quarantine began or evidence named in the document.
//     [Devices.Quarantine] is the one move that automation may make.
//   - After a commit that changed what a device may do, [Options.Changed] is
//     called, so that caches drop the device and its next request meets the
//     new state.
//
// # What writes records and what does not
//
// A request with an unknown token, or one that is malformed, writes nothing.
// A refusal of somebody who holds a token or a certificate of ours writes an
// access_denied record, once per device and reason and process, so that a
// device in a loop cannot fill the log.
//
// # Registered devices are claimed
//
// The state of a new device is claimed: the maker who runs this server is its
// owner. [NewDevice.State] can say manufactured, for identities that were
// imported from a factory before somebody owns them.
//
// # Settings
//
//	ca/root              the CA's certificate, DER
//	ca/crl               the newest revocation list, JSON of crlRow
//	revoked/<serial>     when and why, JSON of revocation
//	token/<device>       SHA-256 of the newest token; empty: none works
//	lifecycle/<device>   the open [ReleaseRequest], exact bytes; empty: none
//
// # Example
//
//	ca, err := enroll.OpenAuthority(ctx, enroll.AuthorityOptions{DB: db, Ledger: l, Signer: s, Keystore: ks, Key: "device-ca"})
//	options := enroll.Options{DB: db, Ledger: l, Authority: ca}
//	devices, enrolment := enroll.New(options), enroll.NewEnrolment(options)
//	_, err = devices.Register(ctx, "gateway", []enroll.NewDevice{{ID: "gw-1", Hardware: "rev-a"}}, "ann")
//	token, err := enrolment.EnrolmentToken(ctx, "gw-1", time.Hour, "ann")
//	chain, err := enrolment.Enrol(ctx, token.Secret.Reveal(), csr)
package enroll
