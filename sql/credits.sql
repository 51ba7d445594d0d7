-- What SQL may know of the functions of src/credits/, and install_compat.

COMMENT ON FUNCTION tenancy.deduct_credits_pooled(text, numeric, text, text, text) IS
'Charges p_amount credits and returns true, or returns false and writes nothing where the pool has too few. p_clerk_org_id: the organization whose pool pays and in which the user must have an active, unexpired seat, judged under the pool''s lock; NULL means the user''s own pool; there is no fallback from one to the other. p_reference_id is a label: the same one twice charges twice. While an identity is in force, only its own user and organization can be charged. Errors: PT404 user_not_found; PT403 no_active_seat (also for an unknown organization), identity_mismatch; PT402 no_active_subscription; 22023 invalid_amount, invalid_argument (an empty id); 22003; 55000. Contract S, deduct_credits_pooled v2.';

COMMENT ON FUNCTION tenancy.deduct_credits(text, numeric, text, text, text, text, jsonb) IS
'Charges amount credits to an organization''s pool (org_id, the user needs an active seat) or to the user''s own (org_id NULL). metadata: an object below 1 MB, written under the server''s own keys. Errors: PT402 insufficient_credits (DETAIL: pool, organization_name, required, available), no_active_subscription; PT403 no_active_seat, identity_mismatch; PT404 user_not_found; 22023, 22003, 54000 metadata_too_large, 55000.';

COMMENT ON FUNCTION tenancy.spend_credits(numeric, text, text, text, jsonb) IS
'Charges amount credits to whoever is authenticated: to the organization acted for, where the user needs an active seat, else to the user''s own pool. Takes no id. Errors: PT401 not_authenticated, and those of deduct_credits.';

COMMENT ON FUNCTION tenancy.grant_credits(numeric, text, text, text, timestamptz, integer, text, text) IS
'Gives amount credits to an organization''s pool (org_id) or a user''s own (user_id) and returns the grant''s id. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; 22023 invalid_amount, invalid_argument; 22003; 55000.';

COMMENT ON FUNCTION tenancy.credit_balance(text, text, timestamptz) IS
'One row with the figures of a pool, in credits: total granted (less what expired), used, held by open holds, and available. org_id or user_id names the pool; neither means that of whoever is authenticated. An application sees its identity''s own organization and user. Reads only; runs on a standby. Errors: PT401 not_authenticated, PT403 not_your_pool, PT404, 22023, 55000.';

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
'Makes deduct_credits_pooled in another schema (public), with the signature of contract S, for clients that call it there: the only function of that name, calling tenancy.deduct_credits_pooled with the caller''s rights. EXECUTE goes to the roles that may call the original; run it again after grant_access(). Returns true. For the extension''s owner and superusers. Errors: PT409 function_exists for one of that name that is not ours, 22023 schema_not_found, 55000.';
