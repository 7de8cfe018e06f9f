package signerd

import (
	"encoding/json"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
)

// Version is the version of the protocol; it is in every path.
const Version = 1

// maxBody bounds every body but an image, in bytes: a manifest and a roster of
// up to 48 KiB each as evidence allows, the decision record that repeats the
// manifest, and 64 approvals, in base64.
const maxBody = 2 << 20

// Info says who a signer is.
type Info struct {
	Version      int              `json:"version"`       // of the protocol
	Log          string           `json:"log,omitempty"` // verifier key of the evidence log whose decisions count; empty: none yet
	MinApprovals int              `json:"min_approvals"`
	Roots        RootSet          `json:"roots"`
	Roster       int64            `json:"roster"` // version of the roster in force; 0: none
	Keys         []signer.KeyInfo `json:"keys"`

	// Chains has the certificates of keys that have some, DER, the key's own first.
	Chains map[fw.KeyName][][]byte `json:"chains,omitempty"`
}

// RootSet is who signs rosters and trust bundles.
type RootSet struct {
	Threshold int      `json:"threshold"`
	Keys      [][]byte `json:"keys"` // SubjectPublicKeyInfo DER of Ed25519 keys
}

// Rosters is a run of signed rosters, oldest first.
type Rosters struct {
	Envelopes [][]byte `json:"envelopes"`
}

// Roster is one signed roster.
type Roster struct {
	Envelope []byte `json:"envelope"`
}

// State is how far an order is.
type State string

// States of an order, in life-cycle order.
const (
	StateWaiting   State = "waiting"   // for the image
	StateReceiving State = "receiving" // it
	StateSigning   State = "signing"
	StateSigned    State = "signed" // fetch the output
	StateFailed    State = "failed" // Error says why
)

// Status is an order as the signer sees it.
type Status struct {
	Permit fw.PermitID    `json:"permit"`
	State  State          `json:"state"`
	Done   int64          `json:"done"`  // bytes received or written in this state
	Total  int64          `json:"total"` // bytes of the input; the output is a little more or less
	Record *signer.Record `json:"record,omitempty"`
	Error  *Failure       `json:"error,omitempty"`
}

// Failure is why an order failed.
type Failure struct {
	Kind   fw.Kind `json:"kind"`
	Detail string  `json:"detail"`
}

func (f *Failure) err() error {
	if f == nil {
		return nil
	}
	return &fw.Error{Kind: f.Kind, Msg: f.Detail}
}

// parse reads one JSON document of the protocol: bounded, with no member
// twice and none that is not known.
func parse[T any](b []byte) (T, error) {
	var v T
	if len(b) > maxBody {
		return v, fw.Errorf(fw.TooLarge, "the body is %d bytes, over the limit of %d", len(b), maxBody)
	}
	if err := dsse.Decode(b, &v); err != nil {
		return v, fw.Wrap(fw.Invalid, err, "the body is not what this path takes: %v", err)
	}
	return v, nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the answer cannot be encoded")
	}
	return append(b, '\n'), nil
}
