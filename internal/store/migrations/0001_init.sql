-- Words replaced per dialect: BYTES, TEXTC, BIGINT, /*NOROWID*/, /*STRICT*/.
-- Times are Unix seconds unless a name ends in _ms. Digests are 32 raw bytes.

CREATE TABLE setting (
	name  TEXTC NOT NULL PRIMARY KEY,
	value BYTES NOT NULL
) /*STRICT*/;

-- The log. record.body and record.salt become NULL by erasure only.
CREATE TABLE record (
	idx        BIGINT NOT NULL PRIMARY KEY,
	type       TEXTC  NOT NULL,
	ms         BIGINT NOT NULL,
	commitment BYTES  NOT NULL,
	salt       BYTES,
	body       BYTES
) /*STRICT*/;

CREATE TABLE record_stream (
	stream TEXTC  NOT NULL,
	n      BIGINT NOT NULL,
	idx    BIGINT NOT NULL,
	PRIMARY KEY (stream, n)
) /*NOROWID*/;

CREATE TABLE stream (
	id   TEXTC  NOT NULL PRIMARY KEY,
	n    BIGINT NOT NULL,
	head BYTES  NOT NULL
) /*NOROWID*/;

CREATE TABLE tile (
	level BIGINT NOT NULL,
	n     BIGINT NOT NULL,
	data  BYTES  NOT NULL,
	PRIMARY KEY (level, n)
) /*NOROWID*/;

-- One row. Locked first by every write transaction on PostgreSQL.
CREATE TABLE log_head (
	id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
	size       BIGINT NOT NULL,
	root       BYTES  NOT NULL,
	checkpoint BYTES  NOT NULL,
	root_sig   BYTES  NOT NULL,
	at_ms      BIGINT NOT NULL
) /*STRICT*/;

-- Checkpoints kept for consistency proofs: one per epoch and per export.
CREATE TABLE checkpoint (
	size  BIGINT NOT NULL PRIMARY KEY,
	note  BYTES  NOT NULL,
	at_ms BIGINT NOT NULL
) /*STRICT*/;

CREATE TABLE person (
	id         TEXTC  NOT NULL PRIMARY KEY,
	name       TEXTC  NOT NULL,
	created_at BIGINT NOT NULL,
	disabled   BIGINT NOT NULL DEFAULT 0
) /*STRICT*/;

CREATE TABLE access_token (
	id         TEXTC  NOT NULL PRIMARY KEY,
	person     TEXTC  NOT NULL REFERENCES person (id),
	name       TEXTC  NOT NULL,
	roles      TEXTC  NOT NULL,
	hash       BYTES  NOT NULL UNIQUE,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	revoked_at BIGINT NOT NULL DEFAULT 0
) /*STRICT*/;

CREATE TABLE roster (
	version  BIGINT NOT NULL PRIMARY KEY,
	envelope BYTES  NOT NULL
) /*STRICT*/;

CREATE TABLE trust_bundle (
	version  BIGINT NOT NULL PRIMARY KEY,
	envelope BYTES  NOT NULL
) /*STRICT*/;

-- Approvals of exact bytes, whatever they are of. An edit of the subject
-- changes its digest, so the old rows no longer count.
CREATE TABLE approval (
	subject    BYTES  NOT NULL,
	person     TEXTC  NOT NULL,
	armored    TEXTC  NOT NULL,
	idx        BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (subject, person)
) /*NOROWID*/;

CREATE TABLE product (
	id         TEXTC  NOT NULL PRIMARY KEY,
	name       TEXTC  NOT NULL,
	hardware   TEXTC  NOT NULL, -- JSON array
	image_key  TEXTC  NOT NULL,
	quorum     BIGINT NOT NULL,
	retention_years BIGINT NOT NULL,
	support_until   BIGINT NOT NULL,
	provenance TEXTC  NOT NULL, -- JSON of statement.Rule; empty: none is demanded
	created_at BIGINT NOT NULL
) /*STRICT*/;

