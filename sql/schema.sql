-- The tables' life: install, migrate, uninstall. The extension is code, the tables are ordinary objects of the
-- functions' owner, made by the numbered migrations compiled into the library (sql/schema/, tenancy._migrations()).
-- None of these functions is granted to anybody: they are for the extension's owner and superusers.

COMMENT ON FUNCTION tenancy._library_version() IS 'The version of the library (the shared object) this backend has loaded. Error: 0A000 encoding_not_utf8, as of every function of the library.';
COMMENT ON FUNCTION tenancy._migrations() IS
'The migrations compiled into the library: number, name, text, and the text''s SHA-256 in hex.';
COMMENT ON FUNCTION tenancy._require_installed() IS
'Called first by every function that needs a table: true, and cheap, where the tables are those this library expects. Errors: 55000 schema_missing (run tenancy.install()), schema_behind (run tenancy.migrate()), schema_ahead (update the package), library_behind (reconnect, or restart the server).';

CREATE FUNCTION tenancy._lock_schema() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    keeper oid := (SELECT e.extowner FROM pg_extension AS e WHERE e.extname = 'pg_tenancy');
    stranger name;
BEGIN
    -- A schema's owner may drop what is in it, and whoever put something there beforehand may have put it in our way.
    SELECT r.rolname INTO stranger
      FROM (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'tenancy'
            UNION SELECT p.proowner FROM pg_proc AS p WHERE p.pronamespace = 'tenancy'::regnamespace
            UNION SELECT c.relowner FROM pg_class AS c WHERE c.relnamespace = 'tenancy'::regnamespace) AS o (owner)
      JOIN pg_roles AS r ON r.oid = o.owner
     WHERE r.oid <> keeper AND NOT r.rolsuper
     LIMIT 1;
    IF FOUND THEN
        -- Every argument with its type: a function of the stranger's that has the same name fits no better.
        PERFORM tenancy._raise('42501'::text, 'schema_owned_by_another'::text,
            format('Schema tenancy, or something in it, belongs to role "%s", who could drop the ledger', stranger),
            format('Look what is in it and drop what is not of pg_tenancy; then ALTER SCHEMA tenancy OWNER TO %s;', keeper::regrole),
            jsonb_build_object('role', stranger));
    END IF;

    -- Only one session at a time installs, migrates or uninstalls; the others wait. Before install() there is no table
    -- whose lock could serve, so this is an advisory lock of the transaction.
    PERFORM pg_advisory_xact_lock(hashtext('pg_tenancy'), hashtext('schema'));
END
$$;

COMMENT ON FUNCTION tenancy._lock_schema() IS
'Makes install, migrate and uninstall wait for each other until the end of the transaction. Error: 42501 schema_owned_by_another, where the schema or something in it belongs to neither the extension''s owner nor a superuser.';

CREATE FUNCTION tenancy._require_matching_code() RETURNS text
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    script text;
    library text := tenancy._library_version();
BEGIN
    SELECT e.extversion INTO script FROM pg_extension AS e WHERE e.extname = 'pg_tenancy';
    IF string_to_array(regexp_replace(script, '[^0-9.]', '', 'g'), '.')::integer[]
       > string_to_array(regexp_replace(library, '[^0-9.]', '', 'g'), '.')::integer[] THEN
        PERFORM tenancy._raise('55000', 'library_behind',
            format('The SQL functions are version %s, the loaded library is version %s', script, library),
            'Install the package of the SQL functions'' version; then reconnect, with shared_preload_libraries restart the server.',
            jsonb_build_object('library', library, 'extension', script));
    ELSIF script <> library THEN
        PERFORM tenancy._raise('55000', 'extension_behind',
            format('The library is version %s, the SQL functions are version %s', library, script),
            'Run ALTER EXTENSION pg_tenancy UPDATE in this database, then SELECT tenancy.migrate(). After an update of the package, reconnect first.',
            jsonb_build_object('library', library, 'extension', script));
    END IF;
    RETURN library;
END
$$;

COMMENT ON FUNCTION tenancy._require_matching_code() IS
'The version of the code, if library and SQL functions agree on it. Errors: 55000 extension_behind, library_behind.';

