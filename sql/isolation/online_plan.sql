-- protection_plan: the same end as protect_table, in steps that each hold a strong lock for a moment only.
-- protect_table_online does the first step of the plan, commits, and makes the plan anew: what is listed is what is done.

-- Name of the constraint that stands for NOT NULL until every row has its tenant.
CREATE FUNCTION tenancy._required_check() RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 'tenancy_tenant_required'::name $$;
COMMENT ON FUNCTION tenancy._required_check() IS
    'Internal: name of the check constraint that an online protection adds NOT VALID, validates, and drops after SET NOT NULL.';

CREATE FUNCTION tenancy._replacement_name(key_name name) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    -- 63 bytes are all a name has; long names that begin alike must not meet.
    SELECT (CASE WHEN octet_length($1::text) <= 56 THEN $1::text
                ELSE left($1::text, CASE WHEN octet_length($1::text) = length($1::text) THEN 47 ELSE 11 END) || '_' || left(md5($1::text), 8)
           END || '_tenant')::name;
$$;
COMMENT ON FUNCTION tenancy._replacement_name(name) IS
    'Internal: name under which the index or foreign key that will replace another is built.';

-- Found by what it is, whatever its name; one that a constraint owns is not free.
CREATE FUNCTION tenancy._replacement_index(index_oid oid, tenant_column name, OUT name name, OUT valid boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT c.relname, i.indisvalid
      FROM pg_catalog.pg_index old
      JOIN pg_catalog.pg_index i ON i.indrelid = old.indrelid AND i.indisunique
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     WHERE old.indexrelid = $1
       AND tenancy._key_columns(i.indexrelid) = quote_ident($2) || ', ' || tenancy._key_columns($1)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
     ORDER BY i.indisvalid DESC, c.relname
     LIMIT 1;
$$;
COMMENT ON FUNCTION tenancy._replacement_index(oid, name) IS
    'Internal: the index that stands ready to replace another, with the tenant in front, and whether it is whole; NULL: none yet.';

-- The expression that says whose a row is: given, or looked up in a mapping table.
CREATE FUNCTION tenancy._backfill_expression(
    root regclass, backfill text, mapping_table regclass, mapping_key name, mapping_tenant name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    missing record;
BEGIN
    IF mapping_table IS NULL THEN
        RETURN nullif(btrim(backfill), '');
    END IF;
    IF backfill IS NOT NULL OR mapping_key IS NULL OR mapping_tenant IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'mapping_table goes with mapping_key and mapping_tenant, and not with backfill',
            'mapping_key names the column that the table and the mapping table share.');
    END IF;
    -- Before anything is changed, and not when the rows are filled.
    SELECT w.relation, w.name INTO missing
      FROM (VALUES (mapping_table, mapping_key), (mapping_table, mapping_tenant), (root, mapping_key)) AS w (relation, name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = w.relation AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped)
     LIMIT 1;
    IF FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_column',
            format('%s has no column %I', coalesce(tenancy._relation_name(missing.relation), 'table_name'), missing.name),
            'mapping_key names the column that the table and the mapping table share, mapping_tenant the tenant''s in the mapping table.');
    END IF;
    RETURN format('(SELECT m.%I FROM %s m WHERE m.%I = t.%I)',
                  mapping_tenant, tenancy._relation_name(mapping_table), mapping_key, mapping_key);
END;
$$;
COMMENT ON FUNCTION tenancy._backfill_expression(regclass, text, regclass, name, name) IS
    'Internal: the expression that gives a row its tenant, from backfill or from a mapping table; NULL where neither is given.';

CREATE FUNCTION tenancy.protection_plan(
    table_name     regclass,
    tenant_column  name     DEFAULT 'tenant_id',
    org_column     name     DEFAULT NULL,
    composite_keys boolean  DEFAULT false,
    operator_role  name     DEFAULT NULL,
    backfill       text     DEFAULT NULL,
    mapping_table  regclass DEFAULT NULL,
    mapping_key    name     DEFAULT NULL,
    mapping_tenant name     DEFAULT 'tenant_id')
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    target record;
    expression text := tenancy._backfill_expression(protection_plan.table_name, protection_plan.backfill,
                                                    protection_plan.mapping_table, protection_plan.mapping_key, protection_plan.mapping_tenant);
BEGIN
    SELECT * INTO target FROM tenancy._protection_target(protection_plan.table_name, protection_plan.tenant_column,
        protection_plan.org_column, protection_plan.operator_role, protection_plan.composite_keys);
    RETURN QUERY SELECT r.* FROM tenancy._row_plan(target.relation, target.tenant_column, expression) r;
    RETURN QUERY SELECT i.* FROM tenancy._index_plan(target.relation, target.tenant_column, target.composite_keys) i;
    IF target.composite_keys THEN
        RETURN QUERY SELECT k.* FROM tenancy._key_plan(target.relation, target.tenant_column) k;
    END IF;
    RETURN QUERY
        SELECT p.step, p.statement, 'ACCESS EXCLUSIVE, for a moment', true
          FROM tenancy._policy_statements(target.relation, target.tenant_column, target.org_column, target.operator_role) p
        UNION ALL
        SELECT r.step, r.statement, 'none on rows', true
          FROM tenancy._revoke_statements(target.relation, target.operator_role) r;
