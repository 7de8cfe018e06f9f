package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/verify"
)

// story has a campaign in which devices were confirmed, failed and refused,
// and returns its id.
func story(tb testing.TB, w *fwtest.World, n int) fw.CampaignID {
	tb.Helper()
	ctx := context.Background()
	ids := make([]fw.DeviceID, n)
	for i := range ids {
		ids[i] = fw.DeviceID(fmt.Sprintf("sn-%03d", i))
	}
	devices := w.Enrolled(ids...)
	rel := w.Publish("2.0.0", "raw", 2, bytes.Repeat([]byte("firmware"), 100))
	c, err := w.Campaigns.Propose(ctx, fw.Plan{
		Name: "test", Release: rel.ID, Cohort: `device.hardware == "gw-1"`, Attempts: 3, AuthorizationTTL: 3600, OnFailure: fw.FailurePause,
		Quorum: 2, RatePerMinute: 100_000,
		Stages: []fw.StagePlan{{Name: "canary", Count: 2, MinConfirmed: 1}, {Name: "all", Percent: 100, MinConfirmed: n - 4}},
	}, fwtest.Rita)
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range []fw.PersonID{fwtest.Ann, fwtest.Ben} {
		if _, err := w.Releases.ApproveCampaign(ctx, c.ID, release.Signature{Person: p, Armored: w.Sign(p, c.Plan)}); err != nil {
			tb.Fatal(err)
		}
	}
	if c, err = w.Campaigns.Start(ctx, c.ID, fwtest.Rita); err != nil {
		tb.Fatal(err)
	}
	if err := w.Devices.Move(ctx, ids[2], fw.DeviceQuarantined, "test", fwtest.Rita); err != nil {
		tb.Fatal(err)
	}
	img := w.Image(rel)
	for range 3 {
		// The second device has time for two attempts, and both fail.
		for i, d := range slices.Insert(slices.Clone(devices), 1, devices[1]) {
			r, err := d.CheckIn(ctx, bench.Nonce())
			if err != nil {
				tb.Fatal(err)
			}
			if r.Action != authz.ActionUpdate {
				continue
			}
			a, err := authz.Decode(r.Authorization)
			if err != nil {
				tb.Fatal(err)
			}
			event, reason := fw.EventConfirmed, fw.Reason("")
			if i == 1 || i == 2 {
				event, reason = fw.EventFailed, fw.FailHealth
			} else {
				d.Run(img.Version, img.Digest, img.SecurityCounter)
			}
			if err := d.Report(ctx, a, event, reason); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return c.ID
}

func export(tb testing.TB, w *fwtest.World, q ledger.BundleQuery) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := w.Ledger.Export(context.Background(), q, &b, nil); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func check(tb testing.TB, b []byte, o verify.Options) *verify.Report {
	tb.Helper()
	rep, err := verify.Verify(context.Background(), bytes.NewReader(b), o)
	if err != nil {
		tb.Fatal(err)
	}
	return rep
}

func TestAnHonestBundleVerifies(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := fwtest.NewWorld(t, url)
		id := story(t, w, 12)
		before := w.Ledger.Head()
		for name, q := range map[string]ledger.BundleQuery{
			"campaign": {Campaign: id}, "device": {Device: "sn-003"}, "quarantined device": {Device: "sn-002"},
		} {
			rep := check(t, export(t, w, q), verify.Options{TrustedLogKey: w.LogVerifierKey()})
			if rep.Verdict != verify.Verified || rep.Counts.Decisions == 0 || rep.Counts.Signatures == 0 {
				t.Errorf("%s: %s", name, rep.Text())
			}
		}
		rep := check(t, export(t, w, ledger.BundleQuery{Campaign: id, Since: before.Size}), verify.Options{TrustedCheckpoint: before.Checkpoint})
		if rep.Verdict != verify.Verified {
			t.Errorf("with an earlier checkpoint: %s", rep.Text())
		}
	})
}

