package api

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

type empty struct{}

func (s *server) server() {
	register(s, op{http.MethodGet, "/ca.pem", public, "The CA's certificate, to be compared by its fingerprint"}, func(context.Context, *empty) (*raw, error) {
		return &raw{"application/x-pem-file", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.o.Authority.CA().Raw})}, nil
	})
	register(s, op{http.MethodGet, "/crl", public, "The certificate revocation list"}, func(ctx context.Context, _ *empty) (*raw, error) {
		der, err := s.o.Authority.CRL(ctx)
		return &raw{"application/pkix-crl", der}, err
	})
	register(s, op{http.MethodGet, "/trust-bundle", public, "The newest device trust bundle"}, func(ctx context.Context, _ *empty) (*raw, error) {
		b, err := s.o.Keys.TrustBundle(ctx)
		return &raw{"application/json", b}, err
	})
	register(s, op{http.MethodGet, "/whoami", access.ProductsRead, "Whose token this is"}, func(ctx context.Context, _ *empty) (*body[apitypes.Identity], error) {
		p := who(ctx)
		return one(apitypes.Identity{Person: p.Person, Token: p.TokenID, Roles: p.Roles}, nil)
	})
	register(s, op{http.MethodGet, "/status", access.ProductsRead, "What the server says of itself"}, func(ctx context.Context, _ *empty) (*body[apitypes.Status], error) {
		n, err := store.CountDevices(s.o.DB.Snapshot(ctx), "")
		database := "postgres"
		if s.o.DB.Embedded() {
			database = "sqlite"
		}
		return one(apitypes.Status{
			Version: s.o.Version, Log: s.o.Ledger.Origin(), LogKey: s.o.Keys.LogVerifierKey(), Records: s.o.Ledger.Head().Size, Devices: n,
			Database: database, StartedAt: s.born.Unix(), UptimeSeconds: int64(s.o.Now().Sub(s.born) / time.Second),
		}, err)
	})
	register(s, op{http.MethodGet, "/keys", access.KeysRead, "The signing keys, public halves"}, func(context.Context, *empty) (*body[[]apitypes.Key], error) {
		var out []apitypes.Key
		for _, k := range s.o.Keys.ListKeys() {
			key, err := keyOf(k)
			if err != nil {
				return nil, err
			}
			out = append(out, key)
		}
		return list(out, nil)
	})
	register(s, op{http.MethodPost, "/keys", access.KeysAdmin, "Make a signing key"}, func(ctx context.Context, in *body[apitypes.NewKey]) (*body[apitypes.Key], error) {
		info, err := s.o.Keys.CreateKey(ctx, in.Body.Name, in.Body.Purpose, signer.Algorithm(in.Body.Algorithm), who(ctx).Person)
		if err != nil {
			return nil, err
		}
		return one(keyOf(info))
	})
	register(s, op{http.MethodPost, "/keys/{id}/certificates", access.KeysAdmin, "Give an image key its certificates"}, func(ctx context.Context, in *struct {
		ID   string `path:"id"`
		Body apitypes.KeyChain
	},
	) (*body[apitypes.Key], error) {
		chain, err := parseChain(in.Body.Certificates)
		if err != nil {
			return nil, err
		}
		info, err := s.o.Keys.CertifyKey(ctx, fw.KeyName(in.ID), chain, who(ctx).Person)
		if err != nil {
			return nil, err
		}
		return one(keyOf(info))
	})
}

// parseChain reads certificates in PEM.
func parseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "the PEM holds %s and not only certificates", block.Type)
		}
		chain = append(chain, c)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fw.Errorf(fw.Invalid, "there is something that is no PEM after the certificates")
	}
	return chain, nil
}

func keyOf(k signer.KeyInfo) (apitypes.Key, error) {
	pub, err := k.Public()
	if err != nil {
		return apitypes.Key{}, err
	}
	der, err := dsse.MarshalPublicKey(pub)
	if err != nil {
		return apitypes.Key{}, fw.Wrap(fw.Corrupt, err, "key %s cannot be encoded", k.Name)
	}
	return apitypes.Key{
		Name: k.Name, Purpose: k.Purpose, Algorithm: string(k.Algorithm), KeyID: k.KeyID, State: string(k.State), CreatedAt: k.CreatedAt,
		Public: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}, nil
}

type personPath struct {
	Person fw.PersonID `path:"person"`
}

type idPath struct {
	ID string `path:"id"`
}

