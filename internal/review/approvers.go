package review

import (
	"context"
	"crypto/ed25519"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// Options configure [Approvers].
type Options struct {
	DB       *store.DB
	Ledger   *ledger.Ledger
	Signer   *signer.Signer
	Keystore *signer.Keystore

	// Custody is who else checks approvals, and must know each roster; nil:
	// the Signer does.
	Custody signer.Custody

	// RootKey names the key that signs rosters; empty means the only active
	// one of that purpose.
	RootKey fw.KeyName
}

// Approvers keeps the roster of approvers. It is safe for concurrent use.
type Approvers struct {
	o      Options
	change sync.Mutex // one change at a time, because versions form a chain
	parsed atomic.Pointer[parsed]
}

// parsed is the roster checked last. Rosters do not change, so it is never
// stale: another version has another envelope.
type parsed struct {
	envelope fw.Digest
	roster   *approval.Roster
}

// NewApprovers returns the keeper of the roster.
func NewApprovers(o Options) *Approvers { return &Approvers{o: o} }

// Roster returns the newest roster. It fails with NotFound when there is none.
func (a *Approvers) Roster(q store.Queryer) (*approval.Roster, error) {
	roster, _, err := a.Newest(q)
	return roster, err
}

// Newest returns the newest roster and the envelope it came in.
func (a *Approvers) Newest(q store.Queryer) (*approval.Roster, []byte, error) {
	row, err := store.LatestVersioned(q, store.RosterTable)
	if fw.KindOf(err) == fw.NotFound {
		return nil, nil, fw.Errorf(fw.NotFound, "there are no approvers yet: add the first with writ approver add")
	}
	if err != nil {
		return nil, nil, err
	}
	digest := fw.DigestOf(row.Envelope)
	if p := a.parsed.Load(); p != nil && p.envelope == digest {
		return p.roster, row.Envelope, nil
	}
	roster, err := a.open(row)
	if err != nil {
		return nil, nil, err
	}
	a.parsed.Store(&parsed{digest, roster})
	return roster, row.Envelope, nil
}

// open checks a stored roster against the roster root keys: whoever can write
// to the database cannot make approvers.
func (a *Approvers) open(row store.Versioned) (*approval.Roster, error) {
	roster, err := a.signed(row.Envelope)
	if fw.KindOf(err) == fw.Conflict {
		return nil, err
	}
	if err != nil || roster.Version() != row.Version {
		return nil, fw.Wrap(fw.Corrupt, err, "roster version %d in the database is not what a roster root key signed: restore the database from a backup, and find out who changed it", row.Version)
	}
	return roster, nil
}

// signed returns the roster in an envelope that an active root key signed.
func (a *Approvers) signed(envelope []byte) (*approval.Roster, error) {
	err := fw.Errorf(fw.Conflict, "there is no active roster root key: create one, or put the public file of an offline one into the key directory")
	for _, info := range a.roots() {
		pub, perr := info.Public()
		if perr != nil {
			return nil, perr
		}
		key, ok := pub.(ed25519.PublicKey)
		if !ok {
			continue
		}
		roster, oerr := approval.OpenRoster(envelope, key)
		if oerr == nil {
			return roster, nil
		}
		err = oerr
	}
	return nil, err
}

func (a *Approvers) roots() []signer.KeyInfo {
	return slices.DeleteFunc(a.o.Keystore.List(), func(i signer.KeyInfo) bool {
		return i.Purpose != fw.PurposeRosterRoot || i.State != signer.KeyActive
	})
}

// rootKey returns the name of the key that signs the next roster.
func (a *Approvers) rootKey() (fw.KeyName, error) {
	if a.o.RootKey != "" {
		return a.o.RootKey, nil
	}
	roots := a.roots()
	if len(roots) > 0 && !slices.ContainsFunc(roots, func(i signer.KeyInfo) bool { return a.o.Keystore.Holds(i.Name) }) {
		return "", fw.Errorf(fw.Conflict, "the roster root keys are not on this server, so it cannot change who approves: run writ-signer roster add NAME KEY.pub where the signer is, or sign a roster in a ceremony")
	}
	if len(roots) != 1 {
		return "", fw.Errorf(fw.Conflict, "there are %d active roster root keys where one is needed: create one, or name the one to use in the configuration", len(roots))
	}
	return roots[0].Name, nil
}

// SyncSigner makes the newest roster the one that the signer checks approvals
// against. The signer moves one version at a time, so the versions that it
// has not seen are shown to it in order. At is for its journal.
func (a *Approvers) SyncSigner(ctx context.Context, at time.Time) error {
	docs, err := store.VersionedDocs(a.o.DB.Snapshot(ctx), store.RosterTable)
	if err != nil {
		return err
	}
	for known, d := range slices.Backward(docs) {
		err := a.adopt(ctx, d.Envelope, at)
		if fw.KindOf(err) == fw.Conflict && known > 0 {
			continue // the signer is further behind than this version
		}
		if err != nil {
			return err
		}
		for _, d := range docs[known+1:] {
			if err := a.adopt(ctx, d.Envelope, at); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// adopt shows one roster to whoever checks approvals.
func (a *Approvers) adopt(ctx context.Context, envelope []byte, at time.Time) error {
	if a.o.Custody != nil {
		return a.o.Custody.AdoptRoster(ctx, envelope)
	}
	return a.o.Signer.AdoptRoster(envelope, at)
}

// Import puts a roster on file that was signed elsewhere: in a ceremony, or by
// a signer that keeps the root key. It must follow the newest; one that is on
// file already is no error.
func (a *Approvers) Import(ctx context.Context, envelope []byte, actor fw.PersonID) error {
	a.change.Lock()
	defer a.change.Unlock()
	next, err := a.signed(envelope)
	if err != nil {
		return err
	}
	if len(next.Document()) > maxRosterDocument {
		return fw.Errorf(fw.TooLarge, "the roster is %d bytes and the limit is %d", len(next.Document()), maxRosterDocument)
	}
	prev, err := a.Roster(a.o.DB.Snapshot(ctx))
	if err != nil && fw.KindOf(err) != fw.NotFound {
		return err
	}
	if prev != nil && prev.Digest() == next.Digest() {
		return nil
	}
	if err := next.Follows(prev); err != nil {
		return err
	}
	return a.file(ctx, store.Versioned{Version: next.Version(), Envelope: envelope}, actor)
}
