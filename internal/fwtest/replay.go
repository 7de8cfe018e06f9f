package fwtest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// CheckCampaign replays a campaign's stream and compares every transition and
// the final status. It returns the number of reports.
func CheckCampaign(t testing.TB, w *World, id fw.CampaignID) int64 {
	t.Helper()
	q := w.DB.Snapshot(context.Background())
	rows, err := store.StreamRecords(q, string(evidence.CampaignStream(id)), 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	row, err := store.CampaignByID(q, id)
	if err != nil {
		t.Fatal(err)
	}
	terms, err := w.Register.Terms(q, &row)
	if err != nil {
		t.Fatal(err)
	}
	st := rollout.New(terms.Plan)
	var reports int64
	for _, r := range rows {
		rec, err := evidence.Decode(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Type == evidence.TypeReport {
			reports++
		}
		var data struct {
			Event       *rollout.Event       `json:"event"`
			Transitions []rollout.Transition `json:"transitions"`
		}
		if err := json.Unmarshal(rec.Data, &data); err != nil {
			t.Fatal(err)
		}
		if data.Event == nil {
			continue
		}
		next, moves, err := rollout.Apply(terms.Plan, st, *data.Event, rec.MS/1000)
		if err != nil {
			t.Fatalf("record %d: %v", rec.Index, err)
		}
		if d := cmp.Diff(data.Transitions, moves); d != "" {
			t.Errorf("record %d has other transitions:\n%s", rec.Index, d)
		}
		st = next
		for i, s := range st.Stages {
			if s.Tally.Members > s.Limit {
				t.Errorf("record %d: stage %d has %d devices, limit %d", rec.Index, i, s.Tally.Members, s.Limit)
			}
		}
	}
	stored, err := campaign.DecodeStatus(row)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(stored, st); d != "" {
		t.Errorf("the stored status is not what the records say (-stored +replayed):\n%s", d)
	}
	return reports
}
