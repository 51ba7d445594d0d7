-- protect_table_online: protection_plan, step by step, each in a transaction of its own.
--
-- The procedure commits, so it can neither run with another's rights nor pin its search_path: it names everything in
-- full and leaves the work to functions that do pin it. Everything runs with the caller's rights.

CREATE FUNCTION tenancy._progress_of(table_name regclass)
RETURNS TABLE (part regclass, next_block bigint, last_block bigint, rows_filled bigint, sweep_filled bigint, swept boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT r.part, r.next_block, r.last_block, r.rows_filled, r.sweep_filled, r.swept
                   FROM tenancy.protection_runs r
                  WHERE r.relation = _progress_of.table_name AND r.finished_at IS NULL;
END;
$$;
COMMENT ON FUNCTION tenancy._progress_of(regclass) IS
    'Internal: where the backfill of an unfinished online protection stands; no row: at the beginning.';

CREATE FUNCTION tenancy._note_progress(
    table_name regclass, step text, message text,
    part regclass DEFAULT NULL, next_block bigint DEFAULT 0, last_block bigint DEFAULT NULL,
    filled bigint DEFAULT 0, sweep_filled bigint DEFAULT 0, swept boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    UPDATE tenancy.protection_runs r
       SET step = _note_progress.step,
           message = _note_progress.message,
           part = _note_progress.part,
           next_block = _note_progress.next_block,
           last_block = _note_progress.last_block,
           rows_filled = CASE WHEN r.finished_at IS NULL OR _note_progress.step = 'done' THEN r.rows_filled ELSE 0 END
                         + _note_progress.filled,
           sweep_filled = _note_progress.sweep_filled,
           swept = _note_progress.swept,
           updated_at = now(),
           finished_at = CASE WHEN _note_progress.step = 'done' THEN now() END
     WHERE r.relation = _note_progress.table_name;
    IF NOT FOUND THEN
        INSERT INTO tenancy.protection_runs AS r (relation, step, message, part, next_block, last_block,
                                                  rows_filled, sweep_filled, swept, started_by, finished_at)
        VALUES (_note_progress.table_name, _note_progress.step, _note_progress.message, _note_progress.part,
                _note_progress.next_block, _note_progress.last_block, _note_progress.filled, _note_progress.sweep_filled,
                _note_progress.swept, session_user, CASE WHEN _note_progress.step = 'done' THEN now() END)
        ON CONFLICT ON CONSTRAINT protection_runs_pkey DO NOTHING;
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._note_progress(regclass, text, text, regclass, bigint, bigint, bigint, bigint, boolean) IS
    'Internal: writes the progress of an online protection. Nobody relies on it: what a false entry skips, the NOT NULL step finds.';

-- One batch. Rows that somebody has locked are left for the next sweep: we hold locks and never wait for one,
-- so that no client can be part of a deadlock with us.
CREATE FUNCTION tenancy._backfill_batch(
    root regclass, tenant_column name, expression text, batch_size integer) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    at      record;
    blocks  bigint;
    total   bigint;
    filled  bigint;
    next    regclass;
BEGIN
    SELECT * INTO at FROM tenancy._progress_of($1);
    IF at.part IS NULL OR NOT EXISTS (SELECT FROM tenancy._isolation_tree($1) t WHERE t.relation = at.part) THEN
        RETURN tenancy._begin_sweep($1, $2, $3, at.sweep_filled);
    END IF;
    -- As it was when the sweep came to it: what is added behind is ours, filled, or found by the next look.
    total := coalesce(at.last_block, pg_relation_size(at.part) / current_setting('block_size')::bigint);
    SELECT greatest(1, ceil($4 / greatest(1, CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages ELSE 50 END)))
      INTO blocks FROM pg_catalog.pg_class c WHERE c.oid = at.part;
    EXECUTE format('UPDATE ONLY %1$s t SET %2$I = %3$s
                     WHERE t.ctid = ANY (ARRAY(SELECT s.ctid FROM ONLY %1$s s
                                                WHERE s.ctid >= %4$L::tid AND s.ctid < %5$L::tid AND s.%2$I IS NULL
                                                  FOR NO KEY UPDATE SKIP LOCKED))
                       AND t.%2$I IS NULL',
                   tenancy._relation_name(at.part), $2, $3,
                   format('(%s,0)', at.next_block), format('(%s,0)', at.next_block + blocks));
    GET DIAGNOSTICS filled = ROW_COUNT;
    IF at.next_block + blocks < total THEN
        PERFORM tenancy._note_progress($1, 'backfill', NULL, at.part, at.next_block + blocks, total, filled, at.sweep_filled + filled);
        IF at.next_block * 10 / total <> (at.next_block + blocks) * 10 / total THEN
            RAISE NOTICE '%: % rows filled, % %% of %', tenancy._relation_name($1), at.rows_filled + filled,
                round(100.0 * (at.next_block + blocks) / total), tenancy._relation_name(at.part);
        END IF;
        RETURN 'backfill';
    END IF;
    SELECT t.relation INTO next
      FROM tenancy._isolation_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
     WHERE c.relkind = 'r' AND t.relation::oid > at.part::oid ORDER BY t.relation::oid LIMIT 1;
    PERFORM tenancy._note_progress($1, 'backfill', NULL, next, 0, NULL, filled, at.sweep_filled + filled);
    RETURN 'backfill';
END;
$$;
COMMENT ON FUNCTION tenancy._backfill_batch(regclass, name, text, integer) IS
    'Internal: gives the rows of the next few blocks their tenant, leaving locked rows for the next sweep.';

-- A sweep goes through every part. Before each: is there anything left, and can it be filled at all?
CREATE FUNCTION tenancy._begin_sweep(root regclass, tenant_column name, expression text, last_filled bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    left_over boolean;
    nothing   bigint;
    first     regclass;
    shown     text := tenancy._relation_name($1);
BEGIN
    IF row_security_active($1) THEN
        PERFORM tenancy._raise('0A000', 'row_security_active',
            format('row-level security of %s hides rows from you, so they cannot be filled', shown),
            format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY; it is forced again at the end.', shown));
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s t WHERE t.%I IS NULL)', shown, $2) INTO left_over;
    IF NOT left_over THEN
        PERFORM tenancy._note_progress($1, 'backfill', 'every row has its tenant', swept => true);
        RETURN 'more';
    END IF;
    IF $3 IS NULL THEN
        PERFORM tenancy._raise('22023', 'rows_without_tenant', format('%s has rows without %I', shown, $2),
            'Say whose they are: backfill => an SQL expression over the row (alias t), or mapping_table and mapping_key.');
    END IF;
    IF $4 = 0 THEN
        EXECUTE format('SELECT count(*) FROM %s t WHERE t.%I IS NULL AND (%s) IS NULL', shown, $2, $3) INTO nothing;
        IF nothing > 0 THEN
            PERFORM tenancy._raise('22023', 'rows_without_tenant', format('for %s row(s) of %s the backfill gives no tenant', nothing, shown),
                format('Find them: SELECT * FROM %s t WHERE %I IS NULL AND (%s) IS NULL; mend or delete them, then call again.', shown, $2, $3),
                jsonb_build_object('rows', nothing));
        END IF;
    END IF;
    SELECT t.relation INTO first
      FROM tenancy._isolation_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
     WHERE c.relkind = 'r' ORDER BY t.relation::oid LIMIT 1;
    PERFORM tenancy._note_progress($1, 'backfill', NULL, first);
    -- The last sweep found rows and could fill none: others hold them. Wait a little.
    RETURN CASE WHEN $4 = 0 THEN 'retry' ELSE 'backfill' END;
END;
$$;
COMMENT ON FUNCTION tenancy._begin_sweep(regclass, name, text, bigint) IS
    'Internal: looks for rows without a tenant and begins a sweep; 22023 rows_without_tenant where the backfill gives them none.';

CREATE FUNCTION tenancy._online_step(
    table_name regclass, tenant_column name, org_column name, composite_keys boolean, operator_role name,
    expression text, batch_size integer, lock_timeout interval, attempts integer) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    planned record;
    status  text;
    yours   text[] := '{}';
    shown   text := tenancy._relation_name($1);
BEGIN
    -- Whoever waits for a strong lock holds up all who come after: a short wait first, a longer one each time.
    PERFORM set_config('lock_timeout', ceil(1000 * extract(epoch FROM least($8, interval '50 ms' * power(2, least($9, 16)))))::text, true);
    FOR planned IN
        SELECT p.* FROM tenancy.protection_plan($1, $2, $3, $4, $5, $6) p
    LOOP
        IF planned.step = 'backfill' THEN
            IF coalesce((SELECT p.swept FROM tenancy._progress_of($1) p), false) THEN
                CONTINUE;
            END IF;
            RETURN tenancy._backfill_batch($1, $2, $6, $7);
        ELSIF planned.step IN ('index', 'unique_index') OR NOT planned.online THEN
            yours := yours || planned.statement;
            CONTINUE;
        END IF;
        EXIT WHEN yours <> '{}';
        IF planned.step = 'column' AND $6 IS NULL THEN
            PERFORM tenancy._check_rows_have_tenant($1, $2);
        END IF;
        status := tenancy._online_execute($1, planned.step, planned.statement);
        -- The policies go on in one transaction: no moment with a floor and no way in.
        IF status <> 'more' OR planned.step NOT IN ('enable', 'force', 'floor', 'access', 'operator', 'revoke') THEN
            RETURN status;
        END IF;
    END LOOP;
    IF yours <> '{}' THEN
        PERFORM tenancy._note_progress($1, 'index', array_to_string(yours, '; '), swept => true);
        RAISE NOTICE E'%: run this, outside a transaction, then CALL tenancy.protect_table_online again:\n%;', shown, array_to_string(yours, E';\n');
        RETURN 'stop';
    END IF;
    PERFORM tenancy._record_protection($1, $2, $3, $5);
    PERFORM tenancy._note_progress($1, 'done', NULL, swept => true);
    RAISE NOTICE '% is protected', shown;
    RETURN 'done';
END;
$$;
COMMENT ON FUNCTION tenancy._online_step(regclass, name, name, boolean, name, text, integer, interval, integer) IS
    'Internal: does the first step of protection_plan. Returns more, backfill (one batch done), retry (a lock was not to be had), stop (statements for the caller to run) or done.';

CREATE FUNCTION tenancy._online_execute(table_name regclass, step text, statement text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    BEGIN
        EXECUTE $3;
    EXCEPTION
        WHEN lock_not_available OR deadlock_detected THEN
            PERFORM tenancy._note_progress($1, $2, 'waiting for a lock: ' || $3, swept => $2 NOT IN ('column', 'default'));
            RETURN 'retry';
        WHEN check_violation THEN
            IF $2 <> 'validate' THEN
                RAISE;
            END IF;
            -- A row without a tenant came in before the check stood: sweep once more.
            PERFORM tenancy._note_progress($1, 'backfill', NULL, swept => false);
            RETURN 'more';
    END;
    RAISE NOTICE '%: %', tenancy._relation_name($1), $3;
    -- Once the check stands no such row can come in; the sweep after it is the last.
    PERFORM tenancy._note_progress($1, $2, NULL, swept => $2 NOT IN ('column', 'default', 'check'));
    RETURN 'more';
END;
$$;
COMMENT ON FUNCTION tenancy._online_execute(regclass, text, text) IS
    'Internal: runs one statement of a plan; a lock that is not to be had in time is a retry and no error.';

CREATE PROCEDURE tenancy.protect_table_online(
    table_name     regclass,
    tenant_column  name     DEFAULT 'tenant_id',
    org_column     name     DEFAULT NULL,
    composite_keys boolean  DEFAULT false,
    operator_role  name     DEFAULT NULL,
    backfill       text     DEFAULT NULL,
    mapping_table  regclass DEFAULT NULL,
    mapping_key    name     DEFAULT NULL,
    mapping_tenant name     DEFAULT 'tenant_id',
    batch_size     integer  DEFAULT 5000,
    pause          interval DEFAULT '0',
    lock_timeout   interval DEFAULT '2 s',
    max_retries    integer  DEFAULT 100)
LANGUAGE plpgsql
AS $$
DECLARE
    known      pg_catalog.text[] := tenancy._online_arguments(protect_table_online.table_name, protect_table_online.org_column,
        protect_table_online.operator_role, protect_table_online.batch_size, protect_table_online.lock_timeout);
    expression pg_catalog.text := tenancy._backfill_expression(protect_table_online.table_name, protect_table_online.backfill,
        protect_table_online.mapping_table, protect_table_online.mapping_key, protect_table_online.mapping_tenant);
    status     pg_catalog.text := '';
    attempts   pg_catalog.int4 := 0;
BEGIN
    LOOP
        IF status OPERATOR(pg_catalog.=) 'backfill' THEN
            status := tenancy._backfill_batch(protect_table_online.table_name, protect_table_online.tenant_column, expression,
                protect_table_online.batch_size);
        ELSE
            status := tenancy._online_step(protect_table_online.table_name, protect_table_online.tenant_column, known[1]::pg_catalog.name,
                protect_table_online.composite_keys, known[2]::pg_catalog.name, expression,
                protect_table_online.batch_size, protect_table_online.lock_timeout, attempts);
        END IF;
        COMMIT;
        EXIT WHEN status OPERATOR(pg_catalog.=) ANY (ARRAY['done', 'stop']::pg_catalog.text[]);
        IF status OPERATOR(pg_catalog.=) 'retry' THEN
            attempts := attempts OPERATOR(pg_catalog.+) 1;
            IF attempts OPERATOR(pg_catalog.>) protect_table_online.max_retries THEN
                PERFORM tenancy._raise('55P03', 'lock_not_available', 'a lock was not to be had within the retries allowed',
                    'Nothing is lost: CALL it again, it goes on where it stopped. SELECT * FROM tenancy.protection_progress shows what it waits for.');
            END IF;
            PERFORM pg_catalog.pg_sleep(pg_catalog.random() OPERATOR(pg_catalog./) 2::pg_catalog.float8);
        ELSE
            attempts := 0;
            PERFORM pg_catalog.pg_sleep_for(protect_table_online.pause);
        END IF;
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE tenancy.protect_table_online(regclass, name, name, boolean, name, text, regclass, name, name, integer, interval, interval, integer) IS
$$Protects a table while it is in use: does the steps of tenancy.protection_plan, each in a transaction of its own, fills the tenant column in batches of about batch_size rows (backfill: an SQL expression over the row, as alias t, names qualified; or a mapping_table with mapping_key and mapping_tenant), and puts the policies on last. It waits a moment for a strong lock, then tries again with a longer wait, at most lock_timeout, up to max_retries times in a row. Where CREATE INDEX CONCURRENTLY is needed it prints the statement and ends; CALL it again afterwards. Interrupted, it goes on with the next CALL. Triggers on UPDATE fire for the rows it fills. Progress: NOTICEs and tenancy.protection_progress. CALL it outside a transaction, as the owner.
Errors: as protect_table; 55P03 lock_not_available; 0A000 row_security_active; 2D000 inside a transaction.$$;

-- What is recorded stands in for what was left out, once, before the first commit.
CREATE FUNCTION tenancy._online_arguments(
    table_name regclass, org_column name, operator_role name, batch_size integer, lock_timeout interval) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known record;
BEGIN
    IF coalesce($4, 0) NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'batch_size must be between 1 and 1,000,000', 'A few thousand keep each transaction short.');
    END IF;
    IF $5 IS NULL OR $5 NOT BETWEEN interval '10 ms' AND interval '1 h' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'lock_timeout must be between 10 ms and 1 hour',
            'While a strong lock is waited for, all others queue behind it: a second or two.');
    END IF;
    SELECT * INTO known FROM tenancy._protection_of($1);
    RETURN ARRAY[coalesce($2, known.org_column), coalesce($3, known.operator_role)]::text[];
END;
$$;
COMMENT ON FUNCTION tenancy._online_arguments(regclass, name, name, integer, interval) IS
    'Internal: checks the arguments of protect_table_online that protect_table does not have.';
