package tlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// LevelEntries is the Level of an entry bundle: the entries themselves, next
// to the tiles of their hashes.
const LevelEntries = -1

// TileID names a tile or an entry bundle of C2SP tlog-tiles.
type TileID struct {
	Level int // from 0, or LevelEntries
	N     int64
	Width int // hashes or entries: 256, or fewer for a partial tile
}

// maxTilePath is more than the longest path of a tree of MaxSize.
const maxTilePath = 64

// Path returns the path of the tile below the log's prefix:
// tile/<L>/<N>[.p/<W>], with "entries" for <L> for an entry bundle, and <N> in
// groups of three digits, all but the last with an x before them.
func (id TileID) Path() string {
	b := make([]byte, 0, 48)
	if id.Level == LevelEntries {
		b = append(b, "tile/entries"...)
	} else {
		b = append(b, "tile/"...)
		b = strconv.AppendInt(b, int64(id.Level), 10)
	}
	digits := strconv.FormatInt(id.N, 10)
	digits = strings.Repeat("0", (3-len(digits)%3)%3) + digits
	for ; len(digits) > 3; digits = digits[3:] {
		b = append(b, "/x"...)
		b = append(b, digits[:3]...)
	}
	b = append(b, '/')
	b = append(b, digits...)
	if id.Width != TileWidth {
		b = append(b, ".p/"...)
		b = strconv.AppendInt(b, int64(id.Width), 10)
	}
	return string(b)
}

// ParseTilePath reads the path of a tile. It accepts exactly what [TileID.Path]
// writes for tiles that a tree of [MaxSize] can have.
func ParseTilePath(path string) (TileID, error) {
	bad := fw.Errorf(fw.NotFound, "no such tile: the path must be tile/<L>/<N>[.p/<W>] or tile/entries/<N>[.p/<W>] (C2SP tlog-tiles)")
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > maxTilePath {
		return TileID{}, bad
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return TileID{}, bad
	}
	id := TileID{Level: LevelEntries, Width: TileWidth}
	var err error
	if level != "entries" {
		if id.Level, err = strconv.Atoi(level); err != nil || id.Level < 0 {
			return TileID{}, bad
		}
	}
	rest, width, partial := strings.Cut(rest, ".p/")
	if partial {
		if id.Width, err = strconv.Atoi(width); err != nil || id.Width < 1 || id.Width >= TileWidth {
			return TileID{}, bad
		}
	}
	for g := range strings.SplitSeq(rest, "/") {
		d, err := strconv.ParseInt(strings.TrimPrefix(g, "x"), 10, 64)
		if err != nil || d < 0 || d > 999 || id.N > MaxSize/1000 {
			return TileID{}, bad
		}
		id.N = id.N*1000 + d
	}
	// One tile has one path: leading zeros, signs and x out of place end here.
	if id.Path() != path || !id.within(MaxSize) {
		return TileID{}, bad
	}
	return id, nil
}

// Entries returns the entries that an entry bundle or a tile of level 0 covers.
func (id TileID) Entries() (from, to int64) {
	return id.N * TileWidth, id.N*TileWidth + int64(id.Width)
}

// within reports whether a tree of the given size has all hashes of id.
func (id TileID) within(size int64) bool {
	if id.N < 0 || id.Level >= maxTileLevels || id.Width < 1 || id.Width > TileWidth {
		return false
	}
	have := size >> (TileHeight * max(id.Level, 0)) // hashes at this level
	return id.N <= have/TileWidth && id.N*TileWidth+int64(id.Width) <= have
}

// Tiles lists the tiles and entry bundles of a tree of the given size, the
// bundles first and then the tiles from level 0 up, each level from its
// beginning and a partial tile at its end.
func Tiles(size int64) iter.Seq[TileID] {
	return func(yield func(TileID) bool) {
		for level := LevelEntries; level < maxTileLevels; level++ {
			have := size >> (TileHeight * max(level, 0))
			for n := int64(0); n*TileWidth < have; n++ {
				if !yield(TileID{Level: level, N: n, Width: int(min(TileWidth, have-n*TileWidth))}) {
					return
				}
			}
		}
	}
}

// bundleEntry is the size of one entry of a bundle: a 16-bit length and a
// commitment.
const bundleEntry = 2 + sha256.Size

// EncodeBundle returns the entry bundle of consecutive commitments.
func EncodeBundle(commitments [][]byte) ([]byte, error) {
	if len(commitments) == 0 || len(commitments) > TileWidth {
		return nil, fmt.Errorf("a bundle holds 1 to %d entries, not %d", TileWidth, len(commitments))
	}
	b := make([]byte, 0, bundleEntry*len(commitments))
	for _, c := range commitments {
		if len(c) != sha256.Size {
			return nil, fmt.Errorf("an entry is a commitment of %d bytes, not %d", sha256.Size, len(c))
		}
		b = binary.BigEndian.AppendUint16(b, sha256.Size)
		b = append(b, c...)
	}
	return b, nil
}

// DecodeBundle returns the commitments of an entry bundle. They share b's
// memory.
func DecodeBundle(b []byte) ([][]byte, error) {
	n := len(b) / bundleEntry
	if n == 0 || n > TileWidth || len(b) != n*bundleEntry {
		return nil, fw.Errorf(fw.Invalid, "an entry bundle of %d bytes does not hold 1 to %d commitments", len(b), TileWidth)
	}
	out := make([][]byte, n)
	for i := range out {
		e := b[i*bundleEntry : (i+1)*bundleEntry : (i+1)*bundleEntry]
		if l := binary.BigEndian.Uint16(e); l != sha256.Size {
			return nil, fw.Errorf(fw.Invalid, "entry %d of the bundle has %d bytes: a commitment has %d", i, l, sha256.Size)
		}
		out[i] = e[2:]
	}
	return out, nil
}
