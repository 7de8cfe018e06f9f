package signer

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/fw"
)

const (
	logSuffix     = ".log.json"
	maxLogState   = 4 << 10
	maxCheckpoint = 64 << 10 // bytes of note text
	// persistEvery is after how many checkpoints the state file is written.
	persistEvery = 1024
	// rememberRoots is for how many past checkpoints receipts can be made.
	rememberRoots = 1024
)

// treeHead is a size and a root of the log.
type treeHead struct {
	Size int64     `json:"size"`
	Root fw.Digest `json:"root"`
}

// LogSigner signs the checkpoints of one log (C2SP tlog-checkpoint) and
// receipts under their roots. It implements note.Signer.
//
// It refuses to shrink the log and to sign two roots for one size. It knows
// what it signed since the process started, and from a state file a lower
// bound for what was signed before: the file is written every 1024
// checkpoints and on Close, without fsync in between, and only with heads that
// a later one followed. So a restored old database is caught by up to that
// distance here, and exactly by witnesses and by the ledger's own start check.
type LogSigner struct {
	key    LogKey
	origin string
	hash   uint32
	path   string

	mu    sync.Mutex
	last  treeHead // the last one signed
	prior treeHead // the one before: certainly in use, because last followed it
	since int      // checkpoints since the state file was written
	roots map[fw.Digest]bool
	order []fw.Digest // of roots, oldest first
}

var _ note.Signer = (*LogSigner)(nil)

// LogSigner returns the signer of the log named origin with the given key.
// One key signs one log: asking again with another origin is an error.
func (s *Signer) LogSigner(key fw.KeyName, origin string) (*LogSigner, error) {
	k, err := s.ks.use(key, fw.PurposeLog)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[key]; l != nil {
		if l.origin != origin {
			return nil, fw.Errorf(fw.Conflict, "key %q signs log %q and cannot sign log %q", key, l.origin, origin)
		}
		return l, nil
	}
	pub, _ := k.key.Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "log origin %q cannot be used: give a name without spaces and plus signs", origin)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "log origin %q cannot be used: give a name without spaces and plus signs", origin)
	}
	l := &LogSigner{key: LogKey{k}, origin: origin, hash: v.KeyHash(), path: s.ks.path(key, logSuffix), roots: map[fw.Digest]bool{}}
	if err := l.restore(); err != nil {
		return nil, err
	}
	s.logs[key] = l
	return l, nil
}

// logState is the state file.
type logState struct {
	Type   string   `json:"type"` // writ-log-state/v1
	Origin string   `json:"origin"`
	Head   treeHead `json:"head"`
}

const typeLogState = "writ-log-state/v1"

func (l *LogSigner) restore() error {
	b, err := readBounded(l.path, maxLogState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var st logState
	if err := json.Unmarshal(b, &st); err != nil || st.Type != typeLogState || st.Head.Size < 0 {
		return fw.Wrap(fw.Corrupt, err, "%s is damaged: delete it if the log's latest checkpoint is known to be good", l.path)
	}
	if st.Origin != l.origin {
		return fw.Errorf(fw.Conflict, "key %q signed log %q before and cannot sign log %q: make a new log key", l.key.k.info.Name, st.Origin, l.origin)
	}
	l.last, l.prior = st.Head, st.Head
	return nil
}

// Name implements note.Signer: the log's origin.
func (l *LogSigner) Name() string { return l.origin }

// KeyHash implements note.Signer.
func (l *LogSigner) KeyHash() uint32 { return l.hash }

// Public returns the log's public key.
func (l *LogSigner) Public() ed25519.PublicKey {
	pub, _ := l.key.k.key.Public().(ed25519.PublicKey)
	return pub
}

// Sign implements note.Signer for the text of a checkpoint.
func (l *LogSigner) Sign(msg []byte) ([]byte, error) {
	head, err := parseCheckpoint(msg, l.origin)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case head.Size < l.last.Size:
		return nil, fw.Errorf(fw.Conflict, "log %s: refusing to sign size %d after size %d; if a backup was restored, recover the missing records from a witness or a replica", l.origin, head.Size, l.last.Size)
	case head.Size == l.last.Size && !l.last.Root.IsZero() && head.Root != l.last.Root:
		return nil, fw.Errorf(fw.Conflict, "log %s: refusing to sign a second root for size %d", l.origin, head.Size)
	case head.Size > l.last.Size && !l.last.Root.IsZero():
		l.prior = l.last
	}
	// Before head counts as signed: after a failure, of a full disk say, the
	// same size is asked for again with another root.
	if l.since++; l.since >= persistEvery {
		if err := l.persist(); err != nil {
			return nil, err
		}
	}
	sig, err := l.key.sign(msg)
	if err != nil {
		return nil, err
	}
	l.last = head
	l.remember(head.Root)
	return sig, nil
}

