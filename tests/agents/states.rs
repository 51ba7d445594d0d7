//! Agent state: the contract's defaults, whose it is, and who saved last.

use crate::common::{Token, cluster, in_parallel, refused};
use crate::world::{acting, ask, list, member};
use postgres::{Client, Error};
use serde_json::{Value, json};

fn create(client: &mut Client, id: &str) -> Result<Value, Error> {
    ask(client, "SELECT tenancy.create_agent_state($1)", &[&id])
}

fn get(client: &mut Client, id: &str) -> Option<Value> {
    ask(client, "SELECT tenancy.get_agent_state($1)", &[&id]).unwrap()
}

fn save(client: &mut Client, id: &str, state: &Value) -> Result<i64, Error> {
    ask(client, "SELECT tenancy.save_agent_state($1, $2)", &[&id, state])
}

fn with(state: &Value, name: &str, value: Value) -> Value {
    let mut state = state.clone();
    state[name] = value;
    state
}

#[test]
fn a_new_state_has_the_contract_s_fields_and_defaults() {
    let database = cluster().database();
    let mut alice = member(&database, "alice", "acme", "org:member");
    let expected = json!({
        "messages": [], "tool_results": [], "router_recommendation": null, "next_action": null, "error": null,
        "retry_count": 0, "conversation_id": "c-1", "user_id": "alice", "metadata": {}, "org_id": "acme", "version": 1});
    assert_eq!(create(&mut alice, "c-1").unwrap(), expected);
    assert_eq!(get(&mut alice, "c-1").unwrap(), expected);
    let metadata = json!({"source": "web", "locale": "sv"});
    let created: Value = ask(&mut alice, "SELECT tenancy.create_agent_state('c-2', $1)", &[&metadata]).unwrap();
    assert_eq!(created["metadata"], metadata);
    let created: Value = ask(&mut alice, "SELECT tenancy.create_agent_state('c-3', NULL)", &[]).unwrap();
    assert_eq!(created["metadata"], json!({}));
    let mut personal = acting(&database, &Token::for_user("alice"));
    assert_eq!(create(&mut personal, "c-1").unwrap()["org_id"], Value::Null);
    assert_eq!(get(&mut personal, "unknown"), None);
}

#[test]
fn a_save_keeps_what_it_was_given_and_counts() {
    let database = cluster().database();
    let mut alice = member(&database, "alice", "acme", "org:member");
    let first = create(&mut alice, "c").unwrap();
    let mut state = with(&first, "messages", json!([{"role": "user", "content": "hej"}]));
    for (action, retry) in [("llm", 0), ("tools", 1), ("validate", 2), ("end", 0)] {
        state["next_action"] = json!(action);
        state["retry_count"] = json!(retry);
        state["product"] = json!({"own": action});
        let version = save(&mut alice, "c", &state).unwrap();
        state["version"] = json!(version);
        assert_eq!(get(&mut alice, "c").unwrap(), state);
    }
    assert_eq!(state["version"], 5);
    refused(save(&mut alice, "c", &first), "PT409", "stale_version");
    let ahead = with(&state, "version", json!(99));
    let error = refused(save(&mut alice, "c", &ahead), "PT409", "stale_version");
    assert!(error.detail().unwrap().contains("\"version\": 5"), "{error:?}");
    refused(create(&mut alice, "c"), "PT409", "conversation_exists");
    refused(save(&mut alice, "d", &with(&state, "conversation_id", json!("d"))), "PT404", "conversation_not_found");
    let delete = "SELECT tenancy.delete_agent_state('c')";
    assert!(ask::<bool>(&mut alice, delete, &[]).unwrap() && !ask::<bool>(&mut alice, delete, &[]).unwrap());
    assert_eq!(get(&mut alice, "c"), None);
}

