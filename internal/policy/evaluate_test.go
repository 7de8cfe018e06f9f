package policy

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/fw"
)

const testNow = 1_795_000_000 // 2026-11-18, a Wednesday, 10:26 UTC

func condition(t testing.TB, expr string) *Condition {
	t.Helper()
	c, err := CompileCondition(expr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// allowed returns terms and facts under which a device is authorized.
func allowed(t testing.TB) (*Terms, Facts) {
	t.Helper()
	pub := fw.DigestOf([]byte("publication"))
	terms := &Terms{
		Plan: &fw.Plan{
			Campaign: "cmp_a", Product: "gw", Release: "rel_b", Publication: pub, Attempts: 3, BackoffSeconds: 60,
			Stages: []fw.StagePlan{{Name: "canary", Count: 2}, {Name: "rest", Percent: 100}}, Quorum: 2,
			Rollback: &fw.RollbackTo{Release: "rel_a", Publication: fw.DigestOf([]byte("old publication"))},
		},
		Manifest: &fw.Manifest{Release: "rel_b", Product: "gw", Version: "1.3.0", ReleaseType: fw.ReleaseSecurity, Hardware: []fw.HardwareID{"gw-5", "gw-7"}, FromVersion: ">=1.0.0, <2.0.0"},
		Publication: &fw.Publication{Release: "rel_b", Product: "gw", Version: "1.3.0", Images: []fw.SignedImage{
			{Component: fw.MainComponent, Version: "1.3.0", SecurityCounter: 7, Digest: fw.DigestOf([]byte("new"))},
		}},
		Cohort: condition(t, "true"),
	}
	facts := Facts{
		Now: testNow,
		Device: DeviceFacts{
			ID: "d-1", Product: "gw", Hardware: "gw-7", State: fw.DeviceActive,
			Cert:       CertFacts{Known: true, State: fw.CertActive, Serial: "01", NotBefore: testNow - 100, NotAfter: testNow + 100},
			Components: []ComponentFacts{{Name: fw.MainComponent, Version: "1.2.0", Digest: fw.DigestOf([]byte("old")), SecurityCounter: 7, Assurance: fw.AssuranceDeviceSigned}},
			Attributes: map[string]string{"region": "eu"},
		},
		Campaign: CampaignFacts{ID: "cmp_a", State: fw.CampaignRunning, Publication: pub, ReleaseState: fw.ReleasePublished, Approvals: 2},
		Stage:    StageFacts{State: fw.StageRunning, Limit: 2},
	}
	return terms, facts
}

// rollback turns an authorization into one for the way back.
func rollback(t *Terms, f *Facts) {
	t.Manifest.Release, t.Publication.Release = "rel_a", "rel_a"
	t.Manifest.Version, t.Publication.Version, t.Publication.Images[0].Version = "1.1.0", "1.1.0", "1.1.0"
	f.Campaign.Publication = t.Plan.Rollback.Publication
	f.Campaign.State = fw.CampaignRollingBack
	f.Update = UpdateFacts{State: fw.UpdateConfirmed, Member: true, Attempts: 1, LastAttempt: testNow - 1, Rollback: true}
	f.Stage.State = fw.StageFailed
}

func TestEvaluateAllowsWhenEverythingHolds(t *testing.T) {
	terms, facts := allowed(t)
	d := Evaluate(terms, facts)
	if !d.Allow || len(d.Reasons) != 0 || d.Deferred {
		t.Fatalf("not allowed: %+v", d)
	}
	if RefusalKey(d) != "" {
		t.Error("an allowing decision has a refusal key")
	}
}

func TestEvaluate(t *testing.T) {
	main := func(f *Facts) *ComponentFacts { return &f.Device.Components[0] }
	tests := []struct {
		name   string
		change func(*Terms, *Facts)
		want   []fw.Reason // none: allowed
	}{
		{"a device without an id is unknown", func(_ *Terms, f *Facts) { f.Device.ID = "" }, []fw.Reason{fw.ReasonIdentityUnknown}},
		{"a certificate not on file", func(_ *Terms, f *Facts) { f.Device.Cert = CertFacts{} }, []fw.Reason{fw.ReasonCertificateUnknown}},
		{"a held certificate", func(_ *Terms, f *Facts) { f.Device.Cert.State = fw.CertHeld }, []fw.Reason{fw.ReasonCertificateHeld}},
		{"a revoked certificate", func(_ *Terms, f *Facts) { f.Device.Cert.State = fw.CertRevoked }, []fw.Reason{fw.ReasonCertificateRevoked}},
		{"a superseded certificate", func(_ *Terms, f *Facts) { f.Device.Cert.State = fw.CertSuperseded }, []fw.Reason{fw.ReasonCertificateRevoked}},
		{"a certificate presented for the first time", func(_ *Terms, f *Facts) { f.Device.Cert.State = fw.CertIssued }, nil},
		{"the last second of a certificate", func(_ *Terms, f *Facts) { f.Device.Cert.NotAfter = testNow }, nil},
		{"an expired certificate", func(_ *Terms, f *Facts) { f.Device.Cert.NotAfter = testNow - 1 }, []fw.Reason{fw.ReasonCertificateExpired}},
		{"a certificate from the future", func(_ *Terms, f *Facts) { f.Device.Cert.NotBefore = testNow + 1 }, []fw.Reason{fw.ReasonCertificateNotYet}},

		{"a claimed device", func(_ *Terms, f *Facts) { f.Device.State = fw.DeviceClaimed }, []fw.Reason{fw.ReasonLifecycle}},
		{"a suspended device", func(_ *Terms, f *Facts) { f.Device.State = fw.DeviceSuspended }, []fw.Reason{fw.ReasonLifecycle}},
		{"a revoked device, even for remediation", func(t *Terms, f *Facts) { f.Device.State, t.Plan.Remediation = fw.DeviceRevoked, true }, []fw.Reason{fw.ReasonLifecycle}},
		{"a state nobody knows", func(_ *Terms, f *Facts) { f.Device.State = "trusted" }, []fw.Reason{fw.ReasonLifecycle}},
		{"a quarantined device", func(_ *Terms, f *Facts) { f.Device.State = fw.DeviceQuarantined }, []fw.Reason{fw.ReasonQuarantined}},
		{"a quarantined device gets a remediation", func(t *Terms, f *Facts) { f.Device.State, t.Plan.Remediation = fw.DeviceQuarantined, true }, nil},

		{"another product", func(_ *Terms, f *Facts) { f.Device.Product = "other" }, []fw.Reason{fw.ReasonProductMismatch}},
		{"other hardware", func(_ *Terms, f *Facts) { f.Device.Hardware = "gw-6" }, []fw.Reason{fw.ReasonHardwareMismatch}},
		{"no such component", func(_ *Terms, f *Facts) { main(f).Name = "modem" }, []fw.Reason{fw.ReasonComponentUnknown}},

		{"an unreadable version is not 0.0.0", func(_ *Terms, f *Facts) { main(f).Version = "v1.2" }, []fw.Reason{fw.ReasonVersionUnreadable}},
		{"no version is not 0.0.0", func(t *Terms, f *Facts) { main(f).Version, t.Manifest.FromVersion = "", "" }, []fw.Reason{fw.ReasonVersionUnreadable}},
		{"a version the release does not install over", func(t *Terms, _ *Facts) { t.Manifest.FromVersion = ">=1.2.1" }, []fw.Reason{fw.ReasonFromVersion}},
		{"a constraint that cannot be read", func(t *Terms, _ *Facts) { t.Manifest.FromVersion = "new" }, []fw.Reason{fw.ReasonVersionUnreadable}},
		{"a prerelease is ordered like any version", func(_ *Terms, f *Facts) { main(f).Version = "1.3.0-rc.1" }, nil},
		{"the release is installed", func(_ *Terms, f *Facts) { main(f).Digest = fw.DigestOf([]byte("new")) }, []fw.Reason{fw.ReasonAlreadyInstalled}},
		{"the same version rebuilt", func(_ *Terms, f *Facts) { main(f).Version = "1.3.0" }, nil},
		{"a downgrade", func(_ *Terms, f *Facts) { main(f).Version = "1.3.1" }, []fw.Reason{fw.ReasonDowngrade}},
		{"a downgrade by build number", func(_ *Terms, f *Facts) { main(f).Version = "1.3.0+1" }, []fw.Reason{fw.ReasonDowngrade}},
		{"a security counter below the device's", func(_ *Terms, f *Facts) { main(f).SecurityCounter = 8 }, []fw.Reason{fw.ReasonSecurityCounter}},
		{"a suspect device", func(_ *Terms, f *Facts) { f.Device.Integrity = IntegritySuspect }, []fw.Reason{fw.ReasonIntegrity}},
		{"an integrity word nobody knows", func(_ *Terms, f *Facts) { f.Device.Integrity = "great" }, []fw.Reason{fw.ReasonIntegrity}},

		{"a withdrawn release", func(_ *Terms, f *Facts) { f.Campaign.ReleaseState = fw.ReleaseWithdrawn }, []fw.Reason{fw.ReasonReleaseWithdrawn}},
		{"a release not yet published", func(_ *Terms, f *Facts) { f.Campaign.ReleaseState = fw.ReleaseApproved }, []fw.Reason{fw.ReasonReleaseNotPublished}},
		{"a publication the plan does not name", func(_ *Terms, f *Facts) { f.Campaign.Publication = fw.DigestOf([]byte("x")) }, []fw.Reason{fw.ReasonReleaseNotPublished}},
		{"a paused campaign", func(_ *Terms, f *Facts) { f.Campaign.State = fw.CampaignPaused }, []fw.Reason{fw.ReasonCampaignNotRunning}},
		{"one approval of two", func(_ *Terms, f *Facts) { f.Campaign.Approvals = 1 }, []fw.Reason{fw.ReasonApprovalsMissing}},
		{"a quorum of none is one", func(t *Terms, f *Facts) { t.Plan.Quorum, f.Campaign.Approvals = 0, 0 }, []fw.Reason{fw.ReasonApprovalsMissing}},

		{"not in the cohort", func(tm *Terms, _ *Facts) { tm.Cohort = condition(t, "device.attributes.region == 'us'") }, []fw.Reason{fw.ReasonNotInCohort}},
		{"cannot tell whether in the cohort", func(tm *Terms, _ *Facts) { tm.Cohort = condition(t, "device.attributes.site != 'x'") }, []fw.Reason{fw.ReasonNotInCohort}},
		{"not in the stage's cohort", func(tm *Terms, _ *Facts) { tm.StageCohort = condition(t, "device.id.startsWith('lab-')") }, []fw.Reason{fw.ReasonNotInCohort}},
		{"a waiting stage", func(_ *Terms, f *Facts) { f.Stage.State = fw.StageWaiting }, []fw.Reason{fw.ReasonStageNotOpen}},
		{"a soaking stage takes nobody new", func(_ *Terms, f *Facts) { f.Stage.State = fw.StageSoaking }, []fw.Reason{fw.ReasonStageNotOpen}},
		{"a soaking stage lets a member try again", func(_ *Terms, f *Facts) {
			f.Stage.State, f.Update = fw.StageSoaking, UpdateFacts{State: fw.UpdateFailed, Member: true, Attempts: 1, LastAttempt: testNow - 60}
		}, nil},
		{"a full stage", func(_ *Terms, f *Facts) { f.Stage.Members = 2 }, []fw.Reason{fw.ReasonStageFull}},
		{"a full stage lets a member try again", func(_ *Terms, f *Facts) {
			f.Stage.Members, f.Update = 2, UpdateFacts{State: fw.UpdateFailed, Member: true, Attempts: 1, LastAttempt: testNow - 60}
		}, nil},
		{"an open authorization is not given twice", func(_ *Terms, f *Facts) { f.Update = UpdateFacts{State: fw.UpdateAuthorized, Member: true} }, []fw.Reason{fw.ReasonUpdateState}},
		{"a confirmed update is not given again", func(_ *Terms, f *Facts) { f.Update = UpdateFacts{State: fw.UpdateConfirmed, Member: true} }, []fw.Reason{fw.ReasonUpdateState}},
		{"a superseded update is over", func(_ *Terms, f *Facts) { f.Update = UpdateFacts{State: fw.UpdateSuperseded, Member: true} }, []fw.Reason{fw.ReasonUpdateState}},
		{"a device that refused the bytes waits like one that failed", func(_ *Terms, f *Facts) {
			f.Update = UpdateFacts{State: fw.UpdateRejected, Member: true, Attempts: 1, LastAttempt: testNow - 59}
		}, []fw.Reason{fw.ReasonBackoff}},

		{"too many at once", func(t *Terms, f *Facts) { t.Plan.MaxConcurrent, f.Campaign.Open = 5, 5 }, []fw.Reason{fw.ReasonConcurrency}},
		{"too many in a minute", func(t *Terms, f *Facts) { t.Plan.RatePerMinute, f.Campaign.GrantedLastMinute = 5, 5 }, []fw.Reason{fw.ReasonRate}},
		{"before the campaign's time", func(t *Terms, _ *Facts) { t.Plan.NotBefore = testNow + 1 }, []fw.Reason{fw.ReasonWindow}},
		{"after the campaign's time", func(t *Terms, _ *Facts) { t.Plan.NotAfter = testNow - 1 }, []fw.Reason{fw.ReasonWindow}},
		{"outside the window", func(t *Terms, _ *Facts) { t.Plan.Window = &fw.Window{StartMinute: 120, EndMinute: 240} }, []fw.Reason{fw.ReasonWindow}},
		{"inside the window", func(t *Terms, _ *Facts) { t.Plan.Window = &fw.Window{EndMinute: 1440, Weekdays: []int{3}} }, nil},
		{"on another weekday", func(t *Terms, _ *Facts) { t.Plan.Window = &fw.Window{EndMinute: 1440, Weekdays: []int{2, 4}} }, []fw.Reason{fw.ReasonWindow}},

		{"no attempt left", func(_ *Terms, f *Facts) { f.Update = UpdateFacts{State: fw.UpdateFailed, Member: true, Attempts: 3} }, []fw.Reason{fw.ReasonAttemptsExhausted}},
		{"too soon after the first attempt", func(_ *Terms, f *Facts) {
			f.Update = UpdateFacts{State: fw.UpdateFailed, Member: true, Attempts: 1, LastAttempt: testNow - 59}
		}, []fw.Reason{fw.ReasonBackoff}},
		{"the wait doubles", func(_ *Terms, f *Facts) {
			f.Update = UpdateFacts{State: fw.UpdatePending, Member: true, Attempts: 2, LastAttempt: testNow - 119}
		}, []fw.Reason{fw.ReasonBackoff}},
		{"a withdrawn attempt is no failure", func(_ *Terms, f *Facts) {
			f.Update = UpdateFacts{State: fw.UpdatePaused, Member: true, Attempts: 1, LastAttempt: testNow - 1}
		}, nil},
		{"opted out", func(_ *Terms, f *Facts) { f.Device.OptedOut = true }, []fw.Reason{fw.ReasonOptedOut}},
		{"postponed", func(_ *Terms, f *Facts) { f.Device.PostponedUntil = testNow + 1 }, []fw.Reason{fw.ReasonPostponed}},
		{"no preference against a mandatory release", func(t *Terms, f *Facts) {
			t.Plan.Mandatory, f.Device.OptedOut, f.Device.PostponedUntil = true, true, testNow+1
		}, nil},
		{"a policy that was not found", func(t *Terms, f *Facts) {
			t.Plan.Policy = fw.DigestOf([]byte("p"))
			f.Campaign.Policy = t.Plan.Policy
		}, []fw.Reason{fw.ReasonPolicy}},

		{"no plan", func(t *Terms, _ *Facts) { t.Plan = nil }, []fw.Reason{fw.ReasonCampaignNotRunning}},
		{"no publication", func(t *Terms, _ *Facts) { t.Publication = nil }, []fw.Reason{fw.ReasonReleaseNotPublished}},
		{"no cohort", func(t *Terms, _ *Facts) { t.Cohort = nil }, []fw.Reason{fw.ReasonNotInCohort}},
		{"every failing check is listed", func(_ *Terms, f *Facts) {
			f.Device.State, f.Device.Hardware, f.Stage.Members = fw.DeviceSuspended, "", 9
		}, []fw.Reason{fw.ReasonLifecycle, fw.ReasonHardwareMismatch, fw.ReasonStageFull}},

		{"a rollback goes down", rollback, nil},
		{"a rollback needs no place, rate, cohort or consent", func(tm *Terms, f *Facts) {
			rollback(tm, f)
			tm.Cohort, tm.Plan.RatePerMinute, tm.Plan.NotAfter = condition(t, "false"), 1, testNow-1
			f.Campaign.GrantedLastMinute, f.Stage.Members, f.Device.OptedOut = 9, 9, true
		}, nil},
		{"a rollback never lowers the security counter", func(t *Terms, f *Facts) { rollback(t, f); main(f).SecurityCounter = 8 }, []fw.Reason{fw.ReasonSecurityCounter}},
		{"a rollback of a device that was never updated", func(t *Terms, f *Facts) { rollback(t, f); f.Update.Member = false }, []fw.Reason{fw.ReasonStageNotOpen}},
		{"a rollback that the plan does not name", func(t *Terms, f *Facts) { rollback(t, f); t.Plan.Rollback = nil }, []fw.Reason{fw.ReasonDowngrade, fw.ReasonReleaseNotPublished}},
		{"a rollback while the campaign runs", func(t *Terms, f *Facts) { rollback(t, f); f.Campaign.State = fw.CampaignRunning }, []fw.Reason{fw.ReasonCampaignNotRunning}},
		{"a rollback tries no more than twice the attempts", func(t *Terms, f *Facts) { rollback(t, f); f.Update.Attempts = 6 }, []fw.Reason{fw.ReasonAttemptsExhausted}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			terms, facts := allowed(t)
			tt.change(terms, &facts)
			d := Evaluate(terms, facts)
			if diff := cmp.Diff(tt.want, d.Reasons); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if d.Allow != (len(tt.want) == 0) {
				t.Errorf("allow is %v", d.Allow)
			}
		})
	}
}

func TestOnlyPreferenceDefers(t *testing.T) {
	terms, facts := allowed(t)
	facts.Device.OptedOut, facts.Device.PostponedUntil = true, testNow+1
	if d := Evaluate(terms, facts); !d.Deferred || d.Allow {
		t.Errorf("a preference alone does not defer: %+v", d)
	}
	facts.Stage.Members = 2
	if d := Evaluate(terms, facts); d.Deferred {
		t.Error("a full stage is deferred")
	}
}

func TestZeroValuesDeny(t *testing.T) {
	if (Decision{}).Allow {
		t.Error("the zero Decision allows")
	}
	if Evaluate(nil, Facts{}).Allow || Evaluate(&Terms{}, Facts{}).Allow {
		t.Error("no terms allow")
	}
	terms, _ := allowed(t)
	terms.Cohort = &Condition{}
	if Evaluate(terms, Facts{}).Allow {
		t.Error("the zero Facts allow")
	}
}

func TestEveryReasonIsFromTheVocabularyAndEveryCheckIsNamed(t *testing.T) {
	terms, facts := allowed(t)
	names := map[string]bool{}
	for _, c := range Evaluate(terms, facts).Checks {
		if c.Name == "" || names[c.Name] {
			t.Errorf("check %q is unnamed or listed twice", c.Name)
		}
		names[c.Name] = true
		if c.Reason != "" {
			t.Errorf("check %q holds and has reason %q", c.Name, c.Reason)
		}
	}
}

func TestRefusalKeyDependsOnReasonsAlone(t *testing.T) {
	a := RefusalKey(Decision{Reasons: []fw.Reason{"x", "y"}, Checks: []Check{{Observed: "1"}}})
	b := RefusalKey(Decision{Reasons: []fw.Reason{"y", "x"}, Checks: []Check{{Observed: "2"}}})
	c := RefusalKey(Decision{Reasons: []fw.Reason{"x"}})
	if a != b || a == c || a == "" {
		t.Errorf("keys %q %q %q", a, b, c)
	}
}

func TestWindowThatPassesMidnightBelongsToTheDayItBegan(t *testing.T) {
	w := &fw.Window{StartMinute: 22 * 60, EndMinute: 4 * 60, Weekdays: []int{6}} // Saturday night
	for _, tt := range []struct {
		day, minute int
		want        bool
	}{{6, 22*60 - 1, false}, {6, 22 * 60, true}, {0, 239, true}, {0, 240, false}, {6, 100, false}, {0, 23 * 60, false}} {
		if got := inWindow(w, tt.day, tt.minute); got != tt.want {
			t.Errorf("day %d minute %d: %v", tt.day, tt.minute, got)
		}
	}
	if d, m := clock(-60); d != 3 || m != minutesPerDay-1 {
		t.Errorf("a minute before 1970: day %d minute %d", d, m)
	}
}

// anyFacts draws facts in which most, some or no checks fail.
func anyFacts(rt *rapid.T, base Facts) Facts {
	f := base
	pick := func(label string) bool { return rapid.IntRange(0, 9).Draw(rt, label) == 0 }
	f.Device.Components = slices.Clone(base.Device.Components)
	f.Device.Attributes = map[string]string{}
	for _, k := range []string{"region", "site", "power"} {
		if !pick("absent " + k) {
			f.Device.Attributes[k] = rapid.SampledFrom([]string{"", "eu", "us"}).Draw(rt, k)
		}
	}
	f.Now += rapid.Int64Range(-200, 200).Draw(rt, "now")
	if pick("state") {
		f.Device.State = rapid.SampledFrom(fw.DeviceStates).Draw(rt, "device state")
	}
	if pick("version") {
		f.Device.Components[0].Version = rapid.SampledFrom([]string{"", "1.0.0", "9.9.9", "1.3.0+4", "one"}).Draw(rt, "device version")
	}
	if pick("digest") {
		f.Device.Components[0].Digest = fw.DigestOf([]byte("new"))
	}
	if pick("update") {
		f.Update = UpdateFacts{State: rapid.SampledFrom(fw.UpdateStates).Draw(rt, "update state"), Member: true, Attempts: rapid.IntRange(0, 4).Draw(rt, "attempts")}
	}
	if pick("none") {
		f.Device.Components = nil
	}
	f.Device.OptedOut = pick("opted out")
	f.Stage.Members = rapid.IntRange(0, 2).Draw(rt, "members")
	return f
}

const twoConditions = `{"type":"writ-policy/v1","name":"p","conditions":[
	{"name":"region","expr":"device.attributes.region == 'eu' && release.type == 'security'"},
	{"name":"version","expr":"compare_versions(device.version, '1.0.0') > 0 || has(device.attributes.site)"}]}`

func TestDecisionSurvivesJSON(t *testing.T) {
	terms, base := allowed(t)
	terms.Policy = mustPolicy(t, twoConditions)
	rapid.Check(t, func(rt *rapid.T) {
		f := anyFacts(rt, base)
		b, err := json.Marshal(NewRecord(f, Evaluate(terms, f)))
		if err != nil {
			rt.Fatal(err)
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(r.Decision, Evaluate(terms, r.Facts)); diff != "" {
			rt.Fatalf("re-executed decision differs:\n%s", diff)
		}
	})
}

func TestPolicyOnlyNarrows(t *testing.T) {
	with, base := allowed(t)
	without, _ := allowed(t)
	exprs := []string{"true", "false", "device.attributes.region == 'eu'", "!has(device.attributes.site)", "device.version != '1.0.0' || device.security_counter > 3", "now > 0 && stage.index == 0"}
	rapid.Check(t, func(rt *rapid.T) {
		f := anyFacts(rt, base)
		expr := rapid.SampledFrom(exprs).Draw(rt, "expr")
		doc, err := json.Marshal(map[string]any{"type": TypePolicy, "name": "p", "conditions": []map[string]string{{"name": "c", "expr": expr}}})
		if err != nil {
			rt.Fatal(err)
		}
		with.Policy = mustPolicy(t, string(doc))
		if Evaluate(with, f).Allow && !Evaluate(without, f).Allow {
			rt.Fatalf("%s turned a denial into permission", expr)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	terms, facts := allowed(b)
	terms.Policy = mustPolicy(b, `{"type":"writ-policy/v1","name":"bench","conditions":[
		{"name":"c1","expr":"device.state == 'active'"},
		{"name":"c2","expr":"device.cert.not_after > now"},
		{"name":"c3","expr":"device.hardware in ['gw-5', 'gw-7']"},
		{"name":"c4","expr":"device.security_counter <= release.security_counter"},
		{"name":"c5","expr":"device.attributes.region in ['eu', 'uk']"},
		{"name":"c6","expr":"device.id.startsWith('d-')"},
		{"name":"c7","expr":"release.type == 'security' || campaign.approvals > 1"},
		{"name":"c8","expr":"!has(device.attributes.hold)"}]}`)
	if d := Evaluate(terms, facts); !d.Allow {
		b.Fatalf("denied: %v", d.Reasons)
	}
	b.Run("allow", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Evaluate(terms, facts)
		}
	})
	b.Run("without policy", func(b *testing.B) {
		plain, facts := allowed(b)
		b.ReportAllocs()
		for b.Loop() {
			Evaluate(plain, facts)
		}
	})
	facts.Device.Attributes = nil
	b.Run("deny", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Evaluate(terms, facts)
		}
	})
}
