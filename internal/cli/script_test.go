package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/agent"
	"github.com/writ-project/writ/internal/cli"
	"github.com/writ-project/writ/internal/signerd"
	"github.com/writ-project/writ/verify"
)

// TestMain makes the test binary be the commands, under their names in
// the PATH of the scripts.
func TestMain(m *testing.M) {
	command := func(run func(context.Context) int) func() {
		return func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			code := run(ctx)
			stop()
			os.Exit(code)
		}
	}
	testscript.Main(m, map[string]func(){
		"writ": command(func(ctx context.Context) int {
			return cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		}),
		"writ-signer": command(func(ctx context.Context) int { return signerd.Main(ctx, os.Args[1:], os.Stdout, os.Stderr) }),
		"writ-agent":  command(func(ctx context.Context) int { return agent.Main(ctx, os.Args[1:], os.Stdout, os.Stderr) }),
		"writ-verify": command(func(ctx context.Context) int { return verify.Main(ctx, os.Args[1:], os.Stdout, os.Stderr) }),
	})
}

// TestScripts runs the journeys in testdata/*.txtar.
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

// TestAttacks runs the attacks on a device in testdata/attack/*.txtar.
func TestAttacks(t *testing.T) { runScripts(t, "testdata/attack") }

// TestFaults runs what disks and operators do wrong, in testdata/fault/*.txtar.
func TestFaults(t *testing.T) { runScripts(t, "testdata/fault") }

// runScripts runs the scripts of a folder on the real commands, each in a
// folder and with a server of its own. Beside what testscript has there are
//
//	[ssh-keygen] [root]     whether there is ssh-keygen, and whether the test may mount;
//	                        WRIT_REQUIRE_TOOLS=1 makes their absence a failure
//	exits CODE PROGRAM ARG… run a program; it must exit with CODE
//	await RE PROGRAM ARG…   run it again and again until its stdout matches
//	field NAME MEMBER       put a member of the last stdout's JSON in $NAME; of an array's first element
//	random FILE SIZE        make a file of random bytes
//	half-upload FILE        upload the first part of a file and break off
//	server DATA FLAG…       run writ serve on a free port; sets WRIT_SERVER, WRIT_CA, FINGERPRINT, WRIT_TOKEN and ADMIN
//	stop-server             end it as Ctrl-C does; it must exit with 0
//	people, publish, device, offer  see cast_test.go
//	ship                    see ship_test.go
//	line, signer, stop-signer, kill-signer, thief  see signer_test.go
//	steal-tls, wire, attack see wire_test.go
//	small-disk, fill, read-only, clock-ahead, fingerprint  see fault_test.go
func runScripts(t *testing.T, dir string) {
	t.Helper()
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			s := &script{t: e.T(), wires: map[string]*wire{}}
			e.Values[scriptKey{}] = s
			e.Defer(s.end)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			formats, err := filepath.Abs("../image")
			if err != nil {
				return err
			}
			e.Setenv("FORMATS", formats) // whose testdata has images
			e.Setenv("WRIT_PASSPHRASE", "correct horse battery staple")
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "await": await, "field": field, "random": random, "half-upload": halfUpload,
			"server": startServer, "stop-server": stopServer,
			"people": people, "publish": publish, "ship": ship, "device": device, "offer": offer,
			"line": line, "signer": startSigner, "stop-signer": stopSigner, "kill-signer": killSigner, "thief": thieve,
			"steal-tls": stealTLS, "wire": startWire, "attack": attack,
			"small-disk": smallDisk, "fill": fill, "read-only": readOnly, "clock-ahead": clockAhead, "fingerprint": fingerprint,
		},
	})
}

// script is what the commands of one script keep.
type script struct {
	t      testscript.T
	server *running
	signer *running // writ-signer
	socket string   // its path
	data   string   // path of its data folder
	log    string   // path of its log
	front  *tls.Certificate
	wires  map[string]*wire
}

// running is a server process.
type running struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended, after done
}

func (r *running) wait() {
	r.err = r.cmd.Wait()
	close(r.done)
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

type scriptKey struct{}

func of(ts *testscript.TestScript) *script {
	s, ok := ts.Value(scriptKey{}).(*script)
	if !ok {
		ts.Fatalf("no script")
	}
	return s
}

// end stops what still runs, and shows the server's log if the script failed.
func (s *script) end() {
	for _, w := range s.wires {
		w.close()
	}
	if s.signer != nil {
		if err := s.signer.stop(); err != nil {
			s.t.Log("the signer: ", err)
		}
	}
	if s.server == nil {
		return
	}
	if err := s.server.stop(); err != nil {
		s.t.Log("the server: ", err)
	}
	if f, ok := s.t.(interface{ Failed() bool }); ok && f.Failed() {
		b, err := os.ReadFile(s.log)
		s.t.Log("the server's log, ", err, ":\n", string(b[max(0, len(b)-3000):]))
	}
}

func condition(cond string) (bool, error) {
	var err error
	switch cond {
	case "ssh-keygen":
		_, err = exec.LookPath("ssh-keygen")
	case "root":
		err = canMount()
	default:
		return false, fmt.Errorf("there is no condition %s", cond)
	}
	if err != nil && os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
		return false, fmt.Errorf("WRIT_REQUIRE_TOOLS=1 and %s is not there: %w", cond, err)
	}
	return err == nil, nil
}

