-- The last of the script: everything above is closed to PUBLIC, and to whoever ALTER DEFAULT PRIVILEGES opened it for.
-- The privileges as they stand here are what pg_dump takes as given; grant_access comes on top of them.

CREATE FUNCTION tenancy._close_functions() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    object record;
BEGIN
    -- The first call into the library: in a database of another encoding than UTF8 the extension is not made.
    PERFORM tenancy._library_version();
    FOR object IN
        SELECT 'FUNCTION' AS kind, p.oid::regprocedure::text AS name, a.grantee
          FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prokind <> 'p' AND a.grantee <> p.proowner
        UNION ALL
        SELECT 'PROCEDURE', p.oid::regprocedure::text, a.grantee
          FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prokind = 'p' AND a.grantee <> p.proowner
        UNION ALL
        SELECT 'TYPE', t.oid::regtype::text, a.grantee
          FROM pg_type AS t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) AS a
         WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0 AND a.grantee <> t.typowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', object.kind, object.name,
                       CASE object.grantee WHEN 0 THEN 'PUBLIC' ELSE object.grantee::regrole::text END);
    END LOOP;
    REVOKE ALL ON SCHEMA tenancy FROM PUBLIC;
END
$$;

COMMENT ON FUNCTION tenancy._close_functions() IS
'Takes every privilege on the functions and types of schema tenancy from everybody but their owner, and on the schema from PUBLIC. Run at the end of the extension''s script; an upgrade script revokes from PUBLIC what it adds.';

SELECT tenancy._close_functions();
