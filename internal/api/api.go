package api

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// KeyMaker makes signing keys and tells devices about them.
type KeyMaker interface {
	CreateKey(ctx context.Context, name fw.KeyName, purpose fw.Purpose, alg signer.Algorithm, actor fw.PersonID) (signer.KeyInfo, error)
	CertifyKey(ctx context.Context, name fw.KeyName, chain []*x509.Certificate, actor fw.PersonID) (signer.KeyInfo, error)
	ListKeys() []signer.KeyInfo
	TrustBundle(ctx context.Context) ([]byte, error)
	LogVerifierKey() string
}

// Options are the services behind the API.
type Options struct {
	Front     *httpd.Front
	Limiter   *httpd.Limiter // for public operations
	DB        *store.DB
	Ledger    *ledger.Ledger
	Access    *access.Access
	Approvers *review.Approvers
	Approvals *review.Approvals
	Authority *enroll.Authority
	Devices   *enroll.Devices
	Enrolment *enroll.Enrolment
	Releases  *release.Service
	Campaigns *campaign.Service
	Keys      KeyMaker
	Version   string
	Now       func() time.Time
}

// prefix is where the API lives.
const prefix = "/api/v1"

// public marks an operation that needs no token.
const public access.Scope = ""

// Operation is one operation and the scope it needs; none: public.
type Operation struct {
	Method, Path string
	Scope        access.Scope
}

// server registers operations.
type server struct {
	o    Options
	api  huma.API
	mux  *http.ServeMux
	list []Operation
	born time.Time
}

// maxBody bounds a JSON body in bytes: a thousand devices with attributes.
const maxBody = 4 << 20

// Register adds the API to mux and returns what it registered.
func Register(mux *http.ServeMux, o Options) []Operation {
	s := &server{o: o, mux: http.NewServeMux(), born: o.Now()}
	errorModel()
	config := huma.DefaultConfig("writ", o.Version)
	config.Info.Description = "Decide which device may install which firmware, and prove it."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = prefix+"/openapi", "", ""
	config.CreateHooks = nil // no $schema links in answers
	config.FieldsOptionalByDefault = true
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "An access token, made with writ token create."}}
	s.api = humago.New(s.mux, config)
	s.api.UseMiddleware(s.authorize)
	s.server()
	s.operators()
	s.products()
	s.devices()
	s.releases()
	s.campaigns()
	s.approvals()
	s.evidence()
	s.handle("/", httpd.Fallback(s.mux))
	mux.Handle(prefix+"/", o.Front.Handle(httpd.Route{Audience: httpd.Operators, Stall: time.Minute}, s.serve))
	return s.list
}

// errorModel makes problems huma's errors. Its variables are the only way in;
// they are set once, because servers of one process share them.
var errorModel = sync.OnceFunc(func() {
	huma.NewError = newProblem
	huma.NewErrorWithContext = refuseInContext
})

// newProblem makes huma's own refusals (bad JSON, unknown members, too large)
// look like every other.
func newProblem(status int, msg string, errs ...error) huma.StatusError {
	kind := fw.Internal
	switch {
	case status == http.StatusRequestEntityTooLarge:
		kind = fw.TooLarge
	case status == http.StatusNotFound:
		kind = fw.NotFound
	case status >= 400 && status < 500:
		kind = fw.Invalid
	}
	var details []string
	for _, e := range errs {
		if e != nil && kind != fw.Internal {
			details = append(details, detailOf(e))
		}
	}
	if len(details) > 0 {
		msg += ": " + strings.Join(details, "; ")
	}
	p := httpd.ProblemOf(fw.Errorf(kind, "%s", msg))
	p.Status, p.Title = status, http.StatusText(status)
	return p
}

// detailOf says what is wrong with one member of a body. Bytes that are not
// base64 are not echoed: they may be a whole file, sent as it is.
func detailOf(err error) string {
	d, ok := errors.AsType[*huma.ErrorDetail](err)
	if !ok || d.Message != validation.MsgExpectedBase64String {
		return err.Error()
	}
	if d.Value == "" {
		return d.Location + " is empty; give the bytes of the file, in base64"
	}
	return d.Location + " is not base64; give the bytes of the file, encoded"
}

type principalKey struct{}

