package cli_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-project/writ/internal/config"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/server"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// Commands that break disks and clocks. The disks need root and [root].
//
//	small-disk DIR SIZE     mount a file system of SIZE bytes on the new folder DIR
//	fill DIR LEFT           use it up but for LEFT bytes, with the file DIR/ballast
//	read-only DIR           mount it read-only from here on
//	clock-ahead DATA TIME   append a record as the server of DATA would, stopped now, if its clock were TIME ahead
//	fingerprint DIR FILE    write the digest of everything in DIR, names, modes and bytes, to FILE

// canMount says why the test cannot mount file systems, nil if it can.
func canMount() error {
	dir, err := os.MkdirTemp("", "writ-mount")
	if err != nil {
		return err
	}
	if err := mount(dir, "4096", 0); err != nil {
		return errors.Join(fmt.Errorf("mounting needs root: %w", err), os.Remove(dir))
	}
	return errors.Join(syscall.Unmount(dir, 0), os.Remove(dir))
}

func mount(dir, size string, flags uintptr) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", flags, "size="+size)
}

func smallDisk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "small-disk DIR SIZE")
	dir := ts.MkAbs(args[0])
	_, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(mount(dir, args[1], 0))
	s := of(ts)
	ts.Defer(func() {
		// Whatever still runs on it has to end first.
		s.end()
		s.server = nil
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			s.t.Log("unmounting: ", err)
		}
	})
}

func fill(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "fill DIR LEFT")
	left, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(filepath.Join(ts.MkAbs(args[0]), "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	defer f.Close()
	for size := 64 << 10; size >= 1; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			ts.Check(err)
		}
	}
	info, err := f.Stat()
	ts.Check(err)
	ts.Check(f.Truncate(info.Size() - left))
}

func readOnly(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "read-only DIR")
	ts.Check(syscall.Mount("", ts.MkAbs(args[0]), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
}

func fingerprint(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "fingerprint DIR FILE")
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	defer out.Close()
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s %d %x\n", path, n, h.Sum(nil))
		}
		return err
	}))
}

func clockAhead(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "clock-ahead DATA TIME")
	ahead, err := time.ParseDuration(args[1])
	ts.Check(err)
	ctx, c := context.Background(), config.Config{Data: ts.MkAbs(args[0]), Passphrase: []byte(ts.Getenv("WRIT_PASSPHRASE"))}
	ts.Check(c.Complete())
	ks, err := signer.OpenKeystore(c.Keys(), signer.KeystoreOptions{Passphrase: c.Passphrase})
	ts.Check(err)
	s, err := signer.Open(ks, signer.Options{})
	ts.Check(err)
	logSigner, err := s.LogSigner(server.LogKeyName, c.Name)
	ts.Check(err)
	db, err := store.Open(ctx, store.Options{URL: c.Database, Now: func() time.Time { return time.Now().Add(ahead) }})
	ts.Check(err)
	l, err := ledger.Open(ctx, db, logSigner)
	ts.Check(err)
	_, _, err = l.Epoch(ctx)
	ts.Check(errors.Join(err, db.Close(), s.Close()))
}
