package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/fw"
)

// The groups of operations.
type (
	// Server is about the server itself: who am I, its keys, its CA.
	Server struct{ c *Client }
	// Operators is about people, their tokens and the roster of approvers.
	Operators struct{ c *Client }
	// Products is about what is sold.
	Products struct{ c *Client }
	// Devices is about units, their identities and their life.
	Devices struct{ c *Client }
	// Releases is about versions of firmware.
	Releases struct{ c *Client }
	// Policies is about conditions.
	Policies struct{ c *Client }
	// Campaigns is about releases on their way to devices.
	Campaigns struct{ c *Client }
	// Approvals is about signatures over exact bytes.
	Approvals struct{ c *Client }
	// Evidence is about the log and its bundles.
	Evidence struct{ c *Client }
)

// Server returns the operations about the server itself.
func (c *Client) Server() Server { return Server{c} }

// Operators returns the operations about people.
func (c *Client) Operators() Operators { return Operators{c} }

// Products returns the operations about products.
func (c *Client) Products() Products { return Products{c} }

// Devices returns the operations about devices.
func (c *Client) Devices() Devices { return Devices{c} }

// Releases returns the operations about releases.
func (c *Client) Releases() Releases { return Releases{c} }

// Policies returns the operations about policies.
func (c *Client) Policies() Policies { return Policies{c} }

// Campaigns returns the operations about campaigns.
func (c *Client) Campaigns() Campaigns { return Campaigns{c} }

// Approvals returns the operations about approvals.
func (c *Client) Approvals() Approvals { return Approvals{c} }

// Evidence returns the operations about evidence.
func (c *Client) Evidence() Evidence { return Evidence{c} }

// WhoAmI returns whose token this is.
func (s Server) WhoAmI(ctx context.Context) (apitypes.Identity, error) {
	return get[apitypes.Identity](ctx, s.c, "whoami", nil)
}

// Status returns what the server says of itself.
func (s Server) Status(ctx context.Context) (apitypes.Status, error) {
	return get[apitypes.Status](ctx, s.c, "status", nil)
}

// CA returns the certificate of the CA, PEM. It needs no token: compare its
// fingerprint before believing it.
func (s Server) CA(ctx context.Context) ([]byte, error) { return get[[]byte](ctx, s.c, "ca.pem", nil) }

// CRL returns the certificate revocation list, DER. It needs no token.
func (s Server) CRL(ctx context.Context) ([]byte, error) { return get[[]byte](ctx, s.c, "crl", nil) }

// TrustBundle returns the newest device trust bundle, a DSSE envelope. It
// needs no token.
func (s Server) TrustBundle(ctx context.Context) ([]byte, error) {
	return get[[]byte](ctx, s.c, "trust-bundle", nil)
}

// Keys lists the signing keys.
func (s Server) Keys(ctx context.Context) ([]apitypes.Key, error) {
	return get[[]apitypes.Key](ctx, s.c, "keys", nil)
}

// CreateKey makes a signing key.
func (s Server) CreateKey(ctx context.Context, k apitypes.NewKey) (apitypes.Key, error) {
	return post[apitypes.Key](ctx, s.c, "keys", k)
}

// CertifyKey gives an image key its certificates.
func (s Server) CertifyKey(ctx context.Context, name fw.KeyName, k apitypes.KeyChain) (apitypes.Key, error) {
	return post[apitypes.Key](ctx, s.c, "keys/"+url.PathEscape(string(name))+"/certificates", k)
}

// People lists the operators.
func (s Operators) People(ctx context.Context) ([]apitypes.Person, error) {
	return get[[]apitypes.Person](ctx, s.c, "persons", nil)
}

// AddPerson adds an operator.
func (s Operators) AddPerson(ctx context.Context, p apitypes.Person) (apitypes.Person, error) {
	return post[apitypes.Person](ctx, s.c, "persons", p)
}

