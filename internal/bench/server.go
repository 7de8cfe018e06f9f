package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/operator"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/internal/update"
)

// command is what the load generator asks of the server process: to prepare
// something, or to say what it used. Nothing measured goes this way.
type command struct {
	Do     string `json:"do"` // register, remember, campaign, append, export, cpu, memory
	N      int    `json:"n,omitempty"`
	From   int    `json:"from,omitempty"`
	Tokens bool   `json:"tokens,omitempty"`
	Path   string `json:"path,omitempty"`
}

// answer is the answer to a command, one JSON line.
type answer struct {
	Error    string        `json:"error,omitempty"`
	URL      string        `json:"url,omitempty"`
	CA       string        `json:"ca,omitempty"` // PEM
	Tokens   []string      `json:"tokens,omitempty"`
	Campaign fw.CampaignID `json:"campaign,omitempty"`
	CPU      time.Duration `json:"cpu,omitempty"`
	Wall     time.Duration `json:"wall,omitempty"`
	RSS      int64         `json:"rss,omitempty"` // bytes
	Records  int64         `json:"records,omitempty"`
}

// The fleet of the benchmark.
const (
	product  fw.ProductID  = "bench"
	hardware fw.HardwareID = "bench-1"
)

func deviceID(i int) fw.DeviceID { return fw.DeviceID(fmt.Sprintf("bench-%07d", i)) }

// ServerMain is the server process: a real server on a data folder, and
// commands on standard input.
func ServerMain(ctx context.Context, data, database string, in io.Reader, out io.Writer) error {
	if path := os.Getenv(profileEnv); path != "" {
		stop, err := profile(path)
		if err != nil {
			return err
		}
		defer stop()
	}
	s, _, err := server.Open(ctx, config.Config{
		Data: data, Database: database, Listen: "127.0.0.1:0", Name: "writ.bench/log",
		Passphrase: []byte("bench"), ScryptLogN: 10, Interval: time.Minute,
	}, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // Run has ended it in order
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b := &child{s: s, enc: json.NewEncoder(out)}
	if err := b.prepare(ctx); err != nil {
		stop()
		return err
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Authority.CA().Raw}))
	if err := b.enc.Encode(answer{URL: s.URL(), CA: ca}); err != nil {
		stop()
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var c command
		var a answer
		err := json.Unmarshal(lines.Bytes(), &c)
		if err == nil {
			a, err = b.run(ctx, c)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := b.enc.Encode(a); err != nil {
			break
		}
	}
	stop()
	return <-done
}

// profileEnv names a file for a CPU profile of the server process.
const profileEnv = "WRIT_BENCH_PROFILE"

func profile(path string) (func(), error) {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a lost profile shows when it is read
	}, nil
}

type child struct {
	s    *server.Server
	ops  *operator.Crew
	enc  *json.Encoder
	rel  int
	last fw.CampaignID
}

func (b *child) prepare(ctx context.Context) error {
	var err error
	if b.ops, err = operator.NewCrew(ctx, b.s); err != nil {
		return err
	}
	return b.ops.Product(ctx, product, "Bench", hardware)
}

func (b *child) run(ctx context.Context, c command) (answer, error) {
	switch c.Do {
	case "register":
		return b.register(ctx, c)
	case "campaign":
		return b.campaign(ctx)
	case "append":
		return b.append(ctx, c.N)
	case "export":
		return b.export(ctx, c.Path)
	case "remember":
		return answer{}, b.remember(ctx, c.From, c.N)
	case "cpu":
		return answer{CPU: cpu()}, nil
	case "memory":
		runtime.GC()
		return answer{RSS: rss()}, nil
	}
	return answer{}, fmt.Errorf("unknown command %q", c.Do)
}

func (b *child) register(ctx context.Context, c command) (answer, error) {
	var a answer
	for i := c.From; i < c.From+c.N; i += enroll.MaxRegister {
		n := min(enroll.MaxRegister, c.From+c.N-i)
		list, ids := make([]enroll.NewDevice, n), make([]fw.DeviceID, n)
		for k := range list {
			ids[k] = deviceID(i + k)
			list[k] = enroll.NewDevice{ID: ids[k], Hardware: hardware}
		}
		if _, err := b.s.Devices.Register(ctx, product, list, operator.Engineer); err != nil {
			return a, err
		}
		if !c.Tokens {
			continue
		}
		tokens, err := b.s.Enrolment.EnrolmentTokens(ctx, ids, time.Hour, operator.Engineer)
		if err != nil {
			return a, err
		}
		for _, t := range tokens {
			a.Tokens = append(a.Tokens, t.Secret.Reveal())
		}
	}
	return a, nil
}

