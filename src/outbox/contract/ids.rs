//! Ids in an event that become keys here: as everywhere else short lines of text, so that one that is none is refused
//! when it is read, and does not fail where it is written.

use super::{Kind, Problem};
use serde_json::{Map, Value};

/// As many characters as an id has at most.
const LONGEST: usize = 255;

/// Checks the ids of an event's data, and of the envelope's metadata where they say who pays.
///
/// An empty user or organization is valid in contract H: it names nobody.
pub fn check(kind: Kind, data: &Value, metadata: Option<&Map<String, Value>>) -> Result<(), Problem> {
    let named = |name: &str| data.get(name).and_then(Value::as_str).filter(|id| !id.is_empty());
    for (place, id) in [("data.user_id", named("user_id")), ("data.org_id", named("org_id"))] {
        id.map_or(Ok(()), |id| one(place, id))?;
    }
    match kind {
        Kind::PipelineRequested => {
            let org_id = metadata.and_then(|metadata| metadata.get("org_id")).and_then(Value::as_str);
            org_id.filter(|id| !id.is_empty()).map_or(Ok(()), |id| one("metadata.org_id", id))
        }
        Kind::BatchEssaysRegistered => {
            let essays = data.get("essay_ids").and_then(Value::as_array).into_iter().flatten();
            essays.filter_map(Value::as_str).try_for_each(|id| one("data.essay_ids", id))
        }
        _ => Ok(()),
    }
}

fn one(place: &str, id: &str) -> Result<(), Problem> {
    let problem = if id.trim().is_empty() {
        "must not be blank".to_owned()
    } else if id.chars().count() > LONGEST {
        format!("must have at most {LONGEST} characters")
    } else if id.chars().any(char::is_control) {
        "must not contain control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Problem { reason: "invalid_data", message: format!("{place}: {problem}") })
}