CREATE FUNCTION tenancy._apply_migrations(through integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    version text := tenancy._require_matching_code();
    newest integer;
    applied integer := 0;
    before_relations oid[];
    made text[];
    recorded record;
    migration record;
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        PERFORM tenancy._create_schema_migrations();
    ELSIF NOT EXISTS (SELECT FROM tenancy.schema_migrations) THEN
        -- The table exists but this transaction's snapshot is older than its rows.
        PERFORM tenancy._raise('40001', 'installed_meanwhile', 'Another session installed the tables meanwhile',
            'Run it again in a new transaction.');
    END IF;

    SELECT max(m.number) INTO newest FROM tenancy._migrations() AS m;
    IF EXISTS (SELECT FROM tenancy.schema_migrations AS s WHERE s.number > newest) THEN
        PERFORM tenancy._raise('55000', 'schema_ahead', 'The tables are newer than this version of pg_tenancy',
            'Install the newer package and run ALTER EXTENSION pg_tenancy UPDATE.');
    END IF;
    FOR migration IN
        SELECT s.number, s.name
          FROM tenancy.schema_migrations AS s
          LEFT JOIN tenancy._migrations() AS m ON m.number = s.number
         WHERE m.sha256 IS DISTINCT FROM s.sha256
         ORDER BY s.number
    LOOP
        PERFORM tenancy._raise('55000', 'migration_changed',
            format('Migration %s (%s) is not the one that made these tables', migration.number, migration.name),
            'Install a package whose released migrations are unchanged. A database of a development version has to be made anew.',
            jsonb_build_object('number', migration.number, 'name', migration.name));
    END LOOP;

    FOR migration IN
        SELECT m.number, m.name, m.sql, m.sha256
          FROM tenancy._migrations() AS m
         WHERE NOT EXISTS (SELECT FROM tenancy.schema_migrations AS s WHERE s.number = m.number)
           AND m.number <= coalesce(_apply_migrations.through, newest)
         ORDER BY m.number
    LOOP
        SELECT coalesce(array_agg(c.oid), '{}') INTO before_relations
          FROM pg_class AS c WHERE c.relnamespace = 'tenancy'::regnamespace;
        EXECUTE migration.sql;
        SELECT coalesce(array_agg(c.relname::text ORDER BY c.oid), '{}') INTO made
          FROM pg_class AS c
         WHERE c.relnamespace = 'tenancy'::regnamespace
           AND c.relkind IN ('r', 'p', 'v', 'm')
           AND NOT c.oid = ANY (before_relations);
        PERFORM tenancy._close_relation(relation) FROM unnest(made) AS relation;
        INSERT INTO tenancy.schema_migrations (number, name, sha256, relations, extension_version)
        VALUES (migration.number, migration.name, migration.sha256, made, version);
        applied := applied + 1;
    END LOOP;

    -- Also where nothing was pending: an update may have brought functions, or moved one to another level.
    -- The lock is grant_access's: two sessions that change privileges at once fail on the same catalog row.
    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    FOR recorded IN
        SELECT g.role_name, r.oid IS NOT NULL AS exists,
               string_agg(g.access, ', ' ORDER BY g.access) FILTER (WHERE NOT tenancy._holds_access(r.oid, g.access)) AS not_held,
               -- It is the role, and somebody took its functions: each access has application's or metrics'.
               EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a WHERE n.nspname = 'tenancy' AND a.grantee = r.oid)
               AND NOT tenancy._holds_access(r.oid, 'application') AND NOT tenancy._holds_access(r.oid, 'metrics') AS was_emptied
          FROM tenancy.access_grants AS g LEFT JOIN pg_roles AS r ON r.rolname = g.role_name
         GROUP BY g.role_name, r.oid
         ORDER BY g.role_name
    LOOP
        IF NOT recorded.exists THEN
            RAISE WARNING 'role "%" is recorded in tenancy.access_grants but does not exist: nothing granted', recorded.role_name
                USING HINT = 'Create the role and call tenancy.grant_access(…), or delete the row. If it was renamed, do both for the new name.';
        ELSIF recorded.not_held IS NOT NULL AND NOT recorded.was_emptied THEN
            RAISE WARNING 'role "%" is recorded in tenancy.access_grants but does not hold its access (%): nothing granted', recorded.role_name, recorded.not_held
                USING HINT = 'It may be another role of the same name. If it is to have access: SELECT tenancy.grant_access(…); else SELECT tenancy.revoke_access(…).';
        ELSE
            PERFORM tenancy._reconcile_access(recorded.role_name);
        END IF;
    END LOOP;
    PERFORM tenancy._reconcile_operator_policies();
    PERFORM tenancy._close_row_types();
    IF applied > 0 THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
    RETURN applied;
