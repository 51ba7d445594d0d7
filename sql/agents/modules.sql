-- Modules: the registry of contract G, one set for each organization.
--
-- The functions people call run with the caller's own rights, so that Postgres itself says whether the caller is the
-- service role: only that may call _modules_as_service. Everybody else comes through _modules_as_identity.

CREATE FUNCTION tenancy._install_module(
    tenant_id text,
    namespace text,
    org_id text,
    module_id text,
    manifest jsonb
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_category text := split_part(_install_module.module_id, '/', 1);
    own_platform text := split_part(_install_module.module_id, '/', 2);
    own_name text;
    field text;
BEGIN
    PERFORM tenancy._require_object(_install_module.manifest, 'manifest', 65536);
    FOREACH field IN ARRAY ARRAY['module_id', 'category', 'platform', 'name'] LOOP
        IF _install_module.manifest -> field <> 'null' AND jsonb_typeof(_install_module.manifest -> field) <> 'string' THEN
            PERFORM tenancy._raise('22023', 'invalid_manifest', format('The manifest''s %s must be a string', field),
                'Correct the manifest.', jsonb_build_object('parameter', 'manifest', 'field', field));
        END IF;
    END LOOP;
    IF coalesce(_install_module.manifest ->> 'module_id', _install_module.module_id) <> _install_module.module_id
       OR coalesce(_install_module.manifest ->> 'category', own_category) <> own_category
       OR coalesce(_install_module.manifest ->> 'platform', own_platform) <> own_platform
    THEN
        PERFORM tenancy._raise('22023', 'invalid_manifest', 'The manifest is of another module',
            'Pass the module_id that the manifest''s category and platform make.',
            jsonb_build_object('parameter', 'manifest', 'module_id', _install_module.module_id));
    END IF;
    own_name := coalesce(tenancy._require_text(_install_module.manifest ->> 'name', 'name', 255), own_platform);

    IF _install_module.org_id IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'org_id must not be NULL: a module is installed for one organization',
            'Name the organization.', jsonb_build_object('parameter', 'org_id'));
    END IF;
    LOOP
        INSERT INTO tenancy.modules AS m (tenant_id, namespace, org_id, module_id, name, category, platform, status, manifest)
        VALUES (_install_module.tenant_id, _install_module.namespace, _install_module.org_id, _install_module.module_id,
                own_name, own_category, own_platform, 'installed', _install_module.manifest)
        ON CONFLICT ON CONSTRAINT modules_pkey DO NOTHING;
        IF FOUND THEN
            RETURN 'installed';
        END IF;
        UPDATE tenancy.modules AS m
           SET name = own_name, manifest = _install_module.manifest, status = 'installed', updated_at = now()
         WHERE m.tenant_id = _install_module.tenant_id
           AND m.namespace = _install_module.namespace
           AND m.org_id = _install_module.org_id
           AND m.module_id = _install_module.module_id;
        IF FOUND THEN
            RETURN 'updated';
        END IF;
        -- Uninstalled by another session between the two statements.
    END LOOP;
END
$$;

COMMENT ON FUNCTION tenancy._install_module(text, text, text, text, jsonb) IS
'Installs a module for one organization, or updates it and keeps counters, health and installed_at. Returns installed or updated. Errors: 22023 invalid_argument, invalid_manifest; 54000 too_large.';

CREATE FUNCTION tenancy._change_modules(
    command text,
    tenant_id text,
    namespace text,
    org_id text,
    module_id text,
    status text
) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    IF _change_modules.command = 'uninstall' THEN
        DELETE FROM tenancy.modules AS m
         WHERE m.module_id = _change_modules.module_id
           AND (_change_modules.org_id IS NULL
                OR (m.tenant_id = _change_modules.tenant_id
                    AND m.namespace = _change_modules.namespace
                    AND m.org_id = _change_modules.org_id));
    ELSE
        UPDATE tenancy.modules AS m
           SET status = _change_modules.status, updated_at = now()
         WHERE m.module_id = _change_modules.module_id
           AND (_change_modules.org_id IS NULL
                OR (m.tenant_id = _change_modules.tenant_id
                    AND m.namespace = _change_modules.namespace
                    AND m.org_id = _change_modules.org_id));
    END IF;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

COMMENT ON FUNCTION tenancy._change_modules(text, text, text, text, text, text) IS
'Removes a module (command uninstall) or sets its status, in one organization or, with org_id NULL, in every one. Returns how many rows that were.';

CREATE FUNCTION tenancy._find_modules(
    tenant_id text,
    namespace text,
    org_id text,
    module_id text,
    status text
) RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT m.tenant_id, m.org_id, m.module_id, m.name, m.category, m.platform, m.status, m.health_status, m.manifest,
           m.installed_at, m.updated_at, m.failure_count, m.success_count, m.last_used
      FROM tenancy.modules AS m
     WHERE (_find_modules.org_id IS NULL
            OR (m.tenant_id = _find_modules.tenant_id
                AND m.namespace = _find_modules.namespace
                AND m.org_id = _find_modules.org_id))
       AND (_find_modules.module_id IS NULL OR m.module_id = _find_modules.module_id)
       AND (_find_modules.status IS NULL OR m.status = _find_modules.status)
     ORDER BY m.category, m.name, m.module_id, m.tenant_id, m.namespace, m.org_id;
END
$$;

COMMENT ON FUNCTION tenancy._find_modules(text, text, text, text, text) IS
'Modules of one organization or, with org_id NULL, of every one, by category and name; module_id and status narrow it.';

