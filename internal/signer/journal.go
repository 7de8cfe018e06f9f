package signer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// EntryKind is the kind of a journal entry.
type EntryKind string

// Journal entry kinds.
const (
	EntryRedeemed EntryKind = "redeemed" // a permit was redeemed; fsynced before the key is used
	EntrySigned   EntryKind = "signed"   // what came of it
	EntryRoster   EntryKind = "roster"   // a roster was adopted
	EntryRefused  EntryKind = "refused"  // somebody asked for what was not allowed
)

// Entry is one line of the journal.
type Entry struct {
	Seq      int64       `json:"seq"`           // from 1
	Prev     fw.Digest   `json:"prev,omitzero"` // of the line before, without its newline; absent in the first
	Kind     EntryKind   `json:"kind"`
	At       int64       `json:"at"` // Unix seconds, from the caller
	Permit   fw.PermitID `json:"permit,omitempty"`
	Purpose  fw.Purpose  `json:"purpose,omitempty"`
	Key      fw.KeyName  `json:"key,omitempty"`
	Subject  fw.Digest   `json:"subject,omitzero"`
	Evidence int64       `json:"evidence"`
	Output   fw.Digest   `json:"output,omitzero"`  // signed: of what came out
	Roster   []byte      `json:"roster,omitempty"` // roster: the document

	// Of signed and refused, as far as they are known.
	Document   fw.Digest          `json:"document,omitzero"` // of the approved manifest, or of the trust bundle
	Component  fw.ComponentName   `json:"component,omitempty"`
	KeyID      string             `json:"key_id,omitempty"`
	Algorithm  Algorithm          `json:"algorithm,omitempty"`
	Custody    string             `json:"custody,omitempty"`
	Approvals  []approval.Counted `json:"approvals,omitempty"`
	Provenance fw.Digest          `json:"provenance,omitzero"`
	By         fw.PersonID        `json:"by,omitempty"`    // who asked, as the server says
	Trust      int64              `json:"trust,omitempty"` // version of the trust bundle
	Reason     string             `json:"reason,omitempty"`
	Count      int                `json:"count,omitempty"` // refused: more of them that have no line of their own
}

// maxLine bounds a journal line; a roster is up to 1 MiB, base64 adds a third.
const maxLine = 2 << 20

// Journal is an append-only file of hash-chained JSON lines. It is how a
// permit stays used across restarts. A truncated journal cannot be told from a
// shorter one by itself; the evidence log holds the decisions behind it.
type Journal struct {
	path string

	mu     sync.Mutex
	f      *os.File
	size   int64 // of the good part
	seq    int64
	head   fw.Digest
	used   map[fw.PermitID]bool
	roster []byte             // document of the last one adopted
	made   map[fw.Digest]bool // see madeOf
	trust  trustHead
	broken error
}

// trustHead is the newest version of the trust bundle that was signed, and the
// documents of that version: after a crash there can be two.
type trustHead struct {
	version int64
	digests []fw.Digest
}

// madeOf names an image by what it was made for: a manifest, one component of
// it, and the digest of what came out.
func madeOf(manifest fw.Digest, component fw.ComponentName, output fw.Digest) fw.Digest {
	b := make([]byte, 0, 128)
	b = append(append(b, manifest[:]...), output[:]...)
	return fw.DigestOf(append(b, component...))
}

// OpenJournal opens or makes the journal at path and checks all of it. An
// unfinished last line, what a crash during a write leaves, is cut off; its
// permit's key had not been used. Anything else wrong is an error, and so is a
// journal that another process has open.
func OpenJournal(path string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot open the signing journal %s: check its owner and permissions", path)
	}
	j := blankJournal(path, f)
	if err := j.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// ReadJournal checks the journal at path, which a signer may be writing, and
// hands each entry to f. It returns the number of entries and the digest of
// the last.
func ReadJournal(path string, f func(Entry) error) (int64, fw.Digest, error) {
	file, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return 0, fw.Digest{}, fw.Wrap(fw.NotFound, err, "cannot open the signing journal %s", path)
	}
	defer func() { _ = file.Close() }() // only read
	j := blankJournal(path, file)
	err = j.readAll(f)
	return j.seq, j.head, err
}

func blankJournal(path string, f *os.File) *Journal {
	return &Journal{path: path, f: f, used: map[fw.PermitID]bool{}, made: map[fw.Digest]bool{}}
}

