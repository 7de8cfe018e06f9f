package review

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// maxRosterDocument keeps a roster, as base64 in an envelope in a record,
// within [evidence.MaxRecord]. It is room for about 150 approvers.
const maxRosterDocument = 24 << 10

// errUnchanged says that the roster is already what was asked for.
var errUnchanged = errors.New("unchanged")

// AddApprover adds a key of person, one line in authorized_keys form, to the
// roster. A key that is there already is no error. Nobody adds a key for
// themselves, unless there is no roster yet.
func (a *Approvers) AddApprover(ctx context.Context, person fw.PersonID, keyLine string, actor fw.PersonID) (*approval.Roster, error) {
	key, err := approval.ParsePublicKey(keyLine)
	if err != nil {
		return nil, err
	}
	reason := fmt.Sprintf("add approver %s with key %s", person, key.Fingerprint())
	return a.next(ctx, actor, reason, func(tx *store.Tx, prev *approval.Roster, doc *approval.RosterDocument) error {
		if prev != nil && person == actor {
			return fw.Errorf(fw.Forbidden, "%s cannot add an approver key for themselves: ask another administrator", actor)
		}
		p, err := store.PersonByID(tx, person)
		if err != nil {
			return err
		}
		if p.Disabled {
			return fw.Errorf(fw.Conflict, "%s is disabled and cannot become an approver", person)
		}
		if prev != nil {
			switch owner, taken := prev.Owner(key.Fingerprint()); {
			case taken && owner == person:
				return errUnchanged
			case taken:
				return fw.Errorf(fw.Conflict, "key %s is %s's: a key has one owner, give a key of %s's own", key.Fingerprint(), owner, person)
			}
		}
		i := slices.IndexFunc(doc.Approvers, func(x approval.Approver) bool { return x.Person == person })
		if i < 0 {
			doc.Approvers = append(doc.Approvers, approval.Approver{Person: person, Keys: []string{key.String()}})
			return nil
		}
		// The roster before keeps its own list.
		doc.Approvers[i].Keys = append(slices.Clone(doc.Approvers[i].Keys), key.String())
		return nil
	})
}

// RemoveApprover takes person and all their keys off the roster. What they
// approved and is not yet done no longer counts.
func (a *Approvers) RemoveApprover(ctx context.Context, person, actor fw.PersonID) (*approval.Roster, error) {
	return a.next(ctx, actor, fmt.Sprintf("remove approver %s", person), func(_ *store.Tx, prev *approval.Roster, doc *approval.RosterDocument) error {
		if prev == nil || len(prev.Keys(person)) == 0 {
			return fw.Errorf(fw.NotFound, "%s is not an approver", person)
		}
		if len(doc.Approvers) == 1 {
			return fw.Errorf(fw.Conflict, "%s is the only approver: add another one first", person)
		}
		doc.Approvers = slices.DeleteFunc(doc.Approvers, func(x approval.Approver) bool { return x.Person == person })
		return nil
	})
}

// decided is a roster that may be signed.
type decided struct {
	root     fw.KeyName
	version  int64
	document []byte
	index    int64 // of the key_use record
	at       time.Time
}

// next makes the next version of the roster. Deciding and filing are two
// transactions with the signature in between, which can be slow.
func (a *Approvers) next(ctx context.Context, actor fw.PersonID, reason string, edit func(*store.Tx, *approval.Roster, *approval.RosterDocument) error) (*approval.Roster, error) {
	a.change.Lock()
	defer a.change.Unlock()
	d, err := a.decide(ctx, actor, reason, edit)
	if errors.Is(err, errUnchanged) {
		return a.Roster(a.o.DB.Snapshot(ctx))
	}
	if err != nil {
		return nil, err
	}
	if err := a.SyncSigner(ctx, d.at); err != nil {
		return nil, err
	}
	permit, err := a.o.Signer.Mint(signer.Grant{
		Purpose: fw.PurposeRosterRoot, Key: d.root, Subject: fw.DigestOf(d.document), Evidence: d.index, Verdict: signer.VerdictAllow,
	})
	if err != nil {
		return nil, err
	}
	envelope, err := a.o.Signer.SignRoster(permit, d.document, d.at)
	if err != nil {
		return nil, err
	}
	if err := a.file(ctx, store.Versioned{Version: d.version, Envelope: envelope}, actor); err != nil {
		return nil, err
	}
	// After the commit: a signer that is ahead of the database would refuse
	// every roster that the database can make.
	if err := a.SyncSigner(ctx, d.at); err != nil {
		return nil, err
	}
	return a.Roster(a.o.DB.Snapshot(ctx))
}

func (a *Approvers) decide(ctx context.Context, actor fw.PersonID, reason string, edit func(*store.Tx, *approval.Roster, *approval.RosterDocument) error) (decided, error) {
	root, err := a.rootKey()
	if err != nil {
		return decided{}, err
	}
	d := decided{root: root}
	err = a.o.DB.Tx(ctx, func(tx *store.Tx) error {
		doc := approval.RosterDocument{Version: 1, CreatedAt: tx.Now().Unix()}
		prev, err := a.Roster(tx)
		switch {
		case err == nil:
			doc.Version, doc.Previous, doc.Approvers = prev.Version()+1, prev.Digest(), prev.Approvers()
		case fw.KindOf(err) != fw.NotFound:
			return err
		}
		if err := edit(tx, prev, &doc); err != nil {
			return err
		}
		if d.document, err = doc.Encode(); err != nil {
			return err
		}
		if len(d.document) > maxRosterDocument {
			return fw.Errorf(fw.TooLarge, "the roster would be %d bytes and the limit is %d: remove approvers or prefer Ed25519 keys, which are short", len(d.document), maxRosterDocument)
		}
		d.version, d.at = doc.Version, tx.Now()
		pos, err := a.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeKeyUse, Actor: string(actor),
			Streams: []evidence.StreamID{evidence.KeyStream(root), evidence.LogStream},
			Data:    evidence.KeyUse{Purpose: fw.PurposeRosterRoot, Key: root, Subject: fw.DigestOf(d.document), Reason: reason, Document: d.document},
		})
		d.index = pos.Index
		return err
	})
	return d, err
}

// file stores a signed roster unless another replica was first.
func (a *Approvers) file(ctx context.Context, v store.Versioned, actor fw.PersonID) error {
	return a.o.DB.Tx(ctx, func(tx *store.Tx) error {
		newest, err := store.LatestVersioned(tx, store.RosterTable)
		if err != nil && fw.KindOf(err) != fw.NotFound {
			return err
		}
		if newest.Version+1 != v.Version {
			return fw.Errorf(fw.Conflict, "somebody changed the roster to version %d in this moment: look at it and try again", newest.Version)
		}
		if err := store.InsertVersioned(tx, store.RosterTable, v); err != nil {
			return err
		}
		_, err = a.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeRoster, Actor: string(actor),
			Streams: []evidence.StreamID{evidence.LogStream},
			Data:    evidence.Proposed{Document: v.Envelope},
		})
		return err
	})
}
