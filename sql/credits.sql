-- What SQL may know of the functions of src/credits/.

COMMENT ON FUNCTION tenancy.deduct_credits_pooled(text, numeric, text, text, text) IS
'Charges p_amount credits and returns true, or returns false and writes nothing where the pool has too few. p_clerk_org_id: the organization whose pool pays and in which the user must have an active, unexpired seat, judged under the pool''s lock; NULL means the user''s own pool; there is no fallback from one to the other. p_reference_id is a label: the same one twice charges twice. While an identity is in force, only its own user and organization can be charged. Errors: PT404 user_not_found; PT403 no_active_seat (also for an unknown organization), identity_mismatch; PT402 no_active_subscription; 22023 invalid_amount, invalid_argument (an empty id); 22003; 55000. Contract S, deduct_credits_pooled v2.';

COMMENT ON FUNCTION tenancy.deduct_credits(text, numeric, text, text, text, text, jsonb) IS
'Charges amount credits to an organization''s pool (org_id, the user needs an active seat) or to the user''s own (org_id NULL). idempotency_key: the same request again gets the first answer with replayed true, whatever has changed since. metadata: an object below 1 MB, written under the server''s own keys. Errors: PT402 insufficient_credits (DETAIL: pool, organization_name, required, available), no_active_subscription; PT403 no_active_seat, identity_mismatch; PT404 user_not_found; PT409 idempotency_conflict; PT429 cap_reached; 22023, 22003, 54000 metadata_too_large, 55000.';

COMMENT ON FUNCTION tenancy.spend_credits(numeric, text, text, text, jsonb) IS
'Charges amount credits to whoever is authenticated: to the organization acted for, where the user needs an active seat, else to the user''s own pool. Takes no id. Errors: PT401 not_authenticated, and those of deduct_credits.';

COMMENT ON FUNCTION tenancy.grant_credits(numeric, text, text, text, timestamptz, integer, text, timestamptz, numeric, numeric, timestamptz, text) IS
'Gives amount credits to an organization''s pool (org_id) or a user''s own (user_id) and returns the grant''s id. Grants burn by priority (lowest first), then expiry, then creation. expires_at: what remains then leaves the pool; NULL never. effective_at: from when on it can be spent; NULL now. rollover_max, rollover_until: at expiry up to so much of what remains becomes a new grant until then. cost_basis: what one credit cost. idempotency_key: the same grant again returns the first one''s id. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; PT409 idempotency_conflict; 22023 invalid_amount, invalid_argument; 22003 amount_out_of_range, balance_out_of_range (balance, grants to come and this one are more than 999999999999.999999); 55000.';

COMMENT ON FUNCTION tenancy.adjust_credits(numeric, text, text, text, text) IS
'Corrects a pool by hand and returns its new balance: a positive amount is granted, a negative one is taken from what is available. reason: why, kept in the ledger. A whole amount below 2147483648 leaves a row in credit_operations too (metric manual_adjustment, amount and cost without the sign, which the ledger row has; user_id empty where an organization''s pool is adjusted without an identity). Errors: PT402 insufficient_credits; PT404 organization_not_found, user_not_found; 22023, 22003, 55000.';

COMMENT ON FUNCTION tenancy.hold_credits(text, numeric, text, interval, text, text, jsonb) IS
'Reserves amount credits, as deduct_credits would charge them, and returns the hold''s id. expires_in: after so long (more than nothing, at most 366 days) it is free again by itself. Held credits do not expire. idempotency_key: the same hold again returns the first one''s id. Errors: those of deduct_credits.';

COMMENT ON FUNCTION tenancy.capture_hold(uuid, numeric) IS
'Charges an open hold: amount credits of it, NULL all; the rest is free again. The seat was judged when the credits were held. Errors: PT404 hold_not_found; PT422 hold_captured, hold_voided, hold_expired, capture_exceeds_hold; PT403 identity_mismatch; 22023, 22003, 55000.';

COMMENT ON FUNCTION tenancy.void_hold(uuid) IS
'Frees an open hold and returns true; false where it was voided or has expired before. Errors: PT404 hold_not_found, PT422 hold_captured, PT403 identity_mismatch, 22023, 55000.';

COMMENT ON FUNCTION tenancy.refund_credits(uuid, numeric, text) IS
'Gives credits of a charge or captured hold back to its pool and to the grants they came from: amount of them, NULL all that is left. Earlier refunds count, so no more comes back than was charged; what returns to a grant that has expired expires at once. The result''s charged is negative. Errors: PT404 transaction_not_found; PT422 refund_exceeds_charge (DETAIL: charged, refunded, refundable), not_refundable; PT403 identity_mismatch; 22023, 22003, 55000.';

COMMENT ON FUNCTION tenancy.credit_balance(text, text, timestamptz) IS
'One row with the figures of a pool, in credits: total granted (less what expired), used, held by open holds, and available. at: as of that time, past or to come if nothing more happened; NULL now. org_id or user_id names the pool; neither means that of whoever is authenticated. An application sees its identity''s own organization and user. Reads only; runs on a standby. Errors: PT401 not_authenticated, PT403 not_your_pool, PT404, 22023, 55000.';

COMMENT ON FUNCTION tenancy.pool_figures(uuid) IS
'The figures of credit_balance by a pool''s id (credit_pools.pool_id), as of now: what has expired is left out, whether or not it is settled. No row for NULL and for a pool that the caller may not see. Errors: 55000.';

COMMENT ON FUNCTION tenancy.set_member_cap(text, text, numeric, text, text) IS
'Caps what a member may spend from an organization''s pool: amount credits in each period (day, month: UTC''s; lifetime); NULL lifts the cap, 0 lets nothing through. What was spent since the period began counts, and so do open holds; exactly the cap can be spent. Returns whether there is a cap now. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; 22023, 22003, 55000.';

COMMENT ON FUNCTION tenancy._is_sound_pool(uuid, uuid, uuid, numeric, numeric, numeric, numeric, numeric) IS
'What the CHECK constraint of credit_pools asks: one owner, who gives the pool its id; 0 <= held <= balance <= granted_total; 0 <= burned_total <= drawn_total. False, never NULL, for NULL and NaN.';

COMMENT ON FUNCTION tenancy._is_sound_entry(text, bigint, numeric, numeric, numeric, uuid, uuid, uuid) IS
'What the CHECK constraint of credit_transactions asks: a number above 0, the sign and the references that the kind of entry has, and a balance that is not negative and not below the amount. False, never NULL, for NULL and NaN.';

COMMENT ON FUNCTION tenancy._lock_credit_pool(text, text, text) IS
'Makes a pool where there is none, locks it, brings it to the present, and returns its id. Errors: PT404 organization_not_found, user_not_found; 22023.';

COMMENT ON FUNCTION tenancy.deduct_credits_batch(jsonb) IS
'Charges each request of a JSON array of objects with the parameters of deduct_credits as keys (user_id, amount, org_id, description, reference_id, idempotency_key, metadata) and returns one row a request, in the array''s order. A request that cannot be charged does not stop the others: its status is the reason (insufficient_credits, user_not_found, no_active_seat, no_active_subscription, invalid_amount, invalid_argument, idempotency_conflict, cap_reached, identity_mismatch, metadata_too_large) and its transaction_id NULL. Pools are locked in the order of their ids, so batches do not deadlock each other. At most 10,000 requests. Errors: 22023 invalid_argument, 54000 batch_too_large, 55000.';
