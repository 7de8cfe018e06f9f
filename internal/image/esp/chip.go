package esp

import (
	"fmt"
	"strings"
)

// chips maps the chip id of the header to the name ESP-IDF calls the target by
// (esp_chip_id_t; prototypes left out).
var chips = map[uint16]string{
	0:  "esp32",
	2:  "esp32s2",
	5:  "esp32c3",
	9:  "esp32s3",
	12: "esp32c2",
	13: "esp32c6",
	16: "esp32h2",
	18: "esp32p4",
	20: "esp32c61",
	23: "esp32c5",
	25: "esp32h21",
	28: "esp32h4",
}

// chipName returns the target's name, or the number of a chip that is not in
// the table, such as "chip-0x0019".
func chipName(id uint16) string {
	if name, ok := chips[id]; ok {
		return name
	}
	return fmt.Sprintf("chip-%#04x", id)
}

// namedChip returns the chip that a hardware id is the name of, in either of
// the spellings in use: "esp32c3", "ESP32-C3".
func namedChip(hardware string) (string, bool) {
	name := strings.ReplaceAll(strings.ToLower(hardware), "-", "")
	for _, c := range chips {
		if c == name {
			return c, true
		}
	}
	return "", false
}
