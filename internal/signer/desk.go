package signer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
)

// DeskOptions configure a [Desk].
type DeskOptions struct {
	Log ed25519.PublicKey // of the evidence log whose decisions count
	Now func() time.Time
}

// Desk takes orders from somebody it need not trust. It checks the decision
// under the log's key, mints the permit from it, checks the approvals and the
// bytes ([Signer.SignImage]), and journals what it signed and what it refused.
// It is the [Custody] of an embedded server, and what a writ-signer serves.
type Desk struct {
	s *Signer
	o DeskOptions

	mu      sync.Mutex
	minute  int64
	written int // refusals with a line in this minute
	dropped int // and those without
}

var _ Custody = (*Desk)(nil)

// NewDesk returns the desk of s.
func NewDesk(s *Signer, o DeskOptions) *Desk { return &Desk{s: s, o: o} }

// Task is an image order that may be carried out once the bytes are here.
type Task struct {
	Permit fw.PermitID
	Key    fw.KeyName
	Input  fw.Digest
	Size   int64 // of the input, in bytes
	Spent  bool  // the permit was redeemed before; see [Desk.Spent]

	order    ImageOrder
	document fw.Digest
}

// Image checks everything about an order except the image, so that what is
// refused is refused before gigabytes are sent. It uses no key and spends no
// permit.
func (d *Desk) Image(o ImageOrder) (Task, error) {
	t, err := d.image(o)
	return t, d.refused(err, t.refusal())
}

func (d *Desk) image(o ImageOrder) (Task, error) {
	t := Task{order: o, document: fw.DigestOf(o.Evidence.Document)}
	p, err := d.permit(o.Decision, fw.PurposeImage, t.document, o.By)
	if err != nil {
		return t, err
	}
	t.Permit, t.Key, t.Input, t.Spent = p.id, p.grant.Key, p.grant.Subject, d.s.journal.Used(p.id)
	manifest, _, err := d.s.checkApprovals(o.Evidence, d.o.Now())
	if err != nil {
		return t, err
	}
	c, err := checkComponent(manifest, o.Component, p.grant)
	if err != nil {
		return t, err
	}
	if _, ok := formats.ForName(c.Format); !ok {
		return t, fw.Errorf(fw.Invalid, "this signer does not know format %q: update it", c.Format)
	}
	t.Size = c.InputSize
	return t, nil
}

