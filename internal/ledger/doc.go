// Package ledger writes the evidence log: it appends records in the caller's
// database transaction, extends the Merkle tree over them before the commit,
// and gives out checkpoints, receipts, proofs and tiles afterwards.
//
// # What it promises
//
//   - The database is the sequencer (DESIGN section 7). A record, the state it
//     speaks of, the tree and the signed checkpoint commit in one transaction
//     or not at all. There is no outbox and no second store.
//   - An index is final when [Ledger.Append] returns: writers are serial, so
//     the next index is the size of the tree plus the records before it in
//     the same commit. If the commit fails, the index never existed, and
//     nothing signed over it has left the process.
//   - The checkpoint is signed before the commit and shown to nobody until
//     after it.
//   - Every record is linked into its streams: number n carries the
//     commitment of number n-1.
//   - The times of records never run backwards. A clock that is set back a
//     little gives its records the time of the newest one; a clock that is
//     more than a minute behind it writes nothing, and the error says both
//     times.
//   - [Open] rebuilds the right edge of the tree from the stored tiles and
//     records and requires the stored root, the signed checkpoint and the
//     newest records to agree. When they do not, it refuses, and says what to
//     do: a log that disagrees with itself must not be extended.
//   - On PostgreSQL each write transaction begins by locking the log head, and
//     the in-memory edge is rebuilt when another replica has moved it.
//
// What it does not promise: that the operator has not forked or rewritten the
// log. Only a party outside the operator's control can witness that.
package ledger
