package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
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

	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/cli"
)

// asWrit makes the test binary be the command.
const asWrit = "WRIT_TEST_BE_WRIT"

func TestMain(m *testing.M) {
	if os.Getenv(asWrit) == "1" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// TestScripts runs the journeys in testdata/*.txtar on the real command, each
// with a folder and a server of its own. A script is lines of
//
//	[ssh-keygen] COMMAND    only where ssh-keygen is; WRIT_REQUIRE_TOOLS=1 makes its absence a failure
//	exec PROGRAM ARG…       run a program; it must exit with 0. Writ is one of them
//	exits CODE PROGRAM ARG… run a program; it must exit with CODE
//	stdout|stderr RE        what the last program wrote must match, "! stdout RE" must not
//	stdin FILE              for the next program
//	keep FILE               put the last stdout in FILE
//	cmp FILE FILE           they must be the same
//	env NAME=VALUE          for what follows; in the words of a line, $NAME is replaced
//	field NAME MEMBER       put a member of the last stdout's JSON in $NAME; of an array's first element
//	random FILE SIZE        make a file of random bytes
//	half-upload FILE        upload the first part of a file and break off
//	server DATA             run writ serve on a free port; sets WRIT_SERVER, WRIT_CA, FINGERPRINT, WRIT_TOKEN and ADMIN
//	stop-server             end it as Ctrl-C does; it must exit with 0
//	skip WHY                end the script
//
// and, after "-- NAME --", files. Words in single quotes may hold spaces and
// are not expanded.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, path)
		})
	}
}

type script struct {
	t              *testing.T
	dir, line      string
	env            map[string]string
	stdin          string
	stdout, stderr bytes.Buffer
	server         *exec.Cmd
	serverLog      bytes.Buffer
}

func runScript(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, dir: t.TempDir()}
	s.env = map[string]string{
		asWrit: "1", "HOME": s.dir, "XDG_CONFIG_HOME": filepath.Join(s.dir, "config"), "PATH": os.Getenv("PATH"),
		"WRIT_PASSPHRASE": "correct horse battery staple", "WRIT": exe,
	}
	text, files, _ := strings.Cut("\n"+string(b), "\n-- ")
	s.write(files)
	t.Cleanup(func() {
		if s.server != nil {
			s.stopServer()
		}
	})
	for n, line := range strings.Split(strings.TrimPrefix(text, "\n"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s.line = fmt.Sprintf("%s:%d: %s", filepath.Base(path), n+1, line)
		if !s.do(s.words(line)) {
			return
		}
	}
}

