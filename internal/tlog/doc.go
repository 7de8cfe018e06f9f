// Package tlog is the Merkle log: an in-memory right edge that is extended
// before each commit, proofs, C2SP checkpoints and tiles, and COSE receipts.
//
// # What it promises
//
//   - Hashing is RFC 6962 section 2.1 (the same as RFC 9162), through
//     golang.org/x/mod/sumdb/tlog. An entry is the 32-byte commitment of an
//     evidence record.
//   - [Edge] appends at about one hash per entry, knows the root at any
//     moment, and hands over full tiles (height 8) as they fill. It is a
//     value: an append to a copy leaves the original as it was, so that a
//     rolled-back transaction is undone by forgetting the copy.
//   - [Reader] answers inclusion and consistency proofs for every size up to
//     the edge's, from stored full tiles and the edge, never from the database
//     of records. A tile counts only if it hashes to its place under the edge.
//   - [TileID] and the bundle functions are the paths and bytes of C2SP
//     tlog-tiles, so that other people's tools read the log.
//   - [Checkpoint] is a C2SP tlog-checkpoint in a signed note with an Ed25519
//     signature; parsing is strict and bounded.
//   - [Receipt] is an RFC 9942 COSE receipt of inclusion. One signature over
//     the root serves every receipt of that tree size.
//
// The byte-exact specification for other implementers is docs/formats/log.md.
// The package holds no key and does no I/O: signing is a function passed in,
// tiles come from a function passed in.
package tlog
