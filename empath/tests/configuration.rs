//! The configuration file: what ships, what is documented, what is refused.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use empath::config::{self, Config, Node};
use ron::extensions::Extensions;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped() -> String {
    fs::read_to_string(root().join("empath.config.ron")).unwrap()
}

/// A configuration in which every table there is stands at least once.
fn complete() -> String {
    let mut config = Config::default();
    config
        .delivery
        .domains
        .insert("*.test".parse().unwrap(), empath_delivery::config::DomainConfig::default());
    let module = empath_ffi::ModuleConfig { path: "module.so".into(), ..Default::default() };
    config.modules.push(module);
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    options.to_string_pretty(&config, ron::ser::PrettyConfig::default()).unwrap()
}

/// The errors of a file with this text, without the name of the file.
fn errors(octets: &[u8]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empath.config.ron");
    fs::write(&path, octets).unwrap();
    let Err(errors) = config::load(Some(&path)) else {
        return Vec::new();
    };
    let prefix = format!("{}:", path.display());
    errors.to_string().lines().map(|line| line.strip_prefix(&prefix).unwrap().to_owned()).collect()
}

#[test]
fn the_shipped_configuration_has_no_errors_and_its_paths_start_at_its_directory() {
    let loaded = config::load(Some(&root().join("empath.config.ron"))).unwrap();
    let root = fs::canonicalize(root()).unwrap();
    assert_eq!(loaded.dir, root);
    assert_eq!(loaded.config.spool.path, root.join("var/spool"));
    assert_eq!(loaded.config.control_socket, root.join("var/control.sock"));
    let maildir = root.join("var/mail/{address}");
    assert!(loaded.config.delivery.domains.values().all(|domain| domain.maildir.as_ref() == Some(&maildir)));
}

#[test]
fn the_shipped_configuration_stays_on_this_machine_and_sends_nothing_elsewhere() {
    let config = config::load(Some(&root().join("empath.config.ron"))).unwrap().config;
    let smtp = config.smtp.listeners.iter().map(|listener| listener.socket);
    let http = [config.health.listen_address, config.metrics.listen_address];
    assert!(smtp.chain(http).all(|address| address.ip().is_loopback()));
    assert!(config.smtp.relay_networks.iter().all(|network| network.addr().is_loopback()));
    let everything = config.delivery.domains.get(&"*".parse().unwrap()).unwrap();
    assert!(everything.maildir.is_some() && everything.mx_override.is_none());
}

#[test]
fn defaults_written_out_are_read_back() {
    assert_eq!(errors(complete().as_bytes()), [""; 0]);
}

#[test]
fn a_key_that_does_not_exist_is_refused_in_every_table() {
    for (text, at_least) in [(shipped(), 10), (complete(), 17)] {
        let tables = tables(&Node::parse(&text).unwrap());
        assert!(tables.len() >= at_least, "only {} tables", tables.len());
        for place in tables {
            let (before, behind) = text.split_at(place);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            let errors = errors(format!("{before}spurious_key: 1, {behind}").as_bytes());
            assert_eq!(errors.len(), 1, "{errors:#?}");
            let expected = format!("{line}:{column}: unknown key `spurious_key`; known are ");
            assert!(errors.concat().starts_with(&expected), "{errors:#?}");
        }
    }
}

/// Where the keys of each table begin.
fn tables(node: &Node) -> Vec<usize> {
    node.table.into_iter().chain(node.entries.iter().flat_map(|entry| tables(&entry.value))).collect()
}

#[test]
fn a_misspelt_key_is_one_error_that_names_the_right_one() {
    let text = shipped().replace("relay_networks:", "relay_netwroks:");
    let line = text.lines().position(|line| line.contains("relay_netwroks:")).unwrap() + 1;
    let expected = format!("{line}:9: unknown key `relay_netwroks`; did you mean `relay_networks`?");
    assert_eq!(errors(text.as_bytes()), [expected]);
}

#[test]
fn errors_of_all_kinds_are_told_together() {
    let text = r#"Empath(
    smtp: (listeners: [(socket: "nowhere")], limits: (recipients: 0)),
    delivery: (retry: (base_delay: "1 moon"), domains: {"a b": ()}),
    helth: (enabled: true),
    log: (format: Txt, level: "empath=loud"),
)"#;
    let errors = errors(text.as_bytes());
    let places: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["2:33", "2:55", "3:36", "3:57", "4:5", "5:19", "5:24"], "{errors:#?}");
}

