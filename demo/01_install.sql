\echo
\echo :bold'1. The extension, its tables, and three roles':plain
\echo
\set ECHO queries
CREATE EXTENSION pg_tenancy;
SELECT tenancy.install() AS version \gset
\set ECHO none
SELECT :'version' AS version;
\set ECHO queries
CREATE ROLE web LOGIN;     -- the application: authenticates people, sees their rows
CREATE ROLE worker LOGIN;  -- a trusted service: charges on behalf of people
CREATE ROLE admin LOGIN;   -- an operator: organizations, seats, credits
SELECT tenancy.grant_access('web', 'application') IS NOT NULL AS web,
       tenancy.grant_access('worker', 'service') IS NOT NULL AS worker,
       tenancy.grant_access('admin', 'operator') IS NOT NULL AS admin;
SELECT tenancy.install_compat() IS NOT NULL AS compat;  -- public.deduct_credits_pooled, for clients that exist already

\set ECHO none
SELECT demo.shows(
    :'version' = (SELECT extversion FROM pg_extension WHERE extname = 'pg_tenancy')
        AND NOT EXISTS (
            SELECT FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.pronamespace = 'tenancy'::regnamespace AND a.grantee = 0),
    'The extension is code, install() made the tables; nothing in the schema tenancy is open to PUBLIC.') AS shows \gset
\echo
\echo '=>' :shows
