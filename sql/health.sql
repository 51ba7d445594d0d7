-- Health: one row a check. A check is a function named _health_<what> without arguments that returns the same four
-- columns; health() calls them all, in the order of their names.

CREATE FUNCTION tenancy._health_schema()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    code integer;
    tables integer;
BEGIN
    _health_schema.check_name := 'schema';
    SELECT max(m.number) INTO code FROM tenancy._migrations() AS m;
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        RETURN QUERY SELECT _health_schema.check_name, 'error'::text, 'the tables are not installed'::text,
                            'SELECT tenancy.install();'::text;
        RETURN;
    END IF;
    SELECT max(s.number) INTO tables FROM tenancy.schema_migrations AS s;
    IF tables < code THEN
        RETURN QUERY SELECT _health_schema.check_name, 'error'::text,
                            format('tables at migration %s, code expects %s', tables, code), 'SELECT tenancy.migrate();'::text;
    ELSIF tables > code THEN
        RETURN QUERY SELECT _health_schema.check_name, 'error'::text,
                            format('tables at migration %s, code knows %s', tables, code),
                            'Install the newer package, then ALTER EXTENSION pg_tenancy UPDATE;'::text;
    ELSIF EXISTS (SELECT FROM tenancy.schema_migrations AS s
                    JOIN tenancy._migrations() AS m ON m.number = s.number
                   WHERE m.sha256 <> s.sha256) THEN
        RETURN QUERY SELECT _health_schema.check_name, 'error'::text, 'a migration of the code is not the one that ran here'::text,
                            'Install a package whose released migrations are unchanged.'::text;
    ELSE
        RETURN QUERY SELECT _health_schema.check_name, 'ok'::text, format('migration %s, version %s', tables, tenancy._library_version()),
                            NULL::text;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._health_schema() IS 'Check "schema": are the tables those this code expects?';

CREATE FUNCTION tenancy._health_access()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    bare text;
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        RETURN;
    END IF;
    -- DROP EXTENSION … CASCADE takes the policies and leaves the rows.
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname) INTO bare
      FROM tenancy.schema_migrations AS s, unnest(s.relations) AS made
      JOIN pg_class AS c ON c.relnamespace = 'tenancy'::regnamespace AND c.relname = made
     WHERE c.relkind IN ('r', 'p')
       AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity
            OR NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid));
    RETURN QUERY SELECT 'row_security'::text,
                        CASE WHEN bare IS NULL THEN 'ok' ELSE 'error' END,
                        coalesce('without forced row-level security or without a policy: ' || bare,
                                 'enabled and forced on every table'),
                        CASE WHEN bare IS NOT NULL THEN 'Restore the policies, for example from a dump.' END;
    RETURN QUERY SELECT 'access_roles'::text, 'warning'::text,
                        format('role "%s" is to have %s access but does not exist', g.role_name, g.access),
                        'Create the role and SELECT tenancy.grant_access(…); or, if it was renamed, SELECT tenancy.grant_access(…) for the new name and delete the row.'::text
                   FROM tenancy.access_grants AS g
                  WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = g.role_name);
    RETURN QUERY SELECT 'access_roles'::text, 'warning'::text,
                        format('role "%s" is to have %s access and does not hold it', g.role_name, g.access),
                        'SELECT tenancy.grant_access(…); or, if it is another role of the same name, SELECT tenancy.revoke_access(…).'::text
                   FROM tenancy.access_grants AS g
                   JOIN pg_roles AS r ON r.rolname = g.role_name
                  WHERE NOT tenancy._holds_access(r.oid, g.access);
    RETURN QUERY SELECT 'access_roles'::text, 'error'::text,
                        format('role "%s" has %s access and bypasses row-level security', g.role_name, g.access),
                        format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', g.role_name)
                   FROM tenancy.access_grants AS g
                   JOIN pg_roles AS r ON r.rolname = g.role_name
                  WHERE g.access = 'application' AND (r.rolsuper OR r.rolbypassrls);
    -- Tables with a floor for everybody (batches) bind an owner that is neither: its functions would find no rows.
    RETURN QUERY SELECT 'owner'::text, 'error'::text,
                        format('role "%s" owns tenancy.batches and is bound by its policies', r.rolname),
                        format('ALTER ROLE %I BYPASSRLS;', r.rolname)
                   FROM pg_class AS c
                   JOIN pg_roles AS r ON r.oid = c.relowner
                  WHERE c.oid = to_regclass('tenancy.batches') AND NOT (r.rolsuper OR r.rolbypassrls);
END
$$;

COMMENT ON FUNCTION tenancy._health_access() IS
'Checks "row_security" (every table enabled, forced, with a policy), "access_roles" (the roles of access_grants exist, hold what they are to have and are bound by policies) and "owner" (only where it is bound itself).';

CREATE FUNCTION tenancy._health_preload()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    -- Not the setting: only superusers may read it, and an owner may be none.
    loaded boolean := EXISTS (SELECT FROM tenancy._shared_metrics());
BEGIN
    RETURN QUERY SELECT 'preload'::text,
                        CASE WHEN loaded THEN 'ok' ELSE 'warning' END,
                        CASE WHEN loaded THEN 'in shared_preload_libraries'
                             ELSE 'not in shared_preload_libraries: what needs shared memory is off, all else works' END,
                        CASE WHEN NOT loaded
                             THEN 'Add pg_tenancy to shared_preload_libraries and restart the server.' END;
END
$$;

COMMENT ON FUNCTION tenancy._health_preload() IS 'Check "preload": is the library in shared_preload_libraries?';

CREATE FUNCTION tenancy._health_master_key()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    message text;
    hint text;
BEGIN
    -- Sealing is what tries the file: readable, closed to others, a key.
    PERFORM tenancy._seal('\x00', 'health');
    RETURN QUERY SELECT 'master_key'::text, 'ok'::text, 'the file is readable, closed to others and holds a key'::text, NULL::text;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN QUERY SELECT 'master_key'::text,
                        CASE WHEN message LIKE '%is not set' THEN 'warning' ELSE 'error' END,
                        message, hint;
END
$$;

COMMENT ON FUNCTION tenancy._health_master_key() IS
'Check "master_key": can secrets be sealed? A warning where tenancy.master_key_file is not set, an error where its file is of no use.';

CREATE FUNCTION tenancy.health()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    check_function record;
BEGIN
    FOR check_function IN
        SELECT p.oid::regprocedure AS signature, substr(p.proname, length('_health_') + 1) AS name
          FROM pg_proc AS p
         WHERE p.pronamespace = 'tenancy'::regnamespace
           AND p.proname LIKE '\_health\_%' AND p.pronargs = 0
         ORDER BY p.proname
    LOOP
        BEGIN
            RETURN QUERY EXECUTE format('SELECT h.check_name, h.status, h.detail, h.remedy FROM %s AS h', check_function.signature);
        EXCEPTION WHEN undefined_table OR undefined_column THEN
            -- Tables that are not there, or not as this code expects: the check "schema" says what to do about it.
            RETURN QUERY SELECT check_function.name, 'error'::text, 'could not be looked at: ' || SQLERRM, 'See the check "schema".'::text;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tenancy.health() IS
'What is misconfigured or waits for somebody. One row a finding: check_name, status (ok, warning or error), detail, and remedy: what to run or change, NULL where all is well; a check without a finding says ok. Answers also where nothing is installed. docs/reference/health.md lists the checks.';
