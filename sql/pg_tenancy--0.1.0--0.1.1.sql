\echo Use "ALTER EXTENSION pg_tenancy UPDATE" to load this file. \quit


DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
END
$$;
