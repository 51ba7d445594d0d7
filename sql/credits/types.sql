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
'A charge, capture or refund. transaction_id: its ledger row (NULL: none was written). status: charged, captured or refunded; in a batch also why a request was refused. replayed: the answer of an earlier call with the same idempotency key. pool: organization or personal. charged, balance_after, held_after: credits. metadata: as in the ledger row.';
