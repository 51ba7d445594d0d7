-- A tenant leaves: export, suspend, delete. Rows are read and deleted with the rights of their table's owner, never with
-- ours: triggers, rules and casts of a table are its owner's code (src/pg/table_owner.rs).

CREATE FUNCTION tenancy._has_pool(relation oid) RETURNS boolean
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'pool_id' AND a.attnotnull
                    WHERE c.oid = $1 AND c.relnamespace = 'tenancy'::regnamespace);
$$;
COMMENT ON FUNCTION tenancy._has_pool(oid) IS 'Internal: whether a table of ours belongs to credit pools.';

-- Of two tables in a circle each is above the other, and both have the same tables above them: whoever has fewer goes first.
CREATE FUNCTION tenancy._tables_above(roots oid[], pools oid DEFAULT NULL) RETURNS TABLE (root oid, above oid)
LANGUAGE sql STABLE ROWS 200 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH RECURSIVE parts AS MATERIALIZED (
        SELECT r.oid AS root, t.relation::oid AS relation FROM unnest($1) AS r(oid) CROSS JOIN LATERAL tenancy._isolation_tree(r.oid) t
    ), links AS MATERIALIZED (
        SELECT c.root AS child, p.root AS parent
          FROM pg_catalog.pg_constraint k JOIN parts c ON c.relation = k.conrelid JOIN parts p ON p.relation = k.confrelid
         WHERE k.contype = 'f'
        UNION
        SELECT r.oid, $2 FROM unnest($1) AS r(oid) WHERE $2 IS NOT NULL AND tenancy._has_pool(r.oid)
    ), reached (child, ancestor) AS (
        SELECT r.oid, r.oid FROM unnest($1) AS r(oid)
        UNION
        SELECT d.child, l.parent FROM reached d JOIN links l ON l.child = d.ancestor
    )
    SELECT d.child, d.ancestor FROM reached d;
$$;
COMMENT ON FUNCTION tenancy._tables_above(oid[], oid) IS
    'Internal: for each table itself and those its rows can lead to, by foreign keys and, for ours, through the table of the pools.';

-- Every table that can hold a tenant's rows, parents of foreign keys first. Ours too, for a deletion: but not the audit
-- logs and receipts, which are evidence, nor the tenant's own entry, which keeps its old tokens out.
CREATE FUNCTION tenancy._tenant_tables(with_own boolean)
RETURNS TABLE (place integer, root regclass, relation regclass, condition text)
LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    roots   oid[];
    columns jsonb;
    pools   oid;
BEGIN
    SELECT array_agg(t.oid), jsonb_object_agg(t.oid::text, t.tenant_column) INTO roots, columns
      FROM (SELECT p.relation::oid AS oid, p.tenant_column::text AS tenant_column FROM tenancy._protections() p
            UNION ALL
            -- Where the rows do not name the tenant, their pool does.
            SELECT c.oid, min('tenant_id') FILTER (WHERE a.attname = 'tenant_id')
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
                   AND (a.attname = 'tenant_id' AND a.atttypid = 'text'::regtype OR a.attname = 'pool_id' AND a.attnotnull)
             WHERE $1 AND c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relname NOT IN ('tenants', 'audit_log', 'token_audit_logs', 'tenant_deletions')
             GROUP BY c.oid) t;
    -- The one table of ours whose key is a pool alone: the others with a pool are found through it.
    SELECT c.oid INTO pools
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indnatts = 1
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = 'pool_id'
     WHERE c.oid = ANY (roots) AND c.relnamespace = 'tenancy'::regnamespace;
    RETURN QUERY
        SELECT p.place::integer, p.root::regclass, t.relation,
               concat_ws(' AND ',
                   CASE WHEN tenancy._has_pool(p.root) AND p.root <> pools
                        THEN format('x.pool_id = ANY (ARRAY(SELECT o.pool_id FROM %s o WHERE o.tenant_id = $1))', tenancy._relation_name(pools)) END,
                   'x.' || quote_ident(a.attname) || ' = $1' || CASE a.atttypid WHEN 'text'::regtype THEN '' ELSE '::' || a.atttypid::regtype END)
          FROM (SELECT b.root, row_number() OVER (ORDER BY count(*), b.root) AS place
                  FROM tenancy._tables_above(roots, pools) b GROUP BY b.root) p
         CROSS JOIN LATERAL tenancy._isolation_tree(p.root) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relkind = 'r'
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = columns ->> p.root::text
         WHERE a.attname IS NOT NULL OR columns ->> p.root::text IS NULL
         ORDER BY p.place, t.relation;
