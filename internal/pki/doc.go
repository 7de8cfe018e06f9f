// Package pki says what the certificates of devices and of the server look
// like, reads certificate requests, and checks certificates that devices
// present. It makes templates; internal/signer signs them.
//
// # Profile (docs: RFC 5280, RFC 5480, IEEE 802.1AR terms)
//
//	                CA                    device                       server
//	subject         CN=<name>             the request's bytes, CN=<id> CN=<first name>
//	key             P-256                 P-256, Ed25519               same
//	life            10 years              90 days                      90 days
//	basicConstr.    CA, pathlen 0, crit.  not CA, critical             not CA, critical
//	keyUsage        keyCertSign, cRLSign  digitalSignature             digitalSignature
//	extKeyUsage     -                     clientAuth                   serverAuth
//	SAN             -                     urn:writ:device:<prod>:<id>  DNS and IP
//
// Serials are 159 random bits. Subject key identifiers are the leftmost 160
// bits of SHA-256 over the public key (RFC 7093, section 2, method 1).
// notBefore is set 60 seconds back, because device clocks are.
//
// The URI in a device certificate is what names the device. "urn:writ" is not
// a registered URN namespace; it is used only under the operator's own CA. A
// product id has no colon, so the id is everything after the fourth colon.
//
// # Time is not trust
//
// [VerifyDevice] checks signatures, usages and names. Expiry is reported as a
// [CertStatus] and not as an error, because refusing an expired certificate is
// a decision with a reason and a record (DESIGN I4). The caller must look at
// the status. "Renewal due" and "expired" are computed here and stored nowhere.
//
// # Example
//
//	csr, err := pki.ParseCSR(body)
//	err = csr.CheckDevice("gateway", "gw-0017")
//	tmpl, err := pki.DeviceTemplate(csr, pki.DeviceProfile{}, "gateway", "gw-0017", now)
//	req := signer.CertificateRequest{Template: tmpl, Parent: caCert, PublicKey: csr.PublicKey, At: now}
//	subject, err := signer.CertificateDigest(req, caCert.PublicKey)
//	// decide and record; then
//	der, err := s.IssueCertificate(permit, req)
package pki
