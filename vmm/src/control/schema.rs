// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Holds `docs/control.schema.json` and `docs/control.md` against the code: both are made from the
//! types and the examples. `LOCKSTORM_WRITE_DOCS=1 cargo test -p lockstorm schema` writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use lockstorm_device_model::Fault;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use super::commands::COUNTS;
use super::examples::{self, Example};
use super::reply::{EventLine, Reply};
use super::request::{Id, MAX_ID, PROTOCOL, Request};

/// Set to have the documents written instead of compared.
const WRITE: &str = "LOCKSTORM_WRITE_DOCS";

/// The schema of a fault's name.
pub(super) fn fault_names(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    json_schema!({ "type": "string", "enum": names })
}

/// The schema of all that goes over a control socket.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<Request>();
    generator.subschema_for::<Reply>();
    generator.subschema_for::<EventLine>();
    generator.subschema_for::<Id>();
    let mut definitions = generator.take_definitions(true);
    let requests = definitions["Request"]["oneOf"].as_array_mut().unwrap();
    let examples = examples::all();
    assert_eq!(requests.len(), examples.len(), "an example per request");
    for (request, example) in requests.iter_mut().zip(&examples) {
        assert_eq!(
            request["properties"]["command"]["const"],
            command(example),
            "the examples are in the order of the requests"
        );
        request["properties"]["version"] = json!({ "const": PROTOCOL });
        request["properties"]["id"] = json!({ "$ref": "#/$defs/Id" });
        request["examples"] = json!([serde_json::from_str::<Value>(example.line).unwrap()]);
    }
    let replies: Vec<_> = examples.iter().map(|example| &example.reply).collect();
    definitions["Reply"]["examples"] = json!(replies);
    definitions["EventLine"]["examples"] = json!([examples::event_line()]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Control socket of lockstorm, protocol version {PROTOCOL}"),
        "description": "A line from a client is a Request. A line from the server is a Reply, or \
                        an EventLine if the client has asked for the stream of events.",
        "anyOf": [
            { "$ref": "#/$defs/Request" },
            { "$ref": "#/$defs/Reply" },
            { "$ref": "#/$defs/EventLine" }
        ],
        "$defs": definitions
    })
}

fn command(example: &Example) -> Value {
    serde_json::to_value(&example.request).unwrap()["command"].take()
}

/// Compares the file `name` in `docs/` with what it must be.
fn hold(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, expected).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "docs/{name} is not what the code says: run \
         `{WRITE}=1 cargo test -p lockstorm schema` and look at the difference"
    );
}

#[test]
fn the_schema_is_the_code() {
    let text = serde_json::to_string_pretty(&schema()).unwrap();
    hold("control.schema.json", &format!("{text}\n"));
}

#[test]
fn the_examples_are_what_the_code_reads_and_writes() {
    for example in examples::all() {
        let line = example.line;
        let (request, id) = Request::parse(line.as_bytes()).unwrap();
        assert_eq!(request, example.request, "{line}");
        assert_eq!(id, example.reply.id, "{line}");
        let reply = example.reply.to_line();
        let again: Reply = serde_json::from_slice(&reply).unwrap();
        assert_eq!(again, example.reply, "{line}");
    }
    let line = serde_json::to_string(&examples::event_line()).unwrap();
    let again: EventLine = serde_json::from_str(&line).unwrap();
    assert_eq!(again, examples::event_line());
}

/// Each member that an example shows is in the schema, and each that the schema requires is in the
/// example.
#[test]
fn the_examples_fit_the_schema() {
    let schema = schema();
    let mut looked_at = 0;
    let definitions = &schema["$defs"];
    for request in definitions["Request"]["oneOf"].as_array().unwrap() {
        for example in request["examples"].as_array().unwrap() {
            fits(definitions, request, example, &mut looked_at);
        }
    }
    for name in ["Reply", "EventLine"] {
        for example in definitions[name]["examples"].as_array().unwrap() {
            fits(definitions, &definitions[name], example, &mut looked_at);
        }
    }
    assert!(looked_at > 200, "only {looked_at} values");
}

#[test]
fn the_schema_has_the_limits_of_the_code() {
    let schema = schema();
    let requests = schema["$defs"]["Request"]["oneOf"].as_array().unwrap();
    let mut limited = 0;
    for request in requests {
        let command = request["properties"]["command"]["const"].as_str().unwrap();
        if ["inject", "withhold", "fault"].contains(&command) {
            let count = &request["properties"]["count"];
            assert_eq!(count["minimum"], *COUNTS.start(), "{command}");
            assert_eq!(count["maximum"], *COUNTS.end(), "{command}");
            limited += 1;
        }
    }
    assert_eq!(limited, 3);
    assert_eq!(schema["$defs"]["Id"]["anyOf"][1]["maxLength"], MAX_ID);
}

