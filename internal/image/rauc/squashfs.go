package rauc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// squash reads one small file from the root directory of a squashfs. It is no
// file system: it holds at most one metadata block and one data block at a
// time, never follows a reference backwards into itself, and never reads a
// table as a whole. See the package comment for why it exists.
type squash struct {
	r    io.ReaderAt
	size int64 // bytes_used of the superblock; nothing is read beyond

	blockSize  int64 // of data and fragments
	compressor uint16
	rootInode  uint64
	inodes     int64 // start of the inode table
	dirs       int64 // start of the directory table
	fragments  int64 // start of the index of the fragment table
	nFragments uint32
}

// maxListing bounds the root directory: bytes of its listing that are searched.
const maxListing = 1 << 20

// Inode types (struct squashfs_*_inode).
const (
	inodeDir     = 1
	inodeFile    = 2
	inodeDirExt  = 8
	inodeFileExt = 9
)

const (
	noFragment       = 0xffffffff
	dataUncompressed = 1 << 24
	metaUncompressed = 1 << 15
)

// openSquash reads the superblock of the squashfs that starts r. limit is how
// many bytes there are for it.
func openSquash(r io.ReaderAt, limit int64) (*squash, error) {
	if limit < squashHeader {
		return nil, fmt.Errorf("reading squashfs: %d bytes are less than a superblock: %w", limit, image.ErrTruncated)
	}
	var b [squashHeader]byte
	if err := image.ReadAt(r, b[:], 0); err != nil {
		return nil, fmt.Errorf("reading squashfs superblock: %w", err)
	}
	le := binary.LittleEndian
	if string(b[:4]) != squashMagic {
		return nil, malformed("reading squashfs: it starts with %x, not with hsqs", b[:4])
	}
	s := &squash{
		r: r, blockSize: int64(le.Uint32(b[12:])), nFragments: le.Uint32(b[16:]),
		compressor: le.Uint16(b[20:]), rootInode: le.Uint64(b[32:]),
	}
	if major, minor := le.Uint16(b[28:]), le.Uint16(b[30:]); major != 4 || minor != 0 {
		return nil, fmt.Errorf("reading squashfs: version %d.%d, want 4.0: %w", major, minor, image.ErrUnsupported)
	}
	if log := le.Uint16(b[22:]); log < 12 || log > 20 || s.blockSize != 1<<log {
		return nil, malformed("reading squashfs: block size %d with logarithm %d", s.blockSize, log)
	}
	used := le.Uint64(b[40:])
	var ok bool
	if s.size, ok = offset(used, limit); !ok || used < squashHeader {
		return nil, fmt.Errorf("reading squashfs: it says that it has %d bytes, and there are %d: %w", used, limit, image.ErrTruncated)
	}
	for _, f := range []struct {
		at  *int64
		off int
	}{{&s.inodes, 64}, {&s.dirs, 72}, {&s.fragments, 80}} {
		v := le.Uint64(b[f.off:])
		at, ok := offset(v, s.size)
		if !ok && (f.at != &s.fragments || s.nFragments > 0) { // without fragments it is all ones
			return nil, malformed("reading squashfs: a table at %#x is outside its %d bytes", v, used)
		}
		*f.at = at
	}
	return s, nil
}

// offset returns v as an offset in a file, if it is at most limit.
func offset(v uint64, limit int64) (int64, bool) {
	if limit < 0 || v > uint64(limit) {
		return 0, false
	}
	return int64(v), true //nolint:gosec // G115: at most limit
}

// readManifest returns the file manifest.raucm of the root directory.
func (s *squash) readManifest() ([]byte, error) {
	b, err := s.readFile(manifestName)
	if err != nil {
		return nil, fmt.Errorf("reading %s from squashfs: %w", manifestName, err)
	}
	return b, nil
}

func (s *squash) readFile(name string) ([]byte, error) {
	block, off, size, err := s.readRoot()
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	inode, err := s.lookup(name, block, off, size)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	return s.readInode(inode)
}

// readRoot returns where the listing of the root directory is: its metadata
// block in the directory table, the offset therein, and its length.
func (s *squash) readRoot() (block uint32, off uint16, size uint32, err error) {
	m, typ, err := s.openInode(s.rootInode)
	if err != nil {
		return 0, 0, 0, err
	}
	le := binary.LittleEndian
	switch typ {
	case inodeDir:
		b, err := m.next(16)
		if err != nil {
			return 0, 0, 0, err
		}
		block, size, off = le.Uint32(b), uint32(le.Uint16(b[8:])), le.Uint16(b[10:])
	case inodeDirExt:
		b, err := m.next(24)
		if err != nil {
			return 0, 0, 0, err
		}
		size, block, off = le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint16(b[18:])
	default:
		return 0, 0, 0, malformed("inode has type %d", typ)
	}
	// The length counts "." and "..", which are not stored.
	if size < 3 || size-3 > maxListing {
		return 0, 0, 0, malformed("listing of %d bytes", size)
	}
	return block, off, size - 3, nil
}

