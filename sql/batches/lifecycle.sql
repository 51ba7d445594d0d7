-- A batch's life: slots are filled, results come in, and its status tells how far it is.

CREATE FUNCTION tenancy._find_batch(
    batch_id uuid,
    required boolean DEFAULT true,
    OUT tenant_id text,
    OUT user_id text,
    OUT org_id text,
    OUT namespace text,
    OUT course_code text,
    OUT expected_essay_count integer,
    OUT request jsonb,
    OUT correlation_id uuid,
    OUT timeout_at timestamptz,
    OUT created_at timestamptz
)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    found_in text[];
BEGIN
    PERFORM tenancy._require_value(_find_batch.batch_id, 'batch_id');
    IF tenancy.tenant_id() IS NOT NULL THEN
        found_in := ARRAY[tenancy.tenant_id()];
    ELSIF tenancy._identity_expired() OR NOT tenancy._may_act_for_others() THEN
        PERFORM tenancy._raise('PT401', 'not_authenticated', 'Nobody is authenticated in this transaction',
            'Begin a transaction and call tenancy.authenticate(token) first; an identity ends when its token expires.');
    ELSE
        SELECT array_agg(b.tenant_id) INTO found_in FROM tenancy.batches AS b WHERE b.batch_id = _find_batch.batch_id;
        IF cardinality(found_in) > 1 THEN
            PERFORM tenancy._raise('PT409', 'ambiguous_batch', 'Several tenants have a batch of this id',
                'Call tenancy.act_as(user_id, org_id) first, to say whose.');
        END IF;
    END IF;
    SELECT b.tenant_id, b.user_id, b.org_id, b.namespace, b.course_code, b.expected_essay_count, b.request, b.correlation_id, b.timeout_at,
           b.created_at
      INTO _find_batch.tenant_id, _find_batch.user_id, _find_batch.org_id, _find_batch.namespace, _find_batch.course_code,
           _find_batch.expected_essay_count, _find_batch.request, _find_batch.correlation_id, _find_batch.timeout_at,
           _find_batch.created_at
      FROM tenancy.batches AS b
     WHERE b.tenant_id = found_in[1] AND b.batch_id = _find_batch.batch_id;
    IF _find_batch.tenant_id IS NULL AND _find_batch.required THEN
        PERFORM tenancy._raise('PT404', 'batch_not_found', 'Batch not found',
            'Register it first: SELECT * FROM tenancy.register_batch(request => …);',
            jsonb_build_object('batch_id', _find_batch.batch_id));
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._find_batch(uuid, boolean) IS
'A batch of the identity''s tenant; without an identity, for the service role, of any. Errors: PT401 not_authenticated; PT404 batch_not_found (unless not required: all NULL); PT409 ambiguous_batch; 22023.';

CREATE FUNCTION tenancy._require_batch_organization(batch_org text) RETURNS void
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF tenancy.user_id() IS NOT NULL AND tenancy.org_id() IS DISTINCT FROM _require_batch_organization.batch_org THEN
        PERFORM tenancy._raise('PT403', 'batch_of_another_organization', 'The batch belongs to another organization than who asks',
            'Authenticate for the organization that the batch was registered for.');
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._require_batch_organization(text) IS
'An identity works on batches of its own organization, or of none where it has none. Error: PT403 batch_of_another_organization.';

