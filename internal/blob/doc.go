// Package blob keeps bytes under their SHA-256 digest in a directory, and
// takes uploads that can be resumed after any interruption.
//
// # Layout
//
//	DIR/sha256/ab/cdef…   a complete blob, read-only, named by its digest
//	DIR/staged/ID         an upload in progress; its size is the resume offset
//	DIR/staged/ID.import  bytes the server itself is making
//
// # What it promises
//
//   - A name under sha256/ appears only after all of its bytes were hashed and
//     written to stable storage, by a rename that is itself made durable. A
//     crash leaves a staged file that can be resumed or swept, never a partial
//     blob.
//   - A blob never changes. Committing the same bytes again replaces the file
//     with an equal one, which also heals a blob that a bad disk damaged.
//   - [Dir.WriteAt] appends, and only where the caller believes the end to be:
//     any other offset is a [fw.Conflict] that names the real one. When it
//     returns, what it counted is durable. Bytes that arrived before a cut
//     connection are kept; a call that would pass the bound changes nothing.
//   - One call at a time works on a staged upload; a second one is told so
//     ([fw.Conflict]) and does not wait. Blobs may be opened at any time.
//   - Ids from outside are checked against an alphabet without dots or
//     slashes, and every path is resolved inside an [os.Root], so neither an id
//     nor a planted symbolic link leads out of the directory.
//   - A full disk, a quota and a read-only file system are [fw.Unavailable]
//     with a message that says so; the path is in the cause, for the log.
//
// A directory belongs to one process: two servers must not share one.
//
// # An upload
//
//	d, err := blob.Open(dir)
//	err = d.Stage("upl_1")
//	n, err := d.WriteAt(ctx, "upl_1", 0, body, maxBytes) // cut off: n bytes are safe
//	n, err = d.WriteAt(ctx, "upl_1", n, rest, maxBytes)
//	size, err := d.Commit("upl_1", announced)             // hash, fsync, rename
//	f, size, err := d.Open(announced)                     // an *os.File, for http.ServeContent
package blob
