-- Use of language models: prices, records, sums.

CREATE FUNCTION tenancy.set_llm_price(
    provider text, model text, input_per_million numeric, output_per_million numeric,
    cached_per_million numeric DEFAULT NULL, effective_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(set_llm_price.provider, 'provider'), tenancy._require_id(set_llm_price.model, 'model');
    PERFORM tenancy._require_value(set_llm_price.input_per_million, 'input_per_million');
    PERFORM tenancy._require_value(set_llm_price.output_per_million, 'output_per_million');
    PERFORM tenancy._require_quantity(set_llm_price.input_per_million, 'input_per_million');
    PERFORM tenancy._require_quantity(set_llm_price.output_per_million, 'output_per_million');
    PERFORM tenancy._require_quantity(set_llm_price.cached_per_million, 'cached_per_million');
    INSERT INTO tenancy.llm_prices AS p
        (provider, model, effective_at, input_per_million, output_per_million, cached_per_million)
    VALUES (lower(set_llm_price.provider), set_llm_price.model, coalesce(set_llm_price.effective_at, now()),
            set_llm_price.input_per_million, set_llm_price.output_per_million,
            coalesce(set_llm_price.cached_per_million, set_llm_price.input_per_million))
    ON CONFLICT ON CONSTRAINT llm_prices_pkey DO UPDATE
       SET input_per_million = EXCLUDED.input_per_million, output_per_million = EXCLUDED.output_per_million,
           cached_per_million = EXCLUDED.cached_per_million, updated_at = now();
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy.set_llm_price(text, text, numeric, numeric, numeric, timestamptz) IS
'Sets what a million tokens of a model cost from effective_at (default: now) on: input, output, and cached input (default: as input). model ''*'': every model of the provider without a price of its own. Recorded costs do not change. Errors: 22023, 55000.';

CREATE FUNCTION tenancy._llm_cost(
    provider text, model text, input_tokens bigint, output_tokens bigint, cached_tokens bigint, at timestamptz)
RETURNS numeric
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    cost numeric;
BEGIN
    SELECT round(((_llm_cost.input_tokens - _llm_cost.cached_tokens)::numeric * p.input_per_million
                  + _llm_cost.cached_tokens::numeric * p.cached_per_million
                  + _llm_cost.output_tokens::numeric * p.output_per_million) / 1000000, 6)
      INTO cost
      FROM tenancy.llm_prices AS p
     WHERE p.provider = _llm_cost.provider
       AND p.model IN (_llm_cost.model, '*')
       AND p.effective_at <= _llm_cost.at
     ORDER BY p.model = '*' AND _llm_cost.model <> '*', p.effective_at DESC
     LIMIT 1;
    RETURN cost;
END
$$;
COMMENT ON FUNCTION tenancy._llm_cost(text, text, bigint, bigint, bigint, timestamptz) IS
'What a call cost by the prices of that time, rounded to 6 decimals; NULL where none is set.';

CREATE FUNCTION tenancy._require_tokens(value bigint, parameter text) RETURNS bigint
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    PERFORM tenancy._require_value(_require_tokens.value, _require_tokens.parameter);
    IF _require_tokens.value < 0 OR _require_tokens.value > 1000000000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('%s must be between 0 and 10^12', _require_tokens.parameter),
            'Pass the number of tokens of one call.', jsonb_build_object('parameter', _require_tokens.parameter));
    END IF;
    RETURN _require_tokens.value;
