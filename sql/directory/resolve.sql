-- What other domains ask the directory.

CREATE FUNCTION tenancy._resolve_directory(
    namespace text,
    user_id text,
    org_id text,
    candidate_tenant text,
    OUT user_uuid uuid,
    OUT organization_uuid uuid,
    OUT organization_name text,
    OUT stripe_customer_id text,
    OUT org_tenant_id text,
    OUT org_tenant_status text,
    OUT org_role text,
    OUT seat_id uuid,
    OUT seat_role text,
    OUT seat_expires_at timestamptz,
    OUT subscription_id uuid,
    OUT subscription_status text,
    OUT candidate_registered boolean,
    OUT candidate_status text
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT u.id, o.id, o.name, o.stripe_customer_id, o.tenant_id, home.status, m.org_role,
           s.id, s.role, s.expires_at, sub.id, sub.status, candidate.tenant_id IS NOT NULL, candidate.status
      INTO user_uuid, organization_uuid, organization_name, stripe_customer_id, org_tenant_id, org_tenant_status, org_role,
           seat_id, seat_role, seat_expires_at, subscription_id, subscription_status, candidate_registered, candidate_status
      FROM (VALUES (1)) AS one (n)
      LEFT JOIN tenancy.users AS u
        ON u.namespace = _resolve_directory.namespace AND u.external_id = _resolve_directory.user_id
      LEFT JOIN tenancy.organizations AS o
        ON o.namespace = _resolve_directory.namespace AND o.external_id = _resolve_directory.org_id
      LEFT JOIN tenancy.tenants AS home
        ON home.tenant_id = o.tenant_id
      LEFT JOIN tenancy.organization_memberships AS m
        ON m.organization_id = o.id AND m.user_id = u.id
      LEFT JOIN tenancy.organization_seats AS s
        ON s.organization_id = o.id AND s.user_id = u.id AND s.status = 'active'
       AND (s.expires_at IS NULL OR s.expires_at > statement_timestamp())
      LEFT JOIN tenancy.organization_subscriptions AS sub
        ON sub.organization_id = o.id
      LEFT JOIN tenancy.tenants AS candidate
        ON candidate.tenant_id = _resolve_directory.candidate_tenant;
END
$$;

COMMENT ON FUNCTION tenancy._resolve_directory(text, text, text, text) IS
'All the directory knows of a user in an organization, in one query by unique keys, always one row: NULL where nothing is registered. candidate_tenant: the tenant a token names or yields; candidate_registered says whether it is registered, and the organization belongs to it exactly if it equals org_tenant_id. The seat is the active, unexpired one. Reads only; runs on a standby.';

CREATE FUNCTION tenancy._own_claims(namespace text, user_id text) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        -- What a token issued here says is what the directory said then; now it may say something else.
        WHEN tenancy.user_id() = _own_claims.user_id AND tenancy.identity_namespace() = _own_claims.namespace
         AND NOT tenancy._issued_here()
        THEN tenancy.claims()
    END;
END
$$;

COMMENT ON FUNCTION tenancy._own_claims(text, text) IS
'The sealed claims, where they are this user''s and a provider''s; else NULL.';

CREATE FUNCTION tenancy._org_membership(
    namespace text,
    user_id text,
    org_id text,
    claims jsonb,
    OUT org_role text,
    OUT source text
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _org_membership.claims IS NOT NULL THEN
        _org_membership.org_role := tenancy._claimed_org_role(
            _org_membership.claims::text, _org_membership.user_id, _org_membership.org_id);
        _org_membership.source := CASE WHEN _org_membership.org_role IS NOT NULL THEN 'claims' END;
    END IF;
    IF _org_membership.org_role IS NULL THEN
        SELECT d.org_role, CASE WHEN d.org_role IS NOT NULL THEN 'directory' END
          INTO _org_membership.org_role, _org_membership.source
          FROM tenancy._resolve_directory(_org_membership.namespace, _org_membership.user_id, _org_membership.org_id, NULL) AS d;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._org_membership(text, text, text, jsonb) IS
'As resolve_org_membership, in a namespace, with the claims that count; NULLs where the user is no member.';

CREATE FUNCTION tenancy.resolve_org_membership(
    user_id text,
    org_id text,
    claims jsonb DEFAULT NULL,
    OUT org_role text,
    OUT source text
) RETURNS SETOF record
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(resolve_org_membership.user_id, 'user_id');
    PERFORM tenancy._require_id(resolve_org_membership.org_id, 'org_id');
    ns := tenancy._namespace();
    SELECT m.org_role, m.source INTO resolve_org_membership.org_role, resolve_org_membership.source
      FROM tenancy._org_membership(
        ns, resolve_org_membership.user_id, resolve_org_membership.org_id,
        coalesce(resolve_org_membership.claims, tenancy._own_claims(ns, resolve_org_membership.user_id))) AS m;
    IF resolve_org_membership.org_role IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy.resolve_org_membership(text, text, jsonb) IS
'The role of a user in an organization and where it was found: source claims (the organizations map, then the organization claim of the issuer''s profile; a member without a named role is org:member) or directory. No row: not a member. claims: verified claims of that user, for the service role; left out, the sealed claims count where they are the user''s and a provider''s, not this database''s own. Errors: 22023 invalid_argument, invalid_claims; 55000. Contract S, attribution.';

CREATE FUNCTION tenancy._org_attribution(namespace text, user_id text, org_id text, claims jsonb) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts record;
    membership record;
BEGIN
    IF _org_attribution.org_id IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM tenancy._require_id(_org_attribution.org_id, 'org_id');
    membership := tenancy._org_membership(_org_attribution.namespace, _org_attribution.user_id, _org_attribution.org_id,
                                          _org_attribution.claims);
    IF membership.org_role IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO facts
      FROM tenancy._resolve_directory(_org_attribution.namespace, _org_attribution.user_id, _org_attribution.org_id, NULL);
    -- An inactive subscription gives no attribution: a later deduction would have to refuse it.
    IF facts.seat_id IS NULL OR (facts.subscription_status IN ('active', 'trialing')) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object(
        'pool', 'organization',
        'clerk_org_id', _org_attribution.org_id,
        'organization_id', facts.organization_uuid,
        'organization_name', facts.organization_name,
        'stripe_customer_id', facts.stripe_customer_id,
        'organization_subscription_id', facts.subscription_id,
        'seat_id', facts.seat_id,
        'seat_role', facts.seat_role,
        'org_role', membership.org_role);
END
$$;

COMMENT ON FUNCTION tenancy._org_attribution(text, text, text, jsonb) IS
'As resolve_org_attribution, in a namespace, with the claims that count.';

CREATE FUNCTION tenancy.resolve_org_attribution(user_id text, org_id text, claims jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(resolve_org_attribution.user_id, 'user_id');
    ns := tenancy._namespace();
    RETURN tenancy._org_attribution(
        ns, resolve_org_attribution.user_id, resolve_org_attribution.org_id,
        coalesce(resolve_org_attribution.claims, tenancy._own_claims(ns, resolve_org_attribution.user_id)));
END
$$;

COMMENT ON FUNCTION tenancy.resolve_org_attribution(text, text, jsonb) IS
'The nine organization claims of a token (pool, clerk_org_id, organization_id, organization_name, stripe_customer_id, organization_subscription_id, seat_id, seat_role, org_role) for a member with an active, unexpired seat under an active or trialing subscription; else NULL: the token is personal. Unlike contract S, an inactive subscription yields NULL. claims: as in resolve_org_membership. Errors: 22023, 55000.';
