-- Not part of the story: how it is shown and checked.
-- What a reader sees is between \set ECHO queries and \set ECHO none. demo.shows() ends the demo
-- with an error when a step does not show what its line says.
\set ECHO none
\set ON_ERROR_STOP on
\pset footer off
\pset null 'NULL'
SET client_min_messages = warning;
CREATE SCHEMA demo;
CREATE FUNCTION demo.shows(ok boolean, line text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF ok IS NOT TRUE THEN
        RAISE EXCEPTION 'this step does not show what it says: %', line;
    END IF;
    RETURN line;
END $$;
GRANT USAGE ON SCHEMA demo TO PUBLIC;
RESET client_min_messages;
