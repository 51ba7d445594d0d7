-- 0012 credit consumption: what a metric costs, what a seat brings, and the audit of contract H.

CREATE TABLE tenancy.credit_costs (
    metric text NOT NULL,
    cost numeric(18,6) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_costs_pkey PRIMARY KEY (metric),
    CONSTRAINT credit_costs_metric_check CHECK (metric <> ''),
    CONSTRAINT credit_costs_cost_check CHECK (cost >= 0)
);

CREATE TABLE tenancy.credit_seat_rates (
    plan_type text NOT NULL,
    billing_frequency text NOT NULL,
    credits_per_seat numeric(18,6) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_seat_rates_pkey PRIMARY KEY (plan_type, billing_frequency),
    CONSTRAINT credit_seat_rates_plan_type_check CHECK (plan_type <> ''),
    CONSTRAINT credit_seat_rates_billing_frequency_check CHECK (billing_frequency IN ('monthly', 'yearly')),
    CONSTRAINT credit_seat_rates_credits_check CHECK (credits_per_seat > 0)
);

CREATE TABLE tenancy.credit_operations (
    tenant_id text NOT NULL,
    id uuid NOT NULL,
    subject_type text NOT NULL,
    subject_id text NOT NULL,
    user_id text NOT NULL,
    org_id text,
    metric text NOT NULL,
    amount integer NOT NULL,
    cost numeric(18,6) NOT NULL,
    batch_id text,
    consumed_from text NOT NULL,
    correlation_id text,
    operation_status text NOT NULL,
    transaction_id uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT credit_operations_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT credit_operations_subject_type_check CHECK (subject_type IN ('user', 'org')),
    CONSTRAINT credit_operations_amount_check CHECK (amount >= 0 AND cost >= 0),
    CONSTRAINT credit_operations_consumed_from_check CHECK (consumed_from IN ('user', 'org', 'none')),
    CONSTRAINT credit_operations_status_check CHECK (operation_status IN ('completed', 'failed')),
    CONSTRAINT credit_operations_transaction_check
        CHECK ((transaction_id IS NOT NULL) = (operation_status = 'completed' AND consumed_from <> 'none'))
);

-- Contract H's policy and contract S's seats, to be changed by set_credit_cost() and set_seat_credits().
INSERT INTO tenancy.credit_costs (metric, cost) VALUES
    ('cj_comparison', 1),
    ('ai_feedback_generation', 5),
    ('ai_editor_revision', 3);
INSERT INTO tenancy.credit_seat_rates (plan_type, billing_frequency, credits_per_seat) VALUES
    ('teams', 'monthly', 500),
    ('teams', 'yearly', 6000);

ALTER TABLE tenancy.credit_costs ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_costs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_costs TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY every_row ON tenancy.credit_costs FOR SELECT USING (true);

ALTER TABLE tenancy.credit_seat_rates ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_seat_rates FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_seat_rates TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY every_row ON tenancy.credit_seat_rates FOR SELECT USING (true);

ALTER TABLE tenancy.credit_operations ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_operations FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_operations TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.credit_operations FOR SELECT USING (tenant_id = tenancy.tenant_id());

COMMENT ON TABLE tenancy.credit_costs IS 'Credits a unit of a metric costs (contract H, policy); a metric without a row is free. Changed by set_credit_cost.';
COMMENT ON COLUMN tenancy.credit_costs.metric IS 'The metric, as consumption events name it (resource_type).';
COMMENT ON COLUMN tenancy.credit_costs.cost IS 'Credits a unit.';
COMMENT ON COLUMN tenancy.credit_costs.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.credit_seat_rates IS
'Credits a seat brings in a period (contract S); plans without a row have those of teams. Changed by set_seat_credits.';
COMMENT ON COLUMN tenancy.credit_seat_rates.plan_type IS 'The subscription''s plan.';
COMMENT ON COLUMN tenancy.credit_seat_rates.billing_frequency IS 'monthly or yearly.';
COMMENT ON COLUMN tenancy.credit_seat_rates.credits_per_seat IS 'Credits a seat and period.';
COMMENT ON COLUMN tenancy.credit_seat_rates.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.credit_operations IS
'Every call of consume_credits (contract H), also what was free or refused. Append-only.';
COMMENT ON COLUMN tenancy.credit_operations.tenant_id IS 'The organization''s tenant, or the user''s personal one.';
COMMENT ON COLUMN tenancy.credit_operations.id IS 'UUID version 7.';
COMMENT ON COLUMN tenancy.credit_operations.subject_type IS 'org or user: who paid, or would have.';
COMMENT ON COLUMN tenancy.credit_operations.subject_id IS 'The external id of that organization or user.';
COMMENT ON COLUMN tenancy.credit_operations.user_id IS 'Who consumed (external id), whoever paid.';
COMMENT ON COLUMN tenancy.credit_operations.org_id IS 'The organization named (external id).';
COMMENT ON COLUMN tenancy.credit_operations.metric IS 'The metric.';
COMMENT ON COLUMN tenancy.credit_operations.amount IS 'Units consumed.';
COMMENT ON COLUMN tenancy.credit_operations.cost IS 'Credits they cost.';
COMMENT ON COLUMN tenancy.credit_operations.batch_id IS 'The batch they belong to.';
COMMENT ON COLUMN tenancy.credit_operations.consumed_from IS 'org, user, or none where it was free; for a refused one who would have paid last.';
COMMENT ON COLUMN tenancy.credit_operations.correlation_id IS 'The caller''s correlation id, else the identity''s.';
COMMENT ON COLUMN tenancy.credit_operations.operation_status IS 'completed or failed.';
COMMENT ON COLUMN tenancy.credit_operations.transaction_id IS 'The ledger row, where credits were charged.';
COMMENT ON COLUMN tenancy.credit_operations.created_at IS 'When it happened.';

COMMENT ON POLICY owner_rows ON tenancy.credit_costs IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_seat_rates IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.credit_operations IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY every_row ON tenancy.credit_costs IS 'Prices are no tenant''s: whoever may read the table reads all of it.';
COMMENT ON POLICY every_row ON tenancy.credit_seat_rates IS 'Prices are no tenant''s: whoever may read the table reads all of it.';
COMMENT ON POLICY tenant_rows ON tenancy.credit_operations IS 'The operations of the identity''s tenant.';
