package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Environment of the commands.
const (
	serverEnv = "WRIT_SERVER"
	tokenEnv  = "WRIT_TOKEN"
	caEnv     = "WRIT_CA"
)

// defaultProfile is the profile of those who have only one.
const defaultProfile = "default"

// maxSmall bounds files that are read into memory: tokens, keys, certificates,
// plans, policies, notes. In bytes.
const maxSmall = 4 << 20

// settings is the file that `writ login` writes.
type settings struct {
	Profiles map[string]profile `json:"profiles"`
}

// profile is how one server is reached.
type profile struct {
	Server string `json:"server"`
	CA     string `json:"ca_pem,omitempty"`
	Token  string `json:"token,omitempty"`
	Person string `json:"person,omitempty"`
}

// settingsPath is where the settings are.
func settingsPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fw.Wrap(fw.Invalid, err, "no home folder: set XDG_CONFIG_HOME, or use %s and %s", serverEnv, tokenEnv)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "writ", "config.json"), nil
}

// loadSettings reads the settings; there may be none.
func loadSettings() (settings, error) {
	var s settings
	path, err := settingsPath()
	if err != nil {
		return s, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fw.Wrap(fw.Invalid, err, "cannot read %s", path)
	}
	// Windows has no such bits; its files are private to the user's profile.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return s, fw.Errorf(fw.Invalid, "%s holds tokens and other users may open it: run chmod 600 %s", path, path)
	}
	b, err := os.ReadFile(path) //nolint:gosec // G304: the user's own settings
	if err != nil {
		return s, fw.Wrap(fw.Invalid, err, "cannot read %s", path)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fw.Wrap(fw.Invalid, err, "%s is not what writ login writes: delete it and log in again", path)
	}
	return s, nil
}

// save writes the settings.
func (s settings) save() (string, error) {
	path, err := settingsPath()
	if err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", fw.Wrap(fw.Internal, err, "cannot encode the settings")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fw.Wrap(fw.Invalid, err, "cannot make the folder of %s", path)
	}
	return path, writePrivate(path, append(b, '\n'))
}

// writePrivate writes a file that only its owner can read, all or nothing.
func writePrivate(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".writ-*") // mode 0600
	if err != nil {
		return fw.Wrap(fw.Invalid, err, "cannot write %s", path)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fw.Wrap(fw.Invalid, errors.Join(err, os.Remove(f.Name())), "cannot write %s", path)
	}
	return nil
}

// target finds which server to talk to and as whom.
func (a *app) target() (profile, error) {
	s, err := loadSettings()
	if err != nil {
		return profile{}, err
	}
	stored, known := s.Profiles[a.profile]
	if !known && a.profile != defaultProfile {
		return profile{}, fw.Errorf(fw.NotFound, "no profile %q: make it with writ login URL --profile %s", a.profile, a.profile)
	}
	p := profile{Server: strings.TrimRight(cmp.Or(a.server, os.Getenv(serverEnv), stored.Server), "/")}
	if p.Server == "" {
		return p, fw.Errorf(fw.Invalid, "which server? Run writ login URL once, or set --server or %s", serverEnv)
	}
	if p.Server == stored.Server { // a token is sent only where it belongs
		p = stored
	}
	if path := cmp.Or(a.ca, os.Getenv(caEnv)); path != "" {
		b, err := readSmall(path)
		if err != nil {
			return p, err
		}
		p.CA = string(b)
	}
	if a.tokenFile != "" {
		b, err := a.readInput(a.tokenFile)
		if err != nil {
			return p, err
		}
		p.Token = strings.TrimSpace(string(b))
	} else if t := os.Getenv(tokenEnv); t != "" {
		p.Token = t
	}
	if p.Token == "" {
		return p, fw.Errorf(fw.Unauthenticated, "no token for %s: run writ login %s, or set --token-file or %s", p.Server, p.Server, tokenEnv)
	}
	return p, nil
}

// readSmall reads a file into memory, if it is small.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the user's own file
	if err != nil {
		return nil, openError(err, path)
	}
	defer f.Close()
	return readLimited(f, path)
}

// readInput reads a file, or stdin for "-".
func (a *app) readInput(path string) ([]byte, error) {
	if path == "-" {
		return readLimited(a.in, "stdin")
	}
	return readSmall(path)
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read %s", name)
	}
	if len(b) > maxSmall {
		return nil, fw.Errorf(fw.TooLarge, "%s is over %s", name, bytesUnit(maxSmall))
	}
	return b, nil
}

// openError says which file could not be opened and why, without the path twice.
func openError(err error, path string) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fw.Wrap(fw.Invalid, err, "cannot open %s", path)
}
