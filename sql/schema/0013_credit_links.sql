-- 0013 credit links: the hash chain over the ledger, one link an entry, sealed outside the debit (seal_ledger).

CREATE TABLE tenancy.credit_links (
    pool_id uuid NOT NULL,
    seq bigint NOT NULL,
    transaction_id uuid NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT credit_links_pkey PRIMARY KEY (pool_id, seq),
    CONSTRAINT credit_links_seq_check CHECK (seq > 0),
    CONSTRAINT credit_links_hash_check CHECK (octet_length(hash) = 32)
);

ALTER TABLE tenancy.credit_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.credit_links FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.credit_links TO CURRENT_USER USING (true) WITH CHECK (true);

COMMENT ON TABLE tenancy.credit_links IS
'The hash chain over each pool''s ledger: a link is the SHA-256 of the link before it and of its entry. Append-only; written by seal_ledger, checked by verify_ledger. Keep a pool''s newest hash elsewhere, and nobody can rewrite the past unseen.';
COMMENT ON COLUMN tenancy.credit_links.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_links.seq IS 'The entry''s number in the pool.';
COMMENT ON COLUMN tenancy.credit_links.transaction_id IS 'The entry (credit_transactions.id).';
COMMENT ON COLUMN tenancy.credit_links.hash IS 'SHA-256 over the link before and the entry.';
COMMENT ON POLICY owner_rows ON tenancy.credit_links IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
