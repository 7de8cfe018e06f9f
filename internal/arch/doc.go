// Package arch holds the structure of writ in place. It has no code of its
// own: its tests read the source of the whole module and fail when
//
//   - a package imports one that is not in a lower layer (the table is layers,
//     in layers_test.go; a new package must be added to it),
//   - a pure package does I/O, logs, or reads the clock,
//   - a package has no package comment, or a name that says nothing,
//   - a file, a service type or an interface has grown too large,
//   - modernc.org/libc is not the version modernc.org/sqlite was built for.
//
// Test files may import what they need; the rules are about what ships.
package arch
