//! The modes of files, in a process of its own because the umask belongs to the process.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use empath_metrics::Registry;
use empath_spool::{Config, FileSpool, Metrics};
use rustix::{fs::Mode, process::umask};

#[test]
fn everything_is_for_the_daemons_user_alone_whatever_the_umask() {
    for mask in [0o000, 0o022, 0o777] {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        fs::create_dir(&spool).unwrap();
        fs::set_permissions(&spool, Permissions::from_mode(0o755)).unwrap();
        let before = umask(Mode::from_raw_mode(mask));
        let config = Config { path: spool.clone(), ..Config::default() };
        let opened = FileSpool::open(&config, Metrics::new(&Registry::default()));
        umask(before);
        let (_opened, _) = opened.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for path in [spool.clone(), spool.join("journal"), spool.join("large"), spool.join("damaged")] {
            assert_eq!(mode(&path), 0o700, "umask {mask:o}: {}", path.display());
        }
        let journal = fs::read_dir(spool.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        for path in journal.chain([spool.join("LOCK")]) {
            assert_eq!(mode(&path), 0o600, "umask {mask:o}: {}", path.display());
        }
    }
}
