//! Idempotency keys, per pool: the same request again gets the first answer, another request with the key is PT409.
//!
//! A key is claimed under the pool's lock, so fifty sessions with one key make one charge and fifty equal answers. A
//! request that is refused leaves no key behind: after a top-up the same key succeeds.

use super::result::Deduction;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Error, Jsonb, Result, State};
use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

/// The longest key, in bytes.
const LONGEST: usize = 255;

/// A caller's key and what it was used for.
pub struct Key<'a> {
    key: &'a str,
    operation: &'static str,
    hash: [u8; 32],
}

/// The answer given to a key before.
pub struct Answer {
    pub result: Uuid,
    pub held_after: i64,
}

/// What is asked for, field by field, so that no two requests read alike.
pub struct Body(Context);

impl Body {
    pub fn new(operation: &str) -> Self {
        Self(Context::new(&SHA256)).text(Some(operation))
    }

    pub fn text(self, value: Option<&str>) -> Self {
        self.bytes(value.map(str::as_bytes))
    }

    pub fn number(self, value: Option<i64>) -> Self {
        self.bytes(value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice))
    }

    pub fn json(self, value: Option<&Jsonb>) -> Self {
        self.bytes(value.map(Jsonb::bytes))
    }

    pub fn bytes(mut self, value: Option<&[u8]>) -> Self {
        // A length before each field; one that no field has for none.
        let length = value.map_or(u64::MAX, |bytes| bytes.len() as u64);
        self.0.update(&length.to_be_bytes());
        self.0.update(value.unwrap_or_default());
        self
    }
}

impl<'a> Key<'a> {
    /// None where the caller gave no key. Error: 22023 for one that is empty or too long.
    pub fn new(key: Option<&'a str>, operation: &'static str, body: Body) -> Result<Option<Self>> {
        let Some(key) = key else { return Ok(None) };
        if key.trim().is_empty() || key.len() > LONGEST {
            return Err(Error::new(
                State::INVALID_PARAMETER,
                "invalid_argument",
                format!("idempotency_key must have 1 to {LONGEST} bytes"),
            )
            .hint("Pass an id of the request, the same one at every retry, or NULL.")
            .detail("parameter", "idempotency_key"));
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(body.0.finish().as_ref());
        Ok(Some(Self { key, operation, hash }))
    }

    /// The answer to an earlier request with this key.
    ///
    /// The request may be seen and not yet be on disk (`pg::early_release`): the row is locked, so that the commit of
    /// whoever is given its answer waits for what it rests on.
    ///
    /// Error: PT409 `idempotency_conflict` where that was another request.
    pub fn answer(&self, pool: Uuid) -> Result<Option<Answer>> {
        let found = sql::query_opt(
            "SELECT i.request_hash = $3 AND i.operation = $4, i.result_id, i.held_after
               FROM tenancy.credit_idempotency AS i
              WHERE i.pool_id = $1 AND i.key = $2
                FOR KEY SHARE",
            &[pool.into(), self.key.into(), self.hash.as_slice().into(), self.operation.into()],
            Mode::Write,
            |row| {
                let answer = Answer { result: row.uuid(2).unwrap_or_default(), held_after: row.credits(3) };
                Ok((row.get::<bool>(1) == Some(true), answer))
            },
        )?;
        match found {
            None => Ok(None),
            Some((true, answer)) => Ok(Some(answer)),
            Some((false, _)) => Err(conflict()),
        }
    }

    /// Takes the key for a result; false where somebody else has it. The pool is locked.
    pub fn claim(&self, pool: Uuid, answer: &Answer, at: i64) -> Result<bool> {
        let taken = sql::execute(
            "INSERT INTO tenancy.credit_idempotency AS i
                 (pool_id, key, operation, request_hash, result_id, held_after, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (pool_id, key) DO NOTHING",
            &[
                pool.into(),
                self.key.into(),
                self.operation.into(),
                self.hash.as_slice().into(),
                answer.result.into(),
                Arg::Micros(Some(answer.held_after.into())),
                Arg::Time(Some(at)),
            ],
        )?;
        Ok(taken > 0)
    }
}

/// The key belongs to another request.
pub fn conflict() -> Error {
    Error::new(State::CONFLICT, "idempotency_conflict", "The idempotency key was used for another request")
        .hint("Use a new key for a new request, and the same arguments at every retry of one.")
}

/// A charge made before, from its ledger row.
pub fn replay(pool: Uuid, answer: &Answer) -> Result<Deduction> {
    let found = sql::query_opt(
        "SELECT t.organization_id IS NOT NULL, -t.credits_amount, t.balance_after, t.metadata
           FROM tenancy.credit_transactions AS t
          WHERE t.pool_id = $1 AND t.id = $2",
        &[pool.into(), answer.result.into()],
        Mode::Write,
        |row| {
            Ok(Deduction {
                transaction_id: Some(answer.result),
                status: "charged",
                replayed: true,
                pool: Some(if row.get(1) == Some(true) { "organization" } else { "personal" }),
                charged: Some(row.credits(2)),
                balance_after: Some(row.credits(3)),
                held_after: Some(answer.held_after),
                metadata: row.get(4),
            })
        },
    )?;
    found.ok_or_else(|| {
        Error::new(State::INTERNAL, "ledger_inconsistent", "The ledger row of an idempotency key is gone")
            .hint("Run SELECT * FROM tenancy.verify_ledger(); somebody has deleted rows by hand.")
    })
}

#[cfg(test)]
mod tests {
    use super::{Body, Key};

    fn hash(body: Body) -> [u8; 32] {
        Key::new(Some("key"), "charge", body).expect("a key").expect("one").hash
    }

    #[test]
    fn requests_that_differ_read_differently() {
        let bodies = [
            Body::new("a").text(Some("bc")).text(None),
            Body::new("a").text(Some("b")).text(Some("c")),
            Body::new("a").text(None).text(Some("bc")),
            Body::new("a").text(Some("bc")).text(Some("")),
            Body::new("ab").text(Some("c")).text(None),
            Body::new("a").number(Some(1)).text(None),
        ]
        .map(hash);
        for (index, one) in bodies.iter().enumerate() {
            assert!(!bodies[index + 1..].contains(one), "{index}");
        }
        assert_eq!(hash(Body::new("a").text(Some("b"))), hash(Body::new("a").text(Some("b"))));
    }

    #[test]
    fn a_key_says_something() {
        for key in ["", "  ", &"x".repeat(256)] {
            let refused = Key::new(Some(key), "charge", Body::new("charge")).err().expect("refused");
            assert_eq!(refused.reason(), "invalid_argument");
        }
        assert!(Key::new(None, "charge", Body::new("charge")).expect("no key").is_none());
    }
}
