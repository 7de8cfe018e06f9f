package verify

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/tlog"
)

// Options say what the auditor has from elsewhere.
type Options struct {
	TrustedLogKey     string            // signed-note verifier key; empty: the bundle's own is used and the report says so
	TrustedCheckpoint []byte            // a checkpoint of this log got another way; nil: none
	RosterRoot        ed25519.PublicKey // nil: the log's own
	Workers           int               // 0: one per CPU
	MaxMemory         int64             // bytes for what is remembered of devices, campaigns and streams; 0: [DefaultMemory]
	Progress          func(done, total int64)
}

// DefaultMemory is how many bytes a verification may remember: enough for a
// campaign of about two million devices.
const DefaultMemory = 4 << 30

// errMemory is in the chain of the error about a bundle that is too large.
var errMemory = errors.New("the memory limit was reached")

// Verify verifies a bundle. An error means that it cannot be read as a bundle
// at all; everything else is in the report.
func Verify(ctx context.Context, r io.Reader, o Options) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMemory
	}
	in, err := newReader(r, o.Workers)
	if err != nil {
		return nil, err
	}
	defer in.close()
	if err := in.next(); err != nil {
		return nil, err
	}
	v := &verification{o: o, in: in, found: new(findings)}
	if err := v.head(); err != nil {
		return nil, err
	}
	if err := v.records(ctx); err != nil {
		return nil, err
	}
	if err := v.streams(); err != nil {
		return nil, err
	}
	if err := in.end(); err != nil {
		return nil, err
	}
	return v.report(), nil
}

// verification is one run.
type verification struct {
	o     Options
	in    *reader
	found *findings
	a     *auditor
	trust Trust
	root  tlog.Hash // of the bundle's checkpoint
	old   int64     // earlier checkpoints that agree
}

// head reads everything before the records.
func (v *verification) head() error {
	var m Manifest
	if err := v.in.json(MemberManifest, maxManifest, &m); err != nil {
		return err
	}
	if m.Type != Type {
		return fw.Errorf(fw.Invalid, "this is %.80q and this program reads %q: use another version of writ-verify", m.Type, Type)
	}
	if m.Size < 1 || m.Size > tlog.MaxSize || m.Epoch < 0 || m.Epoch >= m.Size || len(m.Campaigns) > MaxCampaigns || m.Proofs != ProofPaths && m.Proofs != ProofLeaves {
		return fw.Errorf(fw.Invalid, "the manifest of the bundle contradicts itself")
	}
	if err := v.in.json(MemberTrust, maxManifest, &v.trust); err != nil {
		return err
	}
	v.a = newAuditor(v.found, &m)
	vkey := v.trust.LogKey
	if v.o.TrustedLogKey != "" {
		if vkey != v.o.TrustedLogKey {
			v.found.fail(-1, "the bundle is of log key %s, not of the one you trust", clip(vkey))
		}
		vkey = v.o.TrustedLogKey
	}
	var err error
	if v.a.key, err = parseLogKey(vkey); err != nil {
		return err
	}
	if v.o.RosterRoot != nil {
		v.a.ring.roots, v.a.ring.fixed = []ed25519.PublicKey{v.o.RosterRoot}, true
	}
	note, err := v.in.read(MemberCheckpoint, tlog.MaxCheckpoint)
	if err != nil {
		return err
	}
	cp, err := tlog.OpenCheckpoint(note, v.a.key.origin, v.a.key.pub)
	switch {
	case err != nil:
		v.found.fail(-1, "the bundle's checkpoint is not signed by the log key")
	case cp.Size != m.Size:
		v.found.fail(-1, "the checkpoint is of %d records and the bundle of %d", cp.Size, m.Size)
	}
	v.root = cp.Root
	if err := v.checkpoints(m.Size); err != nil {
		return err
	}
	_, err = v.in.read(MemberReadme, maxManifest)
	return err
}

