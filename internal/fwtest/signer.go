package fwtest

import (
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
)

// Keys are the names of the keys that [Signer] makes, by purpose.
var Keys = map[fw.Purpose]fw.KeyName{
	fw.PurposeImage:         "image",
	fw.PurposeAuthorization: "authorization",
	fw.PurposeLog:           "log",
	fw.PurposeDeviceCA:      "device-ca",
	fw.PurposeRosterRoot:    "roster-root",
	fw.PurposeStatement:     "statement",
}

// Signer returns a signer over a fresh key store with a key of every purpose.
func Signer(t testing.TB) (*signer.Signer, *signer.Keystore) {
	t.Helper()
	ks, err := signer.OpenKeystore(t.TempDir(), signer.KeystoreOptions{Passphrase: []byte("test"), ScryptLogN: 4})
	if err != nil {
		t.Fatal(err)
	}
	for purpose, name := range Keys {
		if _, err := ks.Create(t.Context(), name, purpose, "", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := signer.Open(ks, signer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, ks
}
