"""Decrypts an MCUboot image: decrypt.py KEY.pem IN OUT.

Written from MCUboot's docs/encrypted_images.md for the tests of this package,
with the key files and the cryptography that imgtool uses. OUT is IN with a
clear payload and without the TLV of the encrypted key.
"""

import struct
import sys

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from imgtool import keys

KINDS = {0x32: (65, hashes.SHA256()), 0x33: (32, hashes.SHA256()), 0x34: (32, hashes.SHA512())}


def ctr(key, data):
    c = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).decryptor()
    return c.update(data) + c.finalize()


secret = keys.load(sys.argv[1]).key
with open(sys.argv[2], "rb") as f:
    image = f.read()
header, protected, payload, flags = struct.unpack_from("<HHII", image, 8)
size = 16 if flags & 4 else 32
area = header + payload + protected
total = struct.unpack_from("<H", image, area + 2)[0]
kept, at = b"", area + 4
while at < area + total:
    kind, length = struct.unpack_from("<HH", image, at)
    data = image[at + 4 : at + 4 + length]
    if kind in KINDS:
        wrapped, how = data, KINDS[kind]
    else:
        kept += image[at : at + 4 + length]
    at += 4 + length

point, digest = how
if point == 65:
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), wrapped[:point])
    shared = secret.exchange(ec.ECDH(), theirs)
else:
    shared = secret.exchange(X25519PublicKey.from_public_bytes(wrapped[:point]))
tag, encrypted = wrapped[point : point + digest.digest_size], wrapped[point + digest.digest_size :]
derived = HKDF(digest, size + digest.digest_size, None, b"MCUBoot_ECIES_v1").derive(shared)
mac = hmac.HMAC(derived[size:], digest)
mac.update(encrypted)
mac.verify(tag)
clear = ctr(ctr(derived[:size], encrypted), image[header : header + payload])
with open(sys.argv[3], "wb") as f:
    f.write(image[:header] + clear + image[header + payload : area])
    f.write(struct.pack("<HH", 0x6907, 4 + len(kept)) + kept)
