-- Subscriptions and seats.
-- The subscription's row lock guards every seat of its organization: whoever gives, ends or counts seats takes it first,
-- recounts under it and writes seats_used into the same row, so that in REPEATABLE READ a stale count fails with 40001.

CREATE FUNCTION tenancy._lock_subscription(
    organization_id uuid,
    OUT id uuid,
    OUT status text,
    OUT seats_total integer,
    OUT seats_used integer
)
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT s.id, s.status, s.seats_total, s.seats_used
      INTO _lock_subscription.id, _lock_subscription.status, _lock_subscription.seats_total, _lock_subscription.seats_used
      FROM tenancy.organization_subscriptions AS s
     WHERE s.organization_id = _lock_subscription.organization_id
       FOR NO KEY UPDATE;
END
$$;

COMMENT ON FUNCTION tenancy._lock_subscription(uuid) IS
'Locks an organization''s subscription, which guards its seats, and returns it; all NULL without one.';

CREATE FUNCTION tenancy._end_lapsed_seats(organization_id uuid) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    -- Read after the lock is held: a seat that lapsed while this call waited is no seat.
    at timestamptz := clock_timestamp();
    open_seats integer;
BEGIN
    UPDATE tenancy.organization_seats AS s
       SET status = 'expired', updated_at = now()
     WHERE s.organization_id = _end_lapsed_seats.organization_id
       AND s.status IN ('pending', 'active')
       AND s.expires_at <= at;
    SELECT count(*) INTO open_seats
      FROM tenancy.organization_seats AS s
     WHERE s.organization_id = _end_lapsed_seats.organization_id
       AND s.status IN ('pending', 'active');
    RETURN open_seats;
END
$$;

COMMENT ON FUNCTION tenancy._end_lapsed_seats(uuid) IS
'Marks an organization''s seats past expires_at as expired and returns how many stay open. The caller holds the subscription''s lock and writes the number into seats_used.';

