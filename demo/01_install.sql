\echo
\echo :bold'1. The extension, its tables, and three roles':plain
\echo
\set ECHO queries
CREATE EXTENSION pg_tenancy;
SELECT tenancy.install();
\set ECHO none
\echo '-- web: the application; worker: a trusted service that charges for people; admin: an operator'
\set ECHO queries
CREATE ROLE web LOGIN;
CREATE ROLE worker LOGIN;
CREATE ROLE admin LOGIN;
SELECT tenancy.grant_access('web', 'application'),
       tenancy.grant_access('worker', 'service'),
       tenancy.grant_access('admin', 'operator');
\set ECHO none
\echo '-- public.deduct_credits_pooled, for clients that exist already'
\set ECHO queries
SELECT tenancy.install_compat();

\set ECHO none
SELECT demo.shows(
    to_regclass('tenancy.credit_transactions') IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.pronamespace = 'tenancy'::regnamespace AND a.grantee = 0),
    'The extension is code, install() made the tables; nothing in the schema tenancy is open to PUBLIC.') AS shows \gset
\echo '=>' :shows
