package rauc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/writ-project/writ/internal/image"
)

// tree is the dm-verity hash tree of a bundle: where it is and what is at its
// top. The payload is [0, data), the tree follows it.
type tree struct {
	data int64 // bytes of payload
	size int64 // bytes of tree
	root []byte
	salt []byte
}

// level is one level of the tree, the lowest first.
type level struct {
	off    int64 // from the start of the file, in bytes
	blocks int64
}

// levels computes where the levels are. dm-verity stores the top level first.
func (t tree) levels() ([]level, error) {
	if t.data < minPayload || t.data%blockSize != 0 {
		return nil, fmt.Errorf("laying out hash tree: payload of %d bytes is not at least two blocks of %d: %w", t.data, blockSize, image.ErrMalformed)
	}
	var ls []level
	var total int64
	for n := t.data / blockSize; n > 1; {
		n = (n + verityFan - 1) / verityFan
		ls = append(ls, level{blocks: n})
		total += n * blockSize
	}
	if total != t.size {
		return nil, fmt.Errorf("laying out hash tree: verity-size is %d, and the tree of %d bytes of payload has %d: %w", t.size, t.data, total, image.ErrMalformed)
	}
	off := t.data
	for i := len(ls) - 1; i >= 0; i-- {
		ls[i].off = off
		off += ls[i].blocks * blockSize
	}
	return ls, nil
}

// check compares the payload with the tree and the tree with its root, from the
// root down. What it reads of the payload it also writes to also, if not nil: a
// payload of gigabytes is read once, and what was checked is what was written.
func (t tree) check(ctx context.Context, r io.ReaderAt, also io.Writer) error {
	ls, err := t.levels()
	if err != nil {
		return err
	}
	top := ls[len(ls)-1]
	block := make([]byte, blockSize)
	if err := image.ReadAt(r, block, top.off); err != nil {
		return fmt.Errorf("reading top of hash tree: %w", err)
	}
	h := hasher{Hash: sha256.New(), salt: t.salt}
	if got := h.of(block); !bytes.Equal(got, t.root) {
		return fmt.Errorf("checking top of hash tree: it has %x, verity-hash says %x: %w", got, t.root, image.ErrBadDigest)
	}
	for i := len(ls) - 1; i > 0; i-- {
		if err := t.checkLevel(ctx, r, ls[i], ls[i-1], nil); err != nil {
			return fmt.Errorf("checking level %d of hash tree: %w", i-1, err)
		}
	}
	if err := t.checkLevel(ctx, r, ls[0], level{blocks: t.data / blockSize}, also); err != nil {
		return fmt.Errorf("checking payload: %w", err)
	}
	return nil
}

// checkLevel compares the blocks of below with their digests in above.
func (t tree) checkLevel(ctx context.Context, r io.ReaderAt, above, below level, also io.Writer) error {
	digests := image.Section(ctx, r, above.off, above.blocks*blockSize)
	blocks := image.Section(ctx, r, below.off, below.blocks*blockSize)
	want := make([]byte, blockSize)
	buf := make([]byte, verityFan*blockSize) // what one block of digests covers
	h := hasher{Hash: sha256.New(), salt: t.salt}
	for at := int64(0); at < below.blocks; at += verityFan {
		n := min(verityFan, below.blocks-at)
		if _, err := io.ReadFull(digests, want); err != nil {
			return fmt.Errorf("reading digests: %w", err)
		}
		if _, err := io.ReadFull(blocks, buf[:n*blockSize]); err != nil {
			return fmt.Errorf("reading blocks: %w", err)
		}
		// The other hash runs beside this one: twice takes no longer than once.
		var other sync.WaitGroup
		var failed error
		if also != nil {
			other.Go(func() { _, failed = also.Write(buf[:n*blockSize]) })
		}
		err := checkBlocks(&h, buf[:n*blockSize], want, at)
		other.Wait()
		if err != nil {
			return err
		}
		if failed != nil {
			return fmt.Errorf("writing blocks: %w", failed)
		}
	}
	return nil
}

// checkBlocks compares blocks with want, the block of digests that covers them.
// at is the number of the first.
func checkBlocks(h *hasher, blocks, want []byte, at int64) error {
	n := len(blocks) / blockSize
	for i := range n {
		got := h.of(blocks[i*blockSize : (i+1)*blockSize])
		if !bytes.Equal(got, want[i*veritySum:(i+1)*veritySum]) {
			return fmt.Errorf("block %d is not the one that was hashed: %w", at+int64(i), image.ErrBadDigest)
		}
	}
	if rest := want[n*veritySum:]; len(bytes.Trim(rest, "\x00")) != 0 {
		return fmt.Errorf("digests after that of block %d, the last: %w", at+int64(n)-1, image.ErrMalformed)
	}
	return nil
}

// hasher makes the digests of blocks, without a new one for each of millions.
type hasher struct {
	hash.Hash
	salt []byte
	buf  [veritySum]byte
}

// of is the digest of one block. It is valid until the next call.
func (h *hasher) of(block []byte) []byte {
	h.Reset()
	_, _ = h.Write(h.salt) // a hash never fails
	_, _ = h.Write(block)
	return h.Sum(h.buf[:0])
}