CREATE FUNCTION tenancy._revoke_open_seat(organization_id uuid, user_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    subscription record;
    open_seats integer;
    revoked boolean;
BEGIN
    subscription := tenancy._lock_subscription(_revoke_open_seat.organization_id);
    IF subscription.id IS NULL THEN
        RETURN false;
    END IF;
    open_seats := tenancy._end_lapsed_seats(_revoke_open_seat.organization_id);

    UPDATE tenancy.organization_seats AS s
       SET status = 'revoked',
           revoked_at = now(),
           revoked_reason = _revoke_open_seat.reason,
           updated_at = now()
     WHERE s.organization_id = _revoke_open_seat.organization_id
       AND s.user_id = _revoke_open_seat.user_id
       AND s.status IN ('pending', 'active');
    revoked := FOUND;
    IF revoked THEN
        open_seats := open_seats - 1;
    END IF;
    IF revoked OR open_seats <> subscription.seats_used THEN
        UPDATE tenancy.organization_subscriptions AS s
           SET seats_used = open_seats, updated_at = now()
         WHERE s.id = subscription.id;
        PERFORM tenancy._changed('organization_seats');
    END IF;
    RETURN revoked;
END
$$;

COMMENT ON FUNCTION tenancy._revoke_open_seat(uuid, uuid, text) IS
'Revokes a user''s open seat in an organization, by internal ids, and returns whether there was one. Locks the subscription.';

CREATE FUNCTION tenancy.set_subscription(
    org_id text,
    plan_type text,
    status text,
    seats_total integer,
    stripe_subscription_id text DEFAULT NULL,
    billing_frequency text DEFAULT NULL,
    current_period_start timestamptz DEFAULT NULL,
    current_period_end timestamptz DEFAULT NULL,
    namespace text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org record;
    open_seats integer;
    registered uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(set_subscription.plan_type, 'plan_type');
    PERFORM tenancy._require_text(set_subscription.plan_type, 'plan_type', 64);
    PERFORM tenancy._require_one_of(set_subscription.status, 'status',
        ARRAY['trialing', 'active', 'past_due', 'canceled', 'unpaid', 'incomplete', 'incomplete_expired', 'paused']);
    PERFORM tenancy._require_value(set_subscription.seats_total, 'seats_total');
    IF set_subscription.seats_total < 0 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'seats_total must not be negative',
            'Pass the number of seats paid for.', jsonb_build_object('parameter', 'seats_total'));
    END IF;
    PERFORM tenancy._require_text(set_subscription.stripe_subscription_id, 'stripe_subscription_id', 255);
    IF set_subscription.billing_frequency IS NOT NULL THEN
        PERFORM tenancy._require_one_of(set_subscription.billing_frequency, 'billing_frequency', ARRAY['monthly', 'yearly']);
    END IF;
    org := tenancy._find_organization(set_subscription.org_id, tenancy._namespace(set_subscription.namespace));

    -- A row to lock, whoever makes it: two sessions that set the first subscription at once meet here.
    INSERT INTO tenancy.organization_subscriptions AS s (tenant_id, organization_id, plan_type, status, seats_total)
    VALUES (org.tenant_id, org.id, set_subscription.plan_type, set_subscription.status, set_subscription.seats_total)
    ON CONFLICT ON CONSTRAINT organization_subscriptions_organization_key DO NOTHING;
    PERFORM tenancy._lock_subscription(org.id);

    open_seats := tenancy._end_lapsed_seats(org.id);
    IF open_seats > set_subscription.seats_total THEN
        PERFORM tenancy._raise('PT409', 'seats_in_use',
            format('%s seats are in use, more than the %s of seats_total', open_seats, set_subscription.seats_total),
            'Revoke seats first: SELECT tenancy.revoke_seat(org_id => …, user_id => …);',
            jsonb_build_object('org_id', set_subscription.org_id, 'seats_used', open_seats,
                               'seats_total', set_subscription.seats_total));
    END IF;

    UPDATE tenancy.organization_subscriptions AS s
       SET plan_type = set_subscription.plan_type,
           status = set_subscription.status,
           seats_total = set_subscription.seats_total,
           seats_used = open_seats,
           stripe_subscription_id = coalesce(set_subscription.stripe_subscription_id, s.stripe_subscription_id),
           billing_frequency = coalesce(set_subscription.billing_frequency, s.billing_frequency),
           current_period_start = coalesce(set_subscription.current_period_start, s.current_period_start),
           current_period_end = coalesce(set_subscription.current_period_end, s.current_period_end),
           updated_at = now()
     WHERE s.organization_id = org.id
       AND coalesce(coalesce(set_subscription.current_period_end, s.current_period_end)
                    > coalesce(set_subscription.current_period_start, s.current_period_start), true)
    RETURNING s.id INTO registered;
    IF registered IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'current_period_end must be later than current_period_start',
            'Pass both ends of the period.', jsonb_build_object('parameter', 'current_period_end'));
    END IF;
    PERFORM tenancy._changed('organization_subscriptions');
    RETURN registered;
END
$$;

COMMENT ON FUNCTION tenancy.set_subscription(text, text, text, integer, text, text, timestamptz, timestamptz, text) IS
'Makes or changes an organization''s one subscription and returns its internal id. plan_type: the plan''s name, at most 64 characters. status: trialing, active, past_due, canceled, unpaid, incomplete, incomplete_expired or paused. seats_total: seats paid for, at least those in use. billing_frequency: monthly (what a new one gets) or yearly. For the parameters after seats_total NULL leaves what is there. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, PT409 seats_in_use, 22023, 55000. Values from contract S (organization_subscriptions).';

