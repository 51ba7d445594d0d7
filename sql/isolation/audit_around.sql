-- The audit, second part: what stands around the protected tables. Views, functions, roles, triggers, the server.

CREATE FUNCTION tenancy._audit_views(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE over(relation, base, operator_role) AS (
            SELECT t.relation::oid, t.shown, p.oid
              FROM tenancy._audited_tables() t LEFT JOIN pg_catalog.pg_roles p ON p.rolname = t.operator_role
            UNION
            SELECT w.ev_class, o.base, o.operator_role
              FROM over o
              JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation
              JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> o.relation
        ), views AS (
            SELECT c.oid, c.relkind, tenancy._relation_name(c.oid) AS shown, string_agg(o.base, ', ' ORDER BY o.base) AS bases,
                   r.rolname, r.rolsuper OR r.rolbypassrls AS unbound, coalesce(bool_or(pg_has_role(r.oid, o.operator_role, 'USAGE')), false) AS operates,
                   coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false) AS invoker
              FROM over o
              JOIN pg_catalog.pg_class c ON c.oid = o.relation AND c.relkind IN ('v', 'm')
              JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
             GROUP BY c.oid, r.rolname, r.rolsuper, r.rolbypassrls
        )
        SELECT CASE v.relkind WHEN 'm' THEN 'materialized_view' ELSE 'view_runs_as_owner' END,
               CASE WHEN v.relkind = 'v' AND (v.unbound OR v.operates) THEN 'error' END,
               v.shown,
               CASE WHEN v.relkind = 'm' THEN format('it holds rows of %s as its owner saw them', v.bases)
                    WHEN v.unbound THEN format('it reads %s as %I, whom no policy binds', v.bases, v.rolname)
                    WHEN v.operates THEN format('it reads %s as %I, whom the operator''s policy lets see all tenants', v.bases, v.rolname)
                    ELSE format('it reads %s as %I: policies are those of that role', v.bases, v.rolname) END,
               CASE WHEN v.relkind = 'm' THEN format('DROP MATERIALIZED VIEW %s;  -- or let nobody but its owner read it, and exempt it', v.shown)
                    ELSE format('ALTER VIEW %s SET (security_invoker = true);', v.shown) END
          FROM views v
         WHERE (v.relkind = 'm' OR NOT v.invoker) AND ($1 IS NULL OR v.oid = ANY ($1));
END;
$$;
COMMENT ON FUNCTION tenancy._audit_views(oid[]) IS
    'Internal: views over protected tables, also over other views, that run as their owner, and materialized views.';

