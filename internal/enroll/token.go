package enroll

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// Bounds of a token's life.
const (
	MinTokenTTL = time.Minute
	MaxTokenTTL = 365 * 24 * time.Hour
)

// Form of a token: the prefix, then 160 random bits and 40 bits of checksum in
// 40 characters without look-alikes.
const (
	tokenPrefix  = "enrol_"
	randomBytes  = 20
	checkedBytes = 5
	checkTag     = "writ-enrolment-token/v1\x00"
)

var tokenEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// Secret is the text of a token. It prints, logs and marshals as a
// placeholder; only [Secret.Reveal] returns it.
type Secret struct{ s string }

// Reveal returns the text, to be shown once.
func (s Secret) Reveal() string { return s.s }

// String returns a placeholder.
func (Secret) String() string { return tokenPrefix + "[redacted]" }

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer with a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler with a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func newSecret() Secret {
	var b [randomBytes]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read, Go 1.24
	return Secret{tokenPrefix + tokenEncoding.EncodeToString(append(b[:], checksum(b[:])...))}
}

// checksum tells typing errors from unknown tokens. It protects nothing:
// anybody can compute it.
func checksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte(checkTag), b...))
	return sum[:checkedBytes]
}

// parseToken checks the form of a token and returns the hash it is stored by.
func parseToken(s string) (fw.Digest, error) {
	s = strings.TrimSpace(s)
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return fw.Digest{}, fw.Errorf(fw.Unauthenticated, "this is not an enrolment token: those begin with %s", tokenPrefix)
	}
	b, err := tokenEncoding.DecodeString(body)
	if err != nil || len(b) != randomBytes+checkedBytes || !bytes.Equal(checksum(b[:randomBytes]), b[randomBytes:]) {
		return fw.Digest{}, fw.Errorf(fw.Unauthenticated, "this enrolment token has a typing error or is cut short: copy it again")
	}
	return fw.DigestOf([]byte(s)), nil
}

// Token is a new enrolment token. Its secret is shown now or never.
type Token struct {
	Device    fw.DeviceID
	Secret    Secret
	ExpiresAt time.Time
}

func settingToken(id fw.DeviceID) string { return "token/" + string(id) }

// EnrolmentToken makes a one-time token for a claimed device. The device's
// earlier tokens stop working.
func (e *Enrolment) EnrolmentToken(ctx context.Context, id fw.DeviceID, ttl time.Duration, actor fw.PersonID) (Token, error) {
	tokens, err := e.EnrolmentTokens(ctx, []fw.DeviceID{id}, ttl, actor)
	if err != nil {
		return Token{}, err
	}
	return tokens[0], nil
}

// EnrolmentTokens makes a token for each of up to [MaxRegister] claimed
// devices, for all or for none.
func (e *Enrolment) EnrolmentTokens(ctx context.Context, ids []fw.DeviceID, ttl time.Duration, actor fw.PersonID) ([]Token, error) {
	if len(ids) == 0 || len(ids) > MaxRegister {
		return nil, fw.Errorf(fw.TooLarge, "make 1 to %d tokens in one call, not %d: send the list in parts", MaxRegister, len(ids))
	}
	return e.tokens(ctx, ids, ttl, func(tx *store.Tx, row *store.Device, t Token) error {
		if row.State != fw.DeviceClaimed {
			return refuseToken(row)
		}
		return e.insertToken(tx, t, actor, evidence.EnrolmentToken{})
	})
}

func refuseToken(row *store.Device) error {
	switch row.State {
	case fw.DeviceActive, fw.DeviceSuspended, fw.DeviceQuarantined:
		return fw.Errorf(fw.Conflict, "device %s has enrolled: let it in again with writ device reopen", row.ID)
	case fw.DeviceManufactured:
		return fw.Errorf(fw.Conflict, "device %s has no owner yet: claim it first", row.ID)
	case fw.DeviceClaimed, fw.DeviceRevoked, fw.DeviceDecommissioned:
	}
	return fw.Errorf(fw.Conflict, "device %s is %s and cannot enrol", row.ID, row.State)
}

// ReopenEnrolment is the way back for a device that has enrolled and lost its
// key or let its certificate expire: a token for a device that is active,
// suspended or quarantined, and stays so. The old certificate works until the
// new one is used.
func (e *Enrolment) ReopenEnrolment(ctx context.Context, id fw.DeviceID, ttl time.Duration, actor fw.PersonID) (Token, error) {
	tokens, err := e.tokens(ctx, []fw.DeviceID{id}, ttl, func(tx *store.Tx, row *store.Device, t Token) error {
		if !enrolled(row.State) {
			if row.State == fw.DeviceClaimed {
				return fw.Errorf(fw.Conflict, "device %s has not enrolled yet: make a token for it with writ device token", id)
			}
			return refuseToken(row)
		}
		return e.insertToken(tx, t, actor, evidence.EnrolmentToken{Reopened: true})
	})
	if err != nil {
		return Token{}, err
	}
	return tokens[0], nil
}

// enrolled reports whether a device in state s has an identity in use.
func enrolled(s fw.DeviceState) bool {
	return s == fw.DeviceActive || s == fw.DeviceSuspended || s == fw.DeviceQuarantined
}

func (e *Enrolment) tokens(ctx context.Context, ids []fw.DeviceID, ttl time.Duration, insert func(*store.Tx, *store.Device, Token) error) ([]Token, error) {
	if ttl < MinTokenTTL || ttl > MaxTokenTTL {
		return nil, fw.Errorf(fw.Invalid, "an enrolment token must live from %v to %d days", MinTokenTTL, MaxTokenTTL/(24*time.Hour))
	}
	var out []Token
	err := e.d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		out = make([]Token, len(ids))
		for i, id := range ids {
			row, err := store.DeviceByID(tx, id)
			if err != nil {
				return err
			}
			out[i] = Token{Device: id, Secret: newSecret(), ExpiresAt: tx.Now().Add(ttl).Truncate(time.Second)}
			if err := insert(tx, &row, out[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// insertToken stores t, makes it the only one of its device that works, and
// records its hash.
func (e *Enrolment) insertToken(tx *store.Tx, t Token, actor fw.PersonID, data evidence.EnrolmentToken) error {
	hash := fw.DigestOf([]byte(t.Secret.s))
	err := store.InsertEnrolmentToken(tx, store.EnrolmentToken{
		Hash: hash[:], Device: t.Device, CreatedAt: tx.Now().Unix(), ExpiresAt: t.ExpiresAt.Unix(),
	})
	if err != nil {
		return err
	}
	if err := store.PutSetting(tx, settingToken(t.Device), hash[:]); err != nil {
		return err
	}
	data.Device, data.TokenHash, data.ExpiresAt = t.Device, hash, t.ExpiresAt.Unix()
	return e.d.append(tx, evidence.TypeEnrolmentToken, string(actor), t.Device, data)
}