CREATE FUNCTION tenancy._run_module_command(
    command text,
    module_id text,
    org_id text,
    manifest jsonb,
    status text,
    for_service boolean
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scope record;
BEGIN
    PERFORM tenancy._require_installed();
    scope := tenancy._module_scope(_run_module_command.org_id, 'manage_modules', _run_module_command.for_service);
    PERFORM tenancy._require_module_id(_run_module_command.module_id);
    IF _run_module_command.command = 'set_status' THEN
        PERFORM tenancy._require_module_status(_run_module_command.status);
    END IF;
    IF _run_module_command.command = 'install' THEN
        RETURN tenancy._install_module(scope.tenant_id, scope.namespace, scope.org_id,
                                            _run_module_command.module_id, _run_module_command.manifest);
    ELSE
        RETURN tenancy._change_modules(_run_module_command.command, scope.tenant_id, scope.namespace, scope.org_id,
                                            _run_module_command.module_id, _run_module_command.status)::text;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._run_module_command(text, text, text, jsonb, text, boolean) IS
'Installs, uninstalls or sets the status of a module in the organization that the call means (_module_scope).';

CREATE FUNCTION tenancy._module_command_as_identity(command text, module_id text, org_id text, manifest jsonb, status text)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Only what members of an organization may do: the other statuses are the build pipeline's.
    PERFORM tenancy._require_one_of(_module_command_as_identity.command, 'command', ARRAY['install', 'uninstall', 'set_status']);
    IF _module_command_as_identity.command = 'set_status' THEN
        PERFORM tenancy._require_one_of(_module_command_as_identity.status, 'status', ARRAY['installed', 'disabled']);
    END IF;
    RETURN tenancy._run_module_command(
        _module_command_as_identity.command, _module_command_as_identity.module_id, _module_command_as_identity.org_id,
        _module_command_as_identity.manifest, _module_command_as_identity.status, for_service => false);
END
$$;

COMMENT ON FUNCTION tenancy._module_command_as_identity(text, text, text, jsonb, text) IS
'What install_module and its kin do for the identity''s own organization.';

CREATE FUNCTION tenancy._module_command_as_service(command text, module_id text, org_id text, manifest jsonb, status text)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._run_module_command(
        _module_command_as_service.command, _module_command_as_service.module_id, _module_command_as_service.org_id,
        _module_command_as_service.manifest, _module_command_as_service.status, for_service => true);
END
$$;

COMMENT ON FUNCTION tenancy._module_command_as_service(text, text, text, jsonb, text) IS
'What install_module and its kin do for the service role: without an identity it may name an organization, and NULL is every one.';

CREATE FUNCTION tenancy._module_command(command text, module_id text, org_id text, manifest jsonb, status text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_function_privilege('tenancy._module_command_as_service(text,text,text,jsonb,text)', 'EXECUTE') THEN
        RETURN tenancy._module_command_as_service(_module_command.command, _module_command.module_id,
            _module_command.org_id, _module_command.manifest, _module_command.status);
    END IF;
    RETURN tenancy._module_command_as_identity(_module_command.command, _module_command.module_id,
        _module_command.org_id, _module_command.manifest, _module_command.status);
END
$$;

COMMENT ON FUNCTION tenancy._module_command(text, text, text, jsonb, text) IS
'Chooses by the caller''s own privileges between _module_command_as_service and _module_command_as_identity.';

CREATE FUNCTION tenancy._read_modules(command text, module_id text, org_id text, status text, for_service boolean)
RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scope record;
BEGIN
    PERFORM tenancy._require_installed();
    scope := tenancy._module_scope(_read_modules.org_id, 'read_config', _read_modules.for_service);
    IF _read_modules.command = 'get' THEN
        PERFORM tenancy._require_module_id(_read_modules.module_id);
    END IF;
    IF _read_modules.status IS NOT NULL THEN
        PERFORM tenancy._require_module_status(_read_modules.status);
    END IF;
    RETURN QUERY SELECT * FROM tenancy._find_modules(scope.tenant_id, scope.namespace, scope.org_id,
                                                     _read_modules.module_id, _read_modules.status);
END
$$;

COMMENT ON FUNCTION tenancy._read_modules(text, text, text, text, boolean) IS
'Lists the modules of the organization that the call means (_module_scope), or gets one of them (command get).';

CREATE FUNCTION tenancy._read_modules_as_identity(command text, module_id text, org_id text, status text)
RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM tenancy._read_modules(
        _read_modules_as_identity.command, _read_modules_as_identity.module_id, _read_modules_as_identity.org_id,
        _read_modules_as_identity.status, for_service => false);
END
$$;

COMMENT ON FUNCTION tenancy._read_modules_as_identity(text, text, text, text) IS
'What list_modules and get_module read for the identity''s own organization.';

CREATE FUNCTION tenancy._read_modules_as_service(command text, module_id text, org_id text, status text)
RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM tenancy._read_modules(
        _read_modules_as_service.command, _read_modules_as_service.module_id, _read_modules_as_service.org_id,
        _read_modules_as_service.status, for_service => true);
END
$$;

COMMENT ON FUNCTION tenancy._read_modules_as_service(text, text, text, text) IS
'What list_modules and get_module read for the service role: without an identity it may name an organization, and NULL is every one.';

CREATE FUNCTION tenancy._module_rows(command text, module_id text, org_id text, status text) RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_function_privilege('tenancy._read_modules_as_service(text,text,text,text)', 'EXECUTE') THEN
        RETURN QUERY SELECT * FROM tenancy._read_modules_as_service(
            _module_rows.command, _module_rows.module_id, _module_rows.org_id, _module_rows.status);
    ELSE
        RETURN QUERY SELECT * FROM tenancy._read_modules_as_identity(
            _module_rows.command, _module_rows.module_id, _module_rows.org_id, _module_rows.status);
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._module_rows(text, text, text, text) IS
'Chooses by the caller''s own privileges between _read_modules_as_service and _read_modules_as_identity.';