// Somebody with the database and every key of the server changes what was
// recorded before it is exported. The bundle's bytes are then consistent; what
// gives the lie away is the record itself.
func TestALieInTheDatabaseIsFound(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	id := story(t, w, 8)
	for name, change := range map[string]string{
		"record changed":     `UPDATE record SET body = CAST(replace(CAST(body AS TEXT), 'sn-003', 'sn-004') AS BLOB) WHERE type = 'decision'`,
		"report changed":     `UPDATE record SET body = CAST(replace(CAST(body AS TEXT), '"says":"failed"', '"says":"confirmed"') AS BLOB) WHERE type = 'report'`,
		"commitment changed": `UPDATE record SET commitment = salt WHERE type = 'approval'`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.DB.Tx(t.Context(), func(tx *store.Tx) error {
				if err := store.ExecForTest(tx, `CREATE TABLE kept AS SELECT * FROM record`); err != nil {
					return err
				}
				return store.ExecForTest(tx, change)
			}); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			err := w.Ledger.Export(t.Context(), ledger.BundleQuery{Campaign: id}, &b, nil)
			if err == nil {
				rep, verr := verify.Verify(t.Context(), bytes.NewReader(b.Bytes()), verify.Options{})
				if verr == nil && rep.Verdict != verify.Failed {
					t.Errorf("verdict %s", rep.Text())
				}
			}
			if err := w.DB.Tx(context.Background(), func(tx *store.Tx) error {
				if err := store.ExecForTest(tx, `UPDATE record SET body = (SELECT body FROM kept k WHERE k.idx = record.idx), commitment = (SELECT commitment FROM kept k WHERE k.idx = record.idx) WHERE idx IN (SELECT idx FROM kept)`); err != nil {
					return err
				}
				return store.ExecForTest(tx, `DROP TABLE kept`)
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// repack changes the members of a bundle and packs it again; nil leaves a
// member out.
func repack(tb testing.TB, b []byte, change func(name string, data []byte) []byte) []byte {
	tb.Helper()
	names, data := openMembers(tb, b)
	var kept []string
	for _, n := range names {
		if data[n] = change(n, data[n]); data[n] != nil {
			kept = append(kept, n)
		}
	}
	return packMembers(tb, kept, data)
}

func TestAChangedBundleNeverVerifies(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	b := export(t, w, ledger.BundleQuery{Campaign: story(t, w, 8)})
	bad := func(t *testing.T, b []byte) {
		t.Helper()
		rep, err := verify.Verify(t.Context(), bytes.NewReader(b), verify.Options{TrustedLogKey: w.LogVerifierKey()})
		if err == nil && rep.Verdict == verify.Verified {
			t.Error("it verifies")
		}
	}
	t.Run("cut anywhere", func(t *testing.T) {
		for n := 0; n < len(b); n += 1 + len(b)/60 {
			bad(t, b[:n])
		}
	})
	t.Run("a bit flipped anywhere in the records", func(t *testing.T) {
		size := 0
		repack(t, b, func(name string, data []byte) []byte {
			if name == "records/00000000" {
				size = len(data)
			}
			return data
		})
		for at := 3; at < size; at += 1 + size/80 {
			bad(t, repack(t, b, func(name string, data []byte) []byte {
				if name == "records/00000000" {
					data[at] ^= 0x10
				}
				return data
			}))
		}
	})
	for _, member := range []string{verify.MemberManifest, verify.MemberTrust, verify.MemberCheckpoint, "records/00000000", "streams/00000000"} {
		t.Run("without "+member, func(t *testing.T) {
			bad(t, repack(t, b, func(name string, data []byte) []byte {
				if name == member {
					return nil
				}
				return data
			}))
		})
	}
	t.Run("a stream's end left out", func(t *testing.T) {
		bad(t, repack(t, b, func(name string, data []byte) []byte {
			if name != "streams/00000000" {
				return data
			}
			lines := bytes.SplitAfter(data, []byte("\n"))
			return bytes.Join(lines[1:], nil)
		}))
	})
	t.Run("another log's key trusted", func(t *testing.T) {
		other := fwtest.NewWorld(t, fwtest.SQLite(t))
		rep := check(t, b, verify.Options{TrustedLogKey: other.LogVerifierKey()})
		if rep.Verdict != verify.Failed {
			t.Errorf("verdict %s", rep.Verdict)
		}
	})
}

func TestTheCommandSaysSoByItsExitCode(t *testing.T) {
	w := fwtest.NewWorld(t, fwtest.SQLite(t))
	b := export(t, w, ledger.BundleQuery{Campaign: story(t, w, 6)})
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", b)
	cut := file("cut", b[:len(b)/2])
	info, err := w.Keystore.Public(server.RootKeyName)
	if err != nil {
		t.Fatal(err)
	}
	root := file("root.pem", []byte(info.PublicKey))
	key := file("key", []byte(w.LogVerifierKey()+"\n"))
	for _, c := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"--log-key", key, "--roster-root", root, good}, verify.ExitVerified, "VERIFIED"},
		{[]string{"-o", "json", good}, verify.ExitVerified, `"verdict": "verified"`},
		{[]string{cut}, verify.ExitFailed, "cut off"},
		{[]string{filepath.Join(dir, "none")}, verify.ExitIncomplete, "no such file"},
		{[]string{}, verify.ExitIncomplete, "writ-verify"},
		{[]string{"--help"}, verify.ExitVerified, "Exit codes"},
	} {
		var out bytes.Buffer
		if code := verify.Main(t.Context(), c.args, &out, &out); code != c.want || !strings.Contains(out.String(), c.text) {
			t.Errorf("writ-verify %v: exit %d, want %d with %q:\n%s", c.args, code, c.want, c.text, out.String())
		}
	}
}

func FuzzVerify(f *testing.F) {
	w := fwtest.NewWorld(f, fwtest.SQLite(f))
	b := export(f, w, ledger.BundleQuery{Campaign: story(f, w, 6)})
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		rep, err := verify.Verify(context.Background(), bytes.NewReader(data), verify.Options{TrustedLogKey: w.LogVerifierKey(), Workers: 1})
		if err == nil && rep.Verdict == verify.Verified && !bytes.Equal(data, b) {
			// Compression has many forms for the same content; the content
			// itself cannot be another one.
			if rep.Counts.Records == 0 {
				t.Error("something without records verifies")
			}
		}
	})
}

// BenchmarkVerify measures a campaign in which nearly every record stands for
// a signature to be checked (authorizations, reports, certificates), and one
// that is nearly all decisions without.
func BenchmarkVerify(b *testing.B) {
	w := fwtest.NewWorld(b, fwtest.SQLite(b))
	signed := export(b, w, ledger.BundleQuery{Campaign: story(b, w, 150)})
	for name, bundle := range map[string][]byte{"signed": signed, "unsigned": long(b, w, signed, 20_000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var records, signatures int64
			for b.Loop() {
				rep := check(b, bundle, verify.Options{})
				if rep.Verdict != verify.Verified {
					b.Fatal(rep.Text())
				}
				records, signatures = records+rep.Counts.Records, signatures+rep.Counts.Signatures
			}
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(signatures)/b.Elapsed().Seconds(), "signatures/s")
		})
	}
}
