-- 0004 credits: who pays. Pools, grants and the ledger.
-- A pool's id is its owner's (organizations.id or users.id). Every change of anything in a pool happens under the lock of
-- its credit_pools row and writes that row, so a snapshot older than the row fails with 40001 instead of deciding on stale
-- figures. The ledger is append-only: rows come from functions alone and nobody is granted anything but SELECT.
-- No foreign key, sequence or trigger on the ledger: a debit is one UPDATE and one INSERT. The constraints of the two
-- tables it writes are functions: one written out is read anew in each statement, at a third of a debit's cost.

CREATE TABLE tenancy.credit_pools (
    pool_id uuid NOT NULL,
    tag integer NOT NULL,
    tenant_id text NOT NULL,
    organization_id uuid,
    user_id uuid,
    balance numeric(18,6) NOT NULL DEFAULT 0,
    held numeric(18,6) NOT NULL DEFAULT 0,
    granted_total numeric(30,6) NOT NULL DEFAULT 0,
    drawn_total numeric(30,6) NOT NULL DEFAULT 0,
    burned_total numeric(30,6) NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    next_expiry_at timestamptz NOT NULL DEFAULT 'infinity',
    alert_below numeric(18,6) NOT NULL DEFAULT 0,
    alert_thresholds numeric(18,6)[] NOT NULL DEFAULT '{}',
    has_caps boolean NOT NULL DEFAULT false,
    last_entry_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_pools_pkey PRIMARY KEY (pool_id),
    CONSTRAINT credit_pools_organization_fkey
        FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations (tenant_id, id),
    CONSTRAINT credit_pools_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT credit_pools_check CHECK (tenancy._is_sound_pool(
        pool_id, organization_id, user_id, balance, held, granted_total, drawn_total, burned_total))
) WITH (fillfactor = 10);
-- Neither index holds a column that ever changes, so a debit stays a heap-only update.
CREATE INDEX credit_pools_tag_idx ON tenancy.credit_pools (tag);
CREATE INDEX credit_pools_tenant_idx ON tenancy.credit_pools (tenant_id);

CREATE TABLE tenancy.credit_transactions (
    pool_id uuid NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    tenant_id text NOT NULL,
    organization_id uuid,
    user_id uuid,
    seat_id uuid,
    subscription_id uuid,
    credits_amount numeric(18,6) NOT NULL,
    operation_type text NOT NULL,
    description text,
    reference_id text,
    metadata jsonb NOT NULL DEFAULT '{}',
    balance_after numeric(18,6) NOT NULL,
    granted_after numeric(30,6) NOT NULL,
    drawn_after numeric(30,6),
    grant_id uuid,
    hold_id uuid,
    refund_of uuid,
    correlation_id text,
    created_at timestamptz NOT NULL,
    CONSTRAINT credit_transactions_pkey PRIMARY KEY (pool_id, id),
    CONSTRAINT credit_transactions_check CHECK (tenancy._is_sound_entry(
        operation_type, seq, credits_amount, balance_after, drawn_after, user_id, grant_id, refund_of))
);

CREATE TABLE tenancy.credit_grants (
    pool_id uuid NOT NULL,
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    source text NOT NULL,
    amount numeric(18,6) NOT NULL,
    remaining numeric(18,6) NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    effective_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL DEFAULT 'infinity',
    is_posted boolean NOT NULL,
    is_open boolean NOT NULL,
    cost_basis numeric,
    rollover_max numeric(18,6),
    rollover_until timestamptz,
    rolled_from uuid,
    reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_grants_pkey PRIMARY KEY (pool_id, id),
    CONSTRAINT credit_grants_pool_fkey FOREIGN KEY (pool_id) REFERENCES tenancy.credit_pools (pool_id),
    CONSTRAINT credit_grants_source_check CHECK (source IN ('grant', 'rollover', 'adjustment')),
    CONSTRAINT credit_grants_amount_check CHECK (amount > 0),
    CONSTRAINT credit_grants_remaining_check CHECK (remaining >= 0 AND remaining <= amount),
    CONSTRAINT credit_grants_times_check CHECK (expires_at > effective_at),
    CONSTRAINT credit_grants_open_check CHECK (is_open OR remaining = 0),
    CONSTRAINT credit_grants_cost_basis_check CHECK (cost_basis >= 0 AND cost_basis < 'Infinity'),
    CONSTRAINT credit_grants_rollover_check CHECK (
        num_nulls(rollover_max, rollover_until) IN (0, 2) AND rollover_max > 0 AND rollover_until > expires_at)
);
CREATE INDEX credit_grants_open_idx ON tenancy.credit_grants (pool_id) WHERE is_open;
CREATE INDEX credit_grants_waiting_idx ON tenancy.credit_grants (effective_at) WHERE NOT is_posted;
CREATE INDEX credit_grants_expiry_idx ON tenancy.credit_grants (expires_at) WHERE is_open;

