-- guard_schema: a table, partition, view or policy that would open a hole is reported, protected or refused.
--
-- Event triggers need a superuser, so the extension makes them; they do nothing until a schema is guarded. They run as
-- the extension's owner: whoever may create a table is then protected without any right in tenancy.

CREATE FUNCTION tenancy.guard_schema(schema name, mode text, tenant_column name DEFAULT 'tenant_id') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    before text;
    holes  bigint;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_one_of(guard_schema.mode, 'mode', ARRAY['report', 'protect', 'refuse']);
    PERFORM tenancy._require_value(guard_schema.tenant_column, 'tenant_column');
    IF to_regnamespace(quote_ident(guard_schema.schema)) IS NULL THEN
        PERFORM tenancy._raise('22023', 'unknown_schema', format('schema %I does not exist', coalesce(guard_schema.schema, '')),
            'Name a schema of your own: SELECT tenancy.guard_schema(''public'', ''report'');');
    END IF;
    IF guard_schema.schema IN ('tenancy', 'information_schema') OR guard_schema.schema LIKE 'pg\_%' THEN
        PERFORM tenancy._raise('22023', 'own_schema', format('schema %I is not one of yours', guard_schema.schema),
            'Name a schema of your own: SELECT tenancy.guard_schema(''public'', ''report'');');
    END IF;
    SELECT g.mode INTO before FROM tenancy.guarded_schemas g WHERE g.schema_name = guard_schema.schema FOR UPDATE;
    UPDATE tenancy.guarded_schemas g
       SET mode = guard_schema.mode, tenant_column = guard_schema.tenant_column, guarded_by = session_user, updated_at = now(),
           database_oid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
     WHERE g.schema_name = guard_schema.schema;
    IF NOT FOUND THEN
        INSERT INTO tenancy.guarded_schemas AS g (schema_name, mode, tenant_column, guarded_by, database_oid)
        SELECT guard_schema.schema, guard_schema.mode, guard_schema.tenant_column, session_user, d.oid
          FROM pg_catalog.pg_database d WHERE d.datname = current_database();
    END IF;
    SELECT count(*) INTO holes
      FROM tenancy._audit_findings() f
     WHERE f.severity = 'error' AND f.waived_because IS NULL AND starts_with(f.object, format('%I.', guard_schema.schema));
    IF holes > 0 THEN
        RAISE NOTICE 'schema % has % hole(s) already, which the guard leaves alone', quote_ident(guard_schema.schema), holes
            USING HINT = 'SELECT * FROM tenancy.audit_isolation() lists them with their remedies.';
    END IF;
    RETURN coalesce(before, 'off');
END;
$$;
COMMENT ON FUNCTION tenancy.guard_schema(name, text, name) IS
$$Watches a schema from now on: a new table or partition, also a foreign one, a view over a protected table, a changed policy that would open a hole. mode report: a WARNING as the transaction commits; protect: tables are protected and views made security_invoker at once, what cannot be is refused; refuse: the transaction fails as it commits, unless it closed the hole itself. What tenancy.exempt waives is let through. Returns the mode before, or off. For the extension's owner and superusers.
Errors: 22023 invalid_argument, unknown_schema, own_schema. Refused transactions: 42501 reason isolation_guard.$$;

CREATE FUNCTION tenancy.unguard_schema(schema name) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    DELETE FROM tenancy.guarded_schemas g WHERE g.schema_name = unguard_schema.schema;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION tenancy.unguard_schema(name) IS
    'Ends tenancy.guard_schema for a schema; false where it was not guarded. For the extension''s owner and superusers.';

-- The strictest guard that a relation falls under: of its schema, of those it is a part of, of the tables a view reads.
CREATE FUNCTION tenancy._guard_of(relation oid, OUT mode text, OUT tenant_column name)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    WITH RECURSIVE concerned(oid) AS (
        SELECT $1
        UNION
        SELECT n.oid
          FROM concerned k
         CROSS JOIN LATERAL (
                SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i WHERE i.inhrelid = k.oid
                UNION ALL
                SELECT d.refobjid
                  FROM pg_catalog.pg_rewrite w
                  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
                  JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
                 WHERE w.ev_class = k.oid) n
    )
    SELECT g.mode, g.tenant_column INTO mode, tenant_column
      FROM concerned k
      JOIN pg_catalog.pg_class c ON c.oid = k.oid
      JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
      JOIN tenancy.guarded_schemas g ON g.schema_name = s.nspname
      JOIN pg_catalog.pg_database d ON d.oid = g.database_oid AND d.datname = current_database()
     ORDER BY array_position(ARRAY['refuse', 'protect', 'report'], g.mode), (k.oid = $1) DESC
     LIMIT 1;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_of(oid) IS 'Internal: the guard a relation falls under; NULL: none.';

