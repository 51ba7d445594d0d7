-- Prices and allocations: what a metric costs, what a seat brings.

COMMENT ON FUNCTION tenancy.consume_credits(text, text, text, integer, text, text) IS
'Charges amount units of a metric: their cost to the organization if it covers all of it, else to the user, never split; no seat or subscription is asked for. Returns success, the payer''s available credits, and consumed_from: org, user, or none for what is free; false and user where neither has enough, false and org where the member''s cap is reached. Every call leaves a row in credit_operations. org_id NULL or empty: the user pays. A user nobody registered is registered. Errors: PT404 organization_not_found; PT403 identity_mismatch; 22023, 22003, 55000. A rate limit named like the metric counts it (key user:id) and does not stop it. Contract H, consume_credits.';

COMMENT ON FUNCTION tenancy._consume_credits(text, text, text, text, integer, text, text) IS
'consume_credits for a user and an organization of a namespace, whatever identity is in force: for events, which bring their own.';

COMMENT ON FUNCTION tenancy._lock_pools(uuid[]) IS
'Locks these pools, as far as there are any, in the order of their ids, for whoever will charge several one by one. What is due in them is not settled.';

COMMENT ON FUNCTION tenancy.check_credits(text, text, jsonb) IS
'Whether consumption would be paid for: requirements is an object of metrics and units, and one source (org, else user) must cover the total. Returns allowed, required, available, source and denial_reason: rate_limit_exceeded where a rate limit named like a metric has no room for the user, insufficient_credits, or system_error where such a limit is set and cannot be asked (no shared memory). Reserves and writes nothing. Errors: PT404 organization_not_found; PT403 identity_mismatch; 22023, 22003, 55000. Contract H, check_credits.';

CREATE FUNCTION tenancy.set_credit_cost(metric text, cost numeric) RETURNS numeric
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(set_credit_cost.metric, 'metric');
    PERFORM tenancy._require_text(set_credit_cost.metric, 'metric', 100);
    PERFORM tenancy._require_credits(set_credit_cost.cost, 'cost', true);
    INSERT INTO tenancy.credit_costs AS c (metric, cost)
    VALUES (set_credit_cost.metric, set_credit_cost.cost)
    ON CONFLICT ON CONSTRAINT credit_costs_pkey DO UPDATE SET cost = EXCLUDED.cost, updated_at = now();
    RETURN set_credit_cost.cost;
END
$$;

COMMENT ON FUNCTION tenancy.set_credit_cost(text, numeric) IS
'Sets what a unit of a metric costs, in credits, and returns it; 0 makes it free. Errors: 22023, 22003, 55000.';

CREATE FUNCTION tenancy._require_credits(value numeric, parameter text, zero_allowed boolean DEFAULT false) RETURNS numeric
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- NaN is greater than everything, so it is asked for first.
    IF _require_credits.value IS NULL OR _require_credits.value = 'NaN'
       OR _require_credits.value IN ('Infinity', '-Infinity')
       OR _require_credits.value < 0 OR (_require_credits.value = 0 AND NOT _require_credits.zero_allowed)
       OR _require_credits.value <> trunc(_require_credits.value, 6)
    THEN
        PERFORM tenancy._raise('22023', 'invalid_amount',
            format('%s must be a number of credits %s with at most six decimals', _require_credits.parameter,
                   CASE WHEN _require_credits.zero_allowed THEN 'from zero on' ELSE 'above zero' END),
            'Nothing is rounded: pass the exact number.',
            jsonb_build_object('parameter', _require_credits.parameter));
    END IF;
    IF _require_credits.value > 999999999999.999999 THEN
        PERFORM tenancy._raise('22003', 'amount_out_of_range',
            format('%s is at most 999999999999.999999', _require_credits.parameter),
            'Check the unit: amounts are credits, not millionths of them.',
            jsonb_build_object('parameter', _require_credits.parameter));
    END IF;
    RETURN _require_credits.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_credits(numeric, text, boolean) IS
