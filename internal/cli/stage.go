package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// stageKeys is what a --stage may say, for help and errors.
const stageKeys = "count, percent, cohort, min-confirmed, max-failures, max-failure-percent, alpha, soak, approval"

// parseStage reads the words of a --stage: a name, then key=value. A cohort
// with spaces comes last or in quotes.
//
//	canary count=2 max-failures=0 min-confirmed=2 soak=10s
//	rest percent=100 max-failure-percent=5 approval=yes cohort='device.attributes.site == "lab"'
func parseStage(s string) (fw.StagePlan, error) {
	words, err := splitWords(s)
	if err != nil || len(words) == 0 || strings.Contains(words[0], "=") {
		return fw.StagePlan{}, fw.Errorf(fw.Invalid, "--stage %q: begin with a name, then key=value, e.g. \"canary count=2 max-failures=0\"", s)
	}
	p := fw.StagePlan{Name: words[0]}
	seen := map[string]bool{}
	for _, w := range words[1:] {
		k, v, ok := strings.Cut(w, "=")
		if !ok || v == "" || seen[k] {
			return p, fw.Errorf(fw.Invalid, "--stage %q: %q must be key=value, once each; keys: %s", s, w, stageKeys)
		}
		seen[k] = true
		if err := setStage(&p, k, v); err != nil {
			return p, fw.Wrap(fw.Invalid, err, "--stage %q: %s=%s makes no sense; keys: %s", s, k, v, stageKeys)
		}
	}
	return p, nil
}

func setStage(p *fw.StagePlan, k, v string) (err error) {
	switch k {
	case "count":
		p.Count, err = strconv.Atoi(v)
	case "percent":
		p.Percent, err = strconv.Atoi(strings.TrimSuffix(v, "%"))
	case "cohort":
		p.Cohort = v
	case "min-confirmed":
		p.MinConfirmed, err = strconv.Atoi(v)
	case "max-failures":
		var n int
		n, err = strconv.Atoi(v)
		p.MaxFailures = &n
	case "max-failure-percent":
		p.MaxFailurePercent, err = strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64)
	case "alpha":
		p.Alpha, err = strconv.ParseFloat(v, 64)
	case "soak":
		p.SoakSeconds, err = wholeSeconds(v)
	case "approval":
		p.NeedsApproval, err = strconv.ParseBool(strings.NewReplacer("yes", "true", "no", "false").Replace(v))
	default:
		err = strconv.ErrSyntax
	}
	return err
}

func wholeSeconds(v string) (int64, error) {
	d, err := time.ParseDuration(v)
	if err == nil && (d < 0 || d%time.Second != 0) {
		err = strconv.ErrRange
	}
	return int64(d / time.Second), err
}

// splitWords splits at spaces outside quotes. Quotes that wrap a whole value
// are removed; others, as in CEL, stay.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inside := false
	for _, r := range s {
		switch {
		case quote != 0:
			word.WriteRune(r)
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote, inside = r, true
			word.WriteRune(r)
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, unquote(word.String()))
				word.Reset()
				inside = false
			}
		default:
			inside = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, strconv.ErrSyntax
	}
	if inside {
		words = append(words, unquote(word.String()))
	}
	return words, nil
}

// unquote removes the quotes of key='value'.
func unquote(w string) string {
	k, v, ok := strings.Cut(w, "=")
	if ok && len(v) >= 2 && (v[0] == '\'' || v[0] == '"') && strings.IndexByte(v[1:], v[0]) == len(v)-2 {
		return k + "=" + v[1:len(v)-1]
	}
	return w
}
