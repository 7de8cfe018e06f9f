package cli

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/writ-project/writ/internal/fw"
)

// prompt asks for a secret on the terminal, without echo.
func (a *app) prompt(what string) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, fw.Errorf(fw.Invalid, "%s is needed and there is no terminal to ask on", what)
	}
	putf(a.err, "%s: ", what)
	b, err := term.ReadPassword(int(f.Fd()))
	putln(a.err)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot read %s", what)
	}
	return b, nil
}

// newPassphrase asks for a passphrase twice.
func (a *app) newPassphrase() ([]byte, error) {
	one, err := a.prompt("New passphrase for the keys of this server")
	if err != nil {
		return nil, err
	}
	two, err := a.prompt("The same again")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(one, two) {
		return nil, fw.Errorf(fw.Invalid, "the passphrases differ: start again")
	}
	return one, nil
}

// confirm asks a question that needs the word yes.
func (a *app) confirm(ctx context.Context, question string) error {
	if !isTerminal(a.in) {
		return fw.Errorf(fw.Invalid, "nobody is there to confirm: look at the above, then add --yes")
	}
	putf(a.err, "%s [yes/no] ", question)
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil {
			line = ""
		}
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case s := <-answer:
		if s != "yes" {
			return fw.Errorf(fw.Conflict, "not confirmed, so nothing was done")
		}
		return nil
	}
}