// sign makes an Ed25519 signature over a checkpoint or a receipt.
func (k LogKey) sign(msg []byte) ([]byte, error) {
	return k.k.key.Sign(rand.Reader, msg, crypto.Hash(0))
}

// Abandon says that the checkpoint signed last never left the process, because
// the transaction it belongs to did not commit. Without it the next attempt,
// of the same size with another root, would be refused as a fork. Only the
// last one signed can be abandoned.
func (l *LogSigner) Abandon(size int64, root [sha256.Size]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.last != treeHead{size, root}) {
		return fw.Errorf(fw.Conflict, "log %s: size %d was not signed last and cannot be abandoned", l.origin, size)
	}
	if l.last == l.prior {
		return nil // signed before too, and in use
	}
	l.forget(root)
	l.last = l.prior
	return nil
}

// SignReceipt signs the Sig_structure of a COSE receipt (RFC 9942), whose
// payload is the root of a checkpoint that this LogSigner signed recently.
func (l *LogSigner) SignReceipt(tbs []byte) ([]byte, error) {
	payload, err := sigPayload(tbs)
	if err != nil {
		return nil, err
	}
	if len(payload) != sha256.Size {
		return nil, fw.Errorf(fw.Invalid, "the payload of a receipt is a tree root of %d bytes, not %d", sha256.Size, len(payload))
	}
	l.mu.Lock()
	known := l.roots[fw.Digest(payload)]
	l.mu.Unlock()
	if !known {
		return nil, fw.Errorf(fw.Forbidden, "log %s: no recent checkpoint has the root of this receipt", l.origin)
	}
	return l.key.sign(tbs)
}

func (l *LogSigner) remember(root fw.Digest) {
	if l.roots[root] {
		return
	}
	if len(l.order) >= rememberRoots {
		delete(l.roots, l.order[0])
		l.order = l.order[1:]
	}
	l.roots[root] = true
	l.order = append(l.order, root)
}

// forget drops root, which was remembered last.
func (l *LogSigner) forget(root fw.Digest) {
	delete(l.roots, root)
	if n := len(l.order); n > 0 && l.order[n-1] == root {
		l.order = l.order[:n-1]
	}
}

func (l *LogSigner) persist() error {
	if l.prior.Root.IsZero() {
		return nil
	}
	b, err := json.Marshal(logState{Type: typeLogState, Origin: l.origin, Head: l.prior})
	if err != nil {
		return err
	}
	if err := writeAtomic(l.path, append(b, '\n')); err != nil {
		return err
	}
	l.since = 0
	return nil
}

func (l *LogSigner) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.persist()
}

// parseCheckpoint reads the text of a checkpoint: origin, size, root, optional
// extension lines (C2SP tlog-checkpoint).
func parseCheckpoint(msg []byte, origin string) (treeHead, error) {
	bad := fw.Errorf(fw.Invalid, "not a checkpoint of log %s", origin)
	if len(msg) > maxCheckpoint || !bytes.HasSuffix(msg, []byte("\n")) {
		return treeHead{}, bad
	}
	lines := strings.Split(string(msg[:len(msg)-1]), "\n")
	if len(lines) < 3 || lines[0] != origin || slices.Contains(lines[3:], "") {
		return treeHead{}, bad
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return treeHead{}, bad
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return treeHead{}, bad
	}
	return treeHead{size, fw.Digest(root)}, nil
}
