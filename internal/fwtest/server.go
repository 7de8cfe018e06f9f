package fwtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
)

// Product is the product of a [World], and Hardware its only hardware.
const (
	Product  fw.ProductID  = "gateway"
	Hardware fw.HardwareID = "gw-1"
)

// The people of a [World]. Rita proposes, Ann and Ben approve.
const (
	Rita fw.PersonID = "rita"
	Ann  fw.PersonID = "ann"
	Ben  fw.PersonID = "ben"
)

// World is a real server in this process, listening on a free loopback port,
// with a product, people, and approvers with SSH keys of their own.
type World struct {
	*server.Server

	t       testing.TB
	Token   access.Secret // of the local administrator
	keys    map[fw.PersonID]ssh.Signer
	done    chan error
	stop    context.CancelFunc
	stopped bool
}

// Config is the configuration of a World on a database; change it before
// NewWorldConfig.
func Config(t testing.TB, databaseURL string) config.Config {
	t.Helper()
	return config.Config{
		Data: t.TempDir(), Database: databaseURL, Listen: "127.0.0.1:0", Name: "writ.test/log",
		Passphrase: []byte("test"), ScryptLogN: 4, Interval: time.Second,
	}
}

// NewWorld starts a World on a database.
func NewWorld(t testing.TB, databaseURL string) *World {
	t.Helper()
	return NewWorldConfig(t, Config(t, databaseURL))
}

// Reopen starts a World on the data folder of an earlier one, whose people,
// product and devices are there already.
func Reopen(t testing.TB, c config.Config) *World {
	t.Helper()
	return open(t, c)
}

func open(t testing.TB, c config.Config) *World {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("WRIT_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s, first, err := server.Open(t.Context(), c, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{Server: s, t: t, keys: make(map[fw.PersonID]ssh.Signer), done: make(chan error, 1)}
	if first != nil {
		w.Token = first.Secret
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() { w.done <- s.Run(ctx) }()
	t.Cleanup(w.Stop)
	return w
}

// NewWorldConfig starts a World.
func NewWorldConfig(t testing.TB, c config.Config) *World {
	t.Helper()
	w := open(t, c)
	ctx, s := t.Context(), w.Server
	var err error
	for _, p := range []fw.PersonID{Rita, Ann, Ben} {
		w.must(s.Access.CreatePerson(ctx, access.Local(), string(p), string(p)))
	}
	for _, p := range []fw.PersonID{Ann, Ben} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		w.must(err)
		w.keys[p], err = ssh.NewSignerFromKey(key)
		w.must(err)
		_, err = s.Approvers.AddApprover(ctx, p, string(ssh.MarshalAuthorizedKey(w.keys[p].PublicKey())), access.BootstrapPerson)
		w.must(err)
	}
	_, err = s.Releases.CreateProduct(ctx, release.Product{Product: Product, Name: "Gateway", Hardware: []fw.HardwareID{Hardware}, ImageKey: server.ImageKeyName, Quorum: 1}, Rita)
	w.must(err)
	return w
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Stop ends the server in order. The test's end does it too.
func (w *World) Stop() {
	if w.stopped {
		return
	}
	w.stopped = true
	w.stop()
	if err := errors.Join(<-w.done, w.Close()); err != nil {
		w.t.Error(err)
	}
}

// Roots is the pool that the server's certificate chains to.
func (w *World) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.Authority.CA())
	return pool
}

// Sign approves doc as person p.
func (w *World) Sign(p fw.PersonID, doc []byte) string {
	w.t.Helper()
	armored, err := approval.Sign(doc, w.keys[p])
	w.must(err)
	return string(armored)
}

// Upload puts bytes on file as Rita.
func (w *World) Upload(b []byte) fw.Digest {
	w.t.Helper()
	ctx := w.t.Context()
	d := fw.DigestOf(b)
	u, err := w.Releases.Uploads().Start(ctx, Rita, d, int64(len(b)))
	w.must(err)
	if !u.Done {
		_, err = w.Releases.Uploads().Write(ctx, Rita, u.ID, u.Offset, bytes.NewReader(b[u.Offset:]))
		w.must(err)
		_, err = w.Releases.Uploads().Finish(ctx, Rita, u.ID)
		w.must(err)
	}
	return d
}

// Publish proposes, approves and publishes a release of the given firmware.
func (w *World) Publish(version, format string, counter uint64, firmware []byte) store.Release {
	w.t.Helper()
	ctx := w.t.Context()
	r, err := w.Releases.Propose(ctx, release.Draft{
		Product: Product, Version: version, Type: fw.ReleaseFunctional, Hardware: []fw.HardwareID{Hardware},
		Components: []release.DraftComponent{{Name: fw.MainComponent, Format: format, Input: w.Upload(firmware), SecurityCounter: counter}},
	}, Rita)
	w.must(err)
	_, err = w.Releases.ApproveRelease(ctx, r.ID, release.Signature{Person: Ann, Armored: w.Sign(Ann, r.Manifest)})
	w.must(err)
	r, err = w.Releases.Publish(ctx, r.ID, Rita)
	w.must(err)
	return r
}

// Campaign proposes, approves and starts a campaign.
func (w *World) Campaign(plan fw.Plan) store.Campaign {
	w.t.Helper()
	ctx := w.t.Context()
	c, err := w.Campaigns.Propose(ctx, plan, Rita)
	w.must(err)
	_, err = w.Releases.ApproveCampaign(ctx, c.ID, release.Signature{Person: Ben, Armored: w.Sign(Ben, c.Plan)})
	w.must(err)
	c, err = w.Campaigns.Start(ctx, c.ID, Rita)
	w.must(err)
	return c
}

// Image returns the signed image of a published release's only component.
func (w *World) Image(r store.Release) fw.SignedImage {
	w.t.Helper()
	var p fw.Publication
	w.must(json.Unmarshal(r.Publication, &p))
	return p.Images[0]
}
