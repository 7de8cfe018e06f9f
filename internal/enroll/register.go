package enroll

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// MaxRegister bounds one call of [Devices.Register]. It keeps a call within
// one short transaction; a fleet is a stream of calls.
const MaxRegister = 1000

// NewDevice is one line of a serial list.
type NewDevice struct {
	ID         fw.DeviceID
	Hardware   fw.HardwareID
	Attributes map[string]string
	State      fw.DeviceState // claimed or manufactured; empty means claimed
}

// Outcome is what became of one line.
type Outcome string

// Outcomes of a registration.
const (
	OutcomeRegistered Outcome = "registered"
	OutcomeExists     Outcome = "exists"   // registered before, with the same content
	OutcomeConflict   Outcome = "conflict" // registered before, with other content
	OutcomeBlocked    Outcome = "blocked"  // revoked or decommissioned: the id stays taken
	OutcomeInvalid    Outcome = "invalid"
)

// Registration is the result of one line.
type Registration struct {
	ID      fw.DeviceID
	Outcome Outcome
	Detail  string // for people; empty when nothing is wrong
}

// Register adds devices of one product. The result has one element per line,
// in order. Lines that cannot be registered do not stop the others.
func (d *Devices) Register(ctx context.Context, product fw.ProductID, list []NewDevice, actor fw.PersonID) ([]Registration, error) {
	if len(list) == 0 || len(list) > MaxRegister {
		return nil, fw.Errorf(fw.TooLarge, "register 1 to %d devices in one call, not %d: send the list in parts", MaxRegister, len(list))
	}
	lines := make([]line, len(list))
	for i, n := range list {
		lines[i] = newLine(n)
	}
	var out []Registration
	err := d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		p, err := store.ProductByID(tx, product)
		if err != nil {
			return err
		}
		var hardware []fw.HardwareID
		if err := json.Unmarshal([]byte(p.Hardware), &hardware); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the hardware list of product %s cannot be read", product)
		}
		out = make([]Registration, len(lines))
		for i := range lines {
			if out[i], err = d.register(tx, product, hardware, &lines[i], actor); err != nil {
				return fmt.Errorf("registering device %s: %w", lines[i].dev.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// line is a checked line of a list. It does not change, since closures run
// again.
type line struct {
	dev        NewDevice
	attributes string
	problem    string // for people; empty: none
}

func newLine(n NewDevice) line {
	l := line{dev: n}
	if l.dev.State == "" {
		l.dev.State = fw.DeviceClaimed
	}
	if !fw.DeviceState("").CanMove(l.dev.State) {
		l.problem = fmt.Sprintf("a new device is %s or %s, not %.64q", fw.DeviceClaimed, fw.DeviceManufactured, string(l.dev.State))
		return l
	}
	_, err := fw.ParseName("device id", string(n.ID))
	if err == nil {
		l.attributes, err = encodeAttributes(n.Attributes)
	}
	if err != nil {
		l.problem = err.Error()
	}
	return l
}

func (d *Devices) register(tx *store.Tx, product fw.ProductID, hardware []fw.HardwareID, l *line, actor fw.PersonID) (Registration, error) {
	r := Registration{ID: l.dev.ID, Outcome: OutcomeInvalid}
	if l.problem != "" {
		r.Detail = l.problem
		return r, nil
	}
	if !slices.Contains(hardware, l.dev.Hardware) {
		r.Detail = fmt.Sprintf("product %s has no hardware %.64q: use one of %v", product, string(l.dev.Hardware), hardware)
		return r, nil
	}
	now := tx.Now().Unix()
	row := store.Device{ID: l.dev.ID, Product: product, Hardware: l.dev.Hardware, State: l.dev.State, Attributes: l.attributes, StateAt: now, CreatedAt: now}
	free, err := store.InsertDevice(tx, row)
	if err != nil {
		return r, err
	}
	if !free {
		return compare(tx, row)
	}
	r.Outcome = OutcomeRegistered
	return r, d.append(tx, evidence.TypeDeviceRegistered, string(actor), row.ID, evidence.Registered{
		Device: row.ID, Product: product, Hardware: row.Hardware, State: row.State, Attributes: l.dev.Attributes,
	})
}

// compare says how row differs from the device that has its id.
func compare(tx *store.Tx, row store.Device) (Registration, error) {
	r := Registration{ID: row.ID, Outcome: OutcomeConflict}
	old, err := store.DeviceByID(tx, row.ID)
	switch {
	case err != nil:
		return r, err
	case old.State.Final():
		r.Outcome = OutcomeBlocked
		r.Detail = fmt.Sprintf("device %s is %s for good (%s): its id cannot be used again", row.ID, old.State, old.StateReason)
	case old.Product != row.Product:
		r.Detail = fmt.Sprintf("device %s is registered as a %s", row.ID, old.Product)
	case old.Hardware != row.Hardware:
		r.Detail = fmt.Sprintf("device %s is registered with hardware %s", row.ID, old.Hardware)
	case old.Attributes != row.Attributes:
		r.Detail = fmt.Sprintf("device %s is registered with other attributes: change them with writ device set", row.ID)
	default:
		r.Outcome = OutcomeExists
	}
	return r, nil
}
