package campaign

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// countPage is how many devices are read at a time when a cohort is counted.
const countPage = 2000

// census is how many devices a plan's cohort and its stages' own cohorts
// select.
type census struct {
	plan   fw.Digest
	total  int
	stages []int // nil: no stage has a cohort of its own
}

// count takes the census of campaign c. It reads every device of the product,
// so it runs at the start and at stage changes, never at a check-in, and
// outside the writer, which would keep every device waiting.
func (r *Register) count(q store.Queryer, c *store.Campaign) (census, error) {
	terms, err := r.Terms(q, c)
	if err != nil {
		return census{}, err
	}
	out := census{plan: terms.PlanDigest}
	stages := make([]int, len(terms.Stages))
	var after fw.DeviceID
	for {
		page, err := store.Devices(q, store.DeviceFilter{Product: c.Product, State: fw.DeviceActive, After: after, Limit: countPage})
		if err != nil {
			return census{}, err
		}
		for i := range page {
			f, err := DeviceFacts(&page[i])
			if err != nil {
				return census{}, err
			}
			if policy.MatchCohort(terms.Cohort, f) != policy.True {
				continue
			}
			out.total++
			for n, own := range terms.Stages {
				if own == nil {
					continue
				}
				out.stages = stages
				if policy.MatchCohort(own, f) == policy.True {
					stages[n]++
				}
			}
		}
		if len(page) < countPage {
			return out, nil
		}
		after = page[len(page)-1].ID
	}
}

// into puts the census into e, an event of campaign l.
func (c census) into(e *rollout.Event, l *Live) error {
	if c.plan != l.Terms.PlanDigest {
		return fw.Errorf(fw.Conflict, "the plan of campaign %s was edited meanwhile: look at it and try again", l.Row.ID)
	}
	e.Cohort, e.StageCohorts = c.total, c.stages
	return nil
}

// Reported is what a device last said of itself, as stored.
type Reported struct {
	Components []policy.ComponentFacts `json:"components,omitempty"`
	Attributes map[string]string       `json:"attributes,omitempty"`
}

// reportedPrefix marks the attributes that the device itself reported.
const reportedPrefix = "reported."

// DeviceFacts returns what is on file for d in the form that rules read.
func DeviceFacts(d *store.Device) (policy.DeviceFacts, error) {
	f := policy.DeviceFacts{
		ID: d.ID, Product: d.Product, Hardware: d.Hardware, State: d.State,
		OptedOut: d.OptedOut, PostponedUntil: d.PostponedUntil, Integrity: d.Integrity,
	}
	if d.Attributes != "" && d.Attributes != "{}" {
		if err := json.Unmarshal([]byte(d.Attributes), &f.Attributes); err != nil {
			return f, fw.Wrap(fw.Corrupt, err, "the stored attributes of device %s cannot be read", d.ID)
		}
	}
	if d.Facts != nil {
		var said Reported
		if err := json.Unmarshal(d.Facts, &said); err != nil {
			return f, fw.Wrap(fw.Corrupt, err, "the stored facts of device %s cannot be read", d.ID)
		}
		f.Components = said.Components
		for _, k := range slices.Sorted(maps.Keys(said.Attributes)) {
			if len(f.Attributes) >= policy.MaxAttributes {
				break // the cost bound of conditions rests on it
			}
			if f.Attributes == nil {
				f.Attributes = make(map[string]string, len(said.Attributes))
			}
			// Under a prefix, so that a device cannot claim what an operator says of it.
			f.Attributes[reportedPrefix+k] = said.Attributes[k]
		}
	}
	return f, nil
}
