-- What the credit functions return.

CREATE TYPE tenancy.deduction AS (
    transaction_id uuid,
    status text,
    replayed boolean,
    pool text,
    charged numeric,
    balance_after numeric,
    held_after numeric,
    metadata jsonb
);

COMMENT ON TYPE tenancy.deduction IS
'A charge, a capture of a hold, or a refund: what the functions that move credits return.';

COMMENT ON COLUMN tenancy.deduction.transaction_id IS 'The ledger row (credit_transactions.id); NULL where none was written.';
COMMENT ON COLUMN tenancy.deduction.status IS 'charged, captured or refunded; in a batch also the reason of a refusal.';
COMMENT ON COLUMN tenancy.deduction.replayed IS 'Whether this is the answer of an earlier call with the same idempotency key.';
COMMENT ON COLUMN tenancy.deduction.pool IS 'organization or personal: whose credits they are.';
COMMENT ON COLUMN tenancy.deduction.charged IS 'Credits that left the pool; negative for a refund.';
COMMENT ON COLUMN tenancy.deduction.balance_after IS 'The pool''s balance after it, held credits included.';
COMMENT ON COLUMN tenancy.deduction.held_after IS 'The pool''s held credits after it.';
COMMENT ON COLUMN tenancy.deduction.metadata IS 'As in the ledger row.';

CREATE TYPE tenancy.consumption AS (
    success boolean,
    new_balance numeric,
    consumed_from text
);

COMMENT ON TYPE tenancy.consumption IS 'What became of a consumption by metric (contract H, CreditManager).';
COMMENT ON COLUMN tenancy.consumption.success IS 'Whether it was charged, or free.';
COMMENT ON COLUMN tenancy.consumption.new_balance IS 'Available credits afterwards of who paid, or of who was asked last.';
COMMENT ON COLUMN tenancy.consumption.consumed_from IS 'org, user or none; where nobody could pay, who was asked last.';

CREATE TYPE tenancy.credit_check AS (
    allowed boolean,
    required numeric,
    available numeric,
    source text,
    denial_reason text
);

COMMENT ON TYPE tenancy.credit_check IS 'Whether consumption would be paid for (contract H, CreditManager).';
COMMENT ON COLUMN tenancy.credit_check.allowed IS 'Whether it would be.';
COMMENT ON COLUMN tenancy.credit_check.required IS 'What it would cost; of a metric beyond its rate limit, what that one would cost.';
COMMENT ON COLUMN tenancy.credit_check.available IS 'What the source has; the user''s where nobody could pay, 0 beyond a rate limit.';
COMMENT ON COLUMN tenancy.credit_check.source IS 'org or user; NULL where nothing is to be paid, or nobody can.';
COMMENT ON COLUMN tenancy.credit_check.denial_reason IS 'rate_limit_exceeded, insufficient_credits or system_error; NULL where it is allowed.';

CREATE TYPE tenancy.credit_figures AS (
    total numeric,
    used numeric,
    held numeric,
    available numeric
);

COMMENT ON TYPE tenancy.credit_figures IS 'What a pool holds, in credits.';
COMMENT ON COLUMN tenancy.credit_figures.total IS 'Granted, less what expired.';
COMMENT ON COLUMN tenancy.credit_figures.used IS 'Charged, less what was refunded.';
COMMENT ON COLUMN tenancy.credit_figures.held IS 'Reserved by open holds.';
COMMENT ON COLUMN tenancy.credit_figures.available IS 'What can be spent.';
