// Package token is the inside of the program writ-pkcs11: it loads a vendor's
// PKCS#11 library and signs with the keys of its tokens. Nothing else imports
// it, because loading a shared library makes a program a dynamic one; the
// others speak to the program (package pkcs11). See
// docs/adr/0007-pkcs11-in-a-helper.md.
//
// It asks a token for the public part of a key and for signatures, and has no
// call that reads, wraps or derives a private key.
package token