// lookup returns the reference of the inode with that name. Names are sorted,
// but a listing that is not must not hide a second file of the same name from
// us that a kernel finds, so the whole listing is read.
func (s *squash) lookup(name string, block uint32, off uint16, size uint32) (uint64, error) {
	le := binary.LittleEndian
	m := &metaReader{s: s, at: s.dirs + int64(block), skip: int(off)}
	found, inode := false, uint64(0)
	for left := int64(size); left > 0; {
		head, err := m.next(12)
		if err != nil {
			return 0, err
		}
		left -= 12
		count, start := le.Uint32(head), le.Uint32(head[4:])
		if count > 255 { // one less than the entries, of which there are at most 256
			return 0, malformed("a run of %d entries", uint64(count)+1)
		}
		for range count + 1 {
			e, err := m.next(8)
			if err != nil {
				return 0, err
			}
			off, typ, n := le.Uint16(e), le.Uint16(e[4:]), int(le.Uint16(e[6:]))+1
			if n > 256 {
				return 0, malformed("a name of %d bytes", n)
			}
			entry, err := m.next(n)
			if err != nil {
				return 0, err
			}
			if left -= 8 + int64(n); left < 0 {
				return 0, malformed("the listing is longer than its length")
			}
			if string(entry) != name {
				continue
			}
			if found || typ != inodeFile {
				return 0, malformed("%s is there twice, or is no regular file", name)
			}
			found, inode = true, uint64(start)<<16|uint64(off)
		}
	}
	if !found {
		return 0, malformed("no %s: this squashfs is no RAUC bundle", name)
	}
	return inode, nil
}

// readInode returns the contents of a regular file.
func (s *squash) readInode(ref uint64) ([]byte, error) {
	m, typ, err := s.openInode(ref)
	if err != nil {
		return nil, fmt.Errorf("inode: %w", err)
	}
	le := binary.LittleEndian
	var startAt, length uint64
	var frag, fragOff uint32
	switch typ {
	case inodeFile:
		b, err := m.next(16)
		if err != nil {
			return nil, fmt.Errorf("inode: %w", err)
		}
		startAt, frag, fragOff, length = uint64(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:]), uint64(le.Uint32(b[12:]))
	case inodeFileExt:
		b, err := m.next(40)
		if err != nil {
			return nil, fmt.Errorf("inode: %w", err)
		}
		startAt, length, frag, fragOff = le.Uint64(b), le.Uint64(b[8:]), le.Uint32(b[28:]), le.Uint32(b[32:])
	default:
		return nil, malformed("inode has type %d", typ)
	}
	size, ok := offset(length, MaxManifest)
	if !ok {
		return nil, fmt.Errorf("%d bytes are over the limit of %d: %w", length, MaxManifest, image.ErrTooLarge)
	}
	at, ok := offset(startAt, s.size)
	if !ok {
		return nil, malformed("data at %#x is outside the squashfs", startAt)
	}
	out := make([]byte, 0, size)
	whole := size / s.blockSize // blocks; the tail is in a fragment, or a block too
	if frag == noFragment && size%s.blockSize != 0 {
		whole++
	}
	for range whole {
		b, err := m.next(4)
		if err != nil {
			return nil, fmt.Errorf("list of blocks: %w", err)
		}
		word := le.Uint32(b)
		n := min(s.blockSize, size-int64(len(out)))
		data, err := s.readBlock(at, word)
		switch {
		case err != nil:
			return nil, err
		case word == 0: // a hole
			data = make([]byte, n)
		case int64(len(data)) != n:
			return nil, malformed("a data block of %d bytes, want %d", len(data), n)
		}
		out = append(out, data...)
		at += int64(word &^ dataUncompressed)
	}
	if rest := size - int64(len(out)); rest > 0 {
		data, err := s.readFragment(frag)
		if err != nil {
			return nil, fmt.Errorf("fragment %d: %w", frag, err)
		}
		if int64(fragOff)+rest > int64(len(data)) {
			return nil, malformed("fragment %d has %d bytes, the file wants %d at %d", frag, len(data), rest, fragOff)
		}
		out = append(out, data[fragOff:int64(fragOff)+rest]...)
	}
	return out, nil
}

