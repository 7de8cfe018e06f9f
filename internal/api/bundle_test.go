package api_test

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/verify"
)

// What an auditor downloads is what the offline verifier agrees with, under
// the log key that the server states.
func TestADownloadedBundleVerifies(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.Enrolled("d")
	auditor := r.as(fwtest.Rita, fw.RoleAuditor)
	st, err := auditor.Server().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The auditor was here before, and kept a checkpoint.
	note, err := auditor.Evidence().Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(note))
	since, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var seen int64
	if err := auditor.Evidence().Bundle(ctx, apitypes.BundleQuery{Device: "d", Since: since}, &b, func(done int64) { seen = done }); err != nil {
		t.Fatal(err)
	}
	if seen != int64(b.Len()) {
		t.Errorf("progress ended at %d of %d bytes", seen, b.Len())
	}
	rep, err := verify.Verify(ctx, bytes.NewReader(b.Bytes()), verify.Options{TrustedLogKey: st.LogKey, TrustedCheckpoint: note})
	if err != nil || rep.Verdict != verify.Verified || rep.Counts.Records == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := auditor.Evidence().Bundle(ctx, apitypes.BundleQuery{Device: "d", Since: 1 << 40}, io.Discard, nil); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a checkpoint of the future: %v", err)
	}
	if err := auditor.Evidence().Bundle(ctx, apitypes.BundleQuery{Device: "nobody"}, io.Discard, nil); fw.KindOf(err) != fw.NotFound {
		t.Errorf("a device that does not exist: %v", err)
	}
}
