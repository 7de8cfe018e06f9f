package fwtest

import (
	"time"

	"github.com/writ-project/writ/internal/bench"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/fw"
)

// Enrolled registers and enrols devices over HTTPS.
func (w *World) Enrolled(ids ...fw.DeviceID) []*bench.Device {
	w.t.Helper()
	ctx := w.t.Context()
	list := make([]enroll.NewDevice, len(ids))
	for i, id := range ids {
		list[i] = enroll.NewDevice{ID: id, Hardware: Hardware}
	}
	_, err := w.Devices.Register(ctx, Product, list, Rita)
	w.must(err)
	out := make([]*bench.Device, len(ids))
	for i, id := range ids {
		tok, err := w.Enrolment.EnrolmentToken(ctx, id, time.Hour, Rita)
		w.must(err)
		out[i], err = bench.NewDevice(id, Hardware, w.URL(), w.Roots())
		w.must(err)
		w.must(out[i].Enrol(ctx, tok.Secret.Reveal()))
		w.t.Cleanup(out[i].Close)
	}
	return out
}
