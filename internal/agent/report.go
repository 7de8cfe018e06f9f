package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// fault ends an update, with the report it ends in.
type fault struct {
	event  fw.ReportEvent // failed or rejected
	reason fw.Reason
	detail string
}

func (f *fault) Error() string { return fmt.Sprintf("%s, %s: %s", f.event, f.reason, f.detail) }

func rejected(v authz.Verdict) *fault {
	return &fault{event: fw.EventRejected, reason: v.Reason, detail: v.Detail}
}

func failed(reason fw.Reason, err error) *fault {
	return &fault{event: fw.EventFailed, reason: reason, detail: err.Error()}
}

// maxDetail is the bound of authz.Report.Detail in bytes.
const maxDetail = 512

// oneLine makes text fit for a report's detail.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxDetail)], "")
}

// report signs a report and puts it into the outbox of s. auth is nil when it
// is about no readable authorization.
func (a *Agent) report(s *state, auth *authz.Authorization, event fw.ReportEvent, why *fault) error {
	s.ReportSequence++
	r := authz.Report{
		Device: a.cfg.Device, Time: max(0, a.now().Unix()), Sequence: s.ReportSequence, Boot: s.Boot.ID,
		Event: event, Components: a.reported(),
	}
	if auth != nil {
		r.Nonce, r.Authorization, r.Update = auth.Claims.Nonce, auth.Claims.ID, auth.Claims.Update
	}
	if why != nil {
		r.Reason, r.Detail = why.reason, oneLine(why.detail)
	}
	return a.post(s, r)
}

// post signs r and appends it to the outbox.
func (a *Agent) post(s *state, r authz.Report) error {
	msg, err := authz.SignReport(r, a.id.key)
	if err != nil {
		return err
	}
	s.Outbox = append(s.Outbox, outgoing{Sequence: r.Sequence, Event: r.Event, Message: msg})
	return nil
}

// recorded is the server's answer to a report.
type recorded struct {
	Recorded bool           `json:"recorded"`
	State    fw.UpdateState `json:"state"`
}

// flush sends the outbox in order. A report leaves it when the server has it.
func (a *Agent) flush(ctx context.Context) error {
	for jump := uint64(1); len(a.state.Outbox) > 0; {
		first := a.state.Outbox[0]
		b, err := a.client().post(ctx, pathReport, mediaCOSE, first.Message, maxAnswer)
		r, refused := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			var answer recorded
			if err := json.Unmarshal(b, &answer); err != nil || !answer.Recorded {
				return fw.Wrap(fw.Unavailable, err, "the server did not say that it recorded report %d", first.Sequence)
			}
			a.log.InfoContext(ctx, "report recorded", "sequence", first.Sequence, "event", first.Event, "state", answer.State)
		case refused && r.status == http.StatusConflict && jump < 1<<32:
			// The number is taken: this state is older than what the server
			// knows of the device. Continue further up.
			a.log.WarnContext(ctx, "report number is taken", "sequence", first.Sequence, "err", err)
			if err := a.renumber(jump); err != nil {
				return err
			}
			jump *= 2
			continue
		case refused && (r.status == http.StatusBadRequest || r.status == http.StatusRequestEntityTooLarge):
			// It will never be taken, and what comes after it must be.
			a.log.ErrorContext(ctx, "report refused for good", "sequence", first.Sequence, "event", first.Event, "err", err)
			if err := a.bury(first); err != nil {
				return err
			}
		default:
			return err
		}
		if err := a.save(func(s *state) error { s.Outbox = s.Outbox[1:]; return nil }); err != nil {
			return err
		}
	}
	return nil
}

// renumber signs the whole outbox again under higher numbers.
func (a *Agent) renumber(jump uint64) error {
	return a.save(func(s *state) error {
		old := s.Outbox
		s.Outbox = nil
		s.ReportSequence += jump - 1
		for _, o := range old {
			signed, err := authz.DecodeReport(o.Message)
			if err != nil {
				return err
			}
			s.ReportSequence++
			r := signed.Report
			r.Sequence = s.ReportSequence
			if err := a.post(s, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// bury keeps a report the server will never take, for whoever looks into it.
func (a *Agent) bury(o outgoing) error {
	dir := filepath.Join(a.dir, "dead")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fmt.Sprintf("report-%d.cose", o.Sequence)), o.Message)
}
