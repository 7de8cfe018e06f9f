package verify

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
)

// device is what the log has said about a device so far.
type device struct {
	product  fw.ProductID
	hardware fw.HardwareID
	state    fw.DeviceState
	sequence uint64 // of the last authorization
}

// certificate is what the log has said about a certificate so far.
type certificate struct {
	device     fw.DeviceID
	pub        crypto.PublicKey
	thumbprint fw.Digest
	state      fw.CertState
	notBefore  int64
	notAfter   int64
}

func (a *auditor) deviceRegistered(it *item, d *evidence.Registered) {
	if a.devices[d.Device] != nil {
		a.fail(it, "device %s is registered twice", clip(string(d.Device)))
	}
	a.hold(sizeSmall + len(it.rec.Data))
	a.devices[d.Device] = &device{product: d.Product, hardware: d.Hardware, state: d.State}
}

// deviceMoved checks a move of a device's lifecycle.
func (a *auditor) deviceMoved(it *item, d *deviceState) {
	v := a.devices[d.Device]
	if v == nil {
		v = new(device)
		a.hold(sizeSmall)
		a.devices[d.Device] = v
		a.failIn(evidence.DeviceStream(d.Device), it, "device %s moves before it is registered", clip(string(d.Device)))
	} else if v.state != d.From || !d.From.CanMove(d.To) {
		a.fail(it, "device %s goes from %s to %s and was %s", clip(string(d.Device)), d.From, d.To, v.state)
	}
	v.state = d.To
	if !d.From.RaisesTrust(d.To) {
		return
	}
	var doc struct {
		Device      fw.DeviceID `json:"device"`
		RequestedBy fw.PersonID `json:"requested_by"`
	}
	if !plain(d.Document, &doc) || doc.Device != d.Device || doc.RequestedBy != d.RequestedBy || d.Automatic {
		a.fail(it, "device %s left quarantine without a request that names it", clip(string(d.Device)))
	} else if what := a.quorum(d.Document, d.Approvals, 1, d.RequestedBy); what != "" {
		a.fail(it, "device %s left quarantine without approval: %s", clip(string(d.Device)), what)
	}
}

// certified takes in a certificate or a change of its state.
func (a *auditor) certified(it *item, d *evidence.Certificate) {
	c := a.certs[d.Serial]
	if it.rec.Type == evidence.TypeCertificateState {
		if c == nil {
			a.failIn(evidence.DeviceStream(d.Device), it, "certificate %s changes its state before it is issued", clip(d.Serial))
			return
		}
		if c.state != d.From || c.device != d.Device || !d.From.CanMove(d.To) {
			a.fail(it, "certificate %s goes from %s to %s and was %s", clip(d.Serial), d.From, d.To, c.state)
		}
		c.state = d.To
		return
	}
	if c != nil {
		a.fail(it, "certificate %s is issued twice", clip(d.Serial))
		return
	}
	cert, err := x509.ParseCertificate(d.DER)
	if err != nil {
		a.fail(it, "the certificate cannot be read: %v", err)
		return
	}
	thumb, err := authz.Thumbprint(cert.PublicKey)
	a.hold(sizeKey)
	a.certs[d.Serial] = &certificate{device: d.Device, pub: cert.PublicKey, thumbprint: thumb, state: d.To, notBefore: d.NotBefore, notAfter: d.NotAfter}
	switch {
	case d.Device != "" && (err != nil || string(thumb[:]) != string(d.Thumbprint)):
		a.fail(it, "certificate %s has another key than its record says", clip(d.Serial))
	case d.NotBefore != cert.NotBefore.Unix() || d.NotAfter != cert.NotAfter.Unix() || !sameSerial(d.Serial, cert):
		a.fail(it, "certificate %s says something else than its record", clip(d.Serial))
	}
	a.counts.Signatures++
	a.jobs = append(a.jobs, &certJob{index: it.frame.Index, serial: d.Serial, cert: cert, cas: a.ring.cas})
}

func sameSerial(text string, c *x509.Certificate) bool {
	b := c.SerialNumber.Bytes()
	if t := hex.EncodeToString(b); t == text {
		return true
	}
	return c.SerialNumber.Text(16) == text
}

// certJob checks the CA's signature on a certificate.
type certJob struct {
	index  int64
	serial string
	cert   *x509.Certificate
	cas    []*x509.Certificate
}

func (j *certJob) run(f *findings) {
	for _, ca := range j.cas {
		if ca.CheckSignature(j.cert.SignatureAlgorithm, j.cert.RawTBSCertificate, j.cert.Signature) == nil {
			return
		}
	}
	f.fail(j.index, "record %d (certificate_issued): certificate %s is not signed by a device CA of this log", j.index, clip(j.serial))
}

// deviceFacts compares what a decision was told of a device with the records
// about it. What a bundle has no records of is not compared.
func (a *auditor) deviceFacts(it *item, f *policy.DeviceFacts) {
	if d := a.devices[f.ID]; d != nil && d.product != "" {
		switch {
		case f.State != d.state:
			a.fail(it, "it was told that device %s is %s, and by the records it was %s", f.ID, f.State, d.state)
		case f.Product != d.product || f.Hardware != d.hardware:
			a.fail(it, "it was told of another product or hardware than device %s has", f.ID)
		}
	}
	c := a.certs[f.Cert.Serial]
	if c == nil {
		if f.Cert.Known && a.devices[f.ID] != nil {
			a.failIn(evidence.DeviceStream(f.ID), it, "certificate %s was never issued", clip(f.Cert.Serial))
		}
		return
	}
	if !f.Cert.Known || c.device != f.ID || c.state != f.Cert.State || c.notBefore != f.Cert.NotBefore || c.notAfter != f.Cert.NotAfter {
		a.fail(it, "it was told that certificate %s is %s, and by the records it was %s, of device %s", clip(f.Cert.Serial), f.Cert.State, c.state, c.device)
	}
}

// closeDevices checks that a campaign's bundle has its devices' own streams.
func (a *auditor) closeDevices() {
	if a.manifest.Scope.Campaign == "" {
		return
	}
	for k := range a.updates {
		if !a.isWhole(evidence.DeviceStream(k.device)) {
			a.add(SeverityIncomplete, -1, "the stream of device %s, which took part in campaign %s, is not in the bundle whole", clip(string(k.device)), k.campaign)
		}
	}
}