// checkpoints checks that earlier checkpoints, and the auditor's own, are
// prefixes of the bundle's.
func (v *verification) checkpoints(size int64) error {
	var list []OldCheckpoint
	if err := v.in.json(MemberCheckpoints, maxCheckpoints, &list); err != nil {
		return err
	}
	if len(list) > MaxCheckpoints {
		return fw.Errorf(fw.TooLarge, "the bundle has %d checkpoints and the limit is %d", len(list), MaxCheckpoints)
	}
	var own *tlog.Checkpoint
	if v.o.TrustedCheckpoint != nil {
		cp, err := tlog.OpenCheckpoint(v.o.TrustedCheckpoint, v.a.key.origin, v.a.key.pub)
		if err != nil {
			return fw.Wrap(fw.Invalid, err, "the checkpoint you gave is not of this log")
		}
		own = &cp
		if cp.Size == size && cp.Root != v.root {
			v.found.fail(-1, "the log has another root at %d records than the checkpoint you gave: it was forked", size)
		}
		if cp.Size > size {
			v.found.fail(-1, "the checkpoint you gave has %d records and the bundle's only %d: the log was cut short", cp.Size, size)
		}
		if v.a.manifest.Proofs == ProofLeaves && cp.Size < size {
			v.a.roots[cp.Size] = cp.Root
			own = nil
		}
	}
	for _, c := range list {
		var cp tlog.Checkpoint
		var err error
		switch {
		case c.Note != "":
			cp, err = tlog.OpenCheckpoint([]byte(c.Note), v.a.key.origin, v.a.key.pub)
		case own != nil && own.Size == c.Size:
			cp = *own
		default:
			continue // a proof for a checkpoint that nobody gave
		}
		if err != nil || cp.Size != c.Size {
			v.found.fail(-1, "an earlier checkpoint of %d records is not signed by the log key", c.Size)
			continue
		}
		if !v.consistent(c, cp.Root, size) {
			v.found.fail(-1, "the checkpoint of %d records is not a prefix of the bundle's log: something before was changed", c.Size)
			continue
		}
		v.old++
		if own != nil && own.Size == c.Size {
			if own.Root != cp.Root {
				v.found.fail(-1, "the log has another root at %d records than the checkpoint you gave: it was forked", c.Size)
			}
			own = nil
		}
	}
	if own != nil && own.Size < size {
		v.found.lack(-1, "the bundle does not show that it continues the checkpoint you gave, of %d records: have it exported with that size", own.Size)
	}
	return nil
}

func (v *verification) consistent(c OldCheckpoint, root tlog.Hash, size int64) bool {
	if c.Size < 1 || c.Size > size || len(c.Path) > 2*maxPath {
		return false
	}
	path := make([]tlog.Hash, len(c.Path))
	for i, p := range c.Path {
		if len(p) != len(path[i]) {
			return false
		}
		path[i] = tlog.Hash(p)
	}
	return tlog.CheckConsistency(path, size, v.root, c.Size, root) == nil
}

// batch is the frames of one member.
type batch struct {
	items []*item
	err   error
}

// records takes in all records: one goroutine reads and has them decoded,
// this one goes through them in order, workers do what needs no order.
func (v *verification) records(ctx context.Context) error {
	p := proofOf{v.a.manifest.Proofs, v.a.manifest.Size, v.root}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := make(chan batch, 2)
	go v.read(ctx, p, batches)
	jobs := make(chan []job, 2*v.o.Workers)
	var wg sync.WaitGroup
	for range v.o.Workers {
		wg.Go(func() {
			for list := range jobs {
				for _, j := range list {
					j.run(v.found)
				}
			}
		})
	}
	var err error
	for b := range batches {
		if err == nil {
			err = b.err
		}
		if err != nil {
			stop()
			continue
		}
		for _, it := range b.items {
			v.a.audit(it)
		}
		if v.a.held > v.o.MaxMemory {
			err = fw.Wrap(fw.TooLarge, errMemory, "what there is to remember of this bundle is more than %d MiB: give it more with --memory, or export fewer devices at once", v.o.MaxMemory>>20)
			stop()
			continue
		}
		if v.o.Progress != nil {
			v.o.Progress(v.a.counts.Records, v.a.manifest.Records)
		}
		const share = 64
		for list := v.a.jobs; len(list) > 0; {
			n := min(share, len(list))
			jobs <- list[:n]
			list = list[n:]
		}
		v.a.jobs = nil
	}
	close(jobs)
	wg.Wait()
	if err == nil && ctx.Err() != nil {
		err = fw.Wrap(fw.Unavailable, ctx.Err(), "the verification was interrupted or took too long")
	}
	if err != nil {
		return err
	}
	if v.a.manifest.Proofs == ProofLeaves && (v.a.edge.Size() != v.a.manifest.Size || v.a.edge.Root() != v.root) {
		v.found.fail(-1, "the tree over all commitments in the bundle is not the one of its checkpoint")
	}
	return nil
}

