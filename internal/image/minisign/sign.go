package minisign

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/blake2b"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
)

// Layout is [image.SignOptions.Layout] for minisign and signify, a strict JSON
// object: an unknown or repeated member is refused.
type Layout struct {
	// PublicKey is the second line of the public key file that devices have. Its
	// number goes into the signature; its key must be the signing key's. Without
	// it the number is that of [NumberOf].
	PublicKey string `json:"public_key,omitempty"`
	// Timestamp (Unix seconds) and File (a name) go into the trusted comment,
	// where minisign -S puts them. Minisign only.
	Timestamp int64  `json:"timestamp,omitempty"`
	File      string `json:"file,omitempty"`
}

// Sign copies the image to w unchanged and returns the signature file in the
// result. The key is Ed25519.
func (f Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := signMinisign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing minisign image: %w", err)
	}
	return res, nil
}

// Sign copies the image to w unchanged and returns the signature file in the
// result. The key is Ed25519. The image is held in memory and must not be
// larger than [MaxSignifySign]. The file has no place for claims, so a version,
// counter, product or hardware in opt is bound by the release alone.
func (f Signify) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := signSignify(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing signify image: %w", err)
	}
	return res, nil
}

func signMinisign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	layout, number, err := prepare(size, key, opt)
	if err != nil {
		return image.SignResult{}, err
	}
	trusted, err := trustedComment(layout, opt)
	if err != nil {
		return image.SignResult{}, err
	}
	digest := sha256.New()
	pre, err := blake2b.New512(nil)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("starting BLAKE2b: %w", err)
	}
	if _, err := io.Copy(io.MultiWriter(w, digest, pre), image.Section(ctx, r, 0, size)); err != nil {
		return image.SignResult{}, fmt.Errorf("copying image: %w", err)
	}
	sig, err := image.MakeSignature(key, [sha256.Size]byte{}, pre.Sum(nil))
	if err != nil {
		return image.SignResult{}, err
	}
	global, err := image.MakeSignature(key, [sha256.Size]byte{}, append(slices.Clone(sig), trusted...))
	if err != nil {
		return image.SignResult{}, err
	}
	env := fmt.Appendf(nil, "%ssignature by key %X\n%s\n%s%s\n%s\n",
		untrustedPrefix, reversed(number), line(algPrehashed, number, sig),
		trustedPrefix, trusted, base64.StdEncoding.EncodeToString(global))
	return result(size, digest.Sum(nil), key, env)
}

func signSignify(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	layout, number, err := prepare(size, key, opt)
	if err != nil {
		return image.SignResult{}, err
	}
	switch {
	case layout.Timestamp != 0 || layout.File != "":
		return image.SignResult{}, badOptions("signify has no trusted comment for a timestamp or file name")
	case size > MaxSignifySign:
		return image.SignResult{}, fmt.Errorf("checking size: %d bytes are over the %d that signify can sign, use minisign: %w", size, MaxSignifySign, image.ErrTooLarge)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(image.Section(ctx, r, 0, size), b); err != nil {
		return image.SignResult{}, fmt.Errorf("reading image: %w", err)
	}
	sig, err := image.MakeSignature(key, [sha256.Size]byte{}, b)
	if err != nil {
		return image.SignResult{}, err
	}
	if _, err := w.Write(b); err != nil {
		return image.SignResult{}, fmt.Errorf("copying image: %w", err)
	}
	sum := sha256.Sum256(b)
	env := fmt.Appendf(nil, "%ssignature by key %X\n%s\n", untrustedPrefix, reversed(number), line(algPlain, number, sig))
	return result(size, sum[:], key, env)
}

// prepare checks what the two have in common and returns the key's number.
func prepare(size int64, key crypto.Signer, opt image.SignOptions) (Layout, Number, error) {
	var layout Layout
	if err := checkSize(size); err != nil {
		return layout, Number{}, err
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return layout, Number{}, fmt.Errorf("choosing signature algorithm: these files hold Ed25519 signatures, not of a key of type %T: %w", key.Public(), image.ErrUnsupported)
	}
	switch {
	case opt.Vendor != "" || opt.HeaderSize != 0 || opt.HeaderInPlace:
		return layout, Number{}, badOptions("there is neither vendor id nor header")
	case opt.SlotSize != 0 && size > opt.SlotSize:
		return layout, Number{}, fmt.Errorf("checking size: %d bytes do not fit a slot of %d: %w", size, opt.SlotSize, image.ErrTooLarge)
	}
	if len(opt.Layout) != 0 {
		if err := dsse.Decode(opt.Layout, &layout); err != nil {
			return layout, Number{}, badOptions("layout: %v", err)
		}
	}
	if layout.PublicKey == "" {
		n, err := NumberOf(pub)
		return layout, n, err
	}
	k, err := ParsePublicKey([]byte(layout.PublicKey))
	switch {
	case err != nil:
		return layout, Number{}, badOptions("layout: %v", err)
	case !k.Key.Equal(pub):
		return layout, Number{}, badOptions("layout: public_key, number %s, is not that of the signing key", k.Number)
	}
	return layout, k.Number, nil
}

func trustedComment(l Layout, opt image.SignOptions) ([]byte, error) {
	if l.Timestamp < 0 {
		return nil, badOptions("timestamp is negative")
	}
	var fields []string
	var err error
	add := func(name, value string) {
		if len(value) > maxText || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			err = badOptions("%s %.40q is not printable UTF-8 of at most %d bytes", name, value, maxText)
		}
		if value != "" {
			fields = append(fields, name+":"+value)
		}
	}
	if l.Timestamp != 0 {
		add("timestamp", strconv.FormatInt(l.Timestamp, 10))
	}
	add("file", l.File)
	fields = append(fields, "hashed") // as minisign -S says
	add("product", opt.Product)
	add("version", opt.Version)
	if c := opt.SecurityCounter; c != nil {
		if *c > maxCounter {
			return nil, badOptions("security counter %d is over %d", *c, uint64(maxCounter))
		}
		add("security_counter", strconv.FormatUint(*c, 10))
	}
	if len(opt.Hardware) > maxHardware {
		return nil, badOptions("%d hardware ids are over the limit of %d", len(opt.Hardware), maxHardware)
	}
	for _, h := range opt.Hardware {
		if h == "" {
			return nil, badOptions("a hardware id is empty")
		}
		add("hw", h)
	}
	out := strings.Join(fields, "\t")
	if n := len(trustedPrefix) + len(out); err == nil && n > maxTrusted-1 { // and its line feed
		err = badOptions("the trusted comment needs %d bytes and minisign reads %d: name fewer hardware ids", n, maxTrusted-1)
	}
	return []byte(out), err
}

func badOptions(format string, args ...any) error {
	return fmt.Errorf("checking options: %s: %w", fmt.Sprintf(format, args...), image.ErrBadOptions)
}

// reversed turns the number into the order in which minisign prints it.
func reversed(n Number) []byte {
	slices.Reverse(n[:])
	return n[:]
}

func line(alg string, n Number, sig []byte) string {
	return base64.StdEncoding.EncodeToString(slices.Concat([]byte(alg), n[:], sig))
}

func result(size int64, sum []byte, key crypto.Signer, env []byte) (image.SignResult, error) {
	id, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	return image.SignResult{Size: size, SHA256: [sha256.Size]byte(sum), Image: digests(sum)[1], KeyID: id, Envelope: env}, nil
}
