package access

import (
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Scope is what one route needs.
type Scope string

// The scopes.
const (
	ProductsRead     Scope = "products:read"
	ProductsWrite    Scope = "products:write"
	DevicesRead      Scope = "devices:read"
	DevicesWrite     Scope = "devices:write"    // claim, attributes, suspend
	DevicesSecurity  Scope = "devices:security" // quarantine, revoke, ask for and grant release
	FactoryWrite     Scope = "factory:write"    // register serials, mint enrolment tokens
	ReleasesRead     Scope = "releases:read"
	ReleasesWrite    Scope = "releases:write" // upload, propose, publish
	ReleasesWithdraw Scope = "releases:withdraw"
	PoliciesWrite    Scope = "policies:write"
	CampaignsRead    Scope = "campaigns:read"
	CampaignsWrite   Scope = "campaigns:write" // propose, start, resume
	CampaignsStop    Scope = "campaigns:stop"  // pause and abort: needs one person only
	ApprovalsWrite   Scope = "approvals:write" // submit a signature; the signature is what counts
	EvidenceRead     Scope = "evidence:read"   // records, proofs, bundles
	KeysRead         Scope = "keys:read"       // public halves
	KeysAdmin        Scope = "keys:admin"
	TokensOwn        Scope = "tokens:own" // revoke one's own tokens; every role has it
	OperatorsRead    Scope = "operators:read"
	OperatorsAdmin   Scope = "operators:admin"
)

// Scopes lists every scope.
var Scopes = []Scope{
	ProductsRead, ProductsWrite, DevicesRead, DevicesWrite, DevicesSecurity, FactoryWrite,
	ReleasesRead, ReleasesWrite, ReleasesWithdraw, PoliciesWrite, CampaignsRead, CampaignsWrite, CampaignsStop,
	ApprovalsWrite, EvidenceRead, KeysRead, KeysAdmin, TokensOwn, OperatorsRead, OperatorsAdmin,
}

// look is what everybody but the factory may see.
var look = []Scope{ProductsRead, DevicesRead, ReleasesRead, CampaignsRead, KeysRead, TokensOwn}

// roleScopes is what each role may do (DESIGN section 10). Lowering trust is
// spread wide, raising it is narrow.
var roleScopes = map[fw.Role][]Scope{
	fw.RoleViewer:          look,
	fw.RoleDeviceOperator:  with(look, DevicesWrite, CampaignsStop),
	fw.RoleFactory:         {ProductsRead, FactoryWrite, TokensOwn},
	fw.RoleReleaseEngineer: with(look, ProductsWrite, ReleasesWrite, ReleasesWithdraw, PoliciesWrite, CampaignsWrite, CampaignsStop, EvidenceRead),
	fw.RoleApprover:        with(look, ApprovalsWrite, CampaignsStop, EvidenceRead),
	fw.RoleSecurityOfficer: with(look, DevicesSecurity, ReleasesWithdraw, CampaignsStop, EvidenceRead),
	fw.RoleAuditor:         with(look, EvidenceRead, OperatorsRead),
	fw.RoleAdmin:           with(look, ProductsWrite, KeysAdmin, OperatorsRead, OperatorsAdmin, EvidenceRead),
}

func with(base []Scope, more ...Scope) []Scope { return slices.Concat(base, more) }

// Principal is an authenticated operator. The zero Principal may do nothing.
type Principal struct {
	Person  fw.PersonID
	TokenID string
	Roles   []fw.Role // shared with the cache: not to be changed
}

// Can reports whether p may do what needs s.
func (p Principal) Can(s Scope) bool {
	return p.Person != "" && slices.ContainsFunc(p.Roles, func(r fw.Role) bool {
		return slices.Contains(roleScopes[r], s)
	})
}

// Require returns [fw.Forbidden], naming the roles that would do, unless p
// can do what needs s.
func (p Principal) Require(s Scope) error {
	if p.Can(s) {
		return nil
	}
	var roles []string
	for _, r := range fw.Roles {
		if slices.Contains(roleScopes[r], s) {
			roles = append(roles, string(r))
		}
	}
	return fw.Errorf(fw.Forbidden, "this needs the scope %s, which your token does not have: use one with the role %s", s, strings.Join(roles, " or "))
}

// LocalPerson is who acts in the evidence when a command on the host does,
// without a token. It is no person and cannot become one.
const LocalPerson fw.PersonID = "local-host"

// Local is the principal of a command that runs on the host with its keys.
func Local() Principal {
	return Principal{Person: LocalPerson, Roles: []fw.Role{fw.RoleAdmin}}
}

// ParseRoles checks names of roles and returns them in the order of
// [fw.Roles], each once. There must be at least one.
func ParseRoles(names []string) ([]fw.Role, error) {
	for _, n := range names {
		if !slices.Contains(fw.Roles, fw.Role(n)) {
			all := make([]string, len(fw.Roles))
			for i, r := range fw.Roles {
				all[i] = string(r)
			}
			return nil, fw.Errorf(fw.Invalid, "there is no role %.64q: the roles are %s", n, strings.Join(all, ", "))
		}
	}
	var roles []fw.Role
	for _, r := range fw.Roles {
		if slices.Contains(names, string(r)) {
			roles = append(roles, r)
		}
	}
	if len(roles) == 0 {
		return nil, fw.Errorf(fw.Invalid, "a token needs at least one role")
	}
	return roles, nil
}

func joinRoles(roles []fw.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, ",")
}

// storedRoles reads what joinRoles wrote.
func storedRoles(s string) ([]fw.Role, error) {
	roles, err := ParseRoles(strings.Split(s, ","))
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "a stored token has roles that this server does not know: revoke it and make a new one")
	}
	return roles, nil
}
