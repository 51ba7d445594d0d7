-- The functions of the module registry that people call.

CREATE FUNCTION tenancy.install_module(module_id text, manifest jsonb, org_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._module_command('install', install_module.module_id, install_module.org_id, install_module.manifest, NULL);
END
$$;

COMMENT ON FUNCTION tenancy.install_module(text, jsonb, text) IS
'Installs a module for the identity''s organization, or updates it: counters, health and installed_at stay, another organization''s row is never touched. module_id: category/platform. manifest: a JSON object of at most 64 KiB, without secrets; its name, category and platform, where it has them, must fit. org_id: the identity''s own; the service role without an identity names one. Returns installed or updated. Needs manage_modules. Errors: PT401 not_authenticated, no_organization, identity_ended; PT403 permission_denied, other_organization, tenant_taken; 22023 invalid_argument, invalid_manifest; 54000 too_large; 55000.';

CREATE FUNCTION tenancy.list_modules(org_id text DEFAULT NULL, status text DEFAULT NULL) RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM tenancy._module_rows('list', NULL, list_modules.org_id, list_modules.status);
END
$$;

COMMENT ON FUNCTION tenancy.list_modules(text, text) IS
'The modules of the identity''s organization by category and name, those of one status if it is named. org_id: the identity''s own; for the service role without an identity one it names, or NULL for every organization. Needs read_config. Errors: PT401, PT403 and 22023 as install_module; 55000.';

CREATE FUNCTION tenancy.get_module(module_id text, org_id text DEFAULT NULL) RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM tenancy._module_rows('get', get_module.module_id, get_module.org_id, NULL);
END
$$;

COMMENT ON FUNCTION tenancy.get_module(text, text) IS
'One module of the identity''s organization; no row where it is not installed. org_id as in list_modules: for the service role NULL gives a row for each organization that has it. Needs read_config. Errors: PT401, PT403 and 22023 as install_module; 55000.';

CREATE FUNCTION tenancy.enable_module(module_id text, org_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._module_command('set_status', enable_module.module_id, enable_module.org_id, NULL, 'installed')::integer > 0;
END
$$;

COMMENT ON FUNCTION tenancy.enable_module(text, text) IS
'Sets a module''s status to installed and returns whether it is there. org_id as in list_modules. Needs manage_modules. Errors: PT401, PT403 and 22023 as install_module; 55000.';

CREATE FUNCTION tenancy.disable_module(module_id text, org_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._module_command('set_status', disable_module.module_id, disable_module.org_id, NULL, 'disabled')::integer > 0;
END
$$;

COMMENT ON FUNCTION tenancy.disable_module(text, text) IS
'Sets a module''s status to disabled and returns whether it is there. org_id as in list_modules. Needs manage_modules. Errors: PT401, PT403 and 22023 as install_module; 55000.';

CREATE FUNCTION tenancy.uninstall_module(module_id text, org_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._module_command('uninstall', uninstall_module.module_id, uninstall_module.org_id, NULL, NULL)::integer > 0;
END
$$;

COMMENT ON FUNCTION tenancy.uninstall_module(text, text) IS
'Removes a module with its counters and returns whether it was there; its credential stays until delete_credential. org_id as in list_modules. Needs manage_modules. Errors: PT401, PT403 and 22023 as install_module; 55000.';

CREATE FUNCTION tenancy.set_module_status(module_id text, status text, org_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._module_command_as_service('set_status', set_module_status.module_id, set_module_status.org_id, NULL,
                                              set_module_status.status)::integer > 0;
END
$$;

COMMENT ON FUNCTION tenancy.set_module_status(text, text, text) IS
'For the pipeline that builds and validates modules: sets any status of the contract (pending, validating, validated, approved, installed, disabled, failed, uninstalled) and returns whether the module is there. org_id as in list_modules. Errors as enable_module.';

CREATE FUNCTION tenancy.update_module_health(
    module_id text,
    health_status text,
    increment_failure boolean DEFAULT false,
    org_id text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scope record;
    changed integer;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_module_id(update_module_health.module_id);
    PERFORM tenancy._require_value(update_module_health.health_status, 'health_status');
    PERFORM tenancy._require_text(update_module_health.health_status, 'health_status', 64);
    scope := tenancy._module_scope(update_module_health.org_id, NULL, for_service => true);
    UPDATE tenancy.modules AS m
       SET health_status = update_module_health.health_status,
           failure_count = m.failure_count + CASE WHEN update_module_health.increment_failure THEN 1 ELSE 0 END,
           updated_at = now()
     WHERE m.module_id = update_module_health.module_id
       AND (scope.org_id IS NULL
            OR (m.tenant_id = scope.tenant_id AND m.namespace = scope.namespace AND m.org_id = scope.org_id));
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

COMMENT ON FUNCTION tenancy.update_module_health(text, text, boolean, text) IS
'Records a module''s health (at most 64 characters), with increment_failure also a failure, and returns in how many organizations. org_id: NULL is the identity''s organization, without an identity every one. For the service role. Errors: PT401 no_organization, identity_ended; PT403 other_organization, tenant_taken; 22023; 55000.';

CREATE FUNCTION tenancy.record_module_usage(module_id text, org_id text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scope record;
    changed integer;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_module_id(record_module_usage.module_id);
    scope := tenancy._module_scope(record_module_usage.org_id, NULL, for_service => true);
    UPDATE tenancy.modules AS m
       SET success_count = m.success_count + 1, last_used = now(), updated_at = now()
     WHERE m.module_id = record_module_usage.module_id
       AND (scope.org_id IS NULL
            OR (m.tenant_id = scope.tenant_id AND m.namespace = scope.namespace AND m.org_id = scope.org_id));
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

COMMENT ON FUNCTION tenancy.record_module_usage(text, text) IS
'Counts a successful use of a module and returns in how many organizations. org_id: NULL is the identity''s organization, without an identity every one. For the service role. Errors as update_module_health.';

CREATE FUNCTION tenancy.unhealthy_modules(threshold integer DEFAULT 5) RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT m.* FROM tenancy._find_modules(NULL, NULL, NULL, NULL, 'installed') AS m
                  WHERE m.failure_count >= coalesce(unhealthy_modules.threshold, 5);
END
$$;

COMMENT ON FUNCTION tenancy.unhealthy_modules(integer) IS
'Installed modules of every organization with at least threshold failures, by category and name. For the service role. Error: 55000.';

CREATE FUNCTION tenancy.installed_modules() RETURNS SETOF tenancy.module
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT * FROM tenancy._find_modules(NULL, NULL, NULL, NULL, 'installed');
END
$$;

COMMENT ON FUNCTION tenancy.installed_modules() IS
'Modules with status installed of every organization, by category and name. For the service role. Error: 55000.';
