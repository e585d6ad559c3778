//! What is different between two configurations, by key. Values stay out of it: some are nobody's business.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;

/// The keys whose values differ, with paths from the root: `delivery.domains["example.test"].rate_limit`. Lists are one key.
pub fn differences(before: &Config, after: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    // Every configuration can be written down.
    let value = |config| serde_json::to_value(config).unwrap_or_default();
    compare("", &value(before), &value(after), &mut keys);
    keys
}

fn compare(path: &str, before: &Value, after: &Value, keys: &mut Vec<String>) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        if before != after {
            keys.push(path.to_owned());
        }
        return;
    };
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        let path = match path {
            "" => name.clone(),
            "delivery.domains" | "delivery.sender_routes" | "delivery.sources" => {
                format!("{path}[\"{name}\"]")
            }
            _ => format!("{path}.{name}"),
        };
        match (before.get(name), after.get(name)) {
            (Some(before), Some(after)) => compare(&path, before, after, keys),
            _ => keys.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read::read, *};

    fn config(text: &str) -> Config {
        read(text, |_| Vec::new()).unwrap()
    }

    #[test]
    fn each_key_that_differs_is_named_once_and_no_value() {
        let before = config(
            r#"Empath(hostname: "a.test", smtp: (relay_domains: ["x.test"]), delivery: (domains: {
                "a.test": (rate_limit: 5), "*.b.test": (maildir: "{local}"), "same.test": (rate_limit: 1),
                "c.test": (smarthost: (hosts: ["r.test"], auth: (user: "me", password_file: "hunter2"))) },
                sender_routes: {"news@home.test": (mx_override: "a.test"), "<>": (mx_override: "a.test")},
                sources: {"a": [(ipv4: "192.0.2.1")]}))"#,
        );
        let after = config(
            r#"Empath(hostname: "b.test", smtp: (relay_domains: ["y.test"], limits: (recipients: 5)), delivery: (
                retry: (base_delay: "7s", delays: "1m"), domains: {
                "a.test": (rate_limit: 6), "same.test": (rate_limit: 1), "new.test": (),
                "c.test": (smarthost: (hosts: ["r.test"], auth: (user: "you", password_file: "hunter3"))) },
                sender_routes: {"news@home.test": (mx_override: "b.test")},
                sources: {"a": [(ipv4: "192.0.2.2")], "b": [(ipv4: "192.0.2.1")]}))"#,
        );
        let expected = [
            "delivery.domains[\"*.b.test\"]",
            "delivery.domains[\"a.test\"].rate_limit",
            "delivery.domains[\"c.test\"].smarthost.auth.password_file",
            "delivery.domains[\"c.test\"].smarthost.auth.user",
            "delivery.domains[\"new.test\"]",
            "delivery.retry.base_delay",
            "delivery.retry.delays",
            "delivery.sender_routes[\"<>\"]",
            "delivery.sender_routes[\"news@home.test\"].mx_override",
            "delivery.sources[\"a\"]",
            "delivery.sources[\"b\"]",
            "hostname",
            "smtp.limits.recipients",
            "smtp.relay_domains",
        ];
        assert_eq!(differences(&before, &after), expected);
        assert_eq!(differences(&before, &before), Vec::<String>::new());
    }
}
