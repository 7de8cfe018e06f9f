package store

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/writ-project/writ/internal/fw"
)

// Campaign is a row of campaign.
type Campaign struct {
	ID         fw.CampaignID
	Product    fw.ProductID
	Release    fw.ReleaseID
	Name       string
	State      fw.CampaignState
	Plan       []byte // exact bytes of fw.Plan
	PlanDigest []byte
	Status     []byte // JSON of rollout.Status
	CohortSize int
	NextTimer  int64
	Proposer   fw.PersonID
	CreatedAt  int64
	StartedAt  int64
}

const campaignColumns = "id, product, release, name, state, plan, plan_digest, status, cohort_size, next_timer, proposer, created_at, started_at"

func scanCampaign(s interface{ Scan(...any) error }) (c Campaign, err error) {
	err = s.Scan(&c.ID, &c.Product, &c.Release, &c.Name, &c.State, &c.Plan, &c.PlanDigest, &c.Status, &c.CohortSize, &c.NextTimer, &c.Proposer, &c.CreatedAt, &c.StartedAt)
	return c, err
}

// InsertCampaign adds a campaign in draft.
func InsertCampaign(tx *Tx, c Campaign) error {
	_, err := tx.exec("INSERT INTO campaign ("+campaignColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
		c.ID, c.Product, c.Release, c.Name, c.State, c.Plan, c.PlanDigest, c.Status, c.CohortSize, c.NextTimer, c.Proposer, c.CreatedAt, c.StartedAt)
	return err
}

// CampaignByID returns one campaign.
func CampaignByID(q Queryer, id fw.CampaignID) (Campaign, error) {
	c, err := scanCampaign(q.queryRow("SELECT "+campaignColumns+" FROM campaign WHERE id = $1", id))
	return c, notFound(err, "there is no campaign %q", id)
}

// CampaignFilter selects campaigns, newest first.
type CampaignFilter struct {
	Product fw.ProductID  // empty: any
	After   fw.CampaignID // the last one of the page before; empty: from the newest
	Limit   int
}

// Campaigns returns campaigns, newest first.
func Campaigns(q Queryer, f CampaignFilter) ([]Campaign, error) {
	var at int64
	if f.After != "" {
		err := q.queryRow("SELECT created_at FROM campaign WHERE id = $1", f.After).Scan(&at)
		if err = notFound(err, "there is no campaign %q to go on after", f.After); err != nil {
			return nil, err
		}
	}
	rows, err := q.query("SELECT "+campaignColumns+" FROM campaign WHERE ($1 = '' OR product = $1) AND ($2 = '' OR created_at < $3 OR created_at = $3 AND id < $2) ORDER BY created_at DESC, id DESC LIMIT $4",
		string(f.Product), string(f.After), at, f.Limit)
	return collect(rows, err, scanCampaign)
}

// LiveCampaigns returns a product's campaigns that devices must be checked
// against, oldest first.
func LiveCampaigns(q Queryer, product fw.ProductID) ([]Campaign, error) {
	rows, err := q.query("SELECT "+campaignColumns+" FROM campaign WHERE product = $1 AND state IN ('running', 'paused', 'rolling_back') ORDER BY created_at, id", product)
	return collect(rows, err, scanCampaign)
}

// DueCampaigns returns the ids of campaigns whose timer has come.
func DueCampaigns(q Queryer, now int64) ([]fw.CampaignID, error) {
	rows, err := q.query("SELECT id FROM campaign WHERE next_timer > 0 AND next_timer <= $1 ORDER BY next_timer LIMIT 100", now)
	return collect(rows, err, func(s interface{ Scan(...any) error }) (id fw.CampaignID, err error) {
		err = s.Scan(&id)
		return id, err
	})
}