CREATE FUNCTION tenancy._audit_functions()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
-- The planner takes its recursions for huge and would compile for seconds what runs for milliseconds.
SET jit = off
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE functions AS MATERIALIZED (
            SELECT p.*, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS shown,
                   p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
                   regexp_replace(translate(lower(p.prosrc), '"', ''), '--[^\n]*|/\*.*?\*/', ' ', 'g') AS body
              FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
        ), calls(caller, callee) AS MATERIALIZED (
            -- By name, whatever the schema: the word before a parenthesis.
            SELECT f.oid, g.oid
              FROM functions f
             CROSS JOIN LATERAL (SELECT DISTINCT w[1] AS word FROM regexp_matches(f.body, '(\w+)\s*\(', 'g') w) w
              JOIN functions g ON substring(lower(g.proname) FROM '\w+$') = w.word
             WHERE g.proname !~ '\W' OR f.body ~ format('\m%s\s*\(', regexp_replace(lower(g.proname), '\W', '.', 'g'))
            UNION
            SELECT d.objid, d.refobjid
              FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass
        ), blind AS MATERIALIZED (
            -- Whose statements see every tenant's rows of a table.
            SELECT t.relation::oid AS base, t.shown, o.oid AS role, o.rolname, o.rolsuper OR o.rolbypassrls AS unbound
              FROM tenancy._audited_tables() t
              LEFT JOIN pg_catalog.pg_roles p ON p.rolname = t.operator_role
              JOIN pg_catalog.pg_roles o ON o.rolsuper OR o.rolbypassrls OR pg_has_role(o.oid, p.oid, 'USAGE')
        ), over(relation, base) AS (
            -- The tables, and the views through which a blind reader stays blind.
            SELECT DISTINCT b.base, b.base FROM blind b
            UNION
            SELECT c.oid, o.base
              FROM over o
              JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation
              JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> o.relation
              JOIN pg_catalog.pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
             WHERE coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false)
                   OR EXISTS (SELECT FROM blind b WHERE b.base = o.base AND b.role = c.relowner)
        ), reaching(routine, base) AS (
            SELECT f.oid, o.base
              FROM over o
              JOIN pg_catalog.pg_class c ON c.oid = o.relation
              JOIN functions f ON NOT f.is_trigger AND (f.prosqlbody IS NOT NULL OR strpos(lower(f.prosrc), lower(c.relname::text)) > 0)
             WHERE tenancy._routine_names(f.oid, o.relation)
            UNION
            SELECT f.oid, r.base
              FROM reaching r
              JOIN functions g ON g.oid = r.routine AND (NOT g.prosecdef OR EXISTS (SELECT FROM blind b WHERE b.base = r.base AND b.role = g.proowner))
              JOIN calls c ON c.callee = g.oid AND c.caller <> g.oid
              JOIN functions f ON f.oid = c.caller AND NOT f.is_trigger
        )
        SELECT 'definer_search_path', NULL, f.shown, 'it runs as its owner and finds names by its caller''s search_path',
               format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp;  -- and qualify every name in it', f.shown)
          FROM functions f
         WHERE f.prosecdef AND NOT EXISTS (SELECT FROM unnest(f.proconfig) AS c(setting) WHERE c.setting LIKE 'search\_path=%')
        UNION ALL
        SELECT 'leakproof_function', NULL, f.shown, 'if it shows its arguments in an error or elsewhere, it shows rows that the policies hide',
               format('ALTER FUNCTION %s NOT LEAKPROOF;', f.shown)
          FROM functions f WHERE f.proleakproof
        UNION ALL
        SELECT 'advisory_lock', NULL, f.shown, 'a key that two tenants can both arrive at makes one wait for the other',
               '-- in its body: pg_advisory_xact_lock(tenancy.lock_key(name)), whose keys differ from tenant to tenant'
          FROM functions f
         WHERE f.pronamespace IN (SELECT * FROM tenancy._audited_schemas())
           AND f.prosrc ~* 'pg_(try_)?advisory' AND f.prosrc !~* 'tenancy\.lock_key'
        UNION ALL
        SELECT 'definer_bypasses_policies', CASE WHEN f.prosrc ~* 'tenancy\.(tenant_(id|uuid|bigint)|require_tenant)' THEN 'warning' END, f.shown,
               format('it reads %s as %I, %s, and %s may call it', string_agg(DISTINCT b.shown, ', '), b.rolname,
                      CASE WHEN b.unbound THEN 'whom no policy binds' ELSE 'whom the operator''s policy lets see all tenants' END,
                      (SELECT string_agg(DISTINCT quote_ident(a.role_name), ', ') FROM tenancy._audited_roles() a
                        WHERE a.is_application AND has_function_privilege(a.role, f.oid, 'EXECUTE'))),
               format('ALTER ROUTINE %s SECURITY INVOKER;  -- or let it name the tenant in every statement, and exempt it', f.shown)
          FROM functions f
          JOIN reaching c ON c.routine = f.oid
          JOIN blind b ON b.base = c.base AND b.role = f.proowner
         WHERE f.prosecdef
           AND EXISTS (SELECT FROM tenancy._audited_roles() a WHERE a.is_application AND has_function_privilege(a.role, f.oid, 'EXECUTE'))
         GROUP BY f.oid, f.shown, f.prosrc, b.rolname, b.unbound;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_functions() IS
    'Internal: functions that open a way around the policies, or let one tenant hold up another.';

-- By its dependencies, where its body is parsed; else by the words of its text, where a table's name can stand.
CREATE FUNCTION tenancy._routine_names(routine oid, relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
           OR b.body ~ format('\m%s\s*\.\s*%s\M(?!\s*\()', b.schema, b.name)
           OR b.finds AND b.body ~ format('\m(from|join|into|update|using|table|only)\s+%s\M(?!\s*[.(])', b.name)
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_class c ON c.oid = $2
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
            SELECT regexp_replace(translate(lower(p.prosrc), '"', ''), '--[^\n]*|/\*.*?\*/', ' ', 'g') AS body,
                   regexp_replace(lower(n.nspname), '\W', '.', 'g') AS schema, regexp_replace(lower(c.relname), '\W', '.', 'g') AS name,
                   -- Without a path of its own it finds what its caller's path leads to.
                   coalesce((SELECT quote_ident(n.nspname) = ANY (regexp_split_to_array(substr(s.setting, 13), '\s*,\s*'))
                               FROM unnest(p.proconfig) AS s (setting) WHERE s.setting LIKE 'search\_path=%'), true) AS finds) b
     WHERE p.oid = $1;