END;
$$;
COMMENT ON FUNCTION tenancy.protection_plan(regclass, name, name, boolean, name, text, regclass, name, name) IS
$$What is still to be done to protect a table while it is in use, in order: each step with its statement, the locks it takes and how long, and whether reads and writes go on meanwhile. CALL tenancy.protect_table_online does them, but for the CREATE INDEX CONCURRENTLY, which no procedure may run: those are yours. No row: the table is protected. backfill is an SQL expression over the row, as alias t, with qualified names; or mapping_table gives, for the value of mapping_key, the tenant in mapping_tenant. The caller must own the table.
Errors: as protect_table.$$;

-- Column, default, rows, NOT NULL.
CREATE FUNCTION tenancy._row_plan(root regclass, tenant_column name, expression text)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    shown  text := tenancy._relation_name($1);
    filled boolean;
    col    record;
BEGIN
    -- A child may take NULLs under a parent that takes none.
    SELECT (SELECT bool_and(n.attnotnull) FROM tenancy._isolation_tree($1) t
              JOIN pg_catalog.pg_attribute n ON n.attrelid = t.relation AND n.attname = $2 AND NOT n.attisdropped) AS attnotnull,
           k.convalidated INTO col
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = a.attrelid AND k.conname = tenancy._required_check()
     WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped;
    filled := coalesce(col.attnotnull OR col.convalidated, false);
    RETURN QUERY SELECT c.step, c.statement, 'ACCESS EXCLUSIVE, for a moment', true
                   FROM tenancy._column_statements($1, $2) c WHERE c.step IN ('column', 'default');
    IF NOT filled THEN
        RETURN QUERY VALUES ('backfill', format('UPDATE %s t SET %I = %s WHERE t.%I IS NULL', shown, $2, coalesce($3, '(backfill)'), $2),
                             'ROW EXCLUSIVE; rows in batches, those locked by others later', true);
        IF col.convalidated IS NULL THEN
            RETURN QUERY VALUES ('check', format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I IS NOT NULL) NOT VALID', shown, tenancy._required_check(), $2),
                                 'ACCESS EXCLUSIVE, for a moment', true);
        END IF;
        RETURN QUERY VALUES ('validate', format('ALTER TABLE %s VALIDATE CONSTRAINT %I', shown, tenancy._required_check()),
                             'SHARE UPDATE EXCLUSIVE, for one scan', true);
    END IF;
    IF NOT coalesce(col.attnotnull, false) THEN
        RETURN QUERY SELECT c.step, c.statement, 'ACCESS EXCLUSIVE, for a moment: the validated check spares the scan', true
                       FROM tenancy._column_statements($1, $2) c WHERE c.step = 'not_null';
    END IF;
    IF NOT filled OR col.convalidated IS NOT NULL THEN
        RETURN QUERY VALUES ('drop_check', format('ALTER TABLE %s DROP CONSTRAINT %I', shown, tenancy._required_check()),
                             'ACCESS EXCLUSIVE, for a moment', true);
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._row_plan(regclass, name, text) IS
    'Internal: the steps until every row has its tenant and the column is NOT NULL.';

-- No procedure may run CREATE INDEX CONCURRENTLY; a partitioned parent's index takes in those its partitions have.
CREATE FUNCTION tenancy._index_plan(root regclass, tenant_column name, composite_keys boolean)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    wanted record;
    leaf   record;
    parts  text;
