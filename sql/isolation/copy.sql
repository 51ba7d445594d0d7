-- Names of the tenant's own outside its tables, and COPY into a protected table.

COMMENT ON FUNCTION tenancy.cache_key(text[]) IS
'A key for a cache outside the database, tenant:{tenant_id}:part:part…: ":" and "%" in the tenant and the parts are written %3A and %25 (white space and control characters likewise), so that no part forges another tenant''s prefix. Without parts, the prefix of all keys of the tenant. Errors: PT401 not_authenticated; 22023 for a part that is NULL.';
COMMENT ON FUNCTION tenancy.lock_key(text) IS
'A key for pg_advisory_xact_lock and its kin that no other tenant''s name arrives at. Errors: PT401 not_authenticated; 22023 for NULL.';
COMMENT ON FUNCTION tenancy.channel(text) IS
'A channel for LISTEN and NOTIFY that is the tenant''s own. It is no secret and any role may listen: send ids, not data. Errors: PT401 not_authenticated; 22023 for NULL.';

-- PostgreSQL has no COPY FROM under row-level security: rows go into a temporary table first, and from there through the
-- policies. The text of the statements is made here; the caller runs them with its own rights.
CREATE FUNCTION tenancy._staging(table_name regclass, columns text[], OUT staging text, OUT definition text, OUT list text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    target  pg_catalog.pg_class;
    tenant  name := (SELECT p.tenant_column FROM tenancy._protection_of(_staging.table_name) p);
    unknown text;
BEGIN
    SELECT * INTO target FROM pg_catalog.pg_class c WHERE c.oid = _staging.table_name;
    PERFORM tenancy._require_value(_staging.table_name::oid, 'table_name');
    IF target.relkind IS NULL OR target.relkind NOT IN ('r', 'p') OR target.relpersistence = 't' THEN
        PERFORM tenancy._raise('42809', 'not_a_table', 'COPY goes into a table', 'Name an ordinary or a partitioned table.');
    END IF;
    SELECT string_agg(coalesce(quote_ident(w.name), 'NULL'), ', ') INTO unknown
      FROM unnest(_staging.columns) AS w(name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = target.oid AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '');
    IF unknown IS NOT NULL OR cardinality(_staging.columns) = 0 THEN
        PERFORM tenancy._raise('22023', 'unknown_column', format('%s has no such column to fill: %s', tenancy._relation_name(table_name), coalesce(unknown, '(none named)')),
            'Name columns of the table, in the order of the file; generated ones fill themselves.');
    END IF;
    IF cardinality(_staging.columns) > (SELECT count(DISTINCT w.name) FROM unnest(_staging.columns) AS w(name)) THEN
        PERFORM tenancy._raise('22023', 'column_named_twice', 'a column is named twice', 'Name each column of the file once, in its order.');
    END IF;
    staging := format('tenancy_copy_%s', target.oid);
    SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY w.ord, a.attnum),
           string_agg(quote_ident(a.attname), ', ' ORDER BY w.ord, a.attnum)
      INTO definition, list
      FROM pg_catalog.pg_attribute a
      LEFT JOIN unnest(_staging.columns) WITH ORDINALITY AS w(name, ord) ON w.name = a.attname
     WHERE a.attrelid = target.oid AND a.attnum > 0 AND NOT a.attisdropped
       AND CASE WHEN _staging.columns IS NULL
                -- The tenant comes from the identity, and what numbers itself does so.
                THEN a.attgenerated = '' AND a.attidentity = '' AND a.attname IS DISTINCT FROM tenant
                ELSE w.name IS NOT NULL END;
END;
$$;
COMMENT ON FUNCTION tenancy._staging(regclass, text[]) IS
    'Internal: name, definition and column list of the staging table that begin_copy makes.';

CREATE FUNCTION tenancy.begin_copy(table_name regclass, columns text[] DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    made record;
BEGIN
    PERFORM tenancy.require_tenant();
    SELECT * INTO made FROM tenancy._staging(begin_copy.table_name, begin_copy.columns);
    EXECUTE format('CREATE TEMPORARY TABLE %I (%s) ON COMMIT DROP', made.staging, made.definition);
    RETURN format('COPY pg_temp.%I (%s) FROM STDIN', made.staging, made.list);
END;
$$;
COMMENT ON FUNCTION tenancy.begin_copy(regclass, text[]) IS
$$Begins COPY into a protected table, which PostgreSQL refuses under row-level security: makes a staging table for this transaction and returns the COPY command to send the rows with (add WITH (FORMAT csv) and the like). columns: those in the file, in its order; by default all but the tenant's, identity and generated ones. Then call tenancy.end_copy. Needs TEMPORARY on the database.
Errors: PT401 not_authenticated; 22023 invalid_argument, unknown_column, column_named_twice; 42809 not a table; 42P07 where a COPY into that table was begun already.$$;

CREATE FUNCTION tenancy.end_copy(table_name regclass) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    staged record;
    copied bigint;
BEGIN
    SELECT * INTO staged FROM tenancy._staged(end_copy.table_name);
    EXECUTE staged.statement;
    GET DIAGNOSTICS copied = ROW_COUNT;
    EXECUTE format('DROP TABLE pg_temp.%I', staged.staging);
    RETURN copied;
END;
$$;
COMMENT ON FUNCTION tenancy.end_copy(regclass) IS
$$Moves what was copied since tenancy.begin_copy into the table, through its policies, and returns the number of rows. All or none: one row that the policies or a constraint refuse fails the statement.
Errors: 22023 not_begun; 42501 for a row of another tenant; the constraint's own.$$;

CREATE FUNCTION tenancy._staged(table_name regclass, OUT staging text, OUT statement text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    list text;
BEGIN
    staging := format('tenancy_copy_%s', _staged.table_name::oid);
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO list
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = pg_my_temp_schema() AND c.relname = staging;
    IF list IS NULL THEN
        PERFORM tenancy._raise('22023', 'not_begun', format('no COPY into %s was begun in this transaction', coalesce(tenancy._relation_name(table_name), 'it')),
            'In one transaction: SELECT tenancy.begin_copy(table), the COPY it returns, SELECT tenancy.end_copy(table).');
    END IF;
    statement := format('INSERT INTO %s (%s) SELECT %s FROM pg_temp.%I', tenancy._relation_name(table_name), list, list, staging);
END;
$$;
COMMENT ON FUNCTION tenancy._staged(regclass) IS 'Internal: the statement that moves staged rows into their table.';
