//! The two tables a debit writes, as migration 0004 makes them: where they are still so, no statement is needed.

use crate::pg::direct::{self, Table};
use crate::pg::direct_check::Check;

/// Pools; the numbers of its columns stand in `debit`.
pub static POOLS: Table = Table {
    name: c"credit_pools",
    check: Check { name: c"credit_pools_check", function: c"_is_sound_pool", columns: &[1, 4, 5, 6, 7, 8, 9, 10] },
    has_foreign_keys: true,
    columns: &[
        (c"pool_id", direct::UUID),
        (c"tag", direct::INT4),
        (c"tenant_id", direct::TEXT),
        (c"organization_id", direct::UUID),
        (c"user_id", direct::UUID),
        (c"balance", direct::CREDITS),
        (c"held", direct::CREDITS),
        (c"granted_total", direct::TOTAL),
        (c"drawn_total", direct::TOTAL),
        (c"burned_total", direct::TOTAL),
        (c"seq", direct::INT8),
        (c"next_expiry_at", direct::TIMESTAMPTZ),
        (c"alert_below", direct::CREDITS),
        (c"alert_thresholds", direct::CREDITS_ARRAY),
        (c"has_caps", direct::BOOL),
        (c"last_entry_at", direct::TIMESTAMPTZ),
        (c"created_at", direct::TIMESTAMPTZ),
    ],
};

/// The ledger.
pub static LEDGER: Table = Table {
    name: c"credit_transactions",
    check: Check {
        name: c"credit_transactions_check",
        function: c"_is_sound_entry",
        columns: &[10, 3, 9, 14, 16, 6, 17, 19],
    },
    has_foreign_keys: false,
    columns: &[
        (c"pool_id", direct::UUID),
        (c"id", direct::UUID),
        (c"seq", direct::INT8),
        (c"tenant_id", direct::TEXT),
        (c"organization_id", direct::UUID),
        (c"user_id", direct::UUID),
        (c"seat_id", direct::UUID),
        (c"subscription_id", direct::UUID),
        (c"credits_amount", direct::CREDITS),
        (c"operation_type", direct::TEXT),
        (c"description", direct::TEXT),
        (c"reference_id", direct::TEXT),
        (c"metadata", direct::JSONB),
        (c"balance_after", direct::CREDITS),
        (c"granted_after", direct::TOTAL),
        (c"drawn_after", direct::TOTAL),
        (c"grant_id", direct::UUID),
        (c"hold_id", direct::UUID),
        (c"refund_of", direct::UUID),
        (c"correlation_id", direct::TEXT),
        (c"created_at", direct::TIMESTAMPTZ),
    ],
};