CREATE FUNCTION tenancy.assign_essay(batch_id uuid, essay_id text, text_storage_id text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    slot record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(assign_essay.essay_id, 'essay_id');
    PERFORM tenancy._require_id(assign_essay.text_storage_id, 'text_storage_id');
    batch := tenancy._find_batch(assign_essay.batch_id);
    PERFORM tenancy._require_batch_organization(batch.org_id);
    SELECT e.status, e.text_storage_id INTO slot FROM tenancy.batch_essays AS e
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = assign_essay.batch_id AND e.essay_id = assign_essay.essay_id
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('PT404', 'essay_not_found', 'The batch has no slot for this essay',
            'missing_essay_ids of tenancy.get_batch_status() lists the empty slots.');
    END IF;
    IF slot.text_storage_id = assign_essay.text_storage_id THEN
        RETURN false;
    ELSIF slot.status <> 'available' THEN
        PERFORM tenancy._raise('PT409', 'slot_taken', format('The slot is %s already', slot.status),
            'Use an empty slot: missing_essay_ids of tenancy.get_batch_status().');
    END IF;
    UPDATE tenancy.batch_essays AS e
       SET status = 'assigned', text_storage_id = assign_essay.text_storage_id, updated_at = now()
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = assign_essay.batch_id AND e.essay_id = assign_essay.essay_id;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.assign_essay(uuid, text, text) IS
'Fills a slot of a batch with a text. Returns false where it holds that text already. Errors: PT404 batch_not_found, essay_not_found; PT403 batch_of_another_organization; PT409 slot_taken; PT401; 22023; 55000.';

CREATE FUNCTION tenancy.fail_essay(batch_id uuid, essay_id text, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(fail_essay.essay_id, 'essay_id');
    PERFORM tenancy._require_text(fail_essay.reason, 'reason', 1000);
    batch := tenancy._find_batch(fail_essay.batch_id);
    UPDATE tenancy.batch_essays AS e
       SET status = 'failed', text_storage_id = NULL, reason = fail_essay.reason, updated_at = now()
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = fail_essay.batch_id AND e.essay_id = fail_essay.essay_id
       AND e.status <> 'failed';
    IF FOUND THEN
        RETURN true;
    END IF;
    IF NOT EXISTS (SELECT FROM tenancy.batch_essays AS e
                    WHERE e.tenant_id = batch.tenant_id AND e.batch_id = fail_essay.batch_id
                      AND e.essay_id = fail_essay.essay_id) THEN
        PERFORM tenancy._raise('PT404', 'essay_not_found', 'The batch has no slot for this essay',
            'tenancy.get_batch_status() lists the slots.');
    END IF;
    RETURN false;
END
$$;

COMMENT ON FUNCTION tenancy.fail_essay(uuid, text, text) IS
'Gives a slot up: no text will come, or it is of no use. Returns false where it was given up already. Errors: PT404 batch_not_found, essay_not_found; PT401; 22023; 55000.';

CREATE FUNCTION tenancy.get_batch_status(batch_id uuid) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    slots record;
BEGIN
    PERFORM tenancy._require_installed();
    batch := tenancy._find_batch(get_batch_status.batch_id, required => false);
    IF batch.tenant_id IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT count(*) AS known,
           count(*) FILTER (WHERE e.status = 'assigned') AS ready,
           count(*) FILTER (WHERE e.status = 'available') AS missing,
           coalesce(jsonb_agg(jsonb_build_object('essay_id', e.essay_id, 'text_storage_id', e.text_storage_id)
                              ORDER BY e.essay_id COLLATE "C") FILTER (WHERE e.status = 'assigned'), '[]') AS ready_essays,
           coalesce(jsonb_agg(e.essay_id ORDER BY e.essay_id COLLATE "C") FILTER (WHERE e.status = 'available'), '[]') AS missing_ids
      INTO slots
      FROM tenancy.batch_essays AS e
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = get_batch_status.batch_id;
    RETURN jsonb_build_object(
        'batch_id', get_batch_status.batch_id,
        'expected_count', batch.expected_essay_count,
        'ready_count', slots.ready,
        'ready_essays', slots.ready_essays,
        'missing_essay_ids', slots.missing_ids,
        -- A batch without rows is not complete: nothing has arrived.
        'is_complete', slots.missing = 0 AND slots.known >= batch.expected_essay_count,
        'is_timeout_due', slots.missing > 0 AND now() >= batch.timeout_at,
        'created_at', tenancy._utc_text(batch.created_at),
        'user_id', batch.user_id,
        'org_id', batch.org_id,
        'student_prompt_ref', batch.request -> 'student_prompt_ref');
END
$$;

COMMENT ON FUNCTION tenancy.get_batch_status(uuid) IS
'How far a batch is, with contract H''s keys; NULL for an unknown one. is_complete: every slot is assigned or given up. is_timeout_due: slots are empty 24 hours after the registration. Without an identity the service role sees any batch. Errors: PT401, PT409 ambiguous_batch, 22023, 55000.';

CREATE FUNCTION tenancy.record_result(batch_id uuid, essay_id text, result jsonb) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(record_result.essay_id, 'essay_id');
    PERFORM tenancy._require_value(record_result.result, 'result');
    batch := tenancy._find_batch(record_result.batch_id);
    IF NOT EXISTS (SELECT FROM tenancy.batch_essays AS e
                    WHERE e.tenant_id = batch.tenant_id AND e.batch_id = record_result.batch_id
                      AND e.essay_id = record_result.essay_id) THEN
        PERFORM tenancy._raise('PT404', 'essay_not_found', 'The batch has no slot for this essay',
            'tenancy.get_batch_status() lists the slots.');
    END IF;
    UPDATE tenancy.batch_results AS r
       SET result = record_result.result, updated_at = now()
     WHERE r.tenant_id = batch.tenant_id AND r.batch_id = record_result.batch_id AND r.essay_id = record_result.essay_id;
    IF FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO tenancy.batch_results AS r (tenant_id, batch_id, essay_id, result, correlation_id)
    VALUES (batch.tenant_id, record_result.batch_id, record_result.essay_id, record_result.result, batch.correlation_id)
    ON CONFLICT ON CONSTRAINT batch_results_pkey DO UPDATE SET result = EXCLUDED.result, updated_at = now();
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.record_result(uuid, text, jsonb) IS
'Writes the result of an essay, in place of an earlier one; returns whether it is the first. Errors: PT404 batch_not_found, essay_not_found; PT401; 22023; 55000.';
