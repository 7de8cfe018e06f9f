// Command writ-pkcs11 signs with the keys of a PKCS#11 token for writ and
// writ-signer, which start it and speak to it over its standard input and
// output. It is a program of its own so that they stay static and so that a
// fault in a vendor's library cannot reach them; docs/signing.md has more.
package main

import (
	"fmt"
	"os"

	"github.com/writ-project/writ/internal/custody/pkcs11/token"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "writ-pkcs11 is started by writ and writ-signer and takes no arguments: see docs/signing.md")
		os.Exit(2)
	}
	if err := token.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "writ-pkcs11:", err)
		os.Exit(1)
	}
}
