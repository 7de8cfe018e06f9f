package policy

import (
	"math"
	"slices"
	"strconv"

	"github.com/writ-project/writ/internal/fw"
)

// versions makes the checks on what the device runs. A version that cannot be
// read fails a check of its own and whatever would need it.
func (e *evaluation) versions() {
	e.readable()
	if !e.f.Update.Rollback {
		// The constraint describes the way up; the way down is approved by
		// naming the rollback release in the plan.
		e.fromVersion()
	}
	e.installed()
	e.downgrade()
	e.securityCounter()
}

// readable checks that the versions the other checks compare can be read.
func (e *evaluation) readable() {
	if e.f.Update.Rollback {
		return // nothing is compared: a device must not be stuck because it calls itself "dev"
	}
	c := Check{Name: "version", Reason: fw.ReasonVersionUnreadable}
	ok := true
	for i := range e.t.Publication.Images {
		img := &e.t.Publication.Images[i]
		d := component(&e.f.Device, img.Component)
		if d == nil {
			continue // the component check says so
		}
		if c.Observed == "" {
			c.Observed = d.Version
		}
		if _, err := parseVersion(d.Version); err != nil {
			ok, c.Observed, c.Wanted = false, string(img.Component)+" "+strconv.Quote(d.Version), "a version like 1.2.3"
		}
		if v := imageVersion(e.t.Publication, img); ok {
			if _, err := parseVersion(v); err != nil {
				ok, c.Observed, c.Wanted = false, "release "+strconv.Quote(v), "a version like 1.2.3"
			}
		}
	}
	e.is(c, ok)
}

// imageVersion is the version an image installs.
func imageVersion(p *fw.Publication, img *fw.SignedImage) string {
	if img.Version != "" {
		return img.Version
	}
	return p.Version
}

// fromVersion checks the manifest's constraint against the component that
// stands for the device, or else the first one the release installs.
func (e *evaluation) fromVersion() {
	want := e.t.Manifest.FromVersion
	if want == "" {
		return
	}
	c := Check{Name: "from_version", Reason: fw.ReasonFromVersion, Wanted: want}
	d := mainComponent(&e.f.Device)
	if d == nil && len(e.t.Publication.Images) > 0 {
		d = component(&e.f.Device, e.t.Publication.Images[0].Component)
	}
	if d == nil {
		e.is(c, false)
		return
	}
	c.Observed = d.Version
	v, err := parseVersion(d.Version)
	if err != nil {
		c.Reason = fw.ReasonVersionUnreadable
		e.is(c, false)
		return
	}
	constraint := e.t.fromVersion.Load()
	if constraint == nil {
		if constraint, err = parseConstraint(want); err != nil {
			c.Reason = fw.ReasonVersionUnreadable
			e.is(c, false)
			return
		}
		e.t.fromVersion.Store(constraint)
	}
	e.is(c, constraint.Check(v.sem))
}

// installed checks that there is something to install: some component runs
// another digest than the release's.
func (e *evaluation) installed() {
	same := len(e.t.Publication.Images) > 0
	for i := range e.t.Publication.Images {
		img := &e.t.Publication.Images[i]
		d := component(&e.f.Device, img.Component)
		if d == nil || d.Digest.IsZero() || d.Digest != img.Digest {
			same = false
		}
	}
	e.is(Check{Name: "not_installed", Reason: fw.ReasonAlreadyInstalled}, !same)
}

// downgrade checks that no component's version goes down, except in a
// rollback that the plan names.
func (e *evaluation) downgrade() {
	c := Check{Name: "downgrade", Reason: fw.ReasonDowngrade}
	if e.f.Update.Rollback {
		c.Observed = "rollback"
		e.is(c, e.t.Plan.Rollback != nil)
		return
	}
	ok := true
	for i := range e.t.Publication.Images {
		img := &e.t.Publication.Images[i]
		d := component(&e.f.Device, img.Component)
		if d == nil {
			continue // the component check says so
		}
		to := imageVersion(e.t.Publication, img)
		order, err := CompareVersions(to, d.Version)
		if bad := err != nil || order < 0; bad && ok {
			ok, c.Observed, c.Wanted = false, d.Version, to
			if err != nil {
				c.Reason = fw.ReasonVersionUnreadable
			}
		}
		if c.Observed == "" {
			c.Observed, c.Wanted = d.Version, to
		}
	}
	e.is(c, ok)
}

