package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/server"
)

// connect returns a client for the server that was asked for.
func (a *app) connect() (*client.Client, error) {
	p, err := a.target()
	if err != nil {
		return nil, err
	}
	return p.client()
}

func (p profile) client() (*client.Client, error) {
	c := client.Config{URL: p.Server, Token: p.Token, UserAgent: "writ/" + server.Version}
	if p.CA != "" {
		c.CA = []byte(p.CA)
	}
	return client.New(c)
}

// call is run for commands that talk to a server.
func (a *app) call(f func(ctx context.Context, c *client.Client, args []string) error) runFunc {
	return a.run(func(cmd *cobra.Command, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return f(cmd.Context(), c, args)
	})
}

func (a *app) loginCmd() *cobra.Command {
	var fingerprint string
	cmd := &cobra.Command{
		Use: "login URL", Short: "Remember a server and a token",
		Long: `Remember a server and a token, in the profile that --profile names.

The token comes from --token-file, from ` + tokenEnv + `, or from stdin. The server's
CA is fetched and must have the fingerprint that the server printed when it
started: bring it over a way you trust. With --ca FILE, or for a server with a
publicly trusted certificate, no fingerprint is needed. No token is sent before
the server has proved who it is.`,
		Example: examples(
			"writ login https://localhost:8443 --ca-fingerprint sha256:31bb… --token-file token",
			"pass show writ | writ login https://updates.example.org --ca writ-ca.pem --profile production",
		),
		Args: exactly("URL"),
		RunE: a.run(func(cmd *cobra.Command, args []string) error {
			return a.login(cmd.Context(), strings.TrimRight(args[0], "/"), fingerprint)
		}),
	}
	cmd.Flags().StringVar(&fingerprint, "ca-fingerprint", "", "SHA-256 of the CA's certificate, as writ serve prints it")
	return cmd
}

func (a *app) login(ctx context.Context, addr, fingerprint string) error {
	p := profile{Server: addr}
	if u, err := url.Parse(addr); err != nil || u.Scheme != "https" || u.Host == "" {
		return fw.Errorf(fw.Invalid, "the server's address must be https://HOST:PORT, not %q", addr)
	}
	switch {
	case fingerprint != "":
		pemBytes, err := fetchCA(ctx, addr, fingerprint)
		if err != nil {
			return err
		}
		p.CA = string(pemBytes)
	case a.ca != "" || os.Getenv(caEnv) != "":
		path := a.ca
		if path == "" {
			path = os.Getenv(caEnv)
		}
		b, err := readSmall(path)
		if err != nil {
			return err
		}
		p.CA = string(b)
	}
	token, err := a.loginToken()
	if err != nil {
		return err
	}
	p.Token = token
	c, err := p.client()
	if err != nil {
		return err
	}
	me, err := c.Server().WhoAmI(ctx)
	if err != nil {
		return err
	}
	p.Person = string(me.Person)
	s, err := loadSettings()
	if err != nil {
		return err
	}
	if s.Profiles == nil {
		s.Profiles = map[string]profile{}
	}
	s.Profiles[a.profile] = p
	path, err := s.save()
	if err != nil {
		return err
	}
	return a.show(me, func(w io.Writer) {
		putf(w, "Logged in to %s as %s (%s); stored in %s\n", addr, me.Person, joined(me.Roles), path)
	})
}

func (a *app) logoutCmd() *cobra.Command {
	var revoke bool
	cmd := &cobra.Command{
		Use: "logout", Short: "Forget a server and its token",
		Long: `Forget the profile that --profile names: the server, its CA and the token. With
--revoke the server revokes the token first, so that a copy of it is worth
nothing; no role is needed for that.`,
		Example: examples("writ logout --revoke", "writ logout --profile production"),
		Args:    exactly(),
		RunE: a.run(func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings()
			if err != nil {
				return err
			}
			p, known := s.Profiles[a.profile]
			if !known {
				return fw.Errorf(fw.NotFound, "no profile %q, so there is nothing to forget", a.profile)
			}
			state := "forgotten"
			if revoke {
				if state, err = p.revoke(cmd.Context()); err != nil {
					return err
				}
			}
			delete(s.Profiles, a.profile)
			if _, err := s.save(); err != nil {
				return err
			}
			return a.show(map[string]string{"server": p.Server, "token": state}, func(w io.Writer) {
				putf(w, "Logged out of %s; the token is %s\n", p.Server, state)
			})
		}),
	}
	cmd.Flags().BoolVar(&revoke, "revoke", false, "have the server revoke the token")
	return cmd
}

