// Package cli is the writ command: the server, and everything an operator does
// with one. It holds no rules; each command is one or a few calls of package
// client, and what the server refuses is refused.
//
// # What it promises
//
//   - Results go to stdout, everything else (errors, questions, progress, logs)
//     to stderr. With -o json a result is one JSON document, or one per line
//     for commands that go on (campaign watch), and an error is
//     {"error":{"kind":…,"message":…,"exit":…}} on stderr.
//   - An error is one line that says what to do next, without the cause that
//     only the server's operator should see.
//   - The exit code says what kind of failure it was; see [Exit].
//   - Secrets are shown once and never taken from flags, where other users of
//     the host could read them: they come from files, the environment, stdin or
//     a prompt without echo.
//   - A progress bar is drawn on terminals only.
//   - What is signed is shown before it is signed, from the exact bytes that
//     the signature will cover, after checking that these bytes are about what
//     was asked for.
//   - An upload that was interrupted goes on where it stopped when the same
//     command is run again.
//   - No command reads a configuration that another user could have written.
//
// # Which server, as whom
//
// In this order: the flags --server, --token-file and --ca; the environment
// WRIT_SERVER, WRIT_TOKEN and WRIT_CA; the profile that `writ login` stored in
// $XDG_CONFIG_HOME/writ/config.json (mode 0600). A token is only ever sent to
// the server it was given for: with --server or WRIT_SERVER, the profile's
// token is used only if the address is the profile's.
//
// # Example
//
//	writ serve --data ./writ-data                     # prints the token and the CA fingerprint
//	writ login https://localhost:8443 --ca-fingerprint SHA256:… --token-file token
//	writ product create thermostat --hardware rev-a --image-key image
//	writ device register devices.csv --product thermostat
//	writ release create --product thermostat --version 1.2.0 --type functional --image app.bin
//	writ approve release rel_… --key ~/.ssh/id_ed25519
//	writ release publish rel_…
package cli
