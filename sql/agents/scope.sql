-- Whose modules a call means, and what it may do with them.

CREATE TYPE tenancy.module AS (
    tenant_id text,
    org_id text,
    module_id text,
    name text,
    category text,
    platform text,
    status text,
    health_status text,
    manifest jsonb,
    installed_at timestamptz,
    updated_at timestamptz,
    failure_count bigint,
    success_count bigint,
    last_used timestamptz
);
COMMENT ON TYPE tenancy.module IS 'An installed module, as the functions return it (contract G, ModuleRegistry).';
COMMENT ON COLUMN tenancy.module.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.module.org_id IS 'External id of the organization.';
COMMENT ON COLUMN tenancy.module.module_id IS 'category/platform.';
COMMENT ON COLUMN tenancy.module.name IS 'Name for people.';
COMMENT ON COLUMN tenancy.module.category IS 'What stands before the slash of module_id.';
COMMENT ON COLUMN tenancy.module.platform IS 'What stands after the slash of module_id.';
COMMENT ON COLUMN tenancy.module.status IS 'pending, validating, validated, approved, installed, disabled, failed or uninstalled.';
COMMENT ON COLUMN tenancy.module.health_status IS 'What update_module_health last said.';
COMMENT ON COLUMN tenancy.module.manifest IS 'The manifest.';
COMMENT ON COLUMN tenancy.module.installed_at IS 'When it was first installed.';
COMMENT ON COLUMN tenancy.module.updated_at IS 'When it last changed.';
COMMENT ON COLUMN tenancy.module.failure_count IS 'Failures reported.';
COMMENT ON COLUMN tenancy.module.success_count IS 'Uses reported.';
COMMENT ON COLUMN tenancy.module.last_used IS 'When it was last used.';

-- A body the parser reads at creation: no search_path of a caller can change what its operators mean, and a policy
-- that calls it has it inlined.
CREATE FUNCTION tenancy._module_org() RETURNS text
LANGUAGE sql
STABLE
PARALLEL SAFE
RETURN coalesce(
    tenancy.org_id(),
    -- Only in the user's own tenant: in a tenant of several, 'default' would be everybody's.
    CASE WHEN pg_catalog.current_setting('tenancy.personal_default_org', true)::boolean
              AND tenancy.tenant_id() = CASE tenancy.identity_namespace()
                                            WHEN '' THEN 'user::' || tenancy.user_id()
                                            ELSE tenancy.identity_namespace() || '::user::' || tenancy.user_id()
                                        END
         THEN 'default' END);

COMMENT ON FUNCTION tenancy._module_org() IS
'The organization whose modules the identity means: org_id(), or ''default'' for a personal identity in its own tenant where tenancy.personal_default_org is on; else NULL.';
COMMENT ON FUNCTION tenancy._identity_ended() IS
'Whether this transaction had an identity and has none now: cleared or expired. It then acts for nobody.';

CREATE FUNCTION tenancy._require_permission(permission text) RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require(tenancy.user_id(), 'no_user', 'user');
    IF NOT tenancy.has_permission(_require_permission.permission) THEN
        PERFORM tenancy._raise('PT403', 'permission_denied',
            format('Permission denied: requires %s', _require_permission.permission),
            'The user needs a role in the organization that carries it (viewer, operator, admin, owner), or a token that names it.',
            jsonb_build_object('permission', _require_permission.permission));
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy._require_permission(text) IS
'True if the identity holds the permission (has_permission). Errors: PT401 not_authenticated, PT403 permission_denied.';

