package cli_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/fw"
)

// These commands do, with the real ones, what every script about devices needs
// before its subject begins. journey.txtar shows the same step by step.
//
//	people                    the product gateway, Erin who proposes ($ERIN) and Alice who approves ($ALICE)
//	publish VERSION FILE OUT  have FILE signed as a release, and put the signed image in OUT
//	device ID URL IMAGE       register a device that left the line with IMAGE and enrol it at URL; its state directory is ./ID
//	offer VERSION FILE FLAG…  publish FILE and run a campaign for everybody; sets CMP

func people(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, "people")
	for _, p := range []struct{ name, variable, role string }{{"erin", "ERIN", "release_engineer"}, {"alice", "ALICE", "approver"}} {
		ts.Check(ts.Exec("writ", "operator", "add", p.name))
		ts.Check(ts.Exec("writ", "token", "create", "--person", p.name, "--role", p.role, "-o", "json"))
		ts.Setenv(p.variable, member(ts, "secret"))
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	block, err := ssh.MarshalPrivateKey(key, "alice")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("alice"), pem.EncodeToMemory(block), 0o600))
	sshPub, err := ssh.NewPublicKey(pub)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("alice.pub"), ssh.MarshalAuthorizedKey(sshPub), 0o600))
	ts.Check(ts.Exec("writ", "approver", "add", "alice", "alice.pub"))
	ts.Check(ts.Exec("writ", "product", "create", "gateway", "--hardware", "gw-2"))
}

// as runs writ with somebody's token.
func as(ts *testscript.TestScript, token string, args ...string) {
	ts.Setenv("WRIT_TOKEN", ts.Getenv(token))
	err := ts.Exec("writ", args...)
	ts.Setenv("WRIT_TOKEN", ts.Getenv("ADMIN"))
	ts.Check(err)
}

func publish(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, "publish VERSION FILE OUT")
	as(ts, "ERIN", "release", "show", release(ts, args[0], args[1]), "-o", "json")
	var r struct{ Publication fw.Publication }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &r))
	h := r.Publication.Images[0].Digest.Hex()
	b, err := os.ReadFile(filepath.Join(of(ts).data, "blobs", "sha256", h[:2], h[2:]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b, 0o600))
}

// release proposes, approves and publishes a release and returns its id.
func release(ts *testscript.TestScript, version, file string) string {
	as(ts, "ERIN", "release", "create", "--product", "gateway", "--version", version, "--type", "functional", "--format", "mcuboot", "--image", file, "-o", "json")
	id := member(ts, "id")
	as(ts, "ALICE", "approve", "release", id, "--key", "alice", "--yes")
	as(ts, "ERIN", "release", "publish", id)
	return id
}

func device(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, "device ID URL IMAGE")
	id, url, image := args[0], args[1], args[2]
	ts.Check(os.WriteFile(ts.MkAbs("list"), []byte("id\n"+id+"\n"), 0o600))
	ts.Check(ts.Exec("writ", "device", "register", "list", "--product", "gateway", "--hardware", "gw-2"))
	ts.Check(ts.Exec("writ", "device", "token", id, "-o", "json"))
	token := member(ts, "secret")
	ts.Check(ts.Exec("writ", "key", "trust-bundle"))
	ts.Check(os.WriteFile(ts.MkAbs("trust.json"), []byte(ts.ReadFile("stdout")), 0o600))
	ts.Check(ts.Exec("writ-agent", "enroll", "--server", url, "--ca", ts.Getenv("WRIT_CA"), "--trust", "trust.json",
		"--device", id, "--hardware", "gw-2", "--token", token, "--image", image, "--dir", id, "--poll", "200ms", "--max-backoff", "1s"))
}

func offer(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "offer VERSION FILE FLAG…")
	rel := release(ts, args[0], args[1])
	as(ts, "ERIN", append([]string{"campaign", "create", "--release", rel, "--name", args[0], "--stage", "all percent=100 min-confirmed=1", "-o", "json"}, args[2:]...)...)
	cmp := member(ts, "id")
	as(ts, "ALICE", "approve", "campaign", cmp, "--key", "alice", "--yes")
	as(ts, "ERIN", "campaign", "start", cmp)
	ts.Setenv("CMP", cmp)
}