#[test]
fn a_key_that_comes_twice_in_another_spelling_has_its_place() {
    for (keys, expected) in [
        (r#"domains: {"X.test": (), "x.test": ()}"#, "2:25: x.test: the key `x.test` is given twice"),
        (r#"domains: {"*.x.test": (), "*.X.test": ()}"#, "2:27: *.X.test: the key `*.x.test` is given twice"),
        (
            r#"sender_routes: {"a@x.test": (lmtp: "h:24"), "a@X.test": (lmtp: "h:24")}"#,
            "2:45: a@X.test: the key `a@x.test` is given twice",
        ),
    ] {
        assert_eq!(errors(format!("Empath(delivery: (\n{keys}))").as_bytes()), [expected], "{keys}");
    }
    // The local part is its host's business.
    let apart =
        r#"Empath(delivery: (sender_routes: {"a@x.test": (lmtp: "h:24"), "A@x.test": (lmtp: "h:24")}))"#;
    assert_eq!(errors(apart.as_bytes()), [""; 0]);
}

#[test]
fn a_daemon_without_a_listener_is_refused_and_free_ports_are_not_one_address() {
    let errors_of_listeners = errors(b"Empath(smtp: (listeners: []))").concat();
    assert!(errors_of_listeners.starts_with("1:15: smtp.listeners: is empty"), "{errors_of_listeners}");
    let same = |port: u16| {
        let address = format!("(listen_address: \"127.0.0.1:{port}\")");
        errors(format!("Empath(health: {address}, metrics: {address})").as_bytes())
    };
    assert_eq!(same(0), [""; 0]);
    assert_eq!(same(8080).len(), 1);
}

#[test]
fn files_that_are_no_text_are_described() {
    for (octets, expected) in [
        (&b"Empath(\n  hostname: \"\xff\")"[..], "2:14: an octet that is not UTF-8"),
        (b"\xef\xbb\xbfEmpath()", "1:1: begins with a byte order mark"),
        (b"", "1:1: "),
        (&vec![b' '; (10 << 20) + 1], " is larger than 10 MiB"),
    ] {
        let errors = errors(octets);
        assert!(errors.len() == 1 && errors.concat().starts_with(expected), "{errors:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = config::load(Some(Path::new("/nonexistent/empath.config.ron"))).unwrap_err().to_string();
    assert!(errors.starts_with("/nonexistent/empath.config.ron: can't be read: "), "{errors}");
}

/// `UPDATE_GOLDEN=1` rewrites it.
#[test]
fn the_documentation_is_what_the_source_says() {
    let path = root().join("docs/configuration.md");
    let reference = config::reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let documentation = fs::read_to_string(&path).unwrap_or_default();
    assert!(documentation == reference, "docs/configuration.md is out of date: UPDATE_GOLDEN=1 cargo test");
}

fn check(directory: &Path, option: Option<&str>, variable: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_empath"));
    command.arg("check").current_dir(directory).env_remove("EMPATH_CONFIG");
    option.map(|path| command.args(["--config", path]));
    variable.map(|path| command.env("EMPATH_CONFIG", path));
    command.output().unwrap()
}

#[test]
fn the_file_is_looked_for_in_the_documented_order() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["option", "variable", "empath.config"] {
        fs::write(directory.path().join(format!("{name}.ron")), "Empath(wrong: 1)").unwrap();
    }
    for (option, variable, expected) in [
        (Some("option.ron"), Some("variable.ron"), "option.ron:1:8: "),
        (None, Some("variable.ron"), "variable.ron:1:8: "),
        (None, None, "./empath.config.ron:1:8: "),
    ] {
        let output = check(directory.path(), option, variable);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.starts_with(expected), "{errors}");
        assert_eq!(output.status.code(), Some(78));
    }
    fs::write(directory.path().join("empath.config.ron"), "Empath()").unwrap();
    assert_eq!(check(directory.path(), None, None).status.code(), Some(0));
}
