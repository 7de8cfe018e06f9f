package agent

import (
	"crypto"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// Each attack comes from whoever controls the server or the way to it, but not
// the keys the device trusts, unless it says so. Each must end in a report,
// signed by the device, with exactly this reason, and leave what runs as it was.
var attacks = []struct {
	name  string
	mount func(p *peer)
	want  fw.Reason
}{
	{"no authorization at all is malformed", func(p *peer) { p.message = func([]byte) []byte { return []byte("?") } }, fw.RejectMalformed},
	{"one bit of the signature flipped", func(p *peer) {
		p.message = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	}, fw.RejectSignature},
	{"authorization cut short", func(p *peer) { p.message = func(b []byte) []byte { return b[:len(b)-1] } }, fw.RejectMalformed},
	{"authorization signed with the image key", func(p *peer) {
		p.message = func([]byte) []byte { return p.resign(p.image, nil) }
	}, fw.RejectUnknownKey},
	{"another device's authorization", func(p *peer) { p.claims = func(c *authz.Claims) { c.Device = "SN-0002" } }, fw.RejectSubject},
	{"another key's authorization", func(p *peer) { p.claims = func(c *authz.Claims) { c.Thumbprint = fw.DigestOf(nil) } }, fw.RejectKeyBinding},
	{"an answer to another check-in", func(p *peer) { p.claims = func(c *authz.Claims) { c.Nonce = authz.Nonce{1} } }, fw.RejectNonce},
	{"an expired authorization", func(p *peer) {
		p.claims = func(c *authz.Claims) {
			c.NotBefore, c.IssuedAt, c.Expires = c.NotBefore-3600, c.IssuedAt-3600, c.IssuedAt-1
		}
	}, fw.RejectExpired},
	{"an authorization of the future", func(p *peer) {
		p.claims = func(c *authz.Claims) {
			c.NotBefore, c.IssuedAt, c.Expires = c.NotBefore+3600, c.IssuedAt+3600, c.Expires+3600
		}
	}, fw.RejectNotYetValid},
	{"no receipt", func(p *peer) {
		p.message = func([]byte) []byte { return must(authz.Sign(must(authz.Encode(p.said())), p.authz)) }
	}, fw.RejectReceipt},
	{"receipt of another log", func(p *peer) {
		p.message = func([]byte) []byte {
			return p.resign(p.authz, func() []byte { return p.receipt(p.edge.Size()-1, newKey()) })
		}
	}, fw.RejectReceipt},
	{"receipt of another record", func(p *peer) {
		p.message = func([]byte) []byte {
			return p.resign(p.authz, func() []byte { return p.receipt(p.edge.Size()-2, p.log) })
		}
	}, fw.RejectReceipt},
	{"decision index of another record", func(p *peer) { p.claims = func(c *authz.Claims) { c.Decision-- } }, fw.RejectReceipt},
	{"authorization for other hardware", func(p *peer) { p.claims = func(c *authz.Claims) { c.Hardware = "gw-3" } }, fw.RejectHardware},
	{"authorization for another starting point", func(p *peer) {
		p.claims = func(c *authz.Claims) { c.Components[0].From = fw.DigestOf(nil) }
	}, fw.RejectFromDigest},
	{"an older version", func(p *peer) { p.target = p.firmware("0.9.0", 3, randomBytes(900)) }, fw.RejectDowngrade},
	{"a lower security counter", func(p *peer) { p.target = p.firmware("1.1.0", 2, randomBytes(900)) }, fw.RejectSecurityCounter},

	{"one bit of the image flipped on the way", func(p *peer) {
		p.serve = func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			b := append([]byte{}, content...)
			b[len(b)/2] ^= 1
			_, _ = w.Write(b)
			return true
		}
	}, fw.RejectImageDigest},
	{"an image that is said to be longer", func(p *peer) {
		p.serve = func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			_, _ = w.Write(append(append([]byte{}, content...), 0))
			return true
		}
	}, fw.RejectImageSize},
	{"an image that does not end", func(p *peer) {
		p.serve = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(content); err != nil {
					break
				}
				_ = http.NewResponseController(w).Flush()
			}
			return true
		}
	}, fw.RejectImageSize},
	{"an image that is said to be shorter", func(p *peer) {
		p.serve = func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			_, _ = w.Write(content[1:])
			return true
		}
	}, fw.RejectImageSize},
	{"another signature beside the image", func(p *peer) {
		p.set(func() { p.artifacts[p.target.Envelope] = []byte("{}") })
	}, fw.RejectImageSignature},
	{"authorized bytes that no image key signed", func(p *peer) {
		p.target = p.signed(newKey(), "1.1.0", 4, randomBytes(900), "gw-2")
	}, fw.RejectImageSignature},
	{"authorized as a version that was not signed", func(p *peer) {
		p.claims = func(c *authz.Claims) { c.Components[0].Version = "9.9.9" }
	}, fw.RejectImageVersion},
	{"authorized with a counter that was not signed", func(p *peer) {
		p.claims = func(c *authz.Claims) { c.Components[0].SecurityCounter = 9 }
	}, fw.RejectSecurityCounter},
	{"image for other hardware", func(p *peer) {
		p.target = p.signed(p.image, "1.1.0", 4, randomBytes(900), "gw-3")
	}, fw.RejectHardware},
	{"authorized in a format it is not in", func(p *peer) {
		p.claims = func(c *authz.Claims) { c.Components[0].Format, c.Components[0].Envelope = "mcuboot", fw.Digest{} }
	}, fw.RejectImageFormat},
	{"authorized in a format nobody knows", func(p *peer) {
		p.claims = func(c *authz.Claims) { c.Components[0].Format = "zip" }
	}, fw.RejectImageFormat},
}