CREATE FUNCTION tenancy.assign_seat(
    org_id text,
    user_id text,
    role text DEFAULT 'member',
    expires_at timestamptz DEFAULT NULL,
    namespace text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    holder uuid;
    org record;
    subscription record;
    open_seats integer;
    seat uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_one_of(assign_seat.role, 'role', ARRAY['admin', 'member', 'billing_manager']);
    IF assign_seat.expires_at <= clock_timestamp() THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'expires_at must lie in the future',
            'Leave expires_at out for a seat that does not end by itself.', jsonb_build_object('parameter', 'expires_at'));
    END IF;
    ns := tenancy._namespace(assign_seat.namespace);
    holder := tenancy._find_user(assign_seat.user_id, ns);
    org := tenancy._find_organization(assign_seat.org_id, ns);

    subscription := tenancy._lock_subscription(org.id);
    IF subscription.id IS NULL OR subscription.status NOT IN ('active', 'trialing') THEN
        PERFORM tenancy._raise('PT402', 'no_active_subscription', 'Active organization subscription not found',
            'Set one with status active or trialing: SELECT tenancy.set_subscription(org_id => …, …);',
            jsonb_build_object('org_id', assign_seat.org_id, 'organization_name', org.name,
                               'status', subscription.status));
    END IF;
    open_seats := tenancy._end_lapsed_seats(org.id);

    IF EXISTS (SELECT FROM tenancy.organization_seats AS s
                WHERE s.organization_id = org.id AND s.user_id = holder AND s.status IN ('pending', 'active')) THEN
        PERFORM tenancy._raise('PT409', 'seat_exists', 'The user already has a seat in this organization',
            'Revoke it first to change it: SELECT tenancy.revoke_seat(org_id => …, user_id => …);',
            jsonb_build_object('org_id', assign_seat.org_id, 'user_id', assign_seat.user_id));
    END IF;
    IF open_seats >= subscription.seats_total THEN
        PERFORM tenancy._raise('PT402', 'no_seat_left', 'No seat is left in this organization''s subscription',
            'Raise seats_total with tenancy.set_subscription(), or revoke a seat.',
            jsonb_build_object('org_id', assign_seat.org_id, 'organization_name', org.name,
                               'seats_total', subscription.seats_total, 'seats_used', open_seats));
    END IF;

    INSERT INTO tenancy.organization_seats AS s
        (tenant_id, organization_id, organization_subscription_id, user_id, role, status, assigned_by, expires_at)
    VALUES
        (org.tenant_id, org.id, subscription.id, holder, assign_seat.role, 'active',
         coalesce(tenancy.user_id(), session_user), assign_seat.expires_at)
    RETURNING s.id INTO seat;
    UPDATE tenancy.organization_subscriptions AS s
       SET seats_used = open_seats + 1, updated_at = now()
     WHERE s.id = subscription.id;
    PERFORM tenancy._changed('organization_seats');
    RETURN seat;
END
$$;

COMMENT ON FUNCTION tenancy.assign_seat(text, text, text, timestamptz, text) IS
'Gives a user a seat in an organization and returns its internal id. role: admin, member or billing_manager. expires_at: in the future; NULL never. namespace: NULL means the identity''s, else the empty one. Seats past their time are freed first. Sessions that race for the last seat wait for each other on the subscription''s row. Errors: PT402 no_seat_left, no_active_subscription; PT404 user_not_found, organization_not_found; PT409 seat_exists; 22023, 55000.';

CREATE FUNCTION tenancy.revoke_seat(
    org_id text,
    user_id text,
    reason text DEFAULT NULL,
    namespace text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    holder uuid;
    org record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(revoke_seat.reason, 'reason', 500);
    ns := tenancy._namespace(revoke_seat.namespace);
    holder := tenancy._find_user(revoke_seat.user_id, ns);
    org := tenancy._find_organization(revoke_seat.org_id, ns);
    RETURN tenancy._revoke_open_seat(org.id, holder, revoke_seat.reason);
END
$$;

COMMENT ON FUNCTION tenancy.revoke_seat(text, text, text, text) IS
'Ends a user''s seat in an organization; the row stays, with reason (at most 500 characters). namespace: NULL means the identity''s, else the empty one. Returns whether there was a seat to revoke; one past its expires_at is none. Errors: PT404 user_not_found, organization_not_found; 22023, 55000.';