// readFragment returns the block that holds the tails of several files.
func (s *squash) readFragment(n uint32) ([]byte, error) {
	if n >= s.nFragments {
		return nil, malformed("there are %d", s.nFragments)
	}
	const perBlock = metaSize / 16 // entries of 16 bytes in each metadata block
	var b [8]byte
	if err := s.readAt(b[:], s.fragments+8*int64(n/perBlock)); err != nil {
		return nil, err
	}
	table, ok := offset(binary.LittleEndian.Uint64(b[:]), s.size)
	if !ok {
		return nil, malformed("its table is outside the squashfs")
	}
	m := &metaReader{s: s, at: table, skip: int(n%perBlock) * 16}
	e, err := m.next(16)
	if err != nil {
		return nil, err
	}
	start, ok := offset(binary.LittleEndian.Uint64(e), s.size)
	if !ok {
		return nil, malformed("its data is outside the squashfs")
	}
	return s.readBlock(start, binary.LittleEndian.Uint32(e[8:]))
}

// readBlock returns the data block at off, whose length and kind word says.
func (s *squash) readBlock(off int64, word uint32) ([]byte, error) {
	if word == 0 {
		return nil, nil
	}
	n := int64(word &^ dataUncompressed)
	if n > s.blockSize {
		return nil, malformed("a data block of %d bytes, the largest has %d", n, s.blockSize)
	}
	b := make([]byte, n)
	if err := s.readAt(b, off); err != nil {
		return nil, err
	}
	if word&dataUncompressed != 0 {
		return b, nil
	}
	return decompress(s.compressor, b, s.blockSize)
}

// openInode goes to an inode: 48 bits of metadata block, relative to the inode
// table, and 16 bits of offset in it.
func (s *squash) openInode(ref uint64) (*metaReader, uint16, error) {
	block, ok := offset(ref>>16, s.size)
	if !ok {
		return nil, 0, malformed("inode in block %#x, outside the squashfs", ref>>16)
	}
	m := &metaReader{s: s, at: s.inodes + block, skip: int(ref & 0xffff)}
	head, err := m.next(16) // type, mode, owner, group, time, number
	if err != nil {
		return nil, 0, err
	}
	return m, binary.LittleEndian.Uint16(head), nil
}

// readAt reads within the squashfs only.
func (s *squash) readAt(b []byte, off int64) error {
	if off < 0 || off > s.size || int64(len(b)) > s.size-off {
		return fmt.Errorf("%d bytes at %#x are outside the squashfs of %d: %w", len(b), off, s.size, image.ErrTruncated)
	}
	return image.ReadAt(s.r, b, off)
}

// metaReader reads the stream that consecutive metadata blocks hold.
type metaReader struct {
	s    *squash
	at   int64 // the next metadata block
	skip int   // bytes to pass over first
	rest []byte
}

// next returns the next n bytes, valid until the call after.
func (m *metaReader) next(n int) ([]byte, error) {
	if len(m.rest) >= n+m.skip && m.skip == 0 {
		b := m.rest[:n]
		m.rest = m.rest[n:]
		return b, nil
	}
	out := bytes.Clone(m.rest)
	for len(out) < n {
		if err := m.load(); err != nil {
			return nil, err
		}
		take := min(n-len(out), len(m.rest))
		out = append(out, m.rest[:take]...)
		m.rest = m.rest[take:]
	}
	return out, nil
}

// load reads the next metadata block: 16 bits of length, the highest of them
// set when what follows is not compressed.
func (m *metaReader) load() error {
	var head [2]byte
	if err := m.s.readAt(head[:], m.at); err != nil {
		return fmt.Errorf("metadata block: %w", err)
	}
	word := binary.LittleEndian.Uint16(head[:])
	b := make([]byte, word&^metaUncompressed)
	if len(b) == 0 || len(b) > metaSize {
		return malformed("metadata block of %d bytes", len(b))
	}
	if err := m.s.readAt(b, m.at+2); err != nil {
		return fmt.Errorf("metadata block: %w", err)
	}
	m.at += 2 + int64(len(b))
	if word&metaUncompressed == 0 {
		var err error
		if b, err = decompress(m.s.compressor, b, metaSize); err != nil {
			return fmt.Errorf("metadata block: %w", err)
		}
	}
	if m.skip >= len(b) || len(b) == 0 {
		return malformed("offset %d in a metadata block of %d bytes", m.skip, len(b))
	}
	m.rest, m.skip = b[m.skip:], 0
	return nil
}
