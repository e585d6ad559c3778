//! Real modules, compiled by the C compiler: what they see, what they can say, and what they can't break.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, sync::Arc,
    time::Duration,
};

use empath_common::{Answer, Asked, Client, Envelope, Hook, Hooks, Metadata, Query, TlsSession, Verdict};
use empath_ffi::{LoadError, Module, ModuleConfig};
use tempfile::TempDir;

const HEADER: &str = include_str!("../include/empath.h");

/// Compiles a module whose code is `source`, after the includes.
fn compile(dir: &TempDir, source: &str) -> PathBuf {
    let (file, library) = (dir.path().join("module.c"), dir.path().join("module.so"));
    let includes = "#include <fcntl.h>\n#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\n#include \"empath.h\"\n";
    fs::write(&file, format!("{includes}{source}\n")).unwrap();
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library
}

fn try_load(source: &str, argument: Option<&str>) -> Result<Module, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let config = ModuleConfig {
        path: compile(&dir, source),
        argument: argument.map(str::to_owned),
        ..ModuleConfig::default()
    };
    Module::load(&config)
}

fn load(source: &str) -> Module {
    try_load(source, None).unwrap()
}

fn client() -> Client {
    Client {
        helo: Some("client.test".into()),
        context: Arc::new(BTreeMap::from([("service".to_owned(), "smtp".to_owned())])),
        ..Client::new("192.0.2.1:40000".parse().unwrap(), "[2001:db8::1]:25".parse().unwrap())
    }
}

/// Asks about one recipient.
async fn ask(module: &Module) -> Answer {
    let (sender, recipient) = ("<s@home.test>".parse().unwrap(), "<b@example.test>".parse().unwrap());
    match module.ask(Query::RcptTo(&client(), &sender, &recipient)) {
        Asked::Now(answer) => answer,
        Asked::Later(answer) => answer.await,
    }
}

fn refusal(answer: Answer) -> String {
    match answer.verdict {
        Verdict::Refuse(reply) => reply.to_string(),
        Verdict::Accept => panic!("accepted"),
    }
}

fn pairs(metadata: &Metadata) -> Vec<(&str, &str)> {
    metadata.iter().collect()
}

#[tokio::test]
async fn a_module_sees_how_a_session_is_encrypted_and_who_authenticated() {
    let module = load(
        r#"
        static int tell(em_context *c) {
            const char *values[] = {em_context_name(c), em_context_user(c), em_context_tls_version(c),
                                    em_context_tls_cipher(c), em_context_tls_certificate(c)};
            char text[300] = "";
            for (int i = 0; i < 5; i++) {
                strcat(text, values[i] ? values[i] : "-");
                strcat(text, " ");
            }
            em_context_set_response(c, text);
            return 550;
        }
        EM_DECLARE_MODULE(Validation, .name = "tell", .connect = tell)"#,
    );
    let hooks = Hooks::new(vec![Arc::new(module)]);
    let tls = |certificate: Option<&str>| TlsSession {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        certificate: certificate.map(Into::into),
    };
    let known = Client {
        name: Some("client.example".into()),
        user: Some("alice".into()),
        tls: Some(tls(Some("CN=x"))),
        ..client()
    };
    let encrypted = Client { tls: Some(tls(None)), ..client() };
    for (client, told) in [
        (client(), "- - - - -"),
        (encrypted, "- - TLSv1.3 TLS_AES_256_GCM_SHA384 -"),
        (known, "client.example alice TLSv1.3 TLS_AES_256_GCM_SHA384 CN=x"),
    ] {
        assert_eq!(refusal(hooks.ask(Query::Connect(&client)).await), format!("550 5.7.1 {told} "));
    }
}