// usage ends the script if a command has too few arguments, or "!".
func usage(ts *testscript.TestScript, neg bool, args []string, atLeast int, text string) {
	if neg || len(args) < atLeast {
		ts.Fatalf("usage: %s", text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "exits CODE PROGRAM ARG…")
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = strconv.Itoa(e.ExitCode())
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// patience is how long a thing that takes a second may take on a busy machine.
const patience = 2 * time.Minute

func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "await RE PROGRAM ARG…")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not come", args[0])
		}
	}
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "field NAME MEMBER")
	ts.Setenv(args[0], member(ts, args[1]))
}

// member returns a member of the last stdout's JSON; of an array's first
// element.
func member(ts *testscript.TestScript, path string) string {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for m := range strings.SplitSeq(path, ".") {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		object, ok := v.(map[string]any)
		if !ok {
			ts.Fatalf("no object with %s", m)
		}
		v = object[m]
	}
	if v == nil || v == "" {
		ts.Fatalf("%s is empty", path)
	}
	return fmt.Sprint(v)
}

func random(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "random FILE SIZE")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	rand.Read(b) // never fails
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// halfUpload does what an interrupted upload leaves behind.
func halfUpload(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "half-upload FILE")
	b := []byte(ts.ReadFile(args[0]))
	c, err := client.New(client.Config{URL: ts.Getenv("WRIT_SERVER"), Token: ts.Getenv("WRIT_TOKEN"), CA: []byte(ts.ReadFile(ts.Getenv("WRIT_CA")))})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = c.Releases().Upload(ctx, bytes.NewReader(b), int64(len(b)), func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	})
	if err == nil {
		ts.Fatalf("the upload was not interrupted")
	}
}

func startServer(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "server DATA FLAG…")
	s := of(ts)
	if s.server != nil {
		ts.Fatalf("there is a server already")
	}
	name := strings.ReplaceAll(args[0], "/", "-")
	ready := ts.MkAbs(name + ".ready.json")
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	s.data, s.log = ts.MkAbs(args[0]), ts.MkAbs(name+".log")
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	// No context: it outlives this command, and end looks at how it ends.
	c := exec.Command("writ", append([]string{
		"serve", "--data", s.data, "--listen", "127.0.0.1:0", "--scrypt-log-n", "10", "--interval", "1s", "--ready-file", ready,
	}, args[1:]...)...)
	c.Dir, c.Stdout, c.Stderr = ts.Getenv("WORK"), log, log
	for _, k := range []string{"HOME", "PATH", "TMPDIR", "WRIT_PASSPHRASE", "GOCOVERDIR"} {
		c.Env = append(c.Env, k+"="+ts.Getenv(k))
	}
	ts.Check(c.Start())
	s.server = &running{cmd: c, done: make(chan struct{})}
	go s.server.wait()
	var r map[string]string
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(ready)
		if err == nil {
			ts.Check(json.Unmarshal(b, &r))
			break
		}
		if time.Now().After(end) || s.server.ended() {
			ts.Fatalf("the server does not start")
		}
	}
	ca := ts.MkAbs(name + ".ca.pem")
	ts.Check(os.WriteFile(ca, []byte(r["ca_pem"]), 0o600))
	ts.Setenv("WRIT_SERVER", r["url"])
	ts.Setenv("WRIT_CA", ca)
	ts.Setenv("FINGERPRINT", r["ca_fingerprint"])
	if r["token"] != "" {
		ts.Setenv("WRIT_TOKEN", r["token"])
		ts.Setenv("ADMIN", r["token"])
	}
}

func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, "stop-server")
	s := of(ts)
	if s.server == nil {
		ts.Fatalf("there is no server")
	}
	r := s.server
	s.server = nil
	ts.Check(r.stop())
}

// stop ends a server as Ctrl-C does and returns how it ended.
func (r *running) stop() error {
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil && !r.ended() {
		return fmt.Errorf("stopping the server: %w", err)
	}
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		return errors.Join(errors.New("the server does not stop"), r.cmd.Process.Kill())
	}
}