END
$$;

COMMENT ON FUNCTION tenancy._apply_migrations(integer) IS
'Runs the migrations that are not recorded, in order (only up to number through, where it is given: for tests of older states), records them, and grants again what access_grants records. Returns how many ran. The caller holds _lock_schema. Errors: 55000 extension_behind, library_behind, schema_ahead, migration_changed; 40001.';

CREATE FUNCTION tenancy._create_schema_migrations() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    CREATE TABLE tenancy.schema_migrations (
        number integer NOT NULL,
        name text NOT NULL,
        sha256 text NOT NULL,
        relations text[] NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        applied_by text NOT NULL DEFAULT session_user,
        extension_version text NOT NULL,
        CONSTRAINT schema_migrations_pkey PRIMARY KEY (number)
    );
    ALTER TABLE tenancy.schema_migrations ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenancy.schema_migrations FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner_rows ON tenancy.schema_migrations TO CURRENT_USER USING (true) WITH CHECK (true);
    COMMENT ON POLICY owner_rows ON tenancy.schema_migrations IS
        'Row-level security is forced: the owner''s functions reach the rows through this.';

    COMMENT ON TABLE tenancy.schema_migrations IS 'The migrations that made these tables, written by tenancy.install() and tenancy.migrate().';
    COMMENT ON COLUMN tenancy.schema_migrations.number IS 'The migration''s number.';
    COMMENT ON COLUMN tenancy.schema_migrations.name IS 'The migration''s name.';
    COMMENT ON COLUMN tenancy.schema_migrations.sha256 IS 'SHA-256 of its text, in hex; a released migration never changes.';
    COMMENT ON COLUMN tenancy.schema_migrations.relations IS 'The tables and views it made: what tenancy.uninstall() drops.';
    COMMENT ON COLUMN tenancy.schema_migrations.applied_at IS 'When it ran.';
    COMMENT ON COLUMN tenancy.schema_migrations.applied_by IS 'The login (session_user) that ran it.';
    COMMENT ON COLUMN tenancy.schema_migrations.extension_version IS 'The version of pg_tenancy that ran it.';
    PERFORM tenancy._close_relation('schema_migrations');
END
$$;

COMMENT ON FUNCTION tenancy._create_schema_migrations() IS 'Makes the table the migrations are recorded in.';

CREATE FUNCTION tenancy._close_relation(relation text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee record;
BEGIN
    -- ALTER DEFAULT PRIVILEGES may have opened the new table to anybody; what may be read is said in access.sql alone.
    FOR grantee IN
        SELECT DISTINCT a.grantee
          FROM pg_class AS c, aclexplode(c.relacl) AS a
         WHERE c.oid = format('tenancy.%I', _close_relation.relation)::regclass
           AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE tenancy.%I FROM %s', _close_relation.relation,
                       CASE grantee.grantee WHEN 0 THEN 'PUBLIC' ELSE grantee.grantee::regrole::text END);
    END LOOP;
    EXECUTE format('REVOKE ALL ON TYPE tenancy.%I FROM PUBLIC', _close_relation.relation);
END
$$;

COMMENT ON FUNCTION tenancy._close_relation(text) IS
'Takes every privilege on a new table or view of schema tenancy from everybody but its owner, and USAGE on its row type from PUBLIC.';

CREATE FUNCTION tenancy._close_row_types() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    open_type record;
BEGIN
    -- pg_dump carries no privileges of row types: after a restore PUBLIC has USAGE on them again.
    FOR open_type IN
        SELECT format('tenancy.%I', c.relname) AS name
          FROM tenancy.schema_migrations AS s, unnest(s.relations || '{schema_migrations}') AS relation
          JOIN pg_class AS c ON c.relnamespace = 'tenancy'::regnamespace AND c.relname = relation
          JOIN pg_type AS t ON t.oid = c.reltype
         WHERE EXISTS (SELECT FROM aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) AS a WHERE a.grantee = 0)
         GROUP BY c.relname
         ORDER BY c.relname
    LOOP
        EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', open_type.name);
    END LOOP;
END
$$;

COMMENT ON FUNCTION tenancy._close_row_types() IS
'Takes from PUBLIC the USAGE on our tables'' row types that a restored dump leaves open.';