#[tokio::test]
async fn a_module_sees_the_client_the_listener_the_sender_and_the_recipients() {
    let module = load(
        r#"
        static void note(em_context *c, const char *name, const char *value) {
            em_context_set_metadata(c, name, value ? value : "(null)");
        }
        static int tell(em_context *c) {
            char count[8];
            snprintf(count, sizeof count, "%zu", em_context_recipients(c));
            note(c, "1 peer", em_context_peer(c));
            note(c, "2 local", em_context_local(c));
            note(c, "3 helo", em_context_helo(c));
            note(c, "4 service", em_context_listener(c, "service"));
            note(c, "5 other", em_context_listener(c, "other"));
            note(c, "6 sender", em_context_sender(c));
            note(c, "7 count", count);
            note(c, "8 first", em_context_recipient(c, 0));
            note(c, "9 third", em_context_recipient(c, 2));
            return EM_ACCEPT;
        }
        EM_DECLARE_MODULE(Validation, .name = "tell", .connect = tell, .ehlo = tell, .mail_from = tell,
                          .rcpt_to = tell, .data = tell)"#,
    );
    assert_eq!(module.name(), "tell");
    let hooks = Hooks::new(vec![Arc::new(module)]);
    let unhelloed = Client { helo: None, ..client() };
    let (client, null, sender) = (client(), "<>".parse().unwrap(), "<s@home.test>".parse().unwrap());
    let recipient = "<\"q@x\"@example.test>".parse().unwrap();
    let mut envelope = Envelope::new("<s@home.test>".parse().unwrap(), "<Postmaster>".parse().unwrap());
    envelope.add("<b@two.test>".parse().unwrap(), 9).unwrap();
    envelope.add("<c@three.test>".parse().unwrap(), 9).unwrap();
    for (query, helo, sender, count, first, third) in [
        (Query::Connect(&unhelloed), "(null)", "(null)", "0", "(null)", "(null)"),
        (Query::Ehlo(&client), "client.test", "(null)", "0", "(null)", "(null)"),
        (Query::MailFrom(&client, &null), "client.test", "", "0", "(null)", "(null)"),
        (
            Query::RcptTo(&client, &sender, &recipient),
            "client.test",
            "s@home.test",
            "1",
            "\"q@x\"@example.test",
            "(null)",
        ),
        (Query::Data(&client, &envelope), "client.test", "s@home.test", "3", "Postmaster", "c@three.test"),
    ] {
        let answer = hooks.ask(query).await;
        assert_eq!(answer.verdict, Verdict::Accept);
        let expected = [
            ("1 peer", "192.0.2.1:40000"),
            ("2 local", "[2001:db8::1]:25"),
            ("3 helo", helo),
            ("4 service", "smtp"),
            ("5 other", "(null)"),
            ("6 sender", sender),
            ("7 count", count),
            ("8 first", first),
            ("9 third", third),
        ];
        assert_eq!(pairs(&answer.metadata), expected, "{query:?}");
    }
}

