-- Agent state: one JSON object for each conversation, bound to one user in one organization (contract G, AgentState).

CREATE FUNCTION tenancy._check_agent_state(state jsonb, conversation_id text) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kinds CONSTANT jsonb := '{
        "messages": ["array"], "tool_results": ["array"], "router_recommendation": ["object", "null"],
        "next_action": ["string", "null"], "error": ["string", "null"], "retry_count": ["number"],
        "conversation_id": ["string"], "user_id": ["string"], "metadata": ["object"], "org_id": ["string", "null"]}';
    field text;
    problem text;
BEGIN
    PERFORM tenancy._require_object(_check_agent_state.state, 'state', 1048576);
    SELECT k.key, format('must be: %s', array_to_string(ARRAY(SELECT jsonb_array_elements_text(k.value)), ' or '))
      INTO field, problem
      FROM jsonb_each(kinds) AS k
     WHERE NOT coalesce(k.value ? jsonb_typeof(_check_agent_state.state -> k.key), false)
     ORDER BY k.key
     LIMIT 1;
    IF field IS NULL AND _check_agent_state.state ->> 'next_action' NOT IN ('llm', 'tools', 'validate', 'end') THEN
        field := 'next_action';
        problem := 'must be llm, tools, validate, end or null';
    END IF;
    IF field IS NULL AND _check_agent_state.state ->> 'retry_count' !~ '^[0-9]{1,9}$' THEN
        field := 'retry_count';
        problem := 'must be a whole number, not negative';
    END IF;
    IF field IS NULL AND _check_agent_state.state ->> 'conversation_id' <> _check_agent_state.conversation_id THEN
        field := 'conversation_id';
        problem := 'is another conversation''s';
    END IF;
    IF field IS NOT NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_state', format('The state''s %s %s', field, problem),
            'Save the whole state as get_agent_state gave it, with your changes.',
            jsonb_build_object('parameter', 'state', 'field', field));
    END IF;
    IF _check_agent_state.state ->> 'user_id' <> tenancy.user_id()
       OR _check_agent_state.state ->> 'org_id' IS DISTINCT FROM tenancy.org_id()
    THEN
        PERFORM tenancy._raise('PT403', 'identity_mismatch', 'The state belongs to another user or organization',
            'Leave user_id and org_id as they are: they are the identity''s.', jsonb_build_object('parameter', 'state'));
    END IF;
    RETURN _check_agent_state.state;
END
$$;

COMMENT ON FUNCTION tenancy._check_agent_state(jsonb, text) IS
'Returns state if it has the contract''s ten fields, each of its kind, and is the identity''s own. Errors: 22023 invalid_argument, invalid_state; PT403 identity_mismatch; 54000 too_large.';