// DisablePerson disables an operator for good.
func (s Operators) DisablePerson(ctx context.Context, id fw.PersonID) error {
	_, err := post[struct{}](ctx, s.c, "persons/"+seg(id)+"/disable", nil)
	return err
}

// Tokens lists access tokens; person may be empty.
func (s Operators) Tokens(ctx context.Context, person fw.PersonID) ([]apitypes.Token, error) {
	q := url.Values{}
	if person != "" {
		q.Set("person", string(person))
	}
	return get[[]apitypes.Token](ctx, s.c, "tokens", q)
}

// CreateToken makes an access token. Its secret is in the answer and nowhere
// else.
func (s Operators) CreateToken(ctx context.Context, t apitypes.NewToken) (apitypes.Token, error) {
	return post[apitypes.Token](ctx, s.c, "tokens", t)
}

// RevokeToken revokes an access token: one's own, or as an admin anybody's.
func (s Operators) RevokeToken(ctx context.Context, id string) error {
	_, err := post[struct{}](ctx, s.c, "tokens/"+seg(id)+"/revoke", nil)
	return err
}

// Roster returns the signed list of approvers.
func (s Operators) Roster(ctx context.Context) (apitypes.Roster, error) {
	return get[apitypes.Roster](ctx, s.c, "approvers", nil)
}

// AddApprover puts a person's SSH key on the roster.
func (s Operators) AddApprover(ctx context.Context, a apitypes.NewApprover) (apitypes.Roster, error) {
	return post[apitypes.Roster](ctx, s.c, "approvers", a)
}

// RemoveApprover takes a person off the roster.
func (s Operators) RemoveApprover(ctx context.Context, person fw.PersonID) (apitypes.Roster, error) {
	var out apitypes.Roster
	err := s.c.do(ctx, request{method: http.MethodDelete, path: "approvers/" + seg(person)}, &out)
	return out, err
}

// List lists the products.
func (s Products) List(ctx context.Context) ([]apitypes.Product, error) {
	return get[[]apitypes.Product](ctx, s.c, "products", nil)
}

// Get returns a product.
func (s Products) Get(ctx context.Context, id fw.ProductID) (apitypes.Product, error) {
	return get[apitypes.Product](ctx, s.c, "products/"+seg(id), nil)
}

// Create makes a product.
func (s Products) Create(ctx context.Context, p apitypes.Product) (apitypes.Product, error) {
	return post[apitypes.Product](ctx, s.c, "products", p)
}

// DeviceFilter selects devices, in order of id.
type DeviceFilter struct {
	Product fw.ProductID
	State   fw.DeviceState
	After   fw.DeviceID
	Limit   int // 0: 100
}

// Register registers up to 1000 devices and says what became of each line.
func (s Devices) Register(ctx context.Context, r apitypes.Registration) ([]apitypes.Registered, error) {
	var out []apitypes.Registered
	err := s.c.do(ctx, request{method: http.MethodPost, path: "devices/register", body: r, repeat: true}, &out)
	return out, err
}

// List lists devices.
func (s Devices) List(ctx context.Context, f DeviceFilter) ([]apitypes.Device, error) {
	q := page(string(f.After), f.Limit)
	if f.Product != "" {
		q.Set("product", string(f.Product))
	}
	if f.State != "" {
		q.Set("state", string(f.State))
	}
	return get[[]apitypes.Device](ctx, s.c, "devices", q)
}

// Get returns a device with its certificates and updates.
func (s Devices) Get(ctx context.Context, id fw.DeviceID) (apitypes.Device, error) {
	return get[apitypes.Device](ctx, s.c, "devices/"+seg(id), nil)
}

// Token makes a one-time enrolment token.
func (s Devices) Token(ctx context.Context, id fw.DeviceID, r apitypes.TokenRequest) (apitypes.EnrolmentToken, error) {
	return post[apitypes.EnrolmentToken](ctx, s.c, "devices/"+seg(id)+"/token", r)
}

