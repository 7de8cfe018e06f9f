package raw

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-project/writ/internal/image"
)

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

type predicate struct {
	Product         string   `json:"product,omitempty"`
	Version         string   `json:"version,omitempty"`
	SecurityCounter *uint64  `json:"security_counter,omitempty"`
	Hardware        []string `json:"hardware,omitempty"`
	Format          string   `json:"format"`
	Size            int64    `json:"size"`
}

// Sign copies the file to w unchanged and returns the envelope in the result.
// The key is ECDSA P-256 or Ed25519.
func (f Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := f.sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing raw image: %w", err)
	}
	return res, nil
}

func (f Format) sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if err := checkSize(size); err != nil {
		return image.SignResult{}, err
	}
	if err := checkOptions(size, opt); err != nil {
		return image.SignResult{}, err
	}
	if _, err := image.SigningAlgorithm(key.Public()); err != nil {
		return image.SignResult{}, err
	}
	keyID, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), image.Section(ctx, r, 0, size)); err != nil {
		return image.SignResult{}, fmt.Errorf("copying image: %w", err)
	}
	sum := [sha256.Size]byte(h.Sum(nil))

	st := statement{
		Type:          StatementType,
		Subject:       []subject{{Name: "firmware", Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}}},
		PredicateType: PredicateType,
		Predicate: predicate{
			Product: opt.Product, Version: opt.Version, SecurityCounter: opt.SecurityCounter,
			Hardware: opt.Hardware, Format: f.Name(), Size: size,
		},
	}
	if opt.Product != "" {
		st.Subject[0].Name = opt.Product
	}
	body, err := json.Marshal(st)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("encoding statement: %w", err)
	}
	es, err := dsse.NewEnvelopeSigner(signer{key, keyID})
	if err != nil {
		return image.SignResult{}, fmt.Errorf("preparing envelope: %w", err)
	}
	env, err := es.SignPayload(ctx, PayloadType, body)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing envelope: %w", err)
	}
	envelope, err := json.Marshal(env)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("encoding envelope: %w", err)
	}
	if len(envelope) > MaxEnvelope { // many hardware ids with much to escape
		return image.SignResult{}, fmt.Errorf("checking envelope: %d bytes are over the limit of %d: %w", len(envelope), MaxEnvelope, image.ErrBadOptions)
	}
	return image.SignResult{
		Size: size, SHA256: sum, Image: digests(sum[:])[1], KeyID: keyID, Envelope: envelope,
	}, nil
}

// checkOptions refuses what Verify would refuse.
func checkOptions(size int64, opt image.SignOptions) error {
	if c := opt.SecurityCounter; c != nil && *c > maxCounter {
		return fmt.Errorf("checking security counter: %d is over %d: %w", *c, uint64(maxCounter), image.ErrBadOptions)
	}
	if len(opt.Hardware) > maxHardware {
		return fmt.Errorf("checking hardware: %d ids are over the limit of %d: %w", len(opt.Hardware), maxHardware, image.ErrBadOptions)
	}
	for _, s := range append([]string{opt.Product, opt.Version}, opt.Hardware...) {
		if len(s) > maxText || !utf8.ValidString(s) {
			return fmt.Errorf("checking options: %.20q is not UTF-8 of at most %d bytes: %w", s, maxText, image.ErrBadOptions)
		}
	}
	if slices.Contains(opt.Hardware, "") {
		return fmt.Errorf("checking hardware: an id is empty: %w", image.ErrBadOptions)
	}
	if opt.Vendor != "" || opt.HeaderSize != 0 || opt.HeaderInPlace {
		return fmt.Errorf("checking options: raw images have neither vendor id nor header: %w", image.ErrBadOptions)
	}
	if opt.SlotSize != 0 && size > opt.SlotSize {
		return fmt.Errorf("checking size: %d bytes do not fit a slot of %d: %w", size, opt.SlotSize, image.ErrTooLarge)
	}
	return nil
}

// signer adapts a [crypto.Signer] to [dsse.Signer].
type signer struct {
	key   crypto.Signer
	keyID string
}

func (s signer) Sign(_ context.Context, pae []byte) ([]byte, error) {
	return image.MakeSignature(s.key, sha256.Sum256(pae), pae)
}

func (s signer) KeyID() (string, error) { return s.keyID, nil }