CREATE TABLE device (
	id            TEXTC  NOT NULL PRIMARY KEY,
	product       TEXTC  NOT NULL REFERENCES product (id),
	hardware      TEXTC  NOT NULL,
	state         TEXTC  NOT NULL CHECK (state IN ('manufactured','claimed','active','suspended','quarantined','revoked','decommissioned')),
	state_reason  TEXTC  NOT NULL DEFAULT '',
	attributes    TEXTC  NOT NULL DEFAULT '{}', -- JSON object, set by operators
	facts         BYTES,                        -- JSON of the last facts reported
	facts_digest  BYTES,
	opted_out     BIGINT NOT NULL DEFAULT 0,
	postponed_until BIGINT NOT NULL DEFAULT 0,
	integrity     TEXTC  NOT NULL DEFAULT '',
	authorization_seq BIGINT NOT NULL DEFAULT 0,
	clean_since   BIGINT NOT NULL DEFAULT 0,    -- last confirmed report after a quarantine began
	state_at      BIGINT NOT NULL,
	created_at    BIGINT NOT NULL
) /*STRICT*/;

CREATE INDEX device_by_product ON device (product, state);

CREATE TABLE last_seen (
	device TEXTC  NOT NULL PRIMARY KEY,
	at     BIGINT NOT NULL
) /*NOROWID*/;

CREATE TABLE enrolment_token (
	hash       BYTES  NOT NULL PRIMARY KEY,
	device     TEXTC  NOT NULL REFERENCES device (id),
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	used_at    BIGINT NOT NULL DEFAULT 0
) /*NOROWID*/;

CREATE TABLE certificate (
	serial      TEXTC  NOT NULL PRIMARY KEY, -- hexadecimal
	device      TEXTC  NOT NULL REFERENCES device (id),
	state       TEXTC  NOT NULL CHECK (state IN ('issued','active','superseded','held','revoked')),
	fingerprint BYTES  NOT NULL UNIQUE,      -- SHA-256 of the DER
	thumbprint  BYTES  NOT NULL,             -- RFC 9679 of the key
	not_before  BIGINT NOT NULL,
	not_after   BIGINT NOT NULL,
	der         BYTES  NOT NULL,
	created_at  BIGINT NOT NULL
) /*STRICT*/;

CREATE INDEX certificate_by_device ON certificate (device, created_at);

CREATE TABLE upload (
	id         TEXTC  NOT NULL PRIMARY KEY,
	person     TEXTC  NOT NULL,
	digest     BYTES  NOT NULL,
	size       BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	done_at    BIGINT NOT NULL DEFAULT 0
) /*STRICT*/;

CREATE TABLE release (
	id           TEXTC  NOT NULL PRIMARY KEY,
	product      TEXTC  NOT NULL REFERENCES product (id),
	version      TEXTC  NOT NULL,
	type         TEXTC  NOT NULL,
	state        TEXTC  NOT NULL CHECK (state IN ('draft','in_review','approved','published','withdrawn')),
	manifest     BYTES  NOT NULL,
	manifest_digest BYTES NOT NULL,
	publication  BYTES,
	publication_digest BYTES,
	proposer     TEXTC  NOT NULL,
	withdrawn_reason TEXTC NOT NULL DEFAULT '',
	created_at   BIGINT NOT NULL,
	published_at BIGINT NOT NULL DEFAULT 0
) /*STRICT*/;

CREATE INDEX release_by_product ON release (product, created_at);

-- What devices may download, by digest: images and detached signatures of
-- published releases.
CREATE TABLE artifact (
	digest  BYTES  NOT NULL,
	release TEXTC  NOT NULL REFERENCES release (id),
	kind    TEXTC  NOT NULL,
	size    BIGINT NOT NULL,
	PRIMARY KEY (digest, release, kind)
) /*NOROWID*/;