$$;
COMMENT ON FUNCTION tenancy._routine_names(oid, regclass) IS
    'Internal: whether a routine names a table. What it puts together at run time is not seen.';

-- Roles that use protected tables: granted access to tenancy, or granted a table, or members of an application's role.
CREATE FUNCTION tenancy._audited_roles() RETURNS TABLE (role oid, role_name name, is_application boolean)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE users(role, application) AS (
            SELECT r.oid, a.access = 'application'
              FROM tenancy.access_grants a JOIN pg_catalog.pg_roles r ON r.rolname = a.role_name
            UNION ALL
            -- A role that was renamed holds what is recorded under its old name.
            SELECT r.oid, tenancy._holds_access(r.oid, 'application')
                          AND NOT tenancy._holds_access(r.oid, 'service') AND NOT tenancy._holds_access(r.oid, 'operator')
              FROM pg_catalog.pg_namespace n
             CROSS JOIN LATERAL aclexplode(n.nspacl) x
              JOIN pg_catalog.pg_roles r ON r.oid = x.grantee AND r.oid <> n.nspowner
             WHERE n.nspname = 'tenancy'
               AND NOT EXISTS (SELECT FROM tenancy.access_grants a WHERE a.role_name = r.rolname)
            UNION ALL
            SELECT g.oid, false
              FROM tenancy._protections() p
             CROSS JOIN LATERAL tenancy._isolation_grants(p.relation) t
              JOIN pg_catalog.pg_roles g ON g.oid = t.grantee
             WHERE g.rolname IS DISTINCT FROM p.operator_role
        ), members(role) AS (
            SELECT u.role FROM users u WHERE u.application
            UNION
            -- From 16 on a membership can be for administration alone, which neither inherits nor can become the role.
            SELECT m.member
              FROM members s JOIN pg_catalog.pg_auth_members m ON m.roleid = s.role
             WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean OR (to_jsonb(m) ->> 'set_option')::boolean, true)
        )
        SELECT r.oid, r.rolname, bool_or(u.application)
          FROM (SELECT * FROM users UNION ALL SELECT s.role, true FROM members s) u
          JOIN pg_catalog.pg_roles r ON r.oid = u.role
         WHERE r.rolcanlogin OR u.role IN (SELECT w.role FROM users w)
         GROUP BY r.oid, r.rolname;
END;
$$;
COMMENT ON FUNCTION tenancy._audited_roles() IS 'Internal: the roles that use protected tables, and which of them have application access, login roles that have it through others included.';