// who returns the caller that authorize let through.
func who(ctx context.Context) access.Principal {
	p, _ := ctx.Value(principalKey{}).(access.Principal)
	return p
}

// scopeKey is where an operation keeps its scope.
const scopeKey = "scope"

// authorize lets a request through if its token has the operation's scope.
func (s *server) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	scope, ok := ctx.Operation().Metadata[scopeKey].(access.Scope)
	if !ok {
		refuse(r.Context(), fw.Errorf(fw.Forbidden, "this operation has no scope and is closed"))
		return
	}
	p, err := s.principal(w, r, scope)
	if err != nil {
		refuse(r.Context(), err)
		return
	}
	next(huma.WithValue(ctx, principalKey{}, p))
}

// principal returns who asks, if they may do what needs scope.
func (s *server) principal(w http.ResponseWriter, r *http.Request, scope access.Scope) (access.Principal, error) {
	if scope == public {
		return access.Principal{}, s.o.Limiter.Allow(r)
	}
	bearer, err := httpd.Bearer(r)
	if err != nil {
		return access.Principal{}, err
	}
	p, err := s.o.Access.Authenticate(r.Context(), bearer, s.o.Now())
	if err != nil {
		return access.Principal{}, err
	}
	httpd.Annotate(w, slog.String("person", string(p.Person)))
	httpd.Annotate(w, slog.String("token_id", p.TokenID))
	return p, p.Require(scope)
}

// body wraps an answer.
type body[T any] struct{ Body T }

// raw is an answer that is not JSON.
type raw struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// document is an answer of exact JSON bytes, which encoding would change.
func document(doc []byte, err error) (*raw, error) {
	return &raw{"application/json", doc}, err
}

// none is an answer without content of interest.
type none struct {
	Body struct{}
}

// op describes an operation.
type op struct {
	method, path string
	scope        access.Scope
	summary      string
}

// register adds an operation whose errors become problems.
func register[I, O any](s *server, o op, f func(context.Context, *I) (*O, error)) {
	s.list = append(s.list, Operation{o.method, prefix + o.path, o.scope})
	huma.Register(s.api, s.describe(o), func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			refuse(ctx, err)
			return nil, httpd.ProblemOf(err)
		}
		return out, nil
	})
}

func (s *server) describe(o op) huma.Operation {
	id := strings.ToLower(o.method) + strings.NewReplacer("/", "-", "{", "", "}", "", ".", "-").Replace(o.path)
	out := huma.Operation{
		OperationID: id, Method: o.method, Path: prefix + o.path, Summary: o.summary, MaxBodyBytes: maxBody, BodyReadTimeout: -1,
		Metadata: map[string]any{scopeKey: o.scope}, Tags: []string{strings.Split(strings.TrimPrefix(o.path, "/"), "/")[0]},
		Errors: []int{http.StatusBadRequest},
	}
	if o.scope != public {
		out.Security = []map[string][]string{{"token": {string(o.scope)}}}
		out.Errors = append(out.Errors, http.StatusUnauthorized, http.StatusForbidden)
	}
	return out
}

// stream adds an operation that does not fit in memory, outside huma but in
// its description, which describe completes.
func (s *server) stream(o op, describe func(*huma.Operation), f func(w http.ResponseWriter, r *http.Request, p access.Principal) error) {
	s.list = append(s.list, Operation{o.method, prefix + o.path, o.scope})
	d := s.describe(o)
	describe(&d)
	problem := map[string]*huma.MediaType{"application/problem+json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[httpd.Problem](), true, "")}}
	for _, status := range d.Errors {
		d.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: problem}
	}
	s.api.OpenAPI().AddOperation(&d)
	s.handle(o.method+" "+prefix+o.path, func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.principal(w, r, o.scope)
		if err != nil {
			return err
		}
		return f(w, r, p)
	})
}

// binary describes bytes.
func binary() map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}
}

// jsonOf describes JSON of type T.
func jsonOf[T any](s *server) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")}}
}

// Paging.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

func limit(n int) int {
	if n <= 0 {
		return defaultLimit
	}
	return min(n, maxLimit)
}

// list makes sure that an empty list is [] and not null.
func list[T any](v []T, err error) (*body[[]T], error) {
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = []T{}
	}
	return &body[[]T]{v}, nil
}

func one[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

// each maps a list.
func each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}
