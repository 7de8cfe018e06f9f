package verify_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/tlog"
	"github.com/writ-project/writ/verify"
)

// attack is what an operator with the log key does to the record.
type attack struct {
	name string
	// forge changes the log, which is packed afterwards, and returns the record
	// that must be named; nil: none, it is about the bundle as a whole.
	forge func(f *forger) *entry
	want  string // what must be said about it
	exit  int
}

func p256(f *forger) *ecdsa.PrivateKey {
	f.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	return key
}

// resign signs a report again, with changes, by a key of the operator's.
func resign(f *forger, e *entry, change func(*authz.Report)) {
	f.tb.Helper()
	edit(f, e, func(d *docket.Report) {
		signed, err := authz.DecodeReport(d.Signed)
		f.must(err)
		change(&signed.Report)
		d.Signed, err = authz.SignReport(signed.Report, p256(f))
		f.must(err)
	})
}

// reclaim changes what an authorization says, and the decision's digest of it.
func reclaim(f *forger, e *entry, change func(*authz.Claims)) {
	f.tb.Helper()
	change(e.claims)
	edit(f, e, func(d *docket.Decision) { d.Claims = authz.CoreDigest(*e.claims) })
}

const (
	allowed = `"decision":{"allow":true`
	denied  = `"decision":{"allow":false`
)

