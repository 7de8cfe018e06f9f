package cli_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/server"
)

// The attacker of testdata/attack sits on the wire between a device and its
// server and can read and change everything: he has a TLS certificate of the
// server's own CA and reads the device's key off its disk. What he lacks are
// the keys that sign authorizations, images and the log, and that has to be
// enough.
//
//	steal-tls DATA            take a TLS certificate of a server that is stopped, with the key
//	wire NAME DIR             stand between the device of DIR and the server; $NAME is the URL to give to the device.
//	                          Each answer with an authorization that passes is kept in NAME.reply
//	attack NAME replay FILE   answer the next check-in with FILE
//	attack NAME delay         hold back the next authorization and say that there is none; answer the check-in after it with it
//	attack NAME late          hold back the next authorization, being out of order until it has expired; then deliver it
//	attack NAME flip          flip one bit of the next authorization
//	attack NAME flip-image    flip one bit of the next image
//	attack NAME forge         sign the next authorization anew, with a key of his own
//
// After each he passes on everything unchanged, so that the device's report
// arrives.

// stealTLS uses the key folder of a server that is not running, as somebody
// with a shell on its host would.
func stealTLS(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "steal-tls DATA")
	ctx := context.Background()
	s, _, err := server.Open(ctx, config.Config{
		Data: ts.MkAbs(args[0]), Listen: "127.0.0.1:0", Passphrase: []byte(ts.Getenv("WRIT_PASSPHRASE")),
	}, slog.New(slog.DiscardHandler))
	ts.Check(err)
	of(ts).front, err = s.Authority.ServerCertificate(ctx, []string{"127.0.0.1"}, pki.ServerProfile{})
	ts.Check(errors.Join(err, s.Close()))
}

// wire is the attacker between one device and the server.
type wire struct {
	front    *httptest.Server
	upstream *http.Client
	server   string // URL
	kept     string // path of the last answer with an authorization

	mu     sync.Mutex
	attack string
	reply  []byte // that the attack is about
	image  string // path of the image that the last authorization is for
}

func startWire(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "wire NAME DIR")
	s, dir := of(ts), ts.MkAbs(args[1])
	if s.front == nil {
		ts.Fatalf("steal-tls first")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("WRIT_CA")))) {
		ts.Fatalf("no CA in %s", ts.Getenv("WRIT_CA"))
	}
	w := &wire{server: ts.Getenv("WRIT_SERVER"), kept: ts.MkAbs(args[0] + ".reply")}
	w.upstream = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // the device gets its key after the first request
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
				if os.IsNotExist(err) {
					return &tls.Certificate{}, nil // it enrols
				}
				return &c, err
			},
		},
	}}
	w.front = httptest.NewUnstartedServer(w)
	w.front.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*s.front}, ClientAuth: tls.RequestClientCert}
	w.front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.front.StartTLS()
	s.wires[args[0]] = w
	ts.Setenv(args[0], w.front.URL)
}

func (w *wire) close() { w.front.Close() }

func attack(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "attack NAME replay FILE|delay|late|flip|flip-image|forge")
	w := of(ts).wires[args[0]]
	if w == nil {
		ts.Fatalf("there is no wire %s", args[0])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attack, w.reply = args[1], nil
	switch w.attack {
	case "delay", "late", "flip", "flip-image", "forge":
	case "replay":
		usage(ts, neg, args, 3, "attack NAME replay FILE")
		w.reply = []byte(ts.ReadFile(args[2]))
	default:
		ts.Fatalf("there is no attack %s", w.attack)
	}
}

// ServeHTTP is one request of the device. They come one by one.
func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	checkIn := strings.HasSuffix(r.URL.Path, "/check-in")
	if checkIn && w.reply != nil {
		w.answer(rw)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, w.server+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	for _, k := range []string{"Content-Type", "Range"} {
		if v := r.Header.Get(k); v != "" {
			req.Header.Set(k, v)
		}
	}
	res, err := w.upstream.Do(req)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	status := res.StatusCode
	switch {
	case checkIn && status == http.StatusOK:
		body, status = w.change(body)
	case w.attack == "flip-image" && r.URL.Path == w.image && len(body) > 0:
		body[len(body)/2] ^= 1
		w.attack = ""
	}
	for _, k := range []string{"Content-Type", "Content-Range", "Retry-After"} {
		if v := res.Header.Get(k); v != "" {
			rw.Header().Set(k, v)
		}
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(body) // the device is gone: nobody to tell
}

// answer answers a check-in without the server.
func (w *wire) answer(rw http.ResponseWriter) {
	if w.attack == "late" && time.Now().Unix() <= must(authz.Decode(must(authz.DecodeCheckInReply(w.reply)).Authorization)).Claims.Expires {
		rw.Header().Set("Retry-After", "1")
		http.Error(rw, "come back later", http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "application/cbor")
	_, _ = rw.Write(w.reply)
	w.attack, w.reply = "", nil
}

// change is what the attack makes of an answer of the server.
func (w *wire) change(body []byte) ([]byte, int) {
	reply := must(authz.DecodeCheckInReply(body))
	if reply.Action != authz.ActionUpdate {
		return body, http.StatusOK
	}
	for _, a := range reply.Artifacts {
		if a.Kind == authz.ArtifactImage {
			w.image = a.Path
		}
	}
	switch w.attack {
	case "delay":
		w.reply = body
		reply.Action, reply.Authorization, reply.Artifacts = authz.ActionNone, nil, nil
		return must(authz.EncodeCheckInReply(reply)), http.StatusOK
	case "late":
		w.reply = body
		return []byte("come back later"), http.StatusServiceUnavailable
	case "flip":
		reply.Authorization[len(reply.Authorization)-1] ^= 1
	case "forge":
		auth := must(authz.Decode(reply.Authorization))
		_, key, err := ed25519.GenerateKey(rand.Reader)
		forged := must(authz.Sign(must(authz.Encode(auth.Claims)), must(key, err)))
		reply.Authorization = must(authz.AttachReceipt(forged, auth.Receipts[0]))
	default:
		if err := os.WriteFile(w.kept, body, 0o600); err != nil {
			panic(err)
		}
		return body, http.StatusOK
	}
	w.attack = ""
	return must(authz.EncodeCheckInReply(reply)), http.StatusOK
}

// must is for what the server and this test made themselves; the HTTP server
// turns the panic into a broken connection and the script fails.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
