-- What the functions of limits and quotas return.

CREATE TYPE tenancy.rate_limit_decision AS (
    allowed boolean,
    remaining integer,
    retry_after interval
);

COMMENT ON TYPE tenancy.rate_limit_decision IS 'What a rate limit says to a caller.';
COMMENT ON COLUMN tenancy.rate_limit_decision.allowed IS 'Whether the caller is within the limit.';
COMMENT ON COLUMN tenancy.rate_limit_decision.remaining IS 'How much more could be taken at this moment; NULL where there is no limit.';
COMMENT ON COLUMN tenancy.rate_limit_decision.retry_after IS 'How long until the same would be allowed; 0 where it is.';

CREATE TYPE tenancy.quota_state AS (
    allowed boolean,
    used numeric,
    soft numeric,
    hard numeric,
    remaining numeric,
    scope text,
    period text,
    resets_at timestamptz
);

COMMENT ON TYPE tenancy.quota_state IS 'The tightest of the quotas that bind an identity; allowed and NULLs where none does.';
COMMENT ON COLUMN tenancy.quota_state.allowed IS 'Whether the hard quota has room for the amount asked about.';
COMMENT ON COLUMN tenancy.quota_state.used IS 'Used so far in the period.';
COMMENT ON COLUMN tenancy.quota_state.soft IS 'Reaching it publishes an event; NULL: there is none.';
COMMENT ON COLUMN tenancy.quota_state.hard IS 'What can be used in a period; NULL: unlimited.';
COMMENT ON COLUMN tenancy.quota_state.remaining IS 'hard less used, not below 0; NULL where hard is.';
COMMENT ON COLUMN tenancy.quota_state.scope IS 'Whose quota it is: tenant, org or user.';
COMMENT ON COLUMN tenancy.quota_state.period IS 'hour, day, week, month or lifetime.';
COMMENT ON COLUMN tenancy.quota_state.resets_at IS 'When the period ends; infinity for lifetime.';
