package review_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/signer"
)

// A roster that was signed where the root key is, not by this server.
func TestRostersSignedElsewhereFormTheSameChain(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		d := newDesk(t, url)
		ctx := t.Context()
		_, line := newKey(t)
		version := func(prev *approval.Roster, created int64) []byte {
			doc := approval.RosterDocument{Version: 1, CreatedAt: created, Approvers: []approval.Approver{{Person: "ann", Keys: []string{line}}}}
			if prev != nil {
				doc.Version, doc.Previous = prev.Version()+1, prev.Digest()
			}
			b, err := doc.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		sign := func(doc []byte) []byte {
			p, err := d.signer.Mint(signer.Grant{Purpose: fw.PurposeRosterRoot, Key: "root", Subject: fw.DigestOf(doc), Verdict: signer.VerdictAllow})
			if err != nil {
				t.Fatal(err)
			}
			env, err := d.signer.SignRoster(p, doc, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return env
		}
		first := sign(version(nil, 1))
		for range 2 { // again is no error
			if err := d.approvers.Import(ctx, first, "signer"); err != nil {
				t.Fatal(err)
			}
		}
		one, err := d.approvers.Roster(d.db.Snapshot(ctx))
		if err != nil || len(one.Keys("ann")) != 1 {
			t.Fatalf("%+v, %v", one, err)
		}

		_, fake, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := dsse.Seal(approval.RosterPayloadType, version(one, 2), fake)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, d.approvers.Import(ctx, forged, "signer"), fw.Forbidden, "root keys")
		wantError(t, d.approvers.Import(ctx, sign(version(nil, 3)), "signer"), fw.Conflict, "cannot follow")

		if err := d.approvers.SyncSigner(ctx, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := d.approvers.Import(ctx, sign(version(one, 4)), "signer"); err != nil {
			t.Error(err)
		}
		if n := len(d.rosterRecords()); n != 2 {
			t.Errorf("%d rosters on record", n)
		}
	})
}
