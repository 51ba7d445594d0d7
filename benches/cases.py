"""The benchmarks: what runs, against what, and the bar each ratio is held to. `warm`: seconds that do not count, 1 else."""

import json

OURS = "SELECT tenancy.deduct_credits_pooled('user_{0}', 1, 'org_{0}', 'bench', 'ref');\n"
THEIRS = "SELECT bench.deduct_credits_pooled('user_{0}', 1, 'org_{0}', 'bench', 'ref');\n"
INSERT = ("INSERT INTO bench.insert_only (pool_id, id, seq, tenant_id, user_id, credits_amount, operation_type, description, reference_id, "
          "metadata, balance_after, granted_after, created_at) SELECT gen_random_uuid(), gen_random_uuid(), 1, 'org_0', gen_random_uuid(), -1, "
          "'deduction', 'bench', 'ref', '{\"pool\": \"organization\", \"clerk_org_id\": \"org_0\", \"organization_id\": \"x\", "
          "\"organization_name\": \"Org 0\"}', 1, 1, now();\n")
ANY_POOL = "\\set n random(0, 63)\n"
READ = "SELECT id, body FROM bench.rows_{0} WHERE {1} id = :id;\n"
ID = "\\set n random(0, 999)\n\\set id :n + 1000 * random(0, 999)\n"
TOKEN = "\\set t random(0, 63)\n"


def in_transaction(first, read):
    return f"{TOKEN}\\set id :t + 1000 * random(0, 999)\nBEGIN;\n{first}{read}COMMIT;\n"


AUTHENTICATE = "SELECT tenancy.authenticate(token) FROM bench.tokens WHERE id = :t;\n"
# The token arrives as a bound parameter in life; here both sides fetch it, so that the difference is the login itself.
SET_LOCAL = "SELECT set_config('app.tenant_id', 'org_' || :t, true) FROM bench.tokens WHERE id = :t;\n"
SET_CLAIM = "SELECT set_config('request.jwt.claims', '{\"sub\": \"user_1\", \"role\": \"authenticated\", \"tenant_id\": \"org_' || :t || '\"}', true) FROM bench.tokens WHERE id = :t;\n"
SET_USER = "SELECT set_config('app.user_id', 'user_' || :t, true) FROM bench.tokens WHERE id = :t;\n"
NOTHING = "SELECT token IS NOT NULL FROM bench.tokens WHERE id = :t;\n"
SCAN = "SELECT count(*) FROM bench.rows_{0} WHERE {1} length(body) > 0;\n"
NO_INDEX = "SET LOCAL enable_indexscan = off;\nSET LOCAL enable_bitmapscan = off;\nSET LOCAL enable_indexonlyscan = off;\nSET LOCAL max_parallel_workers_per_gather = 0;\n"
LITERAL = "tenant_id = 'org_' || :t AND"


# As a client sends it: a parameter.
BATCH = "SELECT count(*) FROM tenancy.deduct_credits_batch(:batch);\n"
REQUESTS = json.dumps(100 * [{"user_id": "user_0", "org_id": "org_0", "amount": 1, "description": "bench", "reference_id": "ref"}])
SINGLES = "BEGIN;\n" + 100 * "SELECT tenancy.deduct_credits('user_0', 1, 'org_0', 'bench', 'ref');\n" + "COMMIT;\n"
BALANCE = "SELECT available FROM tenancy.credit_balance(org_id => 'org_0');\n"
# A token comes again after 20,000 others; a backend keeps 256.
VERIFY = "\\set a 500 * random(0, 39)\nSELECT count(*) FILTER (WHERE {0}) FROM bench.tokens WHERE id >= :a AND id < :a + 500;\n"
LOGIN = f"{TOKEN}BEGIN;\n{AUTHENTICATE}COMMIT;\n"


def reads(ours, literal, wrapped, others):
    """Ours, the literal, and the policies of bench.rows_policy, each with its role."""
    return [{"name": "ours", "script": ours}, {"name": "literal, no RLS", "script": literal},
            {"name": "JSON claim, wrapped", "script": wrapped, "role": "claim"},
            {"name": "JSON claim, not wrapped", "script": wrapped, "role": "claim_bare"}] + [
        {"name": name, "script": script, "role": role} for name, role, script in others]


def growth(name, title, fill, sizes, ours, bars=()):
    """The same work in databases that differ in size alone."""
    databases = {size: f"{name}_{size}" for size in sizes}
    return {"name": name, "title": title, "clients": 1, "full_only": True,
            "databases": [(database, fill, size) for size, database in databases.items()],
            "variants": [{"name": f"ours: {size:,}", "script": ours, "database": databases[size]} for size in sizes],
            "debits": fill == "ledger.sql", "bars": list(bars)}


