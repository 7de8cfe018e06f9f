// Package config is the configuration of a writ server. The [Config] struct is
// the operator's manual: every field says what it does, what it defaults to,
// and what goes wrong with it. The zero Config with a data folder is a working
// embedded server.
package config

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// Config configures a server.
type Config struct {
	// Data is the folder of everything the server keeps: the embedded
	// database, artifacts, and the encrypted keys. It must be on a local disk.
	Data string

	// Database is "sqlite:PATH" or "postgres://…". Empty is SQLite in Data.
	// Several servers may share one PostgreSQL database; they must then share
	// Data's blobs folder and the keys too.
	Database string

	// Listen is the address of the one HTTPS port for devices, operators and
	// auditors. Port 0 takes a free one.
	Listen string

	// Hostnames are the names and addresses that clients use. The server's
	// certificate, issued by the built-in CA at each start, holds them.
	// "localhost" and the loopback addresses are always included.
	Hostnames []string

	// Name is the server's name: the origin of its evidence log and the
	// issuer of its authorizations. It is written into every checkpoint, so
	// it cannot change later.
	Name string

	// Passphrase unlocks the key folder. It comes from WRIT_PASSPHRASE or a
	// file, never from a flag.
	Passphrase []byte

	// Signer is where a writ-signer keeps the keys of images and release
	// statements: unix:PATH or https://HOST:PORT. Empty: they are in Keys, and
	// whoever has this host has them.
	Signer string

	// SignerCA, SignerCert and SignerKey are PEM files for a signer at https:
	// what issued its certificate, and this server's certificate and key.
	SignerCA, SignerCert, SignerKey string

	// ScryptLogN is the work factor of the passphrase for a new key folder;
	// 0 is 18, about one second. Tests and the demo lower it.
	ScryptLogN int

	// Interval is how often an idle device checks in, give or take a quarter.
	Interval time.Duration

	// Grace is how long after its authorization expired an update without a
	// report counts as failed.
	Grace time.Duration

	// CertificateLife is the life of device certificates, and RenewBefore
	// how long before its end a device is asked to renew.
	CertificateLife time.Duration
	RenewBefore     time.Duration

	// MaxUpload bounds one uploaded file in bytes.
	MaxUpload int64
}

// Defaults.
const (
	DefaultListen          = "127.0.0.1:8443"
	DefaultName            = "writ.local/log"
	DefaultInterval        = 5 * time.Minute
	DefaultGrace           = 10 * time.Minute
	DefaultCertificateLife = 90 * 24 * time.Hour
	DefaultRenewBefore     = 30 * 24 * time.Hour
	DefaultMaxUpload       = 4 << 30
)

// PassphraseEnv is the environment variable of the passphrase, and
// PassphraseFileEnv of the path of a file that holds it.
const (
	PassphraseEnv     = "WRIT_PASSPHRASE"
	PassphraseFileEnv = "WRIT_PASSPHRASE_FILE"
)

// Complete fills in the defaults and checks the rest.
func (c *Config) Complete() error {
	if c.Data == "" {
		return fw.Errorf(fw.Invalid, "no data folder: give --data DIR")
	}
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Database == "" {
		c.Database = "sqlite:" + filepath.Join(c.Data, "writ.db")
	}
	if c.MaxUpload == 0 {
		c.MaxUpload = DefaultMaxUpload
	}
	def(&c.Interval, DefaultInterval)
	def(&c.Grace, DefaultGrace)
	def(&c.CertificateLife, DefaultCertificateLife)
	def(&c.RenewBefore, min(DefaultRenewBefore, c.CertificateLife/3))
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fw.Wrap(fw.Invalid, err, "--listen %q is not HOST:PORT", c.Listen)
	}
	if strings.ContainsAny(c.Name, " +\n\t") || len(c.Name) > 128 {
		return fw.Errorf(fw.Invalid, "--name %q may not hold spaces or plus signs and has at most 128 characters", c.Name)
	}
	if c.Signer == "" && (c.SignerCA != "" || c.SignerCert != "" || c.SignerKey != "") {
		return fw.Errorf(fw.Invalid, "--signer-ca, --signer-cert and --signer-key belong to --signer https://HOST:PORT")
	}
	if c.Interval < time.Second || c.Interval > 31*24*time.Hour {
		return fw.Errorf(fw.Invalid, "--interval must be between 1s and 744h, not %s", c.Interval)
	}
	if c.RenewBefore >= c.CertificateLife {
		return fw.Errorf(fw.Invalid, "--renew-before (%s) must be less than --certificate-life (%s)", c.RenewBefore, c.CertificateLife)
	}
	if len(c.Passphrase) == 0 {
		return fw.Errorf(fw.Invalid, "no passphrase for the key folder: set %s, or %s to a file that holds it", PassphraseEnv, PassphraseFileEnv)
	}
	return nil
}

// Keys is the folder of the encrypted keys.
func (c *Config) Keys() string { return filepath.Join(c.Data, "keys") }

// Blobs is the folder of artifacts.
func (c *Config) Blobs() string { return filepath.Join(c.Data, "blobs") }

// maxPassphrase bounds a passphrase file in bytes.
const maxPassphrase = 4096

// ReadPassphrase returns the passphrase from the environment, nil when there
// is none.
func ReadPassphrase() ([]byte, error) {
	if v := os.Getenv(PassphraseEnv); v != "" {
		return []byte(v), nil
	}
	path := os.Getenv(PassphraseFileEnv)
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the passphrase file %s", path)
	}
	if len(b) > maxPassphrase {
		return nil, fw.Errorf(fw.TooLarge, "the passphrase file %s is over %d bytes", path, maxPassphrase)
	}
	return []byte(strings.TrimRight(string(b), "\r\n")), nil
}
