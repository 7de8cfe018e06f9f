package bench

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/authz"
)

// Options say what to measure.
type Options struct {
	Fleets   []int         // registered devices, one run each
	Active   int           // devices that enrol and talk; at most the fleet
	Duration time.Duration // of each closed-loop measurement
	Database string        // empty: the embedded default
	Out      io.Writer
}

// Result is one measured line.
type Result struct {
	Fleet  int     `json:"fleet"`
	What   string  `json:"what"`
	Ops    int64   `json:"ops"`
	Rate   float64 `json:"per_second"`
	CPU    float64 `json:"server_cpu_us,omitempty"` // per operation
	P50    float64 `json:"p50_ms,omitempty"`
	P99    float64 `json:"p99_ms,omitempty"`
	Memory float64 `json:"memory_mib,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// Run measures and prints. It returns the results in order.
func Run(ctx context.Context, o Options) ([]Result, error) {
	fmt.Fprintln(o.Out, machine(ctx))
	var all []Result
	for _, n := range o.Fleets {
		r, err := fleet(ctx, o, n)
		if err != nil {
			return all, fmt.Errorf("fleet of %d: %w", n, err)
		}
		all = append(all, r...)
	}
	summarize(o.Out, all)
	return all, nil
}

// yardstick is how long one P-256 verification takes at this moment, in
// microseconds. Shared machines differ by a factor of two from one minute to
// the next, and so do the figures.
func yardstick() (float64, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, fmt.Errorf("making a key: %w", err)
	}
	digest := sha256.Sum256([]byte("yardstick"))
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	const times = 500
	begin := time.Now()
	for range times {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) {
			return 0, errors.New("a good signature does not verify")
		}
	}
	return float64(time.Since(begin).Nanoseconds()) / times / 1000, nil
}

// machine names what the numbers were made on.
func machine(ctx context.Context) string {
	commit, cpu := "unknown commit", runtime.GOARCH
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output(); commit == "unknown commit" && err == nil {
		commit = strings.TrimSpace(string(out))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimLeft(name, "\t: ")
				break
			}
		}
	}
	return fmt.Sprintf("writ bench: commit %s, %s, %d CPUs, %s %s/%s; the load generator shares the CPUs with the server", commit, cpu, runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// rig is a server process and its active devices.
type rig struct {
	o       Options
	fleet   int
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	devices []*Device
	auths   []*authz.Authorization // newest, by device
}

func (r *rig) ask(c command) (answer, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return answer{}, err
	}
	if _, err := r.in.Write(append(b, '\n')); err != nil {
		return answer{}, fmt.Errorf("talking to the server process: %w", err)
	}
	return r.hear()
}

func (r *rig) hear() (answer, error) {
	var a answer
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("the server process ended: %w", err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("reading %q: %w", line, err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func fleet(ctx context.Context, o Options, n int) (_ []Result, err error) {
	dir, err := os.MkdirTemp("", "writ-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, a, err := start(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	r.fleet = n
	speed, err := yardstick()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "# one P-256 verification takes %.0f µs here and now: compare figures by it\n", speed)
	defer func() {
		for _, d := range r.devices {
			d.Close()
		}
		err = errors.Join(err, r.in.Close(), r.cmd.Wait())
	}()
	if err := r.enrol(ctx, n, a); err != nil {
		return nil, err
	}
	var out []Result
	for _, measure := range []func(context.Context) (Result, error){r.idle, r.authorizations, r.paced, r.reports, r.evidence, r.memory, func(context.Context) (Result, error) { return r.verify(ctx, dir) }} {
		res, err := measure(ctx)
		if err != nil {
			return out, err
		}
		res.Fleet = n
		print1(o.Out, res)
		out = append(out, res)
	}
	return out, nil
}

func start(ctx context.Context, o Options, dir string) (*rig, answer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, answer{}, fmt.Errorf("finding this program: %w", err)
	}
	r := &rig{o: o}
	r.cmd = exec.CommandContext(ctx, self, "bench", "server", "--data", filepath.Join(dir, "data"), "--database", o.Database)
	r.cmd.Stderr = os.Stderr
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, answer{}, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, answer{}, err
	}
	r.out = bufio.NewReaderSize(out, 1<<20)
	if err := r.cmd.Start(); err != nil {
		return nil, answer{}, fmt.Errorf("starting the server: %w", err)
	}
	a, err := r.hear()
	return r, a, err
}

// enrol registers the fleet and enrols the active devices over HTTPS.
func (r *rig) enrol(ctx context.Context, n int, a answer) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.CA))
	active := min(r.o.Active, n)
	begin := time.Now()
	toks, err := r.ask(command{Do: "register", N: active, Tokens: true})
	if err != nil {
		return err
	}
	if n > active {
		if _, err := r.ask(command{Do: "register", From: active, N: n - active}); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.o.Out, "# registered %d devices in %s\n", n, time.Since(begin).Round(10*time.Millisecond))
	begin = time.Now()
	if _, err := r.ask(command{Do: "remember", From: active, N: n - active}); err != nil {
		return err
	}
	fmt.Fprintf(r.o.Out, "# %d of them checked in once, in process, and are known as idle, in %s\n", n-active, time.Since(begin).Round(10*time.Millisecond))
	r.devices, r.auths = make([]*Device, active), make([]*authz.Authorization, active)
	begin = time.Now()
	if err := each(active, 16, func(i int) error {
		d, err := NewDevice(deviceID(i), hardware, a.URL, roots)
		if err != nil {
			return err
		}
		r.devices[i] = d
		// Strangers are rate-limited, and enrolling devices are strangers.
		return retry(ctx, func() error { return d.Enrol(ctx, toks.Tokens[i]) })
	}); err != nil {
		return err
	}
	fmt.Fprintf(r.o.Out, "# enrolled %d of them over HTTPS in %s (the rate limit on strangers included)\n", active, time.Since(begin).Round(10*time.Millisecond))
	// The first check-in confirms the certificate and stores the facts.
	return each(active, 16, func(i int) error {
		_, err := r.devices[i].CheckIn(ctx, Nonce())
		return err
	})
}

// retry repeats f while the server asks for patience.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		e, ok := errors.AsType[*StatusError](err)
		if !ok || e.Status != 429 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// each runs f for 0 to n-1, some at a time, and returns the first error.
func each(n, at int, f func(int) error) error {
	var next atomic.Int64
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// load is the outcome of a measured load.
type load struct {
	mu   sync.Mutex
	lat  []time.Duration
	cpu  time.Duration
	wall time.Duration
}

func (l *load) result(what string) Result {
	slices.Sort(l.lat)
	n := len(l.lat)
	res := Result{What: what, Ops: int64(n)}
	if n == 0 {
		return res
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	res.Rate, res.CPU = float64(n)/l.wall.Seconds(), float64(l.cpu.Microseconds())/float64(n)
	res.P50, res.P99 = ms(l.lat[n/2]), ms(l.lat[n*99/100])
	return res
}

// measure runs f with the server's CPU time taken before and after.
func (r *rig) measure(f func(l *load) error) (*load, error) {
	before, err := r.ask(command{Do: "cpu"})
	if err != nil {
		return nil, err
	}
	l := new(load)
	begin := time.Now()
	if err := f(l); err != nil {
		return nil, err
	}
	l.wall = time.Since(begin)
	after, err := r.ask(command{Do: "cpu"})
	if err != nil {
		return nil, err
	}
	l.cpu = after.CPU - before.CPU
	return l, nil
}

// timed runs f and keeps its latency.
func (l *load) timed(f func() error) error {
	begin := time.Now()
	err := f()
	d := time.Since(begin)
	l.mu.Lock()
	l.lat = append(l.lat, d)
	l.mu.Unlock()
	return err
}
