package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

// Exit is the exit code of the command.
type Exit int

// Exit codes. They are part of the interface: scripts rely on them.
const (
	ExitOK           Exit = 0
	ExitFailed       Exit = 1 // it failed, or the answer is no
	ExitUsage        Exit = 2 // what was given is wrong; the same again is useless
	ExitNotFound     Exit = 3
	ExitConflict     Exit = 4 // the thing is not in a state that permits it
	ExitUnauthorized Exit = 5 // no valid credential, or not allowed
	ExitUnavailable  Exit = 6 // no server there, or it is busy: try again later
)

// exitCodes is the text of `writ help exit-codes`.
const exitCodes = `Exit codes of every command:

  0  done, and the answer is yes
  1  failed, or the answer is no (a log or bundle that does not verify)
  2  usage: a wrong flag, argument or file; the same again is useless
  3  there is no such thing
  4  conflict: the thing is not in a state that permits this
  5  no valid token or signature, or not allowed to do this
  6  the server cannot be reached or is busy: try again later

writ verify uses 0 verified, 1 failed, 2 incomplete.
`

// exitOf is the one mapping from kinds to exit codes.
func exitOf(k fw.Kind) Exit {
	switch k {
	case "":
		return ExitOK
	case fw.Invalid, fw.TooLarge:
		return ExitUsage
	case fw.NotFound:
		return ExitNotFound
	case fw.Conflict:
		return ExitConflict
	case fw.Unauthenticated, fw.Forbidden:
		return ExitUnauthorized
	case fw.Unavailable, fw.TooMany:
		return ExitUnavailable
	case fw.Corrupt, fw.Internal:
		return ExitFailed
	}
	return ExitFailed
}

// kindOf is the kind of an error of this process or of the server.
func kindOf(err error) fw.Kind {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Kind
	}
	return fw.KindOf(err)
}

// exitError ends the command with a code and no message of its own: what was
// to be said has been printed.
type exitError Exit

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// fail prints err and returns its exit code.
func (a *app) fail(err error) Exit {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[exitError](err); ok {
		return Exit(e)
	}
	kind, msg := kindOf(err), err.Error()
	if e, ok := errors.AsType[*fw.Error](err); ok {
		msg = e.Msg
		// This process has no log to keep a cause in. Why a secret or a
		// signature was wrong helps nobody who may know it.
		if e.Err != nil && kind != fw.Unauthenticated && kind != fw.Forbidden {
			msg += ": " + e.Err.Error()
		}
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Kind == fw.Internal && e.RequestID != "" {
		msg += " (request " + e.RequestID + ", for the server's log)"
	}
	exit := exitOf(kind)
	switch {
	case errors.Is(err, context.Canceled):
		kind, msg, exit = fw.Unavailable, "interrupted", ExitFailed
	case !a.ran: // cobra's own errors: flags, arguments, commands
		kind, exit = fw.Invalid, ExitUsage
		msg += fmt.Sprintf("; see %s --help", a.path)
	}
	writeError(a.err, a.format, problem{Kind: kind, Message: oneLine(msg), Exit: exit})
	return exit
}

type problem struct {
	Kind    fw.Kind `json:"kind"`
	Message string  `json:"message"`
	Exit    Exit    `json:"exit"`
}

func writeError(w io.Writer, f format, p problem) {
	if f == formatJSON {
		b, err := json.Marshal(map[string]problem{"error": p})
		if err == nil {
			putf(w, "%s\n", b)
			return
		}
	}
	putf(w, "writ: %s\n", p.Message)
}

// oneLine makes s safe for a terminal and one line long: it may quote what a
// server or a file said.
func oneLine(s string) string { return printable(strings.TrimSpace(s), ' ') }

// printable replaces control characters, which could rewrite what a terminal
// shows, and the Unicode marks that reorder text. Newlines become newline.
func printable(s string, newline rune) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return newline
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0,
			r >= 0x200e && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '\ufffd'
		}
		return r
	}, s)
}