BEGIN
    FOR wanted IN
        SELECT i.relation, i.statement, c.relkind
          FROM tenancy._index_statements($1, $2, $3) i JOIN pg_catalog.pg_class c ON c.oid = i.relation
    LOOP
        parts := regexp_replace(wanted.statement, '^.* \((.*)\)$', '\1');
        IF wanted.relkind <> 'p' THEN
            RETURN QUERY VALUES ('index', replace(wanted.statement, 'CREATE INDEX ON', 'CREATE INDEX CONCURRENTLY ON'),
                                 'SHARE UPDATE EXCLUSIVE; yours to run', true);
            CONTINUE;
        END IF;
        FOR leaf IN
            SELECT t.relation FROM tenancy._isolation_tree(wanted.relation) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
             WHERE c.relkind = 'r'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                                WHERE i.indrelid = t.relation AND i.indisvalid AND i.indpred IS NULL
                                  AND pg_get_indexdef(i.indexrelid) LIKE '% USING btree (' || replace(replace(parts, '\', '\\'), '_', '\_') || ')')
        LOOP
            RETURN QUERY VALUES ('index', format('CREATE INDEX CONCURRENTLY ON %s (%s)', tenancy._relation_name(leaf.relation), parts),
                                 'SHARE UPDATE EXCLUSIVE; yours to run', true);
        END LOOP;
        RETURN QUERY VALUES ('parent_index', wanted.statement, 'SHARE, for a moment: it takes in the partitions'' indexes', true);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._index_plan(regclass, name, boolean) IS
    'Internal: the tenant-leading indexes still missing, as statements that do not block writes.';

-- The tenant into keys and foreign keys: built beside the old ones, then put in their place in a moment.
CREATE FUNCTION tenancy._key_plan(root regclass, tenant_column name)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    key         record;
    foreign_key record;
    standing    record;
    brief       text := 'ACCESS EXCLUSIVE on both tables, for a moment';
BEGIN
    IF (SELECT c.relkind = 'p' FROM pg_catalog.pg_class c WHERE c.oid = $1) THEN
        RETURN QUERY SELECT k.step, k.statement, 'ACCESS EXCLUSIVE, while keys are built and checked', false
                       FROM tenancy._key_statements($1, $2) k;
        RETURN;
    END IF;
    FOR key IN
        SELECT u.*, r.name AS built_name, r.valid AS built
          FROM tenancy._unscoped_keys($1, $2) u
          LEFT JOIN LATERAL tenancy._replacement_index(u.index_oid, $2) r ON true
         WHERE u.rewritable
    LOOP
        IF NOT key.built THEN
            RETURN QUERY VALUES ('unique_index', format('DROP INDEX CONCURRENTLY %I.%I',
                (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = key.relation), key.built_name),
                'SHARE UPDATE EXCLUSIVE; yours to run: it was left half built', true);
        END IF;
        IF key.built IS DISTINCT FROM true THEN
            RETURN QUERY VALUES ('unique_index', tenancy._tenant_index(key.index_oid, tenancy._replacement_name(key.key_name), $2, true),
                'SHARE UPDATE EXCLUSIVE; yours to run', true);
        END IF;
    END LOOP;
    FOR foreign_key IN
        SELECT f.*, tenancy._relation_name(f.child) AS shown, tenancy._replacement_name(f.key_name) AS new_name,
               tenancy._tenant_foreign_key(f.constraint_oid, f.child_tenant, f.parent_tenant) AS definition
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL
    LOOP
        SELECT k.convalidated INTO standing FROM pg_catalog.pg_constraint k
         WHERE k.conrelid = foreign_key.child AND k.conname = foreign_key.new_name;
        IF standing.convalidated IS NULL THEN
            RETURN QUERY VALUES ('foreign_key', format('ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID', foreign_key.shown, foreign_key.new_name,
                regexp_replace(foreign_key.definition, ' NOT VALID$', '')), 'SHARE ROW EXCLUSIVE on both tables, for a moment', true);
        END IF;
        IF standing.convalidated IS DISTINCT FROM true AND foreign_key.definition NOT LIKE '% NOT VALID' THEN
            RETURN QUERY VALUES ('validate_key', format('ALTER TABLE %s VALIDATE CONSTRAINT %I', foreign_key.shown, foreign_key.new_name),
                'SHARE UPDATE EXCLUSIVE, for one scan', true);
        END IF;
        RETURN QUERY VALUES ('swap_key', format('ALTER TABLE %s DROP CONSTRAINT %I; ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
            foreign_key.shown, foreign_key.key_name, foreign_key.shown, foreign_key.new_name, foreign_key.key_name), brief, true);
    END LOOP;
    RETURN QUERY
        SELECT 'swap_key', array_to_string(CASE WHEN u.constraint_oid IS NULL
               THEN format('DROP INDEX %I.%I; ALTER INDEX %I.%I RENAME TO %I', n.nspname, u.key_name, n.nspname, r.new_name, u.key_name)
               ELSE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s USING INDEX %I%s', tenancy._relation_name(u.relation),
                           u.key_name, u.key_name, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, r.new_name,
                           CASE WHEN k.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END)
               END || tenancy._key_attachments(u.index_oid, u.key_name), '; '), brief, true
          FROM tenancy._unscoped_keys($1, $2) u
          JOIN pg_catalog.pg_class c ON c.oid = u.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_constraint k ON k.oid = u.constraint_oid
         CROSS JOIN LATERAL (SELECT coalesce((tenancy._replacement_index(u.index_oid, $2)).name, tenancy._replacement_name(u.key_name)) AS new_name) r
         WHERE u.rewritable;
END;
$$;
COMMENT ON FUNCTION tenancy._key_plan(regclass, name) IS
    'Internal: the steps that put the tenant into keys and foreign keys while the tables are in use; not online for partitioned tables.';