var attacks = []attack{
	{"nothing is changed", func(*forger) *entry { return nil }, "", verify.ExitVerified},

	// Approvals.
	{"an approval signed by a key that is on no roster", func(f *forger) *entry {
		e := f.find(evidence.TypeApproval, 0, `"subject_type":"campaign"`)
		edit(f, e, func(d *evidence.Approval) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			f.must(err)
			s, err := ssh.NewSignerFromKey(key)
			f.must(err)
			armored, err := approval.Sign(d.Document, s)
			f.must(err)
			d.Signature, d.Fingerprint = string(armored), ssh.FingerprintSHA256(s.PublicKey())
		})
		return e
	}, "is not one of this person's keys", verify.ExitFailed},
	{"an approval moved onto an edited plan", func(f *forger) *entry {
		plan := f.find(evidence.TypeCampaignProposed, 0)
		var doc []byte
		edit(f, plan, func(d *evidence.Proposed) {
			d.Document = []byte(strings.Replace(string(d.Document), `"attempts":3`, `"attempts":9`, 1))
			doc = d.Document
		})
		for n := range 2 {
			edit(f, f.find(evidence.TypeApproval, n, `"subject_type":"campaign"`), func(d *evidence.Approval) { d.Document, d.Subject = doc, fw.DigestOf(doc) })
		}
		return f.find(evidence.TypeApproval, 0, `"subject_type":"campaign"`)
	}, "is not valid: the signature by key", verify.ExitFailed},
	{"the proposer approves", func(f *forger) *entry {
		e := f.find(evidence.TypeApproval, 0, `"subject_type":"campaign"`)
		edit(f, e, func(d *evidence.Approval) { d.Person = fwtest.Rita })
		return e
	}, "the proposer cannot approve", verify.ExitFailed},
	{"one approver counts twice", func(f *forger) *entry {
		a, b := f.find(evidence.TypeApproval, 0, `"subject_type":"campaign"`), f.find(evidence.TypeApproval, 1, `"subject_type":"campaign"`)
		a.Data = b.Data
		e := f.find(evidence.TypeCampaignEvent, 0, `"kind":"started"`)
		edit(f, e, func(d *docket.CampaignEvent) { d.Approvals.Counted[0] = d.Approvals.Counted[1] })
		return e
	}, "was started without approval", verify.ExitFailed},
	{"a start with fewer approvals than the plan's quorum", func(f *forger) *entry {
		e := f.find(evidence.TypeCampaignEvent, 0, `"kind":"started"`)
		edit(f, e, func(d *docket.CampaignEvent) {
			d.Approvals.Need, d.Approvals.Counted = 1, d.Approvals.Counted[:1]
		})
		return e
	}, "fewer approvals than are needed", verify.ExitFailed},

	// Decisions.
	{"a refusal turned into an allowance", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, denied, `"sn-002"`)
		other := f.find(evidence.TypeDecision, 0, allowed)
		claims := *other.claims
		e.claims, e.withAuth = &claims, true
		edit(f, e, func(d *docket.Decision) {
			claims.ID, claims.Device, claims.Update, claims.IssuedAt, claims.NotBefore, claims.Expires = "aut-forged", d.Facts.Device.ID, d.Update, d.Facts.Now, d.Facts.Now, d.Facts.Now+3600
			d.Decision.Allow, d.Decision.Reasons = true, nil
			for i := range d.Decision.Checks {
				d.Decision.Checks[i].OK = true
			}
			d.To, d.Authorization, d.Claims = fw.UpdateAuthorized, claims.ID, authz.CoreDigest(claims)
			d.Event = &rollout.Event{Kind: rollout.EventUpdateMoved, Stage: d.Facts.Stage.Index, To: fw.UpdateAuthorized, NewMember: true}
		})
		return e
	}, "the decision comes out differently", verify.ExitFailed},
	{"a decision that was told of fewer devices in the stage", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 4, allowed)
		edit(f, e, func(d *docket.Decision) { d.Facts.Stage.Members-- })
		return e
	}, "it was told that stage 1 is", verify.ExitFailed},
	{"a decision that was told of fewer open updates", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 3, allowed)
		edit(f, e, func(d *docket.Decision) { d.Facts.Campaign.Open += 5 })
		return e
	}, "open updates, and by the records", verify.ExitFailed},
	{"a decision that was told of fewer authorizations in the last minute", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 3, allowed)
		edit(f, e, func(d *docket.Decision) { d.Facts.Campaign.GrantedLastMinute-- })
		return e
	}, "authorizations in the last minute, and by the records there were", verify.ExitFailed},
	{"a decision about a quarantined device that was told it is active", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, denied, `"sn-002"`)
		edit(f, e, func(d *docket.Decision) { d.Facts.Device.State = fw.DeviceActive })
		return e
	}, "it was told that device sn-002 is active, and by the records it was quarantined", verify.ExitFailed},

	// The rollout.
	{"a stage transition that the rules would not make", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"event":{`)
		edit(f, e, func(d *docket.Report) {
			d.Transitions = append(d.Transitions, rollout.Transition{Kind: rollout.TransitionStage, Stage: 1, From: "waiting", To: "passed", Reason: rollout.ReasonMinimum})
		})
		return e
	}, "its event leads to", verify.ExitFailed},
	{"a stage transition that is not recorded", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"transitions":[`)
		edit(f, e, func(d *docket.Report) { d.Transitions = nil })
		return e
	}, "its event leads to", verify.ExitFailed},
	{"a failure recorded as confirmed", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"says":"failed"`)
		edit(f, e, func(d *docket.Report) {
			d.Says, d.Reason, d.To, d.Event.To = fw.EventConfirmed, "", fw.UpdateConfirmed, fw.UpdateConfirmed
		})
		return e
	}, "says something else than the signed words", verify.ExitFailed},
	{"an authorization said to have run out before it had", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"says":"failed"`)
		var m docket.Moved
		edit(f, e, func(d *docket.Report) {
			m = docket.Moved{Campaign: d.Campaign, Update: d.Update, Device: d.Device, From: d.From, To: fw.UpdateFailed, Reason: fw.FailExpired, Event: d.Event, Transitions: d.Transitions}
		})
		e.Type, e.Data = evidence.TypeUpdateMoved, []byte("{}")
		edit(f, e, func(d *docket.Moved) { *d = m })
		return e
	}, "had not run out", verify.ExitFailed},
	{"a failure passed off as a withdrawal by a pause that was not", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"says":"failed"`)
		var m docket.Moved
		edit(f, e, func(d *docket.Report) {
			m = docket.Moved{Campaign: d.Campaign, Update: d.Update, Device: d.Device, From: d.From, To: fw.UpdatePaused, Reason: fw.WithdrawPaused, Event: d.Event}
		})
		e.Type, e.Data = evidence.TypeUpdateMoved, []byte("{}")
		edit(f, e, func(d *docket.Moved) { *d = m; d.Event.To = fw.UpdatePaused })
		return e
	}, "from authorized to paused", verify.ExitFailed},

	// Reports.
	{"a report signed by another device's key", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0)
		resign(f, e, func(*authz.Report) {})
		return e
	}, "the report is not signed by the device's key", verify.ExitFailed},
	{"a report with words put into the device's mouth", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"says":"failed"`)
		resign(f, e, func(r *authz.Report) { r.Detail = "all is well" })
		return e
	}, "the report is not signed by the device's key", verify.ExitFailed},
	{"a report before the authorization it is about", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"event":{`)
		f.before(e, f.find(evidence.TypeDecision, 0, allowed))
		return e
	}, "by the records it was", verify.ExitFailed},

	// Authorizations.
	{"an authorization signed by a key that is not the log's", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		e.authKey = p256(f)
		return e
	}, "which is not an authorization key of this log", verify.ExitFailed},
	{"an authorization that is valid for longer than the plan says", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		reclaim(f, e, func(c *authz.Claims) { c.Expires += 86400 })
		return e
	}, "is valid at other times", verify.ExitFailed},
	{"an authorization that had expired when it was given", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		reclaim(f, e, func(c *authz.Claims) {
			c.IssuedAt, c.NotBefore, c.Expires = c.IssuedAt-7200, c.NotBefore-7200, c.Expires-7200
		})
		return e
	}, "is valid at other times", verify.ExitFailed},
	{"an authorization of other bytes", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		reclaim(f, e, func(c *authz.Claims) { c.Components[0].Digest = fw.DigestOf([]byte("evil")) })
		return e
	}, "allows other images", verify.ExitFailed},
	{"an authorization with other claims than the decision recorded", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		e.claims.Components[0].Digest = fw.DigestOf([]byte("evil"))
		return e
	}, "has other claims than the decision recorded", verify.ExitFailed},
	{"an authorization bound to another device's key", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		reclaim(f, e, func(c *authz.Claims) { c.Thumbprint = fw.DigestOf([]byte("mine")) })
		return e
	}, "is bound to another key", verify.ExitFailed},
	{"a sequence number given twice", func(f *forger) *entry {
		first := f.find(evidence.TypeDecision, 0, allowed, `"sn-001"`)
		e := f.find(evidence.TypeDecision, 1, allowed, `"sn-001"`)
		reclaim(f, e, func(c *authz.Claims) { c.Sequence = first.claims.Sequence })
		return e
	}, "its authorization has sequence number", verify.ExitFailed},
	{"an authorization signed on a refusal", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, denied)
		e.claims, e.withAuth = f.find(evidence.TypeDecision, 0, allowed).claims, true
		return e
	}, "no decision that allows one", verify.ExitFailed},
	{"an authorization that is not shown", func(f *forger) *entry {
		e := f.find(evidence.TypeDecision, 0, allowed)
		e.withAuth = false
		return e
	}, "the authorization that was signed on it is not in the bundle", verify.ExitIncomplete},

	// The order of records.
	{"a record left out in the middle of a stream", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"sn-001"`)
		e.hidden = true
		return nextOf(f, e)
	}, "of its records are missing before record", verify.ExitFailed},
	{"the last record of a stream left out", func(f *forger) *entry {
		var last, before *entry
		for _, e := range f.entries {
			if len(e.Streams) > 0 && e.Streams[0].Stream == "device/sn-003" {
				last, before = e, last
			}
		}
		last.hidden = true
		return before
	}, "its last 1 records are missing", verify.ExitFailed},
	{"two records in the other order", func(f *forger) *entry {
		a := f.find(evidence.TypeDecision, 0, allowed, `"sn-001"`)
		b := f.find(evidence.TypeDecision, 1, allowed, `"sn-001"`)
		f.before(b, a)
		return b
	}, "it was told that stage 1 is running with 1 of 7 devices, and by the records", verify.ExitFailed},
	{"a record erased without a record that says why", func(f *forger) *entry {
		e := f.find(evidence.TypeReport, 0, `"says":"failed"`)
		e.erased = true
		return e
	}, "is erased and no record says on what ground", verify.ExitFailed},
}

