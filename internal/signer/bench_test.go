package signer

import (
	"testing"

	"github.com/writ-project/writ/internal/fw"
)

// A permit by itself, without the signature.
func BenchmarkMint(b *testing.B) {
	w := newWorld(b)
	g := Grant{Purpose: fw.PurposeAuthorization, Key: "authz-1", Subject: fw.DigestOf(nil), Verdict: VerdictAllow}
	for b.Loop() {
		g.Evidence++
		if _, err := w.s.Mint(g); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssueCertificate(b *testing.B) {
	w := newWorld(b)
	req := leafRequest(b, w.ca(b))
	n := int64(100)
	for b.Loop() {
		n++
		if _, err := w.issue(b, req, n); err != nil {
			b.Fatal(err)
		}
	}
}
