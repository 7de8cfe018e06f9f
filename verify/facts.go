package verify

import (
	"encoding/json"
	"strconv"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
)

// The facts of decisions are read by hand: they are most of a log, and
// encoding/json takes longer over them than the rules do. A member that is not
// known here is refused, so nothing in the facts goes unread.

// fields walks the members of an object; read reports whether it knows and can
// read one.
func fields(b []byte, read func(key, v []byte) bool) bool {
	bad := false
	ok := members(b, func(key, v []byte) bool {
		bad = !read(key, v)
		return !bad
	})
	return ok && !bad
}

func readFacts(b []byte, f *policy.Facts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "now":
			return whole(v, &f.Now)
		case "device":
			return readDeviceFacts(v, &f.Device)
		case "update":
			return readUpdateFacts(v, &f.Update)
		case "campaign":
			return readCampaignFacts(v, &f.Campaign)
		case "stage":
			return readStageFacts(v, &f.Stage)
		}
		return false
	})
}

func readDeviceFacts(b []byte, d *policy.DeviceFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "id":
			return name(v, &d.ID)
		case "product":
			return name(v, &d.Product)
		case "hardware":
			return name(v, &d.Hardware)
		case "state":
			return name(v, &d.State)
		case "cert":
			return readCertFacts(v, &d.Cert)
		case "components":
			return list(v, func(v []byte) bool {
				var c policy.ComponentFacts
				ok := readComponentFacts(v, &c)
				d.Components = append(d.Components, c)
				return ok
			})
		case "attributes":
			return json.Unmarshal(v, &d.Attributes) == nil
		case "opted_out":
			return yesOrNo(v, &d.OptedOut)
		case "postponed_until":
			return whole(v, &d.PostponedUntil)
		case "integrity":
			return name(v, &d.Integrity)
		}
		return false
	})
}

func readCertFacts(b []byte, c *policy.CertFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "known":
			return yesOrNo(v, &c.Known)
		case "state":
			return name(v, &c.State)
		case "serial":
			return name(v, &c.Serial)
		case "not_before":
			return whole(v, &c.NotBefore)
		case "not_after":
			return whole(v, &c.NotAfter)
		}
		return false
	})
}

func readComponentFacts(b []byte, c *policy.ComponentFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "name":
			return name(v, &c.Name)
		case "version":
			return name(v, &c.Version)
		case "digest":
			return digest(v, &c.Digest)
		case "security_counter":
			n, err := strconv.ParseUint(string(v), 10, 64)
			c.SecurityCounter = n
			return err == nil
		case "assurance":
			return name(v, &c.Assurance)
		}
		return false
	})
}

func readUpdateFacts(b []byte, u *policy.UpdateFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "state":
			return name(v, &u.State)
		case "attempts":
			return whole(v, &u.Attempts)
		case "last_attempt":
			return whole(v, &u.LastAttempt)
		case "member":
			return yesOrNo(v, &u.Member)
		case "stage":
			return whole(v, &u.Stage)
		case "rollback":
			return yesOrNo(v, &u.Rollback)
		}
		return false
	})
}

func readCampaignFacts(b []byte, c *policy.CampaignFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "id":
			return name(v, &c.ID)
		case "state":
			return name(v, &c.State)
		case "plan":
			return digest(v, &c.Plan)
		case "publication":
			return digest(v, &c.Publication)
		case "policy":
			return digest(v, &c.Policy)
		case "release_state":
			return name(v, &c.ReleaseState)
		case "approvals":
			return whole(v, &c.Approvals)
		case "open":
			return whole(v, &c.Open)
		case "granted_last_minute":
			return whole(v, &c.GrantedLastMinute)
		}
		return false
	})
}

func readStageFacts(b []byte, s *policy.StageFacts) bool {
	return fields(b, func(key, v []byte) bool {
		switch string(key) {
		case "index":
			return whole(v, &s.Index)
		case "state":
			return name(v, &s.State)
		case "limit":
			return whole(v, &s.Limit)
		case "members":
			return whole(v, &s.Members)
		}
		return false
	})
}

// list walks the values of an array.
func list(b []byte, read func(v []byte) bool) bool {
	if len(b) < 2 || b[0] != '[' {
		return false
	}
	for i := 1; i < len(b) && b[i] != ']'; {
		end := skipValue(b, i)
		if end < 0 || end >= len(b) || !read(b[i:end:end]) {
			return false
		}
		if i = end; b[i] == ',' {
			i++
		}
	}
	return true
}

// whole reads an integer that is not negative.
func whole[T int | int64](v []byte, to *T) bool {
	n, ok := number(v)
	*to = T(n)
	return ok && int64(*to) == n
}

func yesOrNo(v []byte, to *bool) bool {
	*to = string(v) == "true"
	return *to || string(v) == "false"
}

func digest(v []byte, to *fw.Digest) bool {
	t, ok := text(v)
	return ok && to.UnmarshalText([]byte(t)) == nil
}
