-- What a protected table looks like: names, expressions, roles. Catalog reads only; nothing here changes anything.

-- Fully qualified and quoted, whatever the caller's search_path.
CREATE FUNCTION tenancy._relation_name(relation regclass) RETURNS text
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
COMMENT ON FUNCTION tenancy._relation_name(regclass) IS
    'Internal: schema-qualified, quoted name of a relation, for building statements.';

-- The table itself, then its partitions or inheritance children, level by level: the order in which locks are taken.
CREATE FUNCTION tenancy._isolation_tree(root regclass)
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
COMMENT ON FUNCTION tenancy._isolation_tree(regclass) IS
    'Internal: a table with all its partitions or inheritance children, parents first, temporary ones left out.';

-- A bare accessor of the column's exact type: anything else costs the index, the pruning or the estimates.
CREATE FUNCTION tenancy._isolation_accessor(relation regclass, column_name name, kind text) RETURNS text
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
COMMENT ON FUNCTION tenancy._isolation_accessor(regclass, name, text) IS
    'Internal: the identity accessor that fits a column''s type (a column still to be made is text); NULL where none fits.';

-- Who holds what on a table and its children, the owners aside; grantee 0 is PUBLIC.
CREATE FUNCTION tenancy._isolation_grants(root regclass)
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
COMMENT ON FUNCTION tenancy._isolation_grants(regclass) IS
    'Internal: table and column privileges on a table and its children, by grantee, without the owners.';

-- With an operator role the floor cannot be TO PUBLIC (a restrictive policy would bind the operator too), so it names
-- every role the tables are granted to. A role granted later has no permissive policy either: it sees nothing
-- until protect_table is called again.
CREATE FUNCTION tenancy._isolation_roles(root regclass, operator_role name) RETURNS name[]
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
COMMENT ON FUNCTION tenancy._isolation_roles(regclass, name) IS
    'Internal: the roles that the floor and the access policy of a table are TO; NULL: there is none beside the operator role.';

-- The policies a protected table has, exactly. Expressions are written as pg_get_expr prints them.
CREATE FUNCTION tenancy._isolation_policies(
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
COMMENT ON FUNCTION tenancy._isolation_policies(regclass, name, name, name) IS
    'Internal: the policies that protect_table gives a table: a restrictive tenant floor, a permissive access policy, and the operator''s own.';

-- Is that policy there as it should be?
CREATE FUNCTION tenancy._policy_stands(relation regclass, policy name, permissive boolean, roles name[], expression text)
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
COMMENT ON FUNCTION tenancy._policy_stands(regclass, name, boolean, name[], text) IS
    'Internal: whether a table has that policy, for ALL commands, with exactly those roles and that expression.';