END
$$;
COMMENT ON FUNCTION tenancy._require_tokens(bigint, text) IS
'Returns value if it is a number of tokens, 0 to 10^12. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy.record_llm_usage(
    provider text, model text, input_tokens bigint, output_tokens bigint, cost numeric DEFAULT NULL,
    request_id text DEFAULT NULL, cached_tokens bigint DEFAULT 0, latency_ms double precision DEFAULT NULL,
    credits numeric DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    namespace text := coalesce(tenancy.identity_namespace(), '');
    entry record;
    recorded record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(record_llm_usage.provider, 'provider'), tenancy._require_id(record_llm_usage.model, 'model');
    PERFORM tenancy._require_tokens(record_llm_usage.input_tokens, 'input_tokens');
    PERFORM tenancy._require_tokens(record_llm_usage.output_tokens, 'output_tokens');
    PERFORM tenancy._require_tokens(record_llm_usage.cached_tokens, 'cached_tokens');
    PERFORM tenancy._require_quantity(record_llm_usage.cost, 'cost');
    PERFORM tenancy._require_text(record_llm_usage.request_id, 'request_id', 255);
    PERFORM tenancy._require_quantity(record_llm_usage.credits, 'credits');
    IF record_llm_usage.credits >= 1e12 THEN
        PERFORM tenancy._raise('22003', 'amount_out_of_range', 'An amount of credits is at most 999999999999.999999',
            'Check the unit: amounts are credits, not millionths of them.', '{"parameter": "credits"}');
    END IF;
    IF record_llm_usage.cached_tokens > record_llm_usage.input_tokens
       OR NOT coalesce(record_llm_usage.latency_ms BETWEEN 0 AND 1e9, true) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'cached_tokens must be part of input_tokens, and latency_ms a number of milliseconds',
            'input_tokens counts every input token, those from the provider''s cache included.');
    END IF;

    SELECT tenancy.uuid_v7() AS id, clock_timestamp() AS created_at, lower(record_llm_usage.provider) AS provider,
           coalesce(tenancy._tenant_name(namespace, tenancy.org_id()), '') AS org_id,
           tenancy._tenant_name(namespace, tenancy.user_id()) AS user_id,
           record_llm_usage.cost AS cost
      INTO entry;
    entry.cost := coalesce(entry.cost, tenancy._llm_cost(entry.provider, record_llm_usage.model,
        record_llm_usage.input_tokens, record_llm_usage.output_tokens, record_llm_usage.cached_tokens, entry.created_at));
    PERFORM tenancy._require_quantity(entry.cost, 'cost');

    INSERT INTO tenancy.llm_usage (tenant_id, id, org_id, user_id, seat_id, provider, model, input_tokens, output_tokens,
                                   cached_tokens, latency_ms, cost, credits, request_id, correlation_id, created_at)
    VALUES (tenant, entry.id, entry.org_id, entry.user_id, tenancy.seat_id(), entry.provider, record_llm_usage.model,
            record_llm_usage.input_tokens, record_llm_usage.output_tokens, record_llm_usage.cached_tokens,
            record_llm_usage.latency_ms, entry.cost, record_llm_usage.credits, record_llm_usage.request_id,
            tenancy.correlation_id(), entry.created_at)
    -- Only the request_id can be there already.
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT u.id,
               (u.provider, u.model, u.input_tokens, u.output_tokens, u.cached_tokens, u.user_id, u.org_id, u.credits)
               IS NOT DISTINCT FROM
               (entry.provider, record_llm_usage.model, record_llm_usage.input_tokens, record_llm_usage.output_tokens,
                record_llm_usage.cached_tokens, entry.user_id, entry.org_id, record_llm_usage.credits) AS is_same
          INTO recorded
          FROM tenancy.llm_usage AS u
         WHERE u.tenant_id = tenant AND u.request_id = record_llm_usage.request_id;
        IF NOT recorded.is_same THEN
            PERFORM tenancy._raise('PT409', 'idempotency_conflict', 'Another call was recorded under this request_id',
                'Use a new request_id for each call; repeat one only with the same arguments.',
                jsonb_build_object('request_id', record_llm_usage.request_id));
        END IF;
        RETURN recorded.id;
    END IF;

    PERFORM tenancy._add_llm_day(tenant, (entry.created_at AT TIME ZONE 'UTC')::date, entry.org_id, entry.user_id,
        entry.provider, record_llm_usage.model, record_llm_usage.input_tokens, record_llm_usage.output_tokens,
        record_llm_usage.cached_tokens, entry.cost, record_llm_usage.credits);
    IF record_llm_usage.input_tokens + record_llm_usage.output_tokens > 0 THEN
        PERFORM tenancy._count_quota('llm_tokens',
            (record_llm_usage.input_tokens + record_llm_usage.output_tokens)::numeric, enforce => false);
    END IF;
    IF entry.cost > 0 THEN
        PERFORM tenancy._count_quota('llm_cost', entry.cost, enforce => false);
    END IF;
    -- Last: the pool's row is locked for as short as can be.
    IF record_llm_usage.credits IS NOT NULL THEN
        PERFORM tenancy.spend_credits(record_llm_usage.credits, 'LLM usage', record_llm_usage.request_id,
            metadata => jsonb_build_object('llm_usage_id', entry.id, 'provider', entry.provider,
                                           'model', record_llm_usage.model));
    END IF;
    PERFORM tenancy._observe_llm(record_llm_usage.latency_ms, record_llm_usage.input_tokens, record_llm_usage.output_tokens);
    RETURN entry.id;