// securityCounter checks that no component's security counter goes down. It
// has no exception: a device that fused its counter could not boot the image.
func (e *evaluation) securityCounter() {
	c := Check{Name: "security_counter", Reason: fw.ReasonSecurityCounter}
	ok := true
	for i := range e.t.Publication.Images {
		img := &e.t.Publication.Images[i]
		d := component(&e.f.Device, img.Component)
		if d == nil {
			continue // the component check says so
		}
		bad := img.SecurityCounter < d.SecurityCounter
		if bad && ok || c.Observed == "" {
			c.Observed, c.Wanted = strconv.FormatUint(d.SecurityCounter, 10), strconv.FormatUint(img.SecurityCounter, 10)
		}
		ok = ok && !bad
	}
	e.is(c, ok)
}

// times checks the campaign's own time and its daily window. A rollback keeps
// to the window, which protects users, but not to the campaign's time, which
// bounds how long the release is offered.
func (e *evaluation) times() {
	p, now := e.t.Plan, e.f.Now
	if !e.f.Update.Rollback && (p.NotBefore != 0 || p.NotAfter != 0) {
		e.is(Check{Name: "schedule", Reason: fw.ReasonWindow, Observed: itoa(now), Wanted: span(p.NotBefore, p.NotAfter)},
			now >= p.NotBefore && (p.NotAfter == 0 || now <= p.NotAfter))
	}
	if p.Window != nil {
		day, minute := clock(now)
		c := Check{Name: "window", Reason: fw.ReasonWindow, Observed: strconv.Itoa(minute), Wanted: strconv.Itoa(p.Window.StartMinute) + ".." + strconv.Itoa(p.Window.EndMinute)}
		e.is(c, inWindow(p.Window, day, minute))
	}
}

const (
	minutesPerDay = 24 * 60
	secondsPerDay = 60 * minutesPerDay
)

// clock returns the weekday (0 is Sunday) and the minute of the day, in UTC.
func clock(now int64) (day, minute int) {
	days, rest := now/secondsPerDay, now%secondsPerDay
	if rest < 0 {
		days, rest = days-1, rest+secondsPerDay
	}
	return int(((days+4)%7 + 7) % 7), int(rest / 60) // 1970-01-01 was a Thursday
}

// inWindow reports whether the window is open. One that passes midnight
// belongs to the weekday it began on.
func inWindow(w *fw.Window, day, minute int) bool {
	on := func(d int) bool { return len(w.Weekdays) == 0 || slices.Contains(w.Weekdays, d) }
	if w.StartMinute < w.EndMinute {
		return on(day) && minute >= w.StartMinute && minute < w.EndMinute
	}
	return on(day) && minute >= w.StartMinute || on((day+6)%7) && minute < w.EndMinute
}

// attempts checks that the device may try again, and not too soon. A rollback
// has as many attempts of its own, and waits for nothing.
func (e *evaluation) attempts() {
	u, p := &e.f.Update, e.t.Plan
	allowed := p.Attempts
	if u.Rollback {
		allowed *= 2
	}
	e.is(Check{Name: "attempts", Reason: fw.ReasonAttemptsExhausted, Observed: strconv.Itoa(u.Attempts), Wanted: strconv.Itoa(allowed)},
		u.Attempts >= 0 && u.Attempts < allowed)
	if u.Rollback || u.Attempts <= 0 || u.State == fw.UpdatePaused {
		return // a pause ended the last attempt, not the device
	}
	next := RetryAt(p, u.Attempts, u.LastAttempt)
	e.is(Check{Name: "back_off", Reason: fw.ReasonBackoff, Observed: itoa(e.f.Now), Wanted: itoa(next)}, e.f.Now >= next)
}

// MaxBackoff bounds the wait between two attempts, in seconds.
const MaxBackoff = 30 * secondsPerDay

// RetryAt returns when a device that has had the given number of attempts, the
// last of them at the given time, may try again: the plan's back-off after
// the first attempt, doubled after each further one.
func RetryAt(p *fw.Plan, attempts int, last int64) int64 {
	wait := min(max(p.BackoffSeconds, 0), MaxBackoff)
	for range min(attempts-1, 64) {
		wait = min(2*wait, MaxBackoff)
	}
	if last > math.MaxInt64-wait {
		return math.MaxInt64
	}
	return last + wait
}

// mainComponent returns the component that stands for the device: the one
// called main, or the only one.
func mainComponent(d *DeviceFacts) *ComponentFacts {
	if c := component(d, fw.MainComponent); c != nil {
		return c
	}
	if len(d.Components) == 1 {
		return &d.Components[0]
	}
	return nil
}

func component(d *DeviceFacts, name fw.ComponentName) *ComponentFacts {
	for i := range d.Components {
		if d.Components[i].Name == name {
			return &d.Components[i]
		}
	}
	return nil
}
