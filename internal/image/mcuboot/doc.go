// Package mcuboot reads, signs and verifies MCUboot images.
//
// The specification is mcu-tools/mcuboot docs/design.md and
// boot/bootutil/include/bootutil/image.h; the reference encoder is
// scripts/imgtool. Output of Sign is the same bytes imgtool writes.
//
// # Layout
//
// All integers are little-endian. (imgtool can also write big-endian images;
// those are not recognised.)
//
//	offset            size        content
//	0                 32          header
//	32                hdr-32      padding up to hdr, 0xFF (0x00 when in place)
//	hdr               img         payload
//	hdr+img           prot        protected TLV area, absent when prot is 0
//	hdr+img+prot      tot         TLV area
//	after that        any         erased flash: 0xFF only
//
// The header:
//
//	0   u32  magic 0x96f3b83d
//	4   u32  load address
//	8   u16  hdr: header size including its padding, at least 32
//	10  u16  prot: size of the protected TLV area including its info, or 0
//	12  u32  img: payload size
//	16  u32  flags
//	20  u8 u8 u16 u32  version: major, minor, revision, build
//	28  u32  reserved
//
// A TLV area starts with an info {u16 magic, u16 total}: 0x6908 for the
// protected area, 0x6907 for the other; total counts the info itself. Then come
// TLVs {u16 type, u16 length, data} that fill it exactly.
//
// # What is signed
//
// The image digest covers header, padding, payload and protected TLV area, in
// plaintext. ECDSA P-256 (0x22, DER) signs the SHA-256 digest, ECDSA P-384 the
// SHA-384 digest, RSA (0x20, 0x23; PSS, salt 32) the SHA-256 digest. Ed25519
// (0x24) signs the digest as its message. The TLV area is not signed: it holds
// the digest (0x10), for each signature the key or its hash, and the signature.
//
// # What Verify demands
//
// Bootloaders differ in their build options, and some are lenient. Verify
// accepts what all of them read the same way, and refuses the rest:
//
//   - lengths agree with each other and the file, and TLVs fill their areas;
//   - the TLV area holds, in this order: one digest, then pairs of key hash
//     (0x01) or full key (0x02) and signature, and nothing else, as in a
//     bootloader with MCUBOOT_USE_TLV_ALLOW_LIST;
//   - the protected area holds none of these, because bootutil walks both areas
//     and would read a key hash there, and no second security counter, boot
//     record, vendor or class id, of which bootutil reads the first only;
//   - the digest is right;
//   - at least one signature is by a given key, and every signature that names
//     a given key is good. Bootutil lets the last known key decide; demanding
//     all of them is at least as strict.
//
// The pure Ed25519 mode (0x25) signs the whole image instead of a digest, which
// cannot be checked in constant memory; it is refused as unsupported. So are
// the zeros that imgtool --pad-sig appends to ECDSA signatures for bootloaders
// older than 1.5.
//
// # After the TLV area
//
// Bytes after the TLV area are not signed, so they must carry no information:
// 0xFF, the erased state of flash, and nothing else. In particular the slot
// trailer that imgtool --pad and --confirm write is refused. It holds image_ok,
// and whoever adds that to an image in transit makes the device keep an update
// that it should have reverted. Images padded so are made for the factory's
// flash programmer, not for updates. Re-signing drops padding.
//
// # Encryption
//
// The digest is of the plaintext, so of an encrypted image (flags 0x4, 0x8, or a
// key TLV 0x30 to 0x34) only the structure can be checked. Inspect reports it
// with Encrypted set; Verify and Sign refuse it as encrypted.
//
// # Anti-rollback and hardware
//
// The security counter is the protected TLV 0x50, u32. The version does not
// protect against rollback unless the bootloader is built so, and bootutil
// ignores the build number when it compares. The vendor and class ids (0x74,
// 0x75) bind an image to hardware: the vendor id is the version 5 UUID of the
// vendor's DNS name, the class id that of the hardware name within the vendor id.
//
// # Example
//
//	f := mcuboot.Format{}
//	res, err := f.Sign(ctx, out, payload, size, key, image.SignOptions{
//		Version: "1.2.3+4", SecurityCounter: new(uint64(7)),
//	})
//	v, err := f.Verify(ctx, signed, res.Size, nil, []crypto.PublicKey{key.Public()})
package mcuboot
