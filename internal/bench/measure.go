package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/verify"
)

// closedLoop keeps the given number of devices busy for the duration.
func (r *rig) closedLoop(ctx context.Context, busy int, f func(ctx context.Context, i int) error) (*load, error) {
	return r.measure(func(l *load) error {
		end := time.Now().Add(r.o.Duration)
		busy = min(busy, len(r.devices))
		return each(busy, busy, func(w int) error {
			// Each worker has devices of its own, so that every connection is used.
			for i := w; time.Now().Before(end) && ctx.Err() == nil; i = (i + busy) % (len(r.devices) / busy * busy) {
				if err := l.timed(func() error { return f(ctx, i) }); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	})
}

func (r *rig) idle(ctx context.Context) (Result, error) {
	l, err := r.closedLoop(ctx, 64, func(ctx context.Context, i int) error {
		reply, err := r.devices[i].CheckIn(ctx, Nonce())
		if err == nil && reply.Action != authz.ActionNone {
			err = fmt.Errorf("an idle device was told to %s", reply.Action)
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	return l.result("idle check-in"), nil
}

// round starts a new campaign and has every active device check in once, and
// says how.
func (r *rig) round(ctx context.Context, l *load, drive func(n int, f func(int) error) error) error {
	return drive(len(r.devices), func(i int) error {
		var reply authz.CheckInReply
		err := l.timed(func() (err error) {
			reply, err = r.devices[i].CheckIn(ctx, Nonce())
			return err
		})
		if err != nil {
			return err
		}
		if reply.Action != authz.ActionUpdate {
			return fmt.Errorf("device %d was told %s (%v) and not authorized", i, reply.Action, reply.Refused)
		}
		r.auths[i], err = authz.Decode(reply.Authorization)
		return err
	})
}

// authorizations measures check-ins that end in an authorization, as fast as
// they go.
func (r *rig) authorizations(ctx context.Context) (Result, error) {
	total := new(load)
	for total.wall < r.o.Duration {
		if _, err := r.ask(command{Do: "campaign"}); err != nil {
			return Result{}, err
		}
		l, err := r.measure(func(l *load) error {
			return r.round(ctx, l, func(n int, f func(int) error) error { return each(n, 64, f) })
		})
		if err != nil {
			return Result{}, err
		}
		total.lat = append(total.lat, l.lat...)
		total.cpu, total.wall = total.cpu+l.cpu, total.wall+l.wall
	}
	res := total.result("authorization, closed loop")
	res.Note = "64 at a time"
	return res, nil
}

// pace is the open-loop rate of authorizations per second.
const pace = 1000

// paced measures the latency of authorizations that arrive at a fixed rate.
func (r *rig) paced(ctx context.Context) (Result, error) {
	total := new(load)
	for total.wall < r.o.Duration {
		if _, err := r.ask(command{Do: "campaign"}); err != nil {
			return Result{}, err
		}
		l, err := r.measure(func(l *load) error {
			return r.round(ctx, l, func(n int, f func(int) error) error { return openLoop(ctx, n, f) })
		})
		if err != nil {
			return Result{}, err
		}
		total.lat = append(total.lat, l.lat...)
		total.cpu, total.wall = total.cpu+l.cpu, total.wall+l.wall
	}
	res := total.result("authorization, paced")
	res.Note = fmt.Sprintf("open loop at %d/s", pace)
	return res, nil
}

// openLoop starts f at a fixed rate, however long each takes.
func openLoop(ctx context.Context, n int, f func(int) error) error {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	begin := time.Now()
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / pace)
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wg.Go(func() {
			if err := f(i); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// reports measures signed reports. They are signed beforehand, so that the
// load generator's own signatures do not compete for the CPUs.
func (r *rig) reports(ctx context.Context) (Result, error) {
	const each1 = 20
	signed := make([][][]byte, len(r.devices))
	if err := each(len(r.devices), runtime.NumCPU(), func(i int) error {
		for range each1 {
			b, err := r.devices[i].SignedReport(r.auths[i], fw.EventDelivered, "")
			if err != nil {
				return err
			}
			signed[i] = append(signed[i], b)
		}
		return nil
	}); err != nil {
		return Result{}, err
	}
	l, err := r.measure(func(l *load) error {
		return each(len(r.devices), 256, func(i int) error {
			for _, b := range signed[i] {
				if err := l.timed(func() error { return r.devices[i].SendReport(ctx, b) }); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return Result{}, err
	}
	res := l.result("signed report, durable")
	res.Note = "ES256, 256 at a time"
	return res, nil
}

func (r *rig) evidence(context.Context) (Result, error) {
	a, err := r.ask(command{Do: "append", N: 51200})
	if err != nil {
		return Result{}, err
	}
	return Result{
		What: "evidence append", Ops: a.Records, Rate: float64(a.Records) / a.Wall.Seconds(),
		CPU: float64(a.CPU.Microseconds()) / float64(a.Records), Note: "in process, 256 writers, fsync",
	}, nil
}

func (r *rig) memory(context.Context) (Result, error) {
	a, err := r.ask(command{Do: "memory"})
	if err != nil {
		return Result{}, err
	}
	return Result{What: "server memory", Memory: float64(a.RSS) / (1 << 20), Note: fmt.Sprintf("resident, after the above; %d devices known as idle, %d connections open", r.fleet, len(r.devices))}, nil
}

func (r *rig) verify(ctx context.Context, dir string) (Result, error) {
	path := filepath.Join(dir, "bench.writ-bundle")
	if _, err := r.ask(command{Do: "export", Path: path}); err != nil {
		return Result{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	before, begin := cpu(), time.Now()
	rep, err := verify.Verify(ctx, f, verify.Options{})
	if err != nil {
		return Result{}, err
	}
	wall := time.Since(begin)
	res := Result{
		What: "bundle verification", Ops: rep.Counts.Records, Rate: float64(rep.Counts.Records) / wall.Seconds(),
		CPU: float64((cpu() - before).Microseconds()) / float64(max(rep.Counts.Records, 1)), Note: "verdict: " + string(rep.Verdict) + "; CPU is the verifier's",
	}
	if rep.Verdict == verify.Failed {
		return res, fmt.Errorf("the bundle does not verify: %v", rep.Findings)
	}
	return res, nil
}

func print1(w io.Writer, r Result) {
	if r.What == "server memory" {
		fmt.Fprintf(w, "%7d devices  %-28s %9.0f MiB  %s\n", r.Fleet, r.What, r.Memory, r.Note)
		return
	}
	line := fmt.Sprintf("%7d devices  %-28s %9d ops  %9.0f/s  %7.1f µs CPU", r.Fleet, r.What, r.Ops, r.Rate, r.CPU)
	if r.P50 > 0 {
		line += fmt.Sprintf("  p50 %7.2f ms  p99 %7.2f ms", r.P50, r.P99)
	}
	fmt.Fprintln(w, line+"  "+r.Note)
}

// summarize prints what does not depend on how fast the machine is: the cost
// in the largest fleet over that in the smallest.
func summarize(w io.Writer, all []Result) {
	if len(all) == 0 {
		return
	}
	small, large := all[0].Fleet, all[len(all)-1].Fleet
	if small == large {
		return
	}
	fmt.Fprintf(w, "\nCPU per operation with %d devices over that with %d:\n", large, small)
	for _, a := range all {
		for _, b := range all {
			if a.Fleet == small && b.Fleet == large && a.What == b.What && a.CPU > 0 {
				fmt.Fprintf(w, "  %-28s %.2f\n", a.What, b.CPU/a.CPU)
			}
		}
	}
}
