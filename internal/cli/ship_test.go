package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-project/writ/internal/fw"
)

// ship takes a file through propose, approve, sign and publish, and writes
// what devices would download to OUT and, if there is a detached signature, to
// OUT.sig.
func ship(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 4, "ship PRODUCT VERSION FILE OUT FLAG…")
	product, version, file, out := args[0], args[1], args[2], args[3]
	as(ts, "ERIN", append([]string{"release", "create", "--product", product, "--version", version, "--type", "functional", "--image", file, "-o", "json"}, args[4:]...)...)
	id := member(ts, "id")
	as(ts, "ALICE", "approve", "release", id, "--key", "alice", "--yes")
	as(ts, "ERIN", "release", "publish", id)
	as(ts, "ERIN", "release", "show", id, "-o", "json")
	var r struct{ Publication fw.Publication }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &r))
	blob := func(d fw.Digest, to string) {
		b, err := os.ReadFile(filepath.Join(of(ts).data, "blobs", "sha256", d.Hex()[:2], d.Hex()[2:]))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(to), b, 0o600))
	}
	img := r.Publication.Images[0]
	blob(img.Digest, out)
	if !img.Envelope.IsZero() {
		blob(img.Envelope, out+".sig")
	}
	if r.Publication.Statement.IsZero() {
		ts.Fatalf("release %s was published without a statement", id)
	}
}
