package release

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

// Options configure a [Service].
type Options struct {
	DB        *store.DB
	Ledger    *ledger.Ledger
	Blobs     *blob.Dir
	Custody   signer.Custody   // signs images and statements
	Keystore  *signer.Keystore // knows their public keys
	Approvers *review.Approvers
	Approvals *review.Approvals

	// StatementKeys sign release statements: a classical and an ML-DSA-65 key.
	StatementKeys []fw.KeyName

	// CampaignApproved is told, in the same transaction, that an approval of
	// the plan or a stage of a campaign was recorded (campaign.Service.Approved).
	CampaignApproved func(tx *store.Tx, id fw.CampaignID) error
	// StageDocument returns the bytes that approve a stage (campaign.StageDocument).
	StageDocument func(row store.Campaign, stage int, name string) ([]byte, error)
	// Changed is called after a commit that changed what a product's devices
	// may do; nil: nobody wants to know.
	Changed func(fw.ProductID)
	// MaxUpload is the largest file taken, in bytes; 0 means [DefaultMaxUpload].
	MaxUpload int64
}

// Service keeps products and releases, and takes approvals.
type Service struct {
	o       Options
	uploads *Uploads

	// publishing is held while images are signed: one release at a time keeps
	// disk and memory bounded, and publishing is rare.
	publishing chan struct{}
}

// New returns a Service.
func New(o Options) *Service {
	return &Service{o: o, uploads: newUploads(o.DB, o.Blobs, o.MaxUpload), publishing: make(chan struct{}, 1)}
}

// Uploads returns what takes the files that releases are made of.
func (s *Service) Uploads() *Uploads { return s.uploads }

// Product is what is sold.
type Product struct {
	Product        fw.ProductID
	Name           string
	Hardware       []fw.HardwareID // every compatibility id of its variants
	ImageKey       fw.KeyName      // signs the images of its releases
	Quorum         int             // approvers a release needs, at least 1
	RetentionYears int             // how long evidence about its devices is kept; 0 means 10
	SupportUntil   int64           // end of the support period, Unix seconds; 0: not decided
	Provenance     statement.Rule  // the build provenance its releases need; zero: none
}

// Bounds of a product.
const (
	maxProductName   = 200 // bytes
	maxHardware      = 64
	maxQuorum        = 16
	maxRetention     = 100 // years
	defaultRetention = 10  // years: CRA Article 13(13)
)

// CreateProduct adds a product. Products do not change afterwards.
func (s *Service) CreateProduct(ctx context.Context, p Product, actor fw.PersonID) (store.Product, error) {
	if p.RetentionYears == 0 {
		p.RetentionYears = defaultRetention
	}
	if err := s.checkProduct(p); err != nil {
		return store.Product{}, err
	}
	hardware, err := json.Marshal(p.Hardware)
	if err != nil {
		return store.Product{}, fw.Wrap(fw.Internal, err, "cannot encode the hardware ids")
	}
	var rule []byte
	if !p.Provenance.IsZero() {
		if rule, err = json.Marshal(p.Provenance); err != nil {
			return store.Product{}, fw.Wrap(fw.Internal, err, "cannot encode the provenance rule")
		}
	}
	var row store.Product
	err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		row = store.Product{
			ID: p.Product, Name: p.Name, Hardware: string(hardware), ImageKey: p.ImageKey, Quorum: p.Quorum,
			RetentionYears: p.RetentionYears, SupportUntil: p.SupportUntil, Provenance: string(rule), CreatedAt: tx.Now().Unix(),
		}
		free, err := store.InsertProduct(tx, row)
		if err != nil {
			return err
		}
		if !free {
			return fw.Errorf(fw.Conflict, "there is a product %q already: choose another id", p.Product)
		}
		_, err = s.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeProductCreated, Actor: string(actor),
			Streams: []evidence.StreamID{evidence.ProductStream(p.Product)},
			Data: evidence.Product{
				Product: p.Product, Name: p.Name, Hardware: p.Hardware, ImageKey: p.ImageKey, Quorum: p.Quorum,
				RetentionYears: p.RetentionYears, SupportUntil: p.SupportUntil, Provenance: rule,
			},
		})
		return err
	})
	return row, err
}

func (s *Service) checkProduct(p Product) error {
	if _, err := fw.ParseName("product id", string(p.Product)); err != nil {
		return err
	}
	for _, c := range p.Product {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fw.Errorf(fw.Invalid, "product id %q may hold only lower-case letters, digits and -", p.Product)
		}
	}
	if err := p.Provenance.Check(); err != nil {
		return err
	}
	if err := checkText("product name", p.Name, maxProductName); err != nil {
		return err
	}
	switch {
	case p.Name == "":
		return fw.Errorf(fw.Invalid, "a product needs a name for people to read")
	case p.Quorum < 1 || p.Quorum > maxQuorum:
		return fw.Errorf(fw.Invalid, "the quorum must be 1 to %d approvers, not %d", maxQuorum, p.Quorum)
	case p.RetentionYears < 1 || p.RetentionYears > maxRetention:
		return fw.Errorf(fw.Invalid, "the retention must be 1 to %d years, not %d", maxRetention, p.RetentionYears)
	case p.SupportUntil < 0:
		return fw.Errorf(fw.Invalid, "the end of support must be a time after 1970")
	}
	if err := checkHardware(p.Hardware); err != nil {
		return err
	}
	_, err := s.imageKey(p.ImageKey)
	return err
}

func checkHardware(list []fw.HardwareID) error {
	if len(list) == 0 || len(list) > maxHardware {
		return fw.Errorf(fw.Invalid, "name 1 to %d hardware ids, not %d", maxHardware, len(list))
	}
	seen := make(map[fw.HardwareID]bool, len(list))
	for _, h := range list {
		if _, err := fw.ParseName("hardware id", string(h)); err != nil {
			return err
		}
		if seen[h] {
			return fw.Errorf(fw.Invalid, "hardware id %q is named twice", h)
		}
		seen[h] = true
	}
	return nil
}

// imageKey returns the named key if it can sign images.
func (s *Service) imageKey(name fw.KeyName) (signer.KeyInfo, error) {
	info, err := s.o.Keystore.Public(name)
	switch {
	case fw.KindOf(err) == fw.NotFound:
		return info, fw.Errorf(fw.Invalid, "there is no key %q: make it with writ key create, purpose image", name)
	case err != nil:
		return info, err
	case info.Purpose != fw.PurposeImage:
		return info, fw.Errorf(fw.Invalid, "key %q is for %s: name a key for images", name, info.Purpose)
	case info.State != signer.KeyActive:
		return info, fw.Errorf(fw.Conflict, "key %q is %s: name an active key", name, info.State)
	}
	return info, nil
}

func (s *Service) changed(tx *store.Tx, p fw.ProductID) {
	if s.o.Changed != nil {
		tx.OnCommit(func() { s.o.Changed(p) })
	}
}

func nonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