/// As much of JSON Schema as the types here make use of.
fn fits(definitions: &Value, schema: &Value, value: &Value, looked_at: &mut usize) {
    *looked_at += 1;
    let mut keywords = schema.as_object().unwrap().clone();
    if let Some(reference) = keywords.remove("$ref") {
        let name = reference.as_str().unwrap().rsplit('/').next().unwrap();
        for (keyword, more) in definitions[name].as_object().unwrap() {
            merge(&mut keywords, keyword, more);
        }
    }
    if let Some(choices) = keywords.get("anyOf") {
        let choices = choices.as_array().unwrap();
        let choice = choices.iter().find(|choice| {
            let kind = choice.get("type").and_then(Value::as_str);
            kind.is_none_or(|kind| is_of(kind, value)) && !(value.is_null() && kind.is_none())
        });
        return fits(definitions, choice.expect("a choice"), value, looked_at);
    }
    let kinds = match keywords.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None => vec![],
    };
    let of_kind = kinds
        .iter()
        .any(|kind| is_of(kind.as_str().unwrap(), value));
    assert!(kinds.is_empty() || of_kind, "{value} is none of {kinds:?}");
    for choices in ["enum", "const"] {
        if let Some(allowed) = keywords.get(choices) {
            let among = allowed.as_array().is_some_and(|all| all.contains(value));
            assert!(allowed == value || among, "{value} is not {allowed}");
        }
    }
    if let Some(items) = value.as_array() {
        for item in items {
            fits(definitions, &keywords["items"], item, looked_at);
        }
    }
    let (Some(members), Some(properties)) = (value.as_object(), keywords.get("properties")) else {
        return;
    };
    for (name, member) in members {
        let member_schema = properties.get(name);
        let member_schema = member_schema.unwrap_or_else(|| panic!("no `{name}` in the schema"));
        fits(definitions, member_schema, member, looked_at);
    }
    for name in keywords
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        assert!(
            members.contains_key(name.as_str().unwrap()),
            "{name} is missing in {value}"
        );
    }
}

fn merge(keywords: &mut Map<String, Value>, keyword: &str, more: &Value) {
    match (keywords.get_mut(keyword), more) {
        (Some(Value::Object(members)), Value::Object(more)) => {
            members.extend(more.clone());
        }
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more.clone()),
        (Some(_), _) => {}
        (None, _) => drop(keywords.insert(keyword.to_owned(), more.clone())),
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

#[test]
fn the_documentation_is_the_code() {
    let schema = schema();
    let mut text = include_str!("introduction.md").to_owned();
    let requests = schema["$defs"]["Request"]["oneOf"].as_array().unwrap();
    text.push_str("\n## Requests\n");
    for (request, example) in requests.iter().zip(examples::all()) {
        let command = command(&example);
        let description = one_line(&request["description"]);
        let _ = write!(
            text,
            "\n### `{}`\n\n{description}\n\n",
            command.as_str().unwrap()
        );
        let _ = writeln!(text, "    {}", example.line);
        let reply = String::from_utf8(example.reply.to_line()).unwrap();
        // Long ones are in the schema in full.
        let reply = match reply.trim_end() {
            long if long.chars().count() > 200 => {
                let short: String = long.chars().take(200).collect();
                format!("{short} …")
            }
            short => short.to_owned(),
        };
        let _ = writeln!(text, "    → {reply}");
        members(&mut text, &schema["$defs"], request);
    }
    let definitions = &schema["$defs"];
    text.push_str("\n## What was counted\n");
    for (heading, name) in [
        ("`stats`", "MachineStats"),
        ("Each of its `devices`", "DeviceStats"),
        ("Each of their `rings`", "RingStats"),
        ("`storm`", "StormStatus"),
        ("`latency`", "Latency"),
        ("Each of its `buckets`", "Bucket"),
        ("Each of the machine's `slots`", "SlotStats"),
    ] {
        let description = one_line(&definitions[name]["description"]);
        let _ = write!(text, "\n{heading}: {description}\n");
        members(&mut text, definitions, &definitions[name]);
    }
    let line = serde_json::to_string(&examples::event_line()).unwrap();
    let _ = write!(text, "\n## Stream of events\n\n    {line}\n");
    for name in ["EventLine", "StreamedEvent"] {
        members(&mut text, definitions, &definitions[name]);
    }
    assert!(MAX_ID == 64 && text.contains("64 bytes"));
    hold("control.md", &text);
}

/// A table of the members of `object`.
fn members(text: &mut String, definitions: &Value, object: &Value) {
    let mut keywords = object.as_object().unwrap().clone();
    if let Some(reference) = object.get("$ref") {
        let name = reference.as_str().unwrap().rsplit('/').next().unwrap();
        for (keyword, more) in definitions[name].as_object().unwrap() {
            merge(&mut keywords, keyword, more);
        }
    }
    let properties = keywords["properties"].as_object().unwrap();
    let mut heading = "\n| member | | |\n|---|---|---|\n";
    for (name, member) in properties {
        if ["command", "version", "id"].contains(&name.as_str()) {
            continue;
        }
        let optional = match member.get("default") {
            Some(Value::Null) => "may be left out".to_owned(),
            Some(default) => format!("{default} if left out"),
            None => String::new(),
        };
        let description = one_line(&member["description"]);
        let _ = writeln!(text, "{heading}| `{name}` | {description} | {optional} |");
        heading = "";
        // The newline of the next row is that of `writeln`.
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn one_line(description: &Value) -> String {
    let words = description.as_str().unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}