// PutCampaign stores everything of a campaign that may change.
func PutCampaign(tx *Tx, c Campaign) error {
	_, err := tx.exec("UPDATE campaign SET name = $2, state = $3, plan = $4, plan_digest = $5, status = $6, cohort_size = $7, next_timer = $8, proposer = $9, started_at = $10, release = $11 WHERE id = $1",
		c.ID, c.Name, c.State, c.Plan, c.PlanDigest, c.Status, c.CohortSize, c.NextTimer, c.Proposer, c.StartedAt, c.Release)
	return err
}

// SetCampaignStatus stores the moving part of a campaign: the hot path.
func SetCampaignStatus(tx *Tx, c *Campaign) error {
	_, err := tx.exec("UPDATE campaign SET state = $2, status = $3, next_timer = $4 WHERE id = $1", c.ID, c.State, c.Status, c.NextTimer)
	return err
}

// Update is a row of device_update: one device in one campaign.
type Update struct {
	ID            fw.UpdateID
	Campaign      fw.CampaignID
	Device        fw.DeviceID
	State         fw.UpdateState
	Stage         int
	Member        bool
	Attempts      int
	LastAttempt   int64
	Failures      int // failed, rejected and rolled_back reports so far
	Authorization fw.AuthorizationID
	Rollback      bool
	Reason        fw.Reason
	RefusalKey    string
	RefusalCount  int64
	RefusalIndex  int64
	UpdatedAt     int64
}

const updateColumns = "id, campaign, device, state, stage, member, attempts, last_attempt, failures, authorization_id, rollback, reason, refusal_key, refusal_count, refusal_idx, updated_at"

func scanUpdate(s interface{ Scan(...any) error }) (u Update, err error) {
	var member, rollback int64
	err = s.Scan(&u.ID, &u.Campaign, &u.Device, &u.State, &u.Stage, &member, &u.Attempts, &u.LastAttempt, &u.Failures, &u.Authorization, &rollback, &u.Reason, &u.RefusalKey, &u.RefusalCount, &u.RefusalIndex, &u.UpdatedAt)
	u.Member, u.Rollback = member != 0, rollback != 0
	return u, err
}

// UpdateOf returns the update of a device in a campaign; ok is false when
// there is none yet.
func UpdateOf(q Queryer, c fw.CampaignID, d fw.DeviceID) (u Update, ok bool, err error) {
	u, err = scanUpdate(q.queryRow("SELECT "+updateColumns+" FROM device_update WHERE campaign = $1 AND device = $2", c, d))
	if errors.Is(err, sql.ErrNoRows) {
		return Update{}, false, nil
	}
	if err != nil {
		return Update{}, false, fmt.Errorf("reading the update of %s: %w", d, err)
	}
	return u, true, nil
}

// UpdateByID returns one update.
func UpdateByID(q Queryer, id fw.UpdateID) (Update, error) {
	u, err := scanUpdate(q.queryRow("SELECT "+updateColumns+" FROM device_update WHERE id = $1", id))
	return u, notFound(err, "there is no update %q", id)
}

// UpdatesOfCampaign returns updates in order of device.
func UpdatesOfCampaign(q Queryer, c fw.CampaignID, after fw.DeviceID, limit int) ([]Update, error) {
	rows, err := q.query("SELECT "+updateColumns+" FROM device_update WHERE campaign = $1 AND device > $2 ORDER BY device LIMIT $3", c, after, limit)
	return collect(rows, err, scanUpdate)
}

// UpdatesOfDevice returns a device's updates, newest first.
func UpdatesOfDevice(q Queryer, d fw.DeviceID, limit int) ([]Update, error) {
	rows, err := q.query("SELECT "+updateColumns+" FROM device_update WHERE device = $1 ORDER BY updated_at DESC, id LIMIT $2", d, limit)
	return collect(rows, err, scanUpdate)
}

