// Package cms makes and checks the CMS signatures (SignedData, RFC 5652) that
// SWUpdate and RAUC carry.
//
// # What is written
//
// One SignerInfo, over signed attributes, in DER:
//
//	ContentInfo       signedData
//	  SignedData      version 1
//	    digestAlgorithms  the hash
//	    encapContentInfo  id-data, with the content or, detached, without
//	    certificates      the signer's chain, its own certificate first
//	    SignerInfo        version 1, named by issuer and serial number
//	      digestAlgorithm
//	      signedAttrs     contentType, messageDigest, signingTime if there is one
//	      signatureAlgorithm, signature
//
// The hash is SHA-256 for RSA and P-256 and SHA-384 for P-384 ([Hash]). RSA
// signs with PKCS #1 v1.5 (RFC 3370) or PSS (RFC 4056), ECDSA as RFC 5753 says.
//
// [SignDigest] takes the digest of the content and not the content, so that it
// may be of any size; [SignContent] puts a small content inside.
//
// # What is accepted
//
// [Parse] reads DER and nothing looser: indefinite lengths, attributes out of
// order or given twice, and bytes after the end are malformed. Revocation lists
// and unsigned attributes are refused, because nothing signs them. Every
// signature must have signed attributes: without, a signature over attributes
// could be passed off as one over a content that looks like them (RFC 5652,
// section 11, warns of it). The content type is id-data.
//
// [SignedData.Verify] demands that every signer is trusted and every signature
// good. That is what OpenSSL does on the device: one signer it does not know
// fails the update.
//
// # Purpose
//
// OpenSSL refuses a certificate with an extended key usage that lacks the purpose
// it was told to check, and both SWUpdate and RAUC check S/MIME signing
// (emailProtection) unless configured for code signing. A signature by any other
// certificate is good for nothing but a failed update in the field, so signing
// refuses it first.
//
// # Example
//
//	h, err := cms.Hash(key.Public())
//	d := h.New()
//	_, err = io.Copy(d, content)
//	der, err := cms.SignDigest(key, d.Sum(nil), cms.Options{Chain: chain})
//
//	s, err := cms.Parse(der)
//	digests := s.NewDigests()
//	_, err = io.Copy(digests, content)
//	signers, err := s.Verify(digests, cms.Trust{Keys: keys})
package cms
