package signer

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// Options configures a [Signer].
type Options struct {
	// Journal is the path of the journal; empty means journal.jsonl in the
	// key store's directory.
	Journal string

	// MinApprovals is the smallest quorum the signer accepts for an image,
	// whatever the caller asks for; 0 means 1.
	MinApprovals int

	// Roots signs rosters: a threshold of these keys. Nil means any one active
	// roster root key of the key store.
	Roots *Roots

	// Custody says in evidence where the keys in files are; empty means
	// [CustodyEmbedded].
	Custody string
}

// Where keys in files are, as evidence says it. A key that is elsewhere is
// named by the kind of that place, pkcs11 say.
const (
	CustodyEmbedded = "embedded-file" // in the server's own process
	CustodyRemote   = "remote-file"   // in a writ-signer process
	CustodyOffline  = "offline"       // where no process of ours is
)

// Signer redeems permits. It is safe for concurrent use.
type Signer struct {
	ks      *Keystore
	journal *Journal
	opt     Options

	mu     sync.Mutex
	roster *approval.Roster // the newest one seen; nil before the first
	logs   map[fw.KeyName]*LogSigner
}

// Open starts a signer over ks. It verifies the journal and refuses to start
// over one that was changed.
func Open(ks *Keystore, opt Options) (*Signer, error) {
	if opt.Journal == "" {
		opt.Journal = filepath.Join(ks.dir, journalFile)
	}
	if opt.MinApprovals <= 0 {
		opt.MinApprovals = 1
	}
	if opt.Custody == "" {
		opt.Custody = CustodyEmbedded
	}
	j, err := OpenJournal(opt.Journal)
	if err != nil {
		return nil, err
	}
	return &Signer{ks: ks, journal: j, opt: opt, logs: map[fw.KeyName]*LogSigner{}}, nil
}

// Close writes the log signers' states and closes the journal. Operations
// after it fail.
func (s *Signer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.logs {
		errs = append(errs, l.close())
	}
	return errors.Join(append(errs, s.journal.Close())...)
}

// record journals the redemption of p before its key is used. It refuses a
// permit that the journal already holds.
func (s *Signer) record(p *Permit, at time.Time) error {
	return s.journal.Append(Entry{
		Kind: EntryRedeemed, At: at.Unix(), Permit: p.id, Purpose: p.grant.Purpose,
		Key: p.grant.Key, Subject: p.grant.Subject, Evidence: p.grant.Evidence,
	})
}