func (s *server) operators() {
	register(s, op{http.MethodGet, "/persons", access.OperatorsRead, "The operators"}, func(ctx context.Context, _ *empty) (*body[[]apitypes.Person], error) {
		rows, err := s.o.Access.People(ctx)
		return list(each(rows, personOf), err)
	})
	register(s, op{http.MethodPost, "/persons", access.OperatorsAdmin, "Add an operator"}, func(ctx context.Context, in *body[apitypes.Person]) (*body[apitypes.Person], error) {
		err := s.o.Access.CreatePerson(ctx, who(ctx), string(in.Body.ID), in.Body.Name)
		return one(apitypes.Person{ID: in.Body.ID, Name: in.Body.Name}, err)
	})
	register(s, op{http.MethodPost, "/persons/{person}/disable", access.OperatorsAdmin, "Disable an operator for good"}, func(ctx context.Context, in *personPath) (*none, error) {
		return &none{}, s.o.Access.DisablePerson(ctx, who(ctx), in.Person)
	})
	register(s, op{http.MethodGet, "/tokens", access.OperatorsRead, "Access tokens, without their secrets"}, func(ctx context.Context, in *struct {
		Person fw.PersonID `query:"person"`
	},
	) (*body[[]apitypes.Token], error) {
		rows, err := s.o.Access.ListTokens(ctx, in.Person)
		return list(each(rows, tokenOf), err)
	})
	register(s, op{http.MethodPost, "/tokens", access.OperatorsAdmin, "Make an access token; the secret is shown once"}, func(ctx context.Context, in *body[apitypes.NewToken]) (*body[apitypes.Token], error) {
		t := in.Body
		issued, err := s.o.Access.CreateToken(ctx, who(ctx), access.TokenRequest{Person: t.Person, Name: t.Name, Roles: t.Roles, TTL: time.Duration(t.TTLSeconds) * time.Second})
		if err != nil {
			return nil, err
		}
		out := tokenOf(issued.Token)
		out.Secret = issued.Secret.Reveal()
		return one(out, nil)
	})
	register(s, op{http.MethodPost, "/tokens/{id}/revoke", access.TokensOwn, "Revoke an access token of one's own; an admin, anybody's"}, func(ctx context.Context, in *idPath) (*none, error) {
		return &none{}, s.o.Access.RevokeToken(ctx, who(ctx), in.ID)
	})
	register(s, op{http.MethodGet, "/approvers", access.KeysRead, "The signed roster of approvers"}, func(ctx context.Context, _ *empty) (*body[apitypes.Roster], error) {
		return s.roster(ctx)
	})
	register(s, op{http.MethodPost, "/approvers", access.OperatorsAdmin, "Put a person's SSH key on the roster"}, func(ctx context.Context, in *body[apitypes.NewApprover]) (*body[apitypes.Roster], error) {
		if _, err := s.o.Approvers.AddApprover(ctx, in.Body.Person, in.Body.Key, who(ctx).Person); err != nil {
			return nil, err
		}
		return s.roster(ctx)
	})
	register(s, op{http.MethodDelete, "/approvers/{person}", access.OperatorsAdmin, "Take a person off the roster"}, func(ctx context.Context, in *personPath) (*body[apitypes.Roster], error) {
		if _, err := s.o.Approvers.RemoveApprover(ctx, in.Person, who(ctx).Person); err != nil {
			return nil, err
		}
		return s.roster(ctx)
	})
}

func (s *server) roster(ctx context.Context) (*body[apitypes.Roster], error) {
	r, env, err := s.o.Approvers.Newest(s.o.DB.Snapshot(ctx))
	if fw.KindOf(err) == fw.NotFound {
		return one(apitypes.Roster{Approvers: []apitypes.Approver{}}, nil)
	}
	if err != nil {
		return nil, err
	}
	return one(apitypes.Roster{
		Version: r.Version(), Digest: r.Digest(), Envelope: env,
		Approvers: each(r.Approvers(), func(a approval.Approver) apitypes.Approver { return apitypes.Approver{Person: a.Person, Keys: a.Keys} }),
	}, nil)
}

func personOf(p store.Person) apitypes.Person {
	return apitypes.Person{ID: p.ID, Name: p.Name, CreatedAt: p.CreatedAt, Disabled: p.Disabled}
}

func tokenOf(t access.Token) apitypes.Token {
	out := apitypes.Token{ID: t.ID, Person: t.Person, Name: t.Name, Roles: t.Roles, CreatedAt: t.CreatedAt.Unix(), ExpiresAt: t.ExpiresAt.Unix()}
	if !t.RevokedAt.IsZero() {
		out.RevokedAt = t.RevokedAt.Unix()
	}
	return out
}
