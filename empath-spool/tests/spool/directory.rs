//! What is taken for a spool, and that nothing else is touched.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};

use crate::support::{accepted, assert_whole, commit, config, id, metrics, open, segments};
use empath_spool::{FileSpool, OpenError, Spool};

fn refused(directory: &Path) -> String {
    FileSpool::open(&config(directory), metrics()).err().unwrap().to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_with_other_things_in_it_is_refused_and_stays_as_it_was() {
    for names in [&["notes"][..], &["journal", "notes"], &["large", "lost+found", "notes"]] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        for name in names {
            fs::create_dir(path.join(name)).unwrap();
        }
        let failure = refused(directory.path());
        assert!(failure.contains(&path.canonicalize().unwrap().display().to_string()), "{failure}");
        assert!(failure.contains("notes") && failure.contains("empty"), "{failure}");
        assert_eq!(mode(&path), 0o755);
        assert_eq!(fs::read_dir(&path).unwrap().count(), names.len(), "nothing was created");
    }
}

#[test]
fn a_directory_whose_only_file_has_a_name_that_is_not_utf_8_is_not_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    fs::create_dir(&path).unwrap();
    fs::write(path.join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    assert!(refused(directory.path()).contains("caf\u{fffd}"));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[tokio::test]
async fn a_spool_in_which_somebody_left_a_file_is_still_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    commit(&open(directory.path()).0, accepted(1, 100)).await;
    fs::write(directory.path().join("spool/notes"), "").unwrap();
    assert_eq!(open(directory.path()).0.ids(), [id(1)]);
}

#[test]
fn the_root_of_a_file_system_can_be_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("spool/lost+found")).unwrap();
    open(directory.path());
    assert_eq!(mode(&directory.path().join("spool")), 0o700);
}

#[test]
fn links_inside_the_spool_are_refused_and_not_followed() {
    for name in ["journal", "large", "damaged", "LOCK"] {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()));
        let (path, target) = (directory.path().join("spool").join(name), directory.path().join("elsewhere"));
        fs::rename(&path, &target).unwrap();
        let permissions = Permissions::from_mode(0o755);
        fs::set_permissions(&target, permissions).unwrap();
        symlink(&target, &path).unwrap();
        let failure = refused(directory.path());
        assert!(failure.contains(name) && failure.contains("a symbolic link"), "{failure}");
        assert_eq!(mode(&target), 0o755, "{name}");
    }
}

#[test]
fn the_spool_itself_may_be_behind_a_link() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("elsewhere")).unwrap();
    symlink(directory.path().join("elsewhere"), directory.path().join("spool")).unwrap();
    open(directory.path());
    assert!(directory.path().join("elsewhere/journal").is_dir());
}

#[tokio::test]
async fn a_link_and_a_pipe_with_names_of_segments_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    commit(&open(directory.path()).0, accepted(1, 100)).await;
    let segment = segments(directory.path()).remove(0);
    let elsewhere = directory.path().join("elsewhere");
    fs::copy(&segment, &elsewhere).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    symlink(&elsewhere, segment.with_file_name("00000008.seg")).unwrap();
    mknodat(CWD, segment.with_file_name("00000009.seg"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (spool, report) = open(directory.path());
    assert_eq!(report.damaged.iter().map(|damage| damage.segment).collect::<Vec<_>>(), [8, 9]);
    assert_whole(&spool, 1, 100).await;
    commit(&spool, accepted(2, 100)).await;
    assert_eq!(fs::read(&elsewhere).unwrap(), before);
}

#[test]
fn a_second_daemon_stays_out_when_the_lock_file_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    fs::remove_file(directory.path().join("spool/LOCK")).unwrap();
    let failure = FileSpool::open(&config(directory.path()), metrics()).err().unwrap();
    assert!(matches!(failure, OpenError::InUse { .. }), "{failure}");
    drop(spool);
    open(directory.path());
}

#[test]
fn a_daemon_that_has_locked_the_file_alone_has_the_spool_too() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let file = fs::File::open(directory.path().join("spool/LOCK")).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let failure = FileSpool::open(&config(directory.path()), metrics()).err().unwrap();
    assert!(matches!(failure, OpenError::InUse { .. }), "{failure}");
    drop(file);
    open(directory.path());
}

#[test]
fn a_check_writes_no_process_number_and_keeps_daemons_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let lock = directory.path().join("spool/LOCK");
    fs::write(&lock, "4711\n").unwrap();
    let spool = directory.path().join("spool");
    assert!(empath_spool::verify(&spool).unwrap().is_clean());
    assert_eq!(fs::read_to_string(&lock).unwrap(), "4711\n");
    fs::remove_file(&lock).unwrap();
    assert!(empath_spool::verify(&spool).unwrap().is_clean(), "nor does it need the file");
    assert!(!lock.exists());
    let _open = open(directory.path());
    let failure = empath_spool::verify(&spool).unwrap_err().to_string();
    assert!(failure.contains(&format!("process {}", std::process::id())), "{failure}");
}
