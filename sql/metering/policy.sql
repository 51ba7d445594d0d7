-- Policy as data (contract H): costs, limits and bonuses in the shape of the original policy file.

CREATE FUNCTION tenancy._check_policy(policy jsonb) RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
AS $$
DECLARE
    section text;
    item record;
BEGIN
    IF _check_policy.policy IS NULL OR jsonb_typeof(_check_policy.policy) <> 'object' OR _check_policy.policy = '{}' THEN
        PERFORM tenancy._raise('22023', 'policy_empty', 'Policy file is empty or invalid',
            'Pass an object with the sections costs, rate_limits and signup_bonuses.');
    END IF;
    FOREACH section IN ARRAY ARRAY['costs', 'rate_limits', 'signup_bonuses'] LOOP
        IF NOT _check_policy.policy ? section THEN
            PERFORM tenancy._raise('22023', 'policy_section_missing', format('Missing required policy section: %s', section),
                'Add it; {} where it is empty.', jsonb_build_object('section', section));
        END IF;
        IF jsonb_typeof(_check_policy.policy -> section) <> 'object' THEN
            PERFORM tenancy._raise('22023', 'policy_section_invalid',
                format('Policy section ''%s'' must be a dictionary', section),
                'Write names and values; {} where it is empty.', jsonb_build_object('section', section));
        END IF;
    END LOOP;
    FOR item IN SELECT e.key, e.value FROM jsonb_each(_check_policy.policy -> 'costs') AS e ORDER BY 1 LOOP
        PERFORM tenancy._require_text(item.key, 'metric', 100);
        IF NOT tenancy._is_count(item.value) THEN
            PERFORM tenancy._raise('22023', 'policy_cost_invalid',
                format('Invalid cost for %s: must be non-negative integer', item.key),
                'Write a whole number, 0 for what is free.', jsonb_build_object('metric', item.key));
        END IF;
    END LOOP;
    FOR item IN SELECT e.key, e.value FROM jsonb_each(_check_policy.policy -> 'rate_limits') AS e ORDER BY 1 LOOP
        PERFORM tenancy._require_limit_scope(item.key, NULL);
        IF jsonb_typeof(item.value) <> 'string' THEN
            PERFORM tenancy._raise('22023', 'policy_rate_limit_invalid',
                format('Invalid rate limit for %s: must be string', item.key),
                'Write requests/unit, such as 60/hour; or unlimited.', jsonb_build_object('metric', item.key));
        END IF;
        PERFORM tenancy._parse_rate_limit(item.value #>> '{}');
    END LOOP;
    FOR item IN SELECT e.key, e.value FROM jsonb_each(_check_policy.policy -> 'signup_bonuses') AS e ORDER BY 1 LOOP
        PERFORM tenancy._require_one_of(item.key, 'signup_bonuses', ARRAY['user', 'org']);
        IF NOT tenancy._is_count(item.value) THEN
            PERFORM tenancy._raise('22023', 'policy_bonus_invalid',
                format('Invalid signup bonus for %s: must be non-negative integer', item.key),
                'Write a whole number, 0 for none.', jsonb_build_object('subject_type', item.key));
        END IF;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._check_policy(jsonb) IS
'True for a policy that can be applied; else 22023 with the original''s message: policy_empty, policy_section_missing, policy_section_invalid, policy_cost_invalid, policy_rate_limit_invalid, invalid_rate_limit, invalid_rate_limit_period, policy_bonus_invalid.';

CREATE FUNCTION tenancy._is_count(value jsonb) RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    IF jsonb_typeof(_is_count.value) <> 'number' THEN
        RETURN false;
    END IF;
    RETURN (_is_count.value #>> '{}')::numeric BETWEEN 0 AND 1000000000
       AND trunc((_is_count.value #>> '{}')::numeric) = (_is_count.value #>> '{}')::numeric;
END
$$;
COMMENT ON FUNCTION tenancy._is_count(jsonb) IS 'Whether a JSON value is a whole number from 0 to 10^9.';

CREATE FUNCTION tenancy.load_policy(policy jsonb) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    applied integer := 0;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._check_policy(load_policy.policy);
    FOR item IN SELECT e.key, e.value FROM jsonb_each_text(load_policy.policy -> 'costs') AS e ORDER BY 1 LOOP
        PERFORM tenancy.set_credit_cost(item.key, item.value::numeric);
        applied := applied + 1;
    END LOOP;
    FOR item IN SELECT e.key, e.value FROM jsonb_each_text(load_policy.policy -> 'rate_limits') AS e ORDER BY 1 LOOP
        PERFORM tenancy.set_rate_limit_policy(item.key, item.value);
        applied := applied + 1;
    END LOOP;
    FOR item IN SELECT e.key, e.value FROM jsonb_each_text(load_policy.policy -> 'signup_bonuses') AS e ORDER BY 1 LOOP
        INSERT INTO tenancy.signup_bonuses AS b (subject_type, amount)
        VALUES (item.key, item.value::numeric)
        ON CONFLICT ON CONSTRAINT signup_bonuses_pkey DO UPDATE SET amount = EXCLUDED.amount, updated_at = now();
        applied := applied + 1;
    END LOOP;
    RETURN applied;
END
$$;
COMMENT ON FUNCTION tenancy.load_policy(jsonb) IS
'Takes costs, rate limits and signup bonuses in the shape of the original policy file ({"costs": {…}, "rate_limits": {"batch_create": "60/hour", …}, "signup_bonuses": {"user": 50, "org": 500}}; other members are ignored), checks all of it, then applies it in one step. What it does not name stays as it is. Returns how many settings it names. Errors: 22023 with the original''s messages; 55000.';

CREATE FUNCTION tenancy.grant_signup_bonus(
    org_id text DEFAULT NULL, user_id text DEFAULT NULL, namespace text DEFAULT '') RETURNS numeric
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bonus numeric;
BEGIN
    PERFORM tenancy._require_installed();
    IF num_nonnulls(grant_signup_bonus.org_id, grant_signup_bonus.user_id) <> 1 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'Name an organization or a user, and not both',
            'SELECT tenancy.grant_signup_bonus(org_id => …);');
    END IF;
    SELECT b.amount INTO bonus FROM tenancy.signup_bonuses AS b
     WHERE b.subject_type = CASE WHEN grant_signup_bonus.org_id IS NULL THEN 'user' ELSE 'org' END;
    IF coalesce(bonus, 0) = 0 THEN
        RETURN 0;
    END IF;
    BEGIN
        PERFORM tenancy.grant_credits(bonus, grant_signup_bonus.org_id, grant_signup_bonus.user_id,
            reason => 'signup_bonus', idempotency_key => 'signup_bonus', namespace => grant_signup_bonus.namespace);
    EXCEPTION WHEN SQLSTATE 'PT409' THEN
        -- Given before, when the policy named another amount.
        RETURN 0;
    END;
    RETURN bonus;
END
$$;
COMMENT ON FUNCTION tenancy.grant_signup_bonus(text, text, text) IS
'Gives a new user or organization the bonus that load_policy set, once: a repeat gives nothing more. Returns the bonus, also for a repeat; 0 where none is set, or where another was given before the policy changed. Errors: PT404, 22023, 55000.';
