package ledger

import (
	"encoding/json"
	"math/bits"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
	"github.com/writ-project/writ/verify"
)

// closure decides which streams are exported.
func (b *bundle) closure() error {
	seen := make(map[evidence.StreamID]bool)
	add := func(id evidence.StreamID) {
		if !seen[id] {
			seen[id] = true
			b.streams = append(b.streams, id)
		}
	}
	add(evidence.LogStream)
	keys, err := store.StreamIDs(b.q, "key/", "key0") // "0" comes after "/"
	if err != nil {
		return err
	}
	for _, id := range keys {
		add(evidence.StreamID(id))
	}
	if b.query.Campaign != "" {
		b.manifest.Campaigns = []fw.CampaignID{b.query.Campaign}
	} else {
		if b.manifest.Campaigns, err = b.campaignsOf(b.query.Device); err != nil {
			return err
		}
		add(evidence.DeviceStream(b.query.Device))
	}
	for _, id := range b.manifest.Campaigns {
		if err := b.campaign(id, add); err != nil {
			return err
		}
	}
	if b.query.Campaign == "" {
		return nil
	}
	return b.devices(add)
}

// campaignsOf returns the campaigns that decided about a device.
func (b *bundle) campaignsOf(id fw.DeviceID) ([]fw.CampaignID, error) {
	dev, err := store.DeviceByID(b.q, id)
	if err != nil {
		return nil, err
	}
	list, err := store.UpdatesOfDevice(b.q, dev.ID, verify.MaxCampaigns+1)
	if err != nil {
		return nil, err
	}
	if len(list) > verify.MaxCampaigns {
		return nil, fw.Errorf(fw.TooLarge, "device %s was in more than %d campaigns: export them one by one", id, verify.MaxCampaigns)
	}
	out := make([]fw.CampaignID, len(list))
	for i, u := range list {
		out[i] = u.Campaign
	}
	return out, nil
}

// campaign adds the streams that the campaign's decisions rest on.
func (b *bundle) campaign(id fw.CampaignID, add func(evidence.StreamID)) error {
	row, err := store.CampaignByID(b.q, id)
	if err != nil {
		return err
	}
	var plan fw.Plan
	if err := json.Unmarshal(row.Plan, &plan); err != nil {
		return fw.Wrap(fw.Corrupt, err, "the stored plan of campaign %s cannot be read", id)
	}
	b.replayed[id] = true
	add(evidence.CampaignStream(id))
	add(evidence.ReleaseStream(plan.Release))
	if plan.Rollback != nil {
		add(evidence.ReleaseStream(plan.Rollback.Release))
	}
	if !plan.Policy.IsZero() {
		add(evidence.PolicyStream(plan.Policy))
	}
	add(evidence.ProductStream(plan.Product))
	return nil
}

// devices adds the streams of the campaign's devices.
func (b *bundle) devices(add func(evidence.StreamID)) error {
	const page = 1000
	var after fw.DeviceID
	for {
		list, err := store.UpdatesOfCampaign(b.q, b.query.Campaign, after, page)
		if err != nil {
			return err
		}
		for _, u := range list {
			add(evidence.DeviceStream(u.Device))
			after = u.Device
		}
		if len(list) < page {
			return nil
		}
	}
}

// pick marks the records of the streams, up to the epoch.
func (b *bundle) pick() error {
	b.picked = newBitset(b.size)
	b.picked.set(b.manifest.Epoch)
	for _, id := range b.streams {
		err := store.StreamIndexes(b.q, string(id), b.manifest.Epoch, func(idx int64) error {
			b.picked.set(idx)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readTrust takes the keys from the log's own records.
func (b *bundle) readTrust() error {
	var err error
	if b.trust.LogKey, err = VerifierKey(b.l.signer); err != nil {
		return err
	}
	const page = 500
	for from := int64(1); ; from += page {
		rows, err := store.StreamRecords(b.q, string(evidence.LogStream), from, page)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := b.readKey(r); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

func (b *bundle) readKey(r store.RecordRow) error {
	t := evidence.Type(r.Type)
	if r.Body == nil || t != evidence.TypeKeyCreated && t != evidence.TypeTrustBundle {
		return nil
	}
	rec, err := evidence.Decode(r.Body)
	if err != nil {
		return fw.Wrap(fw.Corrupt, err, "record %d cannot be read", r.Index)
	}
	if t == evidence.TypeKeyCreated {
		k, err := evidence.Payload[evidence.Key](rec)
		if err != nil {
			return err
		}
		if k.Purpose == fw.PurposeRosterRoot {
			b.trust.RosterRoots = append(b.trust.RosterRoots, k.Public)
		}
		return nil
	}
	p, err := evidence.Payload[evidence.Proposed](rec)
	if err != nil {
		return err
	}
	trust, err := authz.OpenTrust(p.Document)
	if err != nil {
		return fw.Wrap(fw.Corrupt, err, "the trust bundle in record %d cannot be read", r.Index)
	}
	b.trust.DeviceCAs = trust.Document().DeviceCAs // the newest bundle's
	return nil
}

// bitset marks indexes of the log: an eighth of a byte for each record.
type bitset struct {
	words []uint64
	count int64
}

func newBitset(size int64) bitset { return bitset{words: make([]uint64, (size+63)/64)} }

func (s *bitset) set(i int64) {
	if s.words[i/64]&(1<<(i%64)) == 0 {
		s.words[i/64] |= 1 << (i % 64)
		s.count++
	}
}

func (s *bitset) has(i int64) bool { return s.words[i/64]&(1<<(i%64)) != 0 }

// next returns the first mark at or after i, or -1.
func (s *bitset) next(i int64) int64 {
	for w := i / 64; w < int64(len(s.words)); w++ {
		x := s.words[w]
		if w == i/64 {
			x &= ^uint64(0) << (i % 64)
		}
		if x != 0 {
			return w*64 + int64(bits.TrailingZeros64(x))
		}
	}
	return -1
}
