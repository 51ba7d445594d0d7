-- :size keys more at the issuer.
\set ON_ERROR_STOP on
SELECT count(tenancy.add_secret('bench', 'k' || i, 'HS256', convert_to(repeat('another-secret-' || i, 3), 'UTF8')))
  FROM generate_series(2, :size) AS i \g /dev/null
VACUUM ANALYZE tenancy.issuer_keys;
