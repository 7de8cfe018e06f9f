package enroll

import (
	"context"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

// Move moves a device by the decision of one person: claim, suspend, resume,
// quarantine, revoke, decommission, and back to claimed for a new owner. It
// takes effect at the device's next request. What would raise trust is
// refused; see [Devices.ProposeRelease].
func (d *Devices) Move(ctx context.Context, id fw.DeviceID, to fw.DeviceState, reason string, actor fw.PersonID) error {
	if err := checkText("a reason", reason); err != nil {
		return err
	}
	return d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		row, err := store.DeviceByID(tx, id)
		if err != nil {
			return err
		}
		from := row.State
		switch {
		case from == to:
			return fw.Errorf(fw.Conflict, "device %s is %s already", id, to)
		case from.Final():
			return fw.Errorf(fw.Conflict, "device %s is %s for good", id, from)
		case from.RaisesTrust(to):
			return fw.Errorf(fw.Forbidden, "taking device %s out of quarantine needs a second person: ask for it with writ device release", id)
		case from == fw.DeviceClaimed && to == fw.DeviceActive:
			return fw.Errorf(fw.Conflict, "device %s becomes active by enrolling: make a token for it with writ device token", id)
		case !from.CanMove(to):
			return fw.Errorf(fw.Conflict, "device %s is %s and cannot become %s", id, from, to)
		}
		return d.move(tx, &row, evidence.DeviceState{To: to, Reason: reason}, string(actor))
	})
}

// Quarantine puts a device in quarantine by itself, inside the transaction of
// whatever gave rise to the doubt. A device that cannot be quarantined, or is
// already, is left as it is.
func (d *Devices) Quarantine(tx *store.Tx, id fw.DeviceID, reason string) error {
	row, err := store.DeviceByID(tx, id)
	if err != nil {
		return err
	}
	if !row.State.CanMove(fw.DeviceQuarantined) {
		return nil
	}
	return d.move(tx, &row, evidence.DeviceState{To: fw.DeviceQuarantined, Reason: clip(reason), Automatic: true}, server)
}

// move moves a device with everything that follows from it. The transition
// has been checked; s says where to and why.
func (d *Devices) move(tx *store.Tx, row *store.Device, s evidence.DeviceState, actor string) error {
	s.Device, s.From = row.ID, row.State
	if err := store.SetDeviceState(tx, row.ID, s.From, s.To, s.Reason); err != nil {
		return err
	}
	if err := d.append(tx, evidence.TypeDeviceState, actor, row.ID, s); err != nil {
		return err
	}
	if err := d.follow(tx, row, s, actor); err != nil {
		return err
	}
	row.State, row.StateReason, row.StateAt = s.To, s.Reason, tx.Now().Unix()
	d.changed(tx, row.ID)
	return nil
}

// follow does what a move entails.
func (d *Devices) follow(tx *store.Tx, row *store.Device, s evidence.DeviceState, actor string) error {
	if s.From == fw.DeviceQuarantined || s.To == fw.DeviceQuarantined {
		// A request is about one quarantine and dies with it.
		if err := dropSetting(tx, settingLifecycle(row.ID)); err != nil {
			return err
		}
	}
	switch s.To {
	case fw.DeviceQuarantined:
		// A version confirmed before the doubt arose proves nothing about it.
		row.CleanSince = 0
		return store.SetDeviceIntegrity(tx, row.ID, row.Integrity, 0)
	case fw.DeviceRevoked:
		if err := dropSetting(tx, settingToken(row.ID)); err != nil {
			return err
		}
		return d.revokeCertificates(tx, row.ID, certChange{actor, "device revoked: " + s.Reason, pki.ReasonKeyCompromise})
	case fw.DeviceClaimed:
		// A new owner: nothing given to the one before works any more.
		if err := dropSetting(tx, settingToken(row.ID)); err != nil {
			return err
		}
		return d.revokeCertificates(tx, row.ID, certChange{actor, "new owner: " + s.Reason, pki.ReasonAffiliationChanged})
	case fw.DeviceDecommissioned:
		return dropSetting(tx, settingToken(row.ID))
	case fw.DeviceManufactured, fw.DeviceActive, fw.DeviceSuspended:
	}
	return nil
}

// dropSetting empties a setting if it is set.
func dropSetting(tx *store.Tx, name string) error {
	b, err := store.Setting(tx, name)
	if err != nil || len(b) == 0 {
		return err
	}
	return store.PutSetting(tx, name, []byte{})
}
