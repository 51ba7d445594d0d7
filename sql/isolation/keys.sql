-- Keys and foreign keys that do not carry the tenant, and what composite_keys => true makes of them.
--
-- A unique key over everybody's rows tells one tenant which values another uses (isolation.md 9, 10); a foreign key
-- over them accepts another tenant's parent, tells which exist, and cascades past the policies (12, 13, 14).

-- The column that says whose a row is: as recorded, else (a table not protected yet) one of that name and type.
CREATE FUNCTION tenancy._tenant_column_of(relation regclass, like_column name, like_type oid) RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT coalesce(
            (SELECT p.tenant_column FROM tenancy._protection_of($1) p),
            (SELECT a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = $1 AND a.attname = $2 AND a.atttypid = $3 AND a.attnotnull AND NOT a.attisdropped)));
END;
$$;
COMMENT ON FUNCTION tenancy._tenant_column_of(regclass, name, oid) IS
    'Internal: the tenant column of a table: the recorded one, else a NOT NULL column of that name and type; NULL: the table is shared.';

CREATE FUNCTION tenancy._unscoped_keys(root regclass, tenant_column name)
RETURNS TABLE (relation regclass, index_oid oid, constraint_oid oid, key_name name, kind text, definition text, rewritable boolean)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT i.indrelid::regclass, i.indexrelid, k.oid, c.relname,
               CASE WHEN i.indisexclusion THEN 'exclusion constraint'
                    WHEN i.indisprimary THEN 'primary key'
                    WHEN k.oid IS NOT NULL THEN 'unique constraint'
                    ELSE 'unique index' END,
               coalesce(pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)),
               NOT i.indisexclusion AND i.indisvalid
               AND (k.oid IS NOT NULL OR tenancy._key_columns(i.indexrelid) IS NOT NULL)
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_index i ON i.indrelid = t.relation AND (i.indisunique OR i.indisexclusion)
          JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
          LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
         -- A partition's part of its parent's index changes with the parent's.
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = i.indrelid AND a.attname = $2
                              AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
         ORDER BY t.depth, i.indrelid, c.relname;
END;
$$;
COMMENT ON FUNCTION tenancy._unscoped_keys(regclass, name) IS
    'Internal: primary keys, unique keys and indexes, and exclusion constraints of a table and its children that do not carry the tenant.';

