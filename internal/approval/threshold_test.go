package approval

import (
	"crypto"
	"crypto/ed25519"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

func newRoots(t *testing.T, n int) ([]crypto.Signer, [][]byte) {
	t.Helper()
	var keys []crypto.Signer
	var ders [][]byte
	for range n {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := dsse.MarshalPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		keys, ders = append(keys, key), append(ders, der)
	}
	return keys, ders
}

func sealRoster(t *testing.T, d RosterDocument, keys ...crypto.Signer) []byte {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := dsse.Seal(RosterPayloadType, b, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func join[T any](lists ...[]T) (out []T) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func TestARosterNeedsBothThresholds(t *testing.T) {
	oldKeys, oldDER := newRoots(t, 5)
	newKeys, newDER := newRoots(t, 3)
	line := string(ssh.MarshalAuthorizedKey(newEd25519(t).PublicKey()))
	first := RosterDocument{Version: 1, CreatedAt: 1, Approvers: []Approver{{Person: "ann", Keys: []string{line}}}, Roots: &Roots{Threshold: 3, Keys: oldDER}}
	var trusted []ed25519.PublicKey
	for _, k := range oldKeys {
		trusted = append(trusted, k.Public().(ed25519.PublicKey))
	}
	current, err := OpenRosterBy(sealRoster(t, first, oldKeys[1:4]...), trusted, 3)
	if err != nil {
		t.Fatal(err)
	}
	for name, signers := range map[string][]crypto.Signer{"two of five": oldKeys[:2], "one root three times": {oldKeys[0], oldKeys[0], oldKeys[0]}, "none": nil} {
		if _, err := OpenRosterBy(sealRoster(t, first, signers...), trusted, 3); fw.KindOf(err) != fw.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}

	next := first
	next.Version, next.Previous, next.Roots = 2, current.Digest(), &Roots{Threshold: 2, Keys: newDER}
	for name, c := range map[string]struct {
		signers []crypto.Signer
		ok      bool
	}{
		"both":                       {join(oldKeys[:3], newKeys[:2]), true},
		"all":                        {join(oldKeys, newKeys), true},
		"the old only":               {oldKeys, false},
		"the new only":               {newKeys, false},
		"one too few of the old":     {join(oldKeys[:2], newKeys), false},
		"one too few of the new":     {join(oldKeys, newKeys[:1]), false},
		"an old one again and again": {join(oldKeys[:2], oldKeys[:2], newKeys), false},
	} {
		_, err := AcceptRoster(current, sealRoster(t, next, c.signers...))
		if c.ok && err != nil || !c.ok && fw.KindOf(err) != fw.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}

	skip, none, other := next, next, next
	skip.Version = 3
	none.Roots = nil
	other.Previous = fw.DigestOf([]byte("another version 1"))
	for name, c := range map[string]struct {
		doc  RosterDocument
		kind fw.Kind
	}{"a version skipped": {skip, fw.Conflict}, "no roots any more": {none, fw.Forbidden}, "another predecessor": {other, fw.Conflict}} {
		if _, err := AcceptRoster(current, sealRoster(t, c.doc, join(oldKeys, newKeys)...)); fw.KindOf(err) != c.kind {
			t.Errorf("%s: %v, want %s", name, err, c.kind)
		}
	}
}

func TestRootsOfARosterAreChecked(t *testing.T) {
	_, der := newRoots(t, 2)
	for name, r := range map[string]Roots{
		"no key":          {Threshold: 1},
		"no threshold":    {Keys: der},
		"more than there": {Threshold: 3, Keys: der},
		"the same twice":  {Threshold: 2, Keys: [][]byte{der[0], der[0]}},
		"no key at all":   {Threshold: 1, Keys: [][]byte{{1, 2, 3}}},
	} {
		d := RosterDocument{Version: 1, CreatedAt: 1, Approvers: []Approver{{Person: "ann", Keys: []string{string(ssh.MarshalAuthorizedKey(newEd25519(t).PublicKey()))}}}, Roots: &r}
		if _, err := d.Encode(); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
