-- Errors and the checks of arguments: what every other file of this folder is built on.

-- One way to raise, so that every error carries an SQLSTATE, a DETAIL a program reads and a HINT a person follows.
CREATE FUNCTION tenancy._raise(
    sqlstate text,
    reason text,
    message text,
    hint text,
    detail jsonb DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _raise.sqlstate LIKE 'PT4__' THEN
        PERFORM tenancy._count_refusal(_raise.sqlstate, _raise.reason);
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = _raise.sqlstate,
        MESSAGE = _raise.message,
        DETAIL = (pg_catalog.jsonb_build_object('reason', _raise.reason)
                  || coalesce(_raise.detail, '{}'::jsonb))::text,
        HINT = coalesce(_raise.hint, '');
END
$$;

COMMENT ON FUNCTION tenancy._raise(text, text, text, text, jsonb) IS
'Raises an error of this extension. sqlstate: PT + an HTTP status for an outcome of the business, a standard code for a mistake of the caller. reason: a stable word in snake_case, the "reason" of the DETAIL, which is a JSON object; detail adds members to it. Never pass a token, a secret or another tenant''s data.';

CREATE FUNCTION tenancy._require_id(value text, parameter text, minted boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problem text;
BEGIN
    problem := CASE
        WHEN _require_id.value IS NULL THEN 'must not be NULL'
        WHEN _require_id.value !~ '\S' THEN 'must not be empty'
        WHEN length(_require_id.value) > 255 THEN 'must have at most 255 characters'
        WHEN _require_id.value ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'must not contain control characters'
        -- '::' parts a namespace, or the word user, from an id: an id that holds it could pass for another's.
        WHEN _require_id.minted AND strpos(_require_id.value, '::') > 0 THEN 'must not contain "::"'
        -- Claims are trimmed when they are read: a padded id could never be matched by a token.
        WHEN _require_id.minted AND _require_id.value ~ '^\s|\s$' THEN 'must not begin or end with white space'
    END;
    IF problem IS NOT NULL THEN
        PERFORM tenancy._raise(
            '22023', 'invalid_argument',
            format('%s %s', _require_id.parameter, problem),
            format('Pass %s as the text that stands in tokens and events.', _require_id.parameter),
            jsonb_build_object('parameter', _require_id.parameter));
    END IF;
    RETURN _require_id.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_id(text, text, boolean) IS
'Returns value, an external id, if it is one: not NULL, not blank, at most 255 characters, no control character; with minted (where an id is registered, not looked up) also no "::" and no white space at its ends. Error: 22023 invalid_argument, which names the parameter.';

CREATE FUNCTION tenancy._require_text(value text, parameter text, max_length integer) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problem text;
BEGIN
    problem := CASE
        WHEN _require_text.value IS NULL THEN NULL
        WHEN _require_text.value !~ '\S' THEN 'must not be empty'
        WHEN length(_require_text.value) > _require_text.max_length
            THEN format('must have at most %s characters', _require_text.max_length)
        WHEN _require_text.value ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'must not contain control characters'
    END;
    IF problem IS NOT NULL THEN
        PERFORM tenancy._raise(
            '22023', 'invalid_argument',
            format('%s %s', _require_text.parameter, problem),
            'Pass a short line of text, or NULL where the function allows it.',
            jsonb_build_object('parameter', _require_text.parameter));
    END IF;
    RETURN _require_text.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_text(text, text, integer) IS
'Returns value, a label, if it is NULL or a line of at most max_length characters, not blank and without control characters. Error: 22023 invalid_argument, which names the parameter.';

CREATE FUNCTION tenancy._require_value(value anyelement, parameter text) RETURNS anyelement
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _require_value.value IS NULL THEN
        PERFORM tenancy._raise(
            '22023', 'invalid_argument',
            format('%s must not be NULL', _require_value.parameter),
            format('Pass a value for %s.', _require_value.parameter),
            jsonb_build_object('parameter', _require_value.parameter));
    END IF;
    RETURN _require_value.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_value(anyelement, text) IS
'Returns value if it is not NULL. Error: 22023 invalid_argument, which names the parameter.';

CREATE FUNCTION tenancy._require_one_of(value text, parameter text, allowed text[]) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _require_one_of.value IS NULL OR NOT (_require_one_of.value = ANY (_require_one_of.allowed)) THEN
        PERFORM tenancy._raise(
            '22023', 'invalid_argument',
            format('%s must be one of: %s', _require_one_of.parameter,
                   array_to_string(_require_one_of.allowed, ', ')),
            'The value is compared as it stands, in lower case.',
            jsonb_build_object('parameter', _require_one_of.parameter,
                               'allowed', to_jsonb(_require_one_of.allowed)));
    END IF;
    RETURN _require_one_of.value;
END
$$;

COMMENT ON FUNCTION tenancy._require_one_of(text, text, text[]) IS
'Returns value if it is one of the allowed words. Error: 22023 invalid_argument, which names the parameter and the words.';

CREATE FUNCTION tenancy._require_namespace(namespace text) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- No colon at all: with 'a' and 'a:' both allowed, 'a' || '::' || ':b' and 'a:' || '::' || 'b' would be one tenant.
    IF _require_namespace.namespace IS NULL
       OR _require_namespace.namespace !~ '^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$'
       -- 'user::x' is the personal tenant of user x.
       OR _require_namespace.namespace = 'user'
    THEN
        PERFORM tenancy._raise(
            '22023', 'invalid_argument',
            'namespace must be empty, or letters, digits, ".", "_" and "-" (at most 63), and not the word user',
            'Pass the namespace that add_issuer was given; the default namespace is the empty string.',
            jsonb_build_object('parameter', 'namespace'));
    END IF;
    RETURN _require_namespace.namespace;
END
$$;

COMMENT ON FUNCTION tenancy._require_namespace(text) IS
'Returns namespace if it can be one: empty (the default), or 1 to 63 letters, digits, ".", "_" and "-", beginning with a letter or digit, and not "user", which begins the ids of personal tenants. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy._namespace(namespace text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._require_namespace(coalesce(_namespace.namespace, tenancy.identity_namespace(), ''));
END
$$;

COMMENT ON FUNCTION tenancy._namespace(text) IS
'The namespace a call with bare ids means: the one it names, else the identity''s, else the empty one. Error: 22023 invalid_argument for what cannot be a namespace.';

CREATE FUNCTION tenancy._tenant_name(namespace text, id text) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        WHEN _tenant_name.namespace = '' THEN _tenant_name.id
        ELSE _tenant_name.namespace || '::' || _tenant_name.id
    END;
END
$$;

COMMENT ON FUNCTION tenancy._tenant_name(text, text) IS
'The tenant id of an id of a namespace: the id itself in the empty namespace, else namespace::id, so that a tenant id is unique over the whole database.';
