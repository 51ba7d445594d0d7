-- The public objects, a line each: what an application may build on. Names that begin with an underscore are ours.
SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C")
FROM (
    SELECT format('%s tenancy.%s(%s) returns %s [%s]', CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.proname,
                  pg_get_function_arguments(p.oid), coalesce(pg_get_function_result(p.oid), 'nothing'), f.access)
      FROM pg_proc p
      LEFT JOIN tenancy._function_access() f ON to_regprocedure('tenancy.' || f.signature) = p.oid
     WHERE p.pronamespace = 'tenancy'::regnamespace AND p.proname NOT LIKE '\_%'
    UNION ALL
    SELECT format('type %s (%s)', t.oid::regtype,
                  (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                     FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
      FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0 AND coalesce(c.relkind, 'c') = 'c' AND t.typname NOT LIKE '\_%'
    UNION ALL
    SELECT format('%s %s column %s %s%s', CASE WHEN c.relkind IN ('v', 'm') THEN 'view' ELSE 'table' END, c.oid::regclass,
                  a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' ELSE '' END)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    UNION ALL
    SELECT format('setting %s %s, set by %s', s.name, s.vartype, s.context) FROM pg_settings s WHERE s.name LIKE 'tenancy.%'
) AS lines (line)
