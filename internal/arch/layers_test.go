package arch

import "strings"

// layers is the order of imports, lowest first: a package may import only
// packages of the layers before its own. A trailing /* covers every package
// below. DESIGN.md section 9 gives each package in one sentence;
// docs/adr/0002-import-layers.md says why ledger and update have their own.
var layers = []struct {
	name     string
	packages []string
}{
	{"vocabulary", []string{"internal/fw"}},
	{"envelope", []string{"internal/dsse"}},
	{"pure", []string{
		"internal/policy", "internal/rollout", "internal/evidence", "internal/tlog",
		"internal/authz", "internal/approval", "internal/statement", "internal/image", "internal/image/*",
		"apitypes",
	}},
	{"payloads", []string{"internal/docket"}},
	{"platform", []string{
		"verify", "internal/store", "internal/blob", "internal/custody", "internal/custody/*", "internal/signer", "internal/pki",
		"internal/advisory",
	}},
	{"ledger", []string{"internal/ledger"}},
	{"review", []string{"internal/review"}},
	{"services", []string{
		"internal/access", "internal/enroll", "internal/release", "internal/campaign",
	}},
	{"update", []string{"internal/update"}},
	{"surfaces", []string{
		"internal/httpd", "internal/api", "internal/console", "client", "internal/proto/*",
		"internal/agent",
	}},
	{"composition", []string{
		"internal/config", "internal/signerd", "internal/server", "internal/operator", "internal/cli", "internal/demo", "internal/bench",
	}},
	{"commands", []string{"cmd/*"}},
}

// testOnly packages may import anything and ship in nothing.
var testOnly = []string{"internal/fwtest", "internal/fwtest/cmstest", "internal/arch"}

// sameLayer lists the imports allowed within one layer. Each needs a reason.
var sameLayer = []struct{ from, to, why string }{
	{"internal/authz", "internal/statement", "a trust bundle says which release statements a device wants"},
	{"internal/image/*", "internal/image", "the formats implement its Format"},
	{"internal/image/formats", "internal/image/*", "it is the list of formats"},
	{"internal/image/swu", "internal/image/cms", "its signature is CMS"},
	{"internal/image/rauc", "internal/image/cms", "its signature is CMS"},
	{"internal/custody/*", "internal/custody", "the back ends implement its Backend"},
	{"internal/custody/pkcs11/token", "internal/custody/pkcs11", "the two ends of a pipe share its frames"},
	{"internal/custody/backends", "internal/custody/*", "it is the list of back ends"},
	{"internal/signer", "internal/custody", "its keys may be elsewhere"},
	{"internal/api", "internal/httpd", "handlers, limits and problems are shared"},
	{"internal/console", "internal/httpd", "handlers, limits and problems are shared"},
	{"internal/proto/*", "internal/httpd", "handlers, limits and problems are shared"},
	{"internal/server", "internal/config", "it is composed from the configuration"},
	{"internal/server", "internal/signerd", "it may have its images signed by writ-signer"},
	{"internal/signerd", "internal/config", "the passphrase comes the same way"},
	{"internal/cli", "internal/config", "the commands read the configuration"},
	{"internal/cli", "internal/server", "writ serve"},
	{"internal/cli", "internal/demo", "writ demo"},
	{"internal/cli", "internal/bench", "writ bench"},
	{"internal/operator", "internal/server", "it acts on a real server"},
	{"internal/demo", "internal/operator", "its people"},
	{"internal/bench", "internal/operator", "its people"},
	{"internal/demo", "internal/config", "it runs a real server"},
	{"internal/demo", "internal/server", "it runs a real server"},
	{"internal/bench", "internal/config", "it runs a real server"},
	{"internal/bench", "internal/server", "it runs a real server"},
}

// only narrows a package to these imports of ours: what other people build on
// must not pull in the server.
var only = map[string][]string{
	"client": {"internal/fw", "apitypes"},
}

// impure are the imports no pure package has (the two lowest layers).
var impure = []string{
	"os", "os/exec", "os/signal", "syscall", "net", "net/http", "database/sql", "log", "log/slog",
	"math/rand", "math/rand/v2",
}

// offline are the imports the verifier never has.
var offline = []string{"net", "net/http", "database/sql", "os/exec"}

// clock are the functions of package time that read or wait for the clock.
var clock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTicker": true, "NewTimer": true,
}

// pureLayers is how many layers, from the lowest, are pure.
const pureLayers = 3

// layerOf returns the index of path's layer, or -1 if it has none.
func layerOf(path string) int {
	for i, l := range layers {
		if matchAny(l.packages, path) {
			return i
		}
	}
	return -1
}

func matchAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if match(p, path) {
			return true
		}
	}
	return false
}

// match reports whether path is pattern, or lies below it when it ends in /*.
func match(pattern, path string) bool {
	if dir, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(path, dir+"/")
	}
	return pattern == path
}

func mayImport(from, to string) bool {
	if list, ok := only[from]; ok {
		return matchAny(list, to)
	}
	if matchAny(testOnly, from) {
		return true
	}
	if matchAny(testOnly, to) {
		return false
	}
	if layerOf(to) < layerOf(from) {
		return true
	}
	if layerOf(to) > layerOf(from) {
		return false
	}
	for _, a := range sameLayer {
		if match(a.from, from) && match(a.to, to) {
			return true
		}
	}
	return false
}
