package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// maxDeviceList bounds a serial list in bytes.
const maxDeviceList = 256 << 20

// listed is one line of a serial list.
type listed struct {
	line       int
	id         fw.DeviceID
	hardware   fw.HardwareID
	attributes map[string]string
}

// readDevices reads a serial list: CSV with a header, or JSON, an array or one
// object per line. Hardware is for lines that name none.
func readDevices(r io.Reader, hardware fw.HardwareID) ([]listed, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDeviceList+1))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read the serial list")
	}
	if len(b) > maxDeviceList {
		return nil, fw.Errorf(fw.TooLarge, "the serial list is over %s: split it", bytesUnit(maxDeviceList))
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))) // as spreadsheets write it
	if len(b) == 0 {
		return nil, fw.Errorf(fw.Invalid, "the serial list is empty")
	}
	if b[0] == '[' || b[0] == '{' {
		return jsonDevices(b, hardware)
	}
	return csvDevices(b, hardware)
}

func csvDevices(b []byte, hardware fw.HardwareID) ([]listed, error) {
	r := csv.NewReader(bytes.NewReader(b))
	r.TrimLeadingSpace, r.ReuseRecord = true, true
	header, err := r.Read()
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the serial list is no CSV")
	}
	header = slices.Clone(header)
	idColumn := slices.IndexFunc(header, func(h string) bool { return h == "id" || h == "device" || h == "serial" })
	if idColumn < 0 {
		return nil, fw.Errorf(fw.Invalid, "the serial list needs a first line that names its columns: id, hardware, and any attributes, e.g. \"id,hardware,site\"")
	}
	hardwareColumn := slices.Index(header, "hardware")
	var out []listed
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "the serial list is broken")
		}
		line, _ := r.FieldPos(0)
		d := listed{line: line, hardware: hardware}
		for i, v := range rec {
			switch v = strings.TrimSpace(v); {
			case i == idColumn:
				d.id = fw.DeviceID(v)
			case v == "":
			case i == hardwareColumn:
				d.hardware = fw.HardwareID(v)
			default:
				if d.attributes == nil {
					d.attributes = map[string]string{}
				}
				d.attributes[strings.TrimSpace(header[i])] = v
			}
		}
		out = append(out, d)
	}
}

func jsonDevices(b []byte, hardware fw.HardwareID) ([]listed, error) {
	type entry struct {
		ID         fw.DeviceID       `json:"id"`
		Hardware   fw.HardwareID     `json:"hardware"`
		Attributes map[string]string `json:"attributes"`
	}
	var out []listed
	add := func(e entry) {
		if e.Hardware == "" {
			e.Hardware = hardware
		}
		out = append(out, listed{line: len(out) + 1, id: e.ID, hardware: e.Hardware, attributes: e.Attributes})
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	bad := func(err error) error {
		return fw.Wrap(fw.Invalid, err, "entry %d of the serial list is not {\"id\":…,\"hardware\":…,\"attributes\":{…}}", len(out)+1)
	}
	if b[0] == '[' {
		var all []json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "the serial list is no JSON array")
		}
		for _, raw := range all {
			d := json.NewDecoder(bytes.NewReader(raw))
			d.DisallowUnknownFields()
			var e entry
			if err := d.Decode(&e); err != nil {
				return nil, bad(err)
			}
			add(e)
		}
		return out, nil
	}
	for {
		var e entry
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, bad(err)
		}
		add(e)
	}
}

// String names the line for messages.
func (d listed) String() string { return fmt.Sprintf("line %d (%s)", d.line, dash(string(d.id))) }
