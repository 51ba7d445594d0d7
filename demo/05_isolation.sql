\echo
\echo :bold'5. Two tenants, one table':plain
\echo
\connect - postgres
\set ECHO queries
CREATE TABLE essays (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON essays TO web;
SELECT * FROM tenancy.protect_table('essays') AS "what protect_table did";

\set ECHO none
\connect - web
\echo '-- Ada of Acme'
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'token') AS user_id;
INSERT INTO essays (title) VALUES ('On engines'), ('On looms');
SELECT * FROM essays ORDER BY id;
\set ECHO none
SELECT count(*) = 2 AND bool_and(tenant_id = 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY') AS acme_sees_its_own FROM essays \gset
\set ECHO queries
COMMIT;
\set ECHO none
\echo '-- Hank of Globex'
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'globex_token') AS user_id;
INSERT INTO essays (title) VALUES ('On doomsday devices');
SELECT * FROM essays ORDER BY id;
UPDATE essays SET title = 'mine now' WHERE title LIKE 'On%' RETURNING *;
\set ECHO none
SELECT count(*) = 1 AND bool_and(tenant_id = 'org_globex') AS globex_sees_its_own FROM essays \gset
\set ECHO queries
COMMIT;

SELECT count(*) AS "rows without an identity" FROM essays;

\set ECHO none
SELECT count(*) = 0 AS nobody_sees_nothing FROM essays \gset
\connect - postgres
SELECT demo.shows(
    :'acme_sees_its_own' AND :'globex_sees_its_own' AND :'nobody_sees_nothing'
        AND (SELECT count(*) = 2 FROM essays WHERE tenant_id = 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY' AND title LIKE 'On%'),
    'The same queries, no WHERE: each tenant reads and changes its own rows only; without an identity there are none.') AS shows \gset
\echo '=>' :shows
