package campaign

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

// installable refuses a plan whose release no device of the cohort could take,
// because each lacks one of its components: the campaign would be approved and
// started, and then refuse device after device. A device takes all images of a
// release or none, and writ-agent has one component. Devices that have not
// checked in yet are given the benefit of the doubt, and one that fits is
// enough: the others are refused one by one, with component_unknown.
//
// It reads devices until it finds one that fits, outside the writer. What is
// wrong with the plan otherwise is for others to say.
func installable(ctx context.Context, db *store.DB, plan *fw.Plan) error {
	q := db.Snapshot(ctx)
	rel, err := store.ReleaseByID(q, plan.Release)
	if err != nil {
		return err
	}
	cohort, err := policy.CompileCondition(plan.Cohort)
	if err != nil {
		return nil //nolint:nilerr // the plan is checked as a whole, under the writer
	}
	var m fw.Manifest
	if err := json.Unmarshal(rel.Manifest, &m); err != nil {
		return fw.Wrap(fw.Corrupt, err, "the stored manifest of release %s cannot be read", rel.ID)
	}
	var unfit *policy.DeviceFacts
	n := 0
	for f := (store.DeviceFilter{Product: rel.Product, State: fw.DeviceActive, Limit: countPage}); ; {
		page, err := store.Devices(q, f)
		if err != nil {
			return err
		}
		for i := range page {
			d, err := DeviceFacts(&page[i])
			if err != nil {
				return err
			}
			switch {
			case len(d.Components) == 0 || policy.MatchCohort(cohort, d) != policy.True:
			case hasAll(d.Components, m.Components):
				return nil
			default:
				n++
				if unfit == nil {
					unfit = &d
				}
			}
		}
		if len(page) < f.Limit {
			break
		}
		f.After = page[len(page)-1].ID
	}
	if unfit == nil {
		return nil
	}
	return fw.Errorf(fw.Conflict, "release %s has images for %s, and none of the %d devices of the cohort that have checked in has all of these components (%s has %s): a device takes all images of a release or none, so propose a release for each component by itself",
		rel.ID, namesOf(m.Components, func(c fw.ManifestComponent) fw.ComponentName { return c.Name }), n,
		unfit.ID, namesOf(unfit.Components, func(c policy.ComponentFacts) fw.ComponentName { return c.Name }))
}

func hasAll(have []policy.ComponentFacts, want []fw.ManifestComponent) bool {
	return !slices.ContainsFunc(want, func(w fw.ManifestComponent) bool {
		return !slices.ContainsFunc(have, func(h policy.ComponentFacts) bool { return h.Name == w.Name })
	})
}

// namesOf joins the names of components.
func namesOf[T any](list []T, name func(T) fw.ComponentName) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = string(name(c))
	}
	return strings.Join(out, " and ")
}
