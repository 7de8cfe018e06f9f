// Package operator plays the people of a maker for the demonstration and the
// benchmark: an engineer who proposes, and approvers with SSH keys of their
// own who sign what she proposed.
//
// # What it promises
//
// The crew uses the server's own services and holds no rights of its own: the
// approvals are real SSH signatures over the exact bytes, made with keys that
// are on the signed roster, by people other than the proposer. What a crew
// does in a process of the demonstration, people do with the writ command.
package operator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/store"
)

// The people of a crew.
const (
	Engineer fw.PersonID = "erin"  // proposes releases and campaigns
	Approver fw.PersonID = "alice" // approves them
	Officer  fw.PersonID = "oscar" // quarantines and revokes; approves releases from quarantine
)

// Crew is the people of a maker and their keys.
type Crew struct {
	s    *server.Server
	keys map[fw.PersonID]ssh.Signer
}

// NewCrew adds the people to a fresh server, and the approvers to its roster.
func NewCrew(ctx context.Context, s *server.Server) (*Crew, error) {
	c := &Crew{s: s, keys: make(map[fw.PersonID]ssh.Signer)}
	for id, name := range map[fw.PersonID]string{Engineer: "Erin, release engineer", Approver: "Alice, approver", Officer: "Oscar, security officer"} {
		if err := s.Access.CreatePerson(ctx, access.Local(), string(id), name); err != nil {
			return nil, err
		}
	}
	for _, id := range []fw.PersonID{Engineer, Approver, Officer} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fw.Wrap(fw.Internal, err, "cannot make an SSH key")
		}
		if c.keys[id], err = ssh.NewSignerFromKey(key); err != nil {
			return nil, fw.Wrap(fw.Internal, err, "cannot use an SSH key")
		}
		if id == Engineer {
			continue // she has a key, and it is on no roster
		}
		line := string(ssh.MarshalAuthorizedKey(c.keys[id].PublicKey()))
		if _, err := s.Approvers.AddApprover(ctx, id, line, access.BootstrapPerson); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Product makes a product with one hardware.
func (c *Crew) Product(ctx context.Context, id fw.ProductID, name string, hardware fw.HardwareID) error {
	_, err := c.s.Releases.CreateProduct(ctx, release.Product{Product: id, Name: name, Hardware: []fw.HardwareID{hardware}, ImageKey: server.ImageKeyName, Quorum: 1}, Engineer)
	return err
}

// Firmware is what the engineer proposes as a release with one component.
type Firmware struct {
	Product  fw.ProductID
	Version  string
	Format   string
	Counter  uint64
	Type     fw.ReleaseType
	Advisory string
	Notes    string
	Image    []byte
}

// Publish takes a release from upload to published: the engineer proposes, an
// approver signs, the signer signs, the verifier agrees.
func (c *Crew) Publish(ctx context.Context, f Firmware) (store.Release, error) {
	r, err := c.Propose(ctx, f)
	if err != nil {
		return r, err
	}
	if err := c.ApproveRelease(ctx, Approver, r); err != nil {
		return r, err
	}
	return c.s.Releases.Publish(ctx, r.ID, Engineer)
}

// Propose uploads the image and proposes the release.
func (c *Crew) Propose(ctx context.Context, f Firmware) (store.Release, error) {
	up := c.s.Releases.Uploads()
	d := fw.DigestOf(f.Image)
	u, err := up.Start(ctx, Engineer, d, int64(len(f.Image)))
	if err != nil {
		return store.Release{}, err
	}
	if !u.Done {
		if _, err := up.Write(ctx, Engineer, u.ID, u.Offset, bytes.NewReader(f.Image[u.Offset:])); err != nil {
			return store.Release{}, err
		}
		if _, err := up.Finish(ctx, Engineer, u.ID); err != nil {
			return store.Release{}, err
		}
	}
	return c.s.Releases.Propose(ctx, release.Draft{
		Product: f.Product, Version: f.Version, Type: f.Type, Advisory: f.Advisory, Notes: f.Notes,
		Components: []release.DraftComponent{{Name: fw.MainComponent, Format: f.Format, Input: d, SecurityCounter: f.Counter}},
	}, Engineer)
}

// ApproveRelease signs a release's manifest as person.
func (c *Crew) ApproveRelease(ctx context.Context, person fw.PersonID, r store.Release) error {
	g, err := c.sign(person, r.Manifest)
	if err != nil {
		return err
	}
	_, err = c.s.Releases.ApproveRelease(ctx, r.ID, g)
	return err
}

// Campaign proposes a campaign, has it approved, and starts it.
func (c *Crew) Campaign(ctx context.Context, plan fw.Plan) (store.Campaign, error) {
	row, err := c.s.Campaigns.Propose(ctx, plan, Engineer)
	if err != nil {
		return row, err
	}
	g, err := c.sign(Approver, row.Plan)
	if err != nil {
		return row, err
	}
	if _, err := c.s.Releases.ApproveCampaign(ctx, row.ID, g); err != nil {
		return row, err
	}
	return c.s.Campaigns.Start(ctx, row.ID, Engineer)
}

func (c *Crew) sign(person fw.PersonID, doc []byte) (release.Signature, error) {
	key, ok := c.keys[person]
	if !ok {
		return release.Signature{}, fw.Errorf(fw.Forbidden, "%s has no approver key", person)
	}
	armored, err := approval.Sign(doc, key)
	if err != nil {
		return release.Signature{}, err
	}
	return release.Signature{Person: person, Subject: fw.DigestOf(doc), Armored: string(armored)}, nil
}