// SetAttributes replaces what operators say of a device.
func (s Devices) SetAttributes(ctx context.Context, id fw.DeviceID, attributes map[string]string) (apitypes.Device, error) {
	return post[apitypes.Device](ctx, s.c, "devices/"+seg(id)+"/attributes", attributes)
}

// Move moves a device through its life.
func (s Devices) Move(ctx context.Context, id fw.DeviceID, m apitypes.Move) (apitypes.Device, error) {
	return post[apitypes.Device](ctx, s.c, "devices/"+seg(id)+"/move", m)
}

// RequestRelease asks for a device to leave quarantine, and returns the bytes
// that somebody else must approve.
func (s Devices) RequestRelease(ctx context.Context, id fw.DeviceID, r apitypes.ReleaseRequest) (apitypes.Document, error) {
	return post[apitypes.Document](ctx, s.c, "devices/"+seg(id)+"/release-request", r)
}

// OpenRequest returns the open request for a device to leave quarantine.
func (s Devices) OpenRequest(ctx context.Context, id fw.DeviceID) (apitypes.Document, error) {
	return get[apitypes.Document](ctx, s.c, "devices/"+seg(id)+"/release-request", nil)
}

// Release lets a device out of quarantine when the request is approved.
func (s Devices) Release(ctx context.Context, id fw.DeviceID) (apitypes.Device, error) {
	return post[apitypes.Device](ctx, s.c, "devices/"+seg(id)+"/release", nil)
}

// Timeline returns a device's evidence records from number after+1 of its
// stream.
func (s Devices) Timeline(ctx context.Context, id fw.DeviceID, after int64, limit int) ([]apitypes.Record, error) {
	return get[[]apitypes.Record](ctx, s.c, "devices/"+seg(id)+"/timeline", page(strconv.FormatInt(after, 10), limit))
}

// ReleaseFilter selects releases, newest first.
type ReleaseFilter struct {
	Product fw.ProductID // empty: any
	After   fw.ReleaseID // the last one of the page before; empty: from the newest
	Limit   int          // 0: 100, at most 1000
}

// List lists releases, newest first.
func (s Releases) List(ctx context.Context, f ReleaseFilter) ([]apitypes.Release, error) {
	q := page(string(f.After), f.Limit)
	if f.Product != "" {
		q.Set("product", string(f.Product))
	}
	return get[[]apitypes.Release](ctx, s.c, "releases", q)
}

// Get returns a release.
func (s Releases) Get(ctx context.Context, id fw.ReleaseID) (apitypes.Release, error) {
	return get[apitypes.Release](ctx, s.c, "releases/"+seg(id), nil)
}

// Propose proposes a release, ready to be approved.
func (s Releases) Propose(ctx context.Context, d apitypes.Draft) (apitypes.Release, error) {
	return post[apitypes.Release](ctx, s.c, "releases", d)
}

// Edit replaces what is proposed, which voids the approvals.
func (s Releases) Edit(ctx context.Context, id fw.ReleaseID, d apitypes.Draft) (apitypes.Release, error) {
	var out apitypes.Release
	err := s.c.do(ctx, request{method: http.MethodPut, path: "releases/" + seg(id), body: d}, &out)
	return out, err
}

// Publish has an approved release signed, verified and published.
func (s Releases) Publish(ctx context.Context, id fw.ReleaseID) (apitypes.Release, error) {
	var out apitypes.Release
	err := s.c.do(ctx, request{method: http.MethodPost, path: "releases/" + seg(id) + "/publish", body: struct{}{}, repeat: true}, &out)
	return out, err
}

// Withdraw takes a release back for ever.
func (s Releases) Withdraw(ctx context.Context, id fw.ReleaseID, reason string) (apitypes.Release, error) {
	return post[apitypes.Release](ctx, s.c, "releases/"+seg(id)+"/withdraw", apitypes.Reason{Reason: reason})
}