// permit mints what a decision allows. Document is of what the record must
// show as approved; zero: whatever it shows.
func (d *Desk) permit(dec Decision, purpose fw.Purpose, document fw.Digest, by fw.PersonID) (*Permit, error) {
	if len(d.o.Log) == 0 {
		return nil, fw.Errorf(fw.Conflict, "this signer does not know whose decisions count: give it the server's log key with writ-signer trust-log")
	}
	dc, err := dec.open(d.o.Log)
	if err != nil {
		return nil, err
	}
	if dc.use.Purpose != purpose {
		return nil, fw.Errorf(fw.Forbidden, "decision record %d is about a key for %s, not %s", dc.index, dc.use.Purpose, purpose)
	}
	if !document.IsZero() && fw.DigestOf(dc.use.Document) != document {
		return nil, fw.Errorf(fw.Forbidden, "decision record %d is about another document", dc.index)
	}
	p, err := d.s.Mint(dc.grant(by))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// spent refuses a permit that was redeemed.
func (d *Desk) spent(p fw.PermitID) error {
	if !d.s.journal.Used(p) {
		return nil
	}
	return fw.Errorf(fw.Conflict, "permit %s has been used: a new decision is needed, run writ release publish again", p)
}

// Spent returns the refusal of a task whose permit was redeemed, for a caller
// that no longer has what came of it.
func (d *Desk) Spent(t Task) error {
	return d.refused(d.spent(t.Permit), t.refusal())
}

func (t *Task) refusal() refusal {
	return refusal{key: t.Key, permit: t.Permit, document: t.document, component: t.order.Component, by: t.order.By}
}

// AdoptRoster implements [Custody].
func (d *Desk) AdoptRoster(_ context.Context, envelope []byte) error {
	return d.refused(d.s.AdoptRoster(envelope, d.o.Now()), refusal{})
}

// SignImage implements [Custody].
func (d *Desk) SignImage(ctx context.Context, o ImageOrder, input io.ReaderAt, output io.Writer) (Record, error) {
	t, err := d.Image(o)
	if err != nil {
		return Record{}, err
	}
	return d.Carry(ctx, t, input, output)
}

// Carry signs the image of a task. The checks are made again: only what
// [Signer.SignImage] finds counts.
func (d *Desk) Carry(ctx context.Context, t Task, input io.ReaderAt, output io.Writer) (Record, error) {
	r, err := d.carry(ctx, t, input, output)
	if ctx.Err() != nil && err != nil {
		return r, err // given up, not refused
	}
	return r, d.refused(err, t.refusal())
}

func (d *Desk) carry(ctx context.Context, t Task, input io.ReaderAt, output io.Writer) (Record, error) {
	o, at := t.order, d.o.Now()
	p, err := d.permit(o.Decision, fw.PurposeImage, t.document, o.By)
	if err != nil {
		return Record{}, err
	}
	if err := d.spent(p.id); err != nil {
		return Record{}, err
	}
	manifest, quorum, err := d.s.checkApprovals(o.Evidence, at)
	if err != nil {
		return Record{}, err
	}
	c, err := checkComponent(manifest, o.Component, p.grant)
	if err != nil {
		return Record{}, err
	}
	format, _ := formats.ForName(c.Format)
	chain, err := d.s.ks.Chain(c.Key)
	if err != nil {
		return Record{}, err
	}
	res, err := d.s.SignImage(ctx, p, ImageRequest{
		Evidence: o.Evidence, Component: o.Component, Format: format, Input: input, Output: output, At: at,
		Options: image.SignOptions{Certificates: chain},
	})
	if err != nil {
		return Record{}, err
	}
	r := d.record(p, quorum.Counted, manifest.Provenance, at)
	r.Output, r.Size, r.Envelope = res.SHA256, res.Size, res.Envelope
	return r, nil
}

// SignStatement implements [Custody].
func (d *Desk) SignStatement(_ context.Context, o StatementOrder) (Record, error) {
	r, err := d.statement(o)
	return r, d.refused(err, refusal{key: r.Key, permit: r.Permit, document: fw.DigestOf(o.Evidence.Document), by: o.By})
}

func (d *Desk) statement(o StatementOrder) (Record, error) {
	at := d.o.Now()
	p, err := d.permit(o.Decision, fw.PurposeStatement, fw.DigestOf(o.Statement), o.By)
	if err != nil {
		return refusedRecord(p), err
	}
	if err := d.spent(p.id); err != nil {
		return refusedRecord(p), err
	}
	manifest, quorum, err := d.s.checkApprovals(o.Evidence, at)
	if err != nil {
		return refusedRecord(p), err
	}
	env, err := d.s.SignStatement(p, o.Statement, o.Evidence, at)
	if err != nil {
		return refusedRecord(p), err
	}
	r := d.record(p, quorum.Counted, manifest.Provenance, at)
	r.Output, r.Size, r.Envelope = fw.DigestOf(env), int64(len(env)), env
	return r, nil
}

// refusedRecord names what was asked for.
func refusedRecord(p *Permit) Record {
	if p == nil {
		return Record{}
	}
	return Record{Permit: p.id, Key: p.grant.Key}
}

// record says what p was used for. The key's metadata cannot be missing: Mint
// has looked it up.
func (d *Desk) record(p *Permit, counted []approval.Counted, provenance fw.Digest, at time.Time) Record {
	info, _ := d.s.ks.Public(p.grant.Key)
	return Record{
		Permit: p.id, Evidence: p.grant.Evidence, Key: p.grant.Key, KeyID: info.KeyID, Algorithm: info.Algorithm, Custody: d.s.custodyOf(info),
		Input: p.grant.Subject, Approvals: counted, Provenance: provenance, By: p.grant.By, At: at.Unix(),
	}
}

// Roster returns the roster that approvals are checked against; nil before the
// first.
func (d *Desk) Roster() (*approval.Roster, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.lastRoster()
}

// JournalHead returns the number of journal entries and the digest of the
// last, for a person to compare later.
func (d *Desk) JournalHead() (int64, fw.Digest) { return d.s.journal.Head() }

// refusal is what the journal says of something that was not signed.
type refusal struct {
	key       fw.KeyName
	permit    fw.PermitID
	document  fw.Digest
	component fw.ComponentName
	by        fw.PersonID
}

// Bounds of what refusals may write.
const (
	refusalsPerMinute = 60
	maxRefusal        = 500 // bytes of its reason
)

// refused journals err if it is a refusal, and returns it. Refusals beyond the
// first 60 of a minute are counted: they must not fill the disk.
func (d *Desk) refused(err error, r refusal) error {
	if err == nil || !IsRefusal(err) {
		return err
	}
	at := d.o.Now().Unix()
	e := Entry{Kind: EntryRefused, At: at, Key: r.key, Permit: r.permit, Document: r.document, Component: r.component, By: r.by, Reason: Reason(err)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := at / 60; m != d.minute {
		d.minute, d.written, e.Count, d.dropped = m, 0, d.dropped, 0
	}
	if d.written >= refusalsPerMinute {
		d.dropped++
		return err
	}
	d.written++
	if jerr := d.s.journal.Append(e); jerr != nil {
		return jerr // a signer that cannot write its journal has nothing to say
	}
	return err
}

// Reason is what a refusal says to the caller, bounded to 500 bytes.
func Reason(err error) string {
	msg := "refused"
	if e, ok := errors.AsType[*fw.Error](err); ok {
		msg = e.Msg
	}
	if len(msg) > maxRefusal {
		msg = strings.ToValidUTF8(msg[:maxRefusal], "")
	}
	return strings.ToValidUTF8(msg, "?")
}