// revoke has the server revoke the token of p, and returns what it is then.
func (p profile) revoke(ctx context.Context) (string, error) {
	c, err := p.client()
	if err != nil {
		return "", err
	}
	me, err := c.Server().WhoAmI(ctx)
	if fw.KindOf(err) == fw.Unauthenticated {
		return "no longer valid", nil
	}
	if err != nil {
		return "", err
	}
	return "revoked", c.Operators().RevokeToken(ctx, me.Token)
}

func (a *app) loginToken() (string, error) {
	var b []byte
	var err error
	switch {
	case a.tokenFile != "":
		b, err = a.readInput(a.tokenFile)
	case os.Getenv(tokenEnv) != "":
		b = []byte(os.Getenv(tokenEnv))
	case isTerminal(a.in):
		b, err = a.prompt("Token")
	default:
		b, err = readLimited(a.in, "stdin")
	}
	token := strings.TrimSpace(string(b))
	if err == nil && token == "" {
		err = fw.Errorf(fw.Invalid, "no token: give --token-file FILE, set %s, or pipe it to stdin", tokenEnv)
	}
	return token, err
}

// fetchTimeout bounds the fetch of a CA.
const fetchTimeout = 30 * time.Second

// fetchCA gets the CA's certificate from a server that is not believed yet,
// and believes it if its fingerprint is the one that the user brought. The
// connection carries no secret.
func fetchCA(ctx context.Context, addr, fingerprint string) ([]byte, error) {
	want, err := parseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr+"/api/v1/ca.pem", nil)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the server's address must be https://HOST:PORT, not %q", addr)
	}
	//nolint:gosec // G402: what arrives is compared with the fingerprint, and nothing secret is sent
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, Proxy: http.ProxyFromEnvironment}}
	defer h.CloseIdleConnections()
	res, err := h.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fw.Wrap(fw.Unavailable, err, "no answer from %s: is the server running and the address right?", addr)
	}
	defer res.Body.Close()
	b, err := readLimited(res.Body, "the CA's certificate")
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if res.StatusCode != http.StatusOK || block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fw.Errorf(fw.Unavailable, "%s gave no CA certificate (%s): is it a writ server?", addr, res.Status)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "%s gave no CA certificate: is it a writ server?", addr)
	}
	if got := sha256.Sum256(block.Bytes); got != want {
		return nil, fw.Errorf(fw.Unauthenticated, "the CA of %s has fingerprint %s, not the one given: this may be another server, or somebody in between; nothing was sent", addr, fw.Digest(got))
	}
	// Encoded again, so that nothing around the certificate is believed.
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), nil
}

// parseFingerprint reads a SHA-256 as writ or openssl x509 -fingerprint print it.
func parseFingerprint(s string) ([sha256.Size]byte, error) {
	var out [sha256.Size]byte
	text := strings.ToLower(strings.TrimSpace(s))
	for _, prefix := range []string{"sha256:", "sha256 fingerprint="} {
		text = strings.TrimPrefix(text, prefix)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(b) != len(out) {
		return out, fw.Errorf(fw.Invalid, "--ca-fingerprint must be sha256: and 64 hexadecimal digits, as writ serve prints it")
	}
	return [sha256.Size]byte(b), nil
}

func (a *app) whoamiCmd() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say whose token is in use", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			me, err := c.Server().WhoAmI(ctx)
			if err != nil {
				return err
			}
			return a.show(me, func(w io.Writer) {
				fields(w, "person", string(me.Person), "roles", joined(me.Roles), "token", me.Token)
			})
		}),
	}
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how the server is", Args: exactly(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.Server().Status(ctx)
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) { statusText(w, s) })
		}),
	}
}

func statusText(w io.Writer, s apitypes.Status) {
	pairs := []string{"version", s.Version, "log", s.Log, "log key", s.LogKey, "evidence records", strconv.FormatInt(s.Records, 10)}
	total := 0
	for _, state := range fw.DeviceStates {
		if n := s.Devices[state]; n > 0 {
			pairs = append(pairs, string(state)+" devices", strconv.Itoa(n))
			total += n
		}
	}
	fields(w, append(pairs, "devices", strconv.Itoa(total))...)
}