// Timeline returns a release's evidence records from number after+1 of its
// stream: what was proposed, approved, signed and refused.
func (s Releases) Timeline(ctx context.Context, id fw.ReleaseID, after int64, limit int) ([]apitypes.Record, error) {
	return get[[]apitypes.Record](ctx, s.c, "releases/"+seg(id)+"/timeline", page(strconv.FormatInt(after, 10), limit))
}

// Document returns a release's manifest, exactly the bytes that approvers sign.
func (s Releases) Document(ctx context.Context, id fw.ReleaseID) ([]byte, error) {
	return get[[]byte](ctx, s.c, "releases/"+seg(id)+"/document", nil)
}

// List lists policies, newest first.
func (s Policies) List(ctx context.Context) ([]apitypes.Policy, error) {
	return get[[]apitypes.Policy](ctx, s.c, "policies", nil)
}

// Get returns a policy with its document.
func (s Policies) Get(ctx context.Context, d fw.Digest) (apitypes.Policy, error) {
	return get[apitypes.Policy](ctx, s.c, "policies/"+seg(d.String()), nil)
}

// Add stores a policy document, exact bytes.
func (s Policies) Add(ctx context.Context, document []byte) (apitypes.Policy, error) {
	return post[apitypes.Policy](ctx, s.c, "policies", apitypes.Document{Document: document, Digest: fw.DigestOf(document)})
}

// CampaignFilter selects campaigns, newest first.
type CampaignFilter struct {
	Product fw.ProductID  // empty: any
	After   fw.CampaignID // the last one of the page before; empty: from the newest
	Limit   int           // 0: 100, at most 1000
}

// List lists campaigns, newest first.
func (s Campaigns) List(ctx context.Context, f CampaignFilter) ([]apitypes.Campaign, error) {
	q := page(string(f.After), f.Limit)
	if f.Product != "" {
		q.Set("product", string(f.Product))
	}
	return get[[]apitypes.Campaign](ctx, s.c, "campaigns", q)
}

// Get returns a campaign.
func (s Campaigns) Get(ctx context.Context, id fw.CampaignID) (apitypes.Campaign, error) {
	return get[apitypes.Campaign](ctx, s.c, "campaigns/"+seg(id), nil)
}

// Propose proposes a campaign, ready to be approved.
func (s Campaigns) Propose(ctx context.Context, plan fw.Plan) (apitypes.Campaign, error) {
	return post[apitypes.Campaign](ctx, s.c, "campaigns", plan)
}

// Edit replaces the plan of a campaign that has not started, which voids the
// approvals.
func (s Campaigns) Edit(ctx context.Context, id fw.CampaignID, plan fw.Plan) (apitypes.Campaign, error) {
	var out apitypes.Campaign
	err := s.c.do(ctx, request{method: http.MethodPut, path: "campaigns/" + seg(id), body: plan}, &out)
	return out, err
}

// Start starts an approved campaign.
func (s Campaigns) Start(ctx context.Context, id fw.CampaignID) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "start", apitypes.Operation{})
}

// Pause stops new authorizations.
func (s Campaigns) Pause(ctx context.Context, id fw.CampaignID, note string) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "pause", apitypes.Operation{Note: note})
}

// Resume continues a paused campaign and acknowledges its failures.
func (s Campaigns) Resume(ctx context.Context, id fw.CampaignID, note string) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "resume", apitypes.Operation{Note: note})
}

// Abort ends a campaign.
func (s Campaigns) Abort(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "abort", o)
}

// EndRollback declares a rollback done although devices remain.
func (s Campaigns) EndRollback(ctx context.Context, id fw.CampaignID, note string) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "end-rollback", apitypes.Operation{Note: note})
}

// OpenStage opens a stage that waits for approval.
func (s Campaigns) OpenStage(ctx context.Context, id fw.CampaignID, stage int) (apitypes.Campaign, error) {
	return s.operate(ctx, id, "stages/"+strconv.Itoa(stage)+"/open", apitypes.Operation{})
}

