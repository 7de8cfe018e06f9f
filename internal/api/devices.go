package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/statement"
	"github.com/writ-project/writ/internal/store"
)

func (s *server) products() {
	register(s, op{http.MethodGet, "/products", access.ProductsRead, "The products"}, func(ctx context.Context, _ *empty) (*body[[]apitypes.Product], error) {
		rows, err := store.Products(s.o.DB.Snapshot(ctx))
		return list(each(rows, productOf), err)
	})
	register(s, op{http.MethodGet, "/products/{id}", access.ProductsRead, "A product"}, func(ctx context.Context, in *idPath) (*body[apitypes.Product], error) {
		p, err := store.ProductByID(s.o.DB.Snapshot(ctx), fw.ProductID(in.ID))
		return one(productOf(p), err)
	})
	register(s, op{http.MethodPost, "/products", access.ProductsWrite, "Make a product"}, func(ctx context.Context, in *body[apitypes.Product]) (*body[apitypes.Product], error) {
		p := in.Body
		var rule statement.Rule
		if p.Provenance != nil {
			rule = statement.Rule(*p.Provenance)
		}
		row, err := s.o.Releases.CreateProduct(ctx, release.Product{
			Product: p.ID, Name: p.Name, Hardware: p.Hardware, ImageKey: p.ImageKey, Quorum: p.Quorum, RetentionYears: p.RetentionYears, SupportUntil: p.SupportUntil,
			Provenance: rule,
		}, who(ctx).Person)
		return one(productOf(row), err)
	})
}

func productOf(p store.Product) apitypes.Product {
	out := apitypes.Product{ID: p.ID, Name: p.Name, ImageKey: p.ImageKey, Quorum: p.Quorum, RetentionYears: p.RetentionYears, SupportUntil: p.SupportUntil, CreatedAt: p.CreatedAt}
	_ = json.Unmarshal([]byte(p.Hardware), &out.Hardware) // written by this server; shows as an empty list at worst
	if p.Provenance != "" {
		_ = json.Unmarshal([]byte(p.Provenance), &out.Provenance) // likewise
	}
	return out
}

type deviceQuery struct {
	Product fw.ProductID   `query:"product"`
	State   fw.DeviceState `query:"state"`
	After   fw.DeviceID    `query:"after"`
	Limit   int            `query:"limit" maximum:"1000"`
}

type deviceBody[T any] struct {
	ID   fw.DeviceID `path:"id"`
	Body T
}

type devicePath struct {
	ID fw.DeviceID `path:"id"`
}

func (s *server) devices() {
	register(s, op{http.MethodPost, "/devices/register", access.FactoryWrite, "Register up to 1000 devices from a serial list"}, func(ctx context.Context, in *body[apitypes.Registration]) (*body[[]apitypes.Registered], error) {
		lines := each(in.Body.Devices, func(n apitypes.NewDevice) enroll.NewDevice {
			return enroll.NewDevice{ID: n.ID, Hardware: n.Hardware, Attributes: n.Attributes}
		})
		res, err := s.o.Devices.Register(ctx, in.Body.Product, lines, who(ctx).Person)
		return list(each(res, func(r enroll.Registration) apitypes.Registered {
			return apitypes.Registered{ID: r.ID, Outcome: string(r.Outcome), Detail: r.Detail}
		}), err)
	})
	register(s, op{http.MethodGet, "/devices", access.DevicesRead, "Devices, in order of id"}, func(ctx context.Context, in *deviceQuery) (*body[[]apitypes.Device], error) {
		rows, err := store.Devices(s.o.DB.Snapshot(ctx), store.DeviceFilter{Product: in.Product, State: in.State, After: in.After, Limit: limit(in.Limit)})
		if err != nil {
			return nil, err
		}
		out := make([]apitypes.Device, len(rows))
		for i := range rows {
			if out[i], err = deviceOf(&rows[i]); err != nil {
				return nil, err
			}
		}
		return list(out, nil)
	})
	register(s, op{http.MethodGet, "/devices/{id}", access.DevicesRead, "A device with its certificates and updates"}, func(ctx context.Context, in *devicePath) (*body[apitypes.Device], error) {
		return one(s.device(ctx, in.ID))
	})
	register(s, op{http.MethodPost, "/devices/{id}/token", access.FactoryWrite, "Make a one-time enrolment token; the secret is shown once"}, func(ctx context.Context, in *deviceBody[apitypes.TokenRequest]) (*body[apitypes.EnrolmentToken], error) {
		f := s.o.Enrolment.EnrolmentToken
		if in.Body.Reopen {
			f = s.o.Enrolment.ReopenEnrolment
		}
		t, err := f(ctx, in.ID, time.Duration(in.Body.TTLSeconds)*time.Second, who(ctx).Person)
		if err != nil {
			return nil, err
		}
		return one(apitypes.EnrolmentToken{Device: t.Device, Secret: t.Secret.Reveal(), ExpiresAt: t.ExpiresAt.Unix()}, nil)
	})
	register(s, op{http.MethodPost, "/devices/{id}/attributes", access.DevicesWrite, "Replace what operators say of a device"}, func(ctx context.Context, in *deviceBody[map[string]string]) (*body[apitypes.Device], error) {
		if err := s.o.Devices.SetAttributes(ctx, in.ID, in.Body, who(ctx).Person); err != nil {
			return nil, err
		}
		return one(s.device(ctx, in.ID))
	})
	register(s, op{http.MethodPost, "/devices/{id}/move", access.DevicesRead, "Move a device through its life"}, func(ctx context.Context, in *deviceBody[apitypes.Move]) (*body[apitypes.Device], error) {
		if err := who(ctx).Require(moveScope(in.Body.To)); err != nil {
			return nil, err
		}
		if err := s.o.Devices.Move(ctx, in.ID, in.Body.To, in.Body.Reason, who(ctx).Person); err != nil {
			return nil, err
		}
		return one(s.device(ctx, in.ID))
	})
	register(s, op{http.MethodPost, "/devices/{id}/release-request", access.DevicesSecurity, "Ask for a device to leave quarantine; somebody else approves"}, func(ctx context.Context, in *deviceBody[apitypes.ReleaseRequest]) (*body[apitypes.Document], error) {
		doc, err := s.o.Devices.ProposeRelease(ctx, enroll.ReleaseTerms{Device: in.ID, Reason: in.Body.Reason, Evidence: in.Body.Evidence}, who(ctx).Person)
		return one(apitypes.Document{Document: doc, Digest: fw.DigestOf(doc)}, err)
	})
	register(s, op{http.MethodGet, "/devices/{id}/release-request", access.DevicesRead, "The open request for a device to leave quarantine"}, func(ctx context.Context, in *devicePath) (*body[apitypes.Document], error) {
		doc, _, err := enroll.OpenRelease(s.o.DB.Snapshot(ctx), in.ID)
		return one(apitypes.Document{Document: doc, Digest: fw.DigestOf(doc)}, err)
	})
	register(s, op{http.MethodPost, "/devices/{id}/release", access.DevicesSecurity, "Let a device out of quarantine when its request is approved"}, func(ctx context.Context, in *devicePath) (*body[apitypes.Device], error) {
		if err := s.o.Devices.Release(ctx, in.ID, who(ctx).Person); err != nil {
			return nil, err
		}
		return one(s.device(ctx, in.ID))
	})
	timeline(s, "/devices/{id}/timeline", access.DevicesRead, evidence.DeviceStream, func(q store.Queryer, id fw.DeviceID) error {
		_, err := store.DeviceByID(q, id)
		return err
	})
}

