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
