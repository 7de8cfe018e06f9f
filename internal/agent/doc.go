// Package agent is the device side of writ for Linux-class devices: it asks a
// server for updates, verifies the authorization, the receipt and the image,
// installs into the other of two slots, and reports what happened under the
// device's own key.
//
// # What it promises
//
//   - Nothing is installed without an authorization for this device. The checks
//     are authz.Open, authz.CheckImage and authz.Recheck, the same code the
//     server and the offline verifier use. Firmware that is only correctly
//     signed is refused and reported.
//   - A slot becomes active only after every byte in it was verified, and the
//     bytes are verified once more right before the switch.
//   - "Installed" is reported only by a process that started from the new slot,
//     "confirmed" only after the health check passed there, and both with the
//     digest measured over the bytes of that slot, not a remembered one.
//   - kill -9 or a loss of power at any moment loses nothing: the agent goes on
//     where it was. A report that was made is sent until the server has it, in
//     order, with its sequence number.
//   - What an attacker on the wire can do is delay. Failures of network, server
//     or disk never end the loop; they slow it down.
//
// It updates one component, Config.Component, of which it has two slots. An
// authorization for several is rejected, and the server gives none: this
// device reports only the one. Devices with more parts run an agent for each,
// with an identity of its own, or one that speaks docs/protocol.md itself.
//
// # State directory
//
// One directory per device, of which one process at a time may be the agent
// (lock):
//
//	config.json        server, device, hardware, hooks: see Config
//	key.pem, cert.pem  the device's key, made here, and its certificates
//	next-*.pem         their successors while a renewal is under way
//	trust.json         the trust bundle, as signed
//	state.json         everything else, see below
//	active             symbolic link to the slot that the next start runs from
//	slot-a/, slot-b/   image.bin, image.env (detached signature), meta.json
//	incoming/          firmware that somebody left here: refused and reported
//	dead/              reports the server will never take
//
// Every file is written beside its place, synced, renamed, and the directory
// synced. state.json is the only file with meaning across steps, and one write
// of it moves everything that has to move together: the phase, the sequence
// number of the last authorization and the reports about it.
//
// # An update
//
// Each step persists what it is about to do, does it, and persists that it was
// done. Doing a step twice equals doing it once.
//
//	accepted    the authorization and its sequence number are on disk; the
//	            image is downloaded into the other slot, with resume, and
//	            verified
//	delivered   verified; install hook, then all checks again
//	activating  active points to the new slot; activate hook; restart
//	trial       this process runs from the new slot; health hook
//	falling_back the health check failed or the slot did not start: active
//	            points to the old slot; restart
//
// A restart is a new process (Config.Restart "exec", the default, or "exit"
// for a supervisor) or a new boot of the machine ("reboot"). The boot id tells
// one from the next. Whoever starts the agent starts it from active.
//
// # Events
//
// An authorization or image that fails a check is `rejected` with the reason
// of the check, which the server treats as an integrity event. What goes wrong
// with an update that is allowed is `failed`: download, no_space,
// install_hook, activate_hook, authorization_expired (it ran out before the
// switch), and, reported by the old slot after the restart into it,
// health_check and boot. A download that is refused with 409 is neither: the
// authorization was withdrawn, and the update is dropped without a word.
//
// # The clock
//
// The agent believes the system clock, as TLS does. A device without one needs
// another agent (authz.ClockNonce).
//
// # Example
//
//	writ-agent enroll --server https://writ.example --ca ca.pem --trust trust.json \
//	    --device SN-0001 --hardware gw-2 --token TOKEN --dir /var/lib/writ
//	writ-agent run --dir /var/lib/writ
//	writ-agent status --dir /var/lib/writ
package agent