// UpdateByAuthorization returns the update that an authorization is of, and
// the device it was given to; ok is false when there is no such authorization.
func UpdateByAuthorization(q Queryer, id fw.AuthorizationID) (u Update, ok bool, err error) {
	u, err = scanUpdate(q.queryRow("SELECT u.id, u.campaign, u.device, u.state, u.stage, u.member, u.attempts, u.last_attempt, u.failures, u.authorization_id, u.rollback, u.reason, u.refusal_key, u.refusal_count, u.refusal_idx, u.updated_at"+
		" FROM device_authorization a JOIN device_update u ON u.id = a.update_id WHERE a.id = $1", id))
	if errors.Is(err, sql.ErrNoRows) {
		return Update{}, false, nil
	}
	if err != nil {
		return Update{}, false, fmt.Errorf("reading authorization %s: %w", id, err)
	}
	return u, true, nil
}

// InsertUpdate adds an update.
func InsertUpdate(tx *Tx, u *Update) error {
	u.UpdatedAt = tx.now.Unix()
	_, err := tx.exec("INSERT INTO device_update ("+updateColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		u.ID, u.Campaign, u.Device, u.State, u.Stage, boolInt(u.Member), u.Attempts, u.LastAttempt, u.Failures, u.Authorization, boolInt(u.Rollback), u.Reason, u.RefusalKey, u.RefusalCount, u.RefusalIndex, u.UpdatedAt)
	return err
}

// PutUpdate stores everything of an update that may change.
func PutUpdate(tx *Tx, u *Update) error {
	u.UpdatedAt = tx.now.Unix()
	n, err := tx.exec(`UPDATE device_update SET state = $2, stage = $3, member = $4, attempts = $5, last_attempt = $6, failures = $7,
		authorization_id = $8, rollback = $9, reason = $10, refusal_key = $11, refusal_count = $12, refusal_idx = $13, updated_at = $14
		WHERE id = $1`,
		u.ID, u.State, u.Stage, boolInt(u.Member), u.Attempts, u.LastAttempt, u.Failures,
		u.Authorization, boolInt(u.Rollback), u.Reason, u.RefusalKey, u.RefusalCount, u.RefusalIndex, u.UpdatedAt)
	if err == nil && n != 1 {
		return fw.Errorf(fw.Internal, "update %s is not on file", u.ID)
	}
	return err
}

// Authorization is a row of device_authorization.
type Authorization struct {
	ID            fw.AuthorizationID
	Update        fw.UpdateID
	Device        fw.DeviceID
	Campaign      fw.CampaignID
	Nonce         []byte
	Sequence      int64
	DecisionIndex int64
	COSE          []byte // signed, without receipt
	IssuedAt      int64
	ExpiresAt     int64
}

const authorizationColumns = "id, update_id, device, campaign, nonce, sequence, decision_idx, cose, issued_at, expires_at"

func scanAuthorization(s interface{ Scan(...any) error }) (a Authorization, err error) {
	err = s.Scan(&a.ID, &a.Update, &a.Device, &a.Campaign, &a.Nonce, &a.Sequence, &a.DecisionIndex, &a.COSE, &a.IssuedAt, &a.ExpiresAt)
	return a, err
}

// InsertAuthorization adds an authorization.
func InsertAuthorization(tx *Tx, a Authorization) error {
	_, err := tx.exec("INSERT INTO device_authorization ("+authorizationColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		a.ID, a.Update, a.Device, a.Campaign, a.Nonce, a.Sequence, a.DecisionIndex, a.COSE, a.IssuedAt, a.ExpiresAt)
	return err
}

// AuthorizationByID returns one authorization.
func AuthorizationByID(q Queryer, id fw.AuthorizationID) (Authorization, error) {
	a, err := scanAuthorization(q.queryRow("SELECT "+authorizationColumns+" FROM device_authorization WHERE id = $1", id))
	return a, notFound(err, "there is no authorization %q", id)
}

// CountGrantedSince counts authorizations of a campaign issued at or after
// since. It is only used when the plan has a rate limit.
func CountGrantedSince(q Queryer, c fw.CampaignID, since int64) (int, error) {
	var n int
	if err := q.queryRow("SELECT COUNT(*) FROM device_authorization WHERE campaign = $1 AND issued_at >= $2", c, since).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting authorizations: %w", err)
	}
	return n, nil
}

