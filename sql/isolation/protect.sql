-- protect_table and unprotect_table: the caller's own rights, on the caller's own tables.

CREATE FUNCTION tenancy.protect_table(
    table_name     regclass,
    tenant_column  name    DEFAULT 'tenant_id',
    org_column     name    DEFAULT NULL,
    composite_keys boolean DEFAULT false,
    operator_role  name    DEFAULT NULL,
    dry_run        boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE plpgsql ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    planned record;
    done    integer := 0;
BEGIN
    SELECT * INTO table_name, tenant_column, org_column, operator_role, composite_keys
      FROM tenancy._protection_target(protect_table.table_name, protect_table.tenant_column, protect_table.org_column,
                                      protect_table.operator_role, protect_table.composite_keys);
    -- Taken before the plan is made, so that nobody changes the table between plan and execution.
    IF NOT coalesce(dry_run, false)
       AND EXISTS (SELECT FROM tenancy._protection_statements(table_name, tenant_column, org_column, operator_role, composite_keys)) THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tenancy._relation_name(table_name));
    END IF;
    PERFORM tenancy._check_rows_have_tenant(table_name, tenant_column);
    FOR planned IN
        SELECT * FROM tenancy._protection_statements(table_name, tenant_column, org_column, operator_role, composite_keys)
    LOOP
        IF NOT coalesce(dry_run, false) THEN
            EXECUTE planned.statement;
        END IF;
        done := done + 1;
        RETURN NEXT planned.statement;
    END LOOP;

    IF NOT coalesce(dry_run, false) THEN
        PERFORM tenancy._record_protection(table_name, tenant_column, org_column, operator_role);
    END IF;
    IF done = 0 THEN
        RAISE NOTICE '% is already protected by its column %: nothing to do', tenancy._relation_name(table_name), quote_ident(tenant_column);
    END IF;
    IF NOT composite_keys THEN
        PERFORM tenancy._report_keys(table_name, tenant_column);
    END IF;
    PERFORM tenancy._report_protection(table_name, tenant_column, operator_role);
END;
$$;
COMMENT ON FUNCTION tenancy.protect_table(regclass, name, name, boolean, name, boolean) IS
$$Isolates a table by tenant: adds what is missing of the tenant column (text, uuid or bigint), its default from the identity, NOT NULL, an index that leads with it, row-level security enabled and forced, a restrictive tenant floor and a permissive access policy; takes TRUNCATE, REFERENCES and TRIGGER from every role but the owner. With composite_keys the tenant also leads every unique key and foreign key, from and to the table; without, those that lack it are named in a NOTICE. Partitions and children follow. Returns the statements it ran, or with dry_run would run; none the second time. The caller must own the table.
Errors: 42501 not the owner; 42809 not a table; 0A000 a foreign, temporary or extension's table; 22023 a column that does not fit, an operator role that the floor would bind or that is an application's, rows without a tenant (with their number), a foreign key that cannot carry the tenant yet.
Source: isolation.md, 9, 15, 23, 25, 26, 39, 41.$$;

-- What the caller should know and no statement shows.
CREATE FUNCTION tenancy._report_protection(relation regclass, tenant_column name, operator_role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    shown    text := tenancy._relation_name($1);
    accessor text := tenancy._isolation_accessor($1, $2, 'tenant');
    other    record;
    reach    record;
BEGIN
    FOR other IN
        SELECT p.polname, p.polpermissive FROM pg_catalog.pg_policy p
         WHERE p.polrelid = $1 AND p.polname NOT IN ('tenancy_floor', 'tenancy_access', 'tenancy_operator')
         ORDER BY p.polname
    LOOP
        RAISE NOTICE '% also has the policy %, which %', shown, quote_ident(other.polname),
            CASE WHEN other.polpermissive AND $3 IS NOT NULL
                 THEN 'can widen access inside a tenant, and across tenants for roles that the floor does not name'
                 WHEN other.polpermissive THEN 'can widen access inside a tenant, never across tenants'
                 ELSE 'narrows access further' END;
    END LOOP;
    SELECT string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'reaches') AS reaching,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'bypasses') AS bypassing,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'no_accessor') AS no_accessor,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'no_table') AS no_table
      INTO reach
      FROM tenancy._isolation_reach($1, accessor) r
     WHERE r.role_name IS DISTINCT FROM $3;
    RAISE NOTICE '%: within their own tenant, these roles reach it: %', shown, coalesce(reach.reaching, '(none)');
    IF reach.no_accessor IS NOT NULL THEN
        RAISE NOTICE '%: permission denied for % until granted access', shown, reach.no_accessor
            USING HINT = 'They hold privileges on the table and none on the identity: SELECT tenancy.grant_access(role, ''application'').';
    END IF;
    IF reach.no_table IS NOT NULL THEN
        RAISE NOTICE '%: permission denied for % on the table', shown, reach.no_table
            USING HINT = format('They have access to tenancy and none to the table: GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO role, and USAGE on its schema.', shown);
    END IF;
    IF reach.bypassing IS NOT NULL THEN
        RAISE NOTICE '%: no policy binds %', shown, reach.bypassing
            USING HINT = 'Superusers and roles with BYPASSRLS see every tenant''s rows: let no application connect as one.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._report_protection(regclass, name, name) IS
    'Internal: tells by NOTICE which other policies a table has, which roles reach it and which get "permission denied".';

