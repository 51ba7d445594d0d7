//! audit_isolation_sarif, against the schema of SARIF 2.1.0 itself (tests/data, without its descriptions).

use crate::audit_rules::audited;
use crate::world::value;
use postgres::Client;
use serde_json::{Map, Value, json};

/// As much of JSON Schema as that schema uses; another keyword is a panic, so that nothing passes unlooked at.
struct Schema(Value);

impl Schema {
    fn check(&self, value: &Value, schema: &Map<String, Value>, path: &str) -> Result<(), String> {
        for (keyword, wanted) in schema {
            let holds = match keyword.as_str() {
                "$schema" | "$id" | "title" | "definitions" | "format" | "description" => true,
                "$ref" => {
                    let name = wanted.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
                    return self.check(value, self.0["definitions"][name].as_object().unwrap(), path);
                }
                "type" => match wanted.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                },
                "enum" => wanted.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
                "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
                "uniqueItems" => value
                    .as_array()
                    .is_none_or(|items| items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))),
                "required" => value.as_object().is_none_or(|object| {
                    wanted.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
                }),
                "anyOf" => wanted.as_array().unwrap().iter().any(|one| self.fits(value, one, path)),
                "oneOf" => wanted.as_array().unwrap().iter().filter(|one| self.fits(value, one, path)).count() == 1,
                "properties" | "additionalProperties" | "items" => true,
                other => panic!("{path}: the schema says {other}, which this does not know"),
            };
            if !holds {
                return Err(format!("{path}: {value} is not as {keyword} {wanted} says"));
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(items) = schema.get("items").and_then(Value::as_object) {
                self.check(item, items, &format!("{path}[{index}]"))?;
            }
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match (schema.get("properties").and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(known), _) => self.check(member, known.as_object().unwrap(), &path)?,
                (None, Some(Value::Bool(false))) => return Err(format!("{path} is not in the schema")),
                (None, Some(Value::Object(others))) => self.check(member, others, &path)?,
                (None, _) => (),
            }
        }
        Ok(())
    }

    fn fits(&self, value: &Value, schema: &Value, path: &str) -> bool {
        self.check(value, schema.as_object().unwrap(), path).is_ok()
    }
}

fn verdict(document: &Value) -> Result<(), String> {
    let schema = Schema(serde_json::from_str(include_str!("../data/sarif-2.1.0.schema.json")).unwrap());
    schema.check(document, schema.0.as_object().unwrap(), "$")
}

fn check(document: &Value) {
    verdict(document).unwrap();
}

#[test]
fn the_schema_refuses_what_is_no_sarif() {
    let good = json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x", "rules": [{"id": "a"}]}}, "results": [{"message": {"text": "t"}}]}]});
    check(&good);
    for (pointer, wrong) in [
        ("/version", json!("2.0.0")),
        ("/runs", json!({})),
        ("/runs/0/tool", json!({})),
        ("/runs/0/tool/driver/name", json!(1)),
        ("/runs/0/tool/driver/rules/0", json!({"name": "without an id"})),
        ("/runs/0/tool/driver/rules", json!([{"id": "a"}, {"id": "a"}])),
        ("/runs/0/results/0/message", json!({})),
        ("/runs/0/results/0", json!({"message": {"text": "t"}, "level": "fatal"})),
        ("/runs/0/results/0", json!({"message": {"text": "t"}, "ruleIndex": -2})),
        ("/runs/0/results/0", json!({"message": {"text": "t"}, "rule": "unknown"})),
        ("/runs/0/results/0", json!({"message": {"text": "t"}, "suppressions": [{"kind": "because"}]})),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = wrong;
        assert!(verdict(&document).is_err(), "{document}");
    }
}

#[test]
fn sarif_has_every_rule_and_every_finding_and_what_is_waived_as_suppressed() {
    let database = audited();
    let mut ops = database.connect("ops");
    let sarif = |ops: &mut Client| -> Value {
        serde_json::from_str(&value(ops, "SELECT tenancy.audit_isolation_sarif()::text")).unwrap()
    };
    let clean = sarif(&mut ops);
    check(&clean);
    assert_eq!(clean["version"], "2.1.0");
    assert_eq!(clean["runs"][0]["results"], json!([]), "nothing found is an empty list");

    ops.batch_execute("CREATE TABLE shop.countries (code text); CREATE TABLE shop.plain (id int); SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'for all')")
        .unwrap();
    let found = sarif(&mut ops);
    check(&found);
    let run = &found["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        let waived = result["message"]["text"].as_str().unwrap().starts_with("shop.countries");
        assert_eq!(result["suppressions"][0]["justification"] == "for all", waived, "{result}");
    }
    let rules = value(&mut ops, "SELECT count(*)::text FROM tenancy.audit_rules()");
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len().to_string(), rules);
}
