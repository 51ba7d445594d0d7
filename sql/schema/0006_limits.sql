-- 0006 limits: how fast, how much at most. Rules here; the limiter's cells are in shared memory (src/limits/cells.rs).
-- quota_usage is the only one that grows with use: one row a quota, subject and period; its row lock makes a quota exact.

CREATE TABLE tenancy.rate_limits (
    tenant_id text NOT NULL,
    name text NOT NULL,
    max_requests integer,
    period interval,
    burst integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rate_limits_pkey PRIMARY KEY (tenant_id, name),
    CONSTRAINT rate_limits_limit_check CHECK (
        num_nulls(max_requests, period, burst) IN (0, 3) AND max_requests > 0 AND burst > 0 AND period > interval '0')
);

CREATE TABLE tenancy.quotas (
    tenant_id text NOT NULL,
    org_id text NOT NULL DEFAULT '',
    user_id text NOT NULL DEFAULT '',
    metric text NOT NULL,
    period text NOT NULL,
    soft numeric(30,6),
    hard numeric(30,6),
    time_zone text NOT NULL DEFAULT 'UTC',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quotas_pkey PRIMARY KEY (tenant_id, org_id, user_id, metric, period),
    CONSTRAINT quotas_period_check CHECK (period IN ('hour', 'day', 'week', 'month', 'lifetime')),
    CONSTRAINT quotas_amounts_check CHECK (soft >= 0 AND hard >= 0 AND soft <= hard)
);
CREATE INDEX quotas_metric_idx ON tenancy.quotas (metric, tenant_id);

CREATE TABLE tenancy.quota_plans (
    plan_type text NOT NULL,
    metric text NOT NULL,
    period text NOT NULL,
    soft numeric(30,6),
    hard numeric(30,6),
    time_zone text NOT NULL DEFAULT 'UTC',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quota_plans_pkey PRIMARY KEY (plan_type, metric, period),
    CONSTRAINT quota_plans_period_check CHECK (period IN ('hour', 'day', 'week', 'month', 'lifetime')),
    CONSTRAINT quota_plans_amounts_check CHECK (soft >= 0 AND hard >= 0 AND soft <= hard)
);
-- Contract G; 'teams' is what contract S calls the same plan.
INSERT INTO tenancy.quota_plans (plan_type, metric, period, hard) VALUES
    ('free', 'run_units', 'month', 100),
    ('team', 'run_units', 'month', 5000),
    ('teams', 'run_units', 'month', 5000),
    ('enterprise', 'run_units', 'month', NULL);

CREATE TABLE tenancy.quota_usage (
    tenant_id text NOT NULL,
    org_id text NOT NULL,
    user_id text NOT NULL,
    metric text NOT NULL,
    period text NOT NULL,
    period_start timestamptz NOT NULL,
    used numeric(30,6) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quota_usage_pkey PRIMARY KEY (tenant_id, org_id, user_id, metric, period, period_start),
    CONSTRAINT quota_usage_used_check CHECK (used >= 0)
) WITH (fillfactor = 50);

ALTER TABLE tenancy.rate_limits ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.rate_limits FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.rate_limits TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.quotas ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.quotas FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.quotas TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.quota_plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.quota_plans FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.quota_plans TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.quota_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.quota_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.quota_usage TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.quota_usage FOR SELECT USING (tenant_id = tenancy.tenant_id());

COMMENT ON TABLE tenancy.rate_limits IS 'How fast: one row a limit, for one tenant or for all; changed by set_rate_limit, set_rate_limit_policy and load_policy.';
COMMENT ON COLUMN tenancy.rate_limits.tenant_id IS 'The tenant it is for; *: every tenant without a row of its own.';
COMMENT ON COLUMN tenancy.rate_limits.name IS 'Name of the limit, as take_rate_limit is called with.';
COMMENT ON COLUMN tenancy.rate_limits.max_requests IS 'Requests in a period; NULL, with period and burst: unlimited.';
COMMENT ON COLUMN tenancy.rate_limits.period IS 'The period; a month counts as 30 days.';
COMMENT ON COLUMN tenancy.rate_limits.burst IS 'Requests at once.';
COMMENT ON COLUMN tenancy.rate_limits.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.rate_limits.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.quotas IS 'How much at most in a period: one row a quota; changed by set_quota and remove_quota.';
COMMENT ON COLUMN tenancy.quotas.tenant_id IS 'The tenant it is for; *: each tenant without a row of its own.';
COMMENT ON COLUMN tenancy.quotas.org_id IS 'The organization it counts, with its namespace; *: each organization by itself; empty: the whole tenant.';
COMMENT ON COLUMN tenancy.quotas.user_id IS 'The user it counts, with the namespace; *: each user alone; empty: everybody together.';
COMMENT ON COLUMN tenancy.quotas.metric IS 'What is counted.';
COMMENT ON COLUMN tenancy.quotas.period IS 'hour, day, week (from Monday), month, or lifetime: calendar periods in time_zone.';
COMMENT ON COLUMN tenancy.quotas.soft IS 'Reaching it publishes one event a period; NULL: none.';
COMMENT ON COLUMN tenancy.quotas.hard IS 'take_quota goes up to here and no further; NULL: unlimited.';
COMMENT ON COLUMN tenancy.quotas.time_zone IS 'The zone whose calendar the periods follow.';
COMMENT ON COLUMN tenancy.quotas.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.quotas.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.quota_plans IS 'Quotas that come with a plan: for an organization (or a tenant without one) that has no quota of its own for the metric and period; changed by set_plan_quota.';
COMMENT ON COLUMN tenancy.quota_plans.plan_type IS 'organization_subscriptions.plan_type; free: also whoever has no live subscription or an unknown plan.';
COMMENT ON COLUMN tenancy.quota_plans.metric IS 'What is counted.';
COMMENT ON COLUMN tenancy.quota_plans.period IS 'hour, day, week, month or lifetime.';
COMMENT ON COLUMN tenancy.quota_plans.soft IS 'Reaching it publishes one event a period; NULL: none.';
COMMENT ON COLUMN tenancy.quota_plans.hard IS 'The most in a period; NULL: unlimited.';
COMMENT ON COLUMN tenancy.quota_plans.time_zone IS 'The zone whose calendar the periods follow.';
COMMENT ON COLUMN tenancy.quota_plans.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.quota_plans.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.quota_usage IS 'What was counted against quotas: one row a subject, metric and period. Only what has a quota is counted.';
COMMENT ON COLUMN tenancy.quota_usage.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.quota_usage.org_id IS 'The organization; empty: the whole tenant.';
COMMENT ON COLUMN tenancy.quota_usage.user_id IS 'The user; empty: everybody together.';
COMMENT ON COLUMN tenancy.quota_usage.metric IS 'What is counted.';
COMMENT ON COLUMN tenancy.quota_usage.period IS 'hour, day, week, month or lifetime.';
COMMENT ON COLUMN tenancy.quota_usage.period_start IS 'Begin of the period; -infinity for lifetime.';
COMMENT ON COLUMN tenancy.quota_usage.used IS 'How much was used in the period.';
COMMENT ON COLUMN tenancy.quota_usage.updated_at IS 'When the row last changed.';

COMMENT ON POLICY owner_rows ON tenancy.rate_limits IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.quotas IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.quota_plans IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.quota_usage IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY tenant_rows ON tenancy.quota_usage IS 'What the identity''s tenant used.';
