// Package evidence defines what a record of the log is: its types, its exact
// bytes, the streams that link records about one subject, and the epochs that
// commit to every stream at once. The byte-exact specification for other
// implementers is docs/formats/evidence.md.
//
// # What it promises
//
//   - A record is encoded once by [Encode], and the bytes it returns are what
//     is stored, hashed and exported. Hashes and signatures are checked over
//     those bytes, never over a record encoded again.
//   - The commitment to a record is SHA-256 over a domain tag, 32 random
//     bytes of salt, and the record's bytes ([Commit]). The commitment is the
//     entry of the Merkle log. Without the salt it says nothing about the
//     record, so a log of commitments can be public, and erasing body and salt
//     leaves position and order provable and content gone.
//   - Every record carries, for each of its streams, its number in that
//     stream and the commitment of the one before. So records 1 to n of a
//     stream cannot be exported with one left out ([CheckLinks]).
//   - An epoch record commits to the sorted list of all stream heads
//     ([NewEpochTree]). So an export cannot end a stream early, and "there is no
//     such stream" is provable ([CheckStream]).
//   - [Decode] accepts exactly what [Encode] makes: one order of members, no
//     whitespace, no member twice, at most [MaxRecord] bytes. Two readers
//     cannot see different records in the same bytes.
//
// # Example
//
//	salt := evidence.NewSalt()
//	body, err := evidence.Encode(evidence.Record{
//		Index: 7, Type: evidence.TypeDeviceState, MS: now.UnixMilli(), Actor: "ann",
//		Streams: []evidence.Link{{Stream: evidence.DeviceStream("sn-1"), N: 3, Prev: prev}},
//		Data:    data,
//	})
//	leaf := evidence.Commit(salt, body)
package evidence
