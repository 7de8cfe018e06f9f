package pkcs11

import (
	"encoding/binary"
	"encoding/json"
	"io"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/fw"
)

// The helper, writ-pkcs11, is spoken to in frames over its standard input and
// output: four bytes, big endian, with the length of the JSON that follows.
// The first frame is a [Request] with OpStart. Answers carry the request's ID
// and may come in another order.

// maxFrame bounds a frame: a message in base64 and what is around it.
const maxFrame = custody.MaxMessage*4/3 + 64<<10 // bytes

// Op is what the helper is asked to do.
type Op string

// Ops.
const (
	OpStart Op = "start" // load Module
	OpOpen  Op = "open"  // find the key that Object names, logging in with PIN
	OpSign  Op = "sign"  // sign Data with the key of an earlier OpOpen
)

// Mechanism is how the token signs.
type Mechanism string

// Mechanisms.
const (
	MechanismECDSA  Mechanism = "ecdsa"   // CKM_ECDSA: Data is the digest, the answer r‖s
	MechanismEdDSA  Mechanism = "eddsa"   // CKM_EDDSA: Data is the message
	MechanismPKCS1  Mechanism = "pkcs1"   // CKM_RSA_PKCS: Data is a DigestInfo
	MechanismPSS    Mechanism = "rsa-pss" // CKM_RSA_PKCS_PSS: Data is the digest
	maxHelperErrors           = 512       // bytes of a message that the helper may send
)

// Request is one frame to the helper.
type Request struct {
	ID        uint64    `json:"id"`
	Op        Op        `json:"op"`
	Module    string    `json:"module,omitempty"`    // start: path of the shared library
	Sessions  int       `json:"sessions,omitempty"`  // start: most sessions per token
	Object    Object    `json:"object,omitzero"`     // open
	PIN       []byte    `json:"pin,omitempty"`       // open
	Key       int       `json:"key,omitempty"`       // sign: from the answer to open
	Mechanism Mechanism `json:"mechanism,omitempty"` // sign
	Hash      int       `json:"hash,omitempty"`      // sign, rsa-pss: bits of the SHA-2 function
	Salt      int       `json:"salt,omitempty"`      // sign, rsa-pss: bytes
	Data      []byte    `json:"data,omitempty"`      // sign
}

// Response is one frame from the helper.
type Response struct {
	ID      uint64  `json:"id"`
	Kind    fw.Kind `json:"kind,omitempty"`    // of the error; 0: none
	Message string  `json:"message,omitempty"` // of the error
	// PINRefused goes with an error: the token did not take the PIN.
	PINRefused bool `json:"pin_refused,omitempty"`

	Key       int    `json:"key,omitempty"`
	Public    []byte `json:"public,omitempty"` // SubjectPublicKeyInfo DER
	Signature []byte `json:"signature,omitempty"`
}

// WriteFrame writes v as one frame.
func WriteFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fw.Errorf(fw.TooLarge, "a frame is %d bytes, over the limit of %d", len(body), maxFrame)
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body))) //nolint:gosec // G115: below maxFrame
	frame = append(frame, body...)
	defer clear(frame) // it may hold a PIN
	clear(body)
	_, err = w.Write(frame)
	return err
}

// ReadFrame reads one frame into v. The error is io.EOF when the other side
// has ended.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fw.Errorf(fw.TooLarge, "a frame says it is %d bytes, over the limit of %d", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	defer clear(body)
	return json.Unmarshal(body, v)
}