#[test]
fn what_is_no_state_is_refused() {
    let database = cluster().database();
    let mut alice = member(&database, "alice", "acme", "org:member");
    let state = create(&mut alice, "c").unwrap();
    for (field, value) in [
        ("messages", json!({})),
        ("tool_results", Value::Null),
        ("router_recommendation", json!("llm")),
        ("next_action", json!("rest")),
        ("next_action", json!(1)),
        ("error", json!({})),
        ("retry_count", json!(-1)),
        ("retry_count", json!(0.5)),
        ("retry_count", json!("0")),
        ("metadata", json!([])),
        ("conversation_id", json!("other")),
        ("user_id", Value::Null),
    ] {
        let error = refused(save(&mut alice, "c", &with(&state, field, value)), "22023", "invalid_state");
        assert!(error.detail().unwrap().contains(field), "{field}: {error:?}");
    }
    for field in state.as_object().unwrap().keys() {
        let mut partial = state.clone();
        partial.as_object_mut().unwrap().remove(field);
        let reason = if field == "version" { "version_required" } else { "invalid_state" };
        refused(save(&mut alice, "c", &partial), "22023", reason);
    }
    for version in [json!("1"), json!(1.5), json!(-1), Value::Null] {
        refused(save(&mut alice, "c", &with(&state, "version", version)), "22023", "version_required");
    }
    for value in [json!([]), Value::Null, json!("state")] {
        refused(save(&mut alice, "c", &value), "22023", "invalid_argument");
    }
    let large = with(&state, "error", json!("x".repeat(1 << 20)));
    refused(save(&mut alice, "c", &large), "54000", "too_large");
    let metadata = json!({"x": "y".repeat(1 << 16)});
    let create_with = "SELECT tenancy.create_agent_state('d', $1)";
    refused(ask::<Value>(&mut alice, create_with, &[&metadata]), "54000", "too_large");
    refused(ask::<Value>(&mut alice, create_with, &[&json!([])]), "22023", "invalid_argument");
    for function in ["create_agent_state", "get_agent_state", "delete_agent_state"] {
        for id in ["NULL", "''"] {
            let statement = format!("SELECT tenancy.{function}({id})::text");
            refused(ask::<String>(&mut alice, &statement, &[]), "22023", "invalid_argument");
        }
    }
    let mut nobody = database.connect("app");
    for statement in [
        "SELECT tenancy.create_agent_state('c')",
        "SELECT tenancy.get_agent_state('c')",
        "SELECT tenancy.save_agent_state('c', '{}')",
        "SELECT tenancy.delete_agent_state('c')",
    ] {
        refused(nobody.query(statement, &[]), "PT401", "not_authenticated");
    }
}

#[test]
fn a_conversation_is_its_user_s_in_its_organization() {
    let database = cluster().database();
    let direct = "SELECT concat_ws('/', tenant_id, org_id, user_id, conversation_id, state ->> 'error') FROM tenancy.agent_states";
    let mut own = Vec::new();
    for (user, org) in [("alice", "acme"), ("bob", "acme"), ("alice", "beta")] {
        let mut client = member(&database, user, org, "owner");
        assert_eq!(get(&mut client, "c"), None, "{user} in {org} sees nobody else's");
        let state = create(&mut client, "c").unwrap();
        save(&mut client, "c", &with(&state, "error", json!(format!("{user} {org}")))).unwrap();
        client.batch_execute("COMMIT").unwrap();
        own.push((user, org, state));
    }
    for (user, org, state) in &own {
        let mut client = member(&database, user, org, "owner");
        assert_eq!(get(&mut client, "c").unwrap()["error"], format!("{user} {org}"));
        assert_eq!(list(&mut client, direct), [format!("{org}/{org}/{user}/c/{user} {org}")]);
        // A state that says it is somebody else's is not saved as one's own.
        for (_, _, other) in own.iter().filter(|(u, o, _)| (u, o) != (user, org)) {
            refused(save(&mut client, "c", &with(other, "version", json!(2))), "PT403", "identity_mismatch");
        }
        assert_eq!(state["user_id"], *user);
    }
    let mut personal = acting(&database, &Token::for_user("alice"));
    assert!(list(&mut personal, direct).is_empty());
    create(&mut personal, "c").unwrap();
    assert_eq!(list(&mut personal, direct), ["user::alice//alice/c"]);
    assert!(database.connect("app").query(direct, &[]).unwrap().is_empty());
}

#[test]
fn of_sessions_that_save_the_same_version_one_wins() {
    let database = cluster().database();
    let mut alice = member(&database, "alice", "acme", "org:member");
    let state = create(&mut alice, "c").unwrap();
    alice.batch_execute("COMMIT").unwrap();
    let outcomes = in_parallel(8, |index| {
        let mut client = member(&database, "alice", "acme", "org:member");
        let outcome = save(&mut client, "c", &with(&state, "retry_count", json!(index)));
        client.batch_execute("COMMIT").unwrap();
        outcome.map_err(|error| error.as_db_error().unwrap().code().code().to_owned())
    });
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(2)).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err("PT409".to_owned())).count(), 7, "{outcomes:?}");
}
