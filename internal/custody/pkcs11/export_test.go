package pkcs11

// KillHelper ends the helper the hard way, as a fault in a library does.
func (b *Backend) KillHelper() {
	b.mu.Lock()
	h := b.helper
	b.mu.Unlock()
	if err := h.cmd.Process.Kill(); err != nil {
		panic(err)
	}
	<-h.done
}
