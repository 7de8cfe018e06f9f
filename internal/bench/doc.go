// Package bench is writ's load generator: many devices, each with its own key
// and certificate, over real mutual TLS against a server in a process of its
// own, whose CPU time and memory are read from the operating system.
//
// # What it promises
//
//   - The server under load is this same binary, started as "writ serve" with
//     its embedded defaults and durability. Nothing is switched off.
//   - CPU per operation is the server process's user and system time over the
//     run, divided by the operations; the load generator's own is not in it.
//   - Latencies are seen by the client and include its queueing.
//   - Numbers are printed with the machine and the commit. They are not
//     asserted anywhere: a busy machine is no bug.
package bench
