\echo Use "ALTER EXTENSION pg_tenancy UPDATE" to load this file. \quit

DROP FUNCTION tenancy._is_revoked(issuer text, session_id text, namespace text, user_id text, since timestamptz);

DROP FUNCTION tenancy._issue_pair(family_id uuid, profile text, user_id text, org_id text, tenant text, replaces uuid, ends_at timestamptz, OUT access_token text, OUT refresh_token text, OUT expires_at timestamptz);

DROP FUNCTION tenancy._mint_token(profile text, kind text, lifetime integer, user_id text, org_id text, claims jsonb, extra jsonb, require_org boolean, token_id uuid, session_id text, OUT token text, OUT expires_at timestamptz, OUT tenant_id text);

CREATE FUNCTION tenancy._claim_batch_id(tenant_id text, batch_id uuid, may_share boolean) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Until the transaction ends: who comes meanwhile with the same id waits, and then sees what was committed.
    PERFORM pg_advisory_xact_lock(hashtext('pg_tenancy'), hashtext('batch ' || _claim_batch_id.batch_id));
    IF NOT _claim_batch_id.may_share
       AND tenancy._is_batch_of_another_tenant(_claim_batch_id.tenant_id, _claim_batch_id.batch_id) THEN
        PERFORM tenancy._raise('PT409', 'batch_id_taken', 'This id is another batch''s',
            'Leave known_batch_id out: an id is made.');
    END IF;
END
$$;

CREATE  FUNCTION "_directory_role"() RETURNS TEXT 
STRICT STABLE PARALLEL RESTRICTED 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'directory_role_wrapper';

CREATE  FUNCTION "_extension_origin"() RETURNS TABLE (
	"token_id" TEXT,  
	"is_live" bool  
)
STRICT STABLE PARALLEL RESTRICTED 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'extension_origin_wrapper';

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

