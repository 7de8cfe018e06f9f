package store

import (
	"fmt"

	"github.com/writ-project/writ/internal/fw"
)

// Product is a row of product.
type Product struct {
	ID             fw.ProductID
	Name           string
	Hardware       string // JSON array of fw.HardwareID
	ImageKey       fw.KeyName
	Quorum         int
	RetentionYears int
	SupportUntil   int64
	Provenance     string // JSON of statement.Rule; empty: none is demanded
	CreatedAt      int64
}

const productColumns = "id, name, hardware, image_key, quorum, retention_years, support_until, provenance, created_at"

func scanProduct(s interface{ Scan(...any) error }) (p Product, err error) {
	err = s.Scan(&p.ID, &p.Name, &p.Hardware, &p.ImageKey, &p.Quorum, &p.RetentionYears, &p.SupportUntil, &p.Provenance, &p.CreatedAt)
	return p, err
}

// ProductByID returns one product.
func ProductByID(q Queryer, id fw.ProductID) (Product, error) {
	p, err := scanProduct(q.queryRow("SELECT "+productColumns+" FROM product WHERE id = $1", id))
	return p, notFound(err, "there is no product %q: make it with writ product create", id)
}

// Products returns every product in order of id.
func Products(q Queryer) ([]Product, error) {
	rows, err := q.query("SELECT " + productColumns + " FROM product ORDER BY id")
	return collect(rows, err, scanProduct)
}

// InsertProduct adds a product. It reports whether the id was free.
func InsertProduct(tx *Tx, p Product) (bool, error) {
	n, err := tx.exec("INSERT INTO product ("+productColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
		p.ID, p.Name, p.Hardware, p.ImageKey, p.Quorum, p.RetentionYears, p.SupportUntil, p.Provenance, p.CreatedAt)
	return n == 1, err
}

// Device is a row of device.
type Device struct {
	ID             fw.DeviceID
	Product        fw.ProductID
	Hardware       fw.HardwareID
	State          fw.DeviceState
	StateReason    string
	Attributes     string // JSON object, set by operators
	Facts          []byte // JSON of the last facts reported; nil before the first check-in
	FactsDigest    []byte
	OptedOut       bool
	PostponedUntil int64
	Integrity      string
	AuthSeq        int64 // sequence of the last authorization
	CleanSince     int64
	StateAt        int64
	CreatedAt      int64
}

const deviceColumns = "id, product, hardware, state, state_reason, attributes, facts, facts_digest, opted_out, postponed_until, integrity, authorization_seq, clean_since, state_at, created_at"

func scanDevice(s interface{ Scan(...any) error }) (d Device, err error) {
	var out int64
	err = s.Scan(&d.ID, &d.Product, &d.Hardware, &d.State, &d.StateReason, &d.Attributes, &d.Facts, &d.FactsDigest, &out, &d.PostponedUntil, &d.Integrity, &d.AuthSeq, &d.CleanSince, &d.StateAt, &d.CreatedAt)
	d.OptedOut = out != 0
	return d, err
}

// DeviceByID returns one device.
func DeviceByID(q Queryer, id fw.DeviceID) (Device, error) {
	d, err := scanDevice(q.queryRow("SELECT "+deviceColumns+" FROM device WHERE id = $1", id))
	return d, notFound(err, "there is no device %q", id)
}

// DeviceFilter selects devices for a list.
type DeviceFilter struct {
	Product fw.ProductID   // empty: any
	State   fw.DeviceState // empty: any
	After   fw.DeviceID    // exclusive, for paging
	Limit   int
}

// Devices returns devices in order of id.
func Devices(q Queryer, f DeviceFilter) ([]Device, error) {
	rows, err := q.query("SELECT "+deviceColumns+" FROM device WHERE ($1 = '' OR product = $1) AND ($2 = '' OR state = $2) AND id > $3 ORDER BY id LIMIT $4",
		string(f.Product), string(f.State), string(f.After), f.Limit)
	return collect(rows, err, scanDevice)
}

