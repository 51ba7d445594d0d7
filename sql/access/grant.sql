-- The functions that grant by the lists of sql/access.sql, and only by them.

CREATE FUNCTION tenancy._holds_access(role oid, access text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM pg_proc AS p, aclexplode(p.proacl) AS a
                    WHERE p.proname = CASE _holds_access.access WHEN 'application' THEN 'authenticate' WHEN 'service' THEN 'act_as'
                                           WHEN 'operator' THEN 'revoke_user' WHEN 'metrics' THEN 'metrics_text' END
                      AND p.pronamespace = 'tenancy'::regnamespace AND a.grantee = _holds_access.role);
END
$$;

COMMENT ON FUNCTION tenancy._holds_access(oid, text) IS
'Whether this role, and not another that had its name, was given this access or one that includes it: what grant_access gave stands in the privileges by the role''s own id, through renaming and restoring. One function that the access opens tells.';

CREATE FUNCTION tenancy._access_levels(access text) RETURNS text[]
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN CASE _access_levels.access
        WHEN 'application' THEN ARRAY['application']
        WHEN 'service' THEN ARRAY['application', 'service']
        WHEN 'operator' THEN ARRAY['application', 'operator', 'metrics']
        WHEN 'metrics' THEN ARRAY['metrics']
    END;
END
$$;

COMMENT ON FUNCTION tenancy._access_levels(text) IS
'The levels of functions that an access opens: service and operator include application''s, operator also metrics'', which by itself stands alone. NULL for any other word.';

CREATE FUNCTION tenancy._reconcile_access(role_name text) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    levels text[];
    functions text;
    granted integer;
    relation record;
BEGIN
    SELECT coalesce(array_agg(DISTINCT level), '{}') INTO levels
      FROM tenancy.access_grants AS g, unnest(tenancy._access_levels(g.access)) AS level
     WHERE g.role_name = _reconcile_access.role_name;

    -- Taken first, given after, in one transaction: what an older version or another access opened does not stay open.
    EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA tenancy FROM %I', _reconcile_access.role_name);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA tenancy FROM %I', _reconcile_access.role_name);
    IF levels = '{}' THEN
        EXECUTE format('REVOKE ALL ON SCHEMA tenancy FROM %I', _reconcile_access.role_name);
        RETURN 0;
    END IF;

    EXECUTE format('GRANT USAGE ON SCHEMA tenancy TO %I', _reconcile_access.role_name);
    SELECT string_agg(('tenancy.' || f.signature)::regprocedure::text, ', '), count(*)
      INTO functions, granted
      FROM tenancy._function_access() AS f
     WHERE f.access = ANY (levels);
    IF functions IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', functions, _reconcile_access.role_name);
    END IF;
    FOR relation IN
        SELECT t.relation, t.columns
          FROM tenancy._table_access() AS t
         WHERE t.access = ANY (levels)
    LOOP
        EXECUTE format('GRANT SELECT%s ON TABLE tenancy.%I TO %I',
                       ' (' || relation.columns || ')', relation.relation, _reconcile_access.role_name);
    END LOOP;
    RETURN granted;
END
$$;

COMMENT ON FUNCTION tenancy._reconcile_access(text) IS
'Gives a role exactly what tenancy.access_grants records for it: USAGE on the schema, EXECUTE by _function_access(), SELECT by _table_access(). Anything else it had on them is taken. Returns the number of functions.';

CREATE FUNCTION tenancy._reconcile_operator_policies() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    operators oid[];
    target record;
BEGIN
    SELECT coalesce(array_agg(r.oid ORDER BY r.oid), '{}') INTO operators
      FROM tenancy.access_grants AS g
      JOIN pg_roles AS r ON r.rolname = g.role_name
     WHERE g.access = 'operator'
       AND tenancy._holds_access(r.oid, 'operator');
    -- Only where something changes: replacing a policy locks its table.
    FOR target IN
        SELECT c.oid::regclass AS name, p.oid IS NOT NULL AS has_policy
          FROM tenancy._table_access() AS t
          JOIN pg_class AS c ON c.oid = to_regclass(format('tenancy.%I', t.relation))
          LEFT JOIN pg_policy AS p ON p.polrelid = c.oid AND p.polname = 'operator_rows'
         WHERE t.access = 'operator'
           AND c.relkind IN ('r', 'p')
           AND coalesce(ARRAY(SELECT role FROM unnest(p.polroles) AS role ORDER BY role), '{}') <> operators
         ORDER BY c.relname
    LOOP
        IF target.has_policy THEN
            EXECUTE format('DROP POLICY operator_rows ON %s', target.name);
        END IF;
        IF operators <> '{}' THEN
            EXECUTE format('CREATE POLICY operator_rows ON %s FOR SELECT TO %s USING (true)', target.name,
                           (SELECT string_agg(role::regrole::text, ', ') FROM unnest(operators) AS role));
            EXECUTE format('COMMENT ON POLICY operator_rows ON %s IS %L', target.name,
                           'Operators read every tenant''s rows; kept by grant_access and revoke_access.');
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tenancy._reconcile_operator_policies() IS
'Makes the policy operator_rows of each table operators read name exactly the roles that have operator access.';

