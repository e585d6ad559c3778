use empath_smtp::server::Config;

fn problems(json: &str) -> Vec<String> {
    let config: Config = serde_json::from_str(json).unwrap();
    config.validate().into_iter().map(|problem| problem.key).collect()
}

#[test]
fn the_defaults_are_those_that_the_manual_names() {
    let config = Config::default();
    assert!(config.validate().is_empty());
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["listeners"][0]["socket"], "[::]:25");
    assert_eq!(json["listeners"][0]["timeouts"]["command"], "5m");
    assert_eq!(json["relay_networks"], serde_json::json!(["127.0.0.0/8", "::1/128"]));
    assert_eq!(json["limits"]["message_size"], "25MiB");
    assert_eq!(json["limits"]["future_release"], "7days");
    assert_eq!(json["bare_newlines"], "Reject");
    assert_eq!(serde_json::to_value(serde_json::from_str::<Config>("{}").unwrap()).unwrap(), json);
}

#[test]
fn every_problem_is_found_at_its_place() {
    let json = r#"{
        "listeners": [
            {"socket": "127.0.0.1:25", "timeouts": {"command": "0s"}},
            {"socket": "127.0.0.1:25"},
            {"socket": "127.0.0.1:0", "mode": "Submissions"},
            {"socket": "127.0.0.1:0"}
        ],
        "client_ca": "ca.pem",
        "limits": {"recipients": 0, "command_line": 511, "content_line": 999}
    }"#;
    let places = [
        "listeners[0].timeouts.command",
        "listeners[1].socket",
        "listeners[2].mode",
        // It means nothing without a certificate of ours, and is not there.
        "client_ca",
        "client_ca",
        "limits.recipients",
        "limits.command_line",
        "limits.content_line",
    ];
    assert_eq!(problems(json), places);
}

#[test]
fn messages_wait_for_a_second_at_least_and_a_year_at_most() {
    for (longest, is_good) in [
        ("\"0s\"", false),
        ("\"900ms\"", false),
        ("\"1s\"", true),
        ("\"365d\"", true),
        ("\"366d\"", false),
        ("null", true),
    ] {
        let found = problems(&format!(r#"{{"limits": {{"future_release": {longest}}}}}"#));
        let expected: &[&str] = if is_good { &[] } else { &["limits.future_release"] };
        assert_eq!(found, expected, "{longest}");
    }
}

#[test]
fn a_name_has_one_certificate() {
    let json = r#"{"tls": [{"names": ["*", "a.test"]}, {"names": ["A.test"]}]}"#;
    let places = problems(json);
    assert_eq!(places.iter().filter(|place| place.contains("names")).collect::<Vec<_>>(), ["tls[1].names"]);
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for json in [
        r#"{"spurious": 1}"#,
        r#"{"limits": {"spurious": 1}}"#,
        r#"{"listeners": [{"spurious": 1}]}"#,
        r#"{"tls": [{"spurious": 1}]}"#,
        r#"{"listeners": [{"timeouts": {"spurious": "1s"}}]}"#,
    ] {
        assert!(serde_json::from_str::<Config>(json).is_err(), "{json}");
    }
}
