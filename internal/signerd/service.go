package signerd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/custody/backends"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/signer"
)

// Service is an open signer.
type Service struct {
	dir    string
	setup  Setup
	ks     *signer.Keystore
	signer *signer.Signer
	desk   *signer.Desk
	orders *orders

	backends []custody.Backend // closed with the service; nil: the caller's

	adopting sync.Mutex // rosters are put on file in order

	mu      sync.Mutex
	answers map[fw.PermitID]signer.Record // of statements and trust bundles, for whoever lost one
	oldest  []fw.PermitID                 // of answers, oldest first
}

// maxAnswers bounds the remembered answers, of a few KiB each.
const maxAnswers = 64

// Options configure a [Service].
type Options struct {
	Dir        string            // the signer's folder, made by writ-signer init
	Passphrase []byte            // of its keys
	Backends   []custody.Backend // where keys are that are not in files
	Now        func() time.Time
	Log        *slog.Logger
}

// Open opens the signer in o.Dir.
func Open(o Options) (*Service, error) {
	dir := o.Dir
	setup, err := readSetup(dir)
	if err != nil {
		return nil, err
	}
	s := &Service{dir: dir, setup: setup, answers: map[fw.PermitID]signer.Record{}}
	if s.ks, err = signer.OpenKeystore(filepath.Join(dir, keysFolder), signer.KeystoreOptions{Passphrase: o.Passphrase, Backends: o.Backends}); err != nil {
		return nil, err
	}
	roots, err := setup.Roots.roots()
	if err != nil {
		return nil, err
	}
	if s.signer, err = signer.Open(s.ks, signer.Options{MinApprovals: setup.MinApprovals, Roots: roots, Custody: signer.CustodyRemote}); err != nil {
		return nil, err
	}
	desk := signer.DeskOptions{Now: o.Now}
	if setup.Log != "" {
		if desk.Log, err = logKey(setup.Log); err != nil {
			return nil, errors.Join(err, s.signer.Close())
		}
	}
	s.desk = signer.NewDesk(s.signer, desk)
	if s.orders, err = openOrders(s.desk, filepath.Join(dir, spoolFolder), o.Now, o.Log); err != nil {
		return nil, errors.Join(err, s.signer.Close())
	}
	return s, nil
}

// Close ends the orders that are being carried out and closes the journal.
func (s *Service) Close() error {
	s.orders.close()
	return errors.Join(s.signer.Close(), backends.Close(s.backends))
}

// run sweeps until ctx ends.
func (s *Service) run(ctx context.Context, log *slog.Logger) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := s.orders.sweep(); err != nil {
				log.Error("old orders cannot be cleared", "error", err)
			}
		}
	}
}

// imageStall is how long an image may stand still on the wire.
const imageStall = time.Minute

// Handler serves the protocol. Allow is asked first on every request.
func (s *Service) Handler(front *httpd.Front, allow func(*http.Request) error) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, route httpd.Route, h httpd.Handler) {
		mux.Handle(pattern, front.Handle(route, func(w http.ResponseWriter, r *http.Request) error {
			if err := allow(r); err != nil {
				return err
			}
			return h(w, r)
		}))
	}
	small, bulk := httpd.Route{}, httpd.Route{Stall: imageStall}
	handle("/", small, httpd.Fallback(mux))
	handle("GET /v1/signer", small, s.info)
	handle("GET /v1/rosters", small, s.rosters)
	handle("POST /v1/rosters", small, s.postRoster)
	handle("POST /v1/orders", small, s.postOrder)
	handle("GET /v1/orders/{permit}", small, s.getOrder)
	handle("PUT /v1/orders/{permit}/input", bulk, s.putInput)
	handle("GET /v1/orders/{permit}/output", bulk, s.getOutput)
	handle("DELETE /v1/orders/{permit}", small, s.deleteOrder)
	handle("POST /v1/statements", small, s.postStatement)
	handle("POST /v1/trust-bundles", small, s.postTrust)
	return mux
}

const mediaJSON = "application/json"

// body reads and parses a request's document.
func body[T any](r *http.Request) (T, error) {
	b, err := httpd.Body(r, maxBody, mediaJSON)
	if err != nil {
		var none T
		return none, err
	}
	return parse[T](b)
}

