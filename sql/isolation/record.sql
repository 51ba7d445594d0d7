-- The record of what is protected. Protecting runs with the caller's rights and the record is not the caller's to
-- write, so these few functions run as the extension's owner. They believe nothing they are told: a row is written only
-- when the catalogs show that very protection, and taken away only under a policy that only the table's owner can make.

-- What is recorded, in the names of today: a policy follows a renamed column or role, and so do we.
CREATE FUNCTION tenancy._protections(root regclass DEFAULT NULL)
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
COMMENT ON FUNCTION tenancy._protections(regclass) IS
    'Internal: the recorded tables that exist, or one of them, each with its tenant column, organization column and operator role as they are called now.';

CREATE FUNCTION tenancy._policy_column(relation oid, policy name, other_than name) RETURNS name
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
COMMENT ON FUNCTION tenancy._policy_column(oid, name, name) IS
    'Internal: the one column that a policy looks at, but for other_than; NULL where it is none or several.';

CREATE FUNCTION tenancy._protection_of(table_name regclass)
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
COMMENT ON FUNCTION tenancy._protection_of(regclass) IS
    'Internal: how a table, or the parent it is a part of, is recorded as protected; no row where it is not.';

CREATE FUNCTION tenancy._record_protection(
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
COMMENT ON FUNCTION tenancy._record_protection(regclass, name, name, name) IS
    'Internal: records a protection that the catalogs show to stand; anything else is refused (42501, reason not_protected).';

CREATE FUNCTION tenancy._forget_protection(table_name regclass) RETURNS boolean
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
COMMENT ON FUNCTION tenancy._forget_protection(regclass) IS
    'Internal: takes a table off the record while its owner''s policy tenancy_release stands on it; else 42501.';

CREATE FUNCTION tenancy.forget_dropped_tables() RETURNS integer
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
COMMENT ON FUNCTION tenancy.forget_dropped_tables() IS
    'Takes tables that no longer exist off the record of protected tables and returns how many there were.';
