package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// life is a duration flag that also takes days, as in 90d.
type life time.Duration

// Set implements pflag.Value.
func (l *life) Set(s string) error {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.Atoi(n)
		if err != nil || days < 0 || days > 36500 {
			return fmt.Errorf("%q is no number of days", s)
		}
		*l = life(time.Duration(days) * 24 * time.Hour)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d%time.Second != 0 {
		return fmt.Errorf("must be like 90d, 12h, 30m or 10s, not %q", s)
	}
	*l = life(d)
	return nil
}

// String implements pflag.Value.
func (l *life) String() string {
	d := time.Duration(*l)
	if d > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// Type implements pflag.Value.
func (l *life) Type() string { return "duration" }

func (l *life) seconds() int64 { return int64(time.Duration(*l) / time.Second) }

// parseTime reads a date or a time of RFC 3339 as Unix seconds; "" is 0.
func parseTime(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil && t.Unix() > 0 {
			return t.Unix(), nil
		}
	}
	return 0, fw.Errorf(fw.Invalid, "--%s must be like 2030-12-31 or 2030-12-31T08:00:00Z, not %q", flag, s)
}

// parseWindow reads HH:MM-HH:MM with an optional list of days, as in
// "22:00-04:00 mon,tue".
func parseWindow(s string) (*fw.Window, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no window is a window at all times
	}
	bad := fw.Errorf(fw.Invalid, "--window must be like \"22:00-04:00\" or \"22:00-04:00 mon,tue\" (UTC), not %q", s)
	span, days, _ := strings.Cut(s, " ")
	from, to, ok := strings.Cut(span, "-")
	start, err1 := minuteOfDay(from)
	end, err2 := minuteOfDay(to)
	if !ok || err1 != nil || err2 != nil {
		return nil, bad
	}
	w := &fw.Window{StartMinute: start, EndMinute: end}
	if days = strings.TrimSpace(days); days == "" {
		return w, nil
	}
	for d := range strings.SplitSeq(days, ",") {
		i := strings.Index("sunmontuewedthufrisat", strings.ToLower(strings.TrimSpace(d)))
		if len(strings.TrimSpace(d)) != 3 || i < 0 || i%3 != 0 {
			return nil, bad
		}
		w.Weekdays = append(w.Weekdays, i/3)
	}
	return w, nil
}

func minuteOfDay(s string) (int, error) {
	if s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*60 + t.Minute(), err
}
