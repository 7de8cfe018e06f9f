// Package store holds all of writ's SQL, in one text for two dialects: SQLite
// by default, PostgreSQL when several replicas share one database.
//
// # What it promises
//
//   - A write is a closure: [DB.Tx] runs it in a transaction that carries its
//     own clock reading and commits before Tx returns nil. State and evidence
//     of one closure commit together or not at all (invariant I8).
//   - Writers are serial. In one process a single goroutine takes whatever
//     closures are waiting, runs them in one transaction and commits once:
//     natural group commit, so that the cost of the fsync is shared. Between
//     replicas on PostgreSQL the transaction begins by locking the log head
//     row. So a rule that reads a count and then grants under it is exact
//     without further locking (invariant I7).
//   - A closure may run more than once: when a companion in its batch fails
//     after writing, or PostgreSQL reports a serialization failure, the whole
//     batch is rolled back and its closures run again one by one. A closure
//     therefore sets its results by assignment and does nothing outside the
//     transaction except through [Tx.OnCommit].
//   - SQLite runs in WAL mode with synchronous=FULL; the pragmas are read back
//     after opening and the database is refused when they do not hold.
//     Checkpoints of the WAL are explicit, and an error in one is fatal,
//     because an error inside an automatic checkpoint is silent; except that
//     on a full disk commits fail, and go on when there is space again.
//   - Readers ([DB.Snapshot]) have connections of their own and cannot write.
//
// SQL is written once with $1 placeholders. The few differences between the
// dialects are in dialect.go and as words in the migrations.
package store