CREATE TABLE policy (
	digest     BYTES  NOT NULL PRIMARY KEY,
	name       TEXTC  NOT NULL,
	body       BYTES  NOT NULL,
	created_at BIGINT NOT NULL
) /*STRICT*/;

CREATE TABLE campaign (
	id          TEXTC  NOT NULL PRIMARY KEY,
	product     TEXTC  NOT NULL REFERENCES product (id),
	release     TEXTC  NOT NULL REFERENCES release (id),
	name        TEXTC  NOT NULL,
	state       TEXTC  NOT NULL CHECK (state IN ('draft','in_review','approved','scheduled','running','paused','completed','aborted','rolling_back','rolled_back')),
	plan        BYTES  NOT NULL,
	plan_digest BYTES  NOT NULL,
	status      BYTES  NOT NULL, -- JSON of rollout.Status
	cohort_size BIGINT NOT NULL DEFAULT 0,
	next_timer  BIGINT NOT NULL DEFAULT 0, -- Unix seconds; 0: none
	proposer    TEXTC  NOT NULL,
	created_at  BIGINT NOT NULL,
	started_at  BIGINT NOT NULL DEFAULT 0
) /*STRICT*/;

CREATE INDEX campaign_live ON campaign (product, state);

CREATE INDEX campaign_timer ON campaign (next_timer);

CREATE TABLE device_update (
	id            TEXTC  NOT NULL PRIMARY KEY,
	campaign      TEXTC  NOT NULL REFERENCES campaign (id),
	device        TEXTC  NOT NULL REFERENCES device (id),
	state         TEXTC  NOT NULL CHECK (state IN ('pending','authorized','delivered','installed','confirmed','refused','deferred','failed','rejected','paused','rolled_back','cancelled','superseded')),
	stage         BIGINT NOT NULL DEFAULT 0,
	member        BIGINT NOT NULL DEFAULT 0, -- 1: counted in its stage
	attempts      BIGINT NOT NULL DEFAULT 0,
	last_attempt  BIGINT NOT NULL DEFAULT 0,
	failures      BIGINT NOT NULL DEFAULT 0, -- failed, rejected and rolled_back reports
	authorization_id TEXTC NOT NULL DEFAULT '',
	rollback      BIGINT NOT NULL DEFAULT 0, -- 1: the open authorization is for the rollback release
	reason        TEXTC  NOT NULL DEFAULT '',
	refusal_key   TEXTC  NOT NULL DEFAULT '',
	refusal_count BIGINT NOT NULL DEFAULT 0,
	refusal_idx   BIGINT NOT NULL DEFAULT -1,
	updated_at    BIGINT NOT NULL,
	UNIQUE (campaign, device)
) /*STRICT*/;

CREATE INDEX device_update_by_device ON device_update (device);

CREATE TABLE device_authorization (
	id            TEXTC  NOT NULL PRIMARY KEY,
	update_id     TEXTC  NOT NULL REFERENCES device_update (id),
	device        TEXTC  NOT NULL,
	campaign      TEXTC  NOT NULL,
	nonce         BYTES  NOT NULL,
	sequence      BIGINT NOT NULL,
	decision_idx  BIGINT NOT NULL,
	cose          BYTES  NOT NULL,
	issued_at     BIGINT NOT NULL,
	expires_at    BIGINT NOT NULL
) /*STRICT*/;

-- Reports already recorded, so that a repeat is answered and not repeated.
CREATE TABLE device_report (
	device TEXTC  NOT NULL,
	seq    BIGINT NOT NULL,
	digest BYTES  NOT NULL,
	idx    BIGINT NOT NULL,
	PRIMARY KEY (device, seq)
) /*NOROWID*/;

CREATE INDEX device_authorization_rate ON device_authorization (campaign, issued_at);

CREATE INDEX certificate_by_thumbprint ON certificate (thumbprint);

CREATE INDEX device_update_open ON device_update (state) WHERE state IN ('authorized', 'delivered');
