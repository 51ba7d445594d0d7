-- What protect_table refuses, and why. Each refusal comes before anything was changed.

CREATE FUNCTION tenancy._check_protectable(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    rel   pg_catalog.pg_class;
    shown text := tenancy._relation_name($1);
    child record;
BEGIN
    IF $1 IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'table_name must not be null',
            'Name the table: SELECT tenancy.protect_table(''public.essays'').');
    END IF;
    SELECT * INTO rel FROM pg_catalog.pg_class WHERE oid = $1;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_table', format('no relation has the oid %s', $1::oid),
            'Name the table: SELECT tenancy.protect_table(''public.essays'').');
    END IF;
    IF rel.relkind = 'f' THEN
        PERFORM tenancy._raise('0A000', 'foreign_table', format('%s is a foreign table: PostgreSQL has no row-level security for those', shown),
            'Protect the table on its own server, and give no application role access to the foreign table.');
    ELSIF rel.relkind IN ('v', 'm') THEN
        PERFORM tenancy._raise('42809', 'not_a_table',
            format('%s is a %s: row-level security is for tables', shown, CASE rel.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END),
            CASE rel.relkind
                WHEN 'v' THEN format('Protect the tables it reads, then: ALTER VIEW %s SET (security_invoker = true).', shown)
                ELSE 'Give no application role access to it, or replace it by a table with a tenant column.' END);
    ELSIF rel.relkind NOT IN ('r', 'p') THEN
        PERFORM tenancy._raise('42809', 'not_a_table', format('%s is not a table', shown),
            'Name an ordinary or a partitioned table.');
    END IF;
    IF rel.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
       OR shown LIKE 'information\_schema.%' THEN
        PERFORM tenancy._raise('22023', 'system_table', format('%s is a system table', shown),
            'Only your own tables can be protected.');
    END IF;
    IF rel.relnamespace = 'tenancy'::regnamespace THEN
        PERFORM tenancy._raise('22023', 'own_table', format('%s belongs to pg_tenancy, which protects its tables itself', shown),
            'Only your own tables can be protected.');
    END IF;
    IF rel.relpersistence = 't' THEN
        PERFORM tenancy._raise('0A000', 'temporary_table', format('%s is a temporary table', rel.relname),
            'A temporary table is private to its session and outlives the identity: DISCARD TEMP between tenants.');
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = $1 AND d.deptype = 'e') THEN
        PERFORM tenancy._raise('0A000', 'extension_table', format('%s belongs to an extension', shown),
            'Its definition is the extension''s: a dump would not carry the policies.');
    END IF;
    FOR child IN
        SELECT c.relkind, c.relowner, tenancy._relation_name(c.oid) AS name
          FROM tenancy._isolation_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
    LOOP
        IF child.relkind = 'f' THEN
            PERFORM tenancy._raise('0A000', 'foreign_table', format('%s is a foreign table under %s', child.name, shown),
                'PostgreSQL has no row-level security for foreign tables: detach it first.');
        END IF;
        IF NOT pg_has_role(current_user, child.relowner, 'USAGE') THEN
            PERFORM tenancy._raise('42501', 'not_owner', format('must be owner of table %s', child.name),
                format('Call it as %s, or as a member of that role.', pg_get_userbyid(child.relowner)));
        END IF;
    END LOOP;
    -- Read through its parent, a child's own policies do not count: the parent must hold the floor.
    FOR child IN
        SELECT tenancy._relation_name(i.inhparent) AS parent
          FROM pg_catalog.pg_inherits i
         WHERE i.inhrelid = $1
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
                            WHERE p.polrelid = i.inhparent AND p.polname = 'tenancy_floor')
         ORDER BY i.inhseqno
    LOOP
        PERFORM tenancy._raise('22023', 'parent_not_protected', format('%s is a child of %s, which is not protected', shown, child.parent),
            format('SELECT tenancy.protect_table(%L) protects it and all below it.', child.parent));
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._check_protectable(regclass) IS
    'Internal: refuses what row-level security cannot hold (views, foreign tables), system, extension and temporary tables, and tables of another owner (42501).';