-- A dump restores tables first and policies last: judged in between, every restore would be refused. So a guard belongs
-- to one database, and comes along to another only once all that was protected stands there and nothing else is open.
CREATE FUNCTION tenancy._arm_guards() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    here oid := (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
BEGIN
    IF EXISTS (SELECT FROM tenancy.guarded_schemas g WHERE g.database_oid <> here)
       AND NOT EXISTS (SELECT FROM tenancy._audit_undone() a WHERE a.rule <> 'dangerous_grant')
       -- Whatever was open before it was dumped may yet be altered by the restore.
       AND NOT EXISTS (SELECT FROM tenancy._audit_findings() a WHERE a.rule = 'unprotected_table' AND a.waived_because IS NULL) THEN
        UPDATE tenancy.guarded_schemas g SET database_oid = here WHERE g.database_oid <> here;
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._arm_guards() IS
    'Internal: arms guards that came with a restored or cloned database, once all its protected tables stand and no other is open.';

CREATE FUNCTION tenancy._guard_changed(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    guard record;
BEGIN
    SELECT * INTO guard FROM tenancy._guard_of($1);
    -- A row of this transaction's own: noted already, or the change is ours, made while protecting.
    IF guard.mode IS NULL
       OR EXISTS (SELECT FROM tenancy.guard_pending p WHERE p.transaction_id = pg_current_xact_id() AND p.relation = $1 AND guard.mode <> 'protect') THEN
        RETURN;
    END IF;
    INSERT INTO tenancy.guard_pending (transaction_id, relation) VALUES (pg_current_xact_id(), $1)
    ON CONFLICT ON CONSTRAINT guard_pending_pkey DO NOTHING;
    IF guard.mode = 'protect' THEN
        PERFORM tenancy._guard_protect($1::regclass, guard.tenant_column);
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_changed(oid) IS 'Internal: notes a changed relation for the judgement at commit; in mode protect, protects it now.';

CREATE FUNCTION tenancy._guard_protect(relation regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known record;
    shown text := tenancy._relation_name($1);
    kind  "char" := (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = $1);
BEGIN
    -- The statements below come back to us as changes of their own; relation 0 says that they are ours.
    IF EXISTS (SELECT FROM tenancy.guard_pending p WHERE p.transaction_id = pg_current_xact_id() AND p.relation = 0) THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM tenancy.isolation_exemptions e
                WHERE e.object = shown AND e.rule IN ('unprotected_table', 'view_runs_as_owner') AND (e.expires_at IS NULL OR e.expires_at > now())) THEN
        RETURN;
    END IF;
    INSERT INTO tenancy.guard_pending (transaction_id, relation) VALUES (pg_current_xact_id(), 0);
    IF kind = 'v' THEN
        EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', shown);
    ELSIF kind IN ('r', 'p') THEN
        SELECT * INTO known FROM tenancy._protection_of($1);
        PERFORM tenancy.protect_table($1, coalesce(known.tenant_column, $2));
    END IF;
    DELETE FROM tenancy.guard_pending p WHERE p.transaction_id = pg_current_xact_id() AND p.relation = 0;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_protect(regclass, name) IS 'Internal: protects a table, or makes a view run with its caller''s rights.';

CREATE FUNCTION tenancy._guard_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    changed oid;
BEGIN
    -- Inert, and cheap, until a schema is guarded.
    IF to_regclass('tenancy.guarded_schemas') IS NULL OR to_regclass('tenancy.guard_pending') IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM tenancy.guarded_schemas) THEN
        RETURN;
    END IF;
    PERFORM tenancy._arm_guards();
    -- ATTACH PARTITION names the parent alone: so whatever is below a changed table has changed.
    FOR changed IN
        SELECT DISTINCT c.oid
          FROM pg_event_trigger_ddl_commands() e
          LEFT JOIN pg_catalog.pg_policy p ON e.classid = 'pg_policy'::regclass AND p.oid = e.objid
         CROSS JOIN LATERAL tenancy._isolation_tree(CASE WHEN e.classid = 'pg_class'::regclass THEN e.objid ELSE p.polrelid END) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE NOT e.in_extension AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
         ORDER BY c.oid
    LOOP
        PERFORM tenancy._guard_changed(changed);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_ddl() IS 'Internal: the event trigger behind tenancy.guard_schema; does nothing until a schema is guarded.';

CREATE FUNCTION tenancy._guard_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    changed oid;
BEGIN
    IF to_regclass('tenancy.guarded_schemas') IS NULL OR to_regclass('tenancy.guard_pending') IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM tenancy.guarded_schemas) THEN
        RETURN;
    END IF;
    -- A policy that went with its table leaves no table to look at.
    FOR changed IN
        SELECT DISTINCT to_regclass(format('%I.%I', e.address_names[1], e.address_names[2]))::oid
          FROM pg_event_trigger_dropped_objects() e
         WHERE e.object_type = 'policy'
           AND to_regclass(format('%I.%I', e.address_names[1], e.address_names[2])) IS NOT NULL
    LOOP
        PERFORM tenancy._guard_changed(changed);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_drop() IS 'Internal: the same for policies that are dropped.';

