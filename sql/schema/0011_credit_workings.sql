-- 0011 credit workings: holds, where the grants went, keys already answered, caps.
-- All of a pool's rows change under the lock of its credit_pools row.

CREATE TABLE tenancy.credit_holds (
    pool_id uuid NOT NULL,
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    organization_id uuid,
    user_id uuid NOT NULL,
    seat_id uuid,
    subscription_id uuid,
    amount numeric(18,6) NOT NULL,
    captured numeric(18,6) NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'held',
    drawn_after numeric(30,6) NOT NULL,
    description text,
    metadata jsonb NOT NULL DEFAULT '{}',
    correlation_id text,
    transaction_id uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    closed_at timestamptz,
    CONSTRAINT credit_holds_pkey PRIMARY KEY (pool_id, id),
    CONSTRAINT credit_holds_pool_fkey FOREIGN KEY (pool_id) REFERENCES tenancy.credit_pools (pool_id),
    CONSTRAINT credit_holds_status_check CHECK (status IN ('held', 'captured', 'voided', 'expired')),
    CONSTRAINT credit_holds_amount_check CHECK (amount > 0),
    CONSTRAINT credit_holds_captured_check CHECK (captured >= 0 AND captured <= amount
        AND (status = 'captured') = (captured > 0) AND (status = 'captured') = (transaction_id IS NOT NULL)),
    CONSTRAINT credit_holds_closed_check CHECK ((status = 'held') = (closed_at IS NULL)),
    CONSTRAINT credit_holds_times_check CHECK (expires_at > created_at)
);
CREATE INDEX credit_holds_open_idx ON tenancy.credit_holds (pool_id, expires_at) WHERE status = 'held';
CREATE INDEX credit_holds_time_idx ON tenancy.credit_holds (pool_id, expires_at);
CREATE INDEX credit_holds_sweep_idx ON tenancy.credit_holds (expires_at) WHERE status = 'held';

CREATE TABLE tenancy.credit_draws (
    pool_id uuid NOT NULL,
    drawn_from numeric(30,6) NOT NULL,
    drawn_to numeric(30,6) NOT NULL,
    grant_id uuid NOT NULL,
    settled_at timestamptz NOT NULL,
    CONSTRAINT credit_draws_pkey PRIMARY KEY (pool_id, drawn_to),
    CONSTRAINT credit_draws_from_key UNIQUE (pool_id, drawn_from),
    CONSTRAINT credit_draws_grant_fkey FOREIGN KEY (pool_id, grant_id) REFERENCES tenancy.credit_grants (pool_id, id),
    CONSTRAINT credit_draws_segment_check CHECK (drawn_from >= 0 AND drawn_from < drawn_to)
);
CREATE INDEX credit_draws_grant_idx ON tenancy.credit_draws (pool_id, grant_id);

CREATE TABLE tenancy.credit_returns (
    pool_id uuid NOT NULL,
    drawn_from numeric(30,6) NOT NULL,
    drawn_to numeric(30,6) NOT NULL,
    grant_id uuid NOT NULL,
    hold_id uuid,
    refund_id uuid,
    returned_at timestamptz NOT NULL,
    CONSTRAINT credit_returns_pkey PRIMARY KEY (pool_id, drawn_to),
    CONSTRAINT credit_returns_from_key UNIQUE (pool_id, drawn_from),
    CONSTRAINT credit_returns_grant_fkey FOREIGN KEY (pool_id, grant_id) REFERENCES tenancy.credit_grants (pool_id, id),
    CONSTRAINT credit_returns_segment_check CHECK (drawn_from >= 0 AND drawn_from < drawn_to),
    CONSTRAINT credit_returns_cause_check CHECK (num_nonnulls(hold_id, refund_id) = 1)
);
CREATE INDEX credit_returns_grant_idx ON tenancy.credit_returns (pool_id, grant_id);

CREATE TABLE tenancy.credit_idempotency (
    pool_id uuid NOT NULL,
    key text NOT NULL,
    operation text NOT NULL,
    request_hash bytea NOT NULL,
    result_id uuid NOT NULL,
    held_after numeric(18,6) NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT credit_idempotency_pkey PRIMARY KEY (pool_id, key),
    CONSTRAINT credit_idempotency_key_check CHECK (key <> ''),
    CONSTRAINT credit_idempotency_operation_check CHECK (operation IN ('charge', 'hold', 'grant')),
    CONSTRAINT credit_idempotency_hash_check CHECK (octet_length(request_hash) = 32)
);

CREATE TABLE tenancy.credit_caps (
    pool_id uuid NOT NULL,
    user_id uuid NOT NULL,
    period text NOT NULL,
    tenant_id text NOT NULL,
    amount numeric(18,6) NOT NULL,
    used numeric(30,6) NOT NULL,
    period_start timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_caps_pkey PRIMARY KEY (pool_id, user_id, period),
    CONSTRAINT credit_caps_pool_fkey FOREIGN KEY (pool_id) REFERENCES tenancy.credit_pools (pool_id),
    CONSTRAINT credit_caps_period_check CHECK (period IN ('day', 'month', 'lifetime')),
    CONSTRAINT credit_caps_amount_check CHECK (amount >= 0),
    CONSTRAINT credit_caps_used_check CHECK (used >= 0)
);

ALTER TABLE tenancy.credit_holds ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_holds FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_holds TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_holds FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.credit_draws ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_draws FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_draws TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.credit_returns ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_returns FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_returns TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.credit_idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_idempotency FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_idempotency TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.credit_caps ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_caps FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_caps TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_caps FOR SELECT USING (tenant_id = tenancy.tenant_id());

