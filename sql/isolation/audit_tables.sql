-- The audit, first part: the protected tables themselves, their keys and their policies.
-- A NULL severity is the rule's own.

CREATE FUNCTION tenancy._audited_tables()
RETURNS TABLE (root regclass, relation regclass, shown text, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT p.relation, t.relation, tenancy._relation_name(t.relation), p.tenant_column, p.org_column, p.operator_role
          FROM tenancy.protected_tables p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
         CROSS JOIN LATERAL tenancy._isolation_tree(p.relation) t;
END;
$$;
COMMENT ON FUNCTION tenancy._audited_tables() IS 'Internal: every recorded table that exists, with its partitions and children.';

CREATE FUNCTION tenancy._audited_schemas() RETURNS SETOF oid
LANGUAGE sql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT c.relnamespace FROM tenancy._audited_tables() t JOIN pg_catalog.pg_class c ON c.oid = t.relation;
$$;
COMMENT ON FUNCTION tenancy._audited_schemas() IS 'Internal: the schemas that hold protected tables.';

CREATE FUNCTION tenancy._audit_protection()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'protected_table_gone', NULL, p.relation::text,
               'it is recorded as protected and does not exist any more',
               'SELECT tenancy.forget_dropped_tables();'
          FROM tenancy.protected_tables p
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.relation);
    RETURN QUERY
        SELECT CASE s.step
                 WHEN 'column' THEN 'tenant_column_missing'
                 WHEN 'default' THEN 'tenant_default_missing'
                 WHEN 'not_null' THEN 'tenant_nullable'
                 WHEN 'index' THEN 'tenant_index_missing'
                 WHEN 'enable' THEN 'rls_disabled'
                 WHEN 'force' THEN 'force_missing'
                 WHEN 'floor' THEN CASE WHEN s.only_roles THEN 'role_outside_floor' ELSE 'floor_missing' END
                 WHEN 'access' THEN CASE WHEN s.only_roles THEN 'role_outside_floor' ELSE 'access_policy_changed' END
                 WHEN 'operator' THEN 'operator_policy_changed'
                 WHEN 'revoke' THEN 'dangerous_grant'
               END, NULL, tenancy._relation_name(s.relation), min('protect_table would run: ' || s.statement),
               format('SELECT tenancy.protect_table(%L, %L);', tenancy._relation_name(p.relation), p.tenant_column)
          FROM tenancy.protected_tables p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
         CROSS JOIN LATERAL (
                SELECT x.step, x.relation, x.statement,
                       -- The expression stands and the roles alone differ: it fails closed for the role left out.
                       x.step IN ('floor', 'access') AND p.operator_role IS NOT NULL AND EXISTS (
                           SELECT FROM tenancy._isolation_policies(p.relation, p.tenant_column, p.org_column, p.operator_role) w
                             JOIN pg_catalog.pg_policy y ON y.polrelid = x.relation AND y.polname = w.policy
                            WHERE w.step = x.step AND y.polpermissive = w.permissive AND y.polcmd = '*'
                              AND pg_get_expr(y.polqual, y.polrelid) = w.expression
                              AND pg_get_expr(y.polwithcheck, y.polrelid) = w.expression) AS only_roles
                  FROM tenancy._protection_statements(p.relation, p.tenant_column, p.org_column, p.operator_role, false) x) s
         GROUP BY 1, 3, p.relation, p.tenant_column;
    RETURN QUERY
        SELECT 'guard_not_armed', NULL, format('schema %I', g.schema_name),
               CASE WHEN n.oid IS NULL THEN 'it is guarded and does not exist'
                    ELSE 'its guard was set in another database and waits until all that is recorded here stands' END,
               CASE WHEN n.oid IS NULL THEN format('SELECT tenancy.unguard_schema(%L);', g.schema_name)
                    ELSE format('SELECT tenancy.guard_schema(%L, %L, %L);', g.schema_name, g.mode, g.tenant_column) END
          FROM tenancy.guarded_schemas g
          LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = g.schema_name
         WHERE n.oid IS NULL OR g.database_oid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
    RETURN QUERY
        SELECT 'unprotected_table', NULL, tenancy._relation_name(c.oid),
               format('schema %I has protected tables, and this is none', n.nspname),
               format('SELECT tenancy.protect_table(%L);', tenancy._relation_name(c.oid))
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas())
           AND c.relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM tenancy._audited_tables() t WHERE t.relation = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
END;
$$;
COMMENT ON FUNCTION tenancy._audit_protection() IS
    'Internal: tables that are not protected, and what protect_table set and somebody undid.';