CREATE FUNCTION tenancy._guard_at_commit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    changed   oid[];
    looked_at oid[];
    hole      record;
BEGIN
    WITH done AS (
        DELETE FROM tenancy.guard_pending p WHERE p.transaction_id = pg_current_xact_id() RETURNING p.relation
    )
    SELECT array_agg(d.relation) INTO changed FROM done d;
    IF changed IS NULL THEN
        -- An earlier row of this transaction had it judged already.
        RETURN NULL;
    END IF;
    -- A foreign key of theirs is judged with the table it points at.
    looked_at := changed || ARRAY(SELECT k.confrelid FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY (changed));
    FOR hole IN
        SELECT f.rule, r.title, f.object, f.finding, f.remedy, g.mode
          FROM unnest(changed) AS u(relation)
          JOIN pg_catalog.pg_class c ON c.oid = u.relation
         CROSS JOIN LATERAL tenancy._guard_of(u.relation) g
          JOIN tenancy._audit_findings(looked_at) f
            ON f.object = tenancy._relation_name(u.relation) OR starts_with(f.object, tenancy._relation_name(u.relation) || '/')
          JOIN tenancy.audit_rules() r ON r.rule = f.rule
         WHERE f.waived_because IS NULL AND f.severity = 'error' AND g.mode IS NOT NULL
         ORDER BY g.mode <> 'report' DESC, f.object, f.rule
    LOOP
        IF hole.mode <> 'report' THEN
            PERFORM tenancy._raise('42501', 'isolation_guard', format('%s would open a hole: %s', hole.object, hole.title),
                format(E'%s\nOr, if it is meant: SELECT tenancy.exempt(%L, %L, ''why'');', hole.remedy, hole.object, hole.rule),
                jsonb_build_object('rule', hole.rule, 'object', hole.object, 'finding', hole.finding));
        END IF;
        RAISE WARNING '% opens a hole (%): %', hole.object, hole.rule, hole.finding USING HINT = hole.remedy;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tenancy._guard_at_commit() IS 'Internal: judges what the transaction changed in guarded schemas.';

CREATE EVENT TRIGGER tenancy_guard ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE SCHEMA', 'CREATE VIEW', 'ALTER VIEW',
                 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
                 'IMPORT FOREIGN SCHEMA', 'CREATE POLICY', 'ALTER POLICY')
    EXECUTE FUNCTION tenancy._guard_ddl();
COMMENT ON EVENT TRIGGER tenancy_guard IS 'pg_tenancy''s guard against unprotected tables and views; inert until tenancy.guard_schema is called.';
CREATE EVENT TRIGGER tenancy_guard_drop ON sql_drop
    WHEN TAG IN ('DROP POLICY', 'ALTER TABLE', 'DROP FUNCTION', 'DROP OWNED')
    EXECUTE FUNCTION tenancy._guard_drop();
COMMENT ON EVENT TRIGGER tenancy_guard_drop IS 'pg_tenancy''s guard against dropped policies; inert until tenancy.guard_schema is called.';
