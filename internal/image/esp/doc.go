// Package esp reads, signs and verifies ESP-IDF application images with Secure
// Boot v2 signatures.
//
// The specification is the ESP-IDF programming guide (application image format,
// Secure Boot v2) and the headers esp_app_format.h, esp_app_desc.h and
// esp_secure_boot.h; the reference tool is espsecure of esptool 4.12.
//
// # Layout
//
// All integers, those in signatures too, are little-endian.
//
//	offset      size     content
//	0           24       header
//	24          …        segments {u32 load address, u32 length, data}
//	            …        zeros, so that the checksum ends a block of 16 bytes
//	            1        checksum: 0xEF xor every byte of segment data
//	            32       SHA-256 of all the above, if the header says so
//	            …        0xFF up to a multiple of 4096
//	            4096     signature sector, absent from an unsigned image
//
// The header:
//
//	0   u8      magic 0xE9
//	1   u8      number of segments, 1 to 16
//	12  u16     chip id
//	15  u16     minimum chip revision, as major*100+minor
//	17  u16     maximum chip revision
//	23  u8      1 when a SHA-256 is appended, else 0
//
// The data of the first segment of an application starts with its description:
//
//	0   u32     magic 0xABCD5432
//	4   u32     secure_version: the security counter
//	16  [32]    version, text that ends with a zero byte, as all the others
//	48  [32]    project name
//	80  [16]    time of the build
//	96  [16]    date of the build
//	112 [32]    version of ESP-IDF
//	144 [32]    SHA-256 of the ELF file
//
// # Signature sector
//
// It holds one to three blocks of 1216 bytes, and 0xFF where there is none. An
// RSA-3072 block:
//
//	0     u8 u8 [2]  0xE7, 2, zeros
//	4     [32]       SHA-256 of everything before the sector
//	36    [384]      modulus n
//	420   u32        public exponent
//	424   [384]      2^6144 mod n
//	808   u32        -1/n mod 2^32
//	812   [384]      PSS signature, MGF1 with SHA-256, salt of 32 bytes
//	1196  u32        CRC-32 (IEEE) of bytes 0 to 1195
//	1200  [16]       zeros
//
// An ECDSA block, with w = 32 for P-256 and 48 for P-384, and a digest of w bytes:
//
//	0     u8 u8 u8 u8  0xE7, 3, hash (0 SHA-256, 1 SHA-384), zero
//	4     [w]          digest of everything before the sector
//	4+w   u8           curve (2 P-256, 3 P-384)
//	      [w] [w]      X, Y of the public key
//	      [w] [w]      r, s of the signature
//	      …            zeros up to 1196, then CRC and zeros as above
//
// The chip trusts the SHA-256 of the key's part of the block (bytes 36 to 811 of
// an RSA block; curve, X and Y of an ECDSA block), which is burned into its
// eFuses. That digest is the KeyID in [image.SignatureInfo].
//
// # What Verify demands
//
// The bootloader looks for the sector after the padded image, espsecure in the
// last 4096 bytes of the file. Verify wants both to be the same place. It also
// wants every length to agree, the checksum and the appended SHA-256 to be
// right, padding to be 0xFF, and blocks without a gap, in their one canonical
// encoding, all of one algorithm and by different keys. Every block must hold
// the right digest and a good signature by the key inside it, and at least one
// must be by a given key: a second block that is broken is not noise but a sign
// that somebody changed the sector.
//
// P-192 (curve 1) is refused as unsupported.
//
// # Signing
//
// Images are built by ESP-IDF; Sign takes a finished one. The version and the
// security counter in the options must be those in the description. An image
// without a description (a bootloader) has no place for them: it can be signed
// for any version, and for no security counter but zero. When the hardware of
// the options names chips ("esp32c3", "ESP32-C3"), the image must be for one of
// them.
//
// Signing replaces the blocks that are there. The layout option
//
//	{"append": true}
//
// keeps them and adds one, as a key rotation wants: an image with two blocks
// boots on chips with either key.
//
// # Example
//
//	f := esp.Format{}
//	res, err := f.Sign(ctx, out, app, size, key, image.SignOptions{
//		Version: "1.2.3", SecurityCounter: new(uint64(5)), Hardware: []string{"esp32c3"},
//	})
//	v, err := f.Verify(ctx, signed, res.Size, nil, []crypto.PublicKey{key.Public()})
package esp