// read reads the members with records and decodes their frames.
func (v *verification) read(ctx context.Context, p proofOf, out chan<- batch) {
	defer close(out)
	for n := 0; v.in.h != nil && v.in.h.Name == fmt.Sprintf(MemberRecords, n); n++ {
		b := v.segment(p, n)
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (v *verification) segment(p proofOf, n int) batch {
	data, err := v.in.read(fmt.Sprintf(MemberRecords, n), maxSegment)
	if err != nil {
		return batch{err: err}
	}
	var b batch
	for len(data) > 0 {
		it := new(item)
		if data, err = cutFrame(data, &it.frame); err != nil {
			return batch{err: err}
		}
		b.items = append(b.items, it)
	}
	var wg sync.WaitGroup
	share := (len(b.items) + v.o.Workers - 1) / max(v.o.Workers, 1)
	for i := 0; i < len(b.items); i += share {
		wg.Go(func() {
			for _, it := range b.items[i:min(i+share, len(b.items))] {
				it.decode(p)
			}
		})
	}
	wg.Wait()
	return b
}

// streams reads where the exported streams end.
func (v *verification) streams() error {
	for n := 0; v.in.h != nil && v.in.h.Name == fmt.Sprintf(MemberStreams, n); n++ {
		data, err := v.in.read(fmt.Sprintf(MemberStreams, n), maxSegment)
		if err != nil {
			return err
		}
		for line := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
			var e StreamEnd
			if err := strict(line, &e); err != nil {
				return fw.Wrap(fw.Invalid, err, "the proof of a stream's end cannot be read")
			}
			v.a.finish(&e)
		}
	}
	v.a.close()
	return nil
}

func (v *verification) report() *Report {
	m := v.a.manifest
	v.found.mu.Lock()
	v.found.shrink()
	v.found.sort()
	list, more := v.found.list, v.found.more
	v.found.mu.Unlock()
	key, err := tlog.VerifierKey(v.a.key.origin, v.a.key.pub)
	if err != nil {
		key = ""
	}
	v.a.counts.Checkpoints = v.old + 1
	if list == nil {
		list = []Finding{}
	}
	return &Report{
		Verdict: v.found.verdict(), Scope: m.Scope, Log: v.a.key.origin, LogKey: key, Size: m.Size, Tool: m.Tool, CreatedAt: m.CreatedAt,
		Counts: v.a.counts, Findings: list, More: more, NotProven: v.notProven(),
	}
}

// notProven says what even a verified bundle does not show.
func (v *verification) notProven() []string {
	out := []string{
		"That the operator showed everybody the same log: no party outside the operator's control has witnessed it. Without one, nothing here is proof against the operator.",
		"That what a device said of itself is true: a report proves that the holder of the device's key said it.",
		"That nothing happened which the server never recorded. A device that demands a receipt makes unrecorded authorizations useless.",
		"When things happened, beyond the server's own clock: no timestamp of another party is in the bundle.",
	}
	if v.o.TrustedLogKey == "" {
		out = append(out, "That this is the log you think: its key was taken from the bundle. Compare "+clip(v.trust.LogKey)+" with one you got another way, or give --log-key.")
	}
	if v.o.RosterRoot == nil {
		out = append(out, "That the approvers are the ones you know: the key that signs their roster was taken from the log. Give --roster-root.")
	}
	if v.o.TrustedCheckpoint == nil {
		out = append(out, "That the log was not rewritten before this bundle was made: no checkpoint from before was given. Keep this bundle's for the next time, and give --checkpoint.")
	}
	if n := v.a.counts.Unbound; n > 0 {
		out = append(out, fmt.Sprintf("That %d authorizations are bound to the right device's key: those devices' certificates are in their own streams. Export the campaign.", n))
	}
	if v.a.counts.Authorizations > 0 {
		out = append(out, "That a device was sent its authorization, and with which receipt: neither is recorded. The bundle proves itself what a receipt proves, and a report names the authorization that the device acted under.")
	}
	if n := len(v.a.outside); n > 0 {
		out = append(out, fmt.Sprintf("%d records of %d other campaigns in these streams are proven to be there, in order and unchanged, and are not judged, nor is their rate of authorizations counted again: export those campaigns.", v.a.counts.OutOfScope, n))
	}
	return out
}