// write writes the files of a script.
func (s *script) write(files string) {
	if files == "" {
		return
	}
	for f := range strings.SplitSeq(files, "\n-- ") {
		name, body, _ := strings.Cut(f, " --\n")
		path := filepath.Join(s.dir, filepath.FromSlash(name))
		if err := os.WriteFile(path, []byte(strings.TrimSuffix(body, "\n")+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	log := s.serverLog.String()
	s.t.Fatalf("%s\n%s\nstdout:\n%s\nstderr:\n%s\nserver:\n%s", s.line, fmt.Sprintf(format, args...), s.stdout.String(), s.stderr.String(), log[max(0, len(log)-1500):])
}

func (s *script) check(err error) {
	s.t.Helper()
	if err != nil {
		s.fatalf("%v", err)
	}
}

func (s *script) words(line string) []string {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '\'' {
			w, rest, _ := strings.Cut(line[1:], "'")
			out, line = append(out, w), rest
			continue
		}
		w, rest, _ := strings.Cut(line, " ")
		out, line = append(out, os.Expand(w, func(k string) string { return s.env[k] })), rest
	}
	return out
}

// do runs one line, and reports whether to go on.
func (s *script) do(w []string) bool {
	s.t.Helper()
	if w[0] == "[ssh-keygen]" || w[0] == "[!ssh-keygen]" {
		_, err := exec.LookPath("ssh-keygen")
		if err != nil && os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			s.fatalf("ssh-keygen is required: %v", err)
		}
		if (err == nil) != (w[0] == "[ssh-keygen]") {
			return true
		}
		w = w[1:]
	}
	want := w[0] != "!"
	if !want {
		w = w[1:]
	}
	switch w[0] {
	case "exec":
		s.exits("0", w[1:])
	case "exits":
		s.exits(w[1], w[2:])
	case "stdout", "stderr":
		text := s.stdout.String()
		if w[0] == "stderr" {
			text = s.stderr.String()
		}
		if regexp.MustCompile("(?m)"+w[1]).MatchString(text) != want {
			s.fatalf("match is %t", !want)
		}
	case "stdin":
		s.stdin = s.read(w[1])
	case "keep":
		s.check(os.WriteFile(s.path(w[1]), s.stdout.Bytes(), 0o600))
	case "cmp":
		if (s.read(w[1]) == s.read(w[2])) != want {
			s.fatalf("same is %t", !want)
		}
	case "env":
		k, v, _ := strings.Cut(w[1], "=")
		s.env[k] = v
	case "field":
		s.field(w[1], w[2])
	case "random":
		var n int
		_, err := fmt.Sscan(w[2], &n)
		s.check(err)
		b := make([]byte, n)
		rand.Read(b)
		s.check(os.WriteFile(s.path(w[1]), b, 0o600))
	case "half-upload":
		s.halfUpload(w[1])
	case "server":
		s.startServer(w[1])
	case "stop-server":
		s.stopServer()
	case "skip":
		s.t.Skip(strings.Join(w[1:], " "))
	default:
		s.fatalf("no such command")
	}
	return true
}

func (s *script) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

func (s *script) read(name string) string {
	switch name {
	case "stdout":
		return s.stdout.String()
	case "stderr":
		return s.stderr.String()
	}
	b, err := os.ReadFile(s.path(name))
	s.check(err)
	return string(b)
}

func (s *script) command(ctx context.Context, args []string) *exec.Cmd {
	if args[0] == "writ" {
		args = append([]string{s.env["WRIT"]}, args[1:]...)
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir = s.dir
	for k, v := range s.env {
		c.Env = append(c.Env, k+"="+v)
	}
	return c
}

func (s *script) exits(code string, args []string) {
	s.t.Helper()
	s.stdout.Reset()
	s.stderr.Reset()
	c := s.command(s.t.Context(), args)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(s.stdin), &s.stdout, &s.stderr
	s.stdin = ""
	err := c.Run()
	if c.ProcessState == nil {
		s.fatalf("%v", err)
	}
	if got := strconv.Itoa(c.ProcessState.ExitCode()); got != code {
		s.fatalf("exit code %s, want %s", got, code)
	}
}

func (s *script) field(name, member string) {
	s.t.Helper()
	var v any
	s.check(json.Unmarshal(s.stdout.Bytes(), &v))
	for m := range strings.SplitSeq(member, ".") {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		object, ok := v.(map[string]any)
		if !ok {
			s.fatalf("no object with %s", m)
		}
		v = object[m]
	}
	if v == nil || v == "" {
		s.fatalf("%s is empty", member)
	}
	s.env[name] = fmt.Sprint(v)
}

// halfUpload does what an interrupted upload leaves behind.
func (s *script) halfUpload(name string) {
	s.t.Helper()
	b := []byte(s.read(name))
	ca := s.read(s.env["WRIT_CA"])
	c, err := client.New(client.Config{URL: s.env["WRIT_SERVER"], Token: s.env["WRIT_TOKEN"], CA: []byte(ca)})
	s.check(err)
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	_, err = c.Releases().Upload(ctx, bytes.NewReader(b), int64(len(b)), func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	})
	if err == nil {
		s.fatalf("the upload was not interrupted")
	}
}

// patience is how long a server may take to start or stop on a busy machine.
const patience = time.Minute

func (s *script) startServer(data string) {
	s.t.Helper()
	ready := s.path(data + ".ready.json")
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		s.fatalf("%v", err)
	}
	s.serverLog.Reset()
	// It outlives the test's context: stopServer looks at how it ends.
	c := s.command(context.WithoutCancel(s.t.Context()), []string{"writ", "serve", "--data", data, "--listen", "127.0.0.1:0", "--scrypt-log-n", "10", "--interval", "1s", "--ready-file", ready})
	c.Stdout, c.Stderr = &s.serverLog, &s.serverLog
	s.check(c.Start())
	var r map[string]string
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(ready)
		if err == nil {
			s.check(json.Unmarshal(b, &r))
			break
		}
		if time.Now().After(end) {
			_ = c.Process.Kill()
			_ = c.Wait()
			s.fatalf("the server does not start")
		}
	}
	s.server = c
	s.check(os.WriteFile(s.path(data+".ca.pem"), []byte(r["ca_pem"]), 0o600))
	s.env["WRIT_SERVER"], s.env["WRIT_CA"], s.env["FINGERPRINT"] = r["url"], s.path(data+".ca.pem"), r["ca_fingerprint"]
	if r["token"] != "" {
		s.env["WRIT_TOKEN"], s.env["ADMIN"] = r["token"], r["token"]
	}
}

func (s *script) stopServer() {
	s.t.Helper()
	c := s.server
	s.server = nil
	if err := c.Process.Signal(os.Interrupt); err != nil {
		s.t.Errorf("stopping the server: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			s.t.Errorf("the server ended: %v\n%s", err, s.serverLog.String())
		}
	case <-time.After(patience):
		_ = c.Process.Kill()
		s.t.Errorf("the server does not stop\n%s", s.serverLog.String())
	}
}