CREATE FUNCTION tenancy._isolation_reach(relation regclass, accessor text)
RETURNS TABLE (role_name text, outcome text)
LANGUAGE sql STABLE STRICT ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH candidates AS (
        SELECT g.grantee AS role FROM tenancy._isolation_grants($1) g
        UNION
        SELECT x.grantee FROM pg_catalog.pg_proc p, aclexplode(p.proacl) x
         WHERE p.oid = to_regprocedure($2) AND x.grantee <> p.proowner
    ), facts AS (
        SELECT coalesce(r.rolname, 'PUBLIC') AS role_name,
               coalesce(r.rolsuper OR r.rolbypassrls, false) AS bypasses,
               has_function_privilege(coalesce(r.rolname, 'public'), $2, 'EXECUTE') AS accessor,
               has_schema_privilege(coalesce(r.rolname, 'public'), c.relnamespace, 'USAGE')
               AND (has_any_column_privilege(coalesce(r.rolname, 'public'), c.oid, 'SELECT, INSERT, UPDATE')
                    OR has_table_privilege(coalesce(r.rolname, 'public'), c.oid, 'DELETE')) AS "table"
          FROM candidates k
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = k.role
         CROSS JOIN pg_catalog.pg_class c
         WHERE c.oid = $1 AND k.role <> c.relowner
    )
    SELECT f.role_name,
           CASE WHEN f.bypasses THEN 'bypasses'
                WHEN f.accessor AND f."table" THEN 'reaches'
                WHEN f."table" THEN 'no_accessor'
                ELSE 'no_table' END
      FROM facts f;
$$;
COMMENT ON FUNCTION tenancy._isolation_reach(regclass, text) IS
    'Internal: for each role granted the table or the identity''s accessors: reaches, no_accessor, no_table, or bypasses.';

CREATE FUNCTION tenancy.unprotect_table(table_name regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known  record;
    rel    record;
    before jsonb;
    ours   name;
    shown  text := tenancy._relation_name(table_name);
BEGIN
    SELECT * INTO known FROM tenancy._protection_of(unprotect_table.table_name);
    PERFORM tenancy._check_protectable(table_name);
    IF known.tenant_column IS NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
                                  WHERE p.polrelid = table_name AND p.polname = 'tenancy_floor') THEN
        RAISE NOTICE '% is not protected: nothing to do', shown;
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', shown);
    -- Proof for the recorder, which trusts no argument: only the owner can make a policy.
    EXECUTE format('CREATE POLICY tenancy_release ON %s USING (false)', shown);
    PERFORM tenancy._forget_protection(table_name);
    EXECUTE format('DROP POLICY tenancy_release ON %s', shown);

    FOR rel IN
        SELECT t.relation, tenancy._relation_name(t.relation) AS name, d.description
          FROM tenancy._isolation_tree(table_name) t
          LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation AND p.polname = 'tenancy_floor'
          LEFT JOIN pg_catalog.pg_description d ON d.classoid = 'pg_policy'::regclass AND d.objoid = p.oid
         ORDER BY t.depth, t.relation
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS tenancy_floor ON %s', rel.name);
        EXECUTE format('DROP POLICY IF EXISTS tenancy_access ON %s', rel.name);
        EXECUTE format('DROP POLICY IF EXISTS tenancy_operator ON %s', rel.name);
        before := substring(rel.description from 'Before: (\{.*\})$')::jsonb;
        IF NOT coalesce((before ->> 'forced')::boolean, false) THEN
            EXECUTE format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', rel.name);
        END IF;
        IF NOT coalesce((before ->> 'enabled')::boolean, false) THEN
            EXECUTE format('ALTER TABLE ONLY %s DISABLE ROW LEVEL SECURITY', rel.name);
        END IF;
        FOR ours IN
            SELECT a.attname
              FROM pg_catalog.pg_attribute a
              JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = rel.relation
               AND pg_get_expr(d.adbin, d.adrelid) = tenancy._isolation_accessor(rel.relation, a.attname, 'tenant')
        LOOP
            EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP DEFAULT', rel.name, ours);
        END LOOP;
    END LOOP;
    RAISE NOTICE '% is no longer isolated by tenant; its column, its NOT NULL and its indexes stay, what was revoked stays revoked', shown;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION tenancy.unprotect_table(regclass) IS
$$Takes back what protect_table did to a table and its children: the three policies, the default from the identity, and row-level security where it was not on before. The column, NOT NULL, indexes and revoked privileges stay. Returns false, with a NOTICE, where the table is not protected. The caller must own the table.
Errors: 42501 not the owner; 42809, 0A000, 22023 as protect_table.$$;
