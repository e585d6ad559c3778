//! `empath user`: a users file is made, changed and listed.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// Exit status and everything printed.
fn user(file: &Path, arguments: &[&str], input: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_empath"))
        .arg("user")
        .args(arguments)
        .arg("--users-file")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that needs no password does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    let done = |text: &str| (0, text.to_owned());
    assert_eq!(
        user(&file, &["add", "alice@example.test"], "secret\n"),
        done("alice@example.test was added\n")
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("alice@example.test $argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    assert!(text.contains(" SCRAM-SHA-256$100000:"), "{text}");
    assert!(!text.contains("secret"), "{text}");

    // Comments, owner and mode stay; so does what one may send as, until it is given anew.
    fs::write(&file, format!("# ours\n\n{text}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = fs::metadata(&file).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    let bob = ["add", "--send-as", "sales@example.test", "--send-as", "@bob.test", "bob"];
    assert_eq!(user(&file, &bob, "other"), done("bob was added\n"));
    assert_eq!(user(&file, &["add", "bob"], "another\r\n"), done("bob has a new password\n"));
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o640);
    assert_eq!((metadata.uid(), metadata.gid()), owner);
    assert!(fs::read_to_string(&file).unwrap().starts_with(&format!("# ours\n\n{text}bob $argon2id$")));
    let list = "alice@example.test\nbob sales@example.test,@bob.test\n".replace(',', " ");
    assert_eq!(user(&file, &["list"], ""), done(&list));

    assert_eq!(user(&file, &["remove", "bob"], ""), done("bob was removed\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("# ours\n\n{text}"));
    let (status, error) = user(&file, &["remove", "bob"], "");
    assert_eq!((status, error), (1, format!("empath: {}: there is no user bob\n", file.display())));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn what_can_not_be_done_is_said_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    for (arguments, input, error) in [
        (&["add", "alice"][..], "\n", "empath: the password is empty"),
        (&["add", "alice"], "", "empath: the password is empty"),
        (&["add", "alice"], "\u{7}bell\n", "empath: the password is empty, or has a character"),
        (&["add", "alice"], &"x".repeat(2000), "empath: the password is one line"),
        (&["add", "al ice"], "secret\n", "empath: the name is not one"),
        (&["add", "#alice"], "secret\n", "empath: the name is not one"),
        (&["list"], "", "empath: "),
    ] {
        let (status, text) = user(&file, arguments, input);
        assert_eq!(status, 1, "{arguments:?}: {text}");
        assert!(text.starts_with(error), "{arguments:?}: {text}");
        assert!(!file.exists());
    }
    assert_eq!(user(&file, &["add", "--send-as", "nonsense", "alice"], "secret\n").0, 2);
    // The remedy for a damaged line works.
    fs::write(&file, "alice x\nbob y\n").unwrap();
    let (_, list) = user(&file, &["list"], "");
    assert!(
        list.contains("users:1: ") && list.contains("users:2: ") && list.contains("empath user add"),
        "{list}"
    );
    for name in ["alice", "bob"] {
        assert_eq!(user(&file, &["add", name], "secret\n").0, 0);
    }
    assert_eq!(user(&file, &["list"], ""), (0, "alice\nbob\n".to_owned()));
}

#[test]
fn edits_at_the_same_time_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    let names: Vec<_> = (0..8).map(|n| format!("user{n}")).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| assert_eq!(user(&file, &["add", name], "secret\n").0, 0));
        }
    });
    let (_, list) = user(&file, &["list"], "");
    let mut listed: Vec<_> = list.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
}

#[test]
fn a_link_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("users"), dir.path().join("link"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(user(&link, &["add", "alice"], "secret\n").0, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&file).unwrap().starts_with("alice "));
}