CREATE FUNCTION tenancy._holds_now(permission text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A role in a token issued here is what the directory said then, and outlasts a demotion by a day; a key, for ever.
    RETURN tenancy.has_permission(_holds_now.permission)
       AND (NOT tenancy._issued_here()
            OR coalesce(_holds_now.permission = ANY (tenancy._role_permissions(tenancy._directory_role())), false));
END
$$;

CREATE  FUNCTION "_is_batch_of_another_tenant"(
	"tenant_id" TEXT, 
	"batch_id" uuid 
) RETURNS bool 
STRICT STABLE PARALLEL RESTRICTED 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'is_batch_of_another_tenant_wrapper';

CREATE  FUNCTION "_is_revoked"(
	"issuer" TEXT, 
	"session_id" TEXT, 
	"namespace" TEXT, 
	"user_id" TEXT, 
	"since" timestamp with time zone 
) RETURNS bool 
STABLE PARALLEL RESTRICTED 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'is_revoked_wrapper';

CREATE FUNCTION tenancy._issue_pair(
    family_id uuid, profile text, namespace text, user_id text, org_id text, tenant text, replaces uuid, ends_at timestamptz,
    OUT access_token text, OUT refresh_token text, OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    minted record;
    refresh_id uuid := tenancy.uuid_v7();
    -- 30 days, and not beyond the family's end.
    lifetime integer := least(2592000, greatest(1, ceil(extract(epoch FROM _issue_pair.ends_at - clock_timestamp()))));
BEGIN
    minted := tenancy._mint_token(_issue_pair.profile, _issue_pair.namespace, 'access', 86400, _issue_pair.user_id,
        _issue_pair.org_id, NULL, '{}', false, tenancy.uuid_v7(), _issue_pair.family_id::text, NULL);
    _issue_pair.access_token := minted.token;
    _issue_pair.expires_at := minted.expires_at;
    minted := tenancy._mint_token(_issue_pair.profile, _issue_pair.namespace, 'refresh', lifetime, _issue_pair.user_id,
        _issue_pair.org_id, NULL, '{}', false, refresh_id, _issue_pair.family_id::text, NULL);
    _issue_pair.refresh_token := minted.token;
    -- The old one first: a family has one living token.
    UPDATE tenancy.refresh_tokens AS t
       SET replaced_at = clock_timestamp(), replaced_by = refresh_id
     WHERE t.id = _issue_pair.replaces;
    INSERT INTO tenancy.refresh_tokens (id, token_hash, family_id, tenant_id, expires_at)
    VALUES (refresh_id, tenancy._token_hash(minted.token), _issue_pair.family_id, _issue_pair.tenant, minted.expires_at);
    UPDATE tenancy.token_families AS f
       SET expires_at = minted.expires_at, updated_at = now()
     WHERE f.id = _issue_pair.family_id;
END
$$;

CREATE  FUNCTION "_issued_here"() RETURNS bool 
STRICT STABLE PARALLEL SAFE 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'issued_here_wrapper';

CREATE FUNCTION tenancy._keep_organizations_out(tenant_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM tenancy.tenants AS t WHERE t.tenant_id = _keep_organizations_out.tenant_id FOR UPDATE;
    INSERT INTO tenancy.tenants (tenant_id, name, status)
    SELECT concat(nullif(o.namespace, '') || '::', o.external_id), format('an organization of %s, which was deleted', o.tenant_id), 'suspended'
      FROM tenancy.organizations AS o WHERE o.tenant_id = _keep_organizations_out.tenant_id
        ON CONFLICT ON CONSTRAINT tenants_pkey DO NOTHING;
END;
$$;

CREATE  FUNCTION "_key_lapses"() RETURNS bool 
STRICT STABLE PARALLEL RESTRICTED 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'key_lapses_wrapper';

CREATE  FUNCTION "_lock_pools"(
	"pools" uuid[] 
) RETURNS void
STRICT VOLATILE PARALLEL UNSAFE 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'lock_pools_wrapper';

CREATE FUNCTION tenancy._mint_token(
    profile text,
    namespace text,
    kind text,
    lifetime integer,
    user_id text,
    org_id text,
    claims jsonb,
    extra jsonb,
    require_org boolean,
    token_id uuid,
    session_id text,
    origin text,
    OUT token text,
    OUT expires_at timestamptz,
    OUT tenant_id text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    attribution jsonb;
    issued_at bigint := floor(extract(epoch FROM clock_timestamp()));
BEGIN
    SELECT i.issuer, i.namespace, p.audience, u.id, u.email INTO subject
      FROM tenancy.signing_profiles AS p
      JOIN tenancy.issuers AS i ON i.issuer = p.issuer
      LEFT JOIN tenancy.users AS u ON u.namespace = i.namespace AND u.external_id = _mint_token.user_id
     WHERE p.name = _mint_token.profile;
    IF subject.namespace <> _mint_token.namespace THEN
        -- Somebody else bears that id there.
        PERFORM tenancy._raise('55000', 'profile_moved', 'The signing profile''s issuer is of another namespace than what it is to renew',
            'Point the profile back at an issuer of the former namespace, or let the user sign in again.',
            jsonb_build_object('profile', _mint_token.profile));
    END IF;
    PERFORM tenancy._require_token_user(subject.id);

    attribution := tenancy._org_attribution(subject.namespace, _mint_token.user_id, _mint_token.org_id, _mint_token.claims);
    IF attribution IS NULL AND _mint_token.require_org THEN
        PERFORM tenancy._raise('PT403', 'no_seat', 'User does not have an active seat in this organization',
            'Give the user a membership and a seat under an active or trialing subscription, or leave require_org out for a personal token.',
            jsonb_build_object('user_id', _mint_token.user_id, 'org_id', _mint_token.org_id));
    END IF;
    IF attribution IS NULL THEN
        _mint_token.tenant_id := tenancy._tenant_name(subject.namespace, 'user::' || _mint_token.user_id);
    ELSE
        SELECT o.tenant_id INTO _mint_token.tenant_id
          FROM tenancy.organizations AS o
         WHERE o.id = (attribution ->> 'organization_id')::uuid;
    END IF;

    _mint_token.expires_at := to_timestamp(issued_at + _mint_token.lifetime);
    -- The right side wins: nothing in extra overrides a claim of ours.
    _mint_token.token := tenancy._sign_token(_mint_token.profile, (
        tenancy._check_extra(_mint_token.extra)
        || coalesce(attribution, jsonb_build_object(
            'pool', NULL, 'clerk_org_id', NULL, 'organization_id', NULL, 'organization_name', NULL,
            'stripe_customer_id', NULL, 'organization_subscription_id', NULL, 'seat_id', NULL, 'seat_role', NULL,
            'org_role', NULL))
        || jsonb_build_object(
            'iss', subject.issuer, 'aud', subject.audience, 'sub', _mint_token.user_id, 'type', _mint_token.kind,
            'iat', issued_at, 'exp', issued_at + _mint_token.lifetime, 'jti', _mint_token.token_id,
            'session_id', _mint_token.session_id, 'email', subject.email)
        || CASE WHEN _mint_token.origin IS NULL THEN '{}'
                ELSE jsonb_build_object('extension_token_id', _mint_token.origin) END)::text);
END
$$;

CREATE FUNCTION tenancy._payers_of(envelopes jsonb) RETURNS uuid[]
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN ARRAY(
        WITH named AS (
            SELECT DISTINCT coalesce(e.document #>> '{metadata,namespace}', '') AS namespace,
                   e.document #>> '{data,org_id}' AS org_id, e.document #>> '{data,user_id}' AS user_id
              FROM jsonb_array_elements(_payers_of.envelopes) AS e (document)
             WHERE e.document #> '{data,resource_type}' IS NOT NULL
        )
        SELECT o.id FROM named AS n JOIN tenancy.organizations AS o ON o.namespace = n.namespace AND o.external_id = n.org_id
        UNION
        SELECT u.id FROM named AS n JOIN tenancy.users AS u ON u.namespace = n.namespace AND u.external_id = n.user_id);
END
$$;

CREATE FUNCTION tenancy._require_batch_organization(batch_org text) RETURNS void
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF tenancy.user_id() IS NOT NULL AND tenancy.org_id() IS DISTINCT FROM _require_batch_organization.batch_org THEN
        PERFORM tenancy._raise('PT403', 'batch_of_another_organization', 'The batch belongs to another organization than who asks',
            'Authenticate for the organization that the batch was registered for.');
    END IF;
END
$$;

CREATE  FUNCTION "_require_good_identity"() RETURNS void
STRICT VOLATILE PARALLEL UNSAFE 
LANGUAGE c 
AS 'MODULE_PATHNAME', 'require_good_identity_wrapper';

CREATE FUNCTION tenancy._require_lasting_key() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tenancy._key_lapses() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'lapsing_key', 'A key that was rotated makes and rotates no keys',
            'Authenticate with the key that took its place.');
    END IF;
END
$$;

CREATE FUNCTION tenancy._require_sign_in(VARIADIC exempt text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM tenancy._extension_origin()) AND NOT tenancy._caller_has(VARIADIC _require_sign_in.exempt) THEN
        PERFORM tenancy._raise('PT403', 'extension_token_identity', 'An extension token gives access and dashboard tokens only',
            'Let the user sign in: what is asked for would outlive the extension token''s revocation.');
    END IF;
END
$$;

CREATE FUNCTION tenancy._revoke_ours(kind text, value text, expires_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    signing text;
BEGIN
    -- Keys and not profiles say who signs: what a profile signed before it moved to another issuer is good still. In
    -- order, so that two sessions that revoke the same wait for each other and not in a circle.
    FOR signing IN SELECT DISTINCT k.issuer FROM tenancy.issuer_keys AS k WHERE k.origin = 'signing_profile' ORDER BY k.issuer LOOP
        PERFORM tenancy._revoke(_revoke_ours.kind, signing, _revoke_ours.value, _revoke_ours.expires_at);
    END LOOP;
END
$$;

CREATE FUNCTION tenancy._tables_above(roots oid[], pools oid DEFAULT NULL) RETURNS TABLE (root oid, above oid)
LANGUAGE sql STABLE ROWS 200 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH RECURSIVE parts AS MATERIALIZED (
        SELECT r.oid AS root, t.relation::oid AS relation FROM unnest($1) AS r(oid) CROSS JOIN LATERAL tenancy._isolation_tree(r.oid) t
    ), links AS MATERIALIZED (
        SELECT c.root AS child, p.root AS parent
          FROM pg_catalog.pg_constraint k JOIN parts c ON c.relation = k.conrelid JOIN parts p ON p.relation = k.confrelid
         WHERE k.contype = 'f'
        UNION
        SELECT r.oid, $2 FROM unnest($1) AS r(oid) WHERE $2 IS NOT NULL AND tenancy._has_pool(r.oid)
    ), reached (child, ancestor) AS (
        SELECT r.oid, r.oid FROM unnest($1) AS r(oid)
        UNION
        SELECT d.child, l.parent FROM reached d JOIN links l ON l.child = d.ancestor
    )
    SELECT d.child, d.ancestor FROM reached d;
$$;

CREATE OR REPLACE FUNCTION tenancy._apply_migrations(through integer DEFAULT NULL) RETURNS integer
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

CREATE OR REPLACE FUNCTION tenancy._arm_guards() RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._attribute_to_batch(
    batch_tenant text,
    batch_user text,
    batch_org text,
    batch_namespace text,
    named_user text,
    named_org text,
    OUT user_id text,
    OUT org_id text,
    OUT correlation_id uuid
)
LANGUAGE plpgsql
AS $$
DECLARE
    who record;
BEGIN
    -- The command's identity first, then the batch's. Whoever is authenticated is the command's identity.
    IF tenancy.user_id() IS NOT NULL THEN
        who := tenancy._attribute(_attribute_to_batch.named_user, _attribute_to_batch.named_org);
    ELSE
        who := tenancy._attribute(
            coalesce(nullif(_attribute_to_batch.named_user, ''), _attribute_to_batch.batch_user),
            coalesce(nullif(_attribute_to_batch.named_org, ''), _attribute_to_batch.batch_org),
            _attribute_to_batch.batch_namespace);
    END IF;
    IF who.tenant_id <> _attribute_to_batch.batch_tenant THEN
        PERFORM tenancy._raise('PT403', 'batch_of_another_tenant', 'The batch belongs to another tenant than who asks',
            'Leave the identity out of the command: the batch''s is used.');
    END IF;
    PERFORM tenancy._require_batch_organization(_attribute_to_batch.batch_org);
    _attribute_to_batch.user_id := who.user_id;
    _attribute_to_batch.org_id := who.org_id;
    _attribute_to_batch.correlation_id := who.correlation_id;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_findings(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text, waived_because text)
LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT f.rule, coalesce(f.severity, r.severity), f.object, f.finding, f.remedy, e.reason
          FROM (SELECT * FROM tenancy._audit_protection(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_undone(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_keys(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_policies(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_views(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_functions() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_roles() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_movement() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_server() WHERE _audit_findings.changed IS NULL) f
          JOIN tenancy.audit_rules() r ON r.rule = f.rule
          LEFT JOIN tenancy.isolation_exemptions e
                 ON e.object = f.object AND e.rule = f.rule AND (e.expires_at IS NULL OR e.expires_at > now())
         ORDER BY array_position(ARRAY['error', 'warning', 'info'], coalesce(f.severity, r.severity)), f.rule, f.object;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_functions()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
-- The planner takes its recursions for huge and would compile for seconds what runs for milliseconds.
SET jit = off
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE functions AS MATERIALIZED (
            SELECT p.*, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS shown,
                   p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
                   regexp_replace(translate(lower(p.prosrc), '"', ''), '--[^\n]*|/\*.*?\*/', ' ', 'g') AS body
              FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
        ), calls(caller, callee) AS MATERIALIZED (
            -- By name, whatever the schema: the word before a parenthesis.
            SELECT f.oid, g.oid
              FROM functions f
             CROSS JOIN LATERAL (SELECT DISTINCT w[1] AS word FROM regexp_matches(f.body, '(\w+)\s*\(', 'g') w) w
              JOIN functions g ON substring(lower(g.proname) FROM '\w+$') = w.word
             WHERE g.proname !~ '\W' OR f.body ~ format('\m%s\s*\(', regexp_replace(lower(g.proname), '\W', '.', 'g'))
            UNION
            SELECT d.objid, d.refobjid
              FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass
        ), blind AS MATERIALIZED (
            -- Whose statements see every tenant's rows of a table.
            SELECT t.relation::oid AS base, t.shown, o.oid AS role, o.rolname, o.rolsuper OR o.rolbypassrls AS unbound
              FROM tenancy._audited_tables() t
              LEFT JOIN pg_catalog.pg_roles p ON p.rolname = t.operator_role
              JOIN pg_catalog.pg_roles o ON o.rolsuper OR o.rolbypassrls OR pg_has_role(o.oid, p.oid, 'USAGE')
        ), over(relation, base) AS (
            -- The tables, and the views through which a blind reader stays blind.
            SELECT DISTINCT b.base, b.base FROM blind b
            UNION
            SELECT c.oid, o.base
              FROM over o
              JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation
              JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> o.relation
              JOIN pg_catalog.pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
             WHERE coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false)
                   OR EXISTS (SELECT FROM blind b WHERE b.base = o.base AND b.role = c.relowner)
        ), reaching(routine, base) AS (
            SELECT f.oid, o.base
              FROM over o
              JOIN pg_catalog.pg_class c ON c.oid = o.relation
              JOIN functions f ON NOT f.is_trigger AND (f.prosqlbody IS NOT NULL OR strpos(lower(f.prosrc), lower(c.relname::text)) > 0)
             WHERE tenancy._routine_names(f.oid, o.relation)
            UNION
            SELECT f.oid, r.base
              FROM reaching r
              JOIN functions g ON g.oid = r.routine AND (NOT g.prosecdef OR EXISTS (SELECT FROM blind b WHERE b.base = r.base AND b.role = g.proowner))
              JOIN calls c ON c.callee = g.oid AND c.caller <> g.oid
              JOIN functions f ON f.oid = c.caller AND NOT f.is_trigger
        )
        SELECT 'definer_search_path', NULL, f.shown, 'it runs as its owner and finds names by its caller''s search_path',
               format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp;  -- and qualify every name in it', f.shown)
          FROM functions f
         WHERE f.prosecdef AND NOT EXISTS (SELECT FROM unnest(f.proconfig) AS c(setting) WHERE c.setting LIKE 'search\_path=%')
        UNION ALL
        SELECT 'leakproof_function', NULL, f.shown, 'if it shows its arguments in an error or elsewhere, it shows rows that the policies hide',
               format('ALTER FUNCTION %s NOT LEAKPROOF;', f.shown)
          FROM functions f WHERE f.proleakproof
        UNION ALL
        SELECT 'advisory_lock', NULL, f.shown, 'a key that two tenants can both arrive at makes one wait for the other',
               '-- in its body: pg_advisory_xact_lock(tenancy.lock_key(name)), whose keys differ from tenant to tenant'
          FROM functions f
         WHERE f.pronamespace IN (SELECT * FROM tenancy._audited_schemas())
           AND f.prosrc ~* 'pg_(try_)?advisory' AND f.prosrc !~* 'tenancy\.lock_key'
        UNION ALL
        SELECT 'definer_bypasses_policies', CASE WHEN f.prosrc ~* 'tenancy\.(tenant_(id|uuid|bigint)|require_tenant)' THEN 'warning' END, f.shown,
               format('it reads %s as %I, %s, and %s may call it', string_agg(DISTINCT b.shown, ', '), b.rolname,
                      CASE WHEN b.unbound THEN 'whom no policy binds' ELSE 'whom the operator''s policy lets see all tenants' END,
                      (SELECT string_agg(DISTINCT quote_ident(a.role_name), ', ') FROM tenancy._audited_roles() a
                        WHERE a.is_application AND has_function_privilege(a.role, f.oid, 'EXECUTE'))),
               format('ALTER ROUTINE %s SECURITY INVOKER;  -- or let it name the tenant in every statement, and exempt it', f.shown)
          FROM functions f
          JOIN reaching c ON c.routine = f.oid
          JOIN blind b ON b.base = c.base AND b.role = f.proowner
         WHERE f.prosecdef
           AND EXISTS (SELECT FROM tenancy._audited_roles() a WHERE a.is_application AND has_function_privilege(a.role, f.oid, 'EXECUTE'))
         GROUP BY f.oid, f.shown, f.prosrc, b.rolname, b.unbound;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_keys(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(k.relation), k.key_name),
               format('%s %s does not carry %I', k.kind, k.definition, p.tenant_column),
               CASE WHEN k.rewritable THEN format('SELECT tenancy.protect_table(%L, %L, composite_keys => true);', tenancy._relation_name(p.relation), p.tenant_column)
                    WHEN k.kind = 'exclusion constraint'
                    THEN format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s;  -- CREATE EXTENSION btree_gist first, where it uses gist',
                                tenancy._relation_name(k.relation), k.key_name, k.key_name,
                                overlay(k.definition PLACING format('(%I WITH =, ', p.tenant_column) FROM strpos(k.definition, '(') FOR 1))
                    ELSE format('DROP INDEX %s;  -- it is not valid', tenancy._relation_name(k.index_oid)) END
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL tenancy._unscoped_keys(p.relation, p.tenant_column) k;
    RETURN QUERY
        SELECT DISTINCT 'foreign_key_without_tenant', NULL, format('%s/%s', tenancy._relation_name(f.child), f.key_name),
               format('it can point at another tenant''s row of %s', tenancy._relation_name(f.parent)),
               CASE WHEN f.problem IN ('tenant_types_differ', 'on_update_would_clear_the_tenant', 'match_full')
                    THEN format('ALTER TABLE %s DROP CONSTRAINT %I;  -- it cannot carry the tenant as it is: %s', tenancy._relation_name(f.child), f.key_name, f.problem)
                    ELSE CASE WHEN f.problem = 'child_has_no_tenant' THEN format('SELECT tenancy.protect_table(%L); ', tenancy._relation_name(f.child)) ELSE '' END
                         || format('SELECT tenancy.protect_table(%L, %L, composite_keys => true);', tenancy._relation_name(f.parent), f.parent_tenant) END
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL tenancy._unscoped_foreign_keys(p.relation, p.tenant_column) f;
    RETURN QUERY
        SELECT 'sequence_gaps', NULL, format('%s.%I', t.shown, a.attname),
               'its numbers come from one sequence for all tenants, whose gaps tell how much the others write',
               format('ALTER TABLE %s ALTER COLUMN %I DROP %s;  -- and number rows per tenant, or SET DEFAULT tenancy.uuid_v7()', t.shown, a.attname,
                      CASE WHEN a.attidentity <> '' THEN 'IDENTITY' ELSE 'DEFAULT' END)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND NOT a.attisdropped AND a.attinhcount = 0
         WHERE a.attnum > 0
           AND (a.attidentity <> '' OR EXISTS (
                SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                  JOIN pg_catalog.pg_class s ON u.refclassid = 'pg_class'::regclass AND s.oid = u.refobjid AND s.relkind = 'S'
                 WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_movement()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'published_table', NULL, format('%s/%s', p.pubname, t.shown), 'its subscribers receive every tenant''s rows',
               coalesce((SELECT format('ALTER PUBLICATION %I DROP TABLE %s;', p.pubname, tenancy._relation_name(r.prrelid))
                           FROM pg_catalog.pg_publication_rel r
                          WHERE r.prpubid = p.oid AND (r.prrelid = t.relation OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(t.relation) a))
                          LIMIT 1),
                        CASE WHEN p.puballtables THEN format('DROP PUBLICATION %I;', p.pubname)
                             ELSE format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I;', p.pubname, n.nspname) END)
               || '  -- or let only what may see all tenants subscribe, and exempt it'
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_publication_tables s ON s.schemaname = n.nspname AND s.tablename = c.relname
          JOIN pg_catalog.pg_publication p ON p.pubname = s.pubname;
    RETURN QUERY
        SELECT CASE WHEN g.tgtype & 2 <> 0 THEN 'before_trigger' ELSE 'after_trigger' END, NULL, format('%s/%s', t.shown, g.tgname),
               CASE WHEN g.tgtype & 2 <> 0 THEN format('%s may set %I before WITH CHECK looks at the row', g.tgfoid::regprocedure, t.tenant_column)
                    ELSE format('%s sees each row and may write it elsewhere', g.tgfoid::regprocedure) END,
               format('DROP TRIGGER %I ON %s;  -- or read its function, and exempt it', g.tgname, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.relation AND NOT g.tgisinternal AND g.tgparentid = 0;
    RETURN QUERY
        SELECT 'rewrite_rule', NULL, format('%s/%s', t.shown, w.rulename), pg_get_ruledef(w.oid), format('DROP RULE %I ON %s;  -- or read it, and exempt it', w.rulename, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_rewrite w ON w.ev_class = t.relation;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_policies(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'permissive_policy', CASE WHEN f.polroles IS DISTINCT FROM '{0}' THEN 'error' END,
               format('%s/%s', t.shown, p.polname),
               CASE WHEN f.polroles = '{0}'
                    THEN format('USING (%s) widens what one tenant''s roles see of their own tenant', coalesce(pg_get_expr(p.polqual, p.polrelid), 'true'))
                    ELSE 'the floor is not TO PUBLIC here: a role it does not name sees what this policy shows' END,
               format('DROP POLICY %I ON %s;', p.polname, t.shown)
          FROM tenancy._audited_tables() t
          JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation AND p.polpermissive
          LEFT JOIN pg_catalog.pg_policy f ON f.polrelid = t.relation AND f.polname = 'tenancy_floor'
         WHERE p.polname <> 'tenancy_access' AND (p.polname <> 'tenancy_operator' OR t.operator_role IS NULL);
    RETURN QUERY
        WITH policies AS (
            SELECT p.oid, p.polname, tenancy._relation_name(p.polrelid) AS shown,
                   concat_ws(' ', p.polqual::text, p.polwithcheck::text) AS tree,
                   concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS expression
              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
             WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas()) AND ($1 IS NULL OR c.oid = ANY ($1))
        ), settings AS (
            SELECT format(':funcid (%s|%s) ', 'current_setting(text)'::regprocedure::oid, 'current_setting(text,boolean)'::regprocedure::oid) AS called
        ), functions AS (
            SELECT DISTINCT p.oid, f.oid::regprocedure::text AS signature, f.provolatile, f.oid >= 16384 AS own,
                   -- A pure function of a column may well be IMMUTABLE; one that asks who is asking may not.
                   f.oid >= 16384 AND (f.pronargs = 0 OR f.prosrc ~* 'tenancy\.|current_setting|current_user|session_user') AS asks,
                   f.oid >= 16384 AND f.pronamespace <> 'tenancy'::regnamespace
                   AND (regexp_replace(f.prosrc, '--[^\n]*|/\*.*?\*/', ' ', 'g') ~* '\m(current_setting|pg_settings|pg_show_all_settings)\M'
                        OR f.prosqlbody::text ~ s.called) AS reads_setting
              FROM policies p
             CROSS JOIN settings s
             CROSS JOIN LATERAL regexp_matches(p.tree, ':(?:op)?funcid (\d+) ', 'g') AS m(found)
              JOIN pg_catalog.pg_proc f ON f.oid = m.found[1]::oid
        ), problems AS (
            SELECT p.*, NULL AS signature, 'policy_reads_setting' AS rule, 'it calls current_setting, which any client can set' AS finding
              FROM policies p CROSS JOIN settings s WHERE p.tree ~ s.called
            UNION ALL
            SELECT p.*, NULL, 'policy_reads_setting', format('it calls %s, which reads settings, and any client can set them', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.reads_setting
            UNION ALL
            SELECT p.*, f.signature, 'policy_immutable_function', format('it calls %s, which is IMMUTABLE: plans keep its first answer', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'i' AND f.asks
            UNION ALL
            SELECT p.*, CASE WHEN f.own THEN f.signature END, 'policy_volatile_function', format('it calls %s, which is VOLATILE: it is called for every row', f.signature)
              FROM policies p JOIN functions f USING (oid) WHERE f.provolatile = 'v'
            UNION ALL
            SELECT p.*, NULL, 'policy_subquery', 'it has a sub-query, which runs with a snapshot of its own and keeps indexes away'
              FROM policies p WHERE p.tree LIKE '%{SUBLINK %'
            UNION ALL
            SELECT p.*, NULL, 'policy_or', 'it has an OR or a CASE, which keep indexes away'
              FROM policies p WHERE p.tree LIKE '%:boolop or %' OR p.tree LIKE '%{CASEEXPR %' OR p.tree LIKE '%{CASE %'
        )
        SELECT DISTINCT q.rule, NULL, format('%s/%s', q.shown, q.polname), q.finding, tenancy._policy_remedy(q.oid, q.signature)
          FROM problems q;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_protection(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'protected_table_gone', NULL, p.relation::text,
               'it is recorded as protected and does not exist any more; a table made in its place, under its name, is not protected by that',
               'SELECT tenancy.forget_dropped_tables();  -- and protect_table what was made in its place'
          FROM tenancy.protected_tables p
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.relation);
    RETURN QUERY
        SELECT 'guard_not_armed', NULL, format('schema %I', g.schema_name),
               CASE WHEN n.oid IS NULL THEN 'it is guarded and does not exist'
                    ELSE 'its guard was set in another database and waits until nothing is open here' END,
               CASE WHEN n.oid IS NULL THEN format('SELECT tenancy.unguard_schema(%L);', g.schema_name)
                    ELSE format('SELECT tenancy.guard_schema(%L, %L, %L);', g.schema_name, g.mode, g.tenant_column) END
          FROM tenancy.guarded_schemas g
          LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = g.schema_name
         WHERE n.oid IS NULL OR g.database_oid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
    -- Its policies came along with a dump or a change of hands, and the record did not.
    RETURN QUERY
        SELECT 'unprotected_table', NULL, tenancy._relation_name(c.oid),
               'it has the policy tenancy_floor and is not recorded as protected: nothing watches over it',
               format('SELECT tenancy.protect_table(%L, %L%s%s);', tenancy._relation_name(c.oid), w.tenant, ', org_column => ' || quote_literal(w.org),
                      ', operator_role => ' || quote_literal(w.operator))
          FROM pg_catalog.pg_policy p
          JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relkind IN ('r', 'p')
         CROSS JOIN LATERAL (SELECT coalesce(tenancy._policy_column(c.oid, 'tenancy_floor', ''), 'tenant_id') AS tenant) f
         CROSS JOIN LATERAL (
                SELECT f.tenant, tenancy._policy_column(c.oid, 'tenancy_access', f.tenant) AS org,
                       (SELECT n.rolname FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_roles n ON y.polroles = ARRAY[n.oid]
                         WHERE y.polrelid = c.oid AND y.polname = 'tenancy_operator') AS operator) w
         WHERE p.polname = 'tenancy_floor' AND ($1 IS NULL OR c.oid = ANY ($1))
           AND c.relnamespace <> 'tenancy'::regnamespace
           AND NOT EXISTS (SELECT FROM tenancy._audited_tables() t WHERE t.relation = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_policy u ON u.polrelid = i.inhparent AND u.polname = 'tenancy_floor'
                            WHERE i.inhrelid = c.oid);
    RETURN QUERY
        SELECT CASE c.relkind WHEN 'f' THEN 'foreign_table' ELSE 'unprotected_table' END, NULL, tenancy._relation_name(c.oid),
               CASE c.relkind WHEN 'f' THEN 'the server behind it knows neither identity nor policies of this one'
                    ELSE format('schema %I has protected tables or is guarded, and this table has no protection', n.nspname) END,
               CASE c.relkind WHEN 'f' THEN format('DROP FOREIGN TABLE %s;  -- or give no application role access to it, and exempt it', tenancy._relation_name(c.oid))
                    ELSE format('SELECT tenancy.protect_table(%L);', tenancy._relation_name(c.oid)) END
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relnamespace IN (SELECT * FROM tenancy._audited_schemas())
           AND c.relkind IN ('r', 'p', 'f') AND ($1 IS NULL OR c.oid = ANY ($1))
           AND (c.relkind = 'f' OR NOT EXISTS (SELECT FROM tenancy._audited_tables() t WHERE t.relation = c.oid)
                                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenancy_floor'))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_roles()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH audited AS MATERIALIZED (
            SELECT a.*, r.rolsuper,
                   -- Where it is here through others alone, it is to leave them: it may well be what it is.
                   CASE WHEN NOT EXISTS (SELECT FROM tenancy.access_grants g WHERE g.role_name = a.role_name AND g.access = 'application')
                        THEN (SELECT string_agg(format('REVOKE %s FROM %s;', m.roleid::regrole, m.member::regrole), ' ' ORDER BY m.roleid)
                                FROM pg_catalog.pg_auth_members m
                               WHERE m.member = a.role
                                 AND EXISTS (SELECT FROM tenancy.access_grants g JOIN pg_catalog.pg_roles u ON u.rolname = g.role_name
                                              WHERE g.access = 'application' AND (u.oid = m.roleid OR pg_has_role(m.roleid, u.oid, 'MEMBER')))) END AS leaves
              FROM tenancy._audited_roles() a JOIN pg_catalog.pg_roles r ON r.oid = a.role
        ), becomes AS MATERIALIZED (
            -- What a role of theirs can become through another of them is that one's finding.
            SELECT a.*, b.oid AS other, b.rolname AS other_name
              FROM audited a
              JOIN pg_catalog.pg_roles b ON b.oid = a.role
                   OR (NOT a.rolsuper AND pg_has_role(a.role, b.oid, 'MEMBER')
                       AND NOT EXISTS (SELECT FROM audited u
                                        WHERE u.role NOT IN (a.role, b.oid) AND NOT u.rolsuper AND u.is_application >= a.is_application
                                          AND pg_has_role(a.role, u.role, 'MEMBER') AND pg_has_role(u.role, b.oid, 'MEMBER')))
        )
        SELECT 'bypassing_role', NULL::text, format('role %I', k.role_name),
               CASE WHEN k.other = k.role THEN CASE WHEN b.rolsuper THEN 'it is a superuser' ELSE 'it has BYPASSRLS' END
                    ELSE format('it is a member of %I, whom no policy binds', b.rolname) END,
               CASE WHEN k.other <> k.role THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', k.role_name)) END
          FROM becomes k JOIN pg_catalog.pg_roles b ON b.oid = k.other AND (b.rolsuper OR b.rolbypassrls)
        UNION ALL
        SELECT 'bypassing_role', NULL, format('role %I', k.role_name),
               format(CASE WHEN k.other = k.role THEN 'it %s' ELSE 'it is a member of ' || quote_ident(b.rolname) || ', which %s' END, w.how),
               CASE WHEN k.other <> k.role THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER ROLE %I NO%s;', k.role_name, w.attribute)) END
          FROM becomes k
          JOIN pg_catalog.pg_roles b ON b.oid = k.other AND NOT b.rolsuper
         CROSS JOIN LATERAL (VALUES
                ('CREATEROLE', 'has CREATEROLE, and so can become the tables'' owner', b.rolcreaterole AND current_setting('server_version_num')::integer < 160000),
                ('REPLICATION', 'has REPLICATION, and so can copy every row', b.rolreplication)) AS w(attribute, how, held)
         WHERE k.is_application AND w.held
        UNION ALL
        SELECT 'bypassing_role', NULL, format('role %I', k.role_name),
               format('it is a member of %I, which reaches the server''s files and whatever is in them', k.other_name),
               tenancy._membership_remedy(k.role, k.other)
          FROM becomes k
         WHERE k.is_application AND k.other_name IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
        UNION ALL
        SELECT DISTINCT 'application_owns_table', NULL, format('role %I', k.role_name),
               format('it has the rights of %I, the owner of %s, who can switch row-level security off', k.other_name, t.shown),
               CASE WHEN k.role <> k.other THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('ALTER TABLE %s OWNER TO CURRENT_USER;  -- run as a role that no application connects as', t.shown)) END
          FROM becomes k
         CROSS JOIN tenancy._audited_tables() t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relowner = k.other
         WHERE k.is_application AND NOT k.rolsuper
        UNION ALL
        SELECT DISTINCT 'application_is_operator', NULL, format('role %I', k.role_name),
               CASE WHEN k.role = k.other THEN format('it is the operator role of %s and sees every tenant''s rows', t.shown)
                    ELSE format('it can become %I, who sees every tenant''s rows of %s', k.other_name, t.shown) END,
               CASE WHEN k.role <> k.other THEN tenancy._membership_remedy(k.role, k.other)
                    ELSE coalesce(k.leaves, format('SELECT tenancy.revoke_access(%L, ''application'');  -- an operator is not an application', k.role_name)) END
          FROM becomes k
          JOIN tenancy._audited_tables() t ON t.operator_role = k.other_name
         WHERE k.is_application AND NOT k.rolsuper;
    RETURN QUERY
        SELECT 'writable_schema', NULL, format('schema %I', n.nspname),
               format('%s may create objects in it, and so put a function or operator in others'' way', string_agg(DISTINCT coalesce(r.rolname, 'PUBLIC'), ', ')),
               format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.nspname, string_agg(DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC'), ', '))
          FROM pg_catalog.pg_namespace n
         CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
         WHERE (n.nspname = 'public' OR n.oid IN (SELECT * FROM tenancy._audited_schemas()))
           AND x.privilege_type = 'CREATE'
           AND (x.grantee = 0 OR x.grantee IN (SELECT a.role FROM tenancy._audited_roles() a WHERE a.is_application))
         GROUP BY n.nspname;
    RETURN QUERY
        SELECT 'temporary_tables', NULL, format('database %I', d.datname), 'a temporary table filled for one tenant is there for the next on the same connection',
               format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC;  -- tenancy.begin_copy needs it: grant it to roles that load, and DISCARD TEMP between tenants', d.datname)
          FROM pg_catalog.pg_database d
         CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
         WHERE d.datname = current_database() AND x.grantee = 0 AND x.privilege_type = 'TEMPORARY';
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_server(version_num integer DEFAULT current_setting('server_version_num')::integer)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE sql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT 'server_version', NULL::text, 'server',
           format('PostgreSQL %s.%s has %s', $1 / 10000, $1 % 10000, string_agg(format('%s (%s)', v.cve, v.what), '; ' ORDER BY v.cve)),
           format('-- update to PostgreSQL %s.%s or later; no dump is needed', $1 / 10000, max(v.fixed % 10000))
      FROM (VALUES
            ('CVE-2023-2455', 'policies forgotten after inlining', 140008), ('CVE-2023-2455', 'policies forgotten after inlining', 150003),
            ('CVE-2023-39418', 'MERGE passes UPDATE and SELECT policies', 150004),
            ('CVE-2024-10976', 'policies below sub-queries forgotten', 140014), ('CVE-2024-10976', 'policies below sub-queries forgotten', 150009),
            ('CVE-2024-10976', 'policies below sub-queries forgotten', 160005), ('CVE-2024-10976', 'policies below sub-queries forgotten', 170001),
            ('CVE-2025-8713', 'statistics show hidden rows', 140019), ('CVE-2025-8713', 'statistics show hidden rows', 150014),
            ('CVE-2025-8713', 'statistics show hidden rows', 160010), ('CVE-2025-8713', 'statistics show hidden rows', 170006)
           ) AS v(cve, what, fixed)
     WHERE v.fixed / 10000 = $1 / 10000 AND $1 < v.fixed
    HAVING count(*) > 0;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_undone(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT CASE s.step
                 WHEN 'column' THEN 'tenant_column_missing'
                 WHEN 'default' THEN 'tenant_default_missing'
                 WHEN 'not_null' THEN 'tenant_nullable'
                 WHEN 'index' THEN 'tenant_index_missing'
                 WHEN 'enable' THEN 'rls_disabled'
                 WHEN 'force' THEN 'force_missing'
                 WHEN 'floor' THEN CASE WHEN s.only_roles THEN 'role_outside_floor' ELSE 'floor_missing' END
                 WHEN 'access' THEN CASE WHEN s.only_roles THEN 'role_outside_floor' ELSE 'access_policy_changed' END
                 WHEN 'operator' THEN 'operator_policy_changed'
                 WHEN 'revoke' THEN 'dangerous_grant'
               END, CASE WHEN bool_or(s.widened) THEN 'error' END, tenancy._relation_name(s.relation),
               min('protect_table would run: ' || s.statement) FILTER (WHERE s.statement NOT LIKE 'COMMENT %'),
               format('SELECT tenancy.protect_table(%L, %L);', tenancy._relation_name(p.relation), p.tenant_column)
          FROM tenancy._audited_roots($1) p
         CROSS JOIN LATERAL (
                SELECT x.step, x.relation, x.statement,
                       -- The expression stands and the roles alone differ: it fails closed for the role left out.
                       x.step IN ('floor', 'access') AND p.operator_role IS NOT NULL AND EXISTS (
                           SELECT FROM tenancy._isolation_policies(p.relation, p.tenant_column, p.org_column, p.operator_role) w
                             JOIN pg_catalog.pg_policy y ON y.polrelid = x.relation AND y.polname = w.policy
                            WHERE w.step = x.step AND y.polpermissive = w.permissive AND y.polcmd = '*'
                              AND pg_get_expr(y.polqual, y.polrelid) = w.expression
                              AND pg_get_expr(y.polwithcheck, y.polrelid) = w.expression) AS only_roles,
                       -- To a role that no floor names, an operator's policy shows everything.
                       x.step = 'operator' AND EXISTS (
                           SELECT FROM pg_catalog.pg_policy y CROSS JOIN unnest(y.polroles) AS u(role)
                            WHERE y.polrelid = x.relation AND y.polname = 'tenancy_operator'
                              AND u.role IS DISTINCT FROM to_regrole(quote_ident(p.operator_role))) AS widened
                  FROM tenancy._protection_statements(p.relation, p.tenant_column, p.org_column, p.operator_role, false) x) s
         GROUP BY 1, 3, p.relation, p.tenant_column;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audit_views(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE over(relation, base, operator_role) AS (
            SELECT t.relation::oid, t.shown, p.oid
              FROM tenancy._audited_tables() t LEFT JOIN pg_catalog.pg_roles p ON p.rolname = t.operator_role
            UNION
            SELECT w.ev_class, o.base, o.operator_role
              FROM over o
              JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation
              JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> o.relation
        ), views AS (
            SELECT c.oid, c.relkind, tenancy._relation_name(c.oid) AS shown, string_agg(o.base, ', ' ORDER BY o.base) AS bases,
                   r.rolname, r.rolsuper OR r.rolbypassrls AS unbound, coalesce(bool_or(pg_has_role(r.oid, o.operator_role, 'USAGE')), false) AS operates,
                   coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false) AS invoker
              FROM over o
              JOIN pg_catalog.pg_class c ON c.oid = o.relation AND c.relkind IN ('v', 'm')
              JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
             GROUP BY c.oid, r.rolname, r.rolsuper, r.rolbypassrls
        )
        SELECT CASE v.relkind WHEN 'm' THEN 'materialized_view' ELSE 'view_runs_as_owner' END,
               CASE WHEN v.relkind = 'v' AND (v.unbound OR v.operates) THEN 'error' END,
               v.shown,
               CASE WHEN v.relkind = 'm' THEN format('it holds rows of %s as its owner saw them', v.bases)
                    WHEN v.unbound THEN format('it reads %s as %I, whom no policy binds', v.bases, v.rolname)
                    WHEN v.operates THEN format('it reads %s as %I, whom the operator''s policy lets see all tenants', v.bases, v.rolname)
                    ELSE format('it reads %s as %I: policies are those of that role', v.bases, v.rolname) END,
               CASE WHEN v.relkind = 'm' THEN format('DROP MATERIALIZED VIEW %s;  -- or let nobody but its owner read it, and exempt it', v.shown)
                    ELSE format('ALTER VIEW %s SET (security_invoker = true);', v.shown) END
          FROM views v
         WHERE (v.relkind = 'm' OR NOT v.invoker) AND ($1 IS NULL OR v.oid = ANY ($1));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audited_roles() RETURNS TABLE (role oid, role_name name, is_application boolean)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE users(role, application) AS (
            SELECT r.oid, a.access = 'application'
              FROM tenancy.access_grants a JOIN pg_catalog.pg_roles r ON r.rolname = a.role_name
            UNION ALL
            -- A role that was renamed holds what is recorded under its old name.
            SELECT r.oid, tenancy._holds_access(r.oid, 'application')
                          AND NOT tenancy._holds_access(r.oid, 'service') AND NOT tenancy._holds_access(r.oid, 'operator')
              FROM pg_catalog.pg_namespace n
             CROSS JOIN LATERAL aclexplode(n.nspacl) x
              JOIN pg_catalog.pg_roles r ON r.oid = x.grantee AND r.oid <> n.nspowner
             WHERE n.nspname = 'tenancy'
               AND NOT EXISTS (SELECT FROM tenancy.access_grants a WHERE a.role_name = r.rolname)
            UNION ALL
            SELECT g.oid, false
              FROM tenancy._protections() p
             CROSS JOIN LATERAL tenancy._isolation_grants(p.relation) t
              JOIN pg_catalog.pg_roles g ON g.oid = t.grantee
             WHERE g.rolname IS DISTINCT FROM p.operator_role
        ), members(role) AS (
            SELECT u.role FROM users u WHERE u.application
            UNION
            -- From 16 on a membership can be for administration alone, which neither inherits nor can become the role.
            SELECT m.member
              FROM members s JOIN pg_catalog.pg_auth_members m ON m.roleid = s.role
             WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean OR (to_jsonb(m) ->> 'set_option')::boolean, true)
        )
        SELECT r.oid, r.rolname, bool_or(u.application)
          FROM (SELECT * FROM users UNION ALL SELECT s.role, true FROM members s) u
          JOIN pg_catalog.pg_roles r ON r.oid = u.role
         WHERE r.rolcanlogin OR u.role IN (SELECT w.role FROM users w)
         GROUP BY r.oid, r.rolname;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audited_roots(changed oid[])
RETURNS TABLE (relation regclass, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT p.* FROM tenancy._protections() p
         WHERE $1 IS NULL OR EXISTS (SELECT FROM tenancy._isolation_tree(p.relation) t WHERE t.relation = ANY ($1));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audited_schemas() RETURNS SETOF oid
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT c.relnamespace FROM tenancy._audited_tables() t JOIN pg_catalog.pg_class c ON c.oid = t.relation
        UNION
        SELECT n.oid FROM tenancy.guarded_schemas g JOIN pg_catalog.pg_namespace n ON n.nspname = g.schema_name;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._audited_tables()
RETURNS TABLE (root regclass, relation regclass, shown text, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT p.relation, t.relation, tenancy._relation_name(t.relation), p.tenant_column, p.org_column, p.operator_role
          FROM tenancy._protections() p
         CROSS JOIN LATERAL tenancy._isolation_tree(p.relation) t;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._backfill_batch(
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

CREATE OR REPLACE FUNCTION tenancy._backfill_expression(
    root regclass, backfill text, mapping_table regclass, mapping_key name, mapping_tenant name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    missing record;
BEGIN
    IF mapping_table IS NULL THEN
        RETURN nullif(btrim(backfill), '');
    END IF;
    IF backfill IS NOT NULL OR mapping_key IS NULL OR mapping_tenant IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'mapping_table goes with mapping_key and mapping_tenant, and not with backfill',
            'mapping_key names the column that the table and the mapping table share.');
    END IF;
    -- Before anything is changed, and not when the rows are filled.
    SELECT w.relation, w.name INTO missing
      FROM (VALUES (mapping_table, mapping_key), (mapping_table, mapping_tenant), (root, mapping_key)) AS w (relation, name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = w.relation AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped)
     LIMIT 1;
    IF FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_column',
            format('%s has no column %I', coalesce(tenancy._relation_name(missing.relation), 'table_name'), missing.name),
            'mapping_key names the column that the table and the mapping table share, mapping_tenant the tenant''s in the mapping table.');
    END IF;
    RETURN format('(SELECT m.%I FROM %s m WHERE m.%I = t.%I)',
                  mapping_tenant, tenancy._relation_name(mapping_table), mapping_key, mapping_key);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._begin_deletion(tenant_id text, force boolean) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    deletion uuid;
    owed     jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(_begin_deletion.tenant_id, 'tenant_id');
    SELECT d.id INTO deletion FROM tenancy.tenant_deletions d
     WHERE d.tenant_id = _begin_deletion.tenant_id AND d.finished_at IS NULL FOR UPDATE;
    IF FOUND THEN
        RETURN deletion;
    END IF;
    IF NOT coalesce(_begin_deletion.force, false) THEN
        IF NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.tenant_id = _begin_deletion.tenant_id AND t.status = 'suspended') THEN
            PERFORM tenancy._raise('PT422', 'tenant_not_suspended', 'the tenant is not suspended: new rows could come in behind the deletion',
                'SELECT tenancy.suspend_tenant(tenant_id); wait until its transactions have ended; or force => true.');
        END IF;
        owed := tenancy._tenant_obligations(_begin_deletion.tenant_id);
        IF owed <> '{}' THEN
            PERFORM tenancy._raise('PT422', 'obligations_open', 'credits or holds of the tenant are open', 'Settle or refund them first; or force => true.', owed);
        END IF;
    END IF;
    INSERT INTO tenancy.tenant_deletions AS d (tenant_id, forced, requested_by)
    VALUES (_begin_deletion.tenant_id, coalesce(_begin_deletion.force, false), session_user)
    RETURNING d.id INTO deletion;
    PERFORM tenancy._note_action(_begin_deletion.tenant_id, 'delete_tenant', NULL, jsonb_build_object('deletion', deletion, 'forced', _begin_deletion.force));
    RETURN deletion;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._begin_sweep(root regclass, tenant_column name, expression text, last_filled bigint) RETURNS text
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

CREATE OR REPLACE FUNCTION tenancy._caller_has(VARIADIC accesses text[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- SECURITY DEFINER hides the caller in current_user; SET ROLE shows in the setting, a login in session_user.
    -- Somebody's own SECURITY DEFINER wrapper counts as whoever called it: the narrower of the two.
    caller name := coalesce(nullif(nullif(current_setting('role', true), 'none'), ''), session_user);
BEGIN
    -- current_user is the extension's owner here: this function is called by SECURITY DEFINER functions only.
    RETURN pg_has_role(caller, current_user, 'USAGE')
        OR EXISTS (
            SELECT FROM tenancy.access_grants AS g
              JOIN pg_roles AS r ON r.rolname = g.role_name
             WHERE g.access = ANY (_caller_has.accesses) AND pg_has_role(caller, r.oid, 'USAGE')
               AND tenancy._holds_access(r.oid, g.access));
END
$$;

CREATE OR REPLACE FUNCTION tenancy._check_composite_keys(root regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    foreign_key record;
    needed      record;
    shown       text;
BEGIN
    -- A view that groups by a key alone (or a function so written) would say something else with another key.
    FOR needed IN
        SELECT u.kind, u.key_name, u.relation, pg_describe_object(d.classid, d.objid, d.objsubid) AS dependent
          FROM tenancy._unscoped_keys($1, $2) u
          JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_constraint'::regclass AND d.refobjid = u.constraint_oid
         WHERE u.rewritable AND d.deptype = 'n' AND d.classid <> 'pg_constraint'::regclass
         LIMIT 1
    LOOP
        PERFORM tenancy._raise('2BP01', 'key_in_use', format('%s %I of %s is needed by %s', needed.kind, needed.key_name,
                                                             tenancy._relation_name(needed.relation), needed.dependent),
            'It relies on that key alone, as GROUP BY a primary key does: make it group by every column it shows, then call again.');
    END LOOP;
    FOR foreign_key IN
        SELECT * FROM tenancy._unscoped_foreign_keys($1, $2) f
         WHERE (f.parent_is_ours AND f.problem IS NOT NULL) OR f.problem IS NULL
    LOOP
        shown := format('foreign key %I of %s', foreign_key.key_name, tenancy._relation_name(foreign_key.child));
        IF foreign_key.problem = 'child_has_no_tenant' THEN
            PERFORM tenancy._raise('22023', 'foreign_key_without_tenant',
                format('%s points here, and that table has no tenant column', shown),
                format('First: SELECT tenancy.protect_table(%L).', tenancy._relation_name(foreign_key.child)));
        ELSIF foreign_key.problem = 'tenant_types_differ' THEN
            PERFORM tenancy._raise('22023', 'tenant_types_differ', format('%s joins tenant columns of different types', shown),
                'Give both tables a tenant column of the same type.');
        ELSIF foreign_key.problem IS NOT NULL THEN
            PERFORM tenancy._raise('0A000', foreign_key.problem,
                format('%s cannot carry the tenant as it is', shown),
                'Make it MATCH SIMPLE and without ON UPDATE SET NULL or SET DEFAULT, then call protect_table again.');
        END IF;
        IF NOT pg_has_role(current_user,
                (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = foreign_key.child), 'USAGE') THEN
            PERFORM tenancy._raise('42501', 'not_owner',
                format('must be owner of table %s to rewrite its foreign key', tenancy._relation_name(foreign_key.child)),
                'Call it as a role that is a member of both owners.');
        END IF;
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._check_extra(extra jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What authenticate reads beside our own claims: a caller of an issuing function must not be able to say it.
    reserved CONSTANT text[] := ARRAY['nbf', 'azp', 'typ', 'token_use', 'at_hash', 'c_hash', 'sid', 'tenant_id', 'tid',
        'org_id', 'org', 'o', 'organizations', 'permissions', 'org_permissions', 'correlation_id', 'cnf',
        'extension_token_id'];
    -- What others who verify our tokens take for a right: nobody gives it to themselves. Nor whatever stands under a
    -- name with ':' or '/', as Hasura, Cognito and Auth0 have them, nor an address or number that was not proven.
    rights CONSTANT text[] := ARRAY['role', 'roles', 'scope', 'scp', 'scopes', 'groups', 'entitlements', 'plan_type',
        'app_metadata', 'user_metadata', 'realm_access', 'resource_access', 'wids', 'client_id', 'act', 'may_act',
        'acr', 'amr', 'auth_time', 'admin', 'is_admin', 'email_verified'];
    found_names text[];
BEGIN
    IF jsonb_typeof(coalesce(_check_extra.extra, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'extra must be a JSON object', 'Pass claims by name, or leave it out.',
            '{"parameter": "extra"}');
    END IF;
    SELECT array_agg(name ORDER BY name) INTO found_names
      FROM jsonb_object_keys(coalesce(_check_extra.extra, '{}')) AS name
     WHERE name = ANY (reserved);
    IF found_names IS NOT NULL THEN
        PERFORM tenancy._raise('22023', 'reserved_claim', 'extra names claims that decide who the bearer is',
            'Leave them out: the database resolves them.',
            jsonb_build_object('parameter', 'extra', 'claims', found_names));
    END IF;
    SELECT array_agg(name ORDER BY name) INTO found_names
      FROM jsonb_object_keys(coalesce(_check_extra.extra, '{}')) AS name
     WHERE name = ANY (rights) OR name LIKE 'phone\_number%' OR name ~ '[:/]';
    IF found_names IS NOT NULL AND NOT tenancy._caller_has('service') THEN
        PERFORM tenancy._raise('22023', 'reserved_claim', 'extra names claims that say what the bearer may do',
            'Leave them out, or let a role with service access issue the token.',
            jsonb_build_object('parameter', 'extra', 'claims', found_names));
    END IF;
    RETURN coalesce(_check_extra.extra, '{}');
END
$$;

CREATE OR REPLACE FUNCTION tenancy._check_isolation_column(relation regclass, column_name name, kind text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    col   record;
    shown text := tenancy._relation_name($1);
BEGIN
    IF $2 = '' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('%s_column must not be empty', $3),
            'Name a column, existing or to be made.');
    END IF;
    SELECT a.*, c.collisdeterministic INTO col
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
     WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        IF $3 = 'org' THEN
            PERFORM tenancy._raise('22023', 'unknown_column', format('%s has no column %I', shown, $2),
                format('ALTER TABLE %s ADD COLUMN %I text; fill it, then call protect_table again.', shown, $2));
        END IF;
        RETURN;
    END IF;
    IF col.attnum < 0 THEN
        PERFORM tenancy._raise('22023', 'system_column', format('%I is a system column', $2), 'Name a column of your own.');
    END IF;
    IF tenancy._isolation_accessor($1, $2, $3) IS NULL THEN
        PERFORM tenancy._raise('22023', 'column_type',
            format('column %I of %s is %s', $2, shown, format_type(col.atttypid, col.atttypmod)),
            CASE $3 WHEN 'tenant'
                THEN format('It must be text, uuid or bigint, so that a policy can compare it without a cast: ALTER TABLE %s ALTER COLUMN %I TYPE %s.',
                            shown, $2, CASE WHEN col.atttypid IN ('smallint'::regtype, 'integer'::regtype) THEN 'bigint' ELSE 'text' END)
                ELSE format('It must be text or uuid, so that a policy can compare it without a cast: ALTER TABLE %s ALTER COLUMN %I TYPE text.', shown, $2) END,
            jsonb_build_object('type', format_type(col.atttypid, col.atttypmod)));
    END IF;
    IF NOT coalesce(col.collisdeterministic, true) THEN
        PERFORM tenancy._raise('22023', 'column_collation',
            format('column %I of %s has a nondeterministic collation: different ids would be equal', $2, shown),
            format('ALTER TABLE %s ALTER COLUMN %I TYPE text COLLATE "C".', shown, $2));
    END IF;
    IF $3 = 'tenant' AND (col.attgenerated <> '' OR col.attidentity <> '') THEN
        PERFORM tenancy._raise('22023', 'generated_column', format('column %I of %s is generated', $2, shown),
            'The tenant is set when a row is inserted and never computed: use an ordinary column.');
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._check_key_manager(org_id text, namespace text, role text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tenancy._caller_has('service', 'operator') THEN
        RETURN;
    END IF;
    IF tenancy.user_id() IS NULL THEN
        PERFORM tenancy._raise('PT401', 'not_authenticated', 'Not authenticated',
            'Begin a transaction and call tenancy.authenticate(token) first.');
    ELSIF (tenancy.org_id(), tenancy.identity_namespace()) IS DISTINCT FROM (_check_key_manager.org_id, _check_key_manager.namespace) THEN
        PERFORM tenancy._raise('PT403', 'another_organization', 'API keys are managed within the identity''s own organization',
            'Authenticate for that organization.');
    END IF;
    PERFORM tenancy._require_good_identity();
    IF NOT tenancy._holds_now('manage_keys') THEN
        PERFORM tenancy._raise('PT403', 'permission_denied', 'Permission denied: requires manage_keys',
            'Ask an admin or owner of the organization.', '{"permission": "manage_keys"}');
    ELSIF _check_key_manager.role IS NOT NULL AND NOT tenancy._may_give_role(_check_key_manager.role) THEN
        PERFORM tenancy._raise('PT403', 'permission_denied', 'Permission denied: the role permits more than the identity does',
            'Ask somebody with that role.', jsonb_build_object('role', _check_key_manager.role));
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._check_operator_role(relation regclass, operator_role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    bound name;
BEGIN
    IF $2 IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $2) THEN
        PERFORM tenancy._raise('22023', 'unknown_role', format('role %I does not exist', $2), 'CREATE ROLE first.');
    END IF;
    IF EXISTS (SELECT FROM tenancy._isolation_grants($1) g WHERE g.grantee = 0) THEN
        PERFORM tenancy._raise('22023', 'granted_to_public',
            format('%s is granted to PUBLIC, and so to the operator role as well', tenancy._relation_name($1)),
            format('REVOKE ALL ON %s FROM PUBLIC; and grant it to the roles that need it.', tenancy._relation_name($1)));
    END IF;
    IF tenancy._isolation_roles($1, $2) IS NULL THEN
        PERFORM tenancy._raise('22023', 'nobody_to_bind', format('besides %I there is no role that a floor could bind', $2),
            'Name an operator role of its own: one that neither owns the table nor has pg_read_all_data and pg_write_all_data.');
    END IF;
    SELECT r.role INTO bound
      FROM unnest(tenancy._isolation_roles($1, $2)) AS r(role)
     WHERE pg_has_role($2, r.role, 'USAGE')
       AND NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = $2)
     LIMIT 1;
    IF FOUND THEN
        PERFORM tenancy._raise('22023', 'operator_is_bound',
            format('operator role %I has the privileges of %I, whom the tenant floor binds', $2, bound),
            format('REVOKE %I FROM %I, or name a role of its own.', bound, $2));
    END IF;
    -- Services and operators have application access too; whoever has that alone acts for one tenant.
    IF has_function_privilege($2, 'tenancy.authenticate(text)', 'EXECUTE')
       AND NOT has_function_privilege($2, 'tenancy.act_as(text,text,text,text,text)', 'EXECUTE')
       AND NOT has_function_privilege($2, 'tenancy.audit_isolation()', 'EXECUTE') THEN
        PERFORM tenancy._raise('22023', 'operator_is_application',
            format('role %I has application access, and as operator role it would see every tenant''s rows', $2),
            'Name a role that no application connects as, or give it service or operator access: SELECT tenancy.grant_access(role, ''operator'').');
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._check_protectable(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    rel   pg_catalog.pg_class;
    shown text := tenancy._relation_name($1);
    child record;
BEGIN
    IF $1 IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'table_name must not be null',
            'Name the table: SELECT tenancy.protect_table(''public.essays'').');
    END IF;
    SELECT * INTO rel FROM pg_catalog.pg_class WHERE oid = $1;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_table', format('no relation has the oid %s', $1::oid),
            'Name the table: SELECT tenancy.protect_table(''public.essays'').');
    END IF;
    IF rel.relkind = 'f' THEN
        PERFORM tenancy._raise('0A000', 'foreign_table', format('%s is a foreign table: PostgreSQL has no row-level security for those', shown),
            'Protect the table on its own server, and give no application role access to the foreign table.');
    ELSIF rel.relkind IN ('v', 'm') THEN
        PERFORM tenancy._raise('42809', 'not_a_table',
            format('%s is a %s: row-level security is for tables', shown, CASE rel.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END),
            CASE rel.relkind
                WHEN 'v' THEN format('Protect the tables it reads, then: ALTER VIEW %s SET (security_invoker = true).', shown)
                ELSE 'Give no application role access to it, or replace it by a table with a tenant column.' END);
    ELSIF rel.relkind NOT IN ('r', 'p') THEN
        PERFORM tenancy._raise('42809', 'not_a_table', format('%s is not a table', shown),
            'Name an ordinary or a partitioned table.');
    END IF;
    IF rel.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
       OR shown LIKE 'information\_schema.%' THEN
        PERFORM tenancy._raise('22023', 'system_table', format('%s is a system table', shown),
            'Only your own tables can be protected.');
    END IF;
    IF rel.relnamespace = 'tenancy'::regnamespace THEN
        PERFORM tenancy._raise('22023', 'own_table', format('%s belongs to pg_tenancy, which protects its tables itself', shown),
            'Only your own tables can be protected.');
    END IF;
    IF rel.relpersistence = 't' THEN
        PERFORM tenancy._raise('0A000', 'temporary_table', format('%s is a temporary table', rel.relname),
            'A temporary table is private to its session and outlives the identity: DISCARD TEMP between tenants.');
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = $1 AND d.deptype = 'e') THEN
        PERFORM tenancy._raise('0A000', 'extension_table', format('%s belongs to an extension', shown),
            'Its definition is the extension''s: a dump would not carry the policies.');
    END IF;
    FOR child IN
        SELECT c.relkind, c.relowner, tenancy._relation_name(c.oid) AS name
          FROM tenancy._isolation_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
    LOOP
        IF child.relkind = 'f' THEN
            PERFORM tenancy._raise('0A000', 'foreign_table', format('%s is a foreign table under %s', child.name, shown),
                'PostgreSQL has no row-level security for foreign tables: detach it first.');
        END IF;
        IF NOT pg_has_role(current_user, child.relowner, 'USAGE') THEN
            PERFORM tenancy._raise('42501', 'not_owner', format('must be owner of table %s', child.name),
                format('Call it as %s, or as a member of that role.', pg_get_userbyid(child.relowner)));
        END IF;
    END LOOP;
    -- Read through its parent, a child's own policies do not count: the parent must hold the floor.
    FOR child IN
        SELECT tenancy._relation_name(i.inhparent) AS parent
          FROM pg_catalog.pg_inherits i
         WHERE i.inhrelid = $1
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
                            WHERE p.polrelid = i.inhparent AND p.polname = 'tenancy_floor')
         ORDER BY i.inhseqno
    LOOP
        PERFORM tenancy._raise('22023', 'parent_not_protected', format('%s is a child of %s, which is not protected', shown, child.parent),
            format('SELECT tenancy.protect_table(%L) protects it and all below it.', child.parent));
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._check_rows_have_tenant(relation regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    present boolean;
    rows    bigint;
    shown   text := tenancy._relation_name($1);
BEGIN
    -- A child may take NULLs under a parent that takes none.
    IF (SELECT bool_and(coalesce(a.attnotnull, false))
          FROM tenancy._isolation_tree($1) t
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = $2 AND NOT a.attisdropped) THEN
        RETURN;
    END IF;
    present := EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped);
    rows := tenancy._count_rows($1, CASE WHEN present THEN format('%I IS NULL', $2) ELSE 'true' END);
    IF rows > 0 THEN
        PERFORM tenancy._raise('22023', 'rows_without_tenant',
            CASE WHEN present THEN format('%s row(s) of %s have no %I', rows, shown, $2)
                 ELSE format('%s has %s row(s) and no column %I', shown, rows, $2) END,
            format('Say whose they are first: CALL tenancy.protect_table_online(%L, backfill => …), or fill the column yourself.', shown),
            jsonb_build_object('rows', rows));
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._check_token_caller(user_id text, namespace text, claims jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_own boolean := tenancy.user_id() = _check_token_caller.user_id
                      AND tenancy.identity_namespace() = _check_token_caller.namespace;
BEGIN
    IF NOT tenancy._caller_has('service') THEN
        IF tenancy.user_id() IS NULL THEN
            PERFORM tenancy._raise('PT401', 'not_authenticated', 'Not authenticated',
                'Begin a transaction and call tenancy.authenticate(token) first.');
        ELSIF (SELECT p.source FROM tenancy._provenance() AS p) = 'api_key' THEN
            -- A key is for one organization, with one role, until it is revoked; a token of its user would be for all.
            PERFORM tenancy._raise('PT403', 'api_key_identity', 'An API key issues, lists and revokes no tokens of its user',
                'Let the user sign in, or let a role with service access do it.');
        ELSIF is_own IS NOT TRUE THEN
            PERFORM tenancy._raise('PT403', 'another_user', 'A token is issued to the authenticated user only',
                'Pass the identity''s own user_id, or let a role with service access issue for others.');
        ELSIF _check_token_caller.claims IS NOT NULL THEN
            PERFORM tenancy._raise('42501', 'claims_not_allowed', 'Claims are taken from a role with service access only',
                'Leave claims out: the claims of the authenticated token count.');
        END IF;
        PERFORM tenancy._require_good_identity();
    END IF;
    RETURN coalesce(_check_token_caller.claims,
                    tenancy._own_claims(_check_token_caller.namespace, _check_token_caller.user_id));
END
$$;

CREATE OR REPLACE FUNCTION tenancy._close_functions() RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._column_statements(root regclass, tenant_column name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    accessor text := tenancy._isolation_accessor($1, $2, 'tenant');
    rel      record;
    emitted  text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped) THEN
        RETURN QUERY VALUES
            ('column', $1, format('ALTER TABLE %s ADD COLUMN %I text', tenancy._relation_name($1), $2)),
            ('default', $1, format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', tenancy._relation_name($1), $2, accessor)),
            ('not_null', $1, format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', tenancy._relation_name($1), $2));
        RETURN;
    END IF;
    FOR rel IN
        SELECT t.relation, t.depth, a.attnotnull, tenancy._relation_name(t.relation) AS name,
               pg_get_expr(d.adbin, d.adrelid) AS adefault
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = $2
          LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         ORDER BY t.depth, t.relation
    LOOP
        IF rel.adefault IS DISTINCT FROM accessor AND 'default' <> ALL (emitted) THEN
            RETURN QUERY VALUES ('default', rel.relation,
                format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', rel.name, $2, accessor));
            emitted := emitted || CASE WHEN rel.depth = 0 THEN ARRAY['default'] ELSE '{}' END;
        END IF;
        IF NOT rel.attnotnull AND 'not_null' <> ALL (emitted) THEN
            RETURN QUERY VALUES ('not_null', rel.relation,
                format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', rel.name, $2));
            emitted := emitted || CASE WHEN rel.depth = 0 THEN ARRAY['not_null'] ELSE '{}' END;
        END IF;
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._condition_applies(condition text, tenant_id text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE WHEN $1 LIKE '%::uuid' THEN $2 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                WHEN $1 LIKE '%::bigint' THEN $2 ~ '^(0|-?[1-9][0-9]{0,18})$' AND $2::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                ELSE true END;
$$;

CREATE OR REPLACE FUNCTION tenancy._count_rows(relation regclass, condition text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    counted bigint;
    counting text := format('SELECT count(*) FROM %s WHERE %s', tenancy._relation_name($1), $2);
BEGIN
    IF NOT (SELECT c.relforcerowsecurity FROM pg_catalog.pg_class c WHERE c.oid = $1) THEN
        EXECUTE counting INTO counted;
        RETURN counted;
    END IF;
    BEGIN
        EXECUTE format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', tenancy._relation_name($1));
        EXECUTE counting INTO counted;
        RAISE EXCEPTION USING ERRCODE = 'TN000', MESSAGE = 'counted; FORCE stands again';
    EXCEPTION WHEN SQLSTATE 'TN000' THEN
        RETURN counted;
    END;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._delete_batch(tenant_id text, deletion uuid, batch_size integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    held    record;
    receipt tenancy.tenant_deletions;
    budget  bigint := _delete_batch.batch_size;
    gone    bigint;
    circle  record;
    part    record;
BEGIN
    PERFORM tenancy._require_installed();
    IF coalesce(_delete_batch.batch_size, 0) NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'batch_size must be between 1 and 1,000,000', 'A few thousand keep each transaction short.');
    END IF;
    SELECT * INTO receipt FROM tenancy.tenant_deletions d
     WHERE d.tenant_id = _delete_batch.tenant_id AND d.id = _delete_batch.deletion AND d.finished_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'unknown_deletion', 'no such deletion is under way', 'CALL tenancy.delete_tenant(tenant_id).');
    END IF;
    -- Whatever was to be checked at the end of the transaction is checked here, while the owner's rights hold.
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR held IN
        SELECT * FROM tenancy._tenant_tables(true) t
         WHERE tenancy._condition_applies(t.condition, _delete_batch.tenant_id)
         ORDER BY t.place DESC, t.relation DESC
    LOOP
        IF held.relation = 'tenancy.organizations'::regclass THEN
            PERFORM tenancy._keep_organizations_out(_delete_batch.tenant_id);
        END IF;
        BEGIN
            gone := tenancy._delete_rows(held.relation, held.condition, _delete_batch.tenant_id, budget);
        EXCEPTION WHEN foreign_key_violation THEN
            -- Tables whose keys point at each other: their rows go in one statement, at whose end the keys are looked at.
            WITH held_tables AS MATERIALIZED (
                SELECT t.root::oid AS root, t.relation::oid AS relation, tenancy._relation_name(t.relation) AS name, t.condition
                  FROM tenancy._tenant_tables(true) t WHERE tenancy._condition_applies(t.condition, _delete_batch.tenant_id)
            ), above AS MATERIALIZED (
                SELECT a.root, a.above AS ancestor FROM tenancy._tables_above(ARRAY(SELECT DISTINCT h.root FROM held_tables h)) a
            ), members AS (
                SELECT h.*, row_number() OVER (ORDER BY h.relation) AS number, r.relowner
                  FROM held_tables h
                  JOIN pg_catalog.pg_class r ON r.oid = h.relation
                  JOIN above p ON p.root = held.root AND p.ancestor = h.root
                  JOIN above c ON c.root = h.root AND c.ancestor = held.root
            )
            SELECT count(DISTINCT m.root) AS roots, count(DISTINCT m.relowner) AS owners,
                   array_agg(m.root::regclass) AS root, array_agg(m.relation) AS relation, array_agg(m.name) AS name, array_agg(m.condition) AS condition,
                   'WITH ' || string_agg(format('d%s AS (DELETE FROM ONLY %s x WHERE %s RETURNING 1)', m.number, m.name, m.condition), ', ')
                   || ' ' || string_agg(format('SELECT 1 FROM d%s', m.number), ' UNION ALL ') AS statement
              INTO circle FROM members m;
            IF circle.roots < 2 OR circle.owners > 1 THEN
                RAISE;
            END IF;
            FOR part IN
                SELECT u.root, sum(r.line::bigint) AS rows
                  FROM unnest(circle.root, circle.relation, circle.name, circle.condition) AS u(root, relation, name, condition)
                 CROSS JOIN LATERAL tenancy._rows_as_owner(u.relation, format('SELECT count(*)::text FROM ONLY %s x WHERE %s', u.name, u.condition),
                                                           _delete_batch.tenant_id) AS r(line)
                 GROUP BY u.root HAVING sum(r.line::bigint) > 0
            LOOP
                receipt.deleted := receipt.deleted || jsonb_build_object(tenancy._relation_name(part.root),
                    coalesce((receipt.deleted ->> tenancy._relation_name(part.root))::bigint, 0) + part.rows);
            END LOOP;
            budget := budget - tenancy._execute_as_owner(held.relation, circle.statement, _delete_batch.tenant_id);
            gone := 0;
        END;
        IF gone > 0 THEN
            receipt.deleted := receipt.deleted || jsonb_build_object(tenancy._relation_name(held.root),
                coalesce((receipt.deleted ->> tenancy._relation_name(held.root))::bigint, 0) + gone);
            budget := budget - gone;
        END IF;
        EXIT WHEN budget <= 0;
    END LOOP;
    UPDATE tenancy.tenant_deletions d
       SET deleted = receipt.deleted, updated_at = now(), finished_at = CASE WHEN budget > 0 THEN now() END
     WHERE d.tenant_id = _delete_batch.tenant_id AND d.id = _delete_batch.deletion;
    IF budget > 0 THEN
        PERFORM tenancy._changed('organizations');
    END IF;
    RETURN jsonb_build_object('tenant_id', _delete_batch.tenant_id, 'deletion', _delete_batch.deletion, 'deleted', receipt.deleted,
                              'rows', (SELECT coalesce(sum(e.value::bigint), 0) FROM jsonb_each_text(receipt.deleted) e), 'done', budget > 0);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._delete_rows(relation regclass, condition text, tenant_id text, budget bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN tenancy._execute_as_owner($1, format('DELETE FROM ONLY %1$s WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM ONLY %1$s x WHERE %2$s LIMIT %3$s))',
                                                tenancy._relation_name($1), $2, $4), $3);
EXCEPTION WHEN foreign_key_violation THEN
    -- Rows that point at each other in one table go in one statement or not at all.
    RETURN tenancy._execute_as_owner($1, format('DELETE FROM ONLY %s x WHERE %s', tenancy._relation_name($1), $2), $3);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._end_extension_token(token_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended_at timestamptz;
BEGIN
    UPDATE tenancy.extension_tokens AS t
       SET revoked_at = now(), revoked_reason = _end_extension_token.reason
     WHERE t.id = _end_extension_token.token_id AND t.revoked_at IS NULL
    RETURNING t.expires_at INTO ended_at;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- authenticate looks into revocations, by jti; validate_extension_token at the row.
    PERFORM tenancy._revoke_ours('token', _end_extension_token.token_id::text, ended_at);
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._find_extension_token(token text, otherwise text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked record;
    known_id uuid;
    is_revoked boolean;
    known_end timestamptz;
    refusal text;
    cause text;
BEGIN
    IF coalesce(_find_extension_token.token, '') = '' THEN
        PERFORM tenancy._raise('PT401', 'MISSING_AUTH_HEADER', 'There is no token', 'Pass the bearer''s token, without the word Bearer.');
    END IF;
    SELECT t.id, t.revoked_at IS NOT NULL, t.expires_at INTO known_id, is_revoked, known_end
      FROM tenancy.extension_tokens AS t
     WHERE t.token_hash = tenancy._token_hash(_find_extension_token.token);
    SELECT v.valid, v.reason, v.claims INTO checked FROM tenancy.verify_token(_find_extension_token.token) AS v;
    IF NOT checked.valid THEN
        cause := CASE checked.reason WHEN 'not_issued' THEN 'unknown' ELSE checked.reason END;
        refusal := CASE checked.reason
            WHEN 'expired' THEN 'TOKEN_EXPIRED'
            WHEN 'revoked' THEN _find_extension_token.otherwise
            WHEN 'not_issued' THEN _find_extension_token.otherwise
            WHEN 'not_a_member' THEN _find_extension_token.otherwise
            WHEN 'token_type' THEN 'INVALID_TOKEN_TYPE'
            ELSE 'INVALID_TOKEN' END;
    ELSIF checked.claims ->> 'type' IS DISTINCT FROM 'extension_long_lived' THEN
        cause := 'type';
        refusal := 'INVALID_TOKEN_TYPE';
    ELSIF known_id IS NULL THEN
        cause := 'unknown';
        refusal := CASE WHEN EXISTS (
                SELECT FROM tenancy.users AS u JOIN tenancy.issuers AS i ON i.namespace = u.namespace
                 WHERE i.issuer = checked.claims ->> 'iss' AND u.external_id = checked.claims ->> 'sub')
            THEN _find_extension_token.otherwise ELSE 'USER_NOT_FOUND' END;
    ELSIF is_revoked THEN
        cause := 'revoked';
        refusal := _find_extension_token.otherwise;
    ELSIF known_end <= now() THEN
        cause := 'expired';
        refusal := 'TOKEN_EXPIRED';
    END IF;
    IF refusal IS NOT NULL THEN
        -- An error takes its transaction's rows with it: what is told apart for the operator goes to the server's log.
        RAISE LOG 'pg_tenancy: extension token refused: %, token id %', cause, coalesce(known_id::text, 'unknown');
        PERFORM tenancy._raise(
            CASE refusal WHEN 'USER_NOT_FOUND' THEN 'PT404' WHEN 'NO_ACTIVE_TOKEN' THEN 'PT404' ELSE 'PT401' END,
            refusal,
            CASE refusal
                WHEN 'TOKEN_EXPIRED' THEN 'The token has expired'
                WHEN 'INVALID_TOKEN_TYPE' THEN 'The token is of another type'
                WHEN 'USER_NOT_FOUND' THEN 'User not found'
                WHEN 'NO_ACTIVE_TOKEN' THEN 'There is no active token to refresh'
                WHEN 'TOKEN_REVOKED_OR_INVALID' THEN 'The token is revoked or was never issued'
                ELSE 'The token is invalid' END,
            'Let the user sign in and issue a new token.');
    END IF;
    RETURN known_id;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._forget_protection(table_name regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
                    WHERE p.polrelid = table_name AND p.polname = 'tenancy_release') THEN
        PERFORM tenancy._raise('42501', 'not_released',
            format('%s was not released by its owner', tenancy._relation_name(table_name)),
            'Call tenancy.unprotect_table as the owner of the table.');
    END IF;
    IF (SELECT g.mode FROM tenancy._guard_of(table_name) g) = 'protect'
       AND NOT EXISTS (SELECT FROM tenancy.isolation_exemptions e
                        WHERE e.object = tenancy._relation_name(_forget_protection.table_name) AND e.rule = 'unprotected_table'
                          AND (e.expires_at IS NULL OR e.expires_at > now())) THEN
        PERFORM tenancy._raise('42501', 'isolation_guard',
            format('the guard of its schema would protect %s again', tenancy._relation_name(table_name)),
            format('First: SELECT tenancy.exempt(%L, ''unprotected_table'', ''why''); or end the guard.', tenancy._relation_name(table_name)));
    END IF;
    DELETE FROM tenancy.protected_tables t WHERE t.relation = table_name;
    RETURN FOUND;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._function_access() RETURNS TABLE (signature text, access text)
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
    ('health()', 'metrics'),
    ('_lock_schema()', 'internal'),
    ('_library_version()', 'internal'),
    ('_migrations()', 'internal'),
    ('_require_installed()', 'internal'),
    ('_require_matching_code()', 'internal'),
    ('_apply_migrations(integer)', 'internal'),
    ('_create_schema_migrations()', 'internal'),
    ('_close_relation(text)', 'internal'),
    ('_close_row_types()', 'internal'),
    ('_close_functions()', 'internal'),
    ('_function_access()', 'internal'),
    ('_table_access()', 'internal'),
    ('_access_levels(text)', 'internal'),
    ('_holds_access(oid,text)', 'internal'),
    ('_reconcile_access(text)', 'internal'),
    ('_reconcile_operator_policies()', 'internal'),
    ('_health_schema()', 'internal'),
    ('_health_access()', 'internal'),
    ('_health_preload()', 'internal'),
    ('_health_master_key()', 'internal'),
    ('_health_issuer_keys()', 'internal'),
    ('_health_sealed_secrets()', 'internal'),
    ('_health_master_key_backup()', 'internal'),
    ('_health_server()', 'internal'),
    ('_health_roles()', 'internal'),
    ('_health_isolation()', 'internal'),
    ('_health_outbox()', 'internal'),
    ('_health_holds()', 'internal'),
    ('_health_retention()', 'internal'),
    ('_health_limiter()', 'internal'),
    ('_sealed_boxes()', 'internal'),
    ('confirm_master_key_backup(text)', 'operator'),

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
    ('_note_action(text,text,text,jsonb)', 'internal'),
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
    ('_tenant_of(text,text,text)', 'internal'),
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
    ('_master_key_file_sha256()', 'internal'),
    ('trim_audit(interval,integer)', 'operator'),
    ('trim_revocations(integer)', 'operator'),

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
    ('_own_claims(text,text)', 'internal'),
    ('_org_membership(text,text,text,jsonb)', 'internal'),
    ('_org_attribution(text,text,text,jsonb)', 'internal'),
    ('_claimed_org_role(text,text,text)', 'internal'),
    ('_find_user(text,text)', 'internal'),
    ('_find_organization(text,text)', 'internal'),
    ('_own_tenant(text,text,text)', 'internal'),
    ('_lock_subscription(uuid)', 'internal'),
    ('_end_lapsed_seats(uuid)', 'internal'),
    ('_revoke_open_seat(uuid,uuid,text)', 'internal'),

    -- credits
    ('spend_credits(numeric,text,text,text,jsonb)', 'application'),
    ('_obligations_credits(text)', 'internal'),
    ('credit_balance(text,text,timestamptz)', 'application'),
    -- the views' reader calls it with his own rights; it answers for pools that row-level security shows him
    ('pool_figures(uuid)', 'application'),
    ('deduct_credits_pooled(text,numeric,text,text,text)', 'service'),
    ('deduct_credits(text,numeric,text,text,text,text,jsonb)', 'service'),
    ('deduct_credits_batch(jsonb)', 'service'),
    ('hold_credits(text,numeric,text,interval,text,text,jsonb)', 'service'),
    ('capture_hold(uuid,numeric)', 'service'),
    ('void_hold(uuid)', 'service'),
    ('refund_credits(uuid,numeric,text)', 'service'),
    ('grant_credits(numeric,text,text,text,timestamptz,integer,text,timestamptz,numeric,numeric,timestamptz,text)', 'operator'),
    ('adjust_credits(numeric,text,text,text,text)', 'operator'),
    ('consume_credits(text,text,text,integer,text,text)', 'service'),
    ('_consume_credits(text,text,text,text,integer,text,text)', 'internal'),
    ('_lock_pools(uuid[])', 'internal'),
    ('_payers_of(jsonb)', 'internal'),
    ('check_credits(text,text,jsonb)', 'service'),
    ('set_credit_cost(text,numeric)', 'operator'),
    ('set_seat_credits(text,text,numeric)', 'operator'),
    ('allocate_seat_credits(text,integer,text,timestamptz,text)', 'operator'),
    ('verify_ledger(text,text,text)', 'operator'),
    ('seal_ledger(bigint)', 'operator'),
    ('sweep_credits(integer)', 'operator'),
    ('set_member_cap(text,text,numeric,text,text)', 'operator'),
    ('set_credit_alerts(numeric[],text,text,text)', 'operator'),
    ('install_compat(name)', 'owner'),
    ('_is_sound_pool(uuid,uuid,uuid,numeric,numeric,numeric,numeric,numeric)', 'internal'),
    ('_is_sound_entry(text,bigint,numeric,numeric,numeric,uuid,uuid,uuid)', 'internal'),
    ('_lock_credit_pool(text,text,text)', 'internal'),
    ('_require_credits(numeric,text,boolean)', 'internal'),
    ('_verify_entries(uuid)', 'internal'),
    ('_verify_line(uuid)', 'internal'),
    ('_verify_holds(uuid)', 'internal'),
    ('_verify_refunds(uuid)', 'internal'),
    ('_verify_rest(uuid)', 'internal'),
    ('_verify_chain(uuid)', 'internal'),
    ('_publish_credit_alert(uuid,jsonb)', 'internal'),

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
    -- tokens: an application role acts for its identity's own user and organization only, which the functions check;
    -- who holds a token, code or key proves himself by it
    ('add_signing_profile(text,text,text,text,text,bytea,interval)', 'operator'),
    ('jwks()', 'application'),
    ('issue_access_token(text,text,jsonb,jsonb,boolean,text)', 'application'),
    ('issue_dashboard_token(text,text,jsonb,jsonb,boolean,text)', 'application'),
    ('issue_extension_token(text,text,jsonb,text,text,text,jsonb,boolean,text)', 'application'),
    ('validate_extension_token(text)', 'application'),
    ('refresh_extension_token(text)', 'application'),
    ('revoke_extension_token(uuid)', 'application'),
    ('list_extension_tokens(text,text)', 'application'),
    ('start_authorization(text,text,text,text,text,text)', 'application'),
    ('complete_authorization(text,text,text,text)', 'application'),
    ('refresh_access_token(text)', 'application'),
    ('revoke_refresh_token(text)', 'application'),
    ('create_api_key(text,text,text,text)', 'application'),
    ('authenticate_api_key(text)', 'application'),
    ('rotate_api_key(uuid,interval)', 'application'),
    ('revoke_api_key(uuid)', 'application'),
    ('list_api_keys(text)', 'application'),
    ('clean_up_tokens(integer,interval)', 'operator'),
    ('_caller_has(text[])', 'internal'),
    ('_check_token_caller(text,text,jsonb)', 'internal'),
    ('_token_hash(text)', 'internal'),
    ('_find_token_user(text,text)', 'internal'),
    ('_require_token_user(uuid)', 'internal'),
    ('_check_extra(jsonb)', 'internal'),
    ('_mint_token(text,text,text,integer,text,text,jsonb,jsonb,boolean,uuid,text,text)', 'internal'),
    ('_issue_token(text,integer,text,text,jsonb,jsonb,boolean,text)', 'internal'),
    ('_audit_token(text,text,text,uuid,text,text,text,text)', 'internal'),
    ('_audit_tenant(text,text,text)', 'internal'),
    ('_may_note_use()', 'internal'),
    ('_signing_context(text,text)', 'internal'),
    ('_sign_token(text,text)', 'internal'),
    ('_make_signing_key(text,text,bytea,text,text)', 'internal'),
    ('_new_secret(text)', 'internal'),
    ('_is_pkce(text)', 'internal'),
    ('_verifier_matches(text,text)', 'internal'),
    ('_take_token_limit(uuid,text)', 'internal'),
    ('_take_token_limit_again(text,text,text)', 'internal'),
    ('_token_limit(text)', 'internal'),
    ('_raise_token_limit(integer,interval)', 'internal'),
    ('_seal_note(text,text,uuid)', 'internal'),
    ('_open_note(bytea,text,uuid)', 'internal'),
    ('_find_extension_token(text,text)', 'internal'),
    ('_end_extension_token(uuid,text)', 'internal'),
    ('_issue_pair(uuid,text,text,text,text,text,uuid,timestamptz)', 'internal'),
    ('_revoke_family(uuid,text)', 'internal'),
    ('_revoke_ours(text,text,timestamptz)', 'internal'),
    ('_is_revoked(text,text,text,text,timestamptz)', 'internal'),
    ('_require_good_identity()', 'internal'),
    ('_issued_here()', 'internal'),
    ('_extension_origin()', 'internal'),
    ('_require_sign_in(text[])', 'internal'),
    ('_key_lapses()', 'internal'),
    ('_require_lasting_key()', 'internal'),
    ('_directory_role()', 'internal'),
    ('_holds_now(text)', 'internal'),
    ('_role_permissions(text)', 'internal'),
    ('_may_give_role(text)', 'internal'),
    ('_check_key_manager(text,text,text)', 'internal'),
    ('_find_api_key(uuid)', 'internal'),
    ('_note_api_key_use(uuid)', 'internal'),
    ('_reseal_tokens()', 'internal'),

    -- limits
    ('set_rate_limit(text,integer,interval,integer,text)', 'operator'),
    ('set_rate_limit_policy(text,text,text)', 'operator'),
    ('remove_rate_limit(text,text)', 'operator'),
    ('take_rate_limit(text,integer,text)', 'application'),
    ('peek_rate_limit(text,integer,text)', 'application'),
    ('_take_fixed_limit(text,text,text,integer,interval)', 'internal'),
    ('take_rate_limit_for(text,text,integer,text)', 'service'),
    ('set_quota(text,numeric,numeric,text,text,text,text,text,text)', 'operator'),
    ('remove_quota(text,text,text,text,text,text)', 'operator'),
    ('set_plan_quota(text,text,numeric,numeric,text,text)', 'operator'),
    ('check_quota(text,numeric)', 'application'),
    ('take_quota(text,numeric)', 'application'),
    ('prune_quota_usage(interval,integer)', 'operator'),
    ('_parse_rate_limit(text)', 'internal'),
    ('_store_rate_limit(text,text,integer,interval,integer)', 'internal'),
    ('_require_limit_scope(text,text)', 'internal'),
    ('_period_start(text,timestamptz,text)', 'internal'),
    ('_period_end(text,timestamptz,text)', 'internal'),
    ('_require_quota(text,numeric,numeric,text,text)', 'internal'),
    ('_require_quantity(numeric,text)', 'internal'),
    ('_quota_subject(text,text,text)', 'internal'),
    ('_quotas_for(text)', 'internal'),
    ('_plan_of(text,uuid)', 'internal'),
    ('_publish_quota_crossing(text,text,text,text,timestamptz,numeric,numeric,numeric)', 'internal'),
    ('_count_quota(text,numeric,boolean)', 'internal'),
    ('_raise_quota_exceeded(text,text,numeric,text,text,text,timestamptz,numeric,timestamptz)', 'internal'),
    ('_quota_scope(text,text)', 'internal'),
    ('_quota_state(text,numeric,timestamptz)', 'internal'),

    -- metering; metrics are for whoever watches, the rest for the identity
    ('set_llm_price(text,text,numeric,numeric,numeric,timestamptz)', 'operator'),
    ('record_llm_usage(text,text,bigint,bigint,numeric,text,bigint,double precision,numeric)', 'application'),
    ('run_units(double precision,double precision,text,text)', 'application'),
    ('record_run_units(text,double precision,double precision,text,text,double precision)', 'application'),
    ('check_run_units(numeric)', 'application'),
    ('run_units_total(text)', 'application'),
    ('run_units_summary(text)', 'application'),
    ('run_units_history(integer,text)', 'application'),
    ('load_policy(jsonb)', 'operator'),
    ('grant_signup_bonus(text,text,text)', 'operator'),
    ('metrics()', 'metrics'),
    ('metrics_text()', 'metrics'),
    -- called by _raise, with the caller's rights
    ('_count_refusal(text,text)', 'operator'),
    ('_observe_llm(double precision,bigint,bigint)', 'internal'),
    ('_metric_tenants()', 'internal'),
    ('_shared_metrics()', 'internal'),
    ('_table_metrics()', 'internal'),
    ('_llm_cost(text,text,bigint,bigint,bigint,timestamptz)', 'internal'),
    ('_require_tokens(bigint,text)', 'internal'),
    ('_add_llm_day(text,date,text,text,text,text,bigint,bigint,bigint,numeric,numeric)', 'internal'),
    ('_current_month()', 'internal'),
    ('_require_month(text)', 'internal'),
    ('_check_policy(jsonb)', 'internal'),
    ('_is_count(jsonb)', 'internal'),
    -- outbox
    ('publish_event(text,jsonb,text,text,jsonb)', 'application'),
    ('validate_event(jsonb)', 'application'),
    ('poll_events(text,integer,text[],interval)', 'service'),
    ('ack_events(text,uuid[])', 'service'),
    ('requeue_event(text,uuid)', 'service'),
    ('set_event_consumer(text,text[],interval,integer)', 'service'),
    ('drop_event_consumer(text)', 'service'),
    ('trim_events(interval,interval,integer)', 'service'),
    ('_may_act_for_others()', 'internal'),
    ('_attribute(text,text,text)', 'internal'),
    ('_context(text,text,text)', 'internal'),
    ('_placeholder()', 'internal'),
    ('_named(jsonb,text,text)', 'internal'),
    ('_next_sequence(text,text,text)', 'internal'),
    ('_publish(text,text,text,text,text,jsonb,jsonb,uuid,uuid)', 'internal'),
    ('_stream_slot(text,text,text)', 'internal'),
    ('_topics(text[])', 'internal'),
    ('_utc_text(timestamptz)', 'internal'),
    ('_require_model(text,jsonb,text)', 'internal'),
    ('_lease_heads(text,bigint,bigint,integer)', 'internal'),
    ('_lease_stream(text,text,text,text,bigint,integer,interval)', 'internal'),
    ('_bury_event(text,text,text,text,bigint)', 'internal'),
    ('_read_event(text)', 'internal'),
    ('_read_model(text,text)', 'internal'),
    ('_event_kind(text,text)', 'internal'),
    ('_derived_event_id(text,text)', 'internal'),
    ('_consumers_of(text)', 'internal'),
    ('_forgotten_sequence(text)', 'internal'),
    ('_identity_expired()', 'internal'),
    ('_correlation_uuid(text)', 'internal'),

    -- batches and the inbox
    ('register_batch(jsonb,uuid)', 'application'),
    ('get_batch_status(uuid)', 'application'),
    ('request_pipeline(uuid,jsonb)', 'application'),
    ('dispatch_cj_assessment(uuid,jsonb)', 'application'),
    ('assign_essay(uuid,text,text)', 'application'),
    ('comparison_count(integer)', 'application'),
    ('fail_essay(uuid,text,text)', 'service'),
    ('record_result(uuid,text,jsonb)', 'service'),
    ('report_consumption(uuid,text,integer,text,text)', 'service'),
    ('consume_event(jsonb)', 'service'),
    ('trim_inbox(interval,integer)', 'service'),
    ('_is_batch_of_another_tenant(text,uuid)', 'internal'),
    ('_claim_batch_id(text,uuid,boolean)', 'internal'),
    ('_insert_batch(text,text,uuid,text,text,text[],jsonb,uuid)', 'internal'),
    ('_processing_metadata(uuid,text,text)', 'internal'),
    ('_find_batch(uuid,boolean)', 'internal'),
    ('_require_batch_organization(text)', 'internal'),
    ('_attribute_to_batch(text,text,text,text,text,text)', 'internal'),
    ('_forget_streams(text[],text[],text[])', 'internal'),
    ('_take_event(jsonb,text,text,text,uuid,text,timestamptz,uuid,text,jsonb)', 'internal'),
    ('_event_org(text,jsonb)', 'internal'),
    ('_reject_event(text,jsonb,text,text)', 'internal'),
    ('_process_event(text,text,text,text,jsonb,uuid)', 'internal'),
    ('_charge_consumption(text,text,jsonb,uuid)', 'internal'),
    ('_consumption_cost(text,integer)', 'internal'),

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
    ('cache_key(text[])', 'application'),
    ('lock_key(text)', 'application'),
    ('channel(text)', 'application'),
    ('begin_copy(regclass,text[])', 'application'),
    ('end_copy(regclass)', 'application'),
    ('_staging(regclass,text[])', 'application'),
    ('_staged(regclass)', 'application'),
    ('export_tenant(text)', 'operator'),
    ('suspend_tenant(text,text)', 'operator'),
    ('delete_tenant(text,boolean,integer,jsonb)', 'operator'),
    ('_begin_deletion(text,boolean)', 'operator'),
    ('_delete_batch(text,uuid,integer)', 'operator'),
    ('_delete_rows(regclass,text,text,bigint)', 'internal'),
    ('_execute_as_owner(oid,text,text)', 'internal'),
    ('_rows_as_owner(oid,text,text)', 'internal'),
    ('_tenant_tables(boolean)', 'internal'),
    ('_has_pool(oid)', 'internal'),
    ('_tables_above(oid[],oid)', 'internal'),
    ('_keep_organizations_out(text)', 'internal'),
    ('_condition_applies(text,text)', 'internal'),
    ('_tenant_obligations(text)', 'internal'),
    ('guard_schema(name,text,name)', 'owner'),
    ('unguard_schema(name)', 'owner'),
    ('_guard_of(oid)', 'internal'),
    ('_arm_guards()', 'internal'),
    ('_guard_changed(oid)', 'internal'),
    ('_guard_protect(regclass,name)', 'internal'),
    ('_guard_ddl()', 'internal'),
    ('_guard_drop()', 'internal'),
    ('_guard_at_commit()', 'internal'),
    ('_audit_findings(oid[])', 'internal'),
    ('_audit_protection(oid[])', 'internal'),
    ('_audit_undone(oid[])', 'internal'),
    ('_audit_keys(oid[])', 'internal'),
    ('_audit_policies(oid[])', 'internal'),
    ('_policy_remedy(oid,text)', 'internal'),
    ('_audit_views(oid[])', 'internal'),
    ('_audit_functions()', 'internal'),
    ('_routine_names(oid,regclass)', 'internal'),
    ('_audit_roles()', 'internal'),
    ('_membership_remedy(oid,oid)', 'internal'),
    ('_audit_movement()', 'internal'),
    ('_audit_server(integer)', 'internal'),
    ('_audited_tables()', 'internal'),
    ('_audited_roots(oid[])', 'internal'),
    ('_audited_schemas()', 'internal'),
    ('_audited_roles()', 'internal'),
    ('_require_rule(text)', 'internal'),
    ('_sarif_level(text)', 'internal'),
    ('_required_check()', 'operator'),
    ('_replacement_name(name)', 'operator'),
    ('_replacement_index(oid,name)', 'operator'),
    ('_backfill_expression(regclass,text,regclass,name,name)', 'operator'),
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
    ('_protections(regclass)', 'internal'),
    ('_policy_column(oid,name,name)', 'internal'),
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
    ('_tenant_key(regclass,name,oid,oid,text,name)', 'operator'),
    ('_tenant_index(oid,name,name,boolean)', 'operator'),
    ('_key_columns(oid)', 'operator'),
    ('_key_attachments(oid,name)', 'operator'),
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

CREATE OR REPLACE FUNCTION tenancy._guard_at_commit() RETURNS trigger
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

CREATE OR REPLACE FUNCTION tenancy._guard_changed(relation oid) RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._guard_ddl() RETURNS event_trigger
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

CREATE OR REPLACE FUNCTION tenancy._guard_drop() RETURNS event_trigger
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

CREATE OR REPLACE FUNCTION tenancy._guard_of(relation oid, OUT mode text, OUT tenant_column name)
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

CREATE OR REPLACE FUNCTION tenancy._guard_protect(relation regclass, tenant_column name) RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._has_pool(relation oid) RETURNS boolean
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'pool_id' AND a.attnotnull
                    WHERE c.oid = $1 AND c.relnamespace = 'tenancy'::regnamespace);
$$;

CREATE OR REPLACE FUNCTION tenancy._health_access()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    bare text;
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        RETURN;
    END IF;
    -- DROP EXTENSION … CASCADE takes the policies and leaves the rows.
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname) INTO bare
      FROM tenancy.schema_migrations AS s, unnest(s.relations) AS made
      JOIN pg_class AS c ON c.relnamespace = 'tenancy'::regnamespace AND c.relname = made
     WHERE c.relkind IN ('r', 'p')
       AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity
            OR NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid));
    RETURN QUERY SELECT 'row_security'::text,
                        CASE WHEN bare IS NULL THEN 'ok' ELSE 'error' END,
                        coalesce('without forced row-level security or without a policy: ' || bare,
                                 'enabled and forced on every table'),
                        CASE WHEN bare IS NOT NULL THEN 'Restore the policies, for example from a dump.' END;
    RETURN QUERY SELECT 'access_roles'::text, 'warning'::text,
                        format('role "%s" is to have %s access but does not exist', g.role_name, g.access),
                        'Create the role and SELECT tenancy.grant_access(…); or, if it was renamed, SELECT tenancy.grant_access(…) for the new name and delete the row.'::text
                   FROM tenancy.access_grants AS g
                  WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = g.role_name);
    RETURN QUERY SELECT 'access_roles'::text, 'warning'::text,
                        format('role "%s" is to have %s access and does not hold it', g.role_name, g.access),
                        'SELECT tenancy.grant_access(…); or, if it is another role of the same name, SELECT tenancy.revoke_access(…).'::text
                   FROM tenancy.access_grants AS g
                   JOIN pg_roles AS r ON r.rolname = g.role_name
                  WHERE NOT tenancy._holds_access(r.oid, g.access);
    RETURN QUERY SELECT 'access_roles'::text, 'error'::text,
                        format('role "%s" has %s access and bypasses row-level security', g.role_name, g.access),
                        format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', g.role_name)
                   FROM tenancy.access_grants AS g
                   JOIN pg_roles AS r ON r.rolname = g.role_name
                  WHERE g.access = 'application' AND (r.rolsuper OR r.rolbypassrls);
    -- Tables with a floor for everybody (batches) bind an owner that is neither: its functions would find no rows.
    RETURN QUERY SELECT 'owner'::text, 'error'::text,
                        format('role "%s" owns tenancy.batches and is bound by its policies', r.rolname),
                        format('ALTER ROLE %I BYPASSRLS;', r.rolname)
                   FROM pg_class AS c
                   JOIN pg_roles AS r ON r.oid = c.relowner
                  WHERE c.oid = to_regclass('tenancy.batches') AND NOT (r.rolsuper OR r.rolbypassrls);
END
$$;

CREATE OR REPLACE FUNCTION tenancy._index_plan(root regclass, tenant_column name, composite_keys boolean)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    wanted record;
    leaf   record;
    parts  text;
BEGIN
    FOR wanted IN
        SELECT i.relation, i.statement, c.relkind
          FROM tenancy._index_statements($1, $2, $3) i JOIN pg_catalog.pg_class c ON c.oid = i.relation
    LOOP
        parts := regexp_replace(wanted.statement, '^.* \((.*)\)$', '\1');
        IF wanted.relkind <> 'p' THEN
            RETURN QUERY VALUES ('index', replace(wanted.statement, 'CREATE INDEX ON', 'CREATE INDEX CONCURRENTLY ON'),
                                 'SHARE UPDATE EXCLUSIVE; yours to run', true);
            CONTINUE;
        END IF;
        FOR leaf IN
            SELECT t.relation FROM tenancy._isolation_tree(wanted.relation) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
             WHERE c.relkind = 'r'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                                WHERE i.indrelid = t.relation AND i.indisvalid AND i.indpred IS NULL
                                  AND pg_get_indexdef(i.indexrelid) LIKE '% USING btree (' || replace(replace(parts, '\', '\\'), '_', '\_') || ')')
        LOOP
            RETURN QUERY VALUES ('index', format('CREATE INDEX CONCURRENTLY ON %s (%s)', tenancy._relation_name(leaf.relation), parts),
                                 'SHARE UPDATE EXCLUSIVE; yours to run', true);
        END LOOP;
        RETURN QUERY VALUES ('parent_index', wanted.statement, 'SHARE, for a moment: it takes in the partitions'' indexes', true);
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._index_statements(root regclass, tenant_column name, composite_keys boolean)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'index', t.relation,
               format('CREATE INDEX ON %s (%s)', tenancy._relation_name(t.relation),
                      concat_ws(', ', quote_ident($2), (
                          SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.ord)
                            FROM pg_catalog.pg_index i
                           CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord)
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                           WHERE i.indrelid = t.relation AND i.indisprimary AND k.ord <= 4
                             AND a.attname <> $2)))
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE NOT tenancy._leads_with(t.relation, $2)
           -- A key that is about to carry the tenant leads with it.
           AND NOT ($3 AND EXISTS (SELECT FROM tenancy._unscoped_keys(t.relation, $2) k
                                    WHERE k.relation = t.relation AND k.rewritable
                                      AND (SELECT i.indpred IS NULL FROM pg_catalog.pg_index i WHERE i.indexrelid = k.index_oid)))
           -- An index of a partitioned table has a part in each partition.
           AND NOT (c.relispartition AND t.relation <> $1)
         ORDER BY t.depth, t.relation;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_accessor(relation regclass, column_name name, kind text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT CASE
                 WHEN $3 = 'tenant' THEN
                     CASE a.atttypid
                         WHEN 'text'::regtype   THEN 'tenancy.tenant_id()'
                         WHEN 'uuid'::regtype   THEN 'tenancy.tenant_uuid()'
                         WHEN 'bigint'::regtype THEN 'tenancy.tenant_bigint()'
                     END
                 ELSE
                     CASE a.atttypid
                         WHEN 'text'::regtype THEN 'tenancy.org_id()'
                         -- A key into our directory holds the internal id; any other uuid is the external one.
                         WHEN 'uuid'::regtype THEN
                             CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k,
                                                           unnest(k.conkey, k.confkey) AS u(child, parent),
                                                           pg_catalog.pg_attribute o
                                                WHERE k.conrelid = $1 AND k.contype = 'f' AND u.child = a.attnum
                                                  AND k.confrelid = to_regclass('tenancy.organizations')
                                                  AND o.attrelid = k.confrelid AND o.attnum = u.parent AND o.attname = 'id')
                                  THEN 'tenancy.organization_id()'
                                  ELSE 'tenancy.org_uuid()'
                             END
                     END
               END
          FROM (SELECT 1) one
          LEFT JOIN pg_catalog.pg_attribute x
                 ON x.attrelid = $1 AND x.attname = $2 AND x.attnum > 0 AND NOT x.attisdropped
         CROSS JOIN LATERAL (SELECT coalesce(x.atttypid, 'text'::regtype) AS atttypid, x.attnum) a);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_grants(root regclass)
RETURNS TABLE (relation regclass, grantee oid, privileges text[])
LANGUAGE plpgsql STABLE STRICT ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT t.relation, g.grantee, array_agg(DISTINCT g.privilege_type ORDER BY g.privilege_type)
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         CROSS JOIN LATERAL (
                SELECT x.grantee, x.privilege_type FROM aclexplode(c.relacl) x
                UNION ALL
                SELECT x.grantee, x.privilege_type
                  FROM pg_catalog.pg_attribute a, aclexplode(a.attacl) x
                 WHERE a.attrelid = c.oid AND NOT a.attisdropped) g
         WHERE g.grantee <> c.relowner
         GROUP BY t.relation, g.grantee
         ORDER BY t.relation, g.grantee;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_policies(
    root regclass, tenant_column name, org_column name, operator_role name)
RETURNS TABLE (step text, policy name, permissive boolean, roles name[], expression text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH parts AS (
            SELECT format('(%I = %s)', $2, tenancy._isolation_accessor($1, $2, 'tenant')) AS tenant,
                   CASE WHEN $3 IS NOT NULL
                        THEN format('(%I = %s)', $3, tenancy._isolation_accessor($1, $3, 'org')) END AS org,
                   tenancy._isolation_roles($1, $4) AS roles
        )
        SELECT 'floor', 'tenancy_floor'::name, false, p.roles, p.tenant FROM parts p
        UNION ALL
        SELECT 'access', 'tenancy_access', true, p.roles,
               CASE WHEN p.org IS NULL THEN p.tenant ELSE format('(%s AND %s)', p.tenant, p.org) END
          FROM parts p
        UNION ALL
        SELECT 'operator', 'tenancy_operator', true, ARRAY[$4], 'true' WHERE $4 IS NOT NULL;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_reach(relation regclass, accessor text)
RETURNS TABLE (role_name text, outcome text)
LANGUAGE sql STABLE STRICT ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH candidates AS (
        SELECT g.grantee AS role FROM tenancy._isolation_grants($1) g
        UNION
        SELECT x.grantee FROM pg_catalog.pg_proc p, aclexplode(p.proacl) x
         WHERE p.oid = to_regprocedure($2) AND x.grantee <> p.proowner
    ), facts AS (
        SELECT coalesce(r.rolname, 'PUBLIC') AS role_name,
               coalesce(r.rolsuper OR r.rolbypassrls, false) AS bypasses,
               has_function_privilege(coalesce(r.rolname, 'public'), $2, 'EXECUTE') AS accessor,
               has_schema_privilege(coalesce(r.rolname, 'public'), c.relnamespace, 'USAGE')
               AND (has_any_column_privilege(coalesce(r.rolname, 'public'), c.oid, 'SELECT, INSERT, UPDATE')
                    OR has_table_privilege(coalesce(r.rolname, 'public'), c.oid, 'DELETE')) AS "table"
          FROM candidates k
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = k.role
         CROSS JOIN pg_catalog.pg_class c
         WHERE c.oid = $1 AND k.role <> c.relowner
    )
    SELECT f.role_name,
           CASE WHEN f.bypasses THEN 'bypasses'
                WHEN f.accessor AND f."table" THEN 'reaches'
                WHEN f."table" THEN 'no_accessor'
                ELSE 'no_table' END
      FROM facts f;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_roles(root regclass, operator_role name) RETURNS name[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN $2 IS NULL THEN ARRAY['public']::name[] ELSE (
            SELECT array_agg(DISTINCT r.rolname ORDER BY r.rolname)
              FROM pg_catalog.pg_roles r
             WHERE r.rolname <> $2
               AND (r.oid IN (SELECT g.grantee FROM tenancy._isolation_grants($1) g)
                    OR r.oid IN (SELECT c.relowner FROM tenancy._isolation_tree($1) t
                                   JOIN pg_catalog.pg_class c ON c.oid = t.relation)
                    OR (r.rolname IN ('pg_read_all_data', 'pg_write_all_data')
                        -- A superuser has every role's rights and is bound by no policy.
                        AND ((SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = $2) OR NOT pg_has_role($2, r.oid, 'USAGE'))))
        ) END);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._isolation_tree(root regclass)
RETURNS TABLE (relation regclass, depth integer)
LANGUAGE plpgsql STABLE STRICT ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE tree(relation, depth) AS (
            SELECT $1::oid, 0
            UNION ALL
            SELECT i.inhrelid, t.depth + 1
              FROM tree t
              JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
              -- A session's own temporary child: nobody else reads it, and nobody else can alter it.
              JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
        )
        SELECT t.relation::regclass, min(t.depth)
          FROM tree t
         GROUP BY t.relation
         ORDER BY 2, t.relation;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._issue_token(
    kind text, lifetime integer, user_id text, org_id text, claims jsonb, extra jsonb, require_org boolean, profile text
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    token_id uuid := tenancy.uuid_v7();
    counted jsonb;
    minted text;
    -- The session goes on where it is the user's own, and with it what it came from: revoking it ends both.
    session text := token_id;
    origin text;
    is_live boolean;
BEGIN
    PERFORM tenancy._require_installed();
    subject := tenancy._find_token_user(_issue_token.profile, _issue_token.user_id);
    counted := tenancy._check_token_caller(_issue_token.user_id, subject.namespace, _issue_token.claims);
    IF (tenancy.user_id(), tenancy.identity_namespace()) = (_issue_token.user_id, subject.namespace) THEN
        session := coalesce(tenancy.session_id(), session);
        SELECT e.token_id, e.is_live INTO origin, is_live FROM tenancy._extension_origin() AS e;
        IF NOT is_live THEN
            PERFORM tenancy._raise('PT403', 'extension_token_ended', 'The extension token that this identity came from has ended',
                'Authenticate with the extension token that took its place, or let the user sign in.');
        END IF;
    END IF;
    SELECT m.token INTO minted
      FROM tenancy._mint_token(
        _issue_token.profile, subject.namespace, _issue_token.kind, _issue_token.lifetime, _issue_token.user_id,
        _issue_token.org_id, counted, _issue_token.extra, coalesce(_issue_token.require_org, false), token_id, session,
        origin) AS m;
    RETURN minted;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._key_attachments(index_oid oid, new_name name) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT array_remove(ARRAY[
            CASE WHEN i.indisreplident THEN format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', n.shown, $2) END,
            CASE WHEN i.indisclustered THEN format('ALTER TABLE %s CLUSTER ON %I', n.shown, $2) END,
            'COMMENT ON CONSTRAINT ' || quote_ident($2) || ' ON ' || n.shown || ' IS ' || quote_literal(obj_description(k.oid, 'pg_constraint')),
            'COMMENT ON INDEX ' || format('%I.%I', n.nspname, $2) || ' IS ' || quote_literal(obj_description($1, 'pg_class'))],
            NULL)
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
      LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
     CROSS JOIN LATERAL (SELECT s.nspname, tenancy._relation_name(i.indrelid) AS shown
                           FROM pg_catalog.pg_namespace s WHERE s.oid = c.relnamespace) n
     WHERE i.indexrelid = $1;
$$;

CREATE OR REPLACE FUNCTION tenancy._key_columns(index_oid oid) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE WHEN starts_with(d.definition, d.start) THEN substr(d.definition, length(d.start) + 1) END
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     CROSS JOIN LATERAL (
            SELECT pg_get_indexdef(i.indexrelid) AS definition,
                   format('CREATE UNIQUE INDEX %I ON %s%s USING btree (', c.relname, CASE c.relkind WHEN 'I' THEN 'ONLY ' ELSE '' END,
                          tenancy._relation_name(i.indrelid)) AS start) d
     WHERE i.indexrelid = $1;
$$;

CREATE OR REPLACE FUNCTION tenancy._key_plan(root regclass, tenant_column name)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    key         record;
    foreign_key record;
    standing    record;
    brief       text := 'ACCESS EXCLUSIVE on both tables, for a moment';
BEGIN
    IF (SELECT c.relkind = 'p' FROM pg_catalog.pg_class c WHERE c.oid = $1) THEN
        RETURN QUERY SELECT k.step, k.statement, 'ACCESS EXCLUSIVE, while keys are built and checked', false
                       FROM tenancy._key_statements($1, $2) k;
        RETURN;
    END IF;
    FOR key IN
        SELECT u.*, r.name AS built_name, r.valid AS built
          FROM tenancy._unscoped_keys($1, $2) u
          LEFT JOIN LATERAL tenancy._replacement_index(u.index_oid, $2) r ON true
         WHERE u.rewritable
    LOOP
        IF NOT key.built THEN
            RETURN QUERY VALUES ('unique_index', format('DROP INDEX CONCURRENTLY %I.%I',
                (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = key.relation), key.built_name),
                'SHARE UPDATE EXCLUSIVE; yours to run: it was left half built', true);
        END IF;
        IF key.built IS DISTINCT FROM true THEN
            RETURN QUERY VALUES ('unique_index', tenancy._tenant_index(key.index_oid, tenancy._replacement_name(key.key_name), $2, true),
                'SHARE UPDATE EXCLUSIVE; yours to run', true);
        END IF;
    END LOOP;
    FOR foreign_key IN
        SELECT f.*, tenancy._relation_name(f.child) AS shown, tenancy._replacement_name(f.key_name) AS new_name,
               tenancy._tenant_foreign_key(f.constraint_oid, f.child_tenant, f.parent_tenant) AS definition
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL
    LOOP
        SELECT k.convalidated INTO standing FROM pg_catalog.pg_constraint k
         WHERE k.conrelid = foreign_key.child AND k.conname = foreign_key.new_name;
        IF standing.convalidated IS NULL THEN
            RETURN QUERY VALUES ('foreign_key', format('ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID', foreign_key.shown, foreign_key.new_name,
                regexp_replace(foreign_key.definition, ' NOT VALID$', '')), 'SHARE ROW EXCLUSIVE on both tables, for a moment', true);
        END IF;
        IF standing.convalidated IS DISTINCT FROM true AND foreign_key.definition NOT LIKE '% NOT VALID' THEN
            RETURN QUERY VALUES ('validate_key', format('ALTER TABLE %s VALIDATE CONSTRAINT %I', foreign_key.shown, foreign_key.new_name),
                'SHARE UPDATE EXCLUSIVE, for one scan', true);
        END IF;
        RETURN QUERY VALUES ('swap_key', format('ALTER TABLE %s DROP CONSTRAINT %I; ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
            foreign_key.shown, foreign_key.key_name, foreign_key.shown, foreign_key.new_name, foreign_key.key_name), brief, true);
    END LOOP;
    RETURN QUERY
        SELECT 'swap_key', array_to_string(CASE WHEN u.constraint_oid IS NULL
               THEN format('DROP INDEX %I.%I; ALTER INDEX %I.%I RENAME TO %I', n.nspname, u.key_name, n.nspname, r.new_name, u.key_name)
               ELSE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s USING INDEX %I%s', tenancy._relation_name(u.relation),
                           u.key_name, u.key_name, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, r.new_name,
                           CASE WHEN k.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END)
               END || tenancy._key_attachments(u.index_oid, u.key_name), '; '), brief, true
          FROM tenancy._unscoped_keys($1, $2) u
          JOIN pg_catalog.pg_class c ON c.oid = u.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_constraint k ON k.oid = u.constraint_oid
         CROSS JOIN LATERAL (SELECT coalesce((tenancy._replacement_index(u.index_oid, $2)).name, tenancy._replacement_name(u.key_name)) AS new_name) r
         WHERE u.rewritable;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._key_statements(root regclass, tenant_column name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'foreign_key', f.child, format('ALTER TABLE %s DROP CONSTRAINT %I', tenancy._relation_name(f.child), f.key_name)
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL;
    RETURN QUERY
        SELECT 'key', u.relation, s.statement
          FROM tenancy._unscoped_keys($1, $2) u
         CROSS JOIN LATERAL unnest(tenancy._tenant_key(u.relation, u.key_name, u.index_oid, u.constraint_oid, u.definition, $2))
                    WITH ORDINALITY AS s(statement, ord)
         WHERE u.rewritable
         ORDER BY u.relation, u.key_name, s.ord;
    RETURN QUERY
        SELECT 'foreign_key', f.child, format('ALTER TABLE %s ADD CONSTRAINT %I %s', tenancy._relation_name(f.child), f.key_name,
                                              tenancy._tenant_foreign_key(f.constraint_oid, f.child_tenant, f.parent_tenant))
          FROM tenancy._unscoped_foreign_keys($1, $2) f WHERE f.problem IS NULL;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._leads_with(relation regclass, tenant_column name) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
              JOIN pg_catalog.pg_am m ON m.oid = c.relam
              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = $1 AND a.attname = $2
               AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._lock_schema() RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._may_give_role(role text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Nobody gives away, by making or rotating a key, what they do not hold. Only an owner holds everything.
    RETURN CASE _may_give_role.role
        WHEN 'owner' THEN tenancy.org_role() IN ('owner', 'org:owner')
                      AND (NOT tenancy._issued_here() OR tenancy._directory_role() IN ('owner', 'org:owner'))
        ELSE NOT EXISTS (SELECT FROM unnest(tenancy._role_permissions(_may_give_role.role)) AS permission
                          WHERE NOT tenancy._holds_now(permission))
    END IS TRUE;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._membership_remedy(member oid, role oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT string_agg(format('REVOKE %s FROM %s;', m.roleid::regrole, m.member::regrole), ' ' ORDER BY m.roleid)
      FROM pg_catalog.pg_auth_members m
     WHERE m.member = $1 AND (m.roleid = $2 OR pg_has_role(m.roleid, $2, 'MEMBER'));
$$;

CREATE OR REPLACE FUNCTION tenancy._note_progress(
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

CREATE OR REPLACE FUNCTION tenancy._obligations_credits(tenant_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As they would be settled now; as they stand where the caller may see no figures.
    RETURN (SELECT jsonb_build_object('pools', count(*), 'credits', sum(o.available), 'held', sum(o.held))
              FROM tenancy.credit_pools AS p
              LEFT JOIN LATERAL tenancy.pool_figures(p.pool_id) AS f ON true
             CROSS JOIN LATERAL (SELECT coalesce(f.available, p.balance - p.held) AS available, coalesce(f.held, p.held) AS held) AS o
             WHERE p.tenant_id = _obligations_credits.tenant_id AND (o.available > 0 OR o.held > 0)
            HAVING count(*) > 0);
END
$$;

CREATE OR REPLACE FUNCTION tenancy._online_arguments(
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

CREATE OR REPLACE FUNCTION tenancy._online_execute(table_name regclass, step text, statement text) RETURNS text
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

CREATE OR REPLACE FUNCTION tenancy._online_step(
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

CREATE OR REPLACE FUNCTION tenancy._own_claims(namespace text, user_id text) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        -- What a token issued here says is what the directory said then; now it may say something else.
        WHEN tenancy.user_id() = _own_claims.user_id AND tenancy.identity_namespace() = _own_claims.namespace
         AND NOT tenancy._issued_here()
        THEN tenancy.claims()
    END;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._policy_column(relation oid, policy name, other_than name) RETURNS name
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT min(a.attname::text)::name
          FROM pg_catalog.pg_policy p
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                                     AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
          JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE p.polrelid = $1 AND p.polname = $2 AND a.attname <> $3
        HAVING count(DISTINCT a.attname) = 1);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._policy_remedy(policy oid, function_called text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    found record;
    same  text;
BEGIN
    SELECT p.polname, p.polcmd, t.shown, t.tenant_column, tenancy._relation_name(t.root) AS root, tenancy._relation_name(p.polrelid) AS name,
           tenancy._isolation_accessor(t.root, t.tenant_column, 'tenant') AS accessor
      INTO found
      FROM pg_catalog.pg_policy p LEFT JOIN tenancy._audited_tables() t ON t.relation = p.polrelid
     WHERE p.oid = $1
     LIMIT 1;
    IF found.polname IN ('tenancy_floor', 'tenancy_access', 'tenancy_operator') AND found.root IS NOT NULL THEN
        RETURN format('SELECT tenancy.protect_table(%L, %L);', found.root, found.tenant_column);
    ELSIF $2 IS NOT NULL THEN
        RETURN format('ALTER FUNCTION %s STABLE;  -- it must be so: no writing, the same answer all through a statement', $2);
    ELSIF found.root IS NULL THEN
        RETURN format('DROP POLICY %I ON %s;  -- and SELECT tenancy.protect_table(%L)', found.polname, found.name, found.name);
    END IF;
    same := format('(%I = %s)', found.tenant_column, found.accessor);
    RETURN format('ALTER POLICY %I ON %s%s%s;  -- and compare columns with tenancy''s accessors; operators get a policy of their own', found.polname, found.name,
                  CASE WHEN found.polcmd <> 'a' THEN ' USING ' || same ELSE '' END,
                  CASE WHEN found.polcmd IN ('*', 'a', 'w') THEN ' WITH CHECK ' || same ELSE '' END);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._policy_stands(relation regclass, policy name, permissive boolean, roles name[], expression text)
RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_policy p
             WHERE p.polrelid = $1
               AND p.polname = $2
               AND p.polpermissive = $3
               AND p.polcmd = '*'
               AND (SELECT array_agg(DISTINCT coalesce(r.rolname, 'public') ORDER BY coalesce(r.rolname, 'public'))
                      FROM unnest(p.polroles) AS u(role)
                      LEFT JOIN pg_catalog.pg_roles r ON r.oid = u.role) = $4
               AND pg_get_expr(p.polqual, p.polrelid) = $5
               AND pg_get_expr(p.polwithcheck, p.polrelid) = $5));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._policy_statements(
    root regclass, tenant_column name, org_column name, operator_role name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    rel    record;
    policy record;
BEGIN
    FOR rel IN
        SELECT t.relation, tenancy._relation_name(t.relation) AS name, c.relrowsecurity, c.relforcerowsecurity
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         ORDER BY t.depth, t.relation
    LOOP
        IF NOT rel.relrowsecurity THEN
            RETURN QUERY VALUES ('enable', rel.relation, format('ALTER TABLE ONLY %s ENABLE ROW LEVEL SECURITY', rel.name));
        END IF;
        IF NOT rel.relforcerowsecurity THEN
            RETURN QUERY VALUES ('force', rel.relation, format('ALTER TABLE ONLY %s FORCE ROW LEVEL SECURITY', rel.name));
        END IF;
        FOR policy IN
            SELECT p.step, p.policy,
                   CASE WHEN p.permissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END AS kind,
                   (SELECT string_agg(CASE r.role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r.role) END, ', ' ORDER BY r.role)
                      FROM unnest(p.roles) AS r(role)) AS roles,
                   CASE WHEN p.expression LIKE '(%' THEN p.expression ELSE format('(%s)', p.expression) END AS expression,
                   x.oid IS NOT NULL AS present,
                   coalesce(x.polpermissive = p.permissive AND x.polcmd = '*', false) AS alterable,
                   coalesce(obj_description(x.oid, 'pg_policy'),
                            'Tenant floor made by tenancy.protect_table. Before: '
                            || jsonb_build_object('enabled', rel.relrowsecurity, 'forced', rel.relforcerowsecurity)::text) AS note
              FROM tenancy._isolation_policies($1, $2, $3, $4) p
              LEFT JOIN pg_catalog.pg_policy x ON x.polrelid = rel.relation AND x.polname = p.policy
             WHERE NOT tenancy._policy_stands(rel.relation, p.policy, p.permissive, p.roles, p.expression)
        LOOP
            IF policy.alterable THEN
                RETURN QUERY VALUES (policy.step, rel.relation, format('ALTER POLICY %I ON %s TO %s USING %s WITH CHECK %s',
                    policy.policy, rel.name, policy.roles, policy.expression, policy.expression));
                CONTINUE;
            END IF;
            IF policy.present THEN
                RETURN QUERY VALUES (policy.step, rel.relation, format('DROP POLICY %I ON %s', policy.policy, rel.name));
            END IF;
            RETURN QUERY VALUES (policy.step, rel.relation, format('CREATE POLICY %I ON %s AS %s FOR ALL TO %s USING %s WITH CHECK %s',
                policy.policy, rel.name, policy.kind, policy.roles, policy.expression, policy.expression));
            -- Only the owner can write here, so unprotect_table may believe it.
            IF policy.step = 'floor' THEN
                RETURN QUERY VALUES ('floor', rel.relation,
                    format('COMMENT ON POLICY %I ON %s IS %L', policy.policy, rel.name, policy.note));
            END IF;
        END LOOP;
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._process_event(
    tenant_id text,
    namespace text,
    topic text,
    org_id text,
    data jsonb,
    correlation_id uuid,
    OUT result jsonb,
    OUT stories jsonb[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    data jsonb := _process_event.data;
    batch record;
    registered boolean;
BEGIN
    _process_event.stories := '{}';
    CASE _process_event.topic
        WHEN 'huleedu.resource.consumption.v1' THEN
            SELECT c.result, c.stories INTO _process_event.result, _process_event.stories
              FROM tenancy._charge_consumption(_process_event.tenant_id, _process_event.namespace, data,
                                               _process_event.correlation_id) AS c;
        WHEN 'huleedu.batch.essays.registered.v1' THEN
            IF data -> 'essay_ids' = '[]' THEN
                PERFORM tenancy._raise('22023', 'no_essays', 'essay_ids is empty', 'Name the essays of the batch.');
            END IF;
            IF jsonb_array_length(data -> 'essay_ids') > 10000 THEN
                PERFORM tenancy._raise('22023', 'too_many_essays', 'A batch has at most 10000 essays', 'Register several batches.');
            END IF;
            -- Whoever published it may have named any id.
            PERFORM tenancy._claim_batch_id(_process_event.tenant_id, (data ->> 'entity_id')::uuid, may_share => false);
            registered := tenancy._insert_batch(_process_event.tenant_id, _process_event.namespace, (data ->> 'entity_id')::uuid,
                data ->> 'user_id', _process_event.org_id,
                -- As a set: an id that is listed twice is one slot.
                ARRAY(SELECT DISTINCT essay FROM jsonb_array_elements_text(data -> 'essay_ids') AS essay ORDER BY essay),
                data, _process_event.correlation_id);
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'entity_id',
                'status', CASE WHEN registered THEN 'registered' ELSE 'already_registered' END);
        WHEN 'huleedu.els.cj_assessment.requested.v1' THEN
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'entity_id',
                'comparisons', tenancy.comparison_count(jsonb_array_length(data -> 'essays_for_cj')));
        WHEN 'huleedu.commands.batch.pipeline.v1' THEN
            SELECT b.user_id, b.org_id INTO batch FROM tenancy.batches AS b
             WHERE b.tenant_id = _process_event.tenant_id AND b.batch_id::text = lower(data ->> 'batch_id');
            IF NOT FOUND THEN
                PERFORM tenancy._raise('PT404', 'batch_not_found', 'Batch not found', 'Register the batch first.');
            END IF;
            IF batch.org_id IS DISTINCT FROM _process_event.org_id THEN
                PERFORM tenancy._raise('PT403', 'batch_of_another_organization',
                    'The batch belongs to another organization than who asks', 'Name the batch''s organization in metadata.org_id.');
            END IF;
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'batch_id',
                'requested_pipeline', data -> 'requested_pipeline');
    END CASE;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._progress_of(table_name regclass)
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

CREATE OR REPLACE FUNCTION tenancy._protection_of(table_name regclass)
RETURNS TABLE (tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY
        WITH RECURSIVE up(relation, height) AS (
            SELECT _protection_of.table_name::oid, 0
            UNION ALL
            SELECT i.inhparent, u.height + 1
              FROM up u
              JOIN pg_catalog.pg_inherits i ON i.inhrelid = u.relation
        )
        SELECT t.tenant_column, t.org_column, t.operator_role
          FROM up u
          JOIN tenancy.protected_tables p ON p.relation = u.relation
         CROSS JOIN LATERAL tenancy._protections(p.relation) t
         ORDER BY u.height
         LIMIT 1;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._protection_statements(
    root regclass, tenant_column name, org_column name, operator_role name, composite_keys boolean)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY SELECT c.* FROM tenancy._column_statements($1, $2) c;
    IF $5 THEN
        RETURN QUERY SELECT k.* FROM tenancy._key_statements($1, $2) k;
    END IF;
    RETURN QUERY SELECT i.* FROM tenancy._index_statements($1, $2, $5) i;
    RETURN QUERY SELECT p.* FROM tenancy._policy_statements($1, $2, $3, $4) p;
    RETURN QUERY SELECT r.* FROM tenancy._revoke_statements($1, $4) r;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._protection_target(
    INOUT relation regclass, INOUT tenant_column name, INOUT org_column name,
    INOUT operator_role name, INOUT composite_keys boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known record;
BEGIN
    SELECT * INTO known FROM tenancy._protection_of(_protection_target.relation);
    PERFORM tenancy._check_protectable(relation);
    tenant_column := coalesce(tenant_column, 'tenant_id');
    -- A renamed column took its policies along: then the new name is as good as the recorded one.
    IF known.tenant_column <> tenant_column
       AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = _protection_target.relation AND a.attname = known.tenant_column AND NOT a.attisdropped) THEN
        PERFORM tenancy._raise('22023', 'other_tenant_column',
            format('%s is protected by its column %I', tenancy._relation_name(relation), known.tenant_column),
            format('Name that column, or SELECT tenancy.unprotect_table(%L) first.', tenancy._relation_name(relation)));
    END IF;
    -- Left out in a later call, they stay as they are.
    org_column := coalesce(org_column, known.org_column);
    operator_role := coalesce(operator_role, known.operator_role);
    composite_keys := coalesce(composite_keys, false);
    PERFORM tenancy._check_isolation_column(relation, tenant_column, 'tenant');
    IF org_column IS NOT NULL THEN
        PERFORM tenancy._check_isolation_column(relation, org_column, 'org');
    END IF;
    PERFORM tenancy._check_operator_role(relation, operator_role);
    IF composite_keys THEN
        PERFORM tenancy._check_composite_keys(relation, tenant_column);
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._protections(root regclass DEFAULT NULL)
RETURNS TABLE (relation regclass, tenant_column name, org_column name, operator_role name)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT p.relation,
               CASE WHEN a.attname IS NULL THEN coalesce(tenancy._policy_column(p.relation, 'tenancy_floor', ''), p.tenant_column)
                    ELSE p.tenant_column END,
               CASE WHEN p.org_column IS NOT NULL AND o.attname IS NULL
                    THEN coalesce(tenancy._policy_column(p.relation, 'tenancy_access',
                             CASE WHEN a.attname IS NULL THEN tenancy._policy_column(p.relation, 'tenancy_floor', '') ELSE p.tenant_column END), p.org_column)
                    ELSE p.org_column END,
               CASE WHEN p.operator_role IS NOT NULL AND r.rolname IS NULL
                    THEN coalesce((SELECT n.rolname FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_roles n ON y.polroles = ARRAY[n.oid]
                                    WHERE y.polrelid = p.relation AND y.polname = 'tenancy_operator'), p.operator_role)
                    ELSE p.operator_role END
          FROM tenancy.protected_tables p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.relation AND a.attname = p.tenant_column AND NOT a.attisdropped
          LEFT JOIN pg_catalog.pg_attribute o ON o.attrelid = p.relation AND o.attname = p.org_column AND NOT o.attisdropped
          LEFT JOIN pg_catalog.pg_roles r ON r.rolname = p.operator_role
         WHERE $1 IS NULL OR p.relation = $1;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._publish_credit_alert(pool_id uuid, alert jsonb) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pool record;
BEGIN
    SELECT p.tenant_id, o.external_id AS org_id, o.name AS organization_name, u.external_id AS user_id
      INTO pool
      FROM tenancy.credit_pools AS p
      LEFT JOIN tenancy.organizations AS o ON o.id = p.organization_id
      LEFT JOIN tenancy.users AS u ON u.id = p.user_id
     WHERE p.pool_id = _publish_credit_alert.pool_id;
    RETURN tenancy._publish(
        tenant_id => pool.tenant_id,
        topic => 'tenancy.credit.balance.low.v1',
        aggregate_type => 'credit_pool',
        aggregate_id => _publish_credit_alert.pool_id::text,
        source_service => 'pg_tenancy',
        data => _publish_credit_alert.alert - 'correlation_id' || jsonb_build_object(
            'pool_id', _publish_credit_alert.pool_id, 'org_id', pool.org_id,
            'organization_name', pool.organization_name, 'user_id', pool.user_id),
        metadata => NULL,
        correlation_id => tenancy._correlation_uuid(_publish_credit_alert.alert ->> 'correlation_id'));
END
$$;

CREATE OR REPLACE FUNCTION tenancy._reconcile_operator_policies() RETURNS void
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

CREATE OR REPLACE FUNCTION tenancy._record_protection(
    table_name regclass, tenant_column name, org_column name, operator_role name) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    IF table_name IS NULL OR tenant_column IS NULL
       OR tenancy._isolation_accessor(table_name, tenant_column, 'tenant') IS NULL
       OR EXISTS (SELECT FROM tenancy._column_statements(table_name, tenant_column))
       OR EXISTS (SELECT FROM tenancy._policy_statements(table_name, tenant_column, org_column, operator_role)) THEN
        PERFORM tenancy._raise('42501', 'not_protected',
            format('%s is not protected in that way', coalesce(tenancy._relation_name(table_name), 'it')),
            'Call tenancy.protect_table, which protects the table and records it.');
    END IF;
    -- A partition or child is protected with its parent, and recorded with it.
    IF EXISTS (SELECT FROM pg_catalog.pg_inherits i
                WHERE i.inhrelid = _record_protection.table_name
                  AND EXISTS (SELECT FROM tenancy._protection_of(i.inhparent))) THEN
        RETURN true;
    END IF;
    UPDATE tenancy.protected_tables t
       SET tenant_column = _record_protection.tenant_column,
           org_column = _record_protection.org_column,
           operator_role = _record_protection.operator_role,
           updated_at = now()
     WHERE t.relation = table_name
       AND (t.tenant_column, t.org_column, t.operator_role)
           IS DISTINCT FROM (_record_protection.tenant_column, _record_protection.org_column, _record_protection.operator_role);
    IF NOT FOUND THEN
        INSERT INTO tenancy.protected_tables AS t (relation, tenant_column, org_column, operator_role, protected_by)
        VALUES (_record_protection.table_name, _record_protection.tenant_column, _record_protection.org_column,
                _record_protection.operator_role, session_user)
        ON CONFLICT ON CONSTRAINT protected_tables_pkey DO NOTHING;
    END IF;
    RETURN true;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._relation_name(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._replacement_index(index_oid oid, tenant_column name, OUT name name, OUT valid boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT c.relname, i.indisvalid
      FROM pg_catalog.pg_index old
      JOIN pg_catalog.pg_index i ON i.indrelid = old.indrelid AND i.indisunique
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     WHERE old.indexrelid = $1
       AND tenancy._key_columns(i.indexrelid) = quote_ident($2) || ', ' || tenancy._key_columns($1)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
     ORDER BY i.indisvalid DESC, c.relname
     LIMIT 1;
$$;

CREATE OR REPLACE FUNCTION tenancy._report_keys(root regclass, tenant_column name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT * FROM tenancy._unscoped_keys($1, $2) LOOP
        RAISE NOTICE '%: % % does not carry %: a duplicate tells one tenant what another has', tenancy._relation_name(found.relation),
            found.kind, quote_ident(found.key_name), quote_ident($2)
            USING HINT = CASE WHEN found.rewritable THEN 'composite_keys => true puts the tenant in front of it.'
                              ELSE 'Put the tenant into it by hand (an exclusion constraint needs WITH = on it).' END;
    END LOOP;
    FOR found IN SELECT * FROM tenancy._unscoped_foreign_keys($1, $2) LOOP
        RAISE NOTICE '%: foreign key % does not carry the tenant: it can point at another tenant''s row of %',
            tenancy._relation_name(found.child), quote_ident(found.key_name), tenancy._relation_name(found.parent)
            USING HINT = CASE found.problem
                WHEN 'parent_has_no_such_key' THEN format('SELECT tenancy.protect_table(%L, composite_keys => true) makes the key it needs.', tenancy._relation_name(found.parent))
                WHEN 'child_has_no_tenant' THEN format('SELECT tenancy.protect_table(%L) first.', tenancy._relation_name(found.child))
                ELSE 'composite_keys => true rewrites it.' END;
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._report_protection(relation regclass, tenant_column name, operator_role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    shown    text := tenancy._relation_name($1);
    accessor text := tenancy._isolation_accessor($1, $2, 'tenant');
    other    record;
    reach    record;
BEGIN
    FOR other IN
        SELECT p.polname, p.polpermissive FROM pg_catalog.pg_policy p
         WHERE p.polrelid = $1 AND p.polname NOT IN ('tenancy_floor', 'tenancy_access', 'tenancy_operator')
         ORDER BY p.polname
    LOOP
        RAISE NOTICE '% also has the policy %, which %', shown, quote_ident(other.polname),
            CASE WHEN other.polpermissive AND $3 IS NOT NULL
                 THEN 'can widen access inside a tenant, and across tenants for roles that the floor does not name'
                 WHEN other.polpermissive THEN 'can widen access inside a tenant, never across tenants'
                 ELSE 'narrows access further' END;
    END LOOP;
    SELECT string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'reaches') AS reaching,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'bypasses') AS bypassing,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'no_accessor') AS no_accessor,
           string_agg(r.role_name, ', ' ORDER BY r.role_name) FILTER (WHERE r.outcome = 'no_table') AS no_table
      INTO reach
      FROM tenancy._isolation_reach($1, accessor) r
     WHERE r.role_name IS DISTINCT FROM $3;
    RAISE NOTICE '%: within their own tenant, these roles reach it: %', shown, coalesce(reach.reaching, '(none)');
    IF reach.no_accessor IS NOT NULL THEN
        RAISE NOTICE '%: permission denied for % until granted access', shown, reach.no_accessor
            USING HINT = 'They hold privileges on the table and none on the identity: SELECT tenancy.grant_access(role, ''application'').';
    END IF;
    IF reach.no_table IS NOT NULL THEN
        RAISE NOTICE '%: permission denied for % on the table', shown, reach.no_table
            USING HINT = format('They have access to tenancy and none to the table: GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO role, and USAGE on its schema.', shown);
    END IF;
    IF reach.bypassing IS NOT NULL THEN
        RAISE NOTICE '%: no policy binds %', shown, reach.bypassing
            USING HINT = 'Superusers and roles with BYPASSRLS see every tenant''s rows: let no application connect as one.';
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._require_rule(rule text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy.audit_rules() r WHERE r.rule = _require_rule.rule) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('there is no rule %s', coalesce(_require_rule.rule, 'NULL')),
            'SELECT rule, title FROM tenancy.audit_rules();', jsonb_build_object('parameter', 'rule'));
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._revoke_family(family_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    revoked record;
BEGIN
    UPDATE tenancy.token_families AS f
       SET revoked_at = now(), revoked_reason = _revoke_family.reason, updated_at = now()
     WHERE f.id = _revoke_family.family_id AND f.revoked_at IS NULL
    RETURNING f.tenant_id, f.namespace, f.user_id, f.org_id INTO revoked;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- The access tokens it gave, too, and what those gave in turn: they live a day at most.
    PERFORM tenancy._revoke_ours('session', _revoke_family.family_id::text, now() + interval '1 day');
    PERFORM tenancy._audit_token(revoked.tenant_id, 'revoked', 'refresh_token', _revoke_family.family_id,
        revoked.namespace, (SELECT u.external_id FROM tenancy.users AS u WHERE u.id = revoked.user_id), revoked.org_id,
        _revoke_family.reason);
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION tenancy._revoke_statements(root regclass, operator_role name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'revoke', g.relation,
               format('REVOKE TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s CASCADE', tenancy._relation_name(g.relation),
                                 coalesce(quote_ident(r.rolname), 'PUBLIC'))
          FROM tenancy._isolation_grants($1) g
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
         WHERE g.privileges && ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']
           AND (g.grantee = 0 OR r.rolname IS DISTINCT FROM $2)
         ORDER BY g.relation, r.rolname;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._routine_names(routine oid, relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
           OR b.body ~ format('\m%s\s*\.\s*%s\M(?!\s*\()', b.schema, b.name)
           OR b.finds AND b.body ~ format('\m(from|join|into|update|using|table|only)\s+%s\M(?!\s*[.(])', b.name)
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_class c ON c.oid = $2
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
            SELECT regexp_replace(translate(lower(p.prosrc), '"', ''), '--[^\n]*|/\*.*?\*/', ' ', 'g') AS body,
                   regexp_replace(lower(n.nspname), '\W', '.', 'g') AS schema, regexp_replace(lower(c.relname), '\W', '.', 'g') AS name,
                   -- Without a path of its own it finds what its caller's path leads to.
                   coalesce((SELECT quote_ident(n.nspname) = ANY (regexp_split_to_array(substr(s.setting, 13), '\s*,\s*'))
                               FROM unnest(p.proconfig) AS s (setting) WHERE s.setting LIKE 'search\_path=%'), true) AS finds) b
     WHERE p.oid = $1;
$$;

CREATE OR REPLACE FUNCTION tenancy._row_plan(root regclass, tenant_column name, expression text)
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    shown  text := tenancy._relation_name($1);
    filled boolean;
    col    record;
BEGIN
    -- A child may take NULLs under a parent that takes none.
    SELECT (SELECT bool_and(n.attnotnull) FROM tenancy._isolation_tree($1) t
              JOIN pg_catalog.pg_attribute n ON n.attrelid = t.relation AND n.attname = $2 AND NOT n.attisdropped) AS attnotnull,
           k.convalidated INTO col
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = a.attrelid AND k.conname = tenancy._required_check()
     WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped;
    filled := coalesce(col.attnotnull OR col.convalidated, false);
    RETURN QUERY SELECT c.step, c.statement, 'ACCESS EXCLUSIVE, for a moment', true
                   FROM tenancy._column_statements($1, $2) c WHERE c.step IN ('column', 'default');
    IF NOT filled THEN
        RETURN QUERY VALUES ('backfill', format('UPDATE %s t SET %I = %s WHERE t.%I IS NULL', shown, $2, coalesce($3, '(backfill)'), $2),
                             'ROW EXCLUSIVE; rows in batches, those locked by others later', true);
        IF col.convalidated IS NULL THEN
            RETURN QUERY VALUES ('check', format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I IS NOT NULL) NOT VALID', shown, tenancy._required_check(), $2),
                                 'ACCESS EXCLUSIVE, for a moment', true);
        END IF;
        RETURN QUERY VALUES ('validate', format('ALTER TABLE %s VALIDATE CONSTRAINT %I', shown, tenancy._required_check()),
                             'SHARE UPDATE EXCLUSIVE, for one scan', true);
    END IF;
    IF NOT coalesce(col.attnotnull, false) THEN
        RETURN QUERY SELECT c.step, c.statement, 'ACCESS EXCLUSIVE, for a moment: the validated check spares the scan', true
                       FROM tenancy._column_statements($1, $2) c WHERE c.step = 'not_null';
    END IF;
    IF NOT filled OR col.convalidated IS NOT NULL THEN
        RETURN QUERY VALUES ('drop_check', format('ALTER TABLE %s DROP CONSTRAINT %I', shown, tenancy._required_check()),
                             'ACCESS EXCLUSIVE, for a moment', true);
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._staged(table_name regclass, OUT staging text, OUT statement text)
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

CREATE OR REPLACE FUNCTION tenancy._staging(table_name regclass, columns text[], OUT staging text, OUT definition text, OUT list text)
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

CREATE OR REPLACE FUNCTION tenancy._tenant_column_of(relation regclass, like_column name, like_type oid) RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT coalesce(
            (SELECT p.tenant_column FROM tenancy._protection_of($1) p),
            (SELECT a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = $1 AND a.attname = $2 AND a.atttypid = $3 AND a.attnotnull AND NOT a.attisdropped)));
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._tenant_foreign_key(constraint_oid oid, child_tenant name, parent_tenant name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    WITH k AS (
        SELECT c.*, to_jsonb(c) -> 'confdelsetcols' AS set_columns
          FROM pg_catalog.pg_constraint c WHERE c.oid = $1
    ), names AS (
        SELECT string_agg(quote_ident(ca.attname), ', ' ORDER BY u.ord) AS child,
               string_agg(quote_ident(pa.attname), ', ' ORDER BY u.ord) AS parent,
               string_agg(quote_ident(ca.attname), ', ' ORDER BY u.ord)
                   FILTER (WHERE jsonb_typeof(k.set_columns) IS DISTINCT FROM 'array'
                              OR k.set_columns @> to_jsonb(u.c)) AS cleared
          FROM k CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS u(c, p, ord)
          JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attnum = u.c
          JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.p
    )
    SELECT format('FOREIGN KEY (%I, %s) REFERENCES %s (%I, %s)', $2, n.child,
                             tenancy._relation_name(k.confrelid), $3, n.parent)
           || CASE k.confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE' ELSE '' END
           || CASE k.confdeltype WHEN 'r' THEN ' ON DELETE RESTRICT' WHEN 'c' THEN ' ON DELETE CASCADE'
                                 WHEN 'n' THEN format(' ON DELETE SET NULL (%s)', n.cleared)
                                 WHEN 'd' THEN format(' ON DELETE SET DEFAULT (%s)', n.cleared) ELSE '' END
           || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
           || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
           || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
      FROM k CROSS JOIN names n;
$$;

CREATE OR REPLACE FUNCTION tenancy._tenant_index(index_oid oid, new_name name, tenant_column name, concurrently boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT format('CREATE UNIQUE INDEX %s%I ON %s USING btree (%I, ', CASE WHEN $4 THEN 'CONCURRENTLY ' ELSE '' END, $2,
                  tenancy._relation_name(i.indrelid), $3)
           || CASE WHEN t.spcname IS NULL THEN d.columns
                   ELSE substr(d.columns, 1, length(d.columns) - length(d.condition)) || format(' TABLESPACE %I', t.spcname) || d.condition END
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
      LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
     CROSS JOIN LATERAL (SELECT tenancy._key_columns($1) AS columns,
                                coalesce(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), '') AS condition) d
     WHERE i.indexrelid = $1;
$$;

CREATE OR REPLACE FUNCTION tenancy._tenant_key(relation regclass, key_name name, index_oid oid, constraint_oid oid, definition text, tenant_column name)
RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
    SELECT CASE
        WHEN $4 IS NOT NULL THEN ARRAY[
            format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s%s%s%s', tenancy._relation_name($1), $2, $2,
                   overlay(substr($5, 1, length($5) - length(d.timing)) PLACING format('(%I, ', $6) FROM strpos($5, '(') FOR 1),
                   ' WITH (' || array_to_string(c.reloptions, ', ') || ')', ' USING INDEX TABLESPACE ' || quote_ident(t.spcname), d.timing)]
        ELSE ARRAY[
            format('DROP INDEX %I.%I', n.nspname, $2),
            tenancy._tenant_index($3, $2, $6, false)]
    END || tenancy._key_attachments($3, $2)
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
     CROSS JOIN LATERAL (SELECT coalesce(substring($5 FROM '(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?$'), '') AS timing) d
     WHERE c.oid = $3;
$$;

CREATE OR REPLACE FUNCTION tenancy._tenant_obligations(tenant_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    asked text;
    owed  jsonb;
    found jsonb := '{}';
BEGIN
    FOR asked IN
        SELECT format('%I.%I', 'tenancy', p.proname) FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.proname LIKE '\_obligations\_%' ORDER BY p.proname
    LOOP
        EXECUTE format('SELECT %s($1)', asked) INTO owed USING _tenant_obligations.tenant_id;
        found := found || coalesce(owed, '{}');
    END LOOP;
    RETURN found;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._tenant_tables(with_own boolean)
RETURNS TABLE (place integer, root regclass, relation regclass, condition text)
LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    roots   oid[];
    columns jsonb;
    pools   oid;
BEGIN
    SELECT array_agg(t.oid), jsonb_object_agg(t.oid::text, t.tenant_column) INTO roots, columns
      FROM (SELECT p.relation::oid AS oid, p.tenant_column::text AS tenant_column FROM tenancy._protections() p
            UNION ALL
            -- Where the rows do not name the tenant, their pool does.
            SELECT c.oid, min('tenant_id') FILTER (WHERE a.attname = 'tenant_id')
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
                   AND (a.attname = 'tenant_id' AND a.atttypid = 'text'::regtype OR a.attname = 'pool_id' AND a.attnotnull)
             WHERE $1 AND c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relname NOT IN ('tenants', 'audit_log', 'token_audit_logs', 'tenant_deletions')
             GROUP BY c.oid) t;
    -- The one table of ours whose key is a pool alone: the others with a pool are found through it.
    SELECT c.oid INTO pools
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indnatts = 1
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = 'pool_id'
     WHERE c.oid = ANY (roots) AND c.relnamespace = 'tenancy'::regnamespace;
    RETURN QUERY
        SELECT p.place::integer, p.root::regclass, t.relation,
               concat_ws(' AND ',
                   CASE WHEN tenancy._has_pool(p.root) AND p.root <> pools
                        THEN format('x.pool_id = ANY (ARRAY(SELECT o.pool_id FROM %s o WHERE o.tenant_id = $1))', tenancy._relation_name(pools)) END,
                   'x.' || quote_ident(a.attname) || ' = $1' || CASE a.atttypid WHEN 'text'::regtype THEN '' ELSE '::' || a.atttypid::regtype END)
          FROM (SELECT b.root, row_number() OVER (ORDER BY count(*), b.root) AS place
                  FROM tenancy._tables_above(roots, pools) b GROUP BY b.root) p
         CROSS JOIN LATERAL tenancy._isolation_tree(p.root) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relkind = 'r'
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = columns ->> p.root::text
         WHERE a.attname IS NOT NULL OR columns ->> p.root::text IS NULL
         ORDER BY p.place, t.relation;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._unscoped_foreign_keys(root regclass, tenant_column name)
RETURNS TABLE (
    constraint_oid oid, key_name name, child regclass, parent regclass,
    child_tenant name, parent_tenant name, parent_is_ours boolean, problem text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        WITH tree AS (
            SELECT t.relation FROM tenancy._isolation_tree($1) t
        ), column_type AS (
            SELECT coalesce((SELECT a.atttypid FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped), 'text'::regtype) AS oid
        ), keys AS (
            SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey, k.confkey, k.confmatchtype, k.confupdtype,
                   k.confrelid IN (SELECT tree.relation FROM tree) AS parent_is_ours,
                   CASE WHEN k.conrelid IN (SELECT tree.relation FROM tree) THEN $2
                        ELSE tenancy._tenant_column_of(k.conrelid, $2, y.oid) END AS child_tenant,
                   CASE WHEN k.confrelid IN (SELECT tree.relation FROM tree) THEN $2
                        WHEN k.confrelid = to_regclass('tenancy.organizations') THEN 'tenant_id'
                        ELSE tenancy._tenant_column_of(k.confrelid, $2, y.oid) END AS parent_tenant
              FROM pg_catalog.pg_constraint k CROSS JOIN column_type y
             WHERE k.contype = 'f' AND k.conparentid = 0
               AND (k.conrelid IN (SELECT tree.relation FROM tree) OR k.confrelid IN (SELECT tree.relation FROM tree))
        )
        SELECT k.oid, k.conname, k.conrelid::regclass, k.confrelid::regclass, k.child_tenant, k.parent_tenant, k.parent_is_ours,
               CASE WHEN k.child_tenant IS NULL THEN 'child_has_no_tenant'
                    WHEN coalesce(ca.atttypid, y.oid) <> coalesce(pa.atttypid, y.oid) THEN 'tenant_types_differ'
                    WHEN k.confupdtype IN ('n', 'd') THEN 'on_update_would_clear_the_tenant'
                    WHEN k.confmatchtype = 'f' AND cardinality(k.conkey) > 1 THEN 'match_full'
                    WHEN NOT k.parent_is_ours AND NOT EXISTS (
                            SELECT FROM pg_catalog.pg_index i
                             WHERE i.indrelid = k.confrelid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                               AND (i.indkey::int2[])[0:i.indnkeyatts - 1] @> (pa.attnum || k.confkey)
                               AND (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ (pa.attnum || k.confkey)) THEN 'parent_has_no_such_key'
               END
          FROM keys k CROSS JOIN column_type y
          LEFT JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attname = k.child_tenant AND NOT ca.attisdropped
          LEFT JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attname = k.parent_tenant AND NOT pa.attisdropped
         WHERE k.parent_tenant IS NOT NULL
           AND NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS u(c, p)
                            WHERE u.c = ca.attnum AND u.p = pa.attnum)
         ORDER BY k.conrelid::regclass::text, k.conname;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._unscoped_keys(root regclass, tenant_column name)
RETURNS TABLE (relation regclass, index_oid oid, constraint_oid oid, key_name name, kind text, definition text, rewritable boolean)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT i.indrelid::regclass, i.indexrelid, k.oid, c.relname,
               CASE WHEN i.indisexclusion THEN 'exclusion constraint'
                    WHEN i.indisprimary THEN 'primary key'
                    WHEN k.oid IS NOT NULL THEN 'unique constraint'
                    ELSE 'unique index' END,
               coalesce(pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)),
               NOT i.indisexclusion AND i.indisvalid
               AND (k.oid IS NOT NULL OR tenancy._key_columns(i.indexrelid) IS NOT NULL)
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_index i ON i.indrelid = t.relation AND (i.indisunique OR i.indisexclusion)
          JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
          LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
         -- A partition's part of its parent's index changes with the parent's.
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = i.indrelid AND a.attname = $2
                              AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
         ORDER BY t.depth, i.indrelid, c.relname;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy._verify_rest(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH period AS (
        SELECT c.pool_id, c.user_id, c.period, c.used, c.period_start AS begins,
               CASE c.period WHEN 'day' THEN c.period_start + interval '1 day'
                    WHEN 'month' THEN ((c.period_start AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
                    ELSE 'infinity' END AS ends
          FROM tenancy.credit_caps AS c
         WHERE _verify_rest.only_pool IS NULL OR c.pool_id = _verify_rest.only_pool
    )
    SELECT 'cap_used', c.pool_id, 'credit_caps ' || c.user_id::text || ' ' || c.period, u.used::text, c.used::text
      FROM period AS c
     CROSS JOIN LATERAL (
        SELECT coalesce(-sum(t.credits_amount), 0) AS used
          FROM tenancy.credit_transactions AS t
          LEFT JOIN tenancy.credit_transactions AS o ON o.pool_id = t.pool_id AND o.id = t.refund_of
         WHERE t.pool_id = c.pool_id AND t.user_id = c.user_id AND t.operation_type IN ('deduction', 'refund')
           AND coalesce(o.created_at, t.created_at) >= c.begins AND coalesce(o.created_at, t.created_at) < c.ends) AS u
     WHERE u.used <> c.used
    UNION ALL
    SELECT 'cap_flag', p.pool_id, 'credit_pools', c.any::text, p.has_caps::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM tenancy.credit_caps AS c WHERE c.pool_id = p.pool_id)) AS c ("any")
     WHERE p.has_caps <> c.any AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    -- A key and what it was answered with are of one moment.
    SELECT 'key_result', i.pool_id, 'credit_idempotency ' || i.key,
           i.operation || ' ' || i.result_id::text || ' of ' || i.created_at::text, NULL
      FROM tenancy.credit_idempotency AS i
     WHERE NOT CASE i.operation
            WHEN 'charge' THEN EXISTS (SELECT FROM tenancy.credit_transactions AS t
                                        WHERE t.pool_id = i.pool_id AND t.id = i.result_id AND t.created_at = i.created_at)
            WHEN 'hold' THEN EXISTS (SELECT FROM tenancy.credit_holds AS h
                                      WHERE h.pool_id = i.pool_id AND h.id = i.result_id AND h.created_at = i.created_at)
            ELSE EXISTS (SELECT FROM tenancy.credit_grants AS g
                          WHERE g.pool_id = i.pool_id AND g.id = i.result_id AND g.created_at = i.created_at) END
       AND (_verify_rest.only_pool IS NULL OR i.pool_id = _verify_rest.only_pool)
    UNION ALL
    SELECT 'pool_tag', p.pool_id, 'credit_pools', t.tag::text, p.tag::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT ('x' || right(p.pool_id::text, 8))::bit(32)::integer) AS t (tag)
     WHERE p.tag <> t.tag AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    -- What belongs to a pool says whose it is as the pool does.
    SELECT f.rule, p.pool_id, f.object, concat_ws(' ', p.tenant_id, p.organization_id, p.user_id),
           concat_ws(' ', f.tenant_id, f.organization_id, f.user_id)
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (
        SELECT 'hold_owner' AS rule, 'credit_holds ' || h.id::text AS object, h.tenant_id, h.organization_id,
               CASE WHEN p.user_id IS NOT NULL THEN h.user_id END AS user_id
          FROM tenancy.credit_holds AS h WHERE h.pool_id = p.pool_id
        UNION ALL
        SELECT 'grant_owner', 'credit_grants ' || g.id::text, g.tenant_id, p.organization_id, p.user_id
          FROM tenancy.credit_grants AS g WHERE g.pool_id = p.pool_id
        UNION ALL
        SELECT 'cap_owner', 'credit_caps ' || c.user_id::text || ' ' || c.period, c.tenant_id, p.organization_id, p.user_id
          FROM tenancy.credit_caps AS c WHERE c.pool_id = p.pool_id) AS f
     WHERE (f.tenant_id, f.organization_id, f.user_id) IS DISTINCT FROM (p.tenant_id, p.organization_id, p.user_id)
       AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    SELECT 'no_money_from_nowhere', NULL, 'all pools', s.entered::text, b.balance::text
      FROM (SELECT coalesce(sum(g.amount) FILTER (WHERE g.is_posted), 0) AS granted FROM tenancy.credit_grants AS g
             WHERE _verify_rest.only_pool IS NULL OR g.pool_id = _verify_rest.only_pool) AS g
     CROSS JOIN (SELECT coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type IN ('deduction', 'refund', 'expiry')
                                                                  OR t.operation_type = 'adjustment' AND t.grant_id IS NULL), 0) AS moved
                   FROM tenancy.credit_transactions AS t
                  WHERE _verify_rest.only_pool IS NULL OR t.pool_id = _verify_rest.only_pool) AS t
     CROSS JOIN LATERAL (SELECT g.granted + t.moved) AS s (entered)
     CROSS JOIN (SELECT coalesce(sum(p.balance), 0) AS balance FROM tenancy.credit_pools AS p
                  WHERE _verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool) AS b
     WHERE s.entered <> b.balance
    UNION ALL
    SELECT 'chain', c.pool_id, 'credit_transactions ' || c.transaction_id::text,
           'entry ' || c.seq::text || ' as it was sealed', 'the first broken link'
      FROM tenancy._verify_chain(_verify_rest.only_pool) AS c;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.add_issuer(
    issuer text,
    audiences text[],
    profile text DEFAULT 'generic',
    namespace text DEFAULT '',
    algorithms text[] DEFAULT NULL,
    leeway interval DEFAULT '0',
    token_types text[] DEFAULT NULL,
    claim_paths jsonb DEFAULT NULL,
    require_expiry boolean DEFAULT true,
    authorized_parties text[] DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seconds numeric := extract(epoch FROM add_issuer.leeway);
    added boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(add_issuer.issuer, 'issuer');
    PERFORM tenancy._require_namespace(add_issuer.namespace);
    PERFORM tenancy._check_issuer(
        add_issuer.audiences, add_issuer.profile, add_issuer.algorithms, add_issuer.token_types,
        add_issuer.claim_paths::text, add_issuer.authorized_parties);
    IF seconds IS NULL OR seconds NOT BETWEEN 0 AND 300 OR seconds <> trunc(seconds) THEN
        PERFORM tenancy._raise('22023', 'invalid_leeway', 'leeway must be whole seconds from 0 to 300',
            'Clocks that are further apart than five minutes want repair, not leeway.');
    END IF;
    IF add_issuer.require_expiry IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'require_expiry must not be NULL', 'Pass true or false.',
            '{"parameter": "require_expiry"}');
    END IF;
    -- What signs under this issuer would be read otherwise from now on, or refused.
    IF add_issuer.profile <> 'pooled'
       AND EXISTS (SELECT FROM tenancy.signing_profiles AS p WHERE p.issuer = add_issuer.issuer) THEN
        PERFORM tenancy._raise('PT409', 'issuer_not_pooled', 'A signing profile signs under this issuer: its tokens are pooled',
            'Pass profile => ''pooled''.', jsonb_build_object('issuer', add_issuer.issuer, 'profile', add_issuer.profile));
    END IF;
    IF EXISTS (SELECT FROM tenancy.signing_profiles AS p
                WHERE p.issuer = add_issuer.issuer AND NOT p.audience = ANY (add_issuer.audiences)) THEN
        PERFORM tenancy._raise('PT409', 'audience_in_use', 'A signing profile signs for an audience that is left out',
            'Name it among the audiences, or give the profile another one first: SELECT tenancy.add_signing_profile(…).',
            jsonb_build_object('issuer', add_issuer.issuer, 'audiences', add_issuer.audiences));
    END IF;

    UPDATE tenancy.issuers AS i
       SET audiences = add_issuer.audiences, profile = add_issuer.profile, namespace = add_issuer.namespace,
           algorithms = add_issuer.algorithms, leeway_seconds = seconds::integer,
           token_types = add_issuer.token_types, claim_paths = add_issuer.claim_paths,
           require_expiry = add_issuer.require_expiry, authorized_parties = add_issuer.authorized_parties,
           updated_at = now()
     WHERE i.issuer = add_issuer.issuer;
    added := NOT FOUND;
    IF added THEN
        INSERT INTO tenancy.issuers (issuer, audiences, profile, namespace, algorithms, leeway_seconds, token_types,
                                     claim_paths, require_expiry, authorized_parties)
        VALUES (add_issuer.issuer, add_issuer.audiences, add_issuer.profile, add_issuer.namespace,
                add_issuer.algorithms, seconds::integer, add_issuer.token_types, add_issuer.claim_paths,
                add_issuer.require_expiry, add_issuer.authorized_parties);
    END IF;
    PERFORM tenancy._changed('issuers');
    RETURN added;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.add_signing_profile(
    name text,
    issuer text,
    audience text,
    algorithm text,
    key_id text,
    key bytea DEFAULT NULL,
    refresh_max_age interval DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    made record;
    configured record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(add_signing_profile.name, 'name');
    PERFORM tenancy._require_id(add_signing_profile.issuer, 'issuer');
    PERFORM tenancy._require_id(add_signing_profile.audience, 'audience');
    PERFORM tenancy._require_id(add_signing_profile.key_id, 'key_id');
    PERFORM tenancy._require_value(add_signing_profile.algorithm, 'algorithm');
    IF add_signing_profile.refresh_max_age NOT BETWEEN '1 hour' AND '3660 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'refresh_max_age must be between an hour and ten years',
            'The usual is 90 days.', '{"parameter": "refresh_max_age"}');
    END IF;

    -- The profile makes its own tokens authenticate here: its issuer is configured, with its audience.
    SELECT i.profile, i.audiences, i.algorithms INTO configured
      FROM tenancy.issuers AS i WHERE i.issuer = add_signing_profile.issuer FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy.add_issuer(add_signing_profile.issuer, ARRAY[add_signing_profile.audience], 'pooled');
    ELSIF configured.profile <> 'pooled' THEN
        -- Other profiles would read organization_id, an internal id, as the organization.
        PERFORM tenancy._raise('PT409', 'issuer_not_pooled', 'The issuer is configured with another profile than pooled',
            'Sign under an issuer of the product''s own, or change it: SELECT tenancy.add_issuer(issuer => …, profile => ''pooled'', …);',
            jsonb_build_object('issuer', add_signing_profile.issuer, 'profile', configured.profile));
    ELSIF configured.algorithms <> '{}' AND add_signing_profile.algorithm <> ALL (configured.algorithms) THEN
        PERFORM tenancy._raise('PT409', 'algorithm_not_allowed', 'The issuer''s configuration does not allow the algorithm',
            'Allow it: SELECT tenancy.add_issuer(issuer => …, profile => ''pooled'', algorithms => …);',
            jsonb_build_object('issuer', add_signing_profile.issuer, 'algorithm', add_signing_profile.algorithm));
    ELSIF add_signing_profile.audience <> ALL (configured.audiences) THEN
        UPDATE tenancy.issuers AS i
           SET audiences = i.audiences || add_signing_profile.audience, updated_at = now()
         WHERE i.issuer = add_signing_profile.issuer;
        PERFORM tenancy._changed('issuers');
    END IF;

    SELECT p.issuer, p.audience, p.algorithm, p.key_id INTO known
      FROM tenancy.signing_profiles AS p WHERE p.name = add_signing_profile.name FOR UPDATE;
    IF known.issuer = add_signing_profile.issuer AND known.key_id = add_signing_profile.key_id
       AND known.algorithm = add_signing_profile.algorithm AND add_signing_profile.key IS NULL THEN
        IF NOT EXISTS (SELECT FROM tenancy.issuer_keys AS k
                        WHERE k.issuer = known.issuer AND k.kid = known.key_id AND k.retired_at IS NULL) THEN
            PERFORM tenancy._raise('55000', 'signing_key_retired', 'The profile''s signing key is retired',
                'Give the profile a new key: the same call with a key_id of its own.',
                jsonb_build_object('profile', add_signing_profile.name, 'key_id', known.key_id));
        END IF;
        UPDATE tenancy.signing_profiles AS p
           SET audience = add_signing_profile.audience,
               refresh_max_age = coalesce(add_signing_profile.refresh_max_age, p.refresh_max_age), updated_at = now()
         WHERE p.name = add_signing_profile.name
           AND (p.audience <> add_signing_profile.audience
                OR p.refresh_max_age <> add_signing_profile.refresh_max_age);
        IF NOT FOUND THEN
            RAISE NOTICE 'signing profile "%" is there already, with this key', add_signing_profile.name;
        END IF;
        RETURN add_signing_profile.key_id;
    END IF;

    SELECT m.sealed_key, m.sealed_secret, m.public_jwk INTO made
      FROM tenancy._make_signing_key(
        add_signing_profile.algorithm, add_signing_profile.key_id, add_signing_profile.key,
        tenancy._signing_context(add_signing_profile.name, add_signing_profile.key_id),
        tenancy._secret_context(add_signing_profile.issuer, add_signing_profile.key_id)) AS m;
    PERFORM tenancy._insert_key(add_signing_profile.issuer, add_signing_profile.key_id, add_signing_profile.algorithm,
        made.public_jwk::jsonb, made.sealed_secret, 'signing_profile', NULL, NULL);
    UPDATE tenancy.signing_profiles AS p
       SET issuer = add_signing_profile.issuer, audience = add_signing_profile.audience,
           algorithm = add_signing_profile.algorithm, key_id = add_signing_profile.key_id,
           sealed_key = made.sealed_key,
           refresh_max_age = coalesce(add_signing_profile.refresh_max_age, p.refresh_max_age), updated_at = now()
     WHERE p.name = add_signing_profile.name;
    IF NOT FOUND THEN
        INSERT INTO tenancy.signing_profiles (name, issuer, audience, algorithm, key_id, sealed_key, refresh_max_age)
        VALUES (add_signing_profile.name, add_signing_profile.issuer, add_signing_profile.audience,
                add_signing_profile.algorithm, add_signing_profile.key_id, made.sealed_key,
                coalesce(add_signing_profile.refresh_max_age, '90 days'));
    END IF;
    PERFORM tenancy._changed('signing_profiles');
    RETURN add_signing_profile.key_id;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.assign_essay(batch_id uuid, essay_id text, text_storage_id text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    slot record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(assign_essay.essay_id, 'essay_id');
    PERFORM tenancy._require_id(assign_essay.text_storage_id, 'text_storage_id');
    batch := tenancy._find_batch(assign_essay.batch_id);
    PERFORM tenancy._require_batch_organization(batch.org_id);
    SELECT e.status, e.text_storage_id INTO slot FROM tenancy.batch_essays AS e
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = assign_essay.batch_id AND e.essay_id = assign_essay.essay_id
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('PT404', 'essay_not_found', 'The batch has no slot for this essay',
            'missing_essay_ids of tenancy.get_batch_status() lists the empty slots.');
    END IF;
    IF slot.text_storage_id = assign_essay.text_storage_id THEN
        RETURN false;
    ELSIF slot.status <> 'available' THEN
        PERFORM tenancy._raise('PT409', 'slot_taken', format('The slot is %s already', slot.status),
            'Use an empty slot: missing_essay_ids of tenancy.get_batch_status().');
    END IF;
    UPDATE tenancy.batch_essays AS e
       SET status = 'assigned', text_storage_id = assign_essay.text_storage_id, updated_at = now()
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = assign_essay.batch_id AND e.essay_id = assign_essay.essay_id;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.audit_isolation()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT f.rule, f.severity, f.object, f.finding, f.remedy
                   FROM tenancy._audit_findings() f
                  WHERE f.waived_because IS NULL;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.audit_isolation_sarif() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN (
        WITH rules AS (
            SELECT r.*, row_number() OVER (ORDER BY r.rule) - 1 AS index FROM tenancy.audit_rules() r
        )
        SELECT jsonb_build_object(
            '$schema', 'https://json.schemastore.org/sarif-2.1.0.json',
            'version', '2.1.0',
            'runs', jsonb_build_array(jsonb_build_object(
                'tool', jsonb_build_object('driver', jsonb_build_object(
                    'name', 'pg_tenancy',
                    'version', tenancy._library_version(),
                    'rules', (SELECT jsonb_agg(jsonb_build_object(
                                  'id', r.rule,
                                  'shortDescription', jsonb_build_object('text', r.title),
                                  'defaultConfiguration', jsonb_build_object('level', tenancy._sarif_level(r.severity)),
                                  'properties', jsonb_build_object('threats', to_jsonb(r.threats))) ORDER BY r.index)
                                FROM rules r))),
                'results', coalesce((
                    SELECT jsonb_agg(jsonb_build_object(
                               'ruleId', f.rule,
                               'ruleIndex', r.index,
                               'level', tenancy._sarif_level(f.severity),
                               'message', jsonb_build_object('text', format('%s: %s. Remedy: %s', f.object, f.finding, f.remedy)),
                               'locations', jsonb_build_array(jsonb_build_object('logicalLocations', jsonb_build_array(
                                   jsonb_build_object('fullyQualifiedName', current_database() || '.' || f.object)))),
                               'partialFingerprints', jsonb_build_object('ruleAndObject/v1', f.rule || ':' || f.object))
                           || CASE WHEN f.waived_because IS NULL THEN '{}'
                                   ELSE jsonb_build_object('suppressions', jsonb_build_array(jsonb_build_object(
                                            'kind', 'external', 'justification', f.waived_because))) END
                           ORDER BY r.index, f.object)
                      FROM tenancy._audit_findings() f JOIN rules r ON r.rule = f.rule), '[]'))))
    );
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.audit_rules()
RETURNS TABLE (rule text, severity text, title text, threats integer[])
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
VALUES
    ('unprotected_table', 'error', 'A table that is not protected, in a schema that has protected tables or is guarded, or that has our policies and no record', ARRAY[40]),
    ('rls_disabled', 'error', 'Row-level security is off on a protected table', ARRAY[25, 26]),
    ('force_missing', 'error', 'Row-level security does not bind the owner of a protected table', ARRAY[26]),
    ('floor_missing', 'error', 'The tenant floor of a protected table is gone or changed', ARRAY[25, 39]),
    ('access_policy_changed', 'warning', 'The access policy of a protected table is gone or changed', ARRAY[30, 39]),
    ('operator_policy_changed', 'warning', 'The operator''s policy of a protected table is gone or changed', ARRAY[39]),
    ('role_outside_floor', 'warning', 'A role was granted a table whose policies do not name it', ARRAY[39]),
    ('tenant_column_missing', 'error', 'The tenant column of a protected table is gone', ARRAY[40]),
    ('tenant_nullable', 'error', 'Rows of a protected table may belong to no tenant', ARRAY[9, 12]),
    ('tenant_default_missing', 'warning', 'The tenant column has no default from the identity', ARRAY[6]),
    ('tenant_index_missing', 'warning', 'No index of a protected table leads with the tenant', ARRAY[43]),
    ('dangerous_grant', 'error', 'TRUNCATE, REFERENCES or TRIGGER on a protected table', ARRAY[15, 41]),
    ('protected_table_gone', 'warning', 'A recorded table no longer exists; made again, it is not protected', ARRAY[40]),
    ('guard_not_armed', 'warning', 'A guarded schema is gone, or its guard came with a restored database and waits', ARRAY[40]),
    ('key_without_tenant', 'warning', 'A unique key over everybody''s rows', ARRAY[9, 10]),
    ('foreign_key_without_tenant', 'error', 'A foreign key that can point at another tenant''s row', ARRAY[12, 13, 14]),
    ('permissive_policy', 'warning', 'Another permissive policy on a protected table', ARRAY[39]),
    ('policy_reads_setting', 'error', 'A policy, or a function it calls, believes a setting that any client can write', ARRAY[1, 2, 6]),
    ('policy_immutable_function', 'error', 'A policy calls an IMMUTABLE function: a kept plan serves the first tenant to all', ARRAY[7]),
    ('policy_volatile_function', 'warning', 'A policy calls a VOLATILE function: no index, no pruning', ARRAY[7]),
    ('policy_subquery', 'warning', 'A policy with a sub-query: slow, and open to races', ARRAY[35]),
    ('policy_or', 'warning', 'A policy with OR or CASE: no index', ARRAY[35, 39]),
    ('view_runs_as_owner', 'warning', 'A view over a protected table runs with its owner''s rights', ARRAY[23]),
    ('materialized_view', 'error', 'A materialized view over a protected table holds every tenant''s rows', ARRAY[24]),
    ('definer_search_path', 'error', 'A SECURITY DEFINER function without a pinned search_path', ARRAY[28, 44]),
    ('definer_bypasses_policies', 'error', 'A SECURITY DEFINER function for applications reads a protected table as somebody whom no policy binds', ARRAY[27, 28]),
    ('leakproof_function', 'warning', 'A function of yours is declared LEAKPROOF: it runs before the policies', ARRAY[17]),
    ('bypassing_role', 'error', 'A role that uses protected tables is bound by no policy, can become one that is not, or has a right that goes round policies', ARRAY[27]),
    ('application_owns_table', 'error', 'A role with application access has the rights of a protected table''s owner', ARRAY[26, 27]),
    ('application_is_operator', 'error', 'A role with application access has the rights of a table''s operator role', ARRAY[27]),
    ('published_table', 'warning', 'A publication sends a protected table''s rows without policies', ARRAY[37]),
    ('foreign_table', 'error', 'A foreign table beside protected ones: the remote server knows no identity', ARRAY[38]),
    ('before_trigger', 'warning', 'A BEFORE trigger on a protected table can change a row''s tenant', ARRAY[31]),
    ('after_trigger', 'info', 'A trigger on a protected table can copy rows out', ARRAY[32]),
    ('rewrite_rule', 'warning', 'A rule on a protected table can copy or redirect rows', ARRAY[32]),
    ('sequence_gaps', 'info', 'A sequence shared by all tenants tells how much the others write', ARRAY[22]),
    ('advisory_lock', 'info', 'A function takes advisory locks: keys of two tenants may collide', ARRAY[34]),
    ('writable_schema', 'warning', 'Somebody can create objects in a schema that others'' names resolve in', ARRAY[44]),
    ('temporary_tables', 'info', 'Everybody may make temporary tables, which outlive the identity', ARRAY[5]),
    ('server_version', 'error', 'The server has a published hole in row-level security', ARRAY[8, 11, 20, 29])
$$;

CREATE OR REPLACE FUNCTION tenancy.begin_copy(table_name regclass, columns text[] DEFAULT NULL) RETURNS text
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

CREATE OR REPLACE FUNCTION tenancy.complete_authorization(
    code text,
    code_verifier text,
    state text,
    redirect_uri text,
    OUT access_token text,
    OUT refresh_token text,
    OUT expires_at timestamptz,
    OUT status text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    reason text;
    family uuid := tenancy.uuid_v7();
    pair record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(complete_authorization.code, 'code');
    PERFORM tenancy._require_value(complete_authorization.code_verifier, 'code_verifier');
    PERFORM tenancy._require_value(complete_authorization.state, 'state');
    PERFORM tenancy._require_value(complete_authorization.redirect_uri, 'redirect_uri');
    -- One answer for everything that is wrong with it; the audit log tells them apart. Nothing is raised: that would
    -- undo what a misuse must leave behind.
    complete_authorization.status := 'invalid_grant';

    SELECT c.*, u.external_id, p.issuer, p.refresh_max_age INTO known
      FROM tenancy.oauth_codes AS c
      JOIN tenancy.users AS u ON u.id = c.user_id
      JOIN tenancy.signing_profiles AS p ON p.name = c.profile
     WHERE c.code_hash = tenancy._token_hash(complete_authorization.code)
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        PERFORM tenancy._audit_token(NULL, 'refused', 'authorization_code', NULL, NULL, NULL, NULL, 'unknown_code');
        RETURN;
    END IF;
    reason := CASE
        WHEN known.used_at IS NOT NULL THEN 'code_reused'
        WHEN known.expires_at <= clock_timestamp() THEN 'expired_code'
        WHEN NOT tenancy._verifier_matches(known.code_challenge, complete_authorization.code_verifier) THEN 'wrong_verifier'
        WHEN known.state_hash <> tenancy._token_hash(complete_authorization.state) THEN 'wrong_state'
        WHEN known.redirect_uri <> complete_authorization.redirect_uri COLLATE "C" THEN 'foreign_redirect'
        WHEN tenancy._is_revoked(NULL, NULL, known.namespace, known.external_id, known.created_at) THEN 'user_revoked'
    END;
    IF reason = 'code_reused' THEN
        -- RFC 6749 §4.1.2: whoever came first may have been the thief.
        PERFORM FROM tenancy.token_families AS f WHERE f.id = known.family_id FOR UPDATE;
        PERFORM tenancy._revoke_family(known.family_id, 'code_reused');
    ELSE
        -- Presented is used: a wrong guess has no second try.
        UPDATE tenancy.oauth_codes AS c SET used_at = now() WHERE c.id = known.id;
    END IF;
    IF reason IS NOT NULL THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'refused', 'authorization_code', known.id, known.namespace,
            known.external_id, known.org_id, reason);
        RETURN;
    END IF;

    INSERT INTO tenancy.token_families (id, tenant_id, namespace, user_id, org_id, profile, issuer, expires_at)
    VALUES (family, known.tenant_id, known.namespace, known.user_id, known.org_id, known.profile, known.issuer, now());
    UPDATE tenancy.oauth_codes AS c SET family_id = family WHERE c.id = known.id;
    pair := tenancy._issue_pair(family, known.profile, known.namespace, known.external_id, known.org_id, known.tenant_id, NULL,
        now() + known.refresh_max_age);
    complete_authorization.access_token := pair.access_token;
    complete_authorization.refresh_token := pair.refresh_token;
    complete_authorization.expires_at := pair.expires_at;
    complete_authorization.status := 'issued';
    PERFORM tenancy._audit_token(known.tenant_id, 'generated', 'refresh_token', family, known.namespace,
        known.external_id, known.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.consume_event(envelope jsonb) RETURNS TABLE (status text, event_id uuid, result jsonb)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    taken record;
    story jsonb;
    stories jsonb[] := '{}';
    answers jsonb[] := '{}';
BEGIN
    PERFORM tenancy._require_installed();
    IF tenancy.user_id() IS NOT NULL OR tenancy._identity_expired() THEN
        PERFORM tenancy._raise('PT403', 'identity_in_force', 'Events are consumed without an identity: they carry their own',
            'Call tenancy.consume_event() in a transaction that has not authenticated.');
    END IF;
    IF jsonb_typeof(consume_event.envelope) = 'array' AND jsonb_array_length(consume_event.envelope) > 10000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'At most 10000 events are taken in one call', 'Pass them in several calls.',
            jsonb_build_object('parameter', 'envelope'));
    END IF;
    -- Whoever may have to pay is locked beforehand, in the order in which batches lock: no two calls wait in a circle. A
    -- single consumption does that itself, and then mostly locks its organization alone.
    IF jsonb_typeof(consume_event.envelope) = 'array' AND jsonb_array_length(consume_event.envelope) > 1 THEN
        PERFORM tenancy._lock_pools(tenancy._payers_of(consume_event.envelope));
    END IF;
    -- Not in the order of the array: two calls with the same events do not wait for each other in the inbox.
    FOR item IN
        SELECT e.number, e.document, r.*
          FROM jsonb_array_elements(CASE jsonb_typeof(consume_event.envelope) WHEN 'array' THEN consume_event.envelope
                                         ELSE jsonb_build_array(consume_event.envelope) END)
               WITH ORDINALITY AS e (document, number),
               LATERAL tenancy._read_event(e.document::text) AS r
         ORDER BY r.envelope #>> '{data,org_id}' COLLATE "C", r.envelope #>> '{data,user_id}' COLLATE "C", r.event_id, e.number
    LOOP
        SELECT c.status, c.result, c.stories INTO taken
          FROM tenancy._take_event(item.document, item.problem, item.message, item.topic, item.event_id, item.event_type,
                                   item.event_timestamp::timestamptz, item.correlation_id, item.body_sha256, item.envelope) AS c;
        answers[item.number] := jsonb_build_object('status', taken.status, 'event_id', item.event_id, 'result', taken.result);
        stories := stories || taken.stories;
    END LOOP;
    -- After all charges, in one order: publishing locks the aggregates.
    FOR story IN
        SELECT s.story FROM unnest(stories) WITH ORDINALITY AS s (story, number)
         ORDER BY s.story ->> 'aggregate_type' COLLATE "C", s.story ->> 'aggregate_id' COLLATE "C", s.number
    LOOP
        PERFORM tenancy._publish(story ->> 'tenant_id', story ->> 'topic', story ->> 'aggregate_type', story ->> 'aggregate_id',
            'entitlements-service', story -> 'data', story -> 'metadata', (story ->> 'correlation_id')::uuid,
            tenancy._derived_event_id(story ->> 'topic', (story -> 'data')::text));
    END LOOP;
    RETURN QUERY
        SELECT a.answer ->> 'status', (a.answer ->> 'event_id')::uuid, a.answer -> 'result'
          FROM unnest(answers) WITH ORDINALITY AS a (answer, number)
         ORDER BY a.number;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.create_api_key(
    org_id text,
    user_id text DEFAULT NULL,
    role text DEFAULT 'viewer',
    name text DEFAULT NULL,
    OUT api_key text,
    OUT key_id uuid
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    org record;
    made record;
    is_member boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_one_of(create_api_key.role, 'role', ARRAY['viewer', 'operator', 'admin', 'owner']);
    PERFORM tenancy._require_text(create_api_key.name, 'name', 255);
    IF create_api_key.user_id IS NOT NULL THEN
        PERFORM tenancy._require_id(create_api_key.user_id, 'user_id', minted => true);
    END IF;
    ns := tenancy._namespace();
    PERFORM tenancy._require_id(create_api_key.org_id, 'org_id');
    PERFORM tenancy._check_key_manager(create_api_key.org_id, ns, create_api_key.role);
    PERFORM tenancy._require_lasting_key();
    PERFORM tenancy._require_sign_in('service', 'operator');
    IF create_api_key.user_id <> tenancy.user_id() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'another_user', 'A key acts as itself or as the authenticated user',
            'Leave user_id out, or let a role with service access make the key.');
    END IF;
    org := tenancy._find_organization(create_api_key.org_id, ns);
    SELECT d.org_role IS NOT NULL OR d.seat_id IS NOT NULL INTO is_member
      FROM tenancy._resolve_directory(ns, create_api_key.user_id, create_api_key.org_id, NULL) AS d;
    -- Membership that a provider's claims alone show ends without the directory: a key would not end with it.
    IF create_api_key.user_id IS NOT NULL AND NOT is_member AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'not_a_member', 'A key for a user needs a membership in the directory, with which it ends',
            'Register it: SELECT tenancy.set_membership(…); or leave user_id out.');
    END IF;

    SELECT s.secret, s.shown INTO made FROM tenancy._new_secret('api_key') AS s;
    create_api_key.api_key := made.secret;
    create_api_key.key_id := tenancy.uuid_v7();
    INSERT INTO tenancy.api_keys
        (id, key_hash, prefix, tenant_id, namespace, organization_id, org_id, user_id, for_member, role, name, created_by)
    VALUES
        (create_api_key.key_id, tenancy._token_hash(made.secret), made.shown, org.tenant_id, ns, org.id,
         create_api_key.org_id, create_api_key.user_id, is_member,
         create_api_key.role, create_api_key.name, coalesce(tenancy.user_id(), session_user));
    PERFORM tenancy._audit_token(org.tenant_id, 'generated', 'api_key', create_api_key.key_id, ns,
        create_api_key.user_id, create_api_key.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.end_copy(table_name regclass) RETURNS bigint
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

CREATE OR REPLACE FUNCTION tenancy.exempt(object text, rule text, reason text, expires_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(tenancy._require_value(exempt.object, 'object'), 'object', 1000);
    PERFORM tenancy._require_text(tenancy._require_value(exempt.reason, 'reason'), 'reason', 1000);
    PERFORM tenancy._require_rule(exempt.rule);
    IF exempt.expires_at <= now() THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'expires_at lies in the past',
            'Pass a time to come, or NULL for an exemption without end.', jsonb_build_object('parameter', 'expires_at'));
    END IF;
    IF NOT EXISTS (SELECT FROM tenancy._audit_findings() f WHERE f.object = exempt.object AND f.rule = exempt.rule) THEN
        RAISE NOTICE 'at present there is no finding % on %', exempt.rule, exempt.object
            USING HINT = 'The object is written as tenancy.audit_isolation() writes it.';
    END IF;
    UPDATE tenancy.isolation_exemptions e
       SET reason = exempt.reason, expires_at = exempt.expires_at, exempted_by = session_user, updated_at = now()
     WHERE e.object = exempt.object AND e.rule = exempt.rule;
    IF NOT FOUND THEN
        INSERT INTO tenancy.isolation_exemptions AS e (object, rule, reason, expires_at, exempted_by)
        VALUES (exempt.object, exempt.rule, exempt.reason, exempt.expires_at, session_user)
        ON CONFLICT ON CONSTRAINT isolation_exemptions_pkey DO NOTHING;
    END IF;
    RETURN true;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.export_tenant(tenant_id text) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = 'UTC' SET bytea_output = hex SET extra_float_digits = 1
AS $$
DECLARE
    held record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(export_tenant.tenant_id, 'tenant_id');
    PERFORM tenancy._note_action(export_tenant.tenant_id, 'export_tenant');
    FOR held IN
        -- A partition's rows go back in through its parent; a child has columns of its own.
        SELECT t.relation, t.condition, tenancy._relation_name(CASE WHEN c.relispartition THEN t.root ELSE t.relation END) AS name
          FROM tenancy._tenant_tables(false) t JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE tenancy._condition_applies(t.condition, export_tenant.tenant_id)
         ORDER BY t.place, t.relation
    LOOP
        RETURN QUERY SELECT r.line FROM tenancy._rows_as_owner(held.relation,
            format('SELECT json_build_object(''table'', %L::text, ''row'', row_to_json(x.*))::text FROM ONLY %s x WHERE %s',
                   held.name, tenancy._relation_name(held.relation), held.condition),
            export_tenant.tenant_id) AS r(line);
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.forget_dropped_tables() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    forgotten integer;
BEGIN
    PERFORM tenancy._require_installed();
    DELETE FROM tenancy.protection_runs r WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.relation);
    DELETE FROM tenancy.protected_tables t WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.relation);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.grant_access(role regrole, access text) RETURNS integer
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

CREATE OR REPLACE FUNCTION tenancy.guard_schema(schema name, mode text, tenant_column name DEFAULT 'tenant_id') RETURNS text
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

CREATE OR REPLACE FUNCTION tenancy.issue_extension_token(
    user_id text,
    org_id text DEFAULT NULL,
    claims jsonb DEFAULT NULL,
    name text DEFAULT NULL,
    device text DEFAULT NULL,
    address text DEFAULT NULL,
    extra jsonb DEFAULT '{}',
    require_org boolean DEFAULT false,
    profile text DEFAULT 'default',
    OUT token text,
    OUT token_id uuid,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    minted record;
    active integer;
    counted jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(issue_extension_token.name, 'name', 255);
    PERFORM tenancy._require_text(issue_extension_token.device, 'device', 1000);
    PERFORM tenancy._require_text(issue_extension_token.address, 'address', 255);
    subject := tenancy._find_token_user(issue_extension_token.profile, issue_extension_token.user_id);
    counted := tenancy._check_token_caller(issue_extension_token.user_id, subject.namespace, issue_extension_token.claims);
    PERFORM tenancy._require_sign_in('service');
    PERFORM tenancy._require_token_user(subject.id);
    UPDATE tenancy.users AS u SET updated_at = u.updated_at WHERE u.id = subject.id;

    SELECT count(*) INTO active
      FROM tenancy.extension_tokens AS t
     WHERE t.user_id = subject.id AND t.revoked_at IS NULL AND t.expires_at > now();
    IF active >= 5 THEN
        PERFORM tenancy._raise('PT409', 'TOKEN_LIMIT_EXCEEDED', 'The user has five active extension tokens',
            'Revoke one first: SELECT tenancy.revoke_extension_token(token_id);', '{"limit": 5}');
    END IF;
    PERFORM tenancy._take_token_limit(subject.id, 'generated');

    issue_extension_token.token_id := tenancy.uuid_v7();
    minted := tenancy._mint_token(
        issue_extension_token.profile, subject.namespace, 'extension_long_lived', 10368000,
        issue_extension_token.user_id, issue_extension_token.org_id, counted, issue_extension_token.extra,
        coalesce(issue_extension_token.require_org, false), issue_extension_token.token_id,
        issue_extension_token.token_id::text, NULL);
    PERFORM tenancy._take_token_limit_again(subject.namespace, issue_extension_token.user_id, 'generated');
    issue_extension_token.token := minted.token;
    issue_extension_token.expires_at := minted.expires_at;
    INSERT INTO tenancy.extension_tokens
        (id, token_hash, tenant_id, namespace, user_id, org_id, profile, name, sealed_device, sealed_address, expires_at)
    VALUES
        (issue_extension_token.token_id, tenancy._token_hash(minted.token), minted.tenant_id, subject.namespace,
         subject.id, issue_extension_token.org_id, issue_extension_token.profile, issue_extension_token.name,
         tenancy._seal_note(issue_extension_token.device, 'device', issue_extension_token.token_id),
         tenancy._seal_note(issue_extension_token.address, 'address', issue_extension_token.token_id),
         minted.expires_at);
    PERFORM tenancy._audit_token(minted.tenant_id, 'generated', 'extension_token', issue_extension_token.token_id,
        subject.namespace, issue_extension_token.user_id, issue_extension_token.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.protect_table(
    table_name     regclass,
    tenant_column  name    DEFAULT 'tenant_id',
    org_column     name    DEFAULT NULL,
    composite_keys boolean DEFAULT false,
    operator_role  name    DEFAULT NULL,
    dry_run        boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE plpgsql ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    planned record;
    done    integer := 0;
BEGIN
    SELECT * INTO table_name, tenant_column, org_column, operator_role, composite_keys
      FROM tenancy._protection_target(protect_table.table_name, protect_table.tenant_column, protect_table.org_column,
                                      protect_table.operator_role, protect_table.composite_keys);
    -- Taken before the plan is made, so that nobody changes the table between plan and execution.
    IF NOT coalesce(dry_run, false)
       AND EXISTS (SELECT FROM tenancy._protection_statements(table_name, tenant_column, org_column, operator_role, composite_keys)) THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tenancy._relation_name(table_name));
    END IF;
    PERFORM tenancy._check_rows_have_tenant(table_name, tenant_column);
    FOR planned IN
        SELECT * FROM tenancy._protection_statements(table_name, tenant_column, org_column, operator_role, composite_keys)
    LOOP
        IF NOT coalesce(dry_run, false) THEN
            EXECUTE planned.statement;
        END IF;
        done := done + 1;
        RETURN NEXT planned.statement;
    END LOOP;

    IF NOT coalesce(dry_run, false) THEN
        PERFORM tenancy._record_protection(table_name, tenant_column, org_column, operator_role);
    END IF;
    IF done = 0 THEN
        RAISE NOTICE '% is already protected by its column %: nothing to do', tenancy._relation_name(table_name), quote_ident(tenant_column);
    END IF;
    IF NOT composite_keys THEN
        PERFORM tenancy._report_keys(table_name, tenant_column);
    END IF;
    PERFORM tenancy._report_protection(table_name, tenant_column, operator_role);
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.protection_plan(
    table_name     regclass,
    tenant_column  name     DEFAULT 'tenant_id',
    org_column     name     DEFAULT NULL,
    composite_keys boolean  DEFAULT false,
    operator_role  name     DEFAULT NULL,
    backfill       text     DEFAULT NULL,
    mapping_table  regclass DEFAULT NULL,
    mapping_key    name     DEFAULT NULL,
    mapping_tenant name     DEFAULT 'tenant_id')
RETURNS TABLE (step text, statement text, locks text, online boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    target record;
    expression text := tenancy._backfill_expression(protection_plan.table_name, protection_plan.backfill,
                                                    protection_plan.mapping_table, protection_plan.mapping_key, protection_plan.mapping_tenant);
BEGIN
    SELECT * INTO target FROM tenancy._protection_target(protection_plan.table_name, protection_plan.tenant_column,
        protection_plan.org_column, protection_plan.operator_role, protection_plan.composite_keys);
    RETURN QUERY SELECT r.* FROM tenancy._row_plan(target.relation, target.tenant_column, expression) r;
    RETURN QUERY SELECT i.* FROM tenancy._index_plan(target.relation, target.tenant_column, target.composite_keys) i;
    IF target.composite_keys THEN
        RETURN QUERY SELECT k.* FROM tenancy._key_plan(target.relation, target.tenant_column) k;
    END IF;
    RETURN QUERY
        SELECT p.step, p.statement, 'ACCESS EXCLUSIVE, for a moment', true
          FROM tenancy._policy_statements(target.relation, target.tenant_column, target.org_column, target.operator_role) p
        UNION ALL
        SELECT r.step, r.statement, 'none on rows', true
          FROM tenancy._revoke_statements(target.relation, target.operator_role) r;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.publish_event(
    event_type text,
    data jsonb,
    aggregate_type text,
    aggregate_id text,
    metadata jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind record;
    who record;
    named_user text;
    named_org text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(publish_event.event_type, 'event_type');
    PERFORM tenancy._require_id(publish_event.aggregate_type, 'aggregate_type');
    PERFORM tenancy._require_id(publish_event.aggregate_id, 'aggregate_id');
    IF jsonb_typeof(publish_event.data) IS DISTINCT FROM 'object'
       OR jsonb_typeof(coalesce(publish_event.metadata, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'data must be a JSON object, metadata one or NULL',
            'Pass data as {"key": "value"}.');
    END IF;
    SELECT * INTO kind FROM tenancy._event_kind(publish_event.event_type, publish_event.data::text);
    IF kind.reserved THEN
        PERFORM tenancy._raise('PT403', 'reserved_event_type', 'Events of this type come from the extension''s own functions only',
            'Call tenancy.report_consumption() for consumption; what begins with tenancy. or huleedu.entitlements. is the extension''s own.',
            jsonb_build_object('event_type', publish_event.event_type));
    END IF;
    IF kind.topic IS NOT NULL THEN
        PERFORM tenancy._require_model(kind.topic, publish_event.data, 'data');
    END IF;
    named_user := coalesce(tenancy._named(publish_event.data, 'user_id', 'data'),
                           tenancy._named(publish_event.metadata, 'user_id', 'metadata'));
    named_org := coalesce(tenancy._named(publish_event.data, 'org_id', 'data'),
                          tenancy._named(publish_event.metadata, 'org_id', 'metadata'));
    IF publish_event.metadata ->> 'user_id' <> named_user OR publish_event.metadata ->> 'org_id' <> named_org THEN
        PERFORM tenancy._raise('PT403', 'identity_mismatch', 'data and metadata name different users or organizations',
            'Leave user_id and org_id out of metadata: they are written there.');
    END IF;
    who := tenancy._attribute(named_user, named_org);
    RETURN tenancy._publish(who.tenant_id, publish_event.event_type, publish_event.aggregate_type, publish_event.aggregate_id,
        coalesce(publish_event.metadata ->> 'source_service', 'pg_tenancy'), publish_event.data,
        coalesce(publish_event.metadata, '{}') - 'namespace' || tenancy._context(who.user_id, who.org_id, who.namespace),
        coalesce(who.correlation_id, tenancy._correlation_uuid(publish_event.metadata ->> 'correlation_id')));
END
$$;

CREATE OR REPLACE FUNCTION tenancy.refresh_access_token(
    refresh_token text,
    OUT status text,
    OUT access_token text,
    OUT new_refresh_token text,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    presented record;
    family record;
    minted record;
    reason text;
BEGIN
    PERFORM tenancy._require_installed();
    SELECT t.id, t.family_id INTO presented
      FROM tenancy.refresh_tokens AS t
     WHERE t.token_hash = tenancy._token_hash(coalesce(refresh_access_token.refresh_token, ''));
    IF NOT FOUND THEN
        refresh_access_token.status := 'invalid';
        PERFORM tenancy._audit_token(NULL, 'refused', 'refresh_token', NULL, NULL, NULL, NULL, 'unknown_token');
        RETURN;
    END IF;
    -- The family's row is the lock: of many sessions with one token, one exchanges it and the others see that it did.
    SELECT f.*, u.external_id, f.created_at + p.refresh_max_age AS ends_at INTO family
      FROM tenancy.token_families AS f
      JOIN tenancy.users AS u ON u.id = f.user_id
      JOIN tenancy.signing_profiles AS p ON p.name = f.profile
     WHERE f.id = presented.family_id
       FOR UPDATE OF f;
    SELECT t.id, t.expires_at, t.created_at, t.replaced_at, child.id AS child_id, child.replaced_at AS child_replaced_at
      INTO presented
      FROM tenancy.refresh_tokens AS t
      LEFT JOIN tenancy.refresh_tokens AS child ON child.id = t.replaced_by
     WHERE t.id = presented.id;

    IF family.revoked_at IS NOT NULL
       OR tenancy._is_revoked(family.issuer, family.id::text, family.namespace, family.external_id, presented.created_at) THEN
        refresh_access_token.status := 'revoked';
        reason := 'revoked';
    ELSIF presented.replaced_at IS NOT NULL THEN
        -- Ten seconds for the parent of the living token: two tabs of one client, or an answer that was lost. It gets
        -- an access token and no refresh token: there is one living token, and another session has it.
        IF presented.replaced_at > clock_timestamp() - interval '10 seconds'
           AND presented.child_id IS NOT NULL AND presented.child_replaced_at IS NULL THEN
            refresh_access_token.status := 'grace';
            minted := tenancy._mint_token(family.profile, family.namespace, 'access', 86400, family.external_id, family.org_id,
                NULL, '{}', false, tenancy.uuid_v7(), family.id::text, NULL);
            refresh_access_token.access_token := minted.token;
            refresh_access_token.expires_at := minted.expires_at;
        ELSE
            refresh_access_token.status := 'reused';
            reason := 'reused';
            PERFORM tenancy._revoke_family(family.id, 'reused');
        END IF;
    ELSIF presented.expires_at <= clock_timestamp() OR family.ends_at <= clock_timestamp() THEN
        refresh_access_token.status := 'expired';
        reason := CASE WHEN family.ends_at <= clock_timestamp() THEN 'family_expired' ELSE 'expired' END;
    ELSE
        refresh_access_token.status := 'refreshed';
        SELECT p.access_token, p.refresh_token, p.expires_at
          INTO refresh_access_token.access_token, refresh_access_token.new_refresh_token, refresh_access_token.expires_at
          FROM tenancy._issue_pair(family.id, family.profile, family.namespace, family.external_id, family.org_id,
                                   family.tenant_id, presented.id, family.ends_at) AS p;
    END IF;
    PERFORM tenancy._audit_token(family.tenant_id, CASE WHEN reason IS NULL THEN 'refreshed' ELSE 'refused' END,
        'refresh_token', presented.id, family.namespace, family.external_id, family.org_id,
        coalesce(reason, nullif(refresh_access_token.status, 'refreshed')));
END
$$;

CREATE OR REPLACE FUNCTION tenancy.refresh_extension_token(
    token text,
    OUT new_token text,
    OUT token_id uuid,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_id uuid;
    old record;
    minted record;
BEGIN
    PERFORM tenancy._require_installed();
    old_id := tenancy._find_extension_token(refresh_extension_token.token, 'NO_ACTIVE_TOKEN');
    SELECT t.user_id INTO old FROM tenancy.extension_tokens AS t WHERE t.id = old_id;
    UPDATE tenancy.users AS u SET updated_at = u.updated_at WHERE u.id = old.user_id;
    SELECT t.*, u.external_id INTO old
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
     WHERE t.id = old_id
       FOR UPDATE OF t;
    -- Judged again under the lock: another session may have refreshed or revoked it meanwhile.
    IF old.revoked_at IS NOT NULL THEN
        PERFORM tenancy._raise('PT404', 'NO_ACTIVE_TOKEN', 'There is no active token to refresh',
            'Let the user sign in and issue a new token.');
    ELSIF old.expires_at > now() + interval '30 days' THEN
        PERFORM tenancy._raise('PT422', 'TOO_EARLY_TO_REFRESH', 'A token is refreshed in its last 30 days only',
            'Keep using the token; DETAIL says from when on it can be refreshed.',
            jsonb_build_object('refresh_from', old.expires_at - interval '30 days'));
    END IF;
    PERFORM tenancy._take_token_limit(old.user_id, 'refreshed');

    refresh_extension_token.token_id := tenancy.uuid_v7();
    minted := tenancy._mint_token(old.profile, old.namespace, 'extension_long_lived', 10368000, old.external_id, old.org_id,
        NULL, '{}', false, refresh_extension_token.token_id, refresh_extension_token.token_id::text, NULL);
    PERFORM tenancy._take_token_limit_again(old.namespace, old.external_id, 'refreshed');
    refresh_extension_token.new_token := minted.token;
    refresh_extension_token.expires_at := minted.expires_at;
    PERFORM tenancy._end_extension_token(old_id, 'refreshed');
    INSERT INTO tenancy.extension_tokens
        (id, token_hash, tenant_id, namespace, user_id, org_id, profile, name, sealed_device, sealed_address,
         refresh_count, expires_at)
    VALUES
        (refresh_extension_token.token_id, tenancy._token_hash(minted.token), minted.tenant_id, old.namespace,
         old.user_id, old.org_id, old.profile, old.name,
         tenancy._seal_note(tenancy._open_note(old.sealed_device, 'device', old_id), 'device', refresh_extension_token.token_id),
         tenancy._seal_note(tenancy._open_note(old.sealed_address, 'address', old_id), 'address', refresh_extension_token.token_id),
         old.refresh_count + 1, minted.expires_at);
    PERFORM tenancy._audit_token(minted.tenant_id, 'refreshed', 'extension_token', refresh_extension_token.token_id,
        old.namespace, old.external_id, old.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.register_batch(
    request jsonb,
    known_batch_id uuid DEFAULT NULL,
    OUT batch_id uuid,
    OUT correlation_id uuid,
    OUT status text
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    who record;
    checked jsonb;
    essays text[];
BEGIN
    PERFORM tenancy._require_installed();
    IF jsonb_typeof(register_batch.request) IS DISTINCT FROM 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_request', 'request must be a JSON object', 'Pass a BatchRegistrationRequestV1.');
    END IF;
    -- The original's gateway writes the verified user into the request; here it may be left out.
    checked := tenancy._require_model('registration',
        jsonb_strip_nulls(jsonb_build_object('user_id', tenancy.user_id())) || register_batch.request, 'request');
    IF (checked ->> 'expected_essay_count')::numeric > 10000 THEN
        PERFORM tenancy._raise('22023', 'invalid_request', 'expected_essay_count must be at most 10000',
            'Register several batches.', jsonb_build_object('parameter', 'expected_essay_count'));
    END IF;
    who := tenancy._attribute(checked ->> 'user_id', checked ->> 'org_id');
    checked := checked || jsonb_build_object('user_id', who.user_id, 'org_id', who.org_id);
    register_batch.batch_id := coalesce(register_batch.known_batch_id, tenancy.uuid_v7());
    register_batch.correlation_id := coalesce(who.correlation_id, tenancy.uuid_v7());
    IF register_batch.known_batch_id IS NOT NULL THEN
        PERFORM tenancy._claim_batch_id(who.tenant_id, register_batch.known_batch_id,
            may_share => tenancy.user_id() IS NULL OR tenancy._may_act_for_others());
    END IF;

    -- Ids of the client's making are accepted and not used, as the original does.
    essays := ARRAY(SELECT tenancy.uuid_v7()::text FROM generate_series(1, (checked ->> 'expected_essay_count')::integer));
    IF NOT tenancy._insert_batch(who.tenant_id, who.namespace, register_batch.batch_id, who.user_id, who.org_id, essays,
                                 register_batch.request || checked, register_batch.correlation_id) THEN
        SELECT b.correlation_id INTO register_batch.correlation_id FROM tenancy.batches AS b
         WHERE b.tenant_id = who.tenant_id AND b.batch_id = register_batch.batch_id;
        register_batch.status := 'already_registered';
        RETURN;
    END IF;
    PERFORM tenancy._publish(who.tenant_id, 'huleedu.batch.essays.registered.v1', 'batch', register_batch.batch_id::text,
        'batch-service',
        jsonb_build_object(
            'event', 'batch.essays.registered',
            'entity_id', register_batch.batch_id,
            'expected_essay_count', cardinality(essays),
            'essay_ids', to_jsonb(essays),
            'metadata', tenancy._processing_metadata(register_batch.batch_id, NULL, 'batch.essays.registered'),
            'course_code', checked -> 'course_code',
            'student_prompt_ref', checked -> 'student_prompt_ref',
            'user_id', who.user_id,
            'org_id', who.org_id,
            'class_id', checked -> 'class_id'),
        tenancy._context(who.user_id, who.org_id, who.namespace), register_batch.correlation_id);
    register_batch.status := 'registered';
END
$$;

CREATE OR REPLACE FUNCTION tenancy.revoke_access(role regrole, access text) RETURNS boolean
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

CREATE OR REPLACE FUNCTION tenancy.revoke_extension_token(token_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    was_live boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_extension_token.token_id, 'token_id');
    SELECT t.tenant_id, t.namespace, t.org_id, u.external_id INTO known
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
     WHERE t.id = revoke_extension_token.token_id;
    IF NOT FOUND THEN
        -- Whoever has seen such a token may be sure that it is good nowhere, nor what was issued on the strength of it.
        IF tenancy._caller_has('service') THEN
            PERFORM tenancy._revoke_ours('token', revoke_extension_token.token_id::text, now() + interval '120 days');
            PERFORM tenancy._revoke_ours('session', revoke_extension_token.token_id::text, now() + interval '1 day');
        END IF;
        RETURN false;
    END IF;
    -- Another user's token is answered as one that does not exist.
    IF NOT tenancy._caller_has('service')
       AND (known.external_id, known.namespace) IS DISTINCT FROM (tenancy.user_id(), tenancy.identity_namespace())
    THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'refused', 'extension_token', revoke_extension_token.token_id,
            tenancy.identity_namespace(), tenancy.user_id(), tenancy.org_id(), 'another_user');
        RETURN false;
    END IF;
    PERFORM tenancy._check_token_caller(known.external_id, known.namespace, NULL);
    was_live := tenancy._end_extension_token(revoke_extension_token.token_id, 'revoked');
    -- It is a session of its own, and what was issued to its bearer on the strength of it lasts a day at most: also
    -- where it was refreshed before, which ends it and leaves them their day.
    PERFORM tenancy._revoke_ours('session', revoke_extension_token.token_id::text, now() + interval '1 day');
    IF was_live THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'revoked', 'extension_token', revoke_extension_token.token_id,
            known.namespace, known.external_id, known.org_id, 'revoked');
    END IF;
    RETURN was_live;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.rotate_api_key(
    key_id uuid,
    grace interval DEFAULT '7 days',
    OUT api_key text,
    OUT new_key_id uuid,
    OUT old_valid_until timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    made record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(rotate_api_key.grace, 'grace');
    IF rotate_api_key.grace < interval '0' OR rotate_api_key.grace > interval '90 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'grace must be between 0 and 90 days', 'The usual is 7 days.',
            '{"parameter": "grace"}');
    END IF;
    old := tenancy._find_api_key(rotate_api_key.key_id);
    PERFORM tenancy._require_lasting_key();
    PERFORM tenancy._require_sign_in('service', 'operator');
    IF old.status <> 'active' THEN
        PERFORM tenancy._raise('PT422', 'not_active', 'Only an active key can be rotated',
            'Make a new one: SELECT * FROM tenancy.create_api_key(…);', jsonb_build_object('status', old.status));
    ELSIF old.user_id <> tenancy.user_id() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'another_user', 'A key that acts as a user is rotated by that user only',
            'Let the user or a role with service access rotate it, or revoke it.');
    ELSIF tenancy._is_revoked(NULL, NULL, old.namespace, old.user_id,
                              (SELECT k.created_at FROM tenancy.api_keys AS k WHERE k.id = rotate_api_key.key_id)) THEN
        -- The new key would be younger than the revocation, and good.
        PERFORM tenancy._raise('PT422', 'not_active', 'The key''s user was revoked since it was made',
            'Make a new one: SELECT * FROM tenancy.create_api_key(…);', '{"status": "user_revoked"}');
    END IF;

    SELECT s.secret, s.shown INTO made FROM tenancy._new_secret('api_key') AS s;
    rotate_api_key.api_key := made.secret;
    rotate_api_key.new_key_id := tenancy.uuid_v7();
    rotate_api_key.old_valid_until := now() + rotate_api_key.grace;
    INSERT INTO tenancy.api_keys
        (id, key_hash, prefix, tenant_id, namespace, organization_id, org_id, user_id, for_member, role, name, created_by)
    SELECT rotate_api_key.new_key_id, tenancy._token_hash(made.secret), made.shown, k.tenant_id, k.namespace,
           k.organization_id, k.org_id, k.user_id, k.for_member, k.role, k.name, coalesce(tenancy.user_id(), session_user)
      FROM tenancy.api_keys AS k
     WHERE k.id = rotate_api_key.key_id;
    UPDATE tenancy.api_keys AS k
       SET status = 'rotation_pending', valid_until = rotate_api_key.old_valid_until,
           replaced_by = rotate_api_key.new_key_id, updated_at = now()
     WHERE k.id = rotate_api_key.key_id;
    PERFORM tenancy._audit_token(old.tenant_id, 'refreshed', 'api_key', rotate_api_key.key_id, old.namespace, old.user_id,
        old.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.start_authorization(
    user_id text,
    code_challenge text,
    state text,
    redirect_uri text,
    org_id text DEFAULT NULL,
    profile text DEFAULT 'default',
    OUT code text,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    code_id uuid := tenancy.uuid_v7();
    tenant text;
BEGIN
    PERFORM tenancy._require_installed();
    IF tenancy._is_pkce(coalesce(start_authorization.code_challenge, '')) IS NOT TRUE THEN
        PERFORM tenancy._raise('22023', 'invalid_code_challenge',
            'code_challenge must have 43 to 128 characters of A-Z a-z 0-9 - . _ ~',
            'Pass base64url(SHA-256(code_verifier)) without padding: RFC 7636, method S256.', '{"parameter": "code_challenge"}');
    END IF;
    PERFORM tenancy._require_value(start_authorization.state, 'state');
    IF length(start_authorization.state) NOT BETWEEN 16 AND 1024 THEN
        PERFORM tenancy._raise('22023', 'invalid_state', 'state must have 16 to 1024 characters',
            'Pass a random text that the client keeps and compares.', '{"parameter": "state"}');
    END IF;
    PERFORM tenancy._require_value(start_authorization.redirect_uri, 'redirect_uri');
    PERFORM tenancy._require_text(start_authorization.redirect_uri, 'redirect_uri', 2048);
    IF start_authorization.redirect_uri !~ '^[A-Za-z][A-Za-z0-9+.-]*:' OR strpos(start_authorization.redirect_uri, '#') > 0
       OR start_authorization.redirect_uri ~* '^(javascript|data|vbscript|blob|file|about):' OR start_authorization.redirect_uri ~ '\s'
    THEN
        PERFORM tenancy._raise('22023', 'invalid_redirect_uri', 'redirect_uri must be an absolute URI without a fragment',
            'RFC 6749 §3.1.2. Check it against the client''s registered ones before.', '{"parameter": "redirect_uri"}');
    END IF;
    IF start_authorization.org_id IS NOT NULL THEN
        PERFORM tenancy._require_id(start_authorization.org_id, 'org_id');
    END IF;
    subject := tenancy._find_token_user(start_authorization.profile, start_authorization.user_id);
    PERFORM tenancy._check_token_caller(start_authorization.user_id, subject.namespace, NULL);
    PERFORM tenancy._require_sign_in('service');
    PERFORM tenancy._require_token_user(subject.id);
    tenant := tenancy._audit_tenant(subject.namespace, start_authorization.user_id, start_authorization.org_id);

    SELECT s.secret INTO start_authorization.code FROM tenancy._new_secret('code') AS s;
    start_authorization.expires_at := now() + interval '10 minutes';
    INSERT INTO tenancy.oauth_codes
        (id, code_hash, tenant_id, namespace, user_id, org_id, profile, code_challenge, state_hash, redirect_uri, expires_at)
    VALUES
        (code_id, tenancy._token_hash(start_authorization.code), tenant, subject.namespace, subject.id,
         start_authorization.org_id, start_authorization.profile, start_authorization.code_challenge,
         tenancy._token_hash(start_authorization.state), start_authorization.redirect_uri, start_authorization.expires_at);
    PERFORM tenancy._audit_token(tenant, 'generated', 'authorization_code', code_id, subject.namespace,
        start_authorization.user_id, start_authorization.org_id, NULL);
END
$$;

CREATE OR REPLACE FUNCTION tenancy.suspend_tenant(tenant_id text, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    changed boolean := tenancy.set_tenant_status(suspend_tenant.tenant_id, 'suspended');
BEGIN
    IF changed THEN
        PERFORM tenancy._note_action(suspend_tenant.tenant_id, 'suspend_tenant', suspend_tenant.reason);
    END IF;
    RETURN changed;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.unexempt(object text, rule text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_rule(unexempt.rule);
    DELETE FROM tenancy.isolation_exemptions e WHERE e.object = unexempt.object AND e.rule = unexempt.rule;
    RETURN FOUND;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.unguard_schema(schema name) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    DELETE FROM tenancy.guarded_schemas g WHERE g.schema_name = unguard_schema.schema;
    RETURN FOUND;
END;
$$;

CREATE OR REPLACE FUNCTION tenancy.unprotect_table(table_name regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    known  record;
    rel    record;
    before jsonb;
    ours   name;
    shown  text := tenancy._relation_name(table_name);
BEGIN
    SELECT * INTO known FROM tenancy._protection_of(unprotect_table.table_name);
    PERFORM tenancy._check_protectable(table_name);
    IF known.tenant_column IS NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
                                  WHERE p.polrelid = table_name AND p.polname = 'tenancy_floor') THEN
        RAISE NOTICE '% is not protected: nothing to do', shown;
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', shown);
    -- Proof for the recorder, which trusts no argument: only the owner can make a policy.
    EXECUTE format('CREATE POLICY tenancy_release ON %s USING (false)', shown);
    PERFORM tenancy._forget_protection(table_name);
    EXECUTE format('DROP POLICY tenancy_release ON %s', shown);

    FOR rel IN
        SELECT t.relation, tenancy._relation_name(t.relation) AS name, d.description
          FROM tenancy._isolation_tree(table_name) t
          LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation AND p.polname = 'tenancy_floor'
          LEFT JOIN pg_catalog.pg_description d ON d.classoid = 'pg_policy'::regclass AND d.objoid = p.oid
         ORDER BY t.depth, t.relation
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS tenancy_floor ON %s', rel.name);
        EXECUTE format('DROP POLICY IF EXISTS tenancy_access ON %s', rel.name);
        EXECUTE format('DROP POLICY IF EXISTS tenancy_operator ON %s', rel.name);
        before := substring(rel.description from 'Before: (\{.*\})$')::jsonb;
        IF NOT coalesce((before ->> 'forced')::boolean, false) THEN
            EXECUTE format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', rel.name);
        END IF;
        IF NOT coalesce((before ->> 'enabled')::boolean, false) THEN
            EXECUTE format('ALTER TABLE ONLY %s DISABLE ROW LEVEL SECURITY', rel.name);
        END IF;
        FOR ours IN
            SELECT a.attname
              FROM pg_catalog.pg_attribute a
              JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = rel.relation
               AND pg_get_expr(d.adbin, d.adrelid) = tenancy._isolation_accessor(rel.relation, a.attname, 'tenant')
        LOOP
            EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP DEFAULT', rel.name, ours);
        END LOOP;
    END LOOP;
    RAISE NOTICE '% is no longer isolated by tenant; its column, its NOT NULL and its indexes stay, what was revoked stays revoked', shown;
    RETURN true;
END;
$$;

COMMENT ON FUNCTION tenancy._audit_protection(oid[]) IS
    'Internal: tables beside protected ones, in guarded schemas, or with policies of ours, that are not recorded as protected; records and guards that no longer fit.';

COMMENT ON FUNCTION tenancy._audited_roles() IS 'Internal: the roles that use protected tables, and which of them have application access, login roles that have it through others included.';

COMMENT ON FUNCTION tenancy._check_extra(jsonb) IS
'Returns extra, claims of the caller''s own, if it is an object without claims that authenticate gives a meaning to, and from a caller without service access without those that others take for a right or for proven (role, scope, groups, plan_type, app_metadata, email_verified, phone_number and the like, and every name with '':'' or ''/''); those that the signing issuer''s claim_paths name, _sign_token refuses. Claims of the schema may stand in it; they are overridden. Errors: 22023 invalid_argument, reserved_claim.';

COMMENT ON FUNCTION tenancy._check_key_manager(text, text, text) IS
'May the caller manage API keys of this organization, up to this role? Service and operator access: of any; application: the identity''s own organization, with permission manage_keys, up to what the identity holds itself (by a token issued here: no more than its role in the directory has now), while its token or key is good. Errors: PT401, PT403 as authenticate, another_organization, permission_denied.';

COMMENT ON FUNCTION tenancy._check_operator_role(regclass, name) IS
    'Internal: refuses (22023) an operator role that does not exist, that the tenant floor would bind anyway, or that is an application''s.';

COMMENT ON FUNCTION tenancy._check_token_caller(text, text, jsonb) IS
'May the caller have a token issued to this user? Service access: to anybody; application: to the identity''s own user, unless an API key is all it showed, or its token is no longer good. Returns the claims that count: the service role''s, else those of the user''s own sealed token where a provider issued it, else NULL. Errors: PT401 not_authenticated, PT401 and PT403 as authenticate, PT403 api_key_identity, another_user, 42501 claims_not_allowed.';

COMMENT ON FUNCTION tenancy._claim_batch_id(text, uuid, boolean) IS
'Keeps a batch id that somebody named for this transaction, and refuses one that another tenant''s batch has, unless ids may be shared. Error: PT409 batch_id_taken.';

COMMENT ON FUNCTION tenancy._delete_batch(text, uuid, integer) IS
    'Internal: deletes up to batch_size rows of a tenant, children of foreign keys first, those of tables whose keys point at each other all at once, and returns the receipt so far.';

COMMENT ON FUNCTION tenancy._directory_role() IS
'The role that the directory gives the identity''s user in its organization, by what is committed at this moment; NULL without one. Errors: PT403 as authenticate.';

COMMENT ON FUNCTION tenancy._extension_origin() IS
'The extension token that the identity came from, itself or by what it has issued, and whether it is live by what is committed now; no row for any other identity. A token of 0.1.0 does not say where it came from: there its session does, while the extension token has a row.';

COMMENT ON FUNCTION tenancy._health_access() IS
'Checks "row_security" (every table enabled, forced, with a policy), "access_roles" (the roles of access_grants exist, hold what they are to have and are bound by policies) and "owner" (only where it is bound itself).';

COMMENT ON FUNCTION tenancy._holds_access(oid, text) IS
'Whether this role, and not another that had its name, was given this access or one that includes it: what grant_access gave stands in the privileges by the role''s own id, through renaming and restoring. One function that the access opens tells.';

COMMENT ON FUNCTION tenancy._holds_now(text) IS
'Whether the identity holds a permission of a role: as has_permission says, and where its token was issued here also by its role in the directory, as committed now.';

COMMENT ON FUNCTION tenancy._identity_expired() IS
'Whether the transaction had an identity that ended, because its token expired or because it was cleared: it may not act as if it had none.';

COMMENT ON FUNCTION tenancy._is_batch_of_another_tenant(text, uuid) IS
'Whether another tenant has a batch of that id, by what is committed at this moment.';

COMMENT ON FUNCTION tenancy._is_revoked(text, text, text, text, timestamptz) IS
'Whether revoke_session named the session, or revoke_user the user at or after that time, by what is committed at this moment.';

COMMENT ON FUNCTION tenancy._isolation_roles(regclass, name) IS
    'Internal: the roles that the floor and the access policy of a table are TO; NULL: there is none beside the operator role.';

COMMENT ON FUNCTION tenancy._isolation_tree(regclass) IS
    'Internal: a table with all its partitions or inheritance children, parents first, temporary ones left out.';

COMMENT ON FUNCTION tenancy._issue_pair(uuid, text, text, text, text, text, uuid, timestamptz) IS
'Mints an access and a refresh token of a family and stores the latter''s hash, in the place of the token it replaces (NULL: the first). ends_at: the family''s end, which no refresh token outlives. The caller holds the family''s row lock.';

COMMENT ON FUNCTION tenancy._issue_token(text, integer, text, text, jsonb, jsonb, boolean, text) IS
'What issue_access_token and issue_dashboard_token share. What an extension token has issued is renewed while that token is live, so it lasts a day beyond it at most. Errors: as they.';

COMMENT ON FUNCTION tenancy._issued_here() IS
'Whether the identity came from a token that a signing profile''s key signed; false without a live identity.';

COMMENT ON FUNCTION tenancy._keep_organizations_out(text) IS
    'Internal: gives the names of a tenant''s organizations suspended entries of their own, before the organizations are deleted.';

COMMENT ON FUNCTION tenancy._key_lapses() IS
'Whether the identity came from an API key that has an end, having been rotated, by what is committed at this moment.';

COMMENT ON FUNCTION tenancy._library_version() IS 'The version of the library (the shared object) this backend has loaded. Error: 0A000 encoding_not_utf8, as of every function of the library.';

COMMENT ON FUNCTION tenancy._lock_pools(uuid[]) IS
'Locks these pools, as far as there are any, in the order of their ids, for whoever will charge several one by one. What is due in them is not settled.';

COMMENT ON FUNCTION tenancy._lock_schema() IS
'Makes install, migrate and uninstall wait for each other until the end of the transaction. Error: 42501 schema_owned_by_another, where the schema or something in it belongs to neither the extension''s owner nor a superuser.';

COMMENT ON FUNCTION tenancy._may_give_role(text) IS
'Whether the identity holds everything that a role permits, as _holds_now says.';

COMMENT ON FUNCTION tenancy._mint_token(text, text, text, integer, text, text, jsonb, jsonb, boolean, uuid, text, text) IS
'Signs a token of a kind (the claim type), good for lifetime seconds, with the one claim schema: iss, aud, sub, type, iat, exp, jti, session_id, email and the nine organization claims, always present, NULL where there is nothing. namespace: the user''s, which must be that of the profile''s issuer. Attribution comes from the directory. origin: the extension token it is issued on the strength of, as claim extension_token_id; NULL: none. tenant_id: the tenant its bearer will be in. Errors: PT403 no_seat, PT404 USER_NOT_FOUND, 22023, 55000 profile_moved and those of _sign_token.';

COMMENT ON FUNCTION tenancy._obligations_credits(text) IS
'How many pools of a tenant still hold credits, how many are available in them and how many are held, without what has expired; NULL: none.';

COMMENT ON FUNCTION tenancy._own_claims(text, text) IS
'The sealed claims, where they are this user''s and a provider''s; else NULL.';

COMMENT ON FUNCTION tenancy._payers_of(jsonb) IS
'Organizations and users that the consumptions in an array of envelopes name, by their ids, which are those of their pools.';

COMMENT ON FUNCTION tenancy._publish_credit_alert(uuid, jsonb) IS
'Publishes tenancy.credit.balance.low.v1 for a pool: alert has threshold, available, pool and seq, and the correlation_id of what crossed it, if any; the owner''s ids are added.';

COMMENT ON FUNCTION tenancy._require_batch_organization(text) IS
'An identity works on batches of its own organization, or of none where it has none. Error: PT403 batch_of_another_organization.';

COMMENT ON FUNCTION tenancy._require_good_identity() IS
'Judges the identity''s token or API key again, by what is committed at this moment: its key and audience, revocations, membership, the tenant''s status. Whatever gives its bearer something that lasts calls it. Errors: those of authenticate and authenticate_api_key.';

COMMENT ON FUNCTION tenancy._require_lasting_key() IS
'Refuses an identity by an API key in its grace, by what is committed now: it would outlive itself in the keys it makes; service and operator access is not refused. Error: PT403 lapsing_key.';

COMMENT ON FUNCTION tenancy._require_sign_in(text[]) IS
'Refuses an identity that came from an extension token, or from what one has issued, unless the caller has one of these accesses. Error: PT403 extension_token_identity.';

COMMENT ON FUNCTION tenancy._revoke_ours(text, text, timestamptz) IS
'Revokes a token or a session under every issuer that signing profiles sign for: a session goes on in the tokens that its bearer is issued, whatever the profile.';

COMMENT ON FUNCTION tenancy._sign_token(text, text) IS
'Signs claims, a JSON object, with the key of a signing profile, if that key and its algorithm are good for the issuer, and if nothing but the claims of our schema stands where the issuer''s claim_paths look. Errors: 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed, master_key_missing; 22023 reserved_claim, invalid_extra, token_too_large.';

COMMENT ON FUNCTION tenancy._tables_above(oid[], oid) IS
    'Internal: for each table itself and those its rows can lead to, by foreign keys and, for ours, through the table of the pools.';

COMMENT ON FUNCTION tenancy._take_token_limit(uuid, text) IS
'Raises PT429 RATE_LIMIT_EXCEEDED where the user has had 5 tokens generated, or 3 refreshed, within the hour: counted rows, after the caller has written the user''s row.';

COMMENT ON FUNCTION tenancy._verify_rest(uuid) IS
'The part of verify_ledger about whose the rows of a pool are, caps, idempotency keys, conservation (grants less charges, plus refunds, less what expired, are the balances) and the hash chain.';

COMMENT ON FUNCTION tenancy.add_issuer(text, text[], text, text, text[], interval, text[], jsonb, boolean, text[]) IS
'Believes the tokens of an issuer (RFC 7519 iss), or changes how they are read; true where it was new. audiences: a token''s aud must name one of them; an empty array is for an issuer whose tokens carry no aud (Clerk''s sessions: then name authorized_parties). profile: generic, clerk, auth0, workos, supabase or pooled. namespace: where its subjects and organizations live. algorithms: allowed ones, NULL for whatever the keys are for. leeway: clock skew, whole seconds up to 300. token_types: allowed kinds, NULL for access tokens. claim_paths: overrides, for each field a list of claim paths. authorized_parties: allowed azp values, NULL for any. Errors: 22023; PT409 issuer_not_pooled, audience_in_use (a signing profile signs under it).';

COMMENT ON FUNCTION tenancy.add_signing_profile(text, text, text, text, text, bytea, interval) IS
'Makes a signing profile, or gives it a new key or audience, and returns the kid. Its tokens authenticate here from then on: issuer is configured with profile pooled and this audience, the key is added to it. algorithm: EdDSA or ES256 for new users, HS256 for contract S; RS256 and the rest of tenancy.add_key''s work too. key: the secret itself for HS256 (32 bytes or more), PKCS#8, PKCS#1 or SEC 1 as DER or PEM for the others; NULL makes one inside, which never leaves. Sealed under the master key. refresh_max_age: how long after signing in refresh tokens can be exchanged at most, however often they are (90 days unless told otherwise; NULL keeps what was set). A new key_id rotates: what the old key signed still verifies until tenancy.retire_key(issuer, kid). Errors: 22023 with the reason; PT409 duplicate_kid, issuer_not_pooled, algorithm_not_allowed; 55000 signing_key_retired, and where the master key is missing.';

COMMENT ON FUNCTION tenancy.adjust_credits(numeric, text, text, text, text) IS
'Corrects a pool by hand and returns its new balance: a positive amount is granted, a negative one is taken from what is available. reason: why, kept in the ledger. A whole amount below 2147483648 leaves a row in credit_operations too (metric manual_adjustment, amount and cost without the sign, which the ledger row has; user_id empty where an organization''s pool is adjusted without an identity). Errors: PT402 insufficient_credits; PT404 organization_not_found, user_not_found; 22023, 22003, 55000.';

COMMENT ON FUNCTION tenancy.assign_essay(uuid, text, text) IS
'Fills a slot of a batch with a text. Returns false where it holds that text already. Errors: PT404 batch_not_found, essay_not_found; PT403 batch_of_another_organization; PT409 slot_taken; PT401; 22023; 55000.';

COMMENT ON FUNCTION tenancy.complete_authorization(text, text, text, text) IS
'Exchanges an authorization code for an access token (24 hours) and a refresh token (30 days). status: issued, or invalid_grant (RFC 6749 §5.2) with NULL tokens for a code that is unknown, used, expired, or presented with another verifier, state or redirect_uri; which it was stands in token_audit_logs. Presenting a code uses it up; presenting a used one revokes what the first use gave. Raises nothing for these, so commit in either case. A provider''s session that is revoked between start and completion does not stop it: a code is bound to the user and to no session, so call revoke_user, which does. expires_at: the access token''s. Errors: 22023 for NULL, 55000 (profile_moved: the code''s signing profile is in another namespace by now).';

COMMENT ON FUNCTION tenancy.consume_event(jsonb) IS
'Takes an event envelope of contract H, or an array of them, and answers one row for each, in order: status processed, duplicate (taken before; result is the first answer) or rejected (result.reason). Each event id counts once within its tenant. metadata.namespace is the namespace of its user and organization, where they are not in the empty one. ResourceConsumptionV1 is charged by consume_credits, org first, and credit.balance.changed and usage.recorded are published; BatchEssaysRegistered registers the batch, unless its id is that of another tenant''s (reason batch_id_taken). A business denial is processed, with result.success false. A bad envelope is rejected and does not raise; nor does one that is not younger than what trim_inbox() removed (reason outside_dedup_window). Each batch keeps a lock until the transaction ends. Errors: PT403 identity_in_force, 22023 (more than 10000), 53200 (more batches in one transaction than max_locks_per_transaction leaves room for), 55000.';

COMMENT ON FUNCTION tenancy.create_api_key(text, text, text, text) IS
'Makes an API key of an organization: pgt_, 32 random bytes as base64url, a checksum. Only its SHA-256 is kept; show it once. user_id: whom it acts as; NULL: as itself, by key_id. A key made for a member of the organization ends with the membership. role: viewer (read_config), operator (and manage_modules), admin (and write_config, manage_keys, read_audit) or owner (everything). A role with application access needs an identity of that organization with permission manage_keys and gives no more than it holds (by a token issued here: than its role in the directory has now), and not by an extension token or what one has issued; its token or key is judged again, as at authenticate, and a user it names must be a member in the directory. Errors: PT401, PT403 permission_denied, another_organization, another_user, lapsing_key, extension_token_identity, not_a_member, PT404 organization_not_found, 22023, 55000.';

COMMENT ON FUNCTION tenancy.grant_access(regrole, text) IS
'Gives a role one access and returns how many functions it may call now. access: application (authenticate, accessors, spend, own rows), service (application''s, and acts for users), operator (application''s, and administers), metrics (figures only). A role may have several. Recorded in tenancy.access_grants by the role''s name and granted again by migrate(); after ALTER ROLE … RENAME grant it again. What is recorded for another role that had the name before is forgotten. Other privileges the role has in schema tenancy are taken. For the extension''s owner and superusers. Errors: 22023 invalid_argument, role_not_found, owner_role, superuser_role, bypassrls_role; 55000; 42501.';

COMMENT ON FUNCTION tenancy.grant_credits(numeric, text, text, text, timestamptz, integer, text, timestamptz, numeric, numeric, timestamptz, text) IS
'Gives amount credits to an organization''s pool (org_id) or a user''s own (user_id) and returns the grant''s id. Grants burn by priority (lowest first), then expiry, then creation. expires_at: what remains then leaves the pool; NULL never. effective_at: from when on it can be spent; NULL now. rollover_max, rollover_until: at expiry up to so much of what remains becomes a new grant until then. cost_basis: what one credit cost. idempotency_key: the same grant again returns the first one''s id. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; PT409 idempotency_conflict; 22023 invalid_amount, invalid_argument; 22003 amount_out_of_range, balance_out_of_range (balance, grants to come and this one are more than 999999999999.999999); 55000.';

COMMENT ON FUNCTION tenancy.install() IS
'Makes the tables, views, policies and grants of pg_tenancy as ordinary objects of the extension''s owner, and returns the version. A second call changes nothing; where tables of an older version exist it brings them up to date. For the extension''s owner and superusers. Errors: 42501 (schema_owned_by_another: the schema, or something in it, belongs to neither the extension''s owner nor a superuser), 0A000 encoding_not_utf8, 55000 extension_behind, library_behind, schema_ahead, migration_changed.';

COMMENT ON FUNCTION tenancy.issue_access_token(text, text, jsonb, jsonb, boolean, text) IS
'Issues an access token, good for 24 hours (claim type: access). org_id: the organization the user asks for; without a membership and an active seat there the token is personal (organization claims NULL), or with require_org refused. claims: verified claims that show memberships, from a role with service access only; for anyone else the claims of the authenticated token count, if a provider issued it (by one of our own the directory decides), and user_id must be the identity''s, which an API key does not give; its token is judged again, as at authenticate. extra: more claims; it never overrides ours, and without service access it names no right and nothing that is to be proven (role, scope, groups, plan_type, email_verified, phone_number, any name with '':'' or ''/'', …). For the bearer of an extension token, or of what one has issued, only while that extension token is live. profile: the signing profile; any caller may name any. Errors: PT401, PT403 as authenticate, no_seat, another_user, api_key_identity, extension_token_ended, PT404 USER_NOT_FOUND, 22023 reserved_claim, invalid_extra, token_too_large, 42501 claims_not_allowed, 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed.';

COMMENT ON FUNCTION tenancy.issue_extension_token(text, text, jsonb, text, text, text, jsonb, boolean, text) IS
'Issues a long-lived token for an editor extension: 120 days (claim type: extension_long_lived). Only its SHA-256 is kept; show it once. name: what the user calls it. device and address: kept sealed under the master key. The other parameters as issue_access_token. A role without service access gets none for an identity that came from an extension token. Errors: PT403 extension_token_identity, PT409 TOKEN_LIMIT_EXCEEDED (five active), PT429 RATE_LIMIT_EXCEEDED (five an hour), 40001 (above READ COMMITTED, where another session issued meanwhile), and those of issue_access_token.';

COMMENT ON FUNCTION tenancy.list_extension_tokens(text, text) IS
'A user''s live long-lived tokens, to show and to revoke them by token_id; profile says in whose namespace the user is. A role without service access lists the authenticated user''s own only, and nothing by an API key. Errors: PT401, PT403 another_user, api_key_identity, 22023, 55000.';

COMMENT ON FUNCTION tenancy.migrate() IS
'Brings the tables to the version this code expects, grants again what tenancy.access_grants records to the roles of these names that still hold something in schema tenancy (another role of the same name gets a warning and nothing), and returns the version. Run it after ALTER EXTENSION pg_tenancy UPDATE, and after a restored dump (which leaves USAGE on row types open). For the extension''s owner and superusers. Errors: 42501 (as install), 0A000, 55000 schema_missing, extension_behind, library_behind, schema_ahead, migration_changed.';

COMMENT ON FUNCTION tenancy.protect_table(regclass, name, name, boolean, name, boolean) IS
$$Isolates a table by tenant: adds what is missing of the tenant column (text, uuid or bigint), its default from the identity, NOT NULL, an index that leads with it, row-level security enabled and forced, a restrictive tenant floor and a permissive access policy; takes TRUNCATE, REFERENCES and TRIGGER from every role but the owner. With composite_keys the tenant also leads every unique key and foreign key, from and to the table; without, those that lack it are named in a NOTICE. Partitions and children follow. Returns the statements it ran, or with dry_run would run; none the second time. The caller must own the table.
Errors: 42501 not the owner; 42809 not a table; 0A000 a foreign, temporary or extension's table; 22023 a column that does not fit, an operator role that the floor would bind or that is an application's, rows without a tenant (with their number), a foreign key that cannot carry the tenant yet.
Source: isolation.md, 9, 15, 23, 25, 26, 39, 41.$$;

COMMENT ON FUNCTION tenancy.publish_event(text, jsonb, text, text, jsonb) IS
'Publishes an event in the caller''s transaction and returns its id. It is attributed to the identity: a user_id or org_id in data or metadata must equal it; without an identity the service role names them there. Both are written into the envelope''s metadata, with their namespace unless it is empty. data of an event of contract H are checked. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch, reserved_event_type (events of consumption, and whatever begins with tenancy. or huleedu.entitlements.); 22023; 55000.';

COMMENT ON FUNCTION tenancy.refresh_access_token(text) IS
'Exchanges a refresh token for a new access token (24 hours) and a new refresh token (30 days, and never beyond the signing profile''s refresh_max_age after signing in); organization claims are resolved anew. status: refreshed; grace (the token was exchanged within the last ten seconds and its successor is still unused: an access token, no refresh token); reused (it was exchanged before: the whole family and its access tokens are revoked from this commit on); expired; revoked; invalid (unknown or altered). Never raises for these, so commit in every case. expires_at: the access token''s. Error: 55000 (profile_moved: its signing profile is in another namespace by now).';

COMMENT ON FUNCTION tenancy.refresh_extension_token(text) IS
'Exchanges a long-lived token in its last 30 days for a new one of 120 days and revokes it, in one transaction. Organization claims are resolved anew from the directory. What the old one has issued is good for its day and not renewed. Errors: PT422 TOO_EARLY_TO_REFRESH, PT429 RATE_LIMIT_EXCEEDED (three an hour), 40001, PT404 NO_ACTIVE_TOKEN, USER_NOT_FOUND, PT401 as validate_extension_token, 55000 (profile_moved: its signing profile is in another namespace by now).';

COMMENT ON FUNCTION tenancy.register_batch(jsonb, uuid) IS
'Registers a batch (request: BatchRegistrationRequestV1) with new essay ids, and publishes BatchEssaysRegistered in the same transaction. User and organization are the identity''s: a request that names others is refused; without an identity the service role names them in the request. known_batch_id: an id of the caller''s making; one that is registered already changes nothing and answers status already_registered. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch; PT409 batch_id_taken (from an application, where another tenant''s batch has the id); 22023 invalid_request; 55000.';

COMMENT ON FUNCTION tenancy.resolve_org_membership(text, text, jsonb) IS
'The role of a user in an organization and where it was found: source claims (the organizations map, then the organization claim of the issuer''s profile; a member without a named role is org:member) or directory. No row: not a member. claims: verified claims of that user, for the service role; left out, the sealed claims count where they are the user''s and a provider''s, not this database''s own. Errors: 22023 invalid_argument, invalid_claims; 55000. Contract S, attribution.';

COMMENT ON FUNCTION tenancy.revoke_access(regrole, text) IS
'Takes one access from a role, keeps what its other recorded accesses give and nothing else, and returns whether it had been granted. Accesses are recorded by name: of a role that was renamed since, nothing is recorded, so everything it had is taken. The owner''s rights stay. For the extension''s owner and superusers. Errors: 22023, 55000, 42501.';

COMMENT ON FUNCTION tenancy.revoke_extension_token(uuid) IS
'Revokes a long-lived token, for validate_extension_token and authenticate alike, and the access and dashboard tokens issued to its bearer, whatever their signing profile and also where it was refreshed before; true where it was live. A role without service access can revoke the authenticated user''s own only; any other token is answered false. For a token without a row (its transaction was rolled back) service access records the revocation all the same, and is answered false. Errors: 22023, PT403 api_key_identity (an API key revokes none), 55000.';

COMMENT ON FUNCTION tenancy.revoke_refresh_token(text) IS
'Signs out (RFC 7009): revokes the family of a refresh token, any of its tokens will do, and the access tokens it gave, with what those were issued under any signing profile; false where there was nothing to revoke. Error: 55000.';

COMMENT ON FUNCTION tenancy.rotate_api_key(uuid, interval) IS
'Makes a new key with the same rights; the old one authenticates until old_valid_until (grace, 7 days unless told otherwise) and not a moment longer. A role without service or operator access rotates keys without a user and its own user''s only, and none by an extension token or what one has issued. Errors: PT422 not_active (also where the key''s user was revoked since it was made), PT404 api_key_not_found, PT401, PT403 another_user, lapsing_key, extension_token_identity, permission_denied, 22023, 55000.';

COMMENT ON FUNCTION tenancy.set_rate_limit(text, integer, interval, integer, text) IS
'Sets how fast something may be done: max_requests in each period, at most burst at once (default: max_requests). tenant_id: for that tenant; without: for every tenant that has none of its own. Within any time t no more than burst + max_requests × t / period are admitted. Of a burst that would take more than 146,000 years to come back, as many are admitted at once as come back in that time. Returns whether it changed. Errors: 22023, 55000.';

COMMENT ON FUNCTION tenancy.start_authorization(text, text, text, text, text, text) IS
'Gives a signed-in user an authorization code for a client that has no secret (PKCE, RFC 7636): ten minutes, single use, bound to user, organization, challenge, state and redirect_uri. code_challenge: base64url(SHA-256(code_verifier)), the only method. A role without service access can start for the authenticated user only, and not by an API key or an extension token. Errors: 22023 invalid_code_challenge, invalid_state (16 characters or more), invalid_redirect_uri; PT401, PT403 as authenticate, another_user, api_key_identity, extension_token_identity, PT404 USER_NOT_FOUND, 55000.';

COMMENT ON FUNCTION tenancy.sweep_credits(integer) IS
'Settles up to max_pools pools in which a grant or hold has expired or a grant became effective, leaving out those that are locked and, with a warning, those that cannot be settled (balance_out_of_range, ledger_inconsistent), and returns how many. Nothing depends on it: whoever charges a pool settles it first. Errors: 55000.';

COMMENT ON FUNCTION tenancy.uninstall(text) IS
'Drops every table and view that install() and migrate() made, with all rows, takes back what grant_access() gave, and returns how many tables and views went. confirm: the name of this database. The functions stay. Refused (2BP01) while an object of your own depends on a table. For the extension''s owner and superusers. Errors: 22023 not_confirmed, 55000 schema_missing, 42501 (as install).';

COMMENT ON PROCEDURE tenancy.delete_tenant(text, boolean, integer, jsonb) IS
$$Deletes a tenant's rows in every protected table and in tenancy's own, the ledger included, children of foreign keys first, batch_size rows a transaction (rows that point at each other, in one table or in several of one owner, go all at once), and returns the receipt: {"tenant_id", "deletion", "deleted": {table: rows}, "rows", "done"}, which is also kept in tenancy.tenant_deletions. Interrupted, it goes on with the next CALL. Audit logs and receipts stay, and the suspended tenant's entry, which keeps its old tokens out, as entries of its organizations' names do. CALL it outside a transaction.
Errors: PT422 tenant_not_suspended, obligations_open (credits or holds), both waived by force => true; 22023; 23503 where rows of another table point at the tenant's; 2D000 inside a transaction.$$;

REVOKE ALL ON ROUTINE tenancy._claim_batch_id FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._directory_role FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._extension_origin FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._holds_access FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._holds_now FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._is_batch_of_another_tenant FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._is_revoked FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._issue_pair FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._issued_here FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._keep_organizations_out FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._key_lapses FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._lock_pools FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._mint_token FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._payers_of FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._require_batch_organization FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._require_good_identity FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._require_lasting_key FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._require_sign_in FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._revoke_ours FROM PUBLIC;

REVOKE ALL ON ROUTINE tenancy._tables_above FROM PUBLIC;

DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
END
$$;
