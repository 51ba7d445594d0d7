-- The audit, first part: the protected tables themselves, their keys and their policies.
-- A NULL severity is the rule's own.

CREATE FUNCTION tenancy._audited_tables()
RETURNS TABLE (root regclass, relation regclass, shown text, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT p.relation, t.relation, tenancy._relation_name(t.relation), p.tenant_column, p.org_column, p.operator_role
          FROM tenancy._protections() p
         CROSS JOIN LATERAL tenancy._isolation_tree(p.relation) t;
END;
$$;
COMMENT ON FUNCTION tenancy._audited_tables() IS 'Internal: every recorded table that exists, with its partitions and children.';

CREATE FUNCTION tenancy._audited_roots(changed oid[])
RETURNS TABLE (relation regclass, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT p.* FROM tenancy._protections() p
         WHERE $1 IS NULL OR EXISTS (SELECT FROM tenancy._isolation_tree(p.relation) t WHERE t.relation = ANY ($1));
END;
$$;
COMMENT ON FUNCTION tenancy._audited_roots(oid[]) IS 'Internal: the recorded tables that exist, or those of them to which one of the changed belongs.';

CREATE FUNCTION tenancy._audited_schemas() RETURNS SETOF oid
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT c.relnamespace FROM tenancy._audited_tables() t JOIN pg_catalog.pg_class c ON c.oid = t.relation
        UNION
        SELECT n.oid FROM tenancy.guarded_schemas g JOIN pg_catalog.pg_namespace n ON n.nspname = g.schema_name;
END;
$$;
COMMENT ON FUNCTION tenancy._audited_schemas() IS 'Internal: the schemas that hold protected tables, or are guarded.';

CREATE FUNCTION tenancy._audit_protection(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'protected_table_gone', NULL, p.relation::text,
               'it is recorded as protected and does not exist any more; a table made in its place, under its name, is not protected by that',
               'SELECT tenancy.forget_dropped_tables();  -- and protect_table what was made in its place'
          FROM tenancy.protected_tables p
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.relation);
    RETURN QUERY
        SELECT 'guard_not_armed', NULL, format('schema %I', g.schema_name),
               CASE WHEN n.oid IS NULL THEN 'it is guarded and does not exist'
                    ELSE 'its guard was set in another database and waits until nothing is open here' END,
               CASE WHEN n.oid IS NULL THEN format('SELECT tenancy.unguard_schema(%L);', g.schema_name)
                    ELSE format('SELECT tenancy.guard_schema(%L, %L, %L);', g.schema_name, g.mode, g.tenant_column) END
          FROM tenancy.guarded_schemas g
          LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = g.schema_name
         WHERE n.oid IS NULL OR g.database_oid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
    -- Its policies came along with a dump or a change of hands, and the record did not.
    RETURN QUERY
        SELECT 'unprotected_table', NULL, tenancy._relation_name(c.oid),
               'it has the policy tenancy_floor and is not recorded as protected: nothing watches over it',
               format('SELECT tenancy.protect_table(%L, %L%s%s);', tenancy._relation_name(c.oid), w.tenant, ', org_column => ' || quote_literal(w.org),
                      ', operator_role => ' || quote_literal(w.operator))
          FROM pg_catalog.pg_policy p
          JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relkind IN ('r', 'p')
         CROSS JOIN LATERAL (SELECT coalesce(tenancy._policy_column(c.oid, 'tenancy_floor', ''), 'tenant_id') AS tenant) f
         CROSS JOIN LATERAL (
                SELECT f.tenant, tenancy._policy_column(c.oid, 'tenancy_access', f.tenant) AS org,
                       (SELECT n.rolname FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_roles n ON y.polroles = ARRAY[n.oid]
                         WHERE y.polrelid = c.oid AND y.polname = 'tenancy_operator') AS operator) w
         WHERE p.polname = 'tenancy_floor' AND ($1 IS NULL OR c.oid = ANY ($1))
           AND c.relnamespace <> 'tenancy'::regnamespace
           AND NOT EXISTS (SELECT FROM tenancy._audited_tables() t WHERE t.relation = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_policy u ON u.polrelid = i.inhparent AND u.polname = 'tenancy_floor'
                            WHERE i.inhrelid = c.oid);
    RETURN QUERY
        SELECT CASE c.relkind WHEN 'f' THEN 'foreign_table' ELSE 'unprotected_table' END, NULL, tenancy._relation_name(c.oid),
               CASE c.relkind WHEN 'f' THEN 'the server behind it knows neither identity nor policies of this one'
                    ELSE format('schema %I has protected tables or is guarded, and this table has no protection', n.nspname) END,
               CASE c.relkind WHEN 'f' THEN format('DROP FOREIGN TABLE %s;  -- or give no application role access to it, and exempt it', tenancy._relation_name(c.oid))
                    ELSE format('SELECT tenancy.protect_table(%L);', tenancy._relation_name(c.oid)) END
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas())
           AND c.relkind IN ('r', 'p', 'f') AND ($1 IS NULL OR c.oid = ANY ($1))
           AND (c.relkind = 'f' OR NOT EXISTS (SELECT FROM tenancy._audited_tables() t WHERE t.relation = c.oid)
                                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenancy_floor'))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
END;
$$;
COMMENT ON FUNCTION tenancy._audit_protection(oid[]) IS
    'Internal: tables beside protected ones, in guarded schemas, or with policies of ours, that are not recorded as protected; records and guards that no longer fit.';

-- Whatever protect_table would run again, somebody undid.
CREATE FUNCTION tenancy._audit_undone(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
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
               END, CASE WHEN bool_or(s.widened) THEN 'error' END, tenancy._relation_name(s.relation),
               min('protect_table would run: ' || s.statement) FILTER (WHERE s.statement NOT LIKE 'COMMENT %'),
               format('SELECT tenancy.protect_table(%L, %L);', tenancy._relation_name(p.relation), p.tenant_column)
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL (
                SELECT x.step, x.relation, x.statement,
                       -- The expression stands and the roles alone differ: it fails closed for the role left out.
                       x.step IN ('floor', 'access') AND p.operator_role IS NOT NULL AND EXISTS (
                           SELECT FROM tenancy._isolation_policies(p.relation, p.tenant_column, p.org_column, p.operator_role) w
                             JOIN pg_catalog.pg_policy y ON y.polrelid = x.relation AND y.polname = w.policy
                            WHERE w.step = x.step AND y.polpermissive = w.permissive AND y.polcmd = '*'
                              AND pg_get_expr(y.polqual, y.polrelid) = w.expression
                              AND pg_get_expr(y.polwithcheck, y.polrelid) = w.expression) AS only_roles,
                       -- To a role that no floor names, an operator's policy shows everything.
                       x.step = 'operator' AND EXISTS (
                           SELECT FROM pg_catalog.pg_policy y CROSS JOIN unnest(y.polroles) AS u(role)
                            WHERE y.polrelid = x.relation AND y.polname = 'tenancy_operator'
                              AND u.role IS DISTINCT FROM to_regrole(quote_ident(p.operator_role))) AS widened
                  FROM tenancy._protection_statements(p.relation, p.tenant_column, p.org_column, p.operator_role, false) x) s
         GROUP BY 1, 3, p.relation, p.tenant_column;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_undone(oid[]) IS 'Internal: what protect_table set and somebody undid.';

CREATE FUNCTION tenancy._audit_keys(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(k.relation), k.key_name),
               format('%s %s does not carry %I', k.kind, k.definition, p.tenant_column),
               CASE WHEN k.rewritable THEN format('SELECT tenancy.protect_table(%L, %L, composite_keys => true);', tenancy._relation_name(p.relation), p.tenant_column)
                    WHEN k.kind = 'exclusion constraint'
                    THEN format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s;  -- CREATE EXTENSION btree_gist first, where it uses gist',
                                tenancy._relation_name(k.relation), k.key_name, k.key_name,
                                overlay(k.definition PLACING format('(%I WITH =, ', p.tenant_column) FROM strpos(k.definition, '(') FOR 1))
                    ELSE format('DROP INDEX %s;  -- it is not valid', tenancy._relation_name(k.index_oid)) END
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL tenancy._unscoped_keys(p.relation, p.tenant_column) k;
    RETURN QUERY
        SELECT DISTINCT 'foreign_key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(f.child), f.key_name),
               format('it can point at another tenant''s row of %s', tenancy._relation_name(f.parent)),
               CASE WHEN f.problem IN ('tenant_types_differ', 'on_update_would_clear_the_tenant', 'match_full')
                    THEN format('ALTER TABLE %s DROP CONSTRAINT %I;  -- it cannot carry the tenant as it is: %s', tenancy._relation_name(f.child), f.key_name, f.problem)
                    ELSE CASE WHEN f.problem = 'child_has_no_tenant' THEN format('SELECT tenancy.protect_table(%L); ', tenancy._relation_name(f.child)) ELSE '' END
                         || format('SELECT tenancy.protect_table(%L, %L, composite_keys => true);', tenancy._relation_name(f.parent), f.parent_tenant) END
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL tenancy._unscoped_foreign_keys(p.relation, p.tenant_column) f;
    RETURN QUERY
        SELECT 'sequence_gaps', NULL, format('%s.%I', t.shown, a.attname),
               'its numbers come from one sequence for all tenants, whose gaps tell how much the others write',
               format('ALTER TABLE %s ALTER COLUMN %I DROP %s;  -- and number rows per tenant, or SET DEFAULT tenancy.uuid_v7()', t.shown, a.attname,
                      CASE WHEN a.attidentity <> '' THEN 'IDENTITY' ELSE 'DEFAULT' END)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND NOT a.attisdropped AND a.attinhcount = 0
         WHERE a.attnum > 0
           AND (a.attidentity <> '' OR EXISTS (
                SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                  JOIN pg_catalog.pg_class s ON u.refclassid = 'pg_class'::regclass AND s.oid = u.refobjid AND s.relkind = 'S'
                 WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum));
END;
$$;
COMMENT ON FUNCTION tenancy._audit_keys(oid[]) IS
    'Internal: keys, foreign keys and sequences through which one tenant learns of another''s rows.';

-- Expressions are looked at as the parser left them: a word inside a string literal is no sub-query.
CREATE FUNCTION tenancy._audit_policies(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
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
         WHERE p.polname <> 'tenancy_access' AND (p.polname <> 'tenancy_operator' OR t.operator_role IS NULL);
    RETURN QUERY
        WITH policies AS (
            SELECT p.oid, p.polname, tenancy._relation_name(p.polrelid) AS shown,
                   concat_ws(' ', p.polqual::text, p.polwithcheck::text) AS tree,
                   concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS expression
              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
             WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas()) AND ($1 IS NULL OR c.oid = ANY ($1))
        ), settings AS (
            SELECT format(':funcid (%s|%s) ', 'current_setting(text)'::regprocedure::oid, 'current_setting(text,boolean)'::regprocedure::oid) AS called
        ), functions AS (
            SELECT DISTINCT p.oid, f.oid::regprocedure::text AS signature, f.provolatile, f.oid >= 16384 AS own,
                   -- A pure function of a column may well be IMMUTABLE; one that asks who is asking may not.
                   f.oid >= 16384 AND (f.pronargs = 0 OR f.prosrc ~* 'tenancy\.|current_setting|current_user|session_user') AS asks,
                   f.oid >= 16384 AND f.pronamespace <> 'tenancy'::regnamespace
                   AND (regexp_replace(f.prosrc, '--[^\n]*|/\*.*?\*/', ' ', 'g') ~* '\m(current_setting|pg_settings|pg_show_all_settings)\M'
                        OR f.prosqlbody::text ~ s.called) AS reads_setting
              FROM policies p
             CROSS JOIN settings s
             CROSS JOIN LATERAL regexp_matches(p.tree, ':(?:op)?funcid (\d+) ', 'g') AS m(found)
              JOIN pg_catalog.pg_proc f ON f.oid = m.found[1]::oid
        ), problems AS (
            SELECT p.*, NULL AS signature, 'policy_reads_setting' AS rule, 'it calls current_setting, which any client can set' AS finding
              FROM policies p CROSS JOIN settings s WHERE p.tree ~ s.called
            UNION ALL
            SELECT p.*, NULL, 'policy_reads_setting', format('it calls %s, which reads settings, and any client can set them', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.reads_setting
            UNION ALL
            SELECT p.*, f.signature, 'policy_immutable_function', format('it calls %s, which is IMMUTABLE: plans keep its first answer', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'i' AND f.asks
            UNION ALL
            SELECT p.*, CASE WHEN f.own THEN f.signature END, 'policy_volatile_function', format('it calls %s, which is VOLATILE: it is called for every row', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'v'
            UNION ALL
            SELECT p.*, NULL, 'policy_subquery', 'it has a sub-query, which runs with a snapshot of its own and keeps indexes away'
              FROM policies p WHERE p.tree LIKE '%{SUBLINK %'
            UNION ALL
            SELECT p.*, NULL, 'policy_or', 'it has an OR or a CASE, which keep indexes away'
              FROM policies p WHERE p.tree LIKE '%:boolop or %' OR p.tree LIKE '%{CASEEXPR %' OR p.tree LIKE '%{CASE %'
        )
        SELECT DISTINCT q.rule, NULL, format('%s/%s', q.shown, q.polname), q.finding, tenancy._policy_remedy(q.oid, q.signature)
          FROM problems q;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_policies(oid[]) IS
    'Internal: policies that widen access, believe what a client can set, keep plans of another tenant, or are slow.';

-- What closes it whatever the policy was for: a comparison with the tenant, which shows nothing of another's. What the
-- policy was for, its author puts back beside it.
CREATE FUNCTION tenancy._policy_remedy(policy oid, function_called text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    found record;
    same  text;
BEGIN
    SELECT p.polname, p.polcmd, t.shown, t.tenant_column, tenancy._relation_name(t.root) AS root, tenancy._relation_name(p.polrelid) AS name,
           tenancy._isolation_accessor(t.root, t.tenant_column, 'tenant') AS accessor
      INTO found
      FROM pg_catalog.pg_policy p LEFT JOIN tenancy._audited_tables() t ON t.relation = p.polrelid
     WHERE p.oid = $1
     LIMIT 1;
    IF found.polname IN ('tenancy_floor', 'tenancy_access', 'tenancy_operator') AND found.root IS NOT NULL THEN
        RETURN format('SELECT tenancy.protect_table(%L, %L);', found.root, found.tenant_column);
    ELSIF $2 IS NOT NULL THEN
        RETURN format('ALTER FUNCTION %s STABLE;  -- it must be so: no writing, the same answer all through a statement', $2);
    ELSIF found.root IS NULL THEN
        RETURN format('DROP POLICY %I ON %s;  -- and SELECT tenancy.protect_table(%L)', found.polname, found.name, found.name);
    END IF;
    same := format('(%I = %s)', found.tenant_column, found.accessor);
    RETURN format('ALTER POLICY %I ON %s%s%s;  -- and compare columns with tenancy''s accessors; operators get a policy of their own', found.polname, found.name,
                  CASE WHEN found.polcmd <> 'a' THEN ' USING ' || same ELSE '' END,
                  CASE WHEN found.polcmd IN ('*', 'a', 'w') THEN ' WITH CHECK ' || same ELSE '' END);
END;
$$;
COMMENT ON FUNCTION tenancy._policy_remedy(oid, text) IS
    'Internal: the statement that makes a policy harmless, or the function of yours that it calls.';
