-- What a user would write instead, made from the contracts: the pooled deduction in PL/pgSQL (version 2 of the
-- contract), HS256 verification over pgcrypto, and the usual policies.
CREATE SCHEMA bench;

CREATE TABLE bench.users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text UNIQUE NOT NULL, credits integer NOT NULL DEFAULT 0);
CREATE TABLE bench.organizations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_org_id text UNIQUE NOT NULL, name text, stripe_customer_id text);
CREATE TABLE bench.organization_subscriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), organization_id uuid NOT NULL REFERENCES bench.organizations (id),
    clerk_org_id text UNIQUE NOT NULL, status text NOT NULL DEFAULT 'active',
    total_credits integer NOT NULL DEFAULT 0, used_credits integer NOT NULL DEFAULT 0, CHECK (used_credits <= total_credits));
CREATE TABLE bench.organization_seats (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_subscription_id uuid NOT NULL REFERENCES bench.organization_subscriptions (id),
    clerk_org_id text NOT NULL, clerk_user_id text NOT NULL, role text NOT NULL DEFAULT 'member',
    status text NOT NULL DEFAULT 'active');
CREATE UNIQUE INDEX ON bench.organization_seats (clerk_org_id, clerk_user_id) WHERE status IN ('pending', 'active');
CREATE TABLE bench.credit_transactions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL REFERENCES bench.users (id),
    credits_amount integer NOT NULL, operation_type text NOT NULL, description text, reference_id text,
    metadata jsonb, created_at timestamptz NOT NULL DEFAULT now());

CREATE FUNCTION bench.deduct_credits_pooled(
    p_clerk_user_id text, p_amount numeric, p_clerk_org_id text DEFAULT NULL,
    p_description text DEFAULT 'Credits used', p_reference_id text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = bench AS $$
DECLARE
    v_user_id uuid;
    v_seat organization_seats%ROWTYPE;
    v_sub organization_subscriptions%ROWTYPE;
    v_org organizations%ROWTYPE;
BEGIN
    SELECT id INTO v_user_id FROM users WHERE clerk_id = p_clerk_user_id;
    IF v_user_id IS NULL THEN RAISE EXCEPTION 'User not found'; END IF;
    SELECT * INTO v_seat FROM organization_seats
     WHERE clerk_org_id = p_clerk_org_id AND clerk_user_id = p_clerk_user_id AND status = 'active';
    IF NOT FOUND THEN RAISE EXCEPTION 'User does not have an active seat in this organization'; END IF;
    SELECT * INTO v_sub FROM organization_subscriptions
     WHERE clerk_org_id = p_clerk_org_id AND status IN ('active', 'trialing') FOR UPDATE;
    IF NOT FOUND THEN RAISE EXCEPTION 'Active organization subscription not found'; END IF;
    SELECT * INTO v_org FROM organizations WHERE id = v_sub.organization_id;
    IF v_sub.total_credits - v_sub.used_credits < p_amount THEN RETURN false; END IF;
    UPDATE organization_subscriptions SET used_credits = used_credits + p_amount WHERE id = v_sub.id;
    INSERT INTO credit_transactions (user_id, credits_amount, operation_type, description, reference_id, metadata)
    VALUES (v_user_id, -p_amount, 'deduction', p_description, p_reference_id, jsonb_build_object(
        'pool', 'organization', 'clerk_org_id', p_clerk_org_id, 'organization_id', v_org.id,
        'organization_name', v_org.name, 'stripe_customer_id', v_org.stripe_customer_id,
        'organization_subscription_id', v_sub.id, 'seat_id', v_seat.id, 'seat_role', v_seat.role));
    RETURN true;
END
$$;

-- The ceiling of group commit: the ledger's row shape and index, without any check.
CREATE TABLE bench.insert_only (LIKE tenancy.credit_transactions INCLUDING DEFAULTS);
ALTER TABLE bench.insert_only ADD PRIMARY KEY (pool_id, id);

CREATE EXTENSION IF NOT EXISTS pgcrypto;
-- Secrets by issuer and kid. The application must not read them, or it could sign: so the function is its owner's.
CREATE TABLE bench.secrets (
    issuer text NOT NULL, kid text NOT NULL, algorithm text NOT NULL, audience text NOT NULL, secret bytea NOT NULL,
    PRIMARY KEY (issuer, kid));
INSERT INTO bench.secrets VALUES ('bench', 'k', 'HS256', 'bench', convert_to(repeat('benchmark-secret', 2), 'UTF8'));
-- A part of a token as the JSON it is; LANGUAGE sql, so that it becomes part of the expression that names it.
CREATE FUNCTION bench.url_decode(part text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT decode(translate(part, '-_', '+/') || repeat('=', (4 - length(part) % 4) % 4), 'base64')
$$;
-- What a careful user checks: the header's alg against the key's, the secret by iss and kid, the signature, exp, nbf and
-- iat against the clock, aud (a string or an array), and that there is a subject. The claims, or NULL.
CREATE FUNCTION bench.verify_hs256(token text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    parts text[] := string_to_array(token, '.');
    header jsonb;
    claims jsonb;
    key record;
    moment bigint;
BEGIN
    IF cardinality(parts) IS DISTINCT FROM 3 THEN
        RETURN NULL;
    END IF;
    header := convert_from(bench.url_decode(parts[1]), 'UTF8')::jsonb;
    claims := convert_from(bench.url_decode(parts[2]), 'UTF8')::jsonb;
    SELECT s.secret, s.algorithm, s.audience INTO key
      FROM bench.secrets AS s WHERE s.issuer = claims ->> 'iss' AND s.kid = header ->> 'kid';
    IF NOT FOUND OR header ->> 'alg' IS DISTINCT FROM key.algorithm
       OR hmac(convert_to(parts[1] || '.' || parts[2], 'UTF8'), key.secret, 'sha256') <> bench.url_decode(parts[3]) THEN
        RETURN NULL;
    END IF;
    moment := extract(epoch FROM clock_timestamp());
    IF (claims ->> 'exp')::bigint > moment AND coalesce((claims ->> 'nbf')::bigint <= moment, true)
       AND coalesce((claims ->> 'iat')::bigint <= moment, true) AND (claims -> 'aud') @> to_jsonb(key.audience)
       AND claims ->> 'sub' <> '' THEN
        RETURN claims;
    END IF;
    RETURN NULL;
END
$$;

-- One HS256 token; what the token service would do.
CREATE FUNCTION bench.sign(claims jsonb, secret bytea) RETURNS text LANGUAGE sql AS $$
    SELECT input || '.' || translate(encode(hmac(convert_to(input, 'UTF8'), secret, 'sha256'), 'base64'), E'+/=\n', '-_')
      FROM (SELECT string_agg(translate(encode(convert_to(part, 'UTF8'), 'base64'), E'+/=\n', '-_'), '.' ORDER BY n) AS input
              FROM (VALUES (1, '{"alg":"HS256","kid":"k","typ":"JWT"}'), (2, claims::text)) AS p (n, part)) AS joined
$$;