#[tokio::test]
async fn a_question_that_the_module_does_not_want_is_answered_at_once() {
    let module = load(r#"EM_DECLARE_MODULE(Validation, .name = "empty")"#);
    let client = client();
    assert!(
        matches!(module.ask(Query::Connect(&client)), Asked::Now(answer) if answer.verdict == Verdict::Accept)
    );
}

#[tokio::test]
async fn a_refusal_carries_the_code_and_the_text_of_the_module() {
    for (code, response, expected) in [
        ("550", r#""5.1.1 No such user""#, "550 5.1.1 No such user"),
        ("450", r#""Greylisted""#, "450 4.7.1 Greylisted"),
        ("554", "NULL", "554 5.7.1 Refused by policy"),
        ("451", "NULL", "451 4.7.1 Refused by policy for now"),
        ("421", r#""5.1.1 other class""#, "421 4.7.1 5.1.1 other class"),
        ("550", r#""one\r\n250 two\x01""#, r"550 5.7.1 one\r\n250 two\x01"),
        ("550", "\"5.7.1 \\xc3\\xa9\\xff!\"", r"550 5.7.1 ?\xff!"),
    ] {
        let module = load(&format!(
            "static int rcpt_to(em_context *c) {{ em_context_set_response(c, {response}); return {code}; }}
             EM_DECLARE_MODULE(Validation, .name = \"refuse\", .rcpt_to = rcpt_to)"
        ));
        assert_eq!(refusal(ask(&module).await), expected);
    }
}

#[tokio::test]
async fn a_response_never_outgrows_a_line() {
    let module = load(
        r#"static int rcpt_to(em_context *c) {
            static char text[100000];
            memset(text, '\n', sizeof text - 1);
            return em_context_set_response(c, text) == 0 ? 550 : 0;
        }
        EM_DECLARE_MODULE(Validation, .name = "long", .rcpt_to = rcpt_to)"#,
    );
    assert!((300..500).contains(&refusal(ask(&module).await).len()));
}

#[tokio::test]
async fn an_answer_that_means_nothing_is_451() {
    for code in ["1", "200", "250", "354", "399", "600", "-1", "-550", "65536", "66086", "2147483647"] {
        let module = load(&format!(
            "static int rcpt_to(em_context *c) {{ (void)c; return {code}; }}
             EM_DECLARE_MODULE(Validation, .name = \"odd\", .rcpt_to = rcpt_to)"
        ));
        assert_eq!(refusal(ask(&module).await), "451 4.3.0 Local error in processing", "{code}");
    }
}

#[tokio::test]
async fn metadata_is_bounded_and_checked_and_earlier_metadata_is_readable() {
    let module = load(
        r#"static int data(em_context *c) {
            static char big[20000];
            memset(big, 'x', sizeof big - 1);
            if (em_context_set_metadata(c, "big", big) != -1) return 551;
            if (em_context_set_metadata(c, NULL, "v") != -1 || em_context_set_metadata(c, "n", NULL) != -1) return 552;
            if (em_context_set_metadata(c, "n", "\xff") != -1 || em_context_metadata(c, "n") != NULL) return 553;
            if (em_context_metadata(c, NULL) != NULL || em_context_set_response(c, NULL) != -1) return 554;
            if (strcmp(em_context_metadata(c, "score"), "7") != 0) return 555;
            if (em_context_set_metadata(c, "score", em_context_metadata(c, "score")) != 0) return 556;
            if (em_context_set_metadata(c, "score", "8") != 0) return 557;
            return strcmp(em_context_metadata(c, "score"), "8") == 0 ? EM_ACCEPT : 558;
        }
        EM_DECLARE_MODULE(Validation, .name = "metadata", .data = data)"#,
    );
    let mut envelope = Envelope::new("<>".parse().unwrap(), "<b@example.test>".parse().unwrap());
    envelope.metadata.insert("score".into(), "7".into()).unwrap();
    let client = client();
    let Asked::Later(answer) = module.ask(Query::Data(&client, &envelope)) else { panic!("not asked") };
    let answer = answer.await;
    assert_eq!((&answer.verdict, pairs(&answer.metadata)), (&Verdict::Accept, vec![("score", "8")]));
}

#[tokio::test]
async fn a_module_that_hangs_costs_451_and_works_again_once_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let library = compile(
        &dir,
        r#"static char path[4096];
        static int init(const char *argument) { strncpy(path, argument, sizeof path - 1); return 0; }
        static int rcpt_to(em_context *c) { (void)c; close(open(path, O_RDONLY)); return EM_ACCEPT; }
        EM_DECLARE_MODULE(Validation, .name = "hang", .init = init, .rcpt_to = rcpt_to)"#,
    );
    let argument = Some(fifo.display().to_string());
    let config = ModuleConfig { path: library, argument, deadline: Duration::from_millis(50) };
    let module = Module::load(&config).unwrap();

    let late = "451 4.3.0 Local error in processing";
    for _ in 0..4 {
        assert_eq!(refusal(ask(&module).await), late);
    }
    let (client, sender, recipient) = (client(), "<>".parse().unwrap(), "<b@example.test>".parse().unwrap());
    let Asked::Now(answer) = module.ask(Query::RcptTo(&client, &sender, &recipient)) else {
        panic!("with every thread hanging there is nothing to wait for")
    };
    assert_eq!(refusal(answer), late);
    assert!(
        matches!(module.ask(Query::Connect(&client)), Asked::Now(answer) if answer.verdict == Verdict::Accept)
    );

    // Opening the other end lets the calls go.
    let _open = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let works = async {
        while ask(&module).await.verdict != Verdict::Accept {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), works).await.expect("the module works again");
}

#[tokio::test]
async fn calls_run_beside_each_other_and_off_the_async_threads() {
    // Each call waits for the other three: alone, or on the test's one thread, none would return.
    let module = load(
        r#"#include <pthread.h>
        static pthread_barrier_t barrier;
        static int init(const char *argument) { (void)argument; return pthread_barrier_init(&barrier, NULL, 4); }
        static int rcpt_to(em_context *c) { (void)c; pthread_barrier_wait(&barrier); return EM_ACCEPT; }
        EM_DECLARE_MODULE(Validation, .name = "together", .init = init, .rcpt_to = rcpt_to)"#,
    );
    let (a, b, c, d) = tokio::join!(ask(&module), ask(&module), ask(&module), ask(&module));
    assert!([a, b, c, d].iter().all(|answer| answer.verdict == Verdict::Accept));
}

#[test]
fn initialisation_gets_the_argument_and_can_fail() {
    let source = r#"
        static int init(const char *argument) { return argument ? strcmp(argument, "expected") != 0 : 7; }
        EM_DECLARE_MODULE(Validation, .name = "init", .init = init)"#;
    assert!(try_load(source, Some("expected")).is_ok());
    assert!(matches!(try_load(source, Some("other")), Err(LoadError::Init { status: 1, .. })));
    assert!(matches!(try_load(source, None), Err(LoadError::Init { status: 7, .. })));
    assert!(matches!(try_load(source, Some("a\0b")), Err(LoadError::Argument { .. })));
}

#[test]
fn what_is_no_module_of_this_version_is_not_loaded() {
    let declare = |fields: &str| {
        format!(
            "EM_EXPORT const em_module *declare_module(void);
             const em_module *declare_module(void) {{ static const em_module m = {{.abi_version = {fields}}}; return &m; }}"
        )
    };
    assert!(matches!(try_load("int other;", None), Err(LoadError::Declaration { .. })));
    assert!(matches!(
        try_load(
            "EM_EXPORT const em_module *declare_module(void); const em_module *declare_module(void) { return NULL; }",
            None
        ),
        Err(LoadError::Declaration { .. })
    ));
    assert!(matches!(
        try_load(&declare("1, .kind = 1, .name = NULL"), None),
        Err(LoadError::Declaration { .. })
    ));
    assert!(matches!(
        try_load(&declare("1, .kind = 1, .name = \"\""), None),
        Err(LoadError::Declaration { .. })
    ));
    assert!(matches!(
        try_load(&declare("2, .kind = 1, .name = \"new\""), None),
        Err(LoadError::AbiVersion { found: 2, .. })
    ));
    assert!(matches!(
        try_load(&declare("1, .kind = 9, .name = \"kind\""), None),
        Err(LoadError::Kind { kind: 9, .. })
    ));
}

#[test]
fn a_file_that_is_missing_foreign_or_open_to_all_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: PathBuf| ModuleConfig { path, ..ModuleConfig::default() };
    assert!(matches!(Module::load(&at(dir.path().join("missing.so"))), Err(LoadError::Open { .. })));
    let text = dir.path().join("text.so");
    fs::write(&text, "not a library").unwrap();
    assert!(matches!(Module::load(&at(text)), Err(LoadError::Library { .. })));
    let library = compile(&dir, r#"EM_DECLARE_MODULE(Validation, .name = "open")"#);
    fs::set_permissions(&library, fs::Permissions::from_mode(0o757)).unwrap();
    assert!(matches!(Module::load(&at(library.clone())), Err(LoadError::WorldWritable { .. })));
    fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Module::load(&at(library)).is_ok());
}

#[tokio::test]
async fn the_example_of_the_header_works() {
    let example: Vec<&str> = HEADER
        .lines()
        .skip_while(|l| !l.contains("static int rcpt_to"))
        .take_while(|l| !l.contains("cc -shared"))
        .collect();
    let module = load(&example.join("\n").replace("\n *", "\n").replacen(" *", "", 1));
    assert_eq!(ask(&module).await.verdict, Verdict::Accept);
    let (client, sender, recipient) =
        (client(), "<>".parse().unwrap(), "<nobody@example.test>".parse().unwrap());
    let Asked::Later(answer) = module.ask(Query::RcptTo(&client, &sender, &recipient)) else {
        panic!("not asked")
    };
    assert_eq!(refusal(answer.await), "550 5.1.1 Nobody is not here");
}

#[test]
fn a_configuration_without_path_or_time_is_refused() {
    let keys = |config: ModuleConfig| config.validate().into_iter().map(|p| p.key).collect::<Vec<_>>();
    let good = ModuleConfig { path: "m.so".into(), ..ModuleConfig::default() };
    assert_eq!(keys(good.clone()), [""; 0]);
    assert_eq!(
        keys(ModuleConfig { path: PathBuf::new(), deadline: Duration::ZERO, argument: Some("\0".into()) }),
        ["path", "argument", "deadline"]
    );
}
