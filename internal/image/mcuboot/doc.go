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
// plaintext. It is SHA-256, SHA-384 or SHA-512 (0x10, 0x11, 0x12), one for all
// signatures of an image:
//
//	0x22  ECDSA P-256, DER               over SHA-256
//	0x22  ECDSA P-384, DER               over SHA-384
//	0x20  RSA-2048, PSS, salt 32         over SHA-256
//	0x23  RSA-3072, PSS, salt 32         over SHA-256
//	0x24  Ed25519, digest as message     over SHA-256 or SHA-512
//	0x24  Ed25519, pure, marked by 0x25  over the signed region itself
//
// The TLV area is not signed: it holds the digest, the mark of a pure signature,
// for each signature the key or its hash, and the signature. The key is hashed
// with the image's own algorithm, so with SHA-512 a key hash has 64 bytes.
//
// # What Verify demands
//
// Bootloaders differ in their build options, and some are lenient. Verify
// accepts what all of them read the same way, and refuses the rest:
//
//   - lengths agree with each other and the file, and TLVs fill their areas;
//   - the TLV area holds, in this order: one digest, the mark of pure signatures
//     if they are, then pairs of key hash (0x01) or full key (0x02) and
//     signature, then the encrypted key if the header says that there is one,
//     and nothing else, as in a bootloader with MCUBOOT_USE_TLV_ALLOW_LIST;
//   - the protected area holds none of these, because bootutil walks both areas
//     and would read a key hash there, and no second security counter, boot
//     record, vendor or class id, of which bootutil reads the first only;
//   - the digest is right;
//   - at least one signature is by a given key, and every signature that names
//     a given key is good. Bootutil lets the last known key decide; demanding
//     all of them is at least as strict;
//   - hash and algorithm are a pair that MCUboot is built with, as above.
//
// The zeros that imgtool --pad-sig appends to ECDSA signatures for bootloaders
// older than 1.5 are refused.
//
// A pure signature is verified as the image streams by. Making one needs the
// whole image at once, because that is what a [crypto.Signer] signs: Sign holds
// it in memory and takes no more than [MaxPureSign].
//
// # Several signatures
//
// Sign replaces the signatures of an existing image, or adds one: see
// [Layout.Signatures]. Those by other keys stay as they are, and one by the same
// key is replaced. All keys must sign the digest that the image has.
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
// The header says so (flags 0x4 for AES-128, 0x8 for AES-256). The payload is
// padded with zeros until header and payload are a multiple of 16 bytes, hashed
// and signed in plaintext, then encrypted with AES-CTR from a zero counter under
// a key of its own. The last TLV holds that key, encrypted to the devices:
//
//	0x32  ECIES on P-256:   65 byte point, 32 byte HMAC, key
//	0x33  ECIES on X25519:  32 byte u,     32 byte HMAC, key
//	0x34  the same with SHA-512: 32 byte u, 64 byte HMAC, key
//
// HKDF without salt and with info "MCUBoot_ECIES_v1" turns the shared secret
// into an AES key as long as the image key, which encrypts that (AES-CTR, zero
// counter), and an HMAC key as long as the hash. RSA-OAEP (0x30) and AES key
// wrap (0x31) are named by Inspect only.
//
// Without the recipient's private key only the structure can be checked, since
// the digest is of the plaintext. Inspect reports the claims with Encrypted set;
// Verify refuses the image as encrypted unless an [image.Recipient] is among the
// keys. An encrypted image cannot be signed again. For several signatures the
// first signers defer the encryption, which fixes header and padding and leaves
// the payload clear, and the last one encrypts.
//
// # Anti-rollback and hardware
//
// The security counter is the protected TLV 0x50, u32. The version does not
// protect against rollback unless the bootloader is built so, and bootutil
// ignores the build number when it compares. The vendor and class ids (0x74,
// 0x75) bind an image to hardware: the vendor id is the version 5 UUID of the
// vendor's DNS name, the class id that of the hardware name within the vendor id.
//
// Dependencies (0x40), the boot record (0x60) and custom entries (0x00a0 to
// 0xfffe) are in the protected area as well; see [Layout] and [Details].
//
// # Example
//
//	f := mcuboot.Format{}
//	res, err := f.Sign(ctx, out, payload, size, key, image.SignOptions{
//		Version: "1.2.3+4", SecurityCounter: new(uint64(7)),
//	})
//	v, err := f.Verify(ctx, signed, res.Size, nil, []crypto.PublicKey{key.Public()})
package mcuboot