-- The tenant column, where it exists, must compare exactly and come from an INSERT.
CREATE FUNCTION tenancy._check_isolation_column(relation regclass, column_name name, kind text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    col   record;
    shown text := tenancy._relation_name($1);
BEGIN
    IF $2 = '' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('%s_column must not be empty', $3),
            'Name a column, existing or to be made.');
    END IF;
    SELECT a.*, c.collisdeterministic INTO col
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
     WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        IF $3 = 'org' THEN
            PERFORM tenancy._raise('22023', 'unknown_column', format('%s has no column %I', shown, $2),
                format('ALTER TABLE %s ADD COLUMN %I text; fill it, then call protect_table again.', shown, $2));
        END IF;
        RETURN;
    END IF;
    IF col.attnum < 0 THEN
        PERFORM tenancy._raise('22023', 'system_column', format('%I is a system column', $2), 'Name a column of your own.');
    END IF;
    IF tenancy._isolation_accessor($1, $2, $3) IS NULL THEN
        PERFORM tenancy._raise('22023', 'column_type',
            format('column %I of %s is %s', $2, shown, format_type(col.atttypid, col.atttypmod)),
            CASE $3 WHEN 'tenant'
                THEN format('It must be text, uuid or bigint, so that a policy can compare it without a cast: ALTER TABLE %s ALTER COLUMN %I TYPE %s.',
                            shown, $2, CASE WHEN col.atttypid IN ('smallint'::regtype, 'integer'::regtype) THEN 'bigint' ELSE 'text' END)
                ELSE format('It must be text or uuid, so that a policy can compare it without a cast: ALTER TABLE %s ALTER COLUMN %I TYPE text.', shown, $2) END,
            jsonb_build_object('type', format_type(col.atttypid, col.atttypmod)));
    END IF;
    IF NOT coalesce(col.collisdeterministic, true) THEN
        PERFORM tenancy._raise('22023', 'column_collation',
            format('column %I of %s has a nondeterministic collation: different ids would be equal', $2, shown),
            format('ALTER TABLE %s ALTER COLUMN %I TYPE text COLLATE "C".', shown, $2));
    END IF;
    IF $3 = 'tenant' AND (col.attgenerated <> '' OR col.attidentity <> '') THEN
        PERFORM tenancy._raise('22023', 'generated_column', format('column %I of %s is generated', $2, shown),
            'The tenant is set when a row is inserted and never computed: use an ordinary column.');
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._check_isolation_column(regclass, name, text) IS
    'Internal: refuses (22023) a tenant column that is not text, uuid or bigint, compares loosely or is generated, and an organization column that is not text or uuid.';

-- A floor binds a role that has the privileges of any role the floor is TO: an operator must have none of them.
CREATE FUNCTION tenancy._check_operator_role(relation regclass, operator_role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    bound name;
BEGIN
    IF $2 IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $2) THEN
        PERFORM tenancy._raise('22023', 'unknown_role', format('role %I does not exist', $2), 'CREATE ROLE first.');
    END IF;
    IF EXISTS (SELECT FROM tenancy._isolation_grants($1) g WHERE g.grantee = 0) THEN
        PERFORM tenancy._raise('22023', 'granted_to_public',
            format('%s is granted to PUBLIC, and so to the operator role as well', tenancy._relation_name($1)),
            format('REVOKE ALL ON %s FROM PUBLIC; and grant it to the roles that need it.', tenancy._relation_name($1)));
    END IF;
    IF tenancy._isolation_roles($1, $2) IS NULL THEN
        PERFORM tenancy._raise('22023', 'nobody_to_bind', format('besides %I there is no role that a floor could bind', $2),
            'Name an operator role of its own: one that neither owns the table nor has pg_read_all_data and pg_write_all_data.');
    END IF;
    SELECT r.role INTO bound
      FROM unnest(tenancy._isolation_roles($1, $2)) AS r(role)
     WHERE pg_has_role($2, r.role, 'USAGE')
       AND NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = $2)
     LIMIT 1;
    IF FOUND THEN
        PERFORM tenancy._raise('22023', 'operator_is_bound',
            format('operator role %I has the privileges of %I, whom the tenant floor binds', $2, bound),
            format('REVOKE %I FROM %I, or name a role of its own.', bound, $2));
    END IF;
    -- Services and operators have application access too; whoever has that alone acts for one tenant.
    IF has_function_privilege($2, 'tenancy.authenticate(text)', 'EXECUTE')
       AND NOT has_function_privilege($2, 'tenancy.act_as(text,text,text,text,text)', 'EXECUTE')
       AND NOT has_function_privilege($2, 'tenancy.audit_isolation()', 'EXECUTE') THEN
        PERFORM tenancy._raise('22023', 'operator_is_application',
            format('role %I has application access, and as operator role it would see every tenant''s rows', $2),
            'Name a role that no application connects as, or give it service or operator access: SELECT tenancy.grant_access(role, ''operator'').');
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._check_operator_role(regclass, name) IS
    'Internal: refuses (22023) an operator role that does not exist, that the tenant floor would bind anyway, or that is an application''s.';

