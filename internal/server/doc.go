// Package server composes a writ server: it opens the store, the keys and the
// log, wires the services together, and serves devices, operators and
// auditors on one HTTPS port.
//
// # What it promises
//
//   - [Open] leaves a server that is ready or an error that says what to do.
//     The first run makes the keys, the CA, the trust bundle and one local
//     administrator, and says loudly that the keys live on this host.
//   - [Server.Run] returns when its context ends, after requests in flight
//     have been answered, or when the database can no longer be trusted: then
//     the process must end, because going on could lose evidence.
//   - Background work (timers, expired authorizations, epochs, last-seen
//     times) is loops over the services; no rule lives here.
package server
