-- Helpers for testing policies of your own: psql -v ON_ERROR_STOP=1 -f tenancy_test.sql, as a superuser, in a database
-- for tests. Whoever may call them can be anybody, so production does not install them: they are no part of the extension.

DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'pg_tenancy is not installed in this database',
            HINT = 'CREATE EXTENSION pg_tenancy; SELECT tenancy.install();';
    END IF;
END
$$;

DROP SCHEMA IF EXISTS tenancy_test CASCADE;
CREATE SCHEMA tenancy_test;
COMMENT ON SCHEMA tenancy_test IS 'Helpers for testing policies. Not for production: whoever may call them can be anybody.';

CREATE FUNCTION tenancy_test.login_as(user_id text, org_id text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy.act_as(login_as.user_id, login_as.org_id, login_as.tenant_id, 'tenancy_test');
END;
$$;
COMMENT ON FUNCTION tenancy_test.login_as(text, text, text) IS
'Makes somebody the identity of this transaction, without a token and for any role. As in production it is set once a transaction: a second login is PT403, but after ROLLBACK TO a savepoint before the first.';

CREATE FUNCTION tenancy_test.logout() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN tenancy.clear_identity(); END; $$;
COMMENT ON FUNCTION tenancy_test.logout() IS 'Leaves the rest of the transaction without an identity.';

-- One transaction, many identities: the work is done in a subtransaction, which takes the identity back with it.
CREATE FUNCTION tenancy_test._rows_as(user_id text, org_id text, tenant_id text, query text, OUT answer jsonb, OUT failure text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    BEGIN
        IF _rows_as.user_id IS NOT NULL THEN
            PERFORM tenancy_test.login_as(_rows_as.user_id, _rows_as.org_id, _rows_as.tenant_id);
        END IF;
        IF _rows_as.query ~* '^\s*(select|with|values|table|insert|update|delete|merge)\y' AND _rows_as.query !~* '^\s*(insert|update|delete|merge)\y(?!.*\yreturning\y)' THEN
            EXECUTE format('WITH answered AS (%s) SELECT coalesce(jsonb_agg(to_jsonb(answered)), ''[]'') FROM answered', _rows_as.query) INTO answer;
        ELSE
            EXECUTE _rows_as.query;
            answer := '[]';
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'TN001', MESSAGE = 'taken back';
    EXCEPTION
        WHEN SQLSTATE 'TN001' THEN
            NULL;
        WHEN OTHERS THEN
            answer := NULL;
            failure := SQLSTATE;
    END;
END;
$$;
COMMENT ON FUNCTION tenancy_test._rows_as(text, text, text, text) IS 'Internal: runs a statement as somebody, takes its effects back, and gives its rows or its SQLSTATE.';

CREATE FUNCTION tenancy_test.rows_as(user_id text, org_id text, tenant_id text, query text) RETURNS SETOF jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    got record;
BEGIN
    SELECT * INTO got FROM tenancy_test._rows_as($1, $2, $3, $4);
    IF got.failure IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = got.failure, MESSAGE = pg_catalog.format('the query fails for %s', coalesce($3, $2, $1, 'nobody')),
            HINT = 'tenancy_test.error_as gives the SQLSTATE instead.';
    END IF;
    RETURN QUERY SELECT e FROM pg_catalog.jsonb_array_elements(got.answer) AS e;
END;
$$;
COMMENT ON FUNCTION tenancy_test.rows_as(text, text, text, text) IS
'The rows a query gives somebody (user_id NULL: nobody), one jsonb each, run with the rights of the current role. What it writes is taken back. Names in it are qualified.';

CREATE FUNCTION tenancy_test.count_as(user_id text, org_id text, tenant_id text, query text) RETURNS bigint
LANGUAGE sql
AS $$ SELECT count(*) FROM tenancy_test.rows_as($1, $2, $3, $4); $$;
COMMENT ON FUNCTION tenancy_test.count_as(text, text, text, text) IS 'How many rows a query gives somebody; of a write with RETURNING, how many it touches.';

CREATE FUNCTION tenancy_test.error_as(user_id text, org_id text, tenant_id text, statement text) RETURNS text
LANGUAGE sql
AS $$ SELECT failure FROM tenancy_test._rows_as($1, $2, $3, $4); $$;
COMMENT ON FUNCTION tenancy_test.error_as(text, text, text, text) IS 'The SQLSTATE a statement fails with for somebody; NULL where it does not.';

CREATE FUNCTION tenancy_test.findings(schema name) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT format('%s: %s on %s: %s', a.severity, a.rule, a.object, a.finding)
                   FROM tenancy.audit_isolation() a
                  WHERE starts_with(a.object, format('%I.', findings.schema));
END;
$$;
COMMENT ON FUNCTION tenancy_test.findings(name) IS 'What tenancy.audit_isolation finds in a schema, a line each; no row is what a test wants.';

GRANT USAGE ON SCHEMA tenancy_test TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenancy_test TO PUBLIC;