CREATE FUNCTION tenancy._own_module_org(
    permission text,
    OUT tenant_id text,
    OUT namespace text,
    OUT org_id text
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    _own_module_org.org_id := tenancy._require(tenancy._module_org(), 'no_organization', 'organization');
    _own_module_org.tenant_id := tenancy.tenant_id();
    _own_module_org.namespace := tenancy.identity_namespace();
    IF _own_module_org.permission IS NOT NULL THEN
        PERFORM tenancy._require_permission(_own_module_org.permission);
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._own_module_org(text) IS
'The identity''s own organization, which must permit what is asked (NULL: no permission is asked for). Errors: PT401 not_authenticated, no_organization; PT403 permission_denied.';

CREATE FUNCTION tenancy._named_module_org(
    named text,
    OUT tenant_id text,
    OUT namespace text,
    OUT org_id text
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts record;
    candidate text;
BEGIN
    -- NULL would be every organization: never where the transaction was somebody's a moment ago.
    IF tenancy._identity_ended() THEN
        PERFORM tenancy._raise('PT401', 'identity_ended', 'The identity of this transaction has ended',
            'Begin a new transaction; authenticate in it, or use it without an identity.');
    END IF;
    IF _named_module_org.named IS NULL THEN
        RETURN;
    END IF;
    PERFORM tenancy._require_id(_named_module_org.named, 'org_id', minted => true);
    -- As authenticate finds the tenant of a token that names this organization and no tenant.
    _named_module_org.namespace := tenancy._namespace();
    candidate := tenancy._tenant_name(_named_module_org.namespace, _named_module_org.named);
    SELECT * INTO facts
      FROM tenancy._resolve_directory(_named_module_org.namespace, NULL, _named_module_org.named, candidate);
    IF facts.org_tenant_id IS NULL AND facts.candidate_registered THEN
        PERFORM tenancy._raise('PT403', 'tenant_taken',
            'A tenant with this organization''s id is registered, and it is not this organization''s',
            'Register the organization: SELECT tenancy.register_organization(org_id => …, name => …, tenant_id => …);',
            jsonb_build_object('org_id', _named_module_org.named));
    END IF;
    _named_module_org.tenant_id := coalesce(facts.org_tenant_id, candidate);
    _named_module_org.org_id := _named_module_org.named;
END
$$;

COMMENT ON FUNCTION tenancy._named_module_org(text) IS
'The organization the service role names without an identity, and its tenant; all NULL for NULL, which means every organization. Errors: PT401 identity_ended, PT403 tenant_taken, 22023.';

CREATE FUNCTION tenancy._module_scope(
    named text,
    permission text,
    for_service boolean,
    OUT tenant_id text,
    OUT namespace text,
    OUT org_id text
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
BEGIN
    IF tenancy.user_id() IS NULL AND _module_scope.for_service THEN
        own := tenancy._named_module_org(_module_scope.named);
    ELSE
        own := tenancy._own_module_org(_module_scope.permission);
        IF _module_scope.named <> own.org_id THEN
            PERFORM tenancy._raise('PT403', 'other_organization', 'The identity belongs to another organization',
                'Leave org_id out, or sign in for that organization.', jsonb_build_object('parameter', 'org_id'));
        END IF;
    END IF;
    _module_scope.tenant_id := own.tenant_id;
    _module_scope.namespace := own.namespace;
    _module_scope.org_id := own.org_id;
END
$$;

COMMENT ON FUNCTION tenancy._module_scope(text, text, boolean) IS
'Whose modules a call means: the identity''s organization, which permission is asked of; without an identity, and for the service role only, the one it names, or all of them (all NULL). Errors: PT401 not_authenticated, no_organization, identity_ended; PT403 permission_denied, other_organization, tenant_taken; 22023.';

CREATE FUNCTION tenancy._require_module_id(module_id text) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_id(_require_module_id.module_id, 'module_id');
    IF _require_module_id.module_id !~ '^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'module_id must be category/platform',
            'Each part begins with a letter or digit and holds letters, digits, ".", "_" and "-", as in weather/open-meteo.',
            jsonb_build_object('parameter', 'module_id'));
    END IF;
    RETURN _require_module_id.module_id;
END
$$;

COMMENT ON FUNCTION tenancy._require_module_id(text) IS
'Returns module_id if it is category/platform, at most 255 characters. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy._require_module_status(status text) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._require_one_of(_require_module_status.status, 'status',
        ARRAY['pending', 'validating', 'validated', 'approved', 'installed', 'disabled', 'failed', 'uninstalled']);
END
$$;

COMMENT ON FUNCTION tenancy._require_module_status(text) IS
'Returns status if it is one of contract G''s. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy._require_object(value jsonb, parameter text, max_bytes integer) RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(_require_object.value) IS DISTINCT FROM 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('%s must be a JSON object', _require_object.parameter),
            'Pass an object: {"name": value, …}.', jsonb_build_object('parameter', _require_object.parameter));
    END IF;
    IF octet_length(_require_object.value::text) > _require_object.max_bytes THEN
        PERFORM tenancy._raise('54000', 'too_large',
            format('%s must have at most %s bytes as text', _require_object.parameter, _require_object.max_bytes),
            'Keep large values elsewhere and store a reference to them.',
            jsonb_build_object('parameter', _require_object.parameter, 'max_bytes', _require_object.max_bytes));
    END IF;
    RETURN _require_object.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_object(jsonb, text, integer) IS
'Returns value if it is a JSON object of at most max_bytes as text. Errors: 22023 invalid_argument, 54000 too_large.';
COMMENT ON FUNCTION tenancy._log_line(text) IS
'Writes a line to the server''s log alone; it stays there whatever becomes of the transaction.';