CREATE FUNCTION tenancy.grant_access(role regrole, access text) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
    granted integer;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(grant_access.role, 'role');
    PERFORM tenancy._require_one_of(grant_access.access, 'access', ARRAY['application', 'service', 'operator', 'metrics']);
    SELECT r.rolname, r.rolsuper, r.rolbypassrls INTO target FROM pg_roles AS r WHERE r.oid = grant_access.role;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'role_not_found', 'The role does not exist', 'Create it first: CREATE ROLE …;');
    END IF;
    IF target.rolsuper THEN
        PERFORM tenancy._raise('22023', 'superuser_role',
            format('Role "%s" is a superuser: no policy binds it and it may call everything already', target.rolname),
            'Grant access to an ordinary role, and let the application connect as that one.',
            jsonb_build_object('role', target.rolname));
    END IF;
    IF target.rolname = current_user THEN
        PERFORM tenancy._raise('22023', 'owner_role',
            format('Role "%s" owns the extension and may call everything already', target.rolname),
            'Grant access to an ordinary role, and let the application connect as that one.',
            jsonb_build_object('role', target.rolname));
    END IF;
    IF target.rolbypassrls AND grant_access.access = 'application' THEN
        PERFORM tenancy._raise('22023', 'bypassrls_role',
            format('Role "%s" has BYPASSRLS: it would see the rows of every tenant', target.rolname),
            'ALTER ROLE … NOBYPASSRLS, or grant access to another role.', jsonb_build_object('role', target.rolname));
    END IF;

    -- One session at a time changes privileges: two at once fail on the same catalog row.
    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    -- What is recorded under its name for a role that was dropped or renamed is not this one's.
    DELETE FROM tenancy.access_grants AS g
     WHERE g.role_name = target.rolname
       AND NOT tenancy._holds_access(grant_access.role, g.access);
    INSERT INTO tenancy.access_grants (role_name, access)
    VALUES (target.rolname, grant_access.access)
    ON CONFLICT ON CONSTRAINT access_grants_pkey DO NOTHING;
    granted := tenancy._reconcile_access(target.rolname);
    IF grant_access.access = 'operator' THEN
        PERFORM tenancy._reconcile_operator_policies();
    END IF;
    RETURN granted;
END
$$;

COMMENT ON FUNCTION tenancy.grant_access(regrole, text) IS
'Gives a role one access and returns how many functions it may call now. access: application (authenticate, accessors, spend, own rows), service (application''s, and acts for users), operator (application''s, and administers), metrics (figures only). A role may have several. Recorded in tenancy.access_grants by the role''s name and granted again by migrate(); after ALTER ROLE … RENAME grant it again. What is recorded for another role that had the name before is forgotten. Other privileges the role has in schema tenancy are taken. For the extension''s owner and superusers. Errors: 22023 invalid_argument, role_not_found, owner_role, superuser_role, bypassrls_role; 55000; 42501.';

CREATE FUNCTION tenancy.revoke_access(role regrole, access text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target name;
    was_granted boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_access.role, 'role');
    PERFORM tenancy._require_one_of(revoke_access.access, 'access', ARRAY['application', 'service', 'operator', 'metrics']);
    SELECT r.rolname INTO target FROM pg_roles AS r WHERE r.oid = revoke_access.role;
    -- What the extension's owner may was not granted.
    IF target = current_user THEN
        RETURN false;
    END IF;

    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM tenancy.access_grants AS g
     WHERE g.role_name = target AND g.access = revoke_access.access;
    was_granted := FOUND;
    IF target IS NULL THEN
        RETURN was_granted;
    END IF;
    -- Whatever the record says: a role that was renamed holds what is recorded under its old name.
    was_granted := was_granted
        OR NOT EXISTS (SELECT FROM tenancy.access_grants AS g WHERE g.role_name = target)
           AND EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
                        WHERE n.nspname = 'tenancy' AND a.grantee = revoke_access.role);
    PERFORM tenancy._reconcile_access(target);
    PERFORM tenancy._reconcile_operator_policies();
    RETURN was_granted;
END
$$;

COMMENT ON FUNCTION tenancy.revoke_access(regrole, text) IS
'Takes one access from a role, keeps what its other recorded accesses give and nothing else, and returns whether it had been granted. Accesses are recorded by name: of a role that was renamed since, nothing is recorded, so everything it had is taken. The owner''s rights stay. For the extension''s owner and superusers. Errors: 22023, 55000, 42501.';