ALTER TABLE tenancy.credit_pools ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_pools FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_pools TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_pools FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.credit_transactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_transactions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_transactions TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_transactions FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.credit_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_grants TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_grants FOR SELECT USING (tenant_id = tenancy.tenant_id());

COMMENT ON TABLE tenancy.credit_pools IS
'One row a pool of credits: an organization''s or a user''s own. Its row lock guards everything in the pool. Available credits are balance - held; used credits are granted_total - balance.';
COMMENT ON COLUMN tenancy.credit_pools.pool_id IS 'The owner''s id: organizations.id or users.id.';
COMMENT ON COLUMN tenancy.credit_pools.tag IS 'The last four bytes of pool_id, which the ids of everything in the pool end with: finds the pool of a bare id.';
COMMENT ON COLUMN tenancy.credit_pools.tenant_id IS 'The organization''s tenant, or the user''s personal one (user::id).';
COMMENT ON COLUMN tenancy.credit_pools.organization_id IS 'The organization whose pool it is; NULL for a personal one.';
COMMENT ON COLUMN tenancy.credit_pools.user_id IS 'The user whose own pool it is; NULL for an organization''s.';
COMMENT ON COLUMN tenancy.credit_pools.balance IS 'Credits not spent, those held included. Credits past their expiry count until they are settled, before the next charge at the latest.';
COMMENT ON COLUMN tenancy.credit_pools.held IS 'Credits reserved by open holds.';
COMMENT ON COLUMN tenancy.credit_pools.granted_total IS 'Credits ever granted, less those that expired or were taken back.';
COMMENT ON COLUMN tenancy.credit_pools.drawn_total IS
'Credits ever charged or held, whatever came back: the end of the pool''s line, on which each charge and hold has its place.';
COMMENT ON COLUMN tenancy.credit_pools.burned_total IS 'How far along that line it is settled which grants were burned (credit_draws).';
COMMENT ON COLUMN tenancy.credit_pools.seq IS 'Number of the last ledger entry: how many there are.';
COMMENT ON COLUMN tenancy.credit_pools.next_expiry_at IS
'No grant expires or becomes effective and no hold expires before this time: whoever charges later settles first. May be early, never late.';
COMMENT ON COLUMN tenancy.credit_pools.alert_below IS 'The highest alert threshold not above the available credits: below it, an event is published. 0: none.';
COMMENT ON COLUMN tenancy.credit_pools.alert_thresholds IS 'Available credits below which an event is published, once a crossing.';
COMMENT ON COLUMN tenancy.credit_pools.has_caps IS 'Whether a member of the organization has a cap.';
COMMENT ON COLUMN tenancy.credit_pools.last_entry_at IS 'The newest time in the pool: entries never go back behind it, even if the clock does.';
COMMENT ON COLUMN tenancy.credit_pools.created_at IS 'When the row was made.';

