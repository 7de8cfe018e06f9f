// Package demo is "writ demo": a maker's day in under two minutes, with a real
// server, a fleet of real agent processes, real keys and real failures.
//
// # What it promises
//
//   - Nothing in it is staged beyond the causes. The server is the one that
//     "writ serve" runs; each device is a process of this same binary with its
//     own key, certificate and pair of slots; the approvals are SSH signatures
//     by people who did not propose. What the demo arranges is a release whose
//     firmware fails its health check, a flash chip that flips a bit once, a
//     device in quarantine, and a device whose certificate ran out in a drawer.
//   - Every line it prints with a tick was observed in the server's state or
//     in a device's own directory. It ends with success only if every expected
//     outcome was.
//   - It leaves nothing behind unless asked to (--keep).
package demo