COMMENT ON TABLE tenancy.credit_holds IS
'Credits reserved for work that is going on: captured, voided, or free again by themselves at expires_at.';
COMMENT ON COLUMN tenancy.credit_holds.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_holds.id IS 'UUID version 7 with the pool''s tag.';
COMMENT ON COLUMN tenancy.credit_holds.tenant_id IS 'The pool''s tenant.';
COMMENT ON COLUMN tenancy.credit_holds.organization_id IS 'The organization that pays; NULL in a personal pool.';
COMMENT ON COLUMN tenancy.credit_holds.user_id IS 'For whom.';
COMMENT ON COLUMN tenancy.credit_holds.seat_id IS 'The seat that allowed it, as of the hold.';
COMMENT ON COLUMN tenancy.credit_holds.subscription_id IS 'The subscription it fell under, as of the hold.';
COMMENT ON COLUMN tenancy.credit_holds.amount IS 'Credits reserved.';
COMMENT ON COLUMN tenancy.credit_holds.captured IS 'Credits charged at the capture.';
COMMENT ON COLUMN tenancy.credit_holds.status IS 'held, captured, voided or expired. One that is held past expires_at is free: the next who looks settles it.';
COMMENT ON COLUMN tenancy.credit_holds.drawn_after IS 'Where the credits held end on the pool''s line.';
COMMENT ON COLUMN tenancy.credit_holds.description IS 'The caller''s words.';
COMMENT ON COLUMN tenancy.credit_holds.metadata IS 'As a charge at the time of the hold would have had it; the capture''s ledger row takes it over.';
COMMENT ON COLUMN tenancy.credit_holds.correlation_id IS 'The identity''s correlation id.';
COMMENT ON COLUMN tenancy.credit_holds.transaction_id IS 'The capture''s ledger row.';
COMMENT ON COLUMN tenancy.credit_holds.created_at IS 'When it was made.';
COMMENT ON COLUMN tenancy.credit_holds.expires_at IS 'When it is free again.';
COMMENT ON COLUMN tenancy.credit_holds.closed_at IS 'When it was captured, voided or expired.';

COMMENT ON TABLE tenancy.credit_draws IS
'Which grant lies under which part of a pool''s line: how the burn order came out. The segments of a pool lie end to end from 0 to credit_pools.burned_total.';
COMMENT ON COLUMN tenancy.credit_draws.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_draws.drawn_from IS 'Begin of the segment.';
COMMENT ON COLUMN tenancy.credit_draws.drawn_to IS 'End of the segment.';
COMMENT ON COLUMN tenancy.credit_draws.grant_id IS 'The grant burned (credit_grants.id).';
COMMENT ON COLUMN tenancy.credit_draws.settled_at IS 'When it was settled.';

COMMENT ON TABLE tenancy.credit_returns IS
'Parts of a pool''s line that came back to their grants: refunds, voids, expired holds, what a capture left. No part comes back twice.';
COMMENT ON COLUMN tenancy.credit_returns.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_returns.drawn_from IS 'Begin of the segment.';
COMMENT ON COLUMN tenancy.credit_returns.drawn_to IS 'End of the segment.';
COMMENT ON COLUMN tenancy.credit_returns.grant_id IS 'The grant it returned to.';
COMMENT ON COLUMN tenancy.credit_returns.hold_id IS 'The hold that ended.';
COMMENT ON COLUMN tenancy.credit_returns.refund_id IS 'The refund''s ledger row.';
COMMENT ON COLUMN tenancy.credit_returns.returned_at IS 'When it came back.';

COMMENT ON TABLE tenancy.credit_idempotency IS
'Idempotency keys that were answered, per pool: the same request gets the same answer, another one PT409. Rows are kept, so a late redelivery is never charged twice.';
COMMENT ON COLUMN tenancy.credit_idempotency.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_idempotency.key IS 'The caller''s key.';
COMMENT ON COLUMN tenancy.credit_idempotency.operation IS 'charge, hold or grant.';
COMMENT ON COLUMN tenancy.credit_idempotency.request_hash IS 'SHA-256 of what was asked for.';
COMMENT ON COLUMN tenancy.credit_idempotency.result_id IS 'The ledger row, hold or grant that came of it.';
COMMENT ON COLUMN tenancy.credit_idempotency.held_after IS 'The pool''s held credits at the time, part of the answer.';
COMMENT ON COLUMN tenancy.credit_idempotency.created_at IS 'When it was answered.';

COMMENT ON TABLE tenancy.credit_caps IS
'How much a member may spend from the organization''s pool in a period. Days and months are UTC''s.';
COMMENT ON COLUMN tenancy.credit_caps.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_caps.user_id IS 'The member (users.id).';
COMMENT ON COLUMN tenancy.credit_caps.period IS 'day, month or lifetime.';
COMMENT ON COLUMN tenancy.credit_caps.tenant_id IS 'The pool''s tenant.';
COMMENT ON COLUMN tenancy.credit_caps.amount IS 'Credits the member may spend in a period.';
COMMENT ON COLUMN tenancy.credit_caps.used IS 'Credits the member has spent in the period that begins at period_start, less what was refunded of them.';
COMMENT ON COLUMN tenancy.credit_caps.period_start IS 'Begin of the period that used counts.';
COMMENT ON COLUMN tenancy.credit_caps.created_at IS 'When the cap was set.';
COMMENT ON COLUMN tenancy.credit_caps.updated_at IS 'When the row last changed.';

COMMENT ON POLICY owner_rows ON tenancy.credit_holds IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_draws IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_returns IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_idempotency IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_caps IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_holds IS 'The holds of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_caps IS 'The caps of the identity''s tenant.';