-- Between two tables that both have a tenant; a foreign key into a shared table needs none.
CREATE FUNCTION tenancy._unscoped_foreign_keys(root regclass, tenant_column name)
RETURNS TABLE (
    constraint_oid oid, key_name name, child regclass, parent regclass,
    child_tenant name, parent_tenant name, parent_is_ours boolean, problem text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH tree AS (
            SELECT t.relation FROM tenancy._isolation_tree($1) t
        ), column_type AS (
            SELECT coalesce((SELECT a.atttypid FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped), 'text'::regtype) AS oid
        ), keys AS (
            SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey, k.confkey, k.confmatchtype, k.confupdtype,
                   k.confrelid IN (SELECT tree.relation FROM tree) AS parent_is_ours,
                   CASE WHEN k.conrelid IN (SELECT tree.relation FROM tree) THEN $2
                        ELSE tenancy._tenant_column_of(k.conrelid, $2, y.oid) END AS child_tenant,
                   CASE WHEN k.confrelid IN (SELECT tree.relation FROM tree) THEN $2
                        WHEN k.confrelid = to_regclass('tenancy.organizations') THEN 'tenant_id'
                        ELSE tenancy._tenant_column_of(k.confrelid, $2, y.oid) END AS parent_tenant
              FROM pg_catalog.pg_constraint k CROSS JOIN column_type y
             WHERE k.contype = 'f' AND k.conparentid = 0
               AND (k.conrelid IN (SELECT tree.relation FROM tree) OR k.confrelid IN (SELECT tree.relation FROM tree))
        )
        SELECT k.oid, k.conname, k.conrelid::regclass, k.confrelid::regclass, k.child_tenant, k.parent_tenant, k.parent_is_ours,
               CASE WHEN k.child_tenant IS NULL THEN 'child_has_no_tenant'
                    WHEN coalesce(ca.atttypid, y.oid) <> coalesce(pa.atttypid, y.oid) THEN 'tenant_types_differ'
                    WHEN k.confupdtype IN ('n', 'd') THEN 'on_update_would_clear_the_tenant'
                    WHEN k.confmatchtype = 'f' AND cardinality(k.conkey) > 1 THEN 'match_full'
                    WHEN NOT k.parent_is_ours AND NOT EXISTS (
                            SELECT FROM pg_catalog.pg_index i
                             WHERE i.indrelid = k.confrelid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                               AND (i.indkey::int2[])[0:i.indnkeyatts - 1] @> (pa.attnum || k.confkey)
                               AND (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ (pa.attnum || k.confkey)) THEN 'parent_has_no_such_key'
               END
          FROM keys k CROSS JOIN column_type y
          LEFT JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attname = k.child_tenant AND NOT ca.attisdropped
          LEFT JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attname = k.parent_tenant AND NOT pa.attisdropped
         WHERE k.parent_tenant IS NOT NULL
           AND NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS u(c, p)
                            WHERE u.c = ca.attnum AND u.p = pa.attnum)
         ORDER BY k.conrelid::regclass::text, k.conname;
END;
$$;
COMMENT ON FUNCTION tenancy._unscoped_foreign_keys(regclass, name) IS
    'Internal: foreign keys from or to a table and its children that do not carry the tenant, and what keeps one from being rewritten.';

-- The same foreign key with the tenant in front; ON DELETE SET NULL names its columns, or it would clear the tenant too.
CREATE FUNCTION tenancy._tenant_foreign_key(constraint_oid oid, child_tenant name, parent_tenant name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH k AS (
        SELECT c.*, to_jsonb(c) -> 'confdelsetcols' AS set_columns
          FROM pg_catalog.pg_constraint c WHERE c.oid = $1
    ), names AS (
        SELECT string_agg(quote_ident(ca.attname), ', ' ORDER BY u.ord) AS child,
               string_agg(quote_ident(pa.attname), ', ' ORDER BY u.ord) AS parent,
               string_agg(quote_ident(ca.attname), ', ' ORDER BY u.ord)
                   FILTER (WHERE jsonb_typeof(k.set_columns) IS DISTINCT FROM 'array'
                              OR k.set_columns @> to_jsonb(u.c)) AS cleared
          FROM k CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS u(c, p, ord)
          JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attnum = u.c
          JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.p
    )
    SELECT format('FOREIGN KEY (%I, %s) REFERENCES %s (%I, %s)', $2, n.child,
                             tenancy._relation_name(k.confrelid), $3, n.parent)
           || CASE k.confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE' ELSE '' END
           || CASE k.confdeltype WHEN 'r' THEN ' ON DELETE RESTRICT' WHEN 'c' THEN ' ON DELETE CASCADE'
                                 WHEN 'n' THEN format(' ON DELETE SET NULL (%s)', n.cleared)
                                 WHEN 'd' THEN format(' ON DELETE SET DEFAULT (%s)', n.cleared) ELSE '' END
           || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
           || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
           || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
      FROM k CROSS JOIN names n;
$$;
COMMENT ON FUNCTION tenancy._tenant_foreign_key(oid, name, name) IS
    'Internal: the definition of a foreign key with the tenant in front, its actions and timing kept.';

-- The same key with the tenant in front, and with all that hung on the old one: storage, replica identity, clustering,
-- comment. Only the part that PostgreSQL writes the same way every time is replaced.
CREATE FUNCTION tenancy._tenant_key(relation regclass, key_name name, index_oid oid, constraint_oid oid, definition text, tenant_column name)
RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE
        WHEN $4 IS NOT NULL THEN ARRAY[
            format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s%s%s%s', tenancy._relation_name($1), $2, $2,
                   overlay(substr($5, 1, length($5) - length(d.timing)) PLACING format('(%I, ', $6) FROM strpos($5, '(') FOR 1),
                   ' WITH (' || array_to_string(c.reloptions, ', ') || ')', ' USING INDEX TABLESPACE ' || quote_ident(t.spcname), d.timing)]
        ELSE ARRAY[
            format('DROP INDEX %I.%I', n.nspname, $2),
            tenancy._tenant_index($3, $2, $6, false)]
    END || tenancy._key_attachments($3, $2)
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
     CROSS JOIN LATERAL (SELECT coalesce(substring($5 FROM '(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?$'), '') AS timing) d
     WHERE c.oid = $3;
$$;
COMMENT ON FUNCTION tenancy._tenant_key(regclass, name, oid, oid, text, name) IS
    'Internal: the statements that put the tenant in front of a unique key or index, and give it what the old one had.';

-- What stands behind the bracket in the definition of a unique index.
CREATE FUNCTION tenancy._key_columns(index_oid oid) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE WHEN starts_with(d.definition, d.start) THEN substr(d.definition, length(d.start) + 1) END
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     CROSS JOIN LATERAL (
            SELECT pg_get_indexdef(i.indexrelid) AS definition,
                   format('CREATE UNIQUE INDEX %I ON %s%s USING btree (', c.relname, CASE c.relkind WHEN 'I' THEN 'ONLY ' ELSE '' END,
                          tenancy._relation_name(i.indrelid)) AS start) d
     WHERE i.indexrelid = $1;
$$;
COMMENT ON FUNCTION tenancy._key_columns(oid) IS
    'Internal: the definition of a unique index from its first column on; NULL where it does not begin as expected.';

CREATE FUNCTION tenancy._tenant_index(index_oid oid, new_name name, tenant_column name, concurrently boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT format('CREATE UNIQUE INDEX %s%I ON %s USING btree (%I, ', CASE WHEN $4 THEN 'CONCURRENTLY ' ELSE '' END, $2,
                  tenancy._relation_name(i.indrelid), $3)
           || CASE WHEN t.spcname IS NULL THEN d.columns
                   ELSE substr(d.columns, 1, length(d.columns) - length(d.condition)) || format(' TABLESPACE %I', t.spcname) || d.condition END
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
      LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
     CROSS JOIN LATERAL (SELECT tenancy._key_columns($1) AS columns,
                                coalesce(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), '') AS condition) d
     WHERE i.indexrelid = $1;
$$;
COMMENT ON FUNCTION tenancy._tenant_index(oid, name, name, boolean) IS
    'Internal: the statement that makes a unique index with the tenant in front of another''s columns.';

-- The replica identity is the one that hurts: without it a published table refuses UPDATE and DELETE.
CREATE FUNCTION tenancy._key_attachments(index_oid oid, new_name name) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT array_remove(ARRAY[
            CASE WHEN i.indisreplident THEN format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', n.shown, $2) END,
            CASE WHEN i.indisclustered THEN format('ALTER TABLE %s CLUSTER ON %I', n.shown, $2) END,
            'COMMENT ON CONSTRAINT ' || quote_ident($2) || ' ON ' || n.shown || ' IS ' || quote_literal(obj_description(k.oid, 'pg_constraint')),
            'COMMENT ON INDEX ' || format('%I.%I', n.nspname, $2) || ' IS ' || quote_literal(obj_description($1, 'pg_class'))],
            NULL)
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
      LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
     CROSS JOIN LATERAL (SELECT s.nspname, tenancy._relation_name(i.indrelid) AS shown
                           FROM pg_catalog.pg_namespace s WHERE s.oid = c.relnamespace) n
     WHERE i.indexrelid = $1;
$$;
COMMENT ON FUNCTION tenancy._key_attachments(oid, name) IS
    'Internal: the statements that give the successor of a key its replica identity, clustering and comments.';

CREATE FUNCTION tenancy._key_statements(root regclass, tenant_column name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'foreign_key', f.child, format('ALTER TABLE %s DROP CONSTRAINT %I', tenancy._relation_name(f.child), f.key_name)
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL;
    RETURN QUERY
        SELECT 'key', u.relation, s.statement
          FROM tenancy._unscoped_keys($1, $2) u
         CROSS JOIN LATERAL unnest(tenancy._tenant_key(u.relation, u.key_name, u.index_oid, u.constraint_oid, u.definition, $2))
                    WITH ORDINALITY AS s(statement, ord)
         WHERE u.rewritable
         ORDER BY u.relation, u.key_name, s.ord;
    RETURN QUERY
        SELECT 'foreign_key', f.child, format('ALTER TABLE %s ADD CONSTRAINT %I %s', tenancy._relation_name(f.child), f.key_name,
                                              tenancy._tenant_foreign_key(f.constraint_oid, f.child_tenant, f.parent_tenant))
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL;
END;
$$;
COMMENT ON FUNCTION tenancy._key_statements(regclass, name) IS
    'Internal: the statements that put the tenant into a table''s unique keys, and into the foreign keys from and to it.';

-- A foreign key that cannot be rewritten and needs a key that is about to change: say what to do first.
CREATE FUNCTION tenancy._check_composite_keys(root regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    foreign_key record;
    needed      record;
    shown       text;
BEGIN
    -- A view that groups by a key alone (or a function so written) would say something else with another key.
    FOR needed IN
        SELECT u.kind, u.key_name, u.relation, pg_describe_object(d.classid, d.objid, d.objsubid) AS dependent
          FROM tenancy._unscoped_keys($1, $2) u
          JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_constraint'::regclass AND d.refobjid = u.constraint_oid
         WHERE u.rewritable AND d.deptype = 'n' AND d.classid <> 'pg_constraint'::regclass
         LIMIT 1
    LOOP
        PERFORM tenancy._raise('2BP01', 'key_in_use', format('%s %I of %s is needed by %s', needed.kind, needed.key_name,
                                                             tenancy._relation_name(needed.relation), needed.dependent),
            'It relies on that key alone, as GROUP BY a primary key does: make it group by every column it shows, then call again.');
    END LOOP;
    FOR foreign_key IN
        SELECT * FROM tenancy._unscoped_foreign_keys($1, $2) f
         WHERE (f.parent_is_ours AND f.problem IS NOT NULL) OR f.problem IS NULL
    LOOP
        shown := format('foreign key %I of %s', foreign_key.key_name, tenancy._relation_name(foreign_key.child));
        IF foreign_key.problem = 'child_has_no_tenant' THEN
            PERFORM tenancy._raise('22023', 'foreign_key_without_tenant',
                format('%s points here, and that table has no tenant column', shown),
                format('First: SELECT tenancy.protect_table(%L).', tenancy._relation_name(foreign_key.child)));
        ELSIF foreign_key.problem = 'tenant_types_differ' THEN
            PERFORM tenancy._raise('22023', 'tenant_types_differ', format('%s joins tenant columns of different types', shown),
                'Give both tables a tenant column of the same type.');
        ELSIF foreign_key.problem IS NOT NULL THEN
            PERFORM tenancy._raise('0A000', foreign_key.problem,
                format('%s cannot carry the tenant as it is', shown),
                'Make it MATCH SIMPLE and without ON UPDATE SET NULL or SET DEFAULT, then call protect_table again.');
        END IF;
        IF NOT pg_has_role(current_user,
                (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = foreign_key.child), 'USAGE') THEN
            PERFORM tenancy._raise('42501', 'not_owner',
                format('must be owner of table %s to rewrite its foreign key', tenancy._relation_name(foreign_key.child)),
                'Call it as a role that is a member of both owners.');
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._check_composite_keys(regclass, name) IS
    'Internal: refuses composite_keys where a foreign key into the table cannot be rewritten, or a view relies on a key, and says what comes first.';

CREATE FUNCTION tenancy._report_keys(root regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT * FROM tenancy._unscoped_keys($1, $2) LOOP
        RAISE NOTICE '%: % % does not carry %: a duplicate tells one tenant what another has', tenancy._relation_name(found.relation),
            found.kind, quote_ident(found.key_name), quote_ident($2)
            USING HINT = CASE WHEN found.rewritable THEN 'composite_keys => true puts the tenant in front of it.'
                              ELSE 'Put the tenant into it by hand (an exclusion constraint needs WITH = on it).' END;
    END LOOP;
    FOR found IN SELECT * FROM tenancy._unscoped_foreign_keys($1, $2) LOOP
        RAISE NOTICE '%: foreign key % does not carry the tenant: it can point at another tenant''s row of %',
            tenancy._relation_name(found.child), quote_ident(found.key_name), tenancy._relation_name(found.parent)
            USING HINT = CASE found.problem
                WHEN 'parent_has_no_such_key' THEN format('SELECT tenancy.protect_table(%L, composite_keys => true) makes the key it needs.', tenancy._relation_name(found.parent))
                WHEN 'child_has_no_tenant' THEN format('SELECT tenancy.protect_table(%L) first.', tenancy._relation_name(found.child))
                ELSE 'composite_keys => true rewrites it.' END;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._report_keys(regclass, name) IS
    'Internal: tells by NOTICE which keys and foreign keys do not carry the tenant.';
