package ledger

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/tlog"
	"github.com/writ-project/writ/verify"
)

// BundleQuery says what to export. Exactly one of Campaign and Device is set.
type BundleQuery struct {
	Campaign fw.CampaignID
	Device   fw.DeviceID
	// Tool names the program that exports.
	Tool string
	// Since is the size of a checkpoint that the auditor has from before; the
	// bundle then proves that this log is a continuation of it. 0: none.
	Since int64
}

// bundle is one export under way.
type bundle struct {
	l        *Ledger
	q        store.Queryer
	query    BundleQuery
	w        *tar.Writer
	tree     *tlog.Reader
	size     int64
	manifest verify.Manifest
	streams  []evidence.StreamID
	replayed map[fw.CampaignID]bool // those of the manifest
	picked   bitset
	trust    verify.Trust
	progress func(done, total int64)
}

// Export writes a bundle (docs/formats/bundle.md) to w: whole streams with the
// proof that they are whole. It takes an epoch first, so the bundle covers
// everything committed before the call. Progress may be nil.
//
// A campaign's bundle has its stream and those of its releases, policy,
// product, keys, the log and each of its devices. A device's bundle has its
// stream and the same of each campaign it took part in, without the other
// devices' own streams.
func (l *Ledger) Export(ctx context.Context, query BundleQuery, w io.Writer, progress func(done, total int64)) error {
	if (query.Campaign == "") == (query.Device == "") {
		return fw.Errorf(fw.Invalid, "name a campaign or a device to export")
	}
	b := &bundle{l: l, q: l.db.Snapshot(ctx), query: query, replayed: make(map[fw.CampaignID]bool), progress: progress}
	if err := b.closure(); err != nil {
		return err
	}
	pos, epoch, err := l.Epoch(ctx)
	if err != nil {
		return fmt.Errorf("taking an epoch: %w", err)
	}
	h := l.head.Load()
	b.tree, b.size = tlog.NewReader(h.edge, l.cache), h.edge.Size()
	b.manifest.Epoch, b.manifest.Size = pos.Index, b.size
	if err := b.pick(); err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true))
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot compress the bundle")
	}
	b.w = tar.NewWriter(z)
	last, err := store.RecordByIndex(b.q, pos.Index)
	if err != nil {
		return fmt.Errorf("reading the epoch's record: %w", err)
	}
	b.manifest.CreatedAt = last.MS / 1000
	if err := b.write(ctx, h.checkpoint, epoch); err != nil {
		_ = z.Close() // the first error is the one to tell
		return err
	}
	if err := b.w.Close(); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	return nil
}

// write writes all members in their order.
func (b *bundle) write(ctx context.Context, checkpoint []byte, epoch *evidence.EpochTree) error {
	b.manifest.Type, b.manifest.Tool = verify.Type, b.query.Tool
	b.manifest.Scope = verify.Scope{Campaign: b.query.Campaign, Device: b.query.Device}
	b.manifest.Streams, b.manifest.Records = int64(len(b.streams)), b.picked.count
	b.manifest.Proofs = verify.ProofPaths
	if b.picked.count > b.size/30 {
		b.manifest.Proofs = verify.ProofLeaves // a path costs about 30 commitments
	}
	old, err := b.checkpoints()
	if err != nil {
		return err
	}
	if err := b.readTrust(); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		v    any
	}{
		{verify.MemberManifest, b.manifest},
		{verify.MemberTrust, b.trust},
		{verify.MemberCheckpoint, checkpoint},
		{verify.MemberCheckpoints, old},
		{verify.MemberReadme, []byte(readme)},
	} {
		data, ok := m.v.([]byte)
		if !ok {
			if data, err = json.MarshalIndent(m.v, "", "  "); err != nil {
				return fw.Wrap(fw.Internal, err, "cannot encode %s", m.name)
			}
		}
		if err := b.member(m.name, data); err != nil {
			return err
		}
	}
	if err := b.records(ctx); err != nil {
		return err
	}
	return b.ends(epoch)
}

func (b *bundle) member(name string, data []byte) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o444, Size: int64(len(data)), ModTime: time.Unix(b.manifest.CreatedAt, 0), Format: tar.FormatUSTAR}
	if err := b.w.WriteHeader(h); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if _, err := b.w.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// ends writes the proofs of where the streams end.
func (b *bundle) ends(epoch *evidence.EpochTree) error {
	var buf []byte
	n := 0
	for i, id := range b.streams {
		p, err := epoch.Prove(id)
		if err != nil {
			return err
		}
		line, err := json.Marshal(verify.StreamEnd{Stream: id, Proof: p})
		if err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode the proof of stream %s", id)
		}
		buf = append(append(buf, line...), '\n')
		if len(buf) < verify.SegmentSize && i < len(b.streams)-1 {
			continue
		}
		if err := b.member(fmt.Sprintf(verify.MemberStreams, n), buf); err != nil {
			return err
		}
		buf, n = buf[:0], n+1
	}
	return nil
}

const readme = `# A writ evidence bundle

Check it with the program writ-verify, which needs no network and no database:

    writ-verify --log-key KEY --roster-root FILE this.writ-bundle

Give the log key and the roster root key that you got from the maker by another
way than this file. Without them, the check shows that the bundle agrees with
itself and with the keys inside it, which anybody can make.

The format is specified in docs/formats/bundle.md of the writ project.
`
