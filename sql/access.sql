-- Access: the one list that says who may call which function and read which table, and the functions that grant by it.
-- Whoever adds a function adds one line here, in its domain's block; a test holds the list against the catalog.

CREATE FUNCTION tenancy._function_access() RETURNS TABLE (signature text, access text)
LANGUAGE sql
IMMUTABLE
AS $$
VALUES
    -- set-up: for the extension's owner
    ('install()', 'owner'),
    ('migrate()', 'owner'),
    ('uninstall(text)', 'owner'),
    ('grant_access(regrole,text)', 'owner'),
    ('revoke_access(regrole,text)', 'owner'),
    ('health()', 'operator'),
    ('_lock_schema()', 'internal'),
    ('_library_version()', 'internal'),
    ('_migrations()', 'internal'),
    ('_require_installed()', 'internal'),
    ('_require_matching_code()', 'internal'),
    ('_apply_migrations(integer)', 'internal'),
    ('_create_schema_migrations()', 'internal'),
    ('_close_relation(text)', 'internal'),
    ('_close_functions()', 'internal'),
    ('_function_access()', 'internal'),
    ('_table_access()', 'internal'),
    ('_access_levels(text)', 'internal'),
    ('_reconcile_access(text)', 'internal'),
    ('_reconcile_operator_policies()', 'internal'),
    ('_health_schema()', 'internal'),
    ('_health_access()', 'internal'),
    ('_health_preload()', 'internal'),
    ('_health_master_key()', 'internal'),

    -- errors and arguments
    -- also called by isolation's functions, which run with the operator's own rights
    ('_raise(text,text,text,text,jsonb)', 'operator'),
    ('_require_id(text,text,boolean)', 'internal'),
    ('_require_text(text,text,integer)', 'internal'),
    ('_require_value(anyelement,text)', 'internal'),
    ('_require_one_of(text,text,text[])', 'internal'),
    ('_require_namespace(text)', 'internal'),
    ('_namespace(text)', 'internal'),
    ('_tenant_name(text,text)', 'internal'),

    -- ids and the change signal
    ('uuid_v7()', 'application'),
    ('_uuid_v7_for(uuid)', 'internal'),
    ('_changed(text)', 'internal'),

    -- identity: the accessors, which policies call with the reader's privileges
    ('user_id()', 'application'),
    ('tenant_id()', 'application'),
    ('org_id()', 'application'),
    ('org_role()', 'application'),
    ('pool()', 'application'),
    ('session_id()', 'application'),
    ('correlation_id()', 'application'),
    ('identity_namespace()', 'application'),
    ('user_uuid()', 'application'),
    ('organization_id()', 'application'),
    ('seat_id()', 'application'),
    ('tenant_uuid()', 'application'),
    ('org_uuid()', 'application'),
    ('tenant_bigint()', 'application'),
    ('expires_at()', 'application'),

    -- identity: who is asking
    ('authenticate(text)', 'application'),
    ('authenticate_request()', 'application'),
    ('identity_headers()', 'application'),
    ('verify_token(text)', 'application'),
    ('clear_identity()', 'application'),
    ('identity()', 'application'),
    ('claims()', 'application'),
    ('claim(text)', 'application'),
    ('has_permission(text)', 'application'),
    ('require_tenant()', 'application'),
    ('require_org()', 'application'),
    ('require_user()', 'application'),
    ('jws_verify(jsonb,text)', 'application'),
    ('act_as(text,text,text,text,text)', 'service'),
    ('add_issuer(text,text[],text,text,text[],interval,text[],jsonb,boolean,text[])', 'operator'),
    ('add_key(text,jsonb,timestamptz,timestamptz)', 'operator'),
    ('set_jwks(text,jsonb)', 'operator'),
    ('add_secret(text,text,text,bytea)', 'operator'),
    ('retire_key(text,text)', 'operator'),
    ('revoke_token(text,text,timestamptz)', 'operator'),
    ('revoke_session(text,text)', 'operator'),
    ('revoke_user(text,text)', 'operator'),
    ('rotate_master_key()', 'operator'),
    ('_reseal_identity()', 'internal'),
    ('_permissions()', 'internal'),
    ('_provenance()', 'internal'),
    ('_require(text,text,text)', 'internal'),
    ('_require_issuer(text)', 'internal'),
    ('_insert_key(text,text,text,jsonb,bytea,text,timestamptz,timestamptz)', 'internal'),
    ('_secret_context(text,text)', 'internal'),
    ('_revoke(text,text,text,timestamptz)', 'internal'),
    ('_check_issuer(text[],text,text[],text[],text,text[])', 'internal'),
    ('_check_jwk(text)', 'internal'),
    ('_check_jwks(text)', 'internal'),
    ('_same_key(text,text)', 'internal'),
    ('_check_secret(text,bytea)', 'internal'),
    ('_seal(bytea,text)', 'internal'),
    ('_unseal(bytea,text)', 'internal'),
    ('_sealed_under_current_key(bytea)', 'internal'),

    -- directory
    ('register_tenant(text,text,text)', 'operator'),
    ('set_tenant_status(text,text)', 'operator'),
    ('register_user(text,text,text)', 'operator'),
    ('register_organization(text,text,text,text,text)', 'operator'),
    ('set_membership(text,text,text,text)', 'operator'),
    ('remove_membership(text,text,text)', 'operator'),
    ('set_subscription(text,text,text,integer,text,text,timestamptz,timestamptz,text)', 'operator'),
    ('assign_seat(text,text,text,timestamptz,text)', 'operator'),
    ('revoke_seat(text,text,text,text)', 'operator'),
    ('resolve_org_membership(text,text,jsonb)', 'service'),
    ('resolve_org_attribution(text,text,jsonb)', 'service'),
    ('_resolve_directory(text,text,text,text)', 'internal'),
    ('_find_user(text,text)', 'internal'),
    ('_find_organization(text,text)', 'internal'),
    ('_own_tenant(text,text,text)', 'internal'),
    ('_lock_subscription(uuid)', 'internal'),
    ('_end_lapsed_seats(uuid)', 'internal'),
    ('_revoke_open_seat(uuid,uuid,text)', 'internal'),

    -- credits
    ('spend_credits(numeric,text,text,text,jsonb)', 'application'),
    ('credit_balance(text,text,timestamptz)', 'application'),
    ('deduct_credits_pooled(text,numeric,text,text,text)', 'service'),
    ('deduct_credits(text,numeric,text,text,text,text,jsonb)', 'service'),
    ('grant_credits(numeric,text,text,text,timestamptz,integer,text,text)', 'operator'),
    ('install_compat(name)', 'owner'),

    -- agents: the people's functions run with the caller's own rights and choose between …_as_service and …_as_identity
    ('install_module(text,jsonb,text)', 'application'),
    ('list_modules(text,text)', 'application'),
    ('get_module(text,text)', 'application'),
    ('enable_module(text,text)', 'application'),
    ('disable_module(text,text)', 'application'),
    ('uninstall_module(text,text)', 'application'),
    ('_module_command(text,text,text,jsonb,text)', 'application'),
    ('_module_command_as_identity(text,text,text,jsonb,text)', 'application'),
    ('_module_rows(text,text,text,text)', 'application'),
    ('_read_modules_as_identity(text,text,text,text)', 'application'),
    -- called by policies with the reader's privileges
    ('_module_org()', 'application'),
    ('_module_command_as_service(text,text,text,jsonb,text)', 'service'),
    ('_read_modules_as_service(text,text,text,text)', 'service'),
    ('set_module_status(text,text,text)', 'service'),
    ('update_module_health(text,text,boolean,text)', 'service'),
    ('record_module_usage(text,text)', 'service'),
    ('unhealthy_modules(integer)', 'service'),
    ('installed_modules()', 'service'),
    ('store_credential(text,jsonb)', 'application'),
    ('retrieve_credential(text)', 'application'),
    ('delete_credential(text)', 'application'),
    ('has_credential(text)', 'application'),
    ('list_credentials()', 'application'),
    ('create_agent_state(text,jsonb)', 'application'),
    ('get_agent_state(text)', 'application'),
    ('save_agent_state(text,jsonb)', 'application'),
    ('delete_agent_state(text)', 'application'),
    ('_identity_ended()', 'internal'),
    ('_log_line(text)', 'internal'),
    ('_require_permission(text)', 'internal'),
    ('_own_module_org(text)', 'internal'),
    ('_named_module_org(text)', 'internal'),
    ('_module_scope(text,text,boolean)', 'internal'),
    ('_require_module_id(text)', 'internal'),
    ('_require_module_status(text)', 'internal'),
    ('_require_object(jsonb,text,integer)', 'internal'),
    ('_read_modules(text,text,text,text,boolean)', 'internal'),
    ('_install_module(text,text,text,text,jsonb)', 'internal'),
    ('_change_modules(text,text,text,text,text,text)', 'internal'),
    ('_find_modules(text,text,text,text,text)', 'internal'),
    ('_run_module_command(text,text,text,jsonb,text,boolean)', 'internal'),
    ('_credential_context(text,text,text,text)', 'internal'),
    ('_audit_credential(text,text,text,boolean)', 'internal'),
    ('_reseal_agents()', 'internal'),
    ('_check_agent_state(jsonb,text)', 'internal'),

    -- isolation: protect_table and its kin run with the caller's own rights, and so do their helpers
    ('protect_table(regclass,name,name,boolean,name,boolean)', 'operator'),
    ('unprotect_table(regclass)', 'operator'),
    ('protection_plan(regclass,name,name,boolean,name,text,regclass,name,name)', 'operator'),
    ('protect_table_online(regclass,name,name,boolean,name,text,regclass,name,name,integer,interval,interval,integer)', 'operator'),
    ('audit_isolation()', 'operator'),
    ('audit_isolation_sarif()', 'operator'),
    ('audit_rules()', 'operator'),
    ('exempt(text,text,text,timestamptz)', 'operator'),
    ('unexempt(text,text)', 'operator'),
    ('forget_dropped_tables()', 'operator'),
    ('_audit_findings()', 'internal'),
    ('_audit_protection()', 'internal'),
    ('_audit_keys()', 'internal'),
    ('_audit_policies()', 'internal'),
    ('_audit_views()', 'internal'),
    ('_audit_functions()', 'internal'),
    ('_audit_roles()', 'internal'),
    ('_audit_movement()', 'internal'),
    ('_audit_server(integer)', 'internal'),
    ('_audited_tables()', 'internal'),
    ('_audited_schemas()', 'internal'),
    ('_audited_roles()', 'internal'),
    ('_require_rule(text)', 'internal'),
    ('_sarif_level(text)', 'internal'),
    ('_required_check()', 'operator'),
    ('_replacement_name(name)', 'operator'),
    ('_backfill_expression(text,regclass,name,name)', 'operator'),
    ('_row_plan(regclass,name,text)', 'operator'),
    ('_index_plan(regclass,name,boolean)', 'operator'),
    ('_key_plan(regclass,name)', 'operator'),
    ('_progress_of(regclass)', 'operator'),
    ('_note_progress(regclass,text,text,regclass,bigint,bigint,bigint,bigint,boolean)', 'operator'),
    ('_backfill_batch(regclass,name,text,integer)', 'operator'),
    ('_begin_sweep(regclass,name,text,bigint)', 'operator'),
    ('_online_step(regclass,name,name,boolean,name,text,integer,interval,integer)', 'operator'),
    ('_online_execute(regclass,text,text)', 'operator'),
    ('_online_arguments(regclass,name,name,integer,interval)', 'operator'),
    ('_relation_name(regclass)', 'operator'),
    ('_isolation_tree(regclass)', 'operator'),
    ('_isolation_accessor(regclass,name,text)', 'operator'),
    ('_isolation_grants(regclass)', 'operator'),
    ('_isolation_roles(regclass,name)', 'operator'),
    ('_isolation_policies(regclass,name,name,name)', 'operator'),
    ('_isolation_reach(regclass,text)', 'operator'),
    ('_policy_stands(regclass,name,boolean,name[],text)', 'operator'),
    ('_protection_of(regclass)', 'operator'),
    ('_record_protection(regclass,name,name,name)', 'operator'),
    ('_forget_protection(regclass)', 'operator'),
    ('_protection_target(regclass,name,name,name,boolean)', 'operator'),
    ('_check_protectable(regclass)', 'operator'),
    ('_check_isolation_column(regclass,name,text)', 'operator'),
    ('_check_operator_role(regclass,name)', 'operator'),
    ('_check_rows_have_tenant(regclass,name)', 'operator'),
    ('_check_composite_keys(regclass,name)', 'operator'),
    ('_count_rows(regclass,text)', 'operator'),
    ('_tenant_column_of(regclass,name,oid)', 'operator'),
    ('_unscoped_keys(regclass,name)', 'operator'),
    ('_unscoped_foreign_keys(regclass,name)', 'operator'),
    ('_tenant_foreign_key(oid,name,name)', 'operator'),
    ('_tenant_key(regclass,name,oid,text,name)', 'operator'),
    ('_key_statements(regclass,name)', 'operator'),
    ('_leads_with(regclass,name)', 'operator'),
    ('_column_statements(regclass,name)', 'operator'),
    ('_index_statements(regclass,name,boolean)', 'operator'),
    ('_policy_statements(regclass,name,name,name)', 'operator'),
    ('_revoke_statements(regclass,name)', 'operator'),
    ('_protection_statements(regclass,name,name,name,boolean)', 'operator'),
    ('_report_keys(regclass,name)', 'operator'),
    ('_report_protection(regclass,name,name)', 'operator')
