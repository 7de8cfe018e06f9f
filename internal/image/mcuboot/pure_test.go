package mcuboot

import (
	"bytes"
	"crypto"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// Attack: change one byte of a pure image, anywhere, and take the mark away.
func TestVerifyRefusesAnyFlippedByteOfAPureImage(t *testing.T) {
	key := newEd25519(t)
	b := mustSign(t, bytes.Repeat([]byte("firmware"), 30), key, withLayout("1.2.3", `{"pure": true}`))
	for i := range b {
		b[i] ^= 1
		_, err := verifyBytes(b, key.Public())
		b[i] ^= 1
		if _, ok := image.ReasonOf(err); !ok {
			t.Fatalf("byte %#x: got error %v, want a refusal", i, err)
		}
	}
	l, err := parse(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	mark := int(l.tlvs[1].off)
	over := slices.Concat(b[:mark], b[mark+tlvHeadSize+1:])
	area := int(l.tlvs[0].off) - tlvInfoSize
	le.PutUint16(over[area+2:], le.Uint16(over[area+2:])-tlvHeadSize-1)
	_, err = verifyBytes(over, key.Public())
	wantReason(t, err, image.ErrBadSignature)
}

func TestPureSigningIsLimited(t *testing.T) {
	key := newEd25519(t)
	sign := func(size int64, layout string) error {
		_, err := Format{}.Sign(t.Context(), io.Discard, hugeReader{}, size, key, withLayout("1.2.3", layout))
		return err
	}
	if err := sign(MaxPureSign-0x200, `{"pure": true}`); err != nil {
		t.Errorf("the largest: %v", err)
	}
	wantReason(t, sign(MaxPureSign-0x200+1, `{"pure": true}`), image.ErrTooLarge)
	if err := sign(MaxPureSign-0x200+1, `{"hash": "sha512"}`); err != nil {
		t.Errorf("its digest: %v", err)
	}
}

// largeImage is an image with a payload of zeros, of which only the ends are in
// memory.
type largeImage struct {
	head, tail []byte
	size       int64
}

func (l largeImage) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), l.size-off)
	clear(p[:n])
	if off < int64(len(l.head)) {
		copy(p, l.head[off:])
	}
	from := l.size - int64(len(l.tail))
	switch {
	case off >= from:
		copy(p, l.tail[off-from:])
	case off+n > from:
		copy(p[from-off:n], l.tail)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// ends keeps the first and the last kilobyte of what is written.
type ends struct {
	head, tail []byte
	size       int64
}

func (e *ends) Write(p []byte) (int, error) {
	if len(e.head) < 1024 {
		e.head = append(e.head, p[:min(len(p), 1024-len(e.head))]...)
	}
	last := p[max(0, len(p)-1024):]
	e.tail = append(e.tail, last...)
	e.tail = append(e.tail[:0], e.tail[max(0, len(e.tail)-1024):]...)
	e.size += int64(len(p))
	return len(p), nil
}

// Signing and verifying allocate little in all, so they hold little at once, and
// a pure signature over more than Sign takes is verified as it streams by.
func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	const size, most = 64 << 20, 4 << 20
	key := newEd25519(t)
	var out ends
	used := allocated(func() {
		if _, err := (Format{}).Sign(t.Context(), &out, hugeReader{}, size, key, image.SignOptions{Version: "1.2.3"}); err != nil {
			t.Fatal(err)
		}
	})
	if used > most {
		t.Errorf("signing %d MiB allocates %d KiB", size>>20, used>>10)
	}
	signed := largeImage{bytes.Clone(out.head), out.tail, out.size}

	// A pure image of this size is put together by hand.
	region := bytes.NewBuffer(make([]byte, 0, size))
	le.PutUint32(out.head[12:], size-headerSize)
	le.PutUint16(out.head[8:], headerSize)
	region.Write(out.head[:headerSize])
	region.Write(make([]byte, size-headerSize))
	k, err := schemeOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := sealer{key: key, set: &settings{}, scheme: k, hash: k.hashes[1], digest: k.hashes[1].New(), message: region, pure: true}
	var tlvs bytes.Buffer
	s.out, s.file = &tlvs, k.hashes[0].New()
	s.digest.Write(region.Bytes())
	if _, err := s.seal(); err != nil {
		t.Fatal(err)
	}
	pure := largeImage{out.head[:headerSize], tlvs.Bytes(), size + int64(tlvs.Len())}

	for name, b := range map[string]largeImage{"digest": signed, "pure": pure} {
		used := allocated(func() {
			if _, err := (Format{}).Verify(t.Context(), b, b.size, nil, []crypto.PublicKey{key.Public()}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if used > most {
			t.Errorf("verifying a %s signature over %d MiB allocates %d KiB", name, size>>20, used>>10)
		}
		b.tail = bytes.Clone(b.tail)
		b.tail[len(b.tail)-1] ^= 1
		_, err := Format{}.Verify(t.Context(), b, b.size, nil, []crypto.PublicKey{key.Public()})
		wantReason(t, err, image.ErrBadSignature)
	}
}

// allocated returns how many bytes f allocates, given back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