CASES = [
    {"name": "hot_pool", "debits": True, "title": "One hot pool, synchronous_commit on", "clients": 32,
     "variants": [
         {"name": "ours", "script": OURS.format(0)},
         {"name": "ours, early release off", "script": OURS.format(0), "before": ["ALTER ROLE app SET tenancy.early_lock_release = off"]},
         {"name": "contract v2 in PL/pgSQL", "script": THEIRS.format(0), "before": ["ALTER ROLE app RESET tenancy.early_lock_release"]},
         {"name": "insert only", "script": INSERT}],
     "bars": [{"ours": "ours", "against": "contract v2 in PL/pgSQL", "at_least": 4},
              {"ours": "ours", "against": "contract v2 in PL/pgSQL", "of": "p99", "at_most": 0.333},
              {"ours": "ours", "against": "insert only", "at_least": 0.35}]},
    {"name": "one_client", "debits": True, "title": "One client, own pool, fsync off", "clients": 1,
     "before": ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "SELECT pg_sleep(1)"],
     "after": ["ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()", "SELECT pg_sleep(1)"],
     "variants": [{"name": "ours", "script": OURS.format(0)}, {"name": "contract v2 in PL/pgSQL", "script": THEIRS.format(0)},
                  {"name": "SELECT 1", "script": "SELECT 1;\n"}],
     "bars": [{"ours": "ours", "against": "contract v2 in PL/pgSQL", "at_least": 1.3}]},
    {"name": "rate_limit", "title": "take_rate_limit on one key, beside SELECT 1", "clients": 32,
     "before": ["SELECT tenancy.set_rate_limit('bench', 1000000000, '1 second')"],
     "variants": [{"name": "ours", "script": "SELECT allowed FROM tenancy.take_rate_limit_for('org_0', 'bench');\n"},
                  {"name": "SELECT 1", "script": "SELECT 1;\n"}],
     "bars": []},
    {"name": "many_pools", "debits": True, "title": "64 pools, synchronous_commit on", "clients": 32, "warm": 4,
     "variants": [{"name": "ours", "script": ANY_POOL + OURS.replace("'user_{0}'", "'user_' || :n").replace("'org_{0}'", "'org_' || :n")},
                  {"name": "contract v2 in PL/pgSQL", "script": ANY_POOL + THEIRS.replace("'user_{0}'", "'user_' || :n").replace("'org_{0}'", "'org_' || :n")}],
     "bars": [{"ours": "ours", "against": "contract v2 in PL/pgSQL", "at_least": 1.2}]},
    {"name": "batch", "debits": True, "title": "A batch of 100 debits, beside 100 single calls in one transaction", "clients": 1,
     "variants": [{"name": "ours", "units": 100, "script": BATCH, "variables": {"batch": REQUESTS}}, {"name": "ours, one by one", "units": 100, "script": SINGLES}],
     "bars": [{"ours": "ours", "against": "ours, one by one", "at_least": 5}]},
    {"name": "verify_hs256", "title": "Verification of HS256 tokens never seen before", "clients": 1,
     "variants": [{"name": "ours", "units": 500, "script": VERIFY.format("(tenancy.verify_token(token)).valid")},
                  {"name": "PL/pgSQL over pgcrypto", "units": 500, "script": VERIFY.format("bench.verify_hs256(token) IS NOT NULL")}],
     "bars": [{"ours": "ours", "against": "PL/pgSQL over pgcrypto", "at_least": 10}]},
    {"name": "authenticate_and_read", "title": "authenticate and one indexed read, one transaction", "clients": 1,
     "variants": [{"name": "ours", "script": in_transaction(AUTHENTICATE, READ.format("ours", ""))},
                  {"name": "SET LOCAL, current_setting policy", "role": "setting",
                   "script": in_transaction(SET_LOCAL, READ.format("policy", ""))}],
     "bars": [{"ours": "ours", "against": "SET LOCAL, current_setting policy", "at_least": 0.9}]},
    {"name": "indexed_read", "title": "Twenty indexed reads in a transaction", "clients": 1,
     "variants": reads(
         in_transaction(AUTHENTICATE, 20 * READ.format("ours", "")), in_transaction(NOTHING, 20 * READ.format("plain", LITERAL)),
         in_transaction(SET_CLAIM, 20 * READ.format("policy", "")),
         [("current_setting", "setting", in_transaction(SET_LOCAL, 20 * READ.format("policy", "")))]),
     "bars": [{"ours": "ours", "against": "literal, no RLS", "at_least": 0.92},
              {"ours": "ours", "against": "JSON claim, wrapped", "at_least": 1.0}]},
    {"name": "full_scan", "title": "Full scan of 1M rows", "clients": 1,
     "variants": reads(
         in_transaction(AUTHENTICATE, NO_INDEX + SCAN.format("ours", "")), in_transaction(NOTHING, NO_INDEX + SCAN.format("plain", LITERAL)),
         in_transaction(SET_CLAIM, NO_INDEX + SCAN.format("policy", "")),
         [("current_setting", "setting", in_transaction(SET_LOCAL, NO_INDEX + SCAN.format("policy", ""))),
          ("IN (SELECT … memberships)", "members", in_transaction(SET_USER, NO_INDEX + SCAN.format("policy", "")))]),
     "bars": [{"ours": "ours", "against": "literal, no RLS", "of": "p50", "at_most": 1.10},
              {"ours": "ours", "against": "JSON claim, wrapped", "at_least": 10}]},
    growth("ledger", "Debit as the ledger grows", "ledger.sql", [10**4, 10**5, 10**6, 10**7], OURS.format(0),
           [{"ours": f"ours: {10**7:,}", "against": f"ours: {10**5:,}", "at_least": 0.9}]),
    growth("ledger_balance", "Balance as the ledger grows", "ledger.sql", [10**4, 10**6], BALANCE),
    growth("tenants_login", "authenticate as tenants grow", "tenants.sql", [64, 10**3, 10**4, 10**5], LOGIN),
    growth("keys_login", "authenticate as an issuer's keys grow", "keys.sql", [1, 10, 100, 1000], LOGIN),
]
