// Package fw is writ's vocabulary: the typed ids, the closed states with their
// transition tables, digests, reason codes and error kinds that every other
// package speaks. It does no I/O and reads no clock.
//
// # What it promises
//
//   - An id type per kind of thing. A [DeviceID] cannot be passed where a
//     [CampaignID] is wanted, and every id read from outside passes its Parse
//     function, which bounds length and alphabet.
//   - Closed enums. Each state type lists its values in life-cycle order, is
//     stored in its string form, and has its transition table beside it. The
//     zero value of every state is the empty string, which is no state at all
//     and permits nothing.
//   - A denial is a value ([Reason]), never an error. An [Error] means the
//     question could not be answered.
package fw