-- Rows as they are, not as policies show them. The owner may lift FORCE; the exception takes that back.
CREATE FUNCTION tenancy._count_rows(relation regclass, condition text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    counted bigint;
    counting text := format('SELECT count(*) FROM %s WHERE %s', tenancy._relation_name($1), $2);
BEGIN
    IF NOT (SELECT c.relforcerowsecurity FROM pg_catalog.pg_class c WHERE c.oid = $1) THEN
        EXECUTE counting INTO counted;
        RETURN counted;
    END IF;
    BEGIN
        EXECUTE format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', tenancy._relation_name($1));
        EXECUTE counting INTO counted;
        RAISE EXCEPTION USING ERRCODE = 'TN000', MESSAGE = 'counted; FORCE stands again';
    EXCEPTION WHEN SQLSTATE 'TN000' THEN
        RETURN counted;
    END;
END;
$$;
COMMENT ON FUNCTION tenancy._count_rows(regclass, text) IS
    'Internal: counts a table''s rows past its own policies; caller must own the table. The condition is built by us with %I and %L.';

-- A default taken from whoever is authenticated cannot say to whom the rows of yesterday belong.
CREATE FUNCTION tenancy._check_rows_have_tenant(relation regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    present boolean;
    rows    bigint;
    shown   text := tenancy._relation_name($1);
BEGIN
    -- A child may take NULLs under a parent that takes none.
    IF (SELECT bool_and(coalesce(a.attnotnull, false))
          FROM tenancy._isolation_tree($1) t
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = $2 AND NOT a.attisdropped) THEN
        RETURN;
    END IF;
    present := EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped);
    rows := tenancy._count_rows($1, CASE WHEN present THEN format('%I IS NULL', $2) ELSE 'true' END);
    IF rows > 0 THEN
        PERFORM tenancy._raise('22023', 'rows_without_tenant',
            CASE WHEN present THEN format('%s row(s) of %s have no %I', rows, shown, $2)
                 ELSE format('%s has %s row(s) and no column %I', shown, rows, $2) END,
            format('Say whose they are first: CALL tenancy.protect_table_online(%L, backfill => …), or fill the column yourself.', shown),
            jsonb_build_object('rows', rows));
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._check_rows_have_tenant(regclass, name) IS
    'Internal: refuses (22023, reason rows_without_tenant, with their number) a table with rows that belong to no tenant.';

-- The arguments, checked, with what is recorded filled in for what was left out.
CREATE FUNCTION tenancy._protection_target(
    INOUT relation regclass, INOUT tenant_column name, INOUT org_column name,
    INOUT operator_role name, INOUT composite_keys boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known record;
BEGIN
    SELECT * INTO known FROM tenancy._protection_of(_protection_target.relation);
    PERFORM tenancy._check_protectable(relation);
    tenant_column := coalesce(tenant_column, 'tenant_id');
    -- A renamed column took its policies along: then the new name is as good as the recorded one.
    IF known.tenant_column <> tenant_column
       AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = _protection_target.relation AND a.attname = known.tenant_column AND NOT a.attisdropped) THEN
        PERFORM tenancy._raise('22023', 'other_tenant_column',
            format('%s is protected by its column %I', tenancy._relation_name(relation), known.tenant_column),
            format('Name that column, or SELECT tenancy.unprotect_table(%L) first.', tenancy._relation_name(relation)));
    END IF;
    -- Left out in a later call, they stay as they are.
    org_column := coalesce(org_column, known.org_column);
    operator_role := coalesce(operator_role, known.operator_role);
    composite_keys := coalesce(composite_keys, false);
    PERFORM tenancy._check_isolation_column(relation, tenant_column, 'tenant');
    IF org_column IS NOT NULL THEN
        PERFORM tenancy._check_isolation_column(relation, org_column, 'org');
    END IF;
    PERFORM tenancy._check_operator_role(relation, operator_role);
    IF composite_keys THEN
        PERFORM tenancy._check_composite_keys(relation, tenant_column);
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._protection_target(regclass, name, name, name, boolean) IS
    'Internal: the checked arguments of protect_table, with the recorded ones for those left out.';