CREATE FUNCTION tenancy._audit_keys()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(k.relation), k.key_name),
               format('%s %s does not carry %I', k.kind, k.definition, p.tenant_column),
               CASE WHEN k.rewritable THEN format('SELECT tenancy.protect_table(%L, %L, composite_keys => true);', tenancy._relation_name(p.relation), p.tenant_column)
                    ELSE format('ALTER TABLE %s DROP CONSTRAINT %I; then add it again with %I WITH = in front', tenancy._relation_name(k.relation), k.key_name, p.tenant_column) END
          FROM tenancy.protected_tables p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
         CROSS JOIN LATERAL tenancy._unscoped_keys(p.relation, p.tenant_column) k;
    RETURN QUERY
        SELECT DISTINCT 'foreign_key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(f.child), f.key_name),
               format('it can point at another tenant''s row of %s', tenancy._relation_name(f.parent)),
               format('SELECT tenancy.protect_table(%L, composite_keys => true);', tenancy._relation_name(f.parent))
          FROM tenancy.protected_tables p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
         CROSS JOIN LATERAL tenancy._unscoped_foreign_keys(p.relation, p.tenant_column) f;
    RETURN QUERY
        SELECT 'sequence_gaps', NULL, format('%s.%I', t.shown, a.attname),
               'its numbers come from one sequence for all tenants, whose gaps tell how much the others write',
               format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY IF EXISTS; and number rows per tenant, or use tenancy.uuid_v7()', t.shown, a.attname)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND NOT a.attisdropped AND a.attinhcount = 0
         WHERE a.attnum > 0
           AND (a.attidentity <> '' OR EXISTS (
                SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                  JOIN pg_catalog.pg_class s ON u.refclassid = 'pg_class'::regclass AND s.oid = u.refobjid AND s.relkind = 'S'
                 WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum));
END;
$$;
COMMENT ON FUNCTION tenancy._audit_keys() IS
    'Internal: keys, foreign keys and sequences through which one tenant learns of another''s rows.';

-- Expressions are looked at as the parser left them: a word inside a string literal is no sub-query.
CREATE FUNCTION tenancy._audit_policies()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'permissive_policy', CASE WHEN f.polroles IS DISTINCT FROM '{0}' THEN 'error' END,
               format('%s/%s', t.shown, p.polname),
               CASE WHEN f.polroles = '{0}'
                    THEN format('USING (%s) widens what one tenant''s roles see of their own tenant', coalesce(pg_get_expr(p.polqual, p.polrelid), 'true'))
                    ELSE 'the floor is not TO PUBLIC here: a role it does not name sees what this policy shows' END,
               format('DROP POLICY %I ON %s;', p.polname, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation AND p.polpermissive
          LEFT JOIN pg_catalog.pg_policy f ON f.polrelid = t.relation AND f.polname = 'tenancy_floor'
         WHERE p.polname NOT IN ('tenancy_access', 'tenancy_operator');
    RETURN QUERY
        WITH policies AS (
            SELECT p.oid, p.polname, tenancy._relation_name(p.polrelid) AS shown,
                   concat_ws(' ', p.polqual::text, p.polwithcheck::text) AS tree,
                   concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS expression
              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
             WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas())
        ), functions AS (
            SELECT DISTINCT p.oid, f.oid::regprocedure::text AS signature, f.provolatile,
                   -- A pure function of a column may well be IMMUTABLE; one that asks who is asking may not.
                   f.oid >= 16384 AND (f.pronargs = 0 OR f.prosrc ~* 'tenancy\.|current_setting|current_user|session_user') AS asks
              FROM policies p
             CROSS JOIN LATERAL regexp_matches(p.tree, ':funcid (\d+) ', 'g') AS m(found)
              JOIN pg_catalog.pg_proc f ON f.oid = m.found[1]::oid
        ), problems AS (
            SELECT p.*, 'policy_reads_setting' AS rule, 'it calls current_setting, which any client can set' AS finding
              FROM policies p WHERE p.tree ~ format(':funcid (%s|%s) ', 'current_setting(text)'::regprocedure::oid, 'current_setting(text,boolean)'::regprocedure::oid)
            UNION ALL
            SELECT p.*, 'policy_immutable_function', format('it calls %s, which is IMMUTABLE: plans keep its first answer', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'i' AND f.asks
            UNION ALL
            SELECT p.*, 'policy_volatile_function', format('it calls %s, which is VOLATILE: it is called for every row', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'v'
            UNION ALL
            SELECT p.*, 'policy_subquery', 'it has a sub-query, which runs with a snapshot of its own and keeps indexes away'
              FROM policies p WHERE p.tree LIKE '%{SUBLINK %'
            UNION ALL
            SELECT p.*, 'policy_or', 'it has an OR or a CASE, which keep indexes away'
              FROM policies p WHERE p.tree LIKE '%:boolop or %' OR p.tree LIKE '%{CASEEXPR %' OR p.tree LIKE '%{CASE %'
        )
        SELECT DISTINCT q.rule, NULL, format('%s/%s', q.shown, q.polname), q.finding,
               format('ALTER POLICY %I ON %s USING (a comparison of a column with one of tenancy''s accessors); operators get a policy of their own', q.polname, q.shown)
          FROM problems q;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_policies() IS
    'Internal: policies that widen access, believe what a client can set, keep plans of another tenant, or are slow.';