// CountDevices counts devices by state; product may be empty.
func CountDevices(q Queryer, product fw.ProductID) (map[fw.DeviceState]int, error) {
	rows, err := q.query("SELECT state, COUNT(*) FROM device WHERE ($1 = '' OR product = $1) GROUP BY state", string(product))
	type row struct {
		s fw.DeviceState
		n int
	}
	list, err := collect(rows, err, func(s interface{ Scan(...any) error }) (r row, err error) {
		err = s.Scan(&r.s, &r.n)
		return r, err
	})
	out := make(map[fw.DeviceState]int, len(list))
	for _, r := range list {
		out[r.s] = r.n
	}
	return out, err
}

// InsertDevice adds a device. It reports whether the id was free; revoked and
// decommissioned devices keep theirs for ever.
func InsertDevice(tx *Tx, d Device) (bool, error) {
	n, err := tx.exec("INSERT INTO device (id, product, hardware, state, attributes, state_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
		d.ID, d.Product, d.Hardware, d.State, d.Attributes, d.StateAt, d.CreatedAt)
	return n == 1, err
}

// SetDeviceState moves a device. The schema's own guard is that a final state
// is never left.
func SetDeviceState(tx *Tx, id fw.DeviceID, from, to fw.DeviceState, reason string) error {
	n, err := tx.exec("UPDATE device SET state = $3, state_reason = $4, state_at = $5 WHERE id = $1 AND state = $2 AND state NOT IN ('revoked', 'decommissioned')",
		id, from, to, reason, tx.now.Unix())
	if err == nil && n != 1 {
		return fw.Errorf(fw.Conflict, "device %s is no longer %s: look again", id, from)
	}
	return err
}

// SetDeviceFacts stores what the device last reported of itself.
func SetDeviceFacts(tx *Tx, d *Device) error {
	_, err := tx.exec("UPDATE device SET facts = $2, facts_digest = $3, opted_out = $4, postponed_until = $5 WHERE id = $1",
		d.ID, d.Facts, d.FactsDigest, boolInt(d.OptedOut), d.PostponedUntil)
	return err
}

// SetDeviceSequence stores the sequence of the newest authorization.
func SetDeviceSequence(tx *Tx, id fw.DeviceID, seq int64) error {
	_, err := tx.exec("UPDATE device SET authorization_seq = $2 WHERE id = $1 AND authorization_seq < $2", id, seq)
	return err
}

// SetDeviceIntegrity stores the integrity status and since when the device
// has been known good.
func SetDeviceIntegrity(tx *Tx, id fw.DeviceID, integrity string, cleanSince int64) error {
	_, err := tx.exec("UPDATE device SET integrity = $2, clean_since = $3 WHERE id = $1", id, integrity, cleanSince)
	return err
}

// SetDeviceAttributes stores the operators' attributes, a JSON object.
func SetDeviceAttributes(tx *Tx, id fw.DeviceID, attributes string) error {
	_, err := tx.exec("UPDATE device SET attributes = $2 WHERE id = $1", id, attributes)
	return err
}

// TouchDevices stores when devices were last seen, by the fingerprint of the
// certificate they came with. Losing one is harmless.
func TouchDevices(tx *Tx, at map[fw.Digest]int64) error {
	for fingerprint, t := range at {
		_, err := tx.exec(`INSERT INTO last_seen (device, at) SELECT device, CAST($2 AS BIGINT) FROM certificate WHERE fingerprint = $1
			ON CONFLICT (device) DO UPDATE SET at = excluded.at`, fingerprint[:], t)
		if err != nil {
			return err
		}
	}
	return nil
}

// LastSeen returns when a device was last seen, in Unix seconds; 0: never.
func LastSeen(q Queryer, id fw.DeviceID) (int64, error) {
	var at int64
	err := q.queryRow("SELECT COALESCE(MAX(at), 0) FROM last_seen WHERE device = $1", id).Scan(&at)
	if err != nil {
		return 0, fmt.Errorf("reading last seen: %w", err)
	}
	return at, nil
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