END
$$;
COMMENT ON FUNCTION tenancy.record_llm_usage(text, text, bigint, bigint, numeric, text, bigint, double precision, numeric) IS
'Records one call of a language model for the identity and returns its id. input_tokens includes cached_tokens. cost: given, or by set_llm_price, or unknown. request_id: recorded once in the tenant; a repeat returns the first id and counts nothing. credits: charged to whoever is authenticated, in the same transaction. Counts against the quotas llm_tokens and llm_cost, which it never refuses for: the call has been made (ask tenancy.check_quota before it). Errors: PT401, PT409 idempotency_conflict, those of spend_credits, 22023, 22003, 40001, 55000.';

CREATE FUNCTION tenancy._add_llm_day(
    tenant_id text, day date, org_id text, user_id text, provider text, model text,
    input_tokens bigint, output_tokens bigint, cached_tokens bigint, cost numeric, credits numeric) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    seat uuid := coalesce(tenancy.seat_id(), '00000000-0000-0000-0000-000000000000');
BEGIN
    -- A separate UPDATE, then INSERT, then UPDATE: the row of a day is made once.
    FOR attempt IN 1..2 LOOP
        UPDATE tenancy.llm_usage_daily AS d
           SET requests = d.requests + 1, input_tokens = d.input_tokens + _add_llm_day.input_tokens,
               output_tokens = d.output_tokens + _add_llm_day.output_tokens,
               cached_tokens = d.cached_tokens + _add_llm_day.cached_tokens,
               cost = d.cost + coalesce(_add_llm_day.cost, 0),
               unpriced = d.unpriced + (_add_llm_day.cost IS NULL)::integer,
               credits = d.credits + coalesce(_add_llm_day.credits, 0)
         WHERE d.tenant_id = _add_llm_day.tenant_id AND d.day = _add_llm_day.day AND d.org_id = _add_llm_day.org_id
           AND d.user_id = _add_llm_day.user_id AND d.seat_id = seat AND d.provider = _add_llm_day.provider
           AND d.model = _add_llm_day.model;
        EXIT WHEN FOUND;
        INSERT INTO tenancy.llm_usage_daily (tenant_id, day, org_id, user_id, seat_id, provider, model, requests,
                                             input_tokens, output_tokens, cached_tokens, cost, unpriced, credits)
        VALUES (_add_llm_day.tenant_id, _add_llm_day.day, _add_llm_day.org_id, _add_llm_day.user_id, seat,
                _add_llm_day.provider, _add_llm_day.model, 0, 0, 0, 0, 0, 0, 0)
        ON CONFLICT ON CONSTRAINT llm_usage_daily_pkey DO NOTHING;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._add_llm_day(text, date, text, text, text, text, bigint, bigint, bigint, numeric, numeric) IS
'Adds one call to llm_usage_daily.';
