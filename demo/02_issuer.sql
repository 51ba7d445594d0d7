\echo
\echo :bold'2. Whose tokens are believed':plain
\echo
\set ECHO queries
SELECT tenancy.add_issuer(
    issuer => 'softcodes.ai',
    audiences => ARRAY['vscode-extension'],
    profile => 'pooled',
    token_types => ARRAY['extension_long_lived']);
SELECT tenancy.add_secret('softcodes.ai', 'demo-key', 'HS256', pg_read_binary_file('issuer.key'));
SELECT issuer, kid, algorithm, left(sealed_secret::text, 24) || '…' AS sealed_secret FROM tenancy.issuer_keys;

\set ECHO none
SELECT demo.shows(
    (SELECT count(*) = 1 FROM tenancy.issuer_keys WHERE issuer = 'softcodes.ai' AND algorithm = 'HS256')
        AND NOT EXISTS (
            SELECT FROM tenancy.issuer_keys k
            WHERE position(encode(pg_read_binary_file('issuer.key'), 'hex') IN to_jsonb(k)::text) > 0),
    'One issuer with one HS256 secret; the table holds it sealed under the master key, never in clear.') AS shows \gset
\echo '=>' :shows
