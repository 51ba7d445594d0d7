//! Where an identity's token came from: an extension token is no sign-in, and what it has issued ends with it.

use super::fault;
use crate::identity::LONG_LIVED;
use crate::identity::jose::Claims;
use crate::identity::jose::json::Json;
use crate::pg::sql::{self, Mode};
use crate::pg::{self, Identity, Result};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

/// The extension token that the identity came from, and whether that one is live; no row for any other identity.
#[pg_extern(name = "_extension_origin", stable, parallel_restricted)]
fn extension_origin() -> TableIterator<'static, (name!(token_id, String), name!(is_live, bool))> {
    pg::entry(|| {
        let origin = match pg::current_value() {
            Some(identity) if identity.issued_here => origin(&identity)?,
            _ => None,
        };
        Ok(TableIterator::new(origin))
    })
}

fn origin(identity: &Identity) -> Result<Option<(String, bool)>> {
    let claims = Claims::parse(identity.claims.as_deref().unwrap_or_default().as_bytes())
        .map_err(|_| fault("claims_not_read", "The identity's claims could not be read"))?;
    let text = |name: &str| claims.members().get(name).and_then(Json::as_str);
    if let Some(id) = text("extension_token_id") {
        return Ok(Some((id.to_owned(), live(id)?.unwrap_or(false))));
    }
    if text("type") == Some(LONG_LIVED) {
        let id = claims.token_id().unwrap_or_default();
        // Another service's, by the same key, has no row here and has been authenticated: it is that service's to end.
        return Ok(Some((id.to_owned(), live(id)?.unwrap_or(true))));
    }
    // A token of 0.1.0 does not say it. An extension token is a session of its own, which goes on in what it issued.
    let id = identity.session_id.as_deref().unwrap_or_default();
    Ok(live(id)?.map(|is_live| (id.to_owned(), is_live)))
}

/// Whether the extension token is live at this moment; none where it has no row.
fn live(id: &str) -> Result<Option<bool>> {
    let Ok(id) = uuid::Uuid::try_parse(id) else { return Ok(None) };
    sql::query_opt(
        "SELECT t.revoked_at IS NULL AND t.expires_at > pg_catalog.statement_timestamp() \
         FROM tenancy.extension_tokens AS t WHERE t.id = $1",
        &[id.into()],
        Mode::ReadLatest,
        |row| Ok(row.get(1).unwrap_or(false)),
    )
}