// said is the claims of the authorization that is being made.
func (p *peer) said() authz.Claims { return p.open }

// resign signs the claims again with key and attaches another receipt.
func (p *peer) resign(key crypto.Signer, receipt func() []byte) []byte {
	msg := must(authz.Sign(must(authz.Encode(p.said())), key))
	if receipt == nil {
		receipt = func() []byte { return p.receipt(p.edge.Size()-1, p.log) }
	}
	return must(authz.AttachReceipt(msg, receipt()))
}

func TestAttacksAreRejectedWithTheirReason(t *testing.T) {
	for _, c := range attacks {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t)
			dir, factory := p.enrol(nil)
			p.target = p.firmware("1.1.0", 4, randomBytes(1000))
			c.mount(p)
			p.await(dir, "rejection", p.reported(fw.EventRejected))
			var r authz.Report
			p.set(func() {
				for _, r = range p.reports {
					if r.Event == fw.EventRejected {
						break
					}
				}
			})
			if r.Reason != c.want {
				t.Errorf("reason %s (%s), want %s", r.Reason, r.Detail, c.want)
			}
			if len(r.Components) != 1 || r.Components[0].Digest != factory.Digest {
				t.Errorf("the report says that %+v runs", r.Components)
			}
			runs(t, dir, slotA, factory)
			if exists(filepath.Join(dir, slotB.dir(), metaFile)) {
				t.Error("the other slot says it has a verified image")
			}
		})
	}
}

// A recording of a good update is played again.
func TestReplayedAuthorizationIsRejected(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(1000))
	p.target = v2
	stop := start(t, dir)
	defer stop()
	p.until("confirmation", p.reported(fw.EventConfirmed))
	p.set(func() {
		recorded := p.sent
		p.message = func([]byte) []byte { return recorded }
		p.target = p.firmwareLocked()
	})
	p.until("rejection", p.reported(fw.EventRejected))
	if r := p.last(); r.Reason != fw.RejectSequence {
		t.Errorf("reason %s, want %s", r.Reason, fw.RejectSequence)
	}
	runs(t, dir, slotB, v2)
}

// The floor rises only with a confirmation, and then holds against a rollback
// that everybody has authorized.
func TestRollbackGoesBackButNotBelowTheFloor(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(1000))
	p.target = v2
	stop := start(t, dir)
	defer stop()
	p.until("confirmation", p.reported(fw.EventConfirmed))
	back := p.firmware("1.0.5", 4, randomBytes(1000))
	p.set(func() { p.claims = func(c *authz.Claims) { c.Rollback = true }; p.target = back })
	p.until("confirmation of the rollback", func() bool { return len(p.events()) == 6 })
	if r := p.last(); r.Event != fw.EventConfirmed || r.Components[0].Digest != back.Digest {
		t.Errorf("report %+v", r)
	}
	low := p.firmware("1.0.1", 3, randomBytes(1000))
	p.set(func() { p.target = low })
	p.until("rejection", p.reported(fw.EventRejected))
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.reports[6]; r.Reason != fw.RejectSecurityCounter {
		t.Errorf("reason %s, want %s", r.Reason, fw.RejectSecurityCounter)
	}
	runs(t, dir, slotA, back)
}

// What was verified is changed in its slot before the switch, as a broken disk
// or an install hook that is not what it should be might.
func TestSlotChangedAfterVerificationIsNotActivated(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(func(c *Config) { c.Hooks.Install = shell(`printf X | dd of="$1" conv=notrunc 2>/dev/null`) })
	p.target = p.firmware("1.1.0", 4, randomBytes(1000))
	p.await(dir, "rejection", p.reported(fw.EventRejected))
	if r := p.reports[1]; r.Reason != fw.RejectImageDigest {
		t.Errorf("reason %s, want %s", r.Reason, fw.RejectImageDigest)
	}
	runs(t, dir, slotA, factory)
}

// A server that is somebody else's, with a certificate of another CA, is told
// nothing.
func TestImpostorServerIsNotSpokenTo(t *testing.T) {
	p, impostor := newPeer(t), newPeer(t)
	dir, factory := p.enrol(nil)
	c := must(LoadConfig(dir))
	c.Server = impostor.srv.URL
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	stop := start(t, dir)
	time.Sleep(100 * time.Millisecond)
	stop()
	if len(impostor.checkIns) > 0 {
		t.Error("the device checked in with an impostor")
	}
	runs(t, dir, slotA, factory)
}

// An update larger than the disk fails with a report, and frees what it took.
func TestFullDiskIsReported(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(nil)
	small := filepath.Join(dir, slotB.dir())
	if err := os.MkdirAll(small, 0o700); err != nil {
		t.Fatal(err)
	}
	unmount, err := mountSmall(small)
	if err != nil {
		t.Skipf("needs a file system that can be full: %v", err)
	}
	defer unmount()
	p.target = p.firmware("1.1.0", 4, randomBytes(1<<20))
	p.await(dir, "failure", p.reported(fw.EventFailed))
	if r := p.reports[0]; r.Reason != fw.FailNoSpace {
		t.Errorf("reason %s (%s), want %s", r.Reason, r.Detail, fw.FailNoSpace)
	}
	if list := must(os.ReadDir(small)); len(list) > 1 {
		t.Errorf("left behind: %v", list)
	}
	runs(t, dir, slotA, factory)
}