func answer(w http.ResponseWriter, status int, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

func (s *Service) info(w http.ResponseWriter, _ *http.Request) error {
	i := Info{Version: Version, Log: s.setup.Log, MinApprovals: s.setup.MinApprovals, Roots: s.setup.Roots, Keys: s.ks.List()}
	roster, err := s.desk.Roster()
	if err != nil {
		return err
	}
	if roster != nil {
		i.Roster = roster.Version()
	}
	for _, k := range i.Keys {
		chain, err := s.ks.Chain(k.Name)
		if err != nil {
			return err
		}
		for _, c := range chain {
			if i.Chains == nil {
				i.Chains = map[fw.KeyName][][]byte{}
			}
			i.Chains[k.Name] = append(i.Chains[k.Name], c.Raw)
		}
	}
	return answer(w, http.StatusOK, i)
}

// rosterPage bounds an answer: rosters are at most 2 MiB each, and usually 1 KiB.
const rosterPage = 16

func (s *Service) rosters(w http.ResponseWriter, r *http.Request) error {
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil || after < 0 {
		return fw.Wrap(fw.Invalid, err, "after must be the number of a version, or 0")
	}
	out := Rosters{Envelopes: [][]byte{}}
	for v := after + 1; v <= after+rosterPage; v++ {
		b, err := os.ReadFile(s.rosterPath(v))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fw.Wrap(fw.Unavailable, err, "the signer cannot read roster %d: look at its disk", v)
		}
		out.Envelopes = append(out.Envelopes, b)
	}
	return answer(w, http.StatusOK, out)
}

func (s *Service) rosterPath(version int64) string {
	return filepath.Join(s.dir, rosterDir, strconv.FormatInt(version, 10)+".json")
}

func (s *Service) postRoster(w http.ResponseWriter, r *http.Request) error {
	in, err := body[Roster](r)
	if err != nil {
		return err
	}
	if err := s.adopt(r.Context(), in.Envelope); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// adopt makes a roster the one in force and puts it on file for servers that
// do not have it.
func (s *Service) adopt(ctx context.Context, envelope []byte) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if err := s.desk.AdoptRoster(ctx, envelope); err != nil {
		return err
	}
	roster, err := s.desk.Roster()
	if err != nil {
		return err
	}
	return s.fileRoster(roster, envelope)
}

func (s *Service) fileRoster(roster *approval.Roster, envelope []byte) error {
	path := s.rosterPath(roster.Version())
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot make the folder of rosters")
	}
	return replaceFile(path, envelope)
}

func (s *Service) postOrder(w http.ResponseWriter, r *http.Request) error {
	o, err := body[signer.ImageOrder](r)
	if err != nil {
		return err
	}
	if err := s.adopt(r.Context(), o.Evidence.Roster); err != nil {
		return err
	}
	t, err := s.desk.Image(o)
	if err != nil {
		return err
	}
	st, err := s.orders.take(t)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, st)
}

func permitOf(r *http.Request) fw.PermitID { return fw.PermitID(r.PathValue("permit")) }

func (s *Service) getOrder(w http.ResponseWriter, r *http.Request) error {
	st, err := s.orders.status(permitOf(r))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, st)
}

func (s *Service) putInput(w http.ResponseWriter, r *http.Request) error {
	if err := httpd.MediaType(r, mediaImage); err != nil {
		return err
	}
	st, err := s.orders.receive(r.Context(), permitOf(r), r.ContentLength, r.Body)
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, st)
}

const mediaImage = "application/octet-stream"

func (s *Service) getOutput(w http.ResponseWriter, r *http.Request) error {
	f, record, err := s.orders.output(permitOf(r))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	w.Header().Set("Content-Type", mediaImage)
	w.Header().Set("ETag", `"`+record.Output.Hex()+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

func (s *Service) deleteOrder(w http.ResponseWriter, r *http.Request) error {
	if err := s.orders.drop(permitOf(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) postStatement(w http.ResponseWriter, r *http.Request) error {
	o, err := body[signer.StatementOrder](r)
	if err != nil {
		return err
	}
	if err := s.adopt(r.Context(), o.Evidence.Roster); err != nil {
		return err
	}
	rec, err := s.desk.SignStatement(r.Context(), o)
	return s.reply(w, rec, err)
}

func (s *Service) postTrust(w http.ResponseWriter, r *http.Request) error {
	o, err := body[signer.TrustOrder](r)
	if err != nil {
		return err
	}
	rec, err := s.desk.SignTrustBundle(r.Context(), o)
	return s.reply(w, rec, err)
}

// reply answers with a signing record. Who lost the answer and sends the order
// again, so that its permit is spent, gets the same one.
func (s *Service) reply(w http.ResponseWriter, r signer.Record, err error) error {
	s.mu.Lock()
	if err == nil {
		if len(s.oldest) >= maxAnswers {
			delete(s.answers, s.oldest[0])
			s.oldest = s.oldest[1:]
		}
		s.answers[r.Permit] = r
		s.oldest = append(s.oldest, r.Permit)
	}
	known, ok := s.answers[r.Permit]
	s.mu.Unlock()
	if err != nil && (!ok || fw.KindOf(err) != fw.Conflict) {
		return err
	}
	return answer(w, http.StatusOK, known)
}