END;
$$;
COMMENT ON FUNCTION tenancy._tenant_tables(boolean) IS
    'Internal: the tables that hold tenants'' rows, in the order of their foreign keys, and the condition that finds one tenant''s, with $1 for its id.';

-- A tenant whose id is no uuid or bigint has no rows in a table keyed by one.
CREATE FUNCTION tenancy._condition_applies(condition text, tenant_id text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE WHEN $1 LIKE '%::uuid' THEN $2 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                WHEN $1 LIKE '%::bigint' THEN $2 ~ '^(0|-?[1-9][0-9]{0,18})$' AND $2::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                ELSE true END;
$$;
COMMENT ON FUNCTION tenancy._condition_applies(text, text) IS
    'Internal: whether a tenant''s id is one for a column of the condition''s type.';

COMMENT ON FUNCTION tenancy._execute_as_owner(oid, text, text) IS
    'Internal: runs a statement on a table with its owner''s rights, in a restricted operation and past FORCE ROW LEVEL SECURITY; argument is $1. Returns the rows touched.';
COMMENT ON FUNCTION tenancy._rows_as_owner(oid, text, text) IS
    'Internal: reads a query''s rows, one text each, with a table''s owner''s rights; argument is $1.';

-- The same lines whatever the session prints like: days before months, fewer digits, another zone.
CREATE FUNCTION tenancy.export_tenant(tenant_id text) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = 'UTC' SET bytea_output = hex SET extra_float_digits = 1
AS $$
DECLARE
    held record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(export_tenant.tenant_id, 'tenant_id');
    PERFORM tenancy._note_action(export_tenant.tenant_id, 'export_tenant');
    FOR held IN
        -- A partition's rows go back in through its parent; a child has columns of its own.
        SELECT t.relation, t.condition, tenancy._relation_name(CASE WHEN c.relispartition THEN t.root ELSE t.relation END) AS name
          FROM tenancy._tenant_tables(false) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE tenancy._condition_applies(t.condition, export_tenant.tenant_id)
         ORDER BY t.place, t.relation
    LOOP
        RETURN QUERY SELECT r.line FROM tenancy._rows_as_owner(held.relation,
            format('SELECT json_build_object(''table'', %L::text, ''row'', row_to_json(x.*))::text FROM ONLY %s x WHERE %s',
                   held.name, tenancy._relation_name(held.relation), held.condition),
            export_tenant.tenant_id) AS r(line);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy.export_tenant(text) IS
$$Every row of a tenant in every protected table, as JSON lines {"table": …, "row": …}, the parents of foreign keys before their children; json_populate_record(NULL::table, row) makes the row again. Call it in REPEATABLE READ for one moment's picture. psql: \copy (SELECT tenancy.export_tenant('…')) TO 'tenant.jsonl'. Noted in tenancy.audit_log.
Errors: 22023 invalid_argument.$$;

CREATE FUNCTION tenancy.suspend_tenant(tenant_id text, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    changed boolean := tenancy.set_tenant_status(suspend_tenant.tenant_id, 'suspended');
BEGIN
    IF changed THEN
        PERFORM tenancy._note_action(suspend_tenant.tenant_id, 'suspend_tenant', suspend_tenant.reason);
    END IF;
    RETURN changed;
END;
$$;
COMMENT ON FUNCTION tenancy.suspend_tenant(text, text) IS
$$Suspends a registered tenant: from now on nobody is authenticated for it, by token, key or act_as; a transaction that was authenticated before ends as it began. A service that names ids can still settle what is under way (deduct_credits, capture_hold, refund_credits). False where it was suspended already; tenancy.set_tenant_status(…, 'active') takes it up again. Noted in tenancy.audit_log with the reason.
Errors: PT404 tenant_not_found; 22023 invalid_argument.$$;

-- What somebody would lose. Other domains add a function _obligations_… of their own; this one knows none of them.
CREATE FUNCTION tenancy._tenant_obligations(tenant_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    asked text;
    owed  jsonb;
    found jsonb := '{}';
BEGIN
    FOR asked IN
        SELECT format('%I.%I', 'tenancy', p.proname) FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.proname LIKE '\_obligations\_%' ORDER BY p.proname
    LOOP
        EXECUTE format('SELECT %s($1)', asked) INTO owed USING _tenant_obligations.tenant_id;
        found := found || coalesce(owed, '{}');
    END LOOP;
    RETURN found;
END;
$$;
COMMENT ON FUNCTION tenancy._tenant_obligations(text) IS
    'Internal: what is still open for a tenant, as the functions tenancy._obligations_…(tenant_id text) → jsonb of the domains say; {}: nothing.';

CREATE FUNCTION tenancy._begin_deletion(tenant_id text, force boolean) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    deletion uuid;
    owed     jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(_begin_deletion.tenant_id, 'tenant_id');
    SELECT d.id INTO deletion FROM tenancy.tenant_deletions d
     WHERE d.tenant_id = _begin_deletion.tenant_id AND d.finished_at IS NULL FOR UPDATE;
    IF FOUND THEN
        RETURN deletion;
    END IF;
    IF NOT coalesce(_begin_deletion.force, false) THEN
        IF NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.tenant_id = _begin_deletion.tenant_id AND t.status = 'suspended') THEN
            PERFORM tenancy._raise('PT422', 'tenant_not_suspended', 'the tenant is not suspended: new rows could come in behind the deletion',
                'SELECT tenancy.suspend_tenant(tenant_id); wait until its transactions have ended; or force => true.');
        END IF;
        owed := tenancy._tenant_obligations(_begin_deletion.tenant_id);
        IF owed <> '{}' THEN
            PERFORM tenancy._raise('PT422', 'obligations_open', 'credits or holds of the tenant are open', 'Settle or refund them first; or force => true.', owed);
        END IF;
    END IF;
    INSERT INTO tenancy.tenant_deletions AS d (tenant_id, forced, requested_by)
    VALUES (_begin_deletion.tenant_id, coalesce(_begin_deletion.force, false), session_user)
    RETURNING d.id INTO deletion;
    PERFORM tenancy._note_action(_begin_deletion.tenant_id, 'delete_tenant', NULL, jsonb_build_object('deletion', deletion, 'forced', _begin_deletion.force));
    RETURN deletion;
END;
$$;
COMMENT ON FUNCTION tenancy._begin_deletion(text, boolean) IS
    'Internal: begins the deletion of a tenant, or finds the unfinished one; PT422 while it is not suspended or something is open, unless forced.';

-- Nobody will know these organizations, whose tokens would be taken for those of tenants of their names. Whoever registers
-- another one locks its tenant's entry, for the foreign key: here it is waited for, and later ones wait.
CREATE FUNCTION tenancy._keep_organizations_out(tenant_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM tenancy.tenants AS t WHERE t.tenant_id = _keep_organizations_out.tenant_id FOR UPDATE;
    INSERT INTO tenancy.tenants (tenant_id, name, status)
    SELECT concat(nullif(o.namespace, '') || '::', o.external_id), format('an organization of %s, which was deleted', o.tenant_id), 'suspended'
      FROM tenancy.organizations AS o WHERE o.tenant_id = _keep_organizations_out.tenant_id
        ON CONFLICT ON CONSTRAINT tenants_pkey DO NOTHING;
END;
$$;
COMMENT ON FUNCTION tenancy._keep_organizations_out(text) IS
    'Internal: gives the names of a tenant''s organizations suspended entries of their own, before the organizations are deleted.';

CREATE FUNCTION tenancy._delete_batch(tenant_id text, deletion uuid, batch_size integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    held    record;
    receipt tenancy.tenant_deletions;
    budget  bigint := _delete_batch.batch_size;
    gone    bigint;
    circle  record;
    part    record;
BEGIN
    PERFORM tenancy._require_installed();
    IF coalesce(_delete_batch.batch_size, 0) NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'batch_size must be between 1 and 1,000,000', 'A few thousand keep each transaction short.');
    END IF;
    SELECT * INTO receipt FROM tenancy.tenant_deletions d
     WHERE d.tenant_id = _delete_batch.tenant_id AND d.id = _delete_batch.deletion AND d.finished_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_deletion', 'no such deletion is under way', 'CALL tenancy.delete_tenant(tenant_id).');
    END IF;
    -- Whatever was to be checked at the end of the transaction is checked here, while the owner's rights hold.
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR held IN
        SELECT * FROM tenancy._tenant_tables(true) t
         WHERE tenancy._condition_applies(t.condition, _delete_batch.tenant_id)
         ORDER BY t.place DESC, t.relation DESC
    LOOP
        IF held.relation = 'tenancy.organizations'::regclass THEN
            PERFORM tenancy._keep_organizations_out(_delete_batch.tenant_id);
        END IF;
        BEGIN
            gone := tenancy._delete_rows(held.relation, held.condition, _delete_batch.tenant_id, budget);
        EXCEPTION WHEN foreign_key_violation THEN
            -- Tables whose keys point at each other: their rows go in one statement, at whose end the keys are looked at.
            WITH held_tables AS MATERIALIZED (
                SELECT t.root::oid AS root, t.relation::oid AS relation, tenancy._relation_name(t.relation) AS name, t.condition
                  FROM tenancy._tenant_tables(true) t WHERE tenancy._condition_applies(t.condition, _delete_batch.tenant_id)
            ), above AS MATERIALIZED (
                SELECT a.root, a.above AS ancestor FROM tenancy._tables_above(ARRAY(SELECT DISTINCT h.root FROM held_tables h)) a
            ), members AS (
                SELECT h.*, row_number() OVER (ORDER BY h.relation) AS number, r.relowner
                  FROM held_tables h
                  JOIN pg_catalog.pg_class r ON r.oid = h.relation
                  JOIN above p ON p.root = held.root AND p.ancestor = h.root
                  JOIN above c ON c.root = h.root AND c.ancestor = held.root
            )
            SELECT count(DISTINCT m.root) AS roots, count(DISTINCT m.relowner) AS owners,
                   array_agg(m.root::regclass) AS root, array_agg(m.relation) AS relation, array_agg(m.name) AS name, array_agg(m.condition) AS condition,
                   'WITH ' || string_agg(format('d%s AS (DELETE FROM ONLY %s x WHERE %s RETURNING 1)', m.number, m.name, m.condition), ', ')
                   || ' ' || string_agg(format('SELECT 1 FROM d%s', m.number), ' UNION ALL ') AS statement
              INTO circle FROM members m;
            IF circle.roots < 2 OR circle.owners > 1 THEN
                RAISE;
            END IF;
            FOR part IN
                SELECT u.root, sum(r.line::bigint) AS rows
                  FROM unnest(circle.root, circle.relation, circle.name, circle.condition) AS u(root, relation, name, condition)
                 CROSS JOIN LATERAL tenancy._rows_as_owner(u.relation, format('SELECT count(*)::text FROM ONLY %s x WHERE %s', u.name, u.condition),
                                                           _delete_batch.tenant_id) AS r(line)
                 GROUP BY u.root HAVING sum(r.line::bigint) > 0
            LOOP
                receipt.deleted := receipt.deleted || jsonb_build_object(tenancy._relation_name(part.root),
                    coalesce((receipt.deleted ->> tenancy._relation_name(part.root))::bigint, 0) + part.rows);
            END LOOP;
            budget := budget - tenancy._execute_as_owner(held.relation, circle.statement, _delete_batch.tenant_id);
            gone := 0;
        END;
        IF gone > 0 THEN
            receipt.deleted := receipt.deleted || jsonb_build_object(tenancy._relation_name(held.root),
                coalesce((receipt.deleted ->> tenancy._relation_name(held.root))::bigint, 0) + gone);
            budget := budget - gone;
        END IF;
        EXIT WHEN budget <= 0;
    END LOOP;
    UPDATE tenancy.tenant_deletions d
       SET deleted = receipt.deleted, updated_at = now(), finished_at = CASE WHEN budget > 0 THEN now() END
     WHERE d.tenant_id = _delete_batch.tenant_id AND d.id = _delete_batch.deletion;
    IF budget > 0 THEN
        PERFORM tenancy._changed('organizations');
    END IF;
    RETURN jsonb_build_object('tenant_id', _delete_batch.tenant_id, 'deletion', _delete_batch.deletion, 'deleted', receipt.deleted,
                              'rows', (SELECT coalesce(sum(e.value::bigint), 0) FROM jsonb_each_text(receipt.deleted) e), 'done', budget > 0);
END;
$$;
COMMENT ON FUNCTION tenancy._delete_batch(text, uuid, integer) IS
    'Internal: deletes up to batch_size rows of a tenant, children of foreign keys first, those of tables whose keys point at each other all at once, and returns the receipt so far.';

CREATE FUNCTION tenancy._delete_rows(relation regclass, condition text, tenant_id text, budget bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN tenancy._execute_as_owner($1, format('DELETE FROM ONLY %1$s WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM ONLY %1$s x WHERE %2$s LIMIT %3$s))',
                                                tenancy._relation_name($1), $2, $4), $3);
EXCEPTION WHEN foreign_key_violation THEN
    -- Rows that point at each other in one table go in one statement or not at all.
    RETURN tenancy._execute_as_owner($1, format('DELETE FROM ONLY %s x WHERE %s', tenancy._relation_name($1), $2), $3);
END;
$$;
COMMENT ON FUNCTION tenancy._delete_rows(regclass, text, text, bigint) IS 'Internal: deletes a tenant''s rows of one table, as its owner.';

CREATE PROCEDURE tenancy.delete_tenant(
    tenant_id text, force boolean DEFAULT false, batch_size integer DEFAULT 5000, INOUT receipt jsonb DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    deletion pg_catalog.uuid := tenancy._begin_deletion(delete_tenant.tenant_id, delete_tenant.force);
BEGIN
    LOOP
        receipt := tenancy._delete_batch(delete_tenant.tenant_id, deletion, delete_tenant.batch_size);
        COMMIT;
        EXIT WHEN (receipt OPERATOR(pg_catalog.->) 'done')::pg_catalog.bool;
        RAISE NOTICE 'deleted so far: %', receipt OPERATOR(pg_catalog.->>) 'rows';
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE tenancy.delete_tenant(text, boolean, integer, jsonb) IS
$$Deletes a tenant's rows in every protected table and in tenancy's own, the ledger included, children of foreign keys first, batch_size rows a transaction (rows that point at each other, in one table or in several of one owner, go all at once), and returns the receipt: {"tenant_id", "deletion", "deleted": {table: rows}, "rows", "done"}, which is also kept in tenancy.tenant_deletions. Interrupted, it goes on with the next CALL. Audit logs and receipts stay, and the suspended tenant's entry, which keeps its old tokens out, as entries of its organizations' names do. CALL it outside a transaction.
Errors: PT422 tenant_not_suspended, obligations_open (credits or holds), both waived by force => true; 22023; 23503 where rows of another table point at the tenant's; 2D000 inside a transaction.$$;
