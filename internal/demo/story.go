package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/operator"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
)

// Options say how the demo runs.
type Options struct {
	Image   string // path of the user's firmware; empty: one is made up
	Devices int
	Keep    bool
	Dir     string // empty: temporary
	Out     io.Writer
}

// The maker of the demo.
const (
	product  fw.ProductID  = "thermostat"
	hardware fw.HardwareID = "ts-2"
)

// story is one run.
type story struct {
	o     Options
	dir   string
	begin time.Time

	server *server.Server
	token  access.Secret
	crew   *operator.Crew
	fleet  *fleet
	failed int // expectations that did not come true
}

// minDevices leaves enough for a canary, the quarantined and the faulty one.
const minDevices = 5

// Run tells the story.
func Run(ctx context.Context, o Options) (err error) {
	if o.Devices < minDevices || o.Devices > 200 {
		return fw.Errorf(fw.Invalid, "the demo needs %d to 200 devices, not %d", minDevices, o.Devices)
	}
	s := &story{o: o, begin: time.Now(), dir: o.Dir}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "writ-demo-"); err != nil {
			return fw.Wrap(fw.Unavailable, err, "cannot make a temporary folder")
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot make the folder %s", s.dir)
	}
	firmware, err := loadFirmware(o.Image)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		stop()
		err = errors.Join(err, <-done, s.server.Close())
	}()
	defer func() { s.fleet.stop() }()
	if err := s.tell(ctx, firmware); err != nil {
		return err
	}
	if s.failed > 0 {
		return fw.Errorf(fw.Internal, "%d of the expected outcomes did not happen: see the lines marked ✗", s.failed)
	}
	s.say("Everything came out as told, in %s.", time.Since(s.begin).Round(100*time.Millisecond))
	if o.Keep {
		return s.keep(ctx)
	}
	return nil
}

func (s *story) open(ctx context.Context) (<-chan error, error) {
	s.chapter("A server on this machine, with everything embedded")
	logs, err := os.Create(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot write to %s", s.dir)
	}
	var first *access.Issued
	s.server, first, err = server.Open(ctx, config.Config{
		Data: filepath.Join(s.dir, "server"), Listen: "127.0.0.1:0", Name: "writ.demo/log",
		Passphrase: []byte("demo"), ScryptLogN: 12, Interval: time.Second,
	}, slog.New(slog.NewJSONHandler(logs, nil)))
	if err != nil {
		return nil, errors.Join(err, logs.Close())
	}
	if first != nil {
		s.token = first.Secret
	}
	done := make(chan error, 1)
	go func() {
		err := s.server.Run(ctx)
		done <- errors.Join(err, logs.Close())
	}()
	s.fleet = newFleet(s.server, filepath.Join(s.dir, "devices"))
	s.say("listening on %s; the keys live on THIS host, encrypted: fine for a demo, not for a fleet", s.server.URL())
	s.crew, err = operator.NewCrew(ctx, s.server)
	if err != nil {
		return done, err
	}
	s.say("Erin proposes releases; Alice and Oscar approve with SSH keys on a signed roster")
	return done, s.crew.Product(ctx, product, "Thermostat", hardware)
}

// chapter begins a part of the story.
func (s *story) chapter(title string) { s.print("\n%5.1fs  %s\n", title) }

// say tells something.
func (s *story) say(format string, args ...any) {
	s.print("%5.1fs    %s\n", fmt.Sprintf(format, args...))
}

func (s *story) print(format, text string) {
	// A demo nobody can read is not worth failing for.
	_, _ = fmt.Fprintf(s.o.Out, format, time.Since(s.begin).Seconds(), text)
}

// expect tells what was observed, with a tick if it is as it should be.
func (s *story) expect(ok bool, format string, args ...any) {
	mark := "✓"
	if !ok {
		mark = "✗"
		s.failed++
	}
	s.print("%5.1fs  "+mark+" %s\n", fmt.Sprintf(format, args...))
}

// await polls f until it is true, and reports whether it became so in time.
// Progress, when it changes, is printed.
func (s *story) await(ctx context.Context, limit time.Duration, f func() (bool, string, error)) (bool, error) {
	last := ""
	for end := time.Now().Add(limit); ; {
		ok, progress, err := f()
		if err != nil || ok {
			return ok, err
		}
		if progress != "" && progress != last {
			s.say("… %s", progress)
			last = progress
		}
		if time.Now().After(end) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// campaign returns a campaign's row.
func (s *story) campaign(ctx context.Context, id fw.CampaignID) (store.Campaign, error) {
	return store.CampaignByID(s.server.DB.Snapshot(ctx), id)
}

// updates counts a campaign's updates by state.
func (s *story) updates(ctx context.Context, id fw.CampaignID) (map[fw.UpdateState]int, []store.Update, error) {
	list, err := store.UpdatesOfCampaign(s.server.DB.Snapshot(ctx), id, "", 1000)
	n := make(map[fw.UpdateState]int)
	for _, u := range list {
		n[u.State]++
	}
	return n, list, err
}

func (s *story) keep(ctx context.Context) error {
	ca := filepath.Join(s.dir, "ca.pem")
	s.chapter("The server stays up until Ctrl-C")
	s.say("export WRIT_SERVER=%s WRIT_CA=%s WRIT_TOKEN=%s", s.server.URL(), ca, s.token.Reveal())
	s.say("then for example: writ campaign list; writ device list; writ device timeline %s", s.fleet.devices[0].id)
	<-ctx.Done()
	return nil
}