$$;

COMMENT ON FUNCTION tenancy._function_access() IS
'Every function of the extension and its one level: application, service, operator, metrics; owner: for the extension''s owner and superusers; internal: called by the others only. Owner and internal are granted to nobody.';

CREATE FUNCTION tenancy._table_access() RETURNS TABLE (relation text, access text, columns text)
LANGUAGE sql
IMMUTABLE
AS $$
VALUES
    -- SELECT only, always under row-level security; columns NULL: all of them. Nobody is granted INSERT, UPDATE,
    -- DELETE or TRUNCATE on any table: rows change through functions.
    -- The identity's own tenant: a product shows people their organization, its plan, members and seats.
    ('tenants', 'application', NULL),
    ('organizations', 'application', NULL),
    ('organization_memberships', 'application', NULL),
    ('organization_subscriptions', 'application', NULL),
    ('organization_seats', 'application', NULL),
    -- Its credits, and who spent them.
    ('credit_pools', 'application', NULL),
    ('credit_grants', 'application', NULL),
    ('credit_transactions', 'application', NULL),
    -- Its modules, which credentials they have (never the sealed secret), and the user's own conversations.
    ('modules', 'application', NULL),
    ('module_credentials', 'application', 'tenant_id, namespace, org_id, module_id, created_at, updated_at'),
    ('agent_states', 'application', NULL),
    -- The identity's own row: who am I.
    ('users', 'application', NULL),
    -- Operators administer every tenant: the policy operator_rows, made by grant_access, opens all rows to them.
    ('tenants', 'operator', NULL),
    ('organizations', 'operator', NULL),
    ('organization_memberships', 'operator', NULL),
    ('organization_subscriptions', 'operator', NULL),
    ('organization_seats', 'operator', NULL),
    ('users', 'operator', NULL),
    -- What is protected, and how far an online protection has come.
    ('protected_tables', 'operator', NULL),
    ('protection_runs', 'operator', NULL),
    ('protection_progress', 'operator', NULL),
    ('isolation_exemptions', 'operator', NULL),
    ('credit_pools', 'operator', NULL),
    ('credit_grants', 'operator', NULL),
    ('credit_transactions', 'operator', NULL)
