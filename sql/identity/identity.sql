-- The identity as a whole, and its requirements.

CREATE TYPE tenancy.identity AS (
    user_id text,
    tenant_id text,
    org_id text,
    org_role text,
    pool text,
    namespace text,
    session_id text,
    correlation_id text,
    user_uuid uuid,
    organization_id uuid,
    seat_id uuid,
    expires_at timestamptz,
    permissions text[],
    source text,
    issuer text,
    token_id text
);
COMMENT ON TYPE tenancy.identity IS
'Who a transaction acts for: external ids as text, internal ids as uuid; pool: organization or personal; source: token, act_as or api_key.';
COMMENT ON COLUMN tenancy.identity.user_id IS 'External id of the user (sub).';
COMMENT ON COLUMN tenancy.identity.tenant_id IS 'The tenant, the isolation boundary.';
COMMENT ON COLUMN tenancy.identity.org_id IS 'External id of the organization acted for; NULL: personal.';
COMMENT ON COLUMN tenancy.identity.org_role IS 'Role in the organization.';
COMMENT ON COLUMN tenancy.identity.pool IS 'Which pool of credits pays: organization or personal.';
COMMENT ON COLUMN tenancy.identity.namespace IS 'Namespace of user_id and org_id.';
COMMENT ON COLUMN tenancy.identity.session_id IS 'The provider''s session (sid).';
COMMENT ON COLUMN tenancy.identity.correlation_id IS 'Follows the work through ledger, events and audit.';
COMMENT ON COLUMN tenancy.identity.user_uuid IS 'tenancy.users.id, where the user is registered.';
COMMENT ON COLUMN tenancy.identity.organization_id IS 'tenancy.organizations.id, where the organization is registered.';
COMMENT ON COLUMN tenancy.identity.seat_id IS 'The active seat when the identity was established.';
COMMENT ON COLUMN tenancy.identity.expires_at IS 'When the identity ends.';
COMMENT ON COLUMN tenancy.identity.permissions IS 'What the token or the role permits.';
COMMENT ON COLUMN tenancy.identity.source IS 'token, act_as or api_key.';
COMMENT ON COLUMN tenancy.identity.issuer IS 'The token''s issuer.';
COMMENT ON COLUMN tenancy.identity.token_id IS 'The token''s jti.';

-- As its owner, for what only it may call: both tell of the caller's own identity alone.
CREATE FUNCTION tenancy.identity() RETURNS tenancy.identity
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW (
        tenancy.user_id(), tenancy.tenant_id(), tenancy.org_id(), tenancy.org_role(), tenancy.pool(),
        tenancy.identity_namespace(), tenancy.session_id(), tenancy.correlation_id(), tenancy.user_uuid(),
        tenancy.organization_id(), tenancy.seat_id(), tenancy.expires_at(), tenancy._permissions(),
        p.source, p.issuer, p.token_id)::tenancy.identity
      FROM tenancy._provenance() AS p
$$;
COMMENT ON FUNCTION tenancy.identity() IS
'The identity of the transaction, whole; NULL without a live one.';

CREATE FUNCTION tenancy._require(value text, reason text, what text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _require.value IS NULL THEN
        PERFORM tenancy._raise(
            'PT401', CASE WHEN tenancy.user_id() IS NULL THEN 'not_authenticated' ELSE _require.reason END,
            CASE WHEN tenancy.user_id() IS NULL THEN 'Not authenticated' ELSE 'The identity has no ' || _require.what END,
            'Begin a transaction and call tenancy.authenticate(token) first.');
    END IF;
    RETURN _require.value;
END
$$;
COMMENT ON FUNCTION tenancy._require(text, text, text) IS
'Returns value, or raises PT401: not_authenticated, or reason where there is an identity without it.';

CREATE FUNCTION tenancy.require_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN tenancy._require(tenancy.tenant_id(), 'no_tenant', 'tenant'); END $$;
COMMENT ON FUNCTION tenancy.require_tenant() IS 'tenant_id(), or PT401 not_authenticated.';

CREATE FUNCTION tenancy.require_org() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN tenancy._require(tenancy.org_id(), 'no_organization', 'organization'); END $$;
COMMENT ON FUNCTION tenancy.require_org() IS 'org_id(), or PT401: not_authenticated, or no_organization for a personal identity.';

CREATE FUNCTION tenancy.require_user() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN tenancy._require(tenancy.user_id(), 'no_user', 'user'); END $$;
COMMENT ON FUNCTION tenancy.require_user() IS 'user_id(), or PT401 not_authenticated.';