// moveScope is what a move needs beyond seeing the device: whoever may stop a
// device may not be who retires it.
func moveScope(to fw.DeviceState) access.Scope {
	switch to {
	case fw.DeviceActive, fw.DeviceSuspended, fw.DeviceClaimed:
		return access.DevicesWrite
	case fw.DeviceManufactured, fw.DeviceQuarantined, fw.DeviceRevoked, fw.DeviceDecommissioned:
	}
	return access.DevicesSecurity
}

func deviceOf(d *store.Device) (apitypes.Device, error) {
	f, err := campaign.DeviceFacts(d)
	return apitypes.Device{
		ID: d.ID, Product: d.Product, Hardware: d.Hardware, State: d.State, StateReason: d.StateReason, StateAt: d.StateAt,
		Attributes: f.Attributes, OptedOut: d.OptedOut,
		Components: each(f.Components, func(c policy.ComponentFacts) apitypes.Component {
			return apitypes.Component{Name: c.Name, Version: c.Version, Digest: c.Digest, SecurityCounter: c.SecurityCounter, Assurance: c.Assurance}
		}),
	}, err
}

func (s *server) device(ctx context.Context, id fw.DeviceID) (apitypes.Device, error) {
	q := s.o.DB.Snapshot(ctx)
	row, err := store.DeviceByID(q, id)
	if err != nil {
		return apitypes.Device{}, err
	}
	d, err := deviceOf(&row)
	if err != nil {
		return d, err
	}
	if d.LastSeen, err = store.LastSeen(q, id); err != nil {
		return d, err
	}
	certs, err := store.CertificatesOfDevice(q, id)
	if err != nil {
		return d, err
	}
	for _, c := range certs {
		status := pki.DeviceProfile{}.Status(time.Unix(c.NotBefore, 0), time.Unix(c.NotAfter, 0), s.o.Now())
		if s.o.Now().Unix() >= s.o.Devices.RenewAt(&c) && status == pki.CertValid {
			status = pki.CertRenewalDue
		}
		d.Certificates = append(d.Certificates, apitypes.Certificate{Serial: c.Serial, State: c.State, Status: string(status), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	ups, err := store.UpdatesOfDevice(q, id, defaultLimit)
	d.Updates = each(ups, updateOf)
	return d, err
}

func updateOf(u store.Update) apitypes.Update {
	return apitypes.Update{
		ID: u.ID, Campaign: u.Campaign, Device: u.Device, State: u.State, Stage: u.Stage, Attempts: u.Attempts,
		Failures: u.Failures, Reason: u.Reason, Authorization: u.Authorization, UpdatedAt: u.UpdatedAt,
	}
}
