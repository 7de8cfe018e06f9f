package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// approveFlags say how an approval is made.
type approveFlags struct {
	stage          int
	key, signature string
	print, status  bool
	sure           bool
}

// approvable is a kind of thing that is approved: its document's type and the
// member that names it.
type approvable struct {
	use     string
	subject apitypes.SubjectType
	typ     string
	member  string
	next    string
}

var approvables = []approvable{
	{"release", apitypes.SubjectRelease, fw.TypeManifest, "release", "writ release publish %s"},
	{"campaign", apitypes.SubjectCampaign, fw.TypePlan, "campaign", "writ campaign start %s"},
	{"stage", apitypes.SubjectStage, fw.TypeStageGo, "campaign", "writ campaign stage-open %s %d"},
	{"device", apitypes.SubjectLifecycle, fw.TypeLifecycle, "device", "writ device release %s --apply"},
}

func (a *app) approveCmd() *cobra.Command {
	g := group("approve", "Sign, with your own SSH key, that something may happen", `Sign, with your own SSH key, that something may happen: a release may be
published, a campaign may start, a stage may open, a device may leave quarantine.

You are shown everything that you sign, from the exact bytes. The key is the one
that --key names, the only one in ssh-agent, or ~/.ssh/id_ed25519; hardware keys
work through ssh-agent or ssh-keygen. Your person must be on the roster (writ
approver list) and must not be the proposer. To sign elsewhere:

  writ approve release rel_… --print-document > doc
  ssh-keygen -Y sign -n writ-approval -f KEY doc
  writ approve release rel_… --signature doc.sig`)
	for _, v := range approvables {
		g.AddCommand(a.approveOneCmd(v))
	}
	return g
}

func (a *app) approveOneCmd(v approvable) *cobra.Command {
	var o approveFlags
	id := "ID"
	if v.subject == apitypes.SubjectStage {
		id = "CAMPAIGN-ID"
	}
	cmd := &cobra.Command{
		Use: v.use + " " + id, Short: "Approve a " + v.use, Args: exactly(id),
		Example: examples("writ approve "+v.use+" ID", "writ approve "+v.use+" ID --key ~/.ssh/id_ed25519", "writ approve "+v.use+" ID --status"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			return a.approve(ctx, c, v, args[0], o)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "SSH private key file, or a .pub file of a key in ssh-agent")
	f.StringVar(&o.signature, "signature", "", "hand in a signature made elsewhere, - for stdin")
	f.BoolVar(&o.print, "print-document", false, "print the exact bytes to be signed, and do nothing")
	f.BoolVar(&o.status, "status", false, "say who approved, and do nothing")
	f.BoolVar(&o.sure, "yes", false, "do not ask before signing")
	cmd.MarkFlagsMutuallyExclusive("key", "signature", "print-document", "status")
	if v.subject == apitypes.SubjectStage {
		f.IntVar(&o.stage, "stage", 0, "number of the stage, from 0")
		need(cmd, "stage")
	}
	return cmd
}

func (a *app) approve(ctx context.Context, c *client.Client, v approvable, id string, o approveFlags) error {
	at, err := c.Approvals().Get(ctx, v.subject, id, o.stage)
	if err != nil {
		return err
	}
	if o.print {
		_, err := a.out.Write(at.Document)
		return err
	}
	if o.status {
		return a.show(at, func(w io.Writer) { standingText(w, at) })
	}
	doc, err := readDocument(at.Document)
	if err != nil {
		return err
	}
	if err := doc.about(v.typ, v.member, id); err != nil {
		return err
	}
	if got := doc.get("stage"); v.subject == apitypes.SubjectStage && got != strconv.Itoa(o.stage) {
		return fw.Errorf(fw.Corrupt, "the server gave a document about stage %q where %d was asked for: nothing was signed", oneLine(got), o.stage)
	}
	doc.print(a.err)
	armored, err := a.approvalOf(ctx, doc.bytes, o)
	if err != nil {
		return err
	}
	at, err = c.Approvals().Submit(ctx, apitypes.NewApproval{
		SubjectType: v.subject, ID: id, Stage: o.stage, Digest: doc.digest, Signature: string(armored),
	})
	if err != nil {
		return err
	}
	if at.Met {
		if strings.Count(v.next, "%") == 2 {
			a.say("next: "+v.next, id, o.stage)
		} else {
			a.say("next: "+v.next, id)
		}
	}
	return a.show(at, func(w io.Writer) { standingText(w, at) })
}

// approvalOf gets the signature over doc, from a file or by making it.
func (a *app) approvalOf(ctx context.Context, doc []byte, o approveFlags) ([]byte, error) {
	if o.signature == "" {
		if !o.sure {
			if err := a.confirm(ctx, "Sign this?"); err != nil {
				return nil, err
			}
		}
		return a.sshSign(ctx, doc, o.key)
	}
	armored, err := a.readInput(o.signature)
	if err != nil {
		return nil, err
	}
	key, err := approval.SignatureKey(armored)
	if err != nil {
		return nil, err
	}
	return armored, approval.Verify(doc, armored, key)
}

func standingText(w io.Writer, at apitypes.Approvals) {
	state := fmt.Sprintf("%d of %d approvals", len(at.Counted), at.Need)
	if at.Met {
		state += ": complete"
	}
	pairs := []string{"approval", state, "document", at.Digest.String(), "proposed by", string(at.Proposer)}
	for _, p := range at.Counted {
		pairs = append(pairs, "approved by", fmt.Sprintf("%s (%s)", p.Person, p.Fingerprint))
	}
	for _, p := range at.Rejected {
		pairs = append(pairs, "does not count", fmt.Sprintf("%s: %s", p.Person, p.Reason))
	}
	fields(w, pairs...)
}
