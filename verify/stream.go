package verify

import (
	"github.com/writ-project/writ/internal/evidence"
)

// stream is how far a stream was followed.
type stream struct {
	head evidence.Head
	end  int64 // index of the last record
	// The first hole, if any: in a stream that is not exported whole there
	// may be some.
	hole, holeFrom, holeTo int64 // index of the record after it, and the numbers around it
	holes                  bool
	whole                  bool // proven to be complete
}

// link follows one stream through a record.
func (a *auditor) link(it *item, l evidence.Link) {
	s := a.streams[l.Stream]
	if s == nil {
		s = new(stream)
		a.streams[l.Stream] = s
		a.hold(sizeStream + len(l.Stream))
	}
	switch {
	case l.N <= s.head.N:
		a.fail(it, "it is number %d of stream %s, of which record %d is number %d already", l.N, l.Stream, s.end, s.head.N)
		return
	case l.N > s.head.N+1:
		if !s.holes {
			s.holes, s.hole, s.holeFrom, s.holeTo = true, it.frame.Index, s.head.N, l.N
		}
	case it.frame.Body != nil && l.Prev != s.head.Last:
		a.fail(it, "it follows another record of stream %s than record %d, which the bundle has in that place", l.Stream, s.end)
	}
	s.head, s.end = evidence.Head{N: l.N, Last: it.frame.Commitment}, it.frame.Index
}

// wasErased takes in what is left of an erased record.
func (a *auditor) wasErased(it *item) {
	a.counts.Erased++
	a.hold(sizeSmall)
	a.erased[it.frame.Index] = erasure{commitment: it.frame.Commitment}
	if len(it.frame.Places) == 0 {
		a.fail(it, "it is said to be erased and is in no stream")
	}
	for _, p := range it.frame.Places {
		if p.N < 1 {
			a.fail(it, "its place in a stream is malformed")
			continue
		}
		a.link(it, evidence.Link{Stream: p.Stream, N: p.N})
		for _, c := range a.campaigns {
			c.erased = c.erased || p.Stream == evidence.CampaignStream(c.id)
		}
	}
}

// explain takes in the record that says why another was erased.
func (a *auditor) explain(it *item, d *evidence.Erased) {
	e, ok := a.erased[d.Index]
	if !ok {
		return // the erased record is not in this bundle
	}
	if e.commitment != d.Commitment {
		a.fail(it, "it names another commitment for the erased record %d", d.Index)
		return
	}
	e.explained = true
	a.erased[d.Index] = e
}

// finish checks the end of one exported stream.
func (a *auditor) finish(e *StreamEnd) {
	if !a.epochOK {
		return // said once, by close
	}
	head, err := evidence.CheckStream(a.epoch, e.Stream, e.Proof)
	if err != nil {
		a.add(SeverityFailed, -1, "where stream %.100s ends is not proven: %v", e.Stream, err)
		return
	}
	s := a.streams[e.Stream]
	if s == nil {
		if head.N > 0 {
			a.add(SeverityFailed, -1, "stream %.100s has %d records by the epoch and none is in the bundle", e.Stream, head.N)
			return
		}
		s = new(stream)
		a.streams[e.Stream] = s
	}
	if s.whole {
		a.add(SeverityFailed, -1, "stream %.100s is in the bundle twice", e.Stream)
		return
	}
	a.counts.Streams++
	s.whole = true
	got := s.head
	if e.Stream == evidence.LogStream && s.end == a.manifest.Epoch {
		// The epoch's own record is the one after the head it commits to.
		got.N--
		got.Last = head.Last
	}
	switch {
	case s.holes:
		a.add(SeverityFailed, s.hole, "stream %.100s: number %d to %d of its records are missing before record %d", e.Stream, s.holeFrom+1, s.holeTo-1, s.hole)
	case got.N < head.N:
		a.add(SeverityFailed, s.end, "stream %.100s ends at number %d in the bundle and at %d by the epoch: its last %d records are missing", e.Stream, got.N, head.N, head.N-got.N)
	case got != head:
		a.add(SeverityFailed, s.end, "stream %.100s ends with another record than the epoch says", e.Stream)
	}
	for _, f := range a.scoped[e.Stream] {
		a.put(f)
	}
	delete(a.scoped, e.Stream)
}

// close checks what must hold when everything was read.
func (a *auditor) close() {
	a.unissued()
	if !a.epochOK {
		a.add(SeverityFailed, a.manifest.Epoch, "the bundle's epoch, record %d, is not in it, so nothing shows that its streams are whole", a.manifest.Epoch)
	}
	if a.counts.Records != a.manifest.Records {
		a.add(SeverityFailed, -1, "the bundle has %d records and its manifest says %d: it was cut off or changed", a.counts.Records, a.manifest.Records)
	}
	if a.counts.Streams != a.manifest.Streams && a.epochOK {
		a.add(SeverityFailed, -1, "the bundle has %d whole streams and its manifest says %d", a.counts.Streams, a.manifest.Streams)
	}
	for i, e := range a.erased {
		if !e.explained {
			a.add(SeverityFailed, i, "record %d is erased and no record says on what ground", i)
		}
	}
	if a.epochOK {
		a.require(evidence.LogStream)
		if d := a.manifest.Scope.Device; d != "" {
			a.require(evidence.DeviceStream(d))
		}
		for _, c := range a.campaigns {
			a.closeCampaign(c)
		}
		a.closeDevices()
	}
	if !a.logKeyKnown {
		a.add(SeverityNote, -1, "the log does not record the key that signs its checkpoints")
	}
	a.counts.Releases, a.counts.Certificates = int64(len(a.releases)), int64(len(a.certs))
	a.counts.Devices, a.counts.Campaigns = int64(len(a.devices)), int64(len(a.campaigns))
}

// require says that a stream must be in the bundle whole.
func (a *auditor) require(id evidence.StreamID) {
	if s := a.streams[id]; s == nil || !s.whole {
		a.add(SeverityIncomplete, -1, "stream %.100s is not in the bundle whole, so what rests on it is not proven", id)
	}
}

func (a *auditor) isWhole(id evidence.StreamID) bool {
	s := a.streams[id]
	return s != nil && s.whole
}
