use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::{Map, Value};

use super::Config;

const INTRODUCTION: &str = "\
# Configuration

<!-- Printed by `empath config-reference` from the comments in the source. -->

The configuration is one file in [RON](https://github.com/ron-rs/ron). It is the file after `--config`, else the one that
`EMPATH_CONFIG` names, else `./empath.config.ron`, else `/etc/empath/empath.config.ron`. Every key is optional; a key that
does not exist is an error. `empath check` prints every error with its line and column.

- Relative paths start at the directory of the file.
- Durations are strings: `\"30s\"`, `\"5m\"`, `\"4h\"`, `\"5d\"`. Sizes are strings or octets: `\"25MiB\"`, `1024`.
- Optional values are written plainly (`limit: 100`, not `Some(100)`); `None` is none.
";

/// `docs/configuration.md`: every key with its type, its default and its meaning.
pub fn reference() -> String {
    let schema = schema_for!(Config).to_value();
    let mut page = Page { text: INTRODUCTION.to_owned(), definitions: object(schema.get("$defs")) };
    page.keys("", &schema);
    page.text
}

struct Page {
    text: String,
    definitions: Map<String, Value>,
}

/// A value, by what its type's schema says.
struct Type<'a> {
    /// In words: `a list of strings`.
    words: String,
    /// Its keys, if it is a table or has tables in it.
    table: Option<&'a Value>,
    /// How the path goes on to those: `[…]` for lists.
    step: &'static str,
    /// Its possible values, each with what it means.
    values: Vec<(&'a str, &'a str)>,
}

impl Page {
    /// The keys of a table, those that are tables themselves behind the others.
    fn keys(&mut self, path: &str, table: &Value) {
        let definitions = self.definitions.clone();
        let properties = object(table.get("properties"));
        let mut tables = Vec::new();
        for (name, property) in &properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let kind = Type::of(property, &definitions);
            if let Some(table) = kind.table {
                tables.push((path, property, kind.step, table));
            } else {
                self.key(&path, property, &kind);
            }
        }
        for (path, property, step, table) in tables {
            let path = format!("{path}{step}");
            self.line(format_args!("\n## `{path}`\n"));
            let described = text(property, "description");
            self.line(format_args!(
                "{}",
                if described.is_empty() { text(table, "description") } else { described }
            ));
            self.keys(&path, table);
        }
    }

    fn key(&mut self, path: &str, property: &Value, kind: &Type<'_>) {
        self.line(format_args!("\n### `{path}`\n"));
        let bare = !kind.values.is_empty();
        let description = text(property, "description");
        match property.get("default").filter(|_| !description.contains("efault:")) {
            Some(default) => self.line(format_args!("{}, default `{}`\n", kind.words, ron(default, bare))),
            None => self.line(format_args!("{}\n", kind.words)),
        }
        self.line(format_args!("{description}"));
        if bare {
            self.line(format_args!(""));
        }
        for (value, meaning) in &kind.values {
            self.line(format_args!("- `{value}`: {}", meaning.replace('\n', " ")));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String never fails.
        let _ = writeln!(self.text, "{line}");
    }
}

impl<'a> Type<'a> {
    fn of(schema: &'a Value, definitions: &'a Map<String, Value>) -> Self {
        let plain = |words: &str| Self { words: words.to_owned(), table: None, step: "", values: Vec::new() };
        let reference = text(schema, "$ref").strip_prefix("#/$defs/");
        if let Some(definition) = reference.and_then(|name| definitions.get(name)) {
            return Self::of(definition, definitions);
        }
        if let Some(variants) = schema.get("anyOf").and_then(Value::as_array) {
            // Option<T> is T or null.
            let inner = variants.iter().find(|variant| text(variant, "type") != "null").unwrap_or(schema);
            let inner = Self::of(inner, definitions);
            return Self { words: format!("{}, optional", inner.words), ..inner };
        }
        let values = values(schema);
        if !values.is_empty() {
            return Self { values, ..plain("one of the values below") };
        }
        if schema.get("properties").is_some() {
            return Self { table: Some(schema), ..plain("a table") };
        }
        if let Some(items) = schema.get("items") {
            let item = Self::of(items, definitions);
            let words = format!("list ({})", item.words);
            return Self { words, step: "[…]", ..item };
        }
        if let Some(members) = schema.get("additionalProperties").filter(|members| members.is_object()) {
            let member = Self::of(members, definitions);
            return Self { words: format!("map to {}", member.words), step: "[\"…\"]", ..member };
        }
        match schema.get("type") {
            Some(Value::Array(types)) => {
                let kind = types.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
                plain(&format!("{}, optional", kind.map_or("value", |kind| word(kind, ""))))
            }
            Some(Value::String(kind)) => plain(word(kind, text(schema, "format"))),
            _ => plain("value"),
        }
    }
}

fn word<'a>(kind: &'a str, format: &'a str) -> &'a str {
    match (kind, format) {
        ("string", "size") => "size",
        ("string", "duration") => "duration",
        ("integer", _) => "whole number",
        ("boolean", _) => "`true` or `false`",
        (kind, _) => kind,
    }
}

/// The variants of an enum of plain names, with their comments.
fn values(schema: &Value) -> Vec<(&str, &str)> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let names = listed.filter_map(Value::as_str).map(|name| (name, ""));
    let more = described.flat_map(|variant| match variant.get("const").and_then(Value::as_str) {
        Some(name) => vec![(name, text(variant, "description"))],
        None => values(variant),
    });
    names.chain(more).collect()
}

/// A default as it is written in the file.
fn ron(value: &Value, bare: bool) -> String {
    let list = |items: &[Value]| items.iter().map(|item| ron(item, bare)).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "None".to_owned(),
        Value::String(name) if bare => name.clone(),
        Value::Array(items) => format!("[{}]", list(items)),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{key:?}: {}", ron(value, bare)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use humantime_serde::re::humantime::parse_duration;

    use super::*;

    /// Comments whose `Default: …` is not the `Default` of their type: two places for one truth.
    fn wrong(path: &str, table: &Value, definitions: &Map<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        for (name, property) in object(table.get("properties")) {
            let path = format!("{path}.{name}");
            let kind = Type::of(&property, definitions);
            if let Some(table) = kind.table {
                found.extend(wrong(&path, table, definitions));
                continue;
            }
            let default = property.get("default").unwrap_or(&Value::Null);
            let real = ron(default, !kind.values.is_empty());
            let description = text(&property, "description").replace('\n', " ");
            let told = description.split_once("efault: `").and_then(|(_, rest)| rest.split_once('`'));
            // What stands for a value that is not given may need words.
            let Some((told, _)) = told.filter(|_| !default.is_null()) else {
                continue;
            };
            let duration = |text: &str| parse_duration(text.trim_matches('"')).ok();
            if told != real && (duration(told).is_none() || duration(told) != duration(&real)) {
                found.push(format!("{path}: told {told}, really {real}"));
            }
        }
        found
    }

    #[test]
    fn every_comment_names_the_real_default() {
        let schema = schema_for!(Config).to_value();
        let found = wrong("", &schema, &object(schema.get("$defs")));
        assert!(found.is_empty(), "{found:#?}");
    }
}
