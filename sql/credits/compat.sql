-- For existing clients of contract S.

CREATE FUNCTION tenancy.install_compat(schema name DEFAULT 'public') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    signature constant text := 'deduct_credits_pooled(text,numeric,text,text,text)';
    mark constant text := 'pg_tenancy: calls tenancy.deduct_credits_pooled.';
    existing record;
    grantee record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(install_compat.schema, 'schema');
    IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = install_compat.schema) THEN
        PERFORM tenancy._raise('22023', 'schema_not_found', format('Schema "%s" does not exist', install_compat.schema),
            'Create it first, or name the schema that existing clients call.');
    END IF;
    IF install_compat.schema IN ('tenancy', 'information_schema') OR install_compat.schema LIKE 'pg\_%' THEN
        PERFORM tenancy._raise('22023', 'own_schema', format('Schema "%s" is not one of yours', install_compat.schema),
            'Name the schema that existing clients call: SELECT tenancy.install_compat(''public'');');
    END IF;
    -- Any function of the name would make a client's call ambiguous: PostgREST answers PGRST203 to two overloads.
    FOR existing IN
        SELECT p.oid::regprocedure AS function, coalesce(obj_description(p.oid, 'pg_proc'), '') AS description
          FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname = install_compat.schema AND p.proname = 'deduct_credits_pooled'
    LOOP
        IF strpos(existing.description, mark) <> 1 THEN
            PERFORM tenancy._raise('PT409', 'function_exists',
                format('A function %s that is not ours exists already', existing.function),
                'Rename or drop it first; the wrapper is to take its place.',
                jsonb_build_object('function', existing.function::text));
        END IF;
    END LOOP;

    EXECUTE format($wrapper$
        CREATE OR REPLACE FUNCTION %I.deduct_credits_pooled(
            p_clerk_user_id text,
            p_amount numeric,
            p_clerk_org_id text DEFAULT NULL,
            p_description text DEFAULT 'Credits used',
            p_reference_id text DEFAULT NULL
        ) RETURNS boolean
        LANGUAGE sql
        VOLATILE
        AS 'SELECT tenancy.deduct_credits_pooled($1, $2, $3, $4, $5)'
    $wrapper$, install_compat.schema);
    EXECUTE format('COMMENT ON FUNCTION %I.%s IS %L', install_compat.schema, signature,
                   mark || ' Made by tenancy.install_compat() for clients of contract S.');

    -- The roles that may call the original, and nobody else. The wrapper has the caller's rights, so it opens nothing.
    EXECUTE format('REVOKE ALL ON FUNCTION %I.%s FROM PUBLIC', install_compat.schema, signature);
    FOR grantee IN
        SELECT DISTINCT a.grantee::regrole::text AS role_name
          FROM pg_proc AS p, aclexplode(p.proacl) AS a
         WHERE p.oid = ('tenancy.' || signature)::regprocedure
           AND a.grantee <> 0 AND a.grantee <> p.proowner AND a.privilege_type = 'EXECUTE'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%s TO %s', install_compat.schema, signature, grantee.role_name);
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.install_compat(name) IS
'Makes deduct_credits_pooled in another schema (public), with the signature of contract S, for clients that call it there: the only function of that name, calling tenancy.deduct_credits_pooled with the caller''s rights. EXECUTE goes to the roles that may call the original; run it again after grant_access(). Returns true. For the extension''s owner and superusers. Errors: PT409 function_exists for one of that name that is not ours, 22023 schema_not_found, own_schema, 55000.';
