-- Health: the server's version and settings, and the roles that were granted access.

CREATE FUNCTION tenancy._health_server()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    server_major integer := current_setting('server_version_num')::integer / 10000;
    support_ends date;
    logs_parameters boolean;
BEGIN
    RETURN QUERY SELECT 'server_version'::text, 'error'::text, a.finding, a.remedy FROM tenancy._audit_server() AS a;
    IF NOT FOUND THEN
        -- https://www.postgresql.org/support/versioning/
        SELECT v.ends INTO support_ends
          FROM (VALUES (14, date '2026-11-12'), (15, '2027-11-11'), (16, '2028-11-09'), (17, '2029-11-08'), (18, '2030-11-14')) AS v (major, ends)
         WHERE v.major = server_major;
        RETURN QUERY SELECT 'server_version'::text, CASE WHEN support_ends < now() THEN 'warning' ELSE 'ok' END,
                            format('PostgreSQL %s, supported until %s', current_setting('server_version'), coalesce(support_ends::text, 'a date this version does not know')),
                            CASE WHEN support_ends < now() THEN 'Upgrade to a supported major version.' END;
    END IF;

    RETURN QUERY
    SELECT 'durability'::text, s.status, s.detail, s.remedy
      FROM (VALUES
            ('fsync', 'off', 'error', 'fsync is off: a crash of the machine can corrupt the ledger', 'ALTER SYSTEM SET fsync = on;'),
            ('full_page_writes', 'off', 'error', 'full_page_writes is off: a crash of the machine can corrupt the ledger', 'ALTER SYSTEM SET full_page_writes = on;'),
            ('synchronous_commit', 'off', 'warning', 'synchronous_commit is off: a crash can lose charges that were answered', 'ALTER SYSTEM SET synchronous_commit = on;')
           ) AS s (name, bad, status, detail, remedy)
     WHERE current_setting(s.name) = s.bad;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'durability'::text, 'ok'::text, 'what was answered survives a crash'::text, NULL::text;
    END IF;

    logs_parameters := current_setting('log_parameter_max_length') <> '0'
        AND (current_setting('log_statement') = 'all' OR current_setting('log_min_duration_statement') <> '-1'
             OR current_setting('log_min_duration_sample') <> '-1')
        OR current_setting('log_parameter_max_length_on_error') <> '0';
    RETURN QUERY SELECT 'tokens_in_log'::text, CASE WHEN logs_parameters THEN 'warning' ELSE 'ok' END,
                        CASE WHEN logs_parameters THEN 'the log shows the bound parameters of statements, tokens among them'
                             ELSE 'bound parameters are not logged' END,
                        CASE WHEN logs_parameters
                             THEN 'ALTER SYSTEM SET log_parameter_max_length = 0; ALTER SYSTEM SET log_parameter_max_length_on_error = 0;' END;

    RETURN QUERY SELECT 'log_identity'::text, CASE WHEN l.shown AND l.terse THEN 'warning' ELSE 'ok' END,
                        CASE WHEN NOT l.shown THEN 'off by tenancy.log_identity'
                             WHEN l.terse THEN 'log_error_verbosity is terse: a text log does not show whose a line is'
                             ELSE 'lines of the log say whose they are' END,
                        CASE WHEN l.shown AND l.terse THEN 'ALTER SYSTEM SET log_error_verbosity = default;' END
                   FROM (SELECT current_setting('tenancy.log_identity')::boolean AS shown,
                                current_setting('log_error_verbosity') = 'terse' AS terse) AS l;
END
$$;

COMMENT ON FUNCTION tenancy._health_server() IS
'Checks "server_version" (an error for a published hole in row-level security, a warning past the end of support), "durability" (fsync, full_page_writes, synchronous_commit), "tokens_in_log" (parameters that are logged) and "log_identity" (terse text logs leave it out).';

CREATE FUNCTION tenancy._health_roles()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF to_regclass('tenancy.access_grants') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH granted AS (
        SELECT g.role_name, g.access, r.oid FROM tenancy.access_grants AS g JOIN pg_roles AS r ON r.rolname = g.role_name
    )
    SELECT DISTINCT 'roles'::text, 'error'::text,
           format('role "%s" has %s access and can become "%s", whom no policy binds', g.role_name, g.access, b.rolname),
           format('REVOKE %I FROM %I;', b.rolname, g.role_name)
      FROM granted AS g
      JOIN pg_roles AS b ON b.oid <> g.oid AND (b.rolsuper OR b.rolbypassrls) AND pg_has_role(g.oid, b.oid, 'MEMBER')
     WHERE g.access = 'application' AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = g.oid)
    UNION ALL
    SELECT DISTINCT 'roles', 'warning',
           format('role "%s" has application access and also %s access%s: whoever gets at its connection can act for anybody',
                  g.role_name, o.access, CASE WHEN o.oid <> g.oid THEN format(' through "%s"', o.role_name) ELSE '' END),
           CASE WHEN o.oid = g.oid THEN format('SELECT tenancy.revoke_access(%L, %L);', g.role_name, o.access)
                ELSE format('REVOKE %I FROM %I;', o.role_name, g.role_name) END
      FROM granted AS g
      JOIN granted AS o ON o.access IN ('service', 'operator') AND pg_has_role(g.oid, o.oid, 'MEMBER')
     WHERE g.access = 'application' AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = g.oid)
    ORDER BY 2, 3;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'roles'::text, 'ok'::text,
                            format('%s roles with access, none with more rights than it needs', count(DISTINCT g.role_name)), NULL::text
                       FROM tenancy.access_grants AS g;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._health_roles() IS
'Check "roles": application roles that can become a superuser or a role with BYPASSRLS (error), or that also have service or operator access (warning).';

CREATE FUNCTION tenancy._health_isolation()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF to_regclass('tenancy.isolation_exemptions') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT 'isolation'::text, CASE WHEN count(*) > 0 THEN 'error' ELSE 'ok' END,
                        CASE WHEN count(*) > 0
                             THEN format('%s findings of severity error, the first: %s, %s', count(*), (array_agg(f.object))[1], (array_agg(f.finding))[1])
                             ELSE 'no finding of severity error' END,
                        CASE WHEN count(*) > 0 THEN 'SELECT * FROM tenancy.audit_isolation();' END
                   FROM tenancy._audit_findings() AS f
                  WHERE f.waived_because IS NULL AND f.severity = 'error' AND f.rule <> 'server_version';
END
$$;

COMMENT ON FUNCTION tenancy._health_isolation() IS
'Check "isolation": findings of severity error in audit_isolation() that no exemption waives.';
