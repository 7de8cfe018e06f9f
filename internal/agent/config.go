package agent

import (
	"net/url"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// Config is config.json: who the device is, whom it asks, and what it runs
// when. `writ-agent enroll` writes it; the zero value of every field that is
// not marked required is a good default.
type Config struct {
	// Server is the base URL of the server, https only. Required.
	Server string `json:"server"`
	// Device, Product and Hardware name the device. Product comes from the
	// certificate. Required.
	Device   fw.DeviceID   `json:"device"`
	Product  fw.ProductID  `json:"product"`
	Hardware fw.HardwareID `json:"hardware"`
	// Component is the one component this agent updates. Default "main".
	Component fw.ComponentName `json:"component,omitempty"`
	// ServerCA is the pinned CA of the server's certificate, PEM. It counts
	// as long as the trust bundle names no TLS anchors.
	ServerCA string `json:"server_ca,omitempty"`

	// Poll overrides the time to the next check-in, which the server else
	// sets; a tenth is added at random.
	Poll Duration `json:"poll,omitzero"`
	// MaxBackoff is the longest wait after failures. Default 15 minutes.
	MaxBackoff Duration `json:"max_backoff,omitzero"`
	// Stall is how long a download may go without a byte. Default 30 seconds.
	Stall Duration `json:"stall,omitzero"`
	// Downloads is how often in a row a download may fail without getting
	// further before the update fails. Default 10.
	Downloads int `json:"downloads,omitempty"`
	// Boots is how often the new slot may start without passing its health
	// check before the agent falls back. Default 3.
	Boots int `json:"boots,omitempty"`
	// Restart is how the new slot is started: "exec" (the agent executes
	// itself anew, the default), "exit" (it ends with code 75 and a supervisor
	// starts it again) or "reboot" (the activate hook reboots the machine).
	Restart string `json:"restart,omitempty"`

	// Formats lists the image formats the device takes; empty: every one.
	Formats []string `json:"formats,omitempty"`
	Hooks   Hooks    `json:"hooks,omitzero"`

	// Attributes are facts for policies and cohorts.
	Attributes map[string]string `json:"attributes,omitempty"`
	// Preference is what the user of the device wants.
	Preference Preference `json:"preference,omitzero"`
}

// Hooks are programs the agent runs, as argument vectors to which the path of
// the image is appended. See runHook for their environment. An exit code other
// than 0 is a failure. Empty: nothing is run.
type Hooks struct {
	Install  []string `json:"install,omitempty"`  // after the image is in its slot and verified
	Activate []string `json:"activate,omitempty"` // after active was switched; tells the boot loader, or reboots
	Health   []string `json:"health,omitempty"`   // in the new slot: does it work?
	Timeout  Duration `json:"timeout,omitzero"`   // of each; default 5 minutes
}

// Preference mirrors authz.Preference.
type Preference struct {
	OptedOut       bool  `json:"opted_out,omitempty"`
	PostponedUntil int64 `json:"postponed_until,omitempty"` // Unix seconds
}

// Restart methods.
const (
	RestartExec   = "exec"
	RestartExit   = "exit"
	RestartReboot = "reboot"
)

// Duration is a time.Duration in the form of time.ParseDuration.
type Duration time.Duration

// MarshalText writes d as "1m30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fw.Wrap(fw.Invalid, err, "%q is no duration: write for example 30s or 5m", b)
	}
	*d = Duration(v)
	return nil
}

// or returns d, or def if d is zero.
func (d Duration) or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

func (c *Config) setDefaults() {
	if c.Component == "" {
		c.Component = fw.MainComponent
	}
	if c.Downloads == 0 {
		c.Downloads = 10
	}
	if c.Boots == 0 {
		c.Boots = 3
	}
	if c.Restart == "" {
		c.Restart = RestartExec
	}
}

// check refuses what would only fail later, in front of no one.
func (c *Config) check() error {
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fw.Wrap(fw.Invalid, err, "server %q must be a URL like https://writ.example", c.Server)
	}
	for what, v := range map[string]string{"device id": string(c.Device), "hardware id": string(c.Hardware), "component name": string(c.Component)} {
		if _, err := fw.ParseName(what, v); err != nil {
			return err
		}
	}
	switch c.Restart {
	case RestartExec, RestartExit:
	case RestartReboot:
		if len(c.Hooks.Activate) == 0 {
			return fw.Errorf(fw.Invalid, "restart %q needs an activate hook that reboots", c.Restart)
		}
	default:
		return fw.Errorf(fw.Invalid, "restart is exec, exit or reboot, not %q", c.Restart)
	}
	if c.Downloads < 1 || c.Boots < 1 {
		return fw.Errorf(fw.Invalid, "downloads and boots are at least 1")
	}
	// What the server would refuse in every check-in.
	_, err = authz.EncodeCheckIn(authz.CheckIn{Nonce: authz.Nonce{1}, Facts: authz.Facts{
		Hardware: c.Hardware, Components: []authz.ReportedComponent{{Name: c.Component}},
		Attributes: c.Attributes, Preference: authz.Preference(c.Preference),
	}})
	return err
}

// LoadConfig reads config.json of a state directory and fills in defaults.
func LoadConfig(dir string) (Config, error) {
	var c Config
	if err := readJSON(filepath.Join(dir, "config.json"), &c); err != nil {
		return Config{}, err
	}
	c.setDefaults()
	return c, c.check()
}

// Save checks c and writes it as config.json of a state directory.
func (c *Config) Save(dir string) error {
	full := *c
	full.setDefaults()
	if err := full.check(); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(dir, "config.json"), c); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot write the configuration in %s", dir)
	}
	return nil
}