func (j *Journal) open() error {
	if err := lockFile(j.f); err != nil {
		return fw.Wrap(fw.Conflict, err, "the signing journal %s is in use: another server runs on this key directory", j.path)
	}
	if err := checkMode(j.path, 0o022); err != nil {
		return err
	}
	if err := j.readAll(func(Entry) error { return nil }); err != nil {
		return err
	}
	if err := j.f.Truncate(j.size); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot cut the unfinished line off %s", j.path)
	}
	if _, err := j.f.Seek(j.size, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(j.f.Sync(), syncDir(filepath.Dir(j.path)))
}

// readAll checks every complete line and hands its entry to f.
func (j *Journal) readAll(f func(Entry) error) error {
	r := bufio.NewReaderSize(j.f, 64<<10)
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fw.Wrap(fw.Corrupt, err, "cannot read %s after entry %d: restore it from a backup", j.path, j.seq)
		}
		e, err := j.replay(line)
		if err != nil {
			return fw.Wrap(fw.Corrupt, err, "%s was changed after entry %d: restore it from a backup, and find out who changed it", j.path, j.seq)
		}
		j.size += int64(len(line)) + 1
		if err := f(e); err != nil {
			return err
		}
	}
}

// readLine returns the next complete line without its newline. An unfinished
// one is io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("line longer than %d bytes", maxLine)
		}
		if err == nil {
			return line[:len(line)-1], nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

func (j *Journal) replay(line []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return e, err
	}
	// Only the form that Append writes: nothing can hide beside what was read.
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, line) {
		return e, errors.Join(errors.New("not in the form that the signer writes"), err)
	}
	if e.Seq != j.seq+1 || e.Prev != j.head {
		return e, fmt.Errorf("entry %d does not follow entry %d", e.Seq, j.seq)
	}
	j.apply(e, line)
	return e, nil
}

func (j *Journal) apply(e Entry, line []byte) {
	j.seq, j.head = e.Seq, fw.DigestOf(line)
	switch e.Kind {
	case EntryRedeemed:
		j.used[e.Permit] = true
	case EntryRoster:
		j.roster = e.Roster
	case EntrySigned:
		if e.Component != "" {
			j.made[madeOf(e.Document, e.Component, e.Output)] = true
		}
		if e.Trust > j.trust.version {
			j.trust = trustHead{version: e.Trust}
		}
		if e.Trust > 0 && e.Trust == j.trust.version {
			j.trust.digests = append(j.trust.digests, e.Document)
		}
	case EntryRefused:
	}
}

// Append adds e, giving it its place in the chain. Entries that something
// depends on, redeemed and roster, are on disk when it returns. A permit is
// redeemed once: the second time is a conflict.
func (j *Journal) Append(e Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return j.broken
	}
	if e.Kind == EntryRedeemed && j.used[e.Permit] {
		return fw.Errorf(fw.Conflict, "permit %s has been used; a new decision is needed", e.Permit)
	}
	e.Seq, e.Prev = j.seq+1, j.head
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := j.write(append(line, '\n'), e.Kind == EntryRedeemed || e.Kind == EntryRoster); err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot write the signing journal %s, so nothing was signed: check free space and permissions", j.path)
	}
	j.apply(e, line)
	return nil
}

func (j *Journal) write(b []byte, sync bool) error {
	_, err := j.f.Write(b)
	if err == nil && sync {
		// After a failed fsync the kernel may have dropped the page and call
		// the next one a success, so this file is done with.
		if err := j.f.Sync(); err != nil {
			j.broken = fw.Wrap(fw.Unavailable, err, "the signing journal %s failed: restart the server when the disk is well", j.path)
			return err
		}
	}
	if err != nil {
		// Take back the partial line, else the next one would be joined to it.
		_, serr := j.f.Seek(j.size, io.SeekStart)
		if terr := errors.Join(j.f.Truncate(j.size), serr); terr != nil {
			j.broken = fw.Wrap(fw.Unavailable, terr, "the signing journal %s failed: restart the server when the disk is well", j.path)
		}
		return err
	}
	j.size += int64(len(b))
	return nil
}

// Head returns the number of entries and the digest of the last.
func (j *Journal) Head() (int64, fw.Digest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq, j.head
}

// Used reports whether a permit was redeemed.
func (j *Journal) Used(p fw.PermitID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.used[p]
}

// hasMade reports whether output was signed for a component of a manifest.
func (j *Journal) hasMade(manifest fw.Digest, component fw.ComponentName, output fw.Digest) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.made[madeOf(manifest, component, output)]
}

func (j *Journal) lastTrust() trustHead {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trust
}

// Roster returns the document of the roster adopted last; nil if none was.
func (j *Journal) Roster() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.roster
}

// Close closes the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	err := errors.Join(j.f.Sync(), j.f.Close())
	j.f = nil
	j.broken = fw.Errorf(fw.Unavailable, "the signer is closed")
	return err
}