// nextOf returns the record after e in its first stream.
func nextOf(f *forger, e *entry) *entry {
	for _, n := range f.entries[f.place(e)+1:] {
		for _, l := range n.Streams {
			if l.Stream == e.Streams[0].Stream {
				return n
			}
		}
	}
	f.tb.Fatal("no record comes after it")
	return nil
}

// The operator owns the log key and every key of the server, and writes the
// whole log anew so that all bytes agree. What gives it away is what it cannot
// sign and what the rules say.
func TestAnOperatorWhoRewritesTheLogIsFoundOut(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	bundle := export(t, w, ledger.BundleQuery{Campaign: story(t, w, 8)})
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			f := newForger(t, w, bundle)
			e := a.forge(f)
			code, rep := verdict(t, f.pack())
			if code != a.exit {
				t.Fatalf("exit %d, want %d\n%s", code, a.exit, rep.Text())
			}
			if e == nil {
				return
			}
			for _, n := range rep.Findings {
				if n.Index == e.Index && strings.Contains(n.What, a.want) {
					return
				}
			}
			t.Errorf("nothing says of record %d that %q:\n%s", e.Index, a.want, rep.Text())
		})
	}
}

func TestAForkOfTheLogIsFoundOut(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	f := newForger(t, w, export(t, w, ledger.BundleQuery{Campaign: story(t, w, 6)}))
	f.pack()
	size := f.size - 3
	for name, c := range map[string]struct {
		old  []verify.OldCheckpoint
		args []string
		want string
	}{
		"two checkpoints of one size in the bundle": {
			old:  []verify.OldCheckpoint{{Size: size, Note: string(f.checkpoint(size, tlog.Hash{1})), Path: [][]byte{}}},
			want: "is not a prefix of the bundle's log",
		},
		"an earlier checkpoint of another tree": {
			args: []string{"--checkpoint", inFile(t, f.checkpoint(size, tlog.Hash{1}))},
			want: "has another root than the checkpoint of that size",
		},
		"a checkpoint of the same size and another tree": {
			args: []string{"--checkpoint", inFile(t, f.checkpoint(f.size, tlog.Hash{1}))},
			want: "it was forked",
		},
		"a checkpoint of more records than the log has": {
			args: []string{"--checkpoint", inFile(t, f.checkpoint(f.size+1, tlog.Hash{1}))},
			want: "the log was cut short",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.checkpoints = c.old
			code, rep := verdict(t, f.pack(), c.args...)
			if code != verify.ExitFailed || !strings.Contains(rep.Text(), c.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, verify.ExitFailed, c.want, rep.Text())
			}
		})
	}
}