CREATE FUNCTION tenancy._audit_roles()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH audited AS MATERIALIZED (
            SELECT a.*, r.rolsuper,
                   -- Where it is here through others alone, it is to leave them: it may well be what it is.
                   CASE WHEN NOT EXISTS (SELECT FROM tenancy.access_grants g WHERE g.role_name = a.role_name AND g.access = 'application')
                        THEN (SELECT string_agg(format('REVOKE %s FROM %s;', m.roleid::regrole, m.member::regrole), ' ' ORDER BY m.roleid)
                                FROM pg_catalog.pg_auth_members m
                               WHERE m.member = a.role
                                 AND EXISTS (SELECT FROM tenancy.access_grants g JOIN pg_catalog.pg_roles u ON u.rolname = g.role_name
                                              WHERE g.access = 'application' AND (u.oid = m.roleid OR pg_has_role(m.roleid, u.oid, 'MEMBER')))) END AS leaves
              FROM tenancy._audited_roles() a JOIN pg_catalog.pg_roles r ON r.oid = a.role
        ), becomes AS MATERIALIZED (
            -- What a role of theirs can become through another of them is that one's finding.
            SELECT a.*, b.oid AS other, b.rolname AS other_name
              FROM audited a
              JOIN pg_catalog.pg_roles b ON b.oid = a.role
                   OR (NOT a.rolsuper AND pg_has_role(a.role, b.oid, 'MEMBER')
                       AND NOT EXISTS (SELECT FROM audited u
                                        WHERE u.role NOT IN (a.role, b.oid) AND NOT u.rolsuper AND u.is_application >= a.is_application
                                          AND pg_has_role(a.role, u.role, 'MEMBER') AND pg_has_role(u.role, b.oid, 'MEMBER')))
        )
        SELECT 'bypassing_role', NULL::text, format('role %I', k.role_name),
               CASE WHEN k.other = k.role THEN CASE WHEN b.rolsuper THEN 'it is a superuser' ELSE 'it has BYPASSRLS' END
                    ELSE format('it is a member of %I, whom no policy binds', b.rolname) END,
               CASE WHEN k.other <> k.role THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', k.role_name)) END
          FROM becomes k JOIN pg_catalog.pg_roles b ON b.oid = k.other AND (b.rolsuper OR b.rolbypassrls)
        UNION ALL
        SELECT 'bypassing_role', NULL, format('role %I', k.role_name),
               format(CASE WHEN k.other = k.role THEN 'it %s' ELSE 'it is a member of ' || quote_ident(b.rolname) || ', which %s' END, w.how),
               CASE WHEN k.other <> k.role THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER ROLE %I NO%s;', k.role_name, w.attribute)) END
          FROM becomes k
          JOIN pg_catalog.pg_roles b ON b.oid = k.other AND NOT b.rolsuper
         CROSS JOIN LATERAL (VALUES
                ('CREATEROLE', 'has CREATEROLE, and so can become the tables'' owner', b.rolcreaterole AND current_setting('server_version_num')::integer < 160000),
                ('REPLICATION', 'has REPLICATION, and so can copy every row', b.rolreplication)) AS w(attribute, how, held)
         WHERE k.is_application AND w.held
        UNION ALL
        SELECT 'bypassing_role', NULL, format('role %I', k.role_name),
               format('it is a member of %I, which reaches the server''s files and whatever is in them', k.other_name),
               tenancy._membership_remedy(k.role, k.other)
          FROM becomes k
         WHERE k.is_application AND k.other_name IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
        UNION ALL
        SELECT DISTINCT 'application_owns_table', NULL, format('role %I', k.role_name),
               format('it has the rights of %I, the owner of %s, who can switch row-level security off', k.other_name, t.shown),
               CASE WHEN k.role <> k.other THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER TABLE %s OWNER TO CURRENT_USER;  -- run as a role that no application connects as', t.shown)) END
          FROM becomes k
         CROSS JOIN tenancy._audited_tables() t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relowner = k.other
         WHERE k.is_application AND NOT k.rolsuper
        UNION ALL
        SELECT DISTINCT 'application_is_operator', NULL, format('role %I', k.role_name),
               CASE WHEN k.role = k.other THEN format('it is the operator role of %s and sees every tenant''s rows', t.shown)
                    ELSE format('it can become %I, who sees every tenant''s rows of %s', k.other_name, t.shown) END,
               CASE WHEN k.role <> k.other THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('SELECT tenancy.revoke_access(%L, ''application'');  -- an operator is not an application', k.role_name)) END
          FROM becomes k
          JOIN tenancy._audited_tables() t ON t.operator_role = k.other_name
         WHERE k.is_application AND NOT k.rolsuper;
    RETURN QUERY
        SELECT 'writable_schema', NULL, format('schema %I', n.nspname),
               format('%s may create objects in it, and so put a function or operator in others'' way', string_agg(DISTINCT coalesce(r.rolname, 'PUBLIC'), ', ')),
               format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.nspname, string_agg(DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC'), ', '))
          FROM pg_catalog.pg_namespace n
         CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
         WHERE (n.nspname = 'public' OR n.oid IN (SELECT * FROM tenancy._audited_schemas()))
           AND x.privilege_type = 'CREATE'
           AND (x.grantee = 0 OR x.grantee IN (SELECT a.role FROM tenancy._audited_roles() a WHERE a.is_application))
         GROUP BY n.nspname;
    RETURN QUERY
        SELECT 'temporary_tables', NULL, format('database %I', d.datname), 'a temporary table filled for one tenant is there for the next on the same connection',
               format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC;  -- tenancy.begin_copy needs it: grant it to roles that load, and DISCARD TEMP between tenants', d.datname)
          FROM pg_catalog.pg_database d
         CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
         WHERE d.datname = current_database() AND x.grantee = 0 AND x.privilege_type = 'TEMPORARY';
END;
$$;
COMMENT ON FUNCTION tenancy._audit_roles() IS 'Internal: roles with more rights than the policies assume.';

CREATE FUNCTION tenancy._membership_remedy(member oid, role oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT string_agg(format('REVOKE %s FROM %s;', m.roleid::regrole, m.member::regrole), ' ' ORDER BY m.roleid)
      FROM pg_catalog.pg_auth_members m
     WHERE m.member = $1 AND (m.roleid = $2 OR pg_has_role(m.roleid, $2, 'MEMBER'));
$$;
COMMENT ON FUNCTION tenancy._membership_remedy(oid, oid) IS
    'Internal: takes from a role the memberships through which, at whatever distance, it can become another.';

CREATE FUNCTION tenancy._audit_movement()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'published_table', NULL, format('%s/%s', p.pubname, t.shown), 'its subscribers receive every tenant''s rows',
               coalesce((SELECT format('ALTER PUBLICATION %I DROP TABLE %s;', p.pubname, tenancy._relation_name(r.prrelid))
                           FROM pg_catalog.pg_publication_rel r
                          WHERE r.prpubid = p.oid AND (r.prrelid = t.relation OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(t.relation) a))
                          LIMIT 1),
                        CASE WHEN p.puballtables THEN format('DROP PUBLICATION %I;', p.pubname)
                             ELSE format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I;', p.pubname, n.nspname) END)
               || '  -- or let only what may see all tenants subscribe, and exempt it'
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_publication_tables s ON s.schemaname = n.nspname AND s.tablename = c.relname
          JOIN pg_catalog.pg_publication p ON p.pubname = s.pubname;
    RETURN QUERY
        SELECT CASE WHEN g.tgtype & 2 <> 0 THEN 'before_trigger' ELSE 'after_trigger' END, NULL, format('%s/%s', t.shown, g.tgname),
               CASE WHEN g.tgtype & 2 <> 0 THEN format('%s may set %I before WITH CHECK looks at the row', g.tgfoid::regprocedure, t.tenant_column)
                    ELSE format('%s sees each row and may write it elsewhere', g.tgfoid::regprocedure) END,
               format('DROP TRIGGER %I ON %s;  -- or read its function, and exempt it', g.tgname, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.relation AND NOT g.tgisinternal AND g.tgparentid = 0;
    RETURN QUERY
        SELECT 'rewrite_rule', NULL, format('%s/%s', t.shown, w.rulename), pg_get_ruledef(w.oid), format('DROP RULE %I ON %s;  -- or read it, and exempt it', w.rulename, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_rewrite w ON w.ev_class = t.relation;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_movement() IS 'Internal: ways in which rows leave a protected table or change hands: publications, foreign tables, triggers, rules.';

-- The last published holes that let row-level security be passed, and the first minor version without them.
CREATE FUNCTION tenancy._audit_server(version_num integer DEFAULT current_setting('server_version_num')::integer)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE sql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT 'server_version', NULL::text, 'server',
           format('PostgreSQL %s.%s has %s', $1 / 10000, $1 % 10000, string_agg(format('%s (%s)', v.cve, v.what), '; ' ORDER BY v.cve)),
           format('-- update to PostgreSQL %s.%s or later; no dump is needed', $1 / 10000, max(v.fixed % 10000))
      FROM (VALUES
            ('CVE-2023-2455', 'policies forgotten after inlining', 140008), ('CVE-2023-2455', 'policies forgotten after inlining', 150003),
            ('CVE-2023-39418', 'MERGE passes UPDATE and SELECT policies', 150004),
            ('CVE-2024-10976', 'policies below sub-queries forgotten', 140014), ('CVE-2024-10976', 'policies below sub-queries forgotten', 150009),
            ('CVE-2024-10976', 'policies below sub-queries forgotten', 160005), ('CVE-2024-10976', 'policies below sub-queries forgotten', 170001),
            ('CVE-2025-8713', 'statistics show hidden rows', 140019), ('CVE-2025-8713', 'statistics show hidden rows', 150014),
            ('CVE-2025-8713', 'statistics show hidden rows', 160010), ('CVE-2025-8713', 'statistics show hidden rows', 170006)
           ) AS v(cve, what, fixed)
     WHERE v.fixed / 10000 = $1 / 10000 AND $1 < v.fixed
    HAVING count(*) > 0;
$$;
COMMENT ON FUNCTION tenancy._audit_server(integer) IS
    'Internal: published holes in row-level security that this server version has. Older ones (CVE-2016-2193, 2017-7484, 2017-15099, 2019-10130) are fixed in every version the extension runs on.';
