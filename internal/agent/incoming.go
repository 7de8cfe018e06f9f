package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// maxIncoming is how many refused files wait in the outbox at most.
const maxIncoming = 16

// errRefused is what Drop ends in.
var errRefused = fw.Errorf(fw.Forbidden, "refused, %s: firmware is installed only under an authorization, which comes from the server", fw.RejectNoAuthorization)

// Drop is what becomes of firmware that somebody brings to the device by hand:
// it is left in incoming/, refused and reported, at once or by the agent that
// is running. It always returns an error, Forbidden if all went as it should.
func Drop(ctx context.Context, dir, file string, log *slog.Logger) error {
	in := filepath.Join(dir, "incoming")
	if err := os.MkdirAll(in, 0o700); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot make %s", in)
	}
	hidden := filepath.Join(in, "."+filepath.Base(file))
	if err := copyFile(hidden, file); err != nil {
		return err
	}
	if err := rename(hidden, filepath.Join(in, filepath.Base(file))); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot leave %s in %s", file, in)
	}
	unlock, err := lock(dir)
	if fw.KindOf(err) == fw.Conflict {
		return errRefused // the agent that has the lock reports it
	}
	if err != nil {
		return err
	}
	err = refuseNow(ctx, dir, log)
	if err = errors.Join(err, unlock()); err != nil {
		return err
	}
	return errRefused
}

// refuseNow refuses what was dropped and tries to send the report.
func refuseNow(ctx context.Context, dir string, log *slog.Logger) error {
	a, err := open(dir, log)
	if err != nil {
		return err
	}
	defer a.reconnect()
	// This is no start of the device, so it does not count as one.
	if a.state.Boot.ID.IsZero() {
		if err := a.begin(); err != nil {
			return err
		}
	}
	if a.running, err = measure(a.dir, a.state.Boot.Slot); err != nil {
		return err
	}
	if err := a.refuseIncoming(ctx); err != nil {
		return err
	}
	a.tryFlush(ctx)
	return nil
}

// refuseIncoming refuses every file in incoming/: correctly signed or not,
// firmware without an authorization is not installed.
func (a *Agent) refuseIncoming(ctx context.Context) error {
	in := filepath.Join(a.dir, "incoming")
	list, err := os.ReadDir(in)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() || len(a.state.Outbox) >= maxIncoming {
			continue
		}
		path := filepath.Join(in, e.Name())
		digest, size, err := hashPath(path)
		if err != nil {
			return err
		}
		_, v := authz.Open(nil, a.deviceState(), a.checkReceipt)
		why := rejected(v)
		why.detail = fmt.Sprintf("%s, %d bytes, %s: %s", digest, size, e.Name(), v.Detail)
		a.log.WarnContext(ctx, "firmware refused", "reason", v.Reason, "digest", digest, "bytes", size)
		if err := a.save(func(s *state) error { return a.report(s, nil, fw.EventRejected, why) }); err != nil {
			return err
		}
		if err := remove(path); err != nil {
			return err
		}
	}
	return nil
}

func hashPath(path string) (fw.Digest, int64, error) {
	f, err := os.Open(path) //nolint:gosec // G304: within the state directory
	if err != nil {
		return fw.Digest{}, 0, err
	}
	defer closing(f)
	return hashFile(f)
}

// copyFile copies a file durably.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from) //nolint:gosec // G304: the file the user names
	if err != nil {
		return fw.Wrap(fw.Invalid, err, "cannot open %s", from)
	}
	defer closing(in)
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // G304: within the state directory
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot write %s", to)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(fw.Wrap(fw.Internal, err, "cannot copy %s", from), remove(to))
	}
	return nil
}