$$;

COMMENT ON FUNCTION tenancy._table_access() IS
'Which access reads (SELECT) which table or view of schema tenancy, and which of its columns (a list; NULL: all). An operator line also makes the policy operator_rows, which opens all rows to operators.';

CREATE FUNCTION tenancy._access_levels(access text) RETURNS text[]
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN CASE _access_levels.access
        WHEN 'application' THEN ARRAY['application']
        WHEN 'service' THEN ARRAY['application', 'service']
        WHEN 'operator' THEN ARRAY['application', 'operator']
        WHEN 'metrics' THEN ARRAY['metrics']
    END;
END
$$;

COMMENT ON FUNCTION tenancy._access_levels(text) IS
'The levels of functions that an access opens: service and operator include application''s, metrics stands alone. NULL for any other word.';

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
     WHERE g.access = 'operator';
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
    IF target.rolbypassrls AND grant_access.access = 'application' THEN
        PERFORM tenancy._raise('22023', 'bypassrls_role',
            format('Role "%s" has BYPASSRLS: it would see the rows of every tenant', target.rolname),
            'ALTER ROLE … NOBYPASSRLS, or grant access to another role.', jsonb_build_object('role', target.rolname));
    END IF;

    -- One session at a time changes privileges: two at once fail on the same catalog row.
    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
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
'Gives a role one access and returns how many functions it may call now. access: application (authenticate, accessors, spend, own rows), service (application''s, and acts for users), operator (application''s, and administers), metrics (figures only). A role may have several. Recorded in tenancy.access_grants and granted again by migrate(); other privileges the role has in schema tenancy are taken. For the extension''s owner and superusers. Errors: 22023 invalid_argument, role_not_found, superuser_role, bypassrls_role; 55000; 42501.';

CREATE FUNCTION tenancy.revoke_access(role regrole, access text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target name;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_access.role, 'role');
    PERFORM tenancy._require_one_of(revoke_access.access, 'access', ARRAY['application', 'service', 'operator', 'metrics']);
    SELECT r.rolname INTO target FROM pg_roles AS r WHERE r.oid = revoke_access.role;

    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM tenancy.access_grants AS g
     WHERE g.role_name = target AND g.access = revoke_access.access;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy._reconcile_access(target);
    IF revoke_access.access = 'operator' THEN
        PERFORM tenancy._reconcile_operator_policies();
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.revoke_access(regrole, text) IS
'Takes one access from a role, keeps what its other accesses give, and returns whether it had been granted. For the extension''s owner and superusers. Errors: 22023, 55000, 42501.';
