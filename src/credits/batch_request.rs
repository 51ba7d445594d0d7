//! What a batch asks for, read from its JSON.

use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Decimal, Error, Jsonb, Result, State};

/// As many requests as one call takes.
const MOST: usize = 10_000;

/// One request, as it was sent.
pub struct Request {
    pub user_id: Option<String>,
    pub org_id: Option<String>,
    /// None for NULL and for what is no number.
    pub amount: Option<Decimal>,
    description: Option<String>,
    pub reference_id: Option<String>,
    pub idempotency_key: Option<String>,
    pub metadata: Option<Jsonb>,
}

impl Request {
    pub fn description(&self) -> Option<&str> {
        Some(self.description.as_deref().unwrap_or("Credits used"))
    }
}

/// The requests of a JSON array of objects.
///
/// Errors: 22023 `invalid_argument` for anything else, 54000 `batch_too_large`.
pub fn parse(requests: Option<Jsonb>) -> Result<Vec<Request>> {
    let requests = requests.filter(Jsonb::is_array).ok_or_else(not_an_array)?;
    let rows = sql::query(
        "SELECT jsonb_typeof(r.request) = 'object', r.request ->> 'user_id', r.request ->> 'org_id', r.request ->> 'amount',
                r.request ->> 'description', r.request ->> 'reference_id', r.request ->> 'idempotency_key',
                CASE WHEN jsonb_typeof(r.request -> 'metadata') <> 'null' THEN r.request -> 'metadata' END
           FROM jsonb_array_elements($1) WITH ORDINALITY AS r (request, ordinal)
          ORDER BY r.ordinal",
        &[Arg::Jsonb(Some(&requests))],
        Mode::Read,
        |row| {
            if row.get(1) != Some(true) {
                return Err(not_an_array());
            }
            Ok(Request {
                user_id: row.text(2),
                org_id: row.text(3),
                amount: row.text(4).and_then(|text| Decimal::from_text(&text)),
                description: row.text(5),
                reference_id: row.text(6),
                idempotency_key: row.text(7),
                metadata: row.get::<Jsonb>(8).filter(|metadata| !metadata.is_empty_object()),
            })
        },
    )?;
    if rows.len() > MOST {
        return Err(Error::new(State::TOO_LARGE, "batch_too_large", format!("A batch has at most {MOST} requests"))
            .hint("Send several batches.")
            .detail("limit", MOST));
    }
    Ok(rows)
}

fn not_an_array() -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", "requests must be a JSON array of objects")
        .hint("Pass [{\"user_id\": …, \"amount\": …, \"org_id\": …, \"idempotency_key\": …}, …].")
        .detail("parameter", "requests")
}