CREATE FUNCTION tenancy.install() RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._lock_schema();
    IF tenancy._apply_migrations() = 0 THEN
        RAISE NOTICE 'the tables of pg_tenancy are installed already';
    END IF;
    RETURN tenancy._library_version();
END
$$;

COMMENT ON FUNCTION tenancy.install() IS
'Makes the tables, views, policies and grants of pg_tenancy as ordinary objects of the extension''s owner, and returns the version. A second call changes nothing; where tables of an older version exist it brings them up to date. For the extension''s owner and superusers. Errors: 42501 (schema_owned_by_another: the schema, or something in it, belongs to neither the extension''s owner nor a superuser), 0A000 encoding_not_utf8, 55000 extension_behind, library_behind, schema_ahead, migration_changed.';

CREATE FUNCTION tenancy.migrate() RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._lock_schema();
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        PERFORM tenancy._raise('55000', 'schema_missing', 'The tables of pg_tenancy are not installed in this database',
            'Run SELECT tenancy.install();');
    END IF;
    IF tenancy._apply_migrations() = 0 THEN
        RAISE NOTICE 'the tables of pg_tenancy are up to date';
    END IF;
    RETURN tenancy._library_version();
END
$$;

COMMENT ON FUNCTION tenancy.migrate() IS
'Brings the tables to the version this code expects, grants again what tenancy.access_grants records to the roles of these names that still hold something in schema tenancy (another role of the same name gets a warning and nothing), and returns the version. Run it after ALTER EXTENSION pg_tenancy UPDATE, and after a restored dump (which leaves USAGE on row types open). For the extension''s owner and superusers. Errors: 42501 (as install), 0A000, 55000 schema_missing, extension_behind, library_behind, schema_ahead, migration_changed.';

CREATE FUNCTION tenancy.uninstall(confirm text) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee text;
    views text;
    materialized text;
    tables text;
    dropped integer;
BEGIN
    PERFORM tenancy._lock_schema();
    IF uninstall.confirm IS DISTINCT FROM current_database() THEN
        PERFORM tenancy._raise('22023', 'not_confirmed', 'uninstall drops every table of pg_tenancy, the ledger included',
            format('If that is what you want, confirm it with the database''s name: SELECT tenancy.uninstall(%L);', current_database()));
    END IF;
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        PERFORM tenancy._raise('55000', 'schema_missing', 'The tables of pg_tenancy are not installed in this database',
            'There is nothing to uninstall. DROP EXTENSION pg_tenancy removes the functions.');
    END IF;

    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    FOR grantee IN
        SELECT DISTINCT g.role_name FROM tenancy.access_grants AS g
          JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        DELETE FROM tenancy.access_grants AS g WHERE g.role_name = grantee;
        PERFORM tenancy._reconcile_access(grantee);
    END LOOP;

    WITH made AS (
        SELECT c.relkind, format('tenancy.%I', c.relname) AS name
          FROM tenancy.schema_migrations AS s, unnest(s.relations) AS relation
          JOIN pg_class AS c ON c.relnamespace = 'tenancy'::regnamespace AND c.relname = relation
         WHERE NOT c.relispartition
    )
    SELECT string_agg(name, ', ') FILTER (WHERE relkind = 'v'),
           string_agg(name, ', ') FILTER (WHERE relkind = 'm'),
           concat_ws(', ', string_agg(name, ', ') FILTER (WHERE relkind IN ('r', 'p')), 'tenancy.schema_migrations'),
           count(*) + 1
      INTO views, materialized, tables, dropped
      FROM made;
    -- One statement a kind, so that they may depend on each other; without CASCADE, so that an object of the user's own
    -- that depends on them is not lost but named in an error.
    IF materialized IS NOT NULL THEN
        EXECUTE 'DROP MATERIALIZED VIEW ' || materialized;
    END IF;
    IF views IS NOT NULL THEN
        EXECUTE 'DROP VIEW ' || views;
    END IF;
    EXECUTE 'DROP TABLE ' || tables;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION tenancy.uninstall(text) IS
'Drops every table and view that install() and migrate() made, with all rows, takes back what grant_access() gave, and returns how many tables and views went. confirm: the name of this database. The functions stay. Refused (2BP01) while an object of your own depends on a table. For the extension''s owner and superusers. Errors: 22023 not_confirmed, 55000 schema_missing, 42501 (as install).';