// ReportRow is a row of device_report.
type ReportRow struct {
	Digest fw.Digest
	Index  int64
}

// ReportBySequence returns a recorded report; ok is false when there is none.
func ReportBySequence(q Queryer, d fw.DeviceID, seq int64) (r ReportRow, ok bool, err error) {
	var digest []byte
	err = q.queryRow("SELECT digest, idx FROM device_report WHERE device = $1 AND seq = $2", d, seq).Scan(&digest, &r.Index)
	if errors.Is(err, sql.ErrNoRows) {
		return ReportRow{}, false, nil
	}
	if err != nil {
		return ReportRow{}, false, fmt.Errorf("reading report %d of %s: %w", seq, d, err)
	}
	copy(r.Digest[:], digest)
	return r, true, nil
}

// InsertReport marks a report recorded.
func InsertReport(tx *Tx, d fw.DeviceID, seq int64, r ReportRow) error {
	_, err := tx.exec("INSERT INTO device_report (device, seq, digest, idx) VALUES ($1, $2, $3, $4)", d, seq, r.Digest[:], r.Index)
	return err
}

// ExpiredUpdates returns open updates whose authorization expired before now.
func ExpiredUpdates(q Queryer, now int64, limit int) ([]Update, error) {
	rows, err := q.query(`SELECT u.id, u.campaign, u.device, u.state, u.stage, u.member, u.attempts, u.last_attempt, u.failures, u.authorization_id, u.rollback, u.reason, u.refusal_key, u.refusal_count, u.refusal_idx, u.updated_at
		FROM device_update u JOIN device_authorization a ON a.id = u.authorization_id
		WHERE u.state IN ('authorized', 'delivered') AND a.expires_at < $1 ORDER BY u.id LIMIT $2`, now, limit)
	return collect(rows, err, scanUpdate)
}

// EndedUpdates returns the updates of a device whose authorization is to be
// taken back because their campaign has ended.
func EndedUpdates(q Queryer, d fw.DeviceID) ([]Update, error) {
	rows, err := q.query(`SELECT u.id, u.campaign, u.device, u.state, u.stage, u.member, u.attempts, u.last_attempt, u.failures, u.authorization_id, u.rollback, u.reason, u.refusal_key, u.refusal_count, u.refusal_idx, u.updated_at
		FROM device_update u JOIN campaign c ON c.id = u.campaign
		WHERE u.device = $1 AND u.rollback = 0 AND (u.state = 'authorized' AND c.state IN ('aborted', 'rolled_back')
			OR u.state = 'paused' AND c.state IN ('completed', 'aborted', 'rolled_back')) ORDER BY u.id`, d)
	return collect(rows, err, scanUpdate)
}

// Grant is an update with what its campaign is about.
type Grant struct {
	Update  Update
	Release fw.ReleaseID // the campaign's, also when Update.Rollback
	State   fw.CampaignState
}

// NewestGrant returns the update of a device's newest authorization. It is
// zero when there is none.
func NewestGrant(q Queryer, d fw.DeviceID) (g Grant, err error) {
	var id fw.UpdateID
	err = q.queryRow(`SELECT u.id, c.release, c.state FROM device_update u
		JOIN device_authorization a ON a.id = u.authorization_id JOIN campaign c ON c.id = u.campaign
		WHERE u.device = $1 ORDER BY a.sequence DESC LIMIT 1`, d).Scan(&id, &g.Release, &g.State)
	if errors.Is(err, sql.ErrNoRows) {
		return Grant{}, nil
	}
	if err != nil {
		return Grant{}, fmt.Errorf("reading the newest authorization of %s: %w", d, err)
	}
	g.Update, err = UpdateByID(q, id)
	return g, err
}

// AddRefusals adds to the count of an update's last refusal.
func AddRefusals(tx *Tx, id fw.UpdateID, n int64) error {
	_, err := tx.exec("UPDATE device_update SET refusal_count = refusal_count + $2 WHERE id = $1", id, n)
	return err
}
