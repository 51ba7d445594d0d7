-- 0008 metering: what was used. llm_usage and usage_records grow with use and are append-only; llm_usage_daily is
-- written with each record, in the same transaction. Every key begins with the tenant: recording never waits for another
-- tenant.

CREATE TABLE tenancy.llm_prices (
    provider text NOT NULL,
    model text NOT NULL,
    effective_at timestamptz NOT NULL,
    input_per_million numeric NOT NULL,
    output_per_million numeric NOT NULL,
    cached_per_million numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT llm_prices_pkey PRIMARY KEY (provider, model, effective_at),
    CONSTRAINT llm_prices_amounts_check CHECK (input_per_million >= 0 AND output_per_million >= 0 AND cached_per_million >= 0)
);

CREATE TABLE tenancy.llm_usage (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    org_id text NOT NULL,
    user_id text NOT NULL,
    seat_id uuid,
    provider text NOT NULL,
    model text NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL DEFAULT 0,
    latency_ms double precision,
    cost numeric(24,6),
    credits numeric(18,6),
    request_id text,
    correlation_id text,
    created_at timestamptz NOT NULL,
    CONSTRAINT llm_usage_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT llm_usage_tokens_check CHECK (input_tokens >= 0 AND output_tokens >= 0 AND cached_tokens BETWEEN 0 AND input_tokens),
    CONSTRAINT llm_usage_cost_check CHECK (cost >= 0)
);
CREATE UNIQUE INDEX llm_usage_request_key ON tenancy.llm_usage (tenant_id, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE tenancy.llm_usage_daily (
    tenant_id text NOT NULL,
    day date NOT NULL,
    org_id text NOT NULL,
    user_id text NOT NULL,
    -- The nil UUID where there is no seat, so that it can be part of the key.
    seat_id uuid NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    cost numeric NOT NULL,
    unpriced bigint NOT NULL,
    credits numeric NOT NULL,
    CONSTRAINT llm_usage_daily_pkey PRIMARY KEY (tenant_id, day, org_id, user_id, seat_id, provider, model)
) WITH (fillfactor = 70);

CREATE TABLE tenancy.usage_records (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    org_id text NOT NULL,
    user_id text NOT NULL,
    thread_id text,
    tool_name text NOT NULL,
    run_units numeric(18,4) NOT NULL,
    tier text NOT NULL,
    cpu_seconds double precision NOT NULL,
    gpu_seconds double precision NOT NULL,
    latency_ms double precision,
    period text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT usage_records_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT usage_records_units_check CHECK (run_units > 0)
);
CREATE INDEX usage_records_period_idx ON tenancy.usage_records (tenant_id, period, org_id);

CREATE TABLE tenancy.signup_bonuses (
    subject_type text NOT NULL,
    amount numeric(18,6) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT signup_bonuses_pkey PRIMARY KEY (subject_type),
    CONSTRAINT signup_bonuses_amount_check CHECK (amount >= 0)
);

ALTER TABLE tenancy.llm_prices ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.llm_prices FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.llm_prices TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE tenancy.llm_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.llm_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.llm_usage TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.llm_usage FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.llm_usage_daily ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.llm_usage_daily FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.llm_usage_daily TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.llm_usage_daily FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.usage_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_records FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.usage_records TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.usage_records FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.signup_bonuses ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.signup_bonuses FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.signup_bonuses TO CURRENT_USER USING (true) WITH CHECK (true);

CREATE VIEW tenancy.llm_usage_monthly WITH (security_invoker = true) AS
SELECT d.tenant_id, (d.day - (extract(day FROM d.day)::integer - 1))::date AS month, d.org_id, d.user_id, d.seat_id, d.provider, d.model,
       sum(d.requests) AS requests, sum(d.input_tokens) AS input_tokens, sum(d.output_tokens) AS output_tokens,
       sum(d.cached_tokens) AS cached_tokens, sum(d.cost) AS cost, sum(d.unpriced) AS unpriced, sum(d.credits) AS credits
  FROM tenancy.llm_usage_daily AS d
 GROUP BY 1, 2, 3, 4, 5, 6, 7;

COMMENT ON TABLE tenancy.llm_prices IS 'What tokens cost: one row a provider, model and time from which it counts; changed by set_llm_price.';
COMMENT ON COLUMN tenancy.llm_prices.provider IS 'The provider, in lower case.';
COMMENT ON COLUMN tenancy.llm_prices.model IS 'The model; *: every model of the provider without a price of its own.';
COMMENT ON COLUMN tenancy.llm_prices.effective_at IS 'From when on it counts.';
COMMENT ON COLUMN tenancy.llm_prices.input_per_million IS 'Price of a million input tokens that were not cached.';
COMMENT ON COLUMN tenancy.llm_prices.output_per_million IS 'Price of a million output tokens.';
COMMENT ON COLUMN tenancy.llm_prices.cached_per_million IS 'Price of a million cached input tokens.';
COMMENT ON COLUMN tenancy.llm_prices.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.llm_prices.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.llm_usage IS 'Calls of language models: one row a call, append-only; written by record_llm_usage.';
COMMENT ON COLUMN tenancy.llm_usage.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.llm_usage.id IS 'UUID version 7.';
COMMENT ON COLUMN tenancy.llm_usage.org_id IS 'The organization as quotas write it; empty: a personal identity.';
COMMENT ON COLUMN tenancy.llm_usage.user_id IS 'The user, with the namespace.';
COMMENT ON COLUMN tenancy.llm_usage.seat_id IS 'The seat (organization_seats.id), if any.';
COMMENT ON COLUMN tenancy.llm_usage.provider IS 'The provider, in lower case.';
COMMENT ON COLUMN tenancy.llm_usage.model IS 'The model.';
COMMENT ON COLUMN tenancy.llm_usage.input_tokens IS 'Input tokens, those cached included.';
COMMENT ON COLUMN tenancy.llm_usage.output_tokens IS 'Output tokens.';
COMMENT ON COLUMN tenancy.llm_usage.cached_tokens IS 'Input tokens that came from the provider''s cache.';
COMMENT ON COLUMN tenancy.llm_usage.latency_ms IS 'How long the call took, in milliseconds, if known.';
COMMENT ON COLUMN tenancy.llm_usage.cost IS 'Its cost, given or by llm_prices; NULL: no price was known.';
COMMENT ON COLUMN tenancy.llm_usage.credits IS 'Credits charged for it; NULL: none.';
COMMENT ON COLUMN tenancy.llm_usage.request_id IS 'The caller''s id of the call: recorded once in the tenant.';
COMMENT ON COLUMN tenancy.llm_usage.correlation_id IS 'The identity''s correlation id.';
COMMENT ON COLUMN tenancy.llm_usage.created_at IS 'When it was recorded.';

COMMENT ON TABLE tenancy.llm_usage_daily IS 'llm_usage, summed by day (UTC), organization, user, seat, provider and model; written with each record.';
COMMENT ON COLUMN tenancy.llm_usage_daily.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.llm_usage_daily.day IS 'The day of created_at, UTC.';
COMMENT ON COLUMN tenancy.llm_usage_daily.org_id IS 'The organization; empty: personal.';
COMMENT ON COLUMN tenancy.llm_usage_daily.user_id IS 'The user.';
COMMENT ON COLUMN tenancy.llm_usage_daily.seat_id IS 'The seat; the nil UUID: none.';
COMMENT ON COLUMN tenancy.llm_usage_daily.provider IS 'The provider.';
COMMENT ON COLUMN tenancy.llm_usage_daily.model IS 'The model.';
COMMENT ON COLUMN tenancy.llm_usage_daily.requests IS 'Calls.';
COMMENT ON COLUMN tenancy.llm_usage_daily.input_tokens IS 'Input tokens, those cached included.';
COMMENT ON COLUMN tenancy.llm_usage_daily.output_tokens IS 'Output tokens.';
COMMENT ON COLUMN tenancy.llm_usage_daily.cached_tokens IS 'Cached input tokens.';
COMMENT ON COLUMN tenancy.llm_usage_daily.cost IS 'Cost of the calls whose cost is known.';
COMMENT ON COLUMN tenancy.llm_usage_daily.unpriced IS 'Calls whose cost is not known.';
COMMENT ON COLUMN tenancy.llm_usage_daily.credits IS 'Credits charged.';
COMMENT ON VIEW tenancy.llm_usage_monthly IS 'llm_usage_daily, summed by month: always the sum of its days.';

COMMENT ON COLUMN tenancy.llm_usage_monthly.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.month IS 'The first day of the month, UTC.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.org_id IS 'The organization; empty: personal.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.user_id IS 'The user.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.seat_id IS 'The seat; the nil UUID: none.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.provider IS 'The provider.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.model IS 'The model.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.requests IS 'Calls.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.input_tokens IS 'Input tokens, those cached included.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.output_tokens IS 'Output tokens.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.cached_tokens IS 'Cached input tokens.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.cost IS 'Cost of the calls whose cost is known.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.unpriced IS 'Calls whose cost is not known.';
COMMENT ON COLUMN tenancy.llm_usage_monthly.credits IS 'Credits charged.';

COMMENT ON TABLE tenancy.usage_records IS 'Runs of tools: one row a run, append-only; written by record_run_units.';
COMMENT ON COLUMN tenancy.usage_records.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.usage_records.id IS 'UUID version 7.';
COMMENT ON COLUMN tenancy.usage_records.org_id IS 'The organization as quotas write it; empty: a personal identity.';
COMMENT ON COLUMN tenancy.usage_records.user_id IS 'The user, with the namespace.';
COMMENT ON COLUMN tenancy.usage_records.thread_id IS 'The conversation it ran in, if any.';
COMMENT ON COLUMN tenancy.usage_records.tool_name IS 'The tool that ran; default: none in particular.';
COMMENT ON COLUMN tenancy.usage_records.run_units IS 'Run units by the formula of tenancy.run_units.';
COMMENT ON COLUMN tenancy.usage_records.tier IS 'standard, heavy or ultra; anything else counts as standard.';
COMMENT ON COLUMN tenancy.usage_records.cpu_seconds IS 'Seconds of CPU.';
COMMENT ON COLUMN tenancy.usage_records.gpu_seconds IS 'Seconds of GPU.';
COMMENT ON COLUMN tenancy.usage_records.latency_ms IS 'How long it took, in milliseconds, if known.';
COMMENT ON COLUMN tenancy.usage_records.period IS 'The month of created_at, YYYY-MM, UTC.';
COMMENT ON COLUMN tenancy.usage_records.created_at IS 'When it was recorded.';

COMMENT ON TABLE tenancy.signup_bonuses IS 'Credits that a new user or organization is given: grant_signup_bonus; changed by load_policy.';
COMMENT ON COLUMN tenancy.signup_bonuses.subject_type IS 'user or org.';
COMMENT ON COLUMN tenancy.signup_bonuses.amount IS 'Credits; 0: none.';
COMMENT ON COLUMN tenancy.signup_bonuses.updated_at IS 'When the row last changed.';

COMMENT ON POLICY owner_rows ON tenancy.llm_prices IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.llm_usage IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.llm_usage_daily IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.usage_records IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.signup_bonuses IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY tenant_rows ON tenancy.llm_usage IS 'The identity''s tenant''s calls.';
COMMENT ON POLICY tenant_rows ON tenancy.llm_usage_daily IS 'The identity''s tenant''s sums.';
COMMENT ON POLICY tenant_rows ON tenancy.usage_records IS 'The identity''s tenant''s runs.';