// remember makes registered devices known as idle: each has a certificate on
// file and checks in once, as over a connection. Only the TLS handshakes and
// the certificates' signatures are left out, which a fleet of this size would
// spend minutes on.
func (b *child) remember(ctx context.Context, from, n int) error {
	body, err := authz.EncodeCheckIn(authz.CheckIn{Nonce: Nonce(), Facts: authz.Facts{
		Hardware: hardware, TrustVersion: 1,
		Components: []authz.ReportedComponent{{Name: fw.MainComponent, Version: "1.0.0", Digest: fw.DigestOf([]byte("factory"))}},
	}})
	if err != nil {
		return err
	}
	const page = 500
	for i := from; i < from+n; i += page {
		k := min(page, from+n-i)
		now := time.Now().Unix()
		if err := b.s.DB.Tx(ctx, func(tx *store.Tx) error {
			for j := i; j < i+k; j++ {
				digest := fw.DigestOf([]byte(deviceID(j)))
				if err := store.SetDeviceState(tx, deviceID(j), fw.DeviceClaimed, fw.DeviceActive, ""); err != nil {
					return err
				}
				if err := store.InsertCertificate(tx, store.Certificate{
					Serial: digest.Hex()[:32], Device: deviceID(j), State: fw.CertActive, Fingerprint: digest[:], Thumbprint: digest[:],
					NotBefore: now, NotAfter: now + 90*24*3600, DER: make([]byte, 500), CreatedAt: now,
				}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if err := each(k, k, func(j int) error {
			_, err := b.s.Updates.CheckIn(ctx, update.Peer{Fingerprint: fw.DigestOf([]byte(deviceID(i + j)))}, body)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// campaign publishes a new release and starts a campaign for every device,
// after ending the one before.
func (b *child) campaign(ctx context.Context) (answer, error) {
	if b.last != "" {
		if _, err := b.s.Campaigns.AbortKeep(ctx, b.last, operator.Engineer, "next round"); err != nil {
			return answer{}, err
		}
	}
	b.rel++
	var noise [16]byte
	rand.Read(noise[:]) // never fails
	rel, err := b.ops.Publish(ctx, operator.Firmware{
		Product: product, Version: "2.0." + strconv.Itoa(b.rel), Format: "raw", Counter: 1, Type: fw.ReleaseFunctional, Image: []byte(hex.EncodeToString(noise[:])),
	})
	if err != nil {
		return answer{}, err
	}
	c, err := b.ops.Campaign(ctx, fw.Plan{
		Name: "bench", Release: rel.ID, Cohort: "true", Stages: []fw.StagePlan{{Name: "all", Percent: 100}},
		Attempts: 5, AuthorizationTTL: 3600, OnFailure: fw.FailurePause, Quorum: 1,
	})
	b.last = c.ID
	return answer{Campaign: c.ID}, err
}

// append measures the evidence log alone: one record per write, many writers.
func (b *child) append(ctx context.Context, n int) (answer, error) {
	const writers = 256
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	before, start := cpu(), time.Now()
	for w := range writers {
		wg.Go(func() {
			id := deviceID(w)
			for range n / writers {
				err := b.s.DB.Tx(ctx, func(tx *store.Tx) error {
					_, err := b.s.Ledger.Append(tx, ledger.Entry{
						Type: evidence.TypeDeviceAttributes, Actor: "bench", Streams: []evidence.StreamID{evidence.DeviceStream(id)},
						Data: evidence.Attributes{Device: id, Attributes: map[string]string{"bench": "true"}},
					})
					return err
				})
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return answer{CPU: cpu() - before, Wall: time.Since(start), Records: int64(n / writers * writers)}, failed
}

func (b *child) export(ctx context.Context, path string) (answer, error) {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	start := time.Now()
	err = b.s.Ledger.Export(ctx, ledger.BundleQuery{Campaign: b.last}, f, nil)
	return answer{Wall: time.Since(start)}, err
}

// cpu is the CPU time of this process so far, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the resident memory of this process in bytes.
func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