'Returns value if it is an amount of credits: positive (or zero, where allowed), finite, at most six decimals. Errors: 22023 invalid_amount, 22003 amount_out_of_range, which name the parameter.';

CREATE FUNCTION tenancy.set_seat_credits(plan_type text, billing_frequency text, credits_per_seat numeric) RETURNS numeric
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(set_seat_credits.plan_type, 'plan_type');
    PERFORM tenancy._require_text(set_seat_credits.plan_type, 'plan_type', 64);
    PERFORM tenancy._require_one_of(set_seat_credits.billing_frequency, 'billing_frequency', ARRAY['monthly', 'yearly']);
    PERFORM tenancy._require_credits(set_seat_credits.credits_per_seat, 'credits_per_seat');
    INSERT INTO tenancy.credit_seat_rates AS r (plan_type, billing_frequency, credits_per_seat)
    VALUES (set_seat_credits.plan_type, set_seat_credits.billing_frequency, set_seat_credits.credits_per_seat)
    ON CONFLICT ON CONSTRAINT credit_seat_rates_pkey
    DO UPDATE SET credits_per_seat = EXCLUDED.credits_per_seat, updated_at = now();
    RETURN set_seat_credits.credits_per_seat;
END
$$;

COMMENT ON FUNCTION tenancy.set_seat_credits(text, text, numeric) IS
'Sets how many credits a seat of a plan brings in a period (monthly or yearly) and returns it. Errors: 22023, 22003, 55000.';

CREATE FUNCTION tenancy.allocate_seat_credits(
    org_id text,
    seats integer DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL,
    namespace text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org record;
    subscription record;
    rate numeric;
    counted integer;
BEGIN
    PERFORM tenancy._require_installed();
    org := tenancy._find_organization(allocate_seat_credits.org_id, tenancy._namespace(allocate_seat_credits.namespace));
    SELECT s.plan_type, s.billing_frequency, s.seats_total, s.status INTO subscription
      FROM tenancy.organization_subscriptions AS s WHERE s.organization_id = org.id;
    IF subscription.status IS NULL OR subscription.status NOT IN ('active', 'trialing') THEN
        PERFORM tenancy._raise('PT402', 'no_active_subscription', 'Active organization subscription not found',
            'Its status must be active or trialing: SELECT tenancy.set_subscription(org_id => …, …);',
            jsonb_build_object('org_id', allocate_seat_credits.org_id));
    END IF;
    counted := coalesce(allocate_seat_credits.seats, subscription.seats_total);
    IF counted <= 0 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'seats must be above zero',
            'Pass how many seats were added, or leave it out for all of the subscription''s.',
            jsonb_build_object('parameter', 'seats'));
    END IF;
    SELECT r.credits_per_seat INTO rate
      FROM tenancy.credit_seat_rates AS r
     WHERE r.billing_frequency = subscription.billing_frequency AND r.plan_type IN (subscription.plan_type, 'teams')
     ORDER BY r.plan_type = subscription.plan_type DESC
     LIMIT 1;
    RETURN tenancy.grant_credits(
        amount => rate * counted,
        org_id => allocate_seat_credits.org_id,
        reason => format('%s seats, %s %s', counted, subscription.plan_type, subscription.billing_frequency),
        expires_at => allocate_seat_credits.expires_at,
        idempotency_key => allocate_seat_credits.idempotency_key,
        namespace => tenancy._namespace(allocate_seat_credits.namespace));
END
$$;

COMMENT ON FUNCTION tenancy.allocate_seat_credits(text, integer, text, timestamptz, text) IS
'Grants an organization the credits of its seats by plan and billing frequency and returns the grant''s id: seats NULL, at a renewal, all of the subscription''s; a number, when seats are added, that many. idempotency_key: such as the invoice''s id. Errors: PT402 no_active_subscription; PT404 organization_not_found; PT409 idempotency_conflict; 22023, 55000. Contract S, seat credits.';
