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

// count counts the devices that the plan's cohort and the stages' own cohorts
// select now. It reads every device of the product; it runs at the start and
// at stage changes, never at a check-in.
func (r *Register) count(tx *store.Tx, l *Live, e *rollout.Event) error {
	stages := make([]int, len(l.Terms.Stages))
	own := false
	total := 0
	var after fw.DeviceID
	for {
		page, err := store.Devices(tx, store.DeviceFilter{Product: l.Row.Product, State: fw.DeviceActive, After: after, Limit: countPage})
		if err != nil {
			return err
		}
		for i := range page {
			f, err := DeviceFacts(&page[i])
			if err != nil {
				return err
			}
			if policy.MatchCohort(l.Terms.Cohort, f) != policy.True {
				continue
			}
			total++
			for n, c := range l.Terms.Stages {
				if c != nil {
					own = true
					if policy.MatchCohort(c, f) == policy.True {
						stages[n]++
					}
				}
			}
		}
		if len(page) < countPage {
			break
		}
		after = page[len(page)-1].ID
	}
	e.Cohort = total
	if own {
		e.StageCohorts = stages
	}
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