CREATE FUNCTION tenancy.create_agent_state(conversation_id text, metadata jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    initial jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require(tenancy.user_id(), 'no_user', 'user');
    PERFORM tenancy._require_id(create_agent_state.conversation_id, 'conversation_id');
    PERFORM tenancy._require_object(coalesce(create_agent_state.metadata, '{}'), 'metadata', 65536);
    initial := jsonb_build_object(
        'messages', '[]'::jsonb,
        'tool_results', '[]'::jsonb,
        'router_recommendation', NULL,
        'next_action', NULL,
        'error', NULL,
        'retry_count', 0,
        'conversation_id', create_agent_state.conversation_id,
        'user_id', tenancy.user_id(),
        'metadata', coalesce(create_agent_state.metadata, '{}'),
        'org_id', tenancy.org_id());
    INSERT INTO tenancy.agent_states AS s (tenant_id, namespace, org_id, user_id, conversation_id, state)
    VALUES (tenancy.tenant_id(), tenancy.identity_namespace(), coalesce(tenancy.org_id(), ''), tenancy.user_id(),
            create_agent_state.conversation_id, initial)
    ON CONFLICT ON CONSTRAINT agent_states_pkey DO NOTHING;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('PT409', 'conversation_exists', 'The user has a conversation of this id already',
            'Go on with it: SELECT tenancy.get_agent_state(conversation_id => …); or take another id.',
            jsonb_build_object('conversation_id', create_agent_state.conversation_id));
    END IF;
    RETURN initial || '{"version": 1}';
END
$$;

COMMENT ON FUNCTION tenancy.create_agent_state(text, jsonb) IS
'Begins a conversation of the identity''s user in its organization and returns the state: the contract''s fields (messages [], tool_results [], router_recommendation null, next_action null, error null, retry_count 0, conversation_id, user_id, metadata, org_id) and version 1. metadata: a JSON object of at most 64 KiB. Errors: PT401 not_authenticated; PT409 conversation_exists; 22023; 54000 too_large; 55000.';

CREATE FUNCTION tenancy.get_agent_state(conversation_id text) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current_state jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require(tenancy.user_id(), 'no_user', 'user');
    PERFORM tenancy._require_id(get_agent_state.conversation_id, 'conversation_id');
    SELECT s.state || jsonb_build_object('version', s.version) INTO current_state
      FROM tenancy.agent_states AS s
     WHERE s.tenant_id = tenancy.tenant_id()
       AND s.namespace = tenancy.identity_namespace()
       AND s.org_id = coalesce(tenancy.org_id(), '')
       AND s.user_id = tenancy.user_id()
       AND s.conversation_id = get_agent_state.conversation_id;
    RETURN current_state;
END
$$;

COMMENT ON FUNCTION tenancy.get_agent_state(text) IS
'The state of a conversation of the identity''s user in its organization, with its version; NULL where there is none. Errors: PT401 not_authenticated; 22023; 55000.';

CREATE FUNCTION tenancy.save_agent_state(conversation_id text, state jsonb) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    based_on bigint;
    current_version bigint;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require(tenancy.user_id(), 'no_user', 'user');
    PERFORM tenancy._require_id(save_agent_state.conversation_id, 'conversation_id');
    PERFORM tenancy._check_agent_state(save_agent_state.state, save_agent_state.conversation_id);
    IF jsonb_typeof(save_agent_state.state -> 'version') IS DISTINCT FROM 'number'
       OR save_agent_state.state ->> 'version' !~ '^[0-9]{1,18}$'
    THEN
        PERFORM tenancy._raise('22023', 'version_required', 'The state names no version',
            'Leave the member version as get_agent_state gave it: it tells whether somebody else saved meanwhile.',
            jsonb_build_object('parameter', 'state', 'field', 'version'));
    END IF;
    based_on := (save_agent_state.state ->> 'version')::bigint;

    UPDATE tenancy.agent_states AS s
       SET state = save_agent_state.state - 'version', version = s.version + 1, updated_at = now()
     WHERE s.tenant_id = tenancy.tenant_id()
       AND s.namespace = tenancy.identity_namespace()
       AND s.org_id = coalesce(tenancy.org_id(), '')
       AND s.user_id = tenancy.user_id()
       AND s.conversation_id = save_agent_state.conversation_id
       AND s.version = based_on;
    IF FOUND THEN
        RETURN based_on + 1;
    END IF;
    SELECT s.version INTO current_version
      FROM tenancy.agent_states AS s
     WHERE s.tenant_id = tenancy.tenant_id()
       AND s.namespace = tenancy.identity_namespace()
       AND s.org_id = coalesce(tenancy.org_id(), '')
       AND s.user_id = tenancy.user_id()
       AND s.conversation_id = save_agent_state.conversation_id;
    IF current_version IS NULL THEN
        PERFORM tenancy._raise('PT404', 'conversation_not_found', 'The user has no conversation of this id',
            'Begin it: SELECT tenancy.create_agent_state(conversation_id => …);',
            jsonb_build_object('conversation_id', save_agent_state.conversation_id));
    END IF;
    PERFORM tenancy._raise('PT409', 'stale_version',
        format('The state was saved meanwhile: it is at version %s, not %s', current_version, based_on),
        'Read it again with get_agent_state, apply your changes and save.',
        jsonb_build_object('conversation_id', save_agent_state.conversation_id, 'version', current_version));
END
$$;

COMMENT ON FUNCTION tenancy.save_agent_state(text, jsonb) IS
'Replaces the state of a conversation and returns its new version. state: all the contract''s fields and whatever the product adds, at most 1 MiB, with the version it was read at; user_id and org_id stay the identity''s. Errors: PT401 not_authenticated; PT403 identity_mismatch; PT404 conversation_not_found; PT409 stale_version; 22023 invalid_state, version_required; 54000 too_large; 55000; 40001 in REPEATABLE READ.';

CREATE FUNCTION tenancy.delete_agent_state(conversation_id text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require(tenancy.user_id(), 'no_user', 'user');
    PERFORM tenancy._require_id(delete_agent_state.conversation_id, 'conversation_id');
    DELETE FROM tenancy.agent_states AS s
     WHERE s.tenant_id = tenancy.tenant_id()
       AND s.namespace = tenancy.identity_namespace()
       AND s.org_id = coalesce(tenancy.org_id(), '')
       AND s.user_id = tenancy.user_id()
       AND s.conversation_id = delete_agent_state.conversation_id;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION tenancy.delete_agent_state(text) IS
'Removes a conversation of the identity''s user in its organization and returns whether there was one. Errors: PT401 not_authenticated; 22023; 55000.';