COMMENT ON TABLE tenancy.credit_transactions IS
'The ledger: one row a change of a pool''s balance, with who caused it, from which seat and under which subscription. Append-only. Ids sort as the entries were made; name pool_id when you read it, for that is how it is indexed.';
COMMENT ON COLUMN tenancy.credit_transactions.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_transactions.id IS 'UUID version 7: time, number and the pool''s tag.';
COMMENT ON COLUMN tenancy.credit_transactions.seq IS 'Number in the pool: 1, 2, 3 and so on without a gap.';
COMMENT ON COLUMN tenancy.credit_transactions.tenant_id IS 'The pool''s tenant.';
COMMENT ON COLUMN tenancy.credit_transactions.organization_id IS 'The organization that pays; NULL in a personal pool.';
COMMENT ON COLUMN tenancy.credit_transactions.user_id IS 'Who spent, or whose spending was refunded; NULL where nobody did.';
COMMENT ON COLUMN tenancy.credit_transactions.seat_id IS 'The seat that allowed it, as of the entry.';
COMMENT ON COLUMN tenancy.credit_transactions.subscription_id IS 'The subscription it fell under, as of the entry.';
COMMENT ON COLUMN tenancy.credit_transactions.credits_amount IS 'Credits: negative where they leave the pool (contract S).';
COMMENT ON COLUMN tenancy.credit_transactions.operation_type IS 'deduction, refund, grant, rollover, expiry or adjustment.';
COMMENT ON COLUMN tenancy.credit_transactions.description IS 'The caller''s words.';
COMMENT ON COLUMN tenancy.credit_transactions.reference_id IS 'The caller''s label; not unique. An idempotency key is another thing.';
COMMENT ON COLUMN tenancy.credit_transactions.metadata IS
'The caller''s, under the server''s own keys: pool, and for an organization clerk_org_id, organization_id, organization_name, stripe_customer_id, organization_subscription_id, seat_id, seat_role, all as of the entry.';
COMMENT ON COLUMN tenancy.credit_transactions.balance_after IS 'The pool''s balance after this entry.';
COMMENT ON COLUMN tenancy.credit_transactions.granted_after IS 'credit_pools.granted_total after this entry; less balance_after it is what has been used.';
COMMENT ON COLUMN tenancy.credit_transactions.drawn_after IS 'Where the credits taken end on the pool''s line (credit_pools.drawn_total); they begin credits_amount before it.';
COMMENT ON COLUMN tenancy.credit_transactions.grant_id IS 'The grant made, rolled over or expired.';
COMMENT ON COLUMN tenancy.credit_transactions.hold_id IS 'The hold captured.';
COMMENT ON COLUMN tenancy.credit_transactions.refund_of IS 'The entry refunded.';
COMMENT ON COLUMN tenancy.credit_transactions.correlation_id IS 'The identity''s correlation id.';
COMMENT ON COLUMN tenancy.credit_transactions.created_at IS 'When it took effect; an expiry has the time at which the credits expired.';

COMMENT ON TABLE tenancy.credit_grants IS
'Credits given to a pool. They burn by priority (lowest first), then expiry, then creation. Which grant a charge burned is settled when a grant or hold begins or ends, not at the charge.';
COMMENT ON COLUMN tenancy.credit_grants.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_grants.id IS 'UUID version 7 with the pool''s tag.';
COMMENT ON COLUMN tenancy.credit_grants.tenant_id IS 'The pool''s tenant.';
COMMENT ON COLUMN tenancy.credit_grants.source IS 'grant, rollover or adjustment.';
COMMENT ON COLUMN tenancy.credit_grants.amount IS 'Credits granted.';
COMMENT ON COLUMN tenancy.credit_grants.remaining IS 'Credits of it neither charged, held nor expired, as of the pool''s last settlement.';
COMMENT ON COLUMN tenancy.credit_grants.priority IS 'Lower burns first.';
COMMENT ON COLUMN tenancy.credit_grants.effective_at IS 'From when on it can be spent.';
COMMENT ON COLUMN tenancy.credit_grants.expires_at IS 'When what remains expires; infinity: never.';
COMMENT ON COLUMN tenancy.credit_grants.is_posted IS 'Whether it has entered the balance: false until effective_at is settled.';
COMMENT ON COLUMN tenancy.credit_grants.is_open IS 'Whether a settlement has to look at it: something remains, or it is yet to become effective.';
COMMENT ON COLUMN tenancy.credit_grants.cost_basis IS 'What one credit of it cost, in the currency the operator counts in.';
COMMENT ON COLUMN tenancy.credit_grants.rollover_max IS 'At expiry, up to this much of what remains becomes a new grant.';
COMMENT ON COLUMN tenancy.credit_grants.rollover_until IS 'When that new grant expires.';
COMMENT ON COLUMN tenancy.credit_grants.rolled_from IS 'The grant it was rolled over from.';
COMMENT ON COLUMN tenancy.credit_grants.reason IS 'The operator''s words.';
COMMENT ON COLUMN tenancy.credit_grants.created_at IS 'When it was granted.';
COMMENT ON COLUMN tenancy.credit_grants.updated_at IS 'When the row last changed.';

COMMENT ON CONSTRAINT credit_pools_check ON tenancy.credit_pools IS
'One owner, who gives the pool its id; 0 <= held <= balance <= granted_total; 0 <= burned_total <= drawn_total.';
COMMENT ON CONSTRAINT credit_transactions_check ON tenancy.credit_transactions IS
'seq > 0; balance_after >= 0 and >= credits_amount; credits_amount < 0 for deduction and expiry, > 0 for grant, rollover and refund, never 0; a deduction names user_id and drawn_after, a grant, rollover or expiry grant_id, a refund refund_of.';
COMMENT ON POLICY owner_rows ON tenancy.credit_pools IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_transactions IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_grants IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_pools IS 'The pools of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_transactions IS 'The ledger entries of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_grants IS 'The grants of the identity''s tenant.';
