-- Credentials of modules: sealed, bound to their place, opened for their own organization only.
-- No function takes an organization: it is the identity's, and a service acts for one with act_as, which is audited.

CREATE FUNCTION tenancy._credential_context(tenant_id text, namespace text, org_id text, module_id text) RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'module_credentials ' || jsonb_build_array(
        _credential_context.tenant_id, _credential_context.namespace, _credential_context.org_id,
        _credential_context.module_id)::text
$$;

COMMENT ON FUNCTION tenancy._credential_context(text, text, text, text) IS
'What a credential is bound to as associated data, so that a row copied to another tenant, organization or module does not open.';

CREATE FUNCTION tenancy._audit_credential(action text, org_id text, module_id text, existed boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO tenancy.audit_log AS a (tenant_id, action, user_id, org_id, namespace, correlation_id, detail)
    VALUES (tenancy.tenant_id(), _audit_credential.action, tenancy.user_id(), _audit_credential.org_id,
            tenancy.identity_namespace(), tenancy.correlation_id(),
            jsonb_build_object('module_id', _audit_credential.module_id, 'found', _audit_credential.existed));
    RETURN tenancy._log_line('pg_tenancy: ' || _audit_credential.action || ' ' || jsonb_build_object(
        'tenant_id', tenancy.tenant_id(), 'org_id', _audit_credential.org_id, 'user_id', tenancy.user_id(),
        'module_id', _audit_credential.module_id, 'found', _audit_credential.existed, 'login', session_user,
        'correlation_id', tenancy.correlation_id())::text);
END
$$;

COMMENT ON FUNCTION tenancy._audit_credential(text, text, text, boolean) IS
'Records what was done with a credential: in tenancy.audit_log, and in the server''s log, where a rollback does not take it away.';

CREATE FUNCTION tenancy.store_credential(module_id text, secret jsonb) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
    sealed bytea;
    outcome text := 'stored';
BEGIN
    PERFORM tenancy._require_installed();
    own := tenancy._own_module_org('manage_modules');
    PERFORM tenancy._require_module_id(store_credential.module_id);
    PERFORM tenancy._require_object(store_credential.secret, 'secret', 65536);
    sealed := tenancy._seal(
        convert_to(store_credential.secret::text, 'UTF8'),
        tenancy._credential_context(own.tenant_id, own.namespace, own.org_id, store_credential.module_id));
    LOOP
        INSERT INTO tenancy.module_credentials AS c (tenant_id, namespace, org_id, module_id, sealed_secret)
        VALUES (own.tenant_id, own.namespace, own.org_id, store_credential.module_id, sealed)
        ON CONFLICT ON CONSTRAINT module_credentials_pkey DO NOTHING;
        EXIT WHEN FOUND;
        outcome := 'replaced';
        UPDATE tenancy.module_credentials AS c
           SET sealed_secret = sealed, updated_at = now()
         WHERE c.tenant_id = own.tenant_id
           AND c.namespace = own.namespace
           AND c.org_id = own.org_id
           AND c.module_id = store_credential.module_id;
        EXIT WHEN FOUND;
        -- Deleted by another session between the two statements.
        outcome := 'stored';
    END LOOP;
    PERFORM tenancy._audit_credential('store_credential', own.org_id, store_credential.module_id, outcome = 'replaced');
    RETURN outcome;
END
$$;

COMMENT ON FUNCTION tenancy.store_credential(text, jsonb) IS
'Seals a module''s credential under the master key for the identity''s organization, or replaces it (created_at stays), and returns stored or replaced. secret: a JSON object of at most 64 KiB; pass it as a parameter, so that it stands in no statement that is logged. The module need not be installed. Needs manage_modules; audited. Errors: PT401 not_authenticated, no_organization; PT403 permission_denied; 22023; 54000 too_large; 55000 master_key_missing and its kin.';

CREATE FUNCTION tenancy.retrieve_credential(module_id text) RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
    sealed bytea;
BEGIN
    PERFORM tenancy._require_installed();
    own := tenancy._own_module_org('manage_modules');
    PERFORM tenancy._require_module_id(retrieve_credential.module_id);
    SELECT c.sealed_secret INTO sealed
      FROM tenancy.module_credentials AS c
     WHERE c.tenant_id = own.tenant_id
       AND c.namespace = own.namespace
       AND c.org_id = own.org_id
       AND c.module_id = retrieve_credential.module_id;
    -- Before it is opened: what cannot be recorded is not handed out.
    PERFORM tenancy._audit_credential('retrieve_credential', own.org_id, retrieve_credential.module_id, sealed IS NOT NULL);
    IF sealed IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN convert_from(
        tenancy._unseal(sealed, tenancy._credential_context(own.tenant_id, own.namespace, own.org_id,
                                                            retrieve_credential.module_id)),
        'UTF8')::jsonb;
END
$$;

COMMENT ON FUNCTION tenancy.retrieve_credential(text) IS
'Opens a module''s credential of the identity''s own organization; NULL where there is none. Needs manage_modules. Each retrieval is recorded in tenancy.audit_log, and in the server''s log even if the transaction is rolled back; a read-only transaction is refused (25006). Errors: PT401 not_authenticated, no_organization; PT403 permission_denied; 22023; 55000 wrong_key (sealed under a master key that is not in the file), corrupt (damaged, or moved from another organization or module), master_key_missing and its kin.';

CREATE FUNCTION tenancy.delete_credential(module_id text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
    deleted boolean;
BEGIN
    PERFORM tenancy._require_installed();
    own := tenancy._own_module_org('manage_modules');
    PERFORM tenancy._require_module_id(delete_credential.module_id);
    DELETE FROM tenancy.module_credentials AS c
     WHERE c.tenant_id = own.tenant_id
       AND c.namespace = own.namespace
       AND c.org_id = own.org_id
       AND c.module_id = delete_credential.module_id;
    deleted := FOUND;
    PERFORM tenancy._audit_credential('delete_credential', own.org_id, delete_credential.module_id, deleted);
    RETURN deleted;
END
$$;

COMMENT ON FUNCTION tenancy.delete_credential(text) IS
'Removes a module''s credential of the identity''s organization and returns whether there was one. Needs manage_modules; audited. Errors: PT401 not_authenticated, no_organization; PT403 permission_denied; 22023; 55000.';

CREATE FUNCTION tenancy.has_credential(module_id text) RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
BEGIN
    PERFORM tenancy._require_installed();
    own := tenancy._own_module_org('read_config');
    PERFORM tenancy._require_module_id(has_credential.module_id);
    RETURN EXISTS (
        SELECT FROM tenancy.module_credentials AS c
         WHERE c.tenant_id = own.tenant_id
           AND c.namespace = own.namespace
           AND c.org_id = own.org_id
           AND c.module_id = has_credential.module_id);
END
$$;

COMMENT ON FUNCTION tenancy.has_credential(text) IS
'Whether the identity''s organization has a credential for a module. Needs read_config. Errors: PT401 not_authenticated, no_organization; PT403 permission_denied; 22023; 55000.';

CREATE FUNCTION tenancy.list_credentials(
    OUT module_id text,
    OUT created_at timestamptz,
    OUT updated_at timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own record;
BEGIN
    PERFORM tenancy._require_installed();
    own := tenancy._own_module_org('read_config');
    RETURN QUERY
    SELECT c.module_id, c.created_at, c.updated_at
      FROM tenancy.module_credentials AS c
     WHERE c.tenant_id = own.tenant_id
       AND c.namespace = own.namespace
       AND c.org_id = own.org_id
     ORDER BY c.module_id;
END
$$;

COMMENT ON FUNCTION tenancy.list_credentials() IS
'The modules the identity''s organization has credentials for, never the credentials. Needs read_config. Errors: PT401 not_authenticated, no_organization; PT403 permission_denied; 55000.';

CREATE FUNCTION tenancy._reseal_agents() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    resealed bigint;
BEGIN
    UPDATE tenancy.module_credentials AS c
       SET sealed_secret = tenancy._seal(
               tenancy._unseal(c.sealed_secret,
                               tenancy._credential_context(c.tenant_id, c.namespace, c.org_id, c.module_id)),
               tenancy._credential_context(c.tenant_id, c.namespace, c.org_id, c.module_id))
     WHERE NOT tenancy._sealed_under_current_key(c.sealed_secret);
    GET DIAGNOSTICS resealed = ROW_COUNT;
    RETURN resealed;
END
$$;

COMMENT ON FUNCTION tenancy._reseal_agents() IS
'Seals the modules'' credentials under the current master key; gives the number of rows that were under another. Called by rotate_master_key().';