func (s Campaigns) operate(ctx context.Context, id fw.CampaignID, what string, o apitypes.Operation) (apitypes.Campaign, error) {
	return post[apitypes.Campaign](ctx, s.c, "campaigns/"+seg(id)+"/"+what, o)
}

// Updates lists a campaign's devices, in order of device id.
func (s Campaigns) Updates(ctx context.Context, id fw.CampaignID, after fw.DeviceID, limit int) ([]apitypes.Update, error) {
	return get[[]apitypes.Update](ctx, s.c, "campaigns/"+seg(id)+"/updates", page(string(after), limit))
}

// Document returns a campaign's plan, exactly the bytes that approvers sign.
// Those of a stage are in [Approvals.Get].
func (s Campaigns) Document(ctx context.Context, id fw.CampaignID) ([]byte, error) {
	return get[[]byte](ctx, s.c, "campaigns/"+seg(id)+"/document", nil)
}

// Get returns the exact bytes to be approved and who approved them. Stage
// counts for subject type stage only.
func (s Approvals) Get(ctx context.Context, t apitypes.SubjectType, id string, stage int) (apitypes.Approvals, error) {
	q := url.Values{"subject_type": {string(t)}, "id": {id}, "stage": {strconv.Itoa(stage)}}
	return get[apitypes.Approvals](ctx, s.c, "approvals", q)
}

// Submit submits the caller's signature over those bytes.
func (s Approvals) Submit(ctx context.Context, a apitypes.NewApproval) (apitypes.Approvals, error) {
	var out apitypes.Approvals
	err := s.c.do(ctx, request{method: http.MethodPost, path: "approvals", body: a, repeat: true}, &out)
	return out, err
}

// Records returns evidence records from index from.
func (s Evidence) Records(ctx context.Context, from int64, limit int) ([]apitypes.Record, error) {
	return get[[]apitypes.Record](ctx, s.c, "records", page(strconv.FormatInt(from, 10), limit))
}

// Record returns one record with its receipt.
func (s Evidence) Record(ctx context.Context, index int64) (apitypes.Record, error) {
	return get[apitypes.Record](ctx, s.c, "records/"+strconv.FormatInt(index, 10), nil)
}

// Campaign returns a campaign's records, in order, without the first after.
func (s Evidence) Campaign(ctx context.Context, id fw.CampaignID, after int64, limit int) ([]apitypes.Record, error) {
	return get[[]apitypes.Record](ctx, s.c, "campaigns/"+seg(id)+"/timeline", page(strconv.FormatInt(after, 10), limit))
}

// Release returns a release's records, in order, without the first after.
func (s Evidence) Release(ctx context.Context, id fw.ReleaseID, after int64, limit int) ([]apitypes.Record, error) {
	return get[[]apitypes.Record](ctx, s.c, "releases/"+seg(id)+"/timeline", page(strconv.FormatInt(after, 10), limit))
}

// Checkpoint returns the newest checkpoint, a signed note.
func (s Evidence) Checkpoint(ctx context.Context) ([]byte, error) {
	return get[[]byte](ctx, s.c, "checkpoint", nil)
}

// Bundle writes a bundle to w. Progress is called with the bytes so far.
func (s Evidence) Bundle(ctx context.Context, q apitypes.BundleQuery, w io.Writer, progress func(done int64)) error {
	res, err := s.c.send(ctx, request{method: http.MethodPost, path: "bundles", body: q})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(&counted{w: w, report: progress}, res.Body); err != nil {
		return fw.Wrap(fw.Unavailable, err, "the bundle was cut short: export it again")
	}
	return nil
}

// counted is a writer that tells how much went through it.
type counted struct {
	w      io.Writer
	n      int64
	report func(done int64)
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	if c.report != nil {
		c.report(c.n)
	}
	return n, err
}
