package signerd

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
)

// Files in a signer's folder, which has mode 0700.
const (
	setupFile   = "signer.json"
	keysFolder  = "keys"    // a key store, docs/formats/keys.md, with the journal
	rosterDir   = "rosters" // NNNNNN.json, each version as it was signed
	spoolFolder = "spool"   // images on their way; may be on another disk, as a link
)

// typeSetup is the "type" member of the setup.
const typeSetup = "writ-signer/v1"

// Setup is what a signer believes without being shown: signer.json. A person
// writes it, with writ-signer init and trust-log, and no request changes it.
type Setup struct {
	Type string `json:"type"` // writ-signer/v1

	// Log is the verifier key of the evidence log whose decisions count (C2SP
	// signed-note): NAME+HASH+KEY. Empty: none yet, and nothing is signed.
	Log string `json:"log,omitempty"`

	// MinApprovals is the smallest quorum for a release, whatever its product
	// asks for.
	MinApprovals int `json:"min_approvals"`

	// Roots sign rosters: Threshold of them.
	Roots RootSet `json:"roots"`
}

const (
	maxSetup = 64 << 10 // bytes
	maxRoots = 32
)

func readSetup(dir string) (Setup, error) {
	var s Setup
	path := filepath.Join(dir, setupFile)
	b, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the folder
	if errors.Is(err, fs.ErrNotExist) {
		return s, fw.Errorf(fw.NotFound, "%s is no signer's folder: make one with writ-signer init --dir %s", dir, dir)
	}
	if err != nil {
		return s, fw.Wrap(fw.Unavailable, err, "cannot read %s: check its owner and permissions", path)
	}
	if len(b) > maxSetup {
		return s, fw.Errorf(fw.TooLarge, "%s is over the limit of %d bytes", path, maxSetup)
	}
	if err := dsse.Decode(b, &s); err != nil {
		return s, fw.Wrap(fw.Corrupt, err, "%s is damaged: restore it from a backup", path)
	}
	if err := s.check(); err != nil {
		return s, fw.Wrap(fw.Corrupt, err, "%s cannot be used: %v", path, err)
	}
	return s, nil
}

func (s *Setup) check() error {
	if s.Type != typeSetup {
		return fw.Errorf(fw.Invalid, "the type is %q, not %q", s.Type, typeSetup)
	}
	if s.MinApprovals < 1 || s.MinApprovals > 16 {
		return fw.Errorf(fw.Invalid, "min_approvals must be 1 to 16, not %d", s.MinApprovals)
	}
	if s.Log != "" {
		if _, err := logKey(s.Log); err != nil {
			return err
		}
	}
	_, err := s.Roots.roots()
	return err
}

// write replaces the setup: readers, also after a crash, see the old or the
// new one.
func (s *Setup) write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the setup")
	}
	return replaceFile(filepath.Join(dir, setupFile), append(b, '\n'))
}

// roots parses the root keys.
func (r RootSet) roots() (*signer.Roots, error) {
	if len(r.Keys) > maxRoots || r.Threshold < 1 || r.Threshold > len(r.Keys) {
		return nil, fw.Errorf(fw.Invalid, "the threshold of the roots is 1 to their number, of at most %d, and not %d of %d", maxRoots, r.Threshold, len(r.Keys))
	}
	out := &signer.Roots{Threshold: r.Threshold}
	for _, der := range r.Keys {
		pub, err := dsse.ParsePublicKey(der)
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "a root key is malformed")
		}
		k, ok := pub.(ed25519.PublicKey)
		if !ok {
			return nil, fw.Errorf(fw.Invalid, "root keys are Ed25519 and one is a %T", pub)
		}
		for _, o := range out.Keys {
			if o.Equal(k) {
				return nil, fw.Errorf(fw.Invalid, "a root key is named twice: it would sign for two")
			}
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

// logKey returns the public key in a signed-note verifier key.
func logKey(vkey string) (ed25519.PublicKey, error) {
	bad := func(err error) error {
		return fw.Wrap(fw.Invalid, err, "%.80q is no verifier key of a log: copy the line that writ serve --print-log-key prints", vkey)
	}
	if _, err := note.NewVerifier(vkey); err != nil {
		return nil, bad(err)
	}
	_, rest, _ := strings.Cut(vkey, "+")
	_, key, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, bad(err)
	}
	return raw[1:], nil // after the algorithm
}

// replaceFile writes a file of mode 0600 whole or not at all.
func replaceFile(path string, b []byte) (err error) {
	defer func() {
		if err != nil {
			err = fw.Wrap(fw.Unavailable, err, "cannot write %s: check free space and permissions", path)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // best effort; a stray temporary file is harmless
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
