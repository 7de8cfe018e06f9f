package signer

import (
	"context"
	"io"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// Custody signs what was approved, with keys that it keeps: in this process
// ([Desk]), or in a writ-signer process (internal/signerd). Both run the same
// code over the same orders. An error is a refusal if [IsRefusal] says so;
// else it is not known whether anything was signed, and the same order may be
// sent again: it gets the same answer, or is refused because its permit is
// spent and a new decision is needed.
type Custody interface {
	// AdoptRoster shows the custodian a roster it may not know yet. Versions
	// come one by one; a version that does not follow is a Conflict.
	AdoptRoster(ctx context.Context, envelope []byte) error

	// SignImage signs one image of an approved release. It reads input more
	// than once. What was written to output before an error is worthless.
	SignImage(ctx context.Context, o ImageOrder, input io.ReaderAt, output io.Writer) (Record, error)

	// SignStatement signs the statement about a release's signed images. The
	// DSSE envelope is the record's.
	SignStatement(ctx context.Context, o StatementOrder) (Record, error)
}

// ImageOrder asks for one image of an approved release to be signed. Which
// image and with which key is in the decision and in the approved manifest.
type ImageOrder struct {
	Component fw.ComponentName `json:"component"`
	Evidence  ApprovalEvidence `json:"evidence"`
	Decision  Decision         `json:"decision"`
	By        fw.PersonID      `json:"by"` // who asked, as the server says
}

// StatementOrder asks for a release statement to be signed, with the key in
// the decision.
type StatementOrder struct {
	Statement []byte           `json:"statement"` // see statement.Statement.Encode
	Evidence  ApprovalEvidence `json:"evidence"`
	Decision  Decision         `json:"decision"`
	By        fw.PersonID      `json:"by"`
}

// TrustOrder asks for the next device trust bundle to be signed.
type TrustOrder struct {
	Document []byte      `json:"document"` // see authz.TrustDocument.Encode
	Decision Decision    `json:"decision"`
	By       fw.PersonID `json:"by"`
}

// Record is the signing record: what was signed, with what, and on what
// grounds.
type Record struct {
	Permit    fw.PermitID `json:"permit"`
	Evidence  int64       `json:"evidence"` // index of the decision record
	Key       fw.KeyName  `json:"key"`
	KeyID     string      `json:"key_id"`
	Algorithm Algorithm   `json:"algorithm"`
	Custody   string      `json:"custody"`
	Input     fw.Digest   `json:"input"`
	Output    fw.Digest   `json:"output"`
	Size      int64       `json:"size"` // of the output, in bytes

	// Envelope is the detached signature of an image, if its format has one,
	// and the whole output of everything else.
	Envelope []byte `json:"envelope,omitempty"`

	Approvals  []approval.Counted `json:"approvals,omitempty"`
	Provenance fw.Digest          `json:"provenance,omitzero"`
	By         fw.PersonID        `json:"by"`
	At         int64              `json:"at"` // Unix seconds, the custodian's clock
}

// IsRefusal reports whether err says that something is not signed because it
// may not be, rather than because something broke.
func IsRefusal(err error) bool {
	switch fw.KindOf(err) {
	case fw.Invalid, fw.Forbidden, fw.NotFound, fw.Conflict, fw.TooLarge:
		return true
	case fw.Unauthenticated, fw.TooMany, fw.Unavailable, fw.Corrupt, fw.Internal:
	}
	return false
}
