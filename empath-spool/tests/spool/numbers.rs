//! Files whose numbers leave no room for further ones.

use std::{fs, path::Path};

use crate::support::{accepted, assert_whole, commit, id, open};
use empath_spool::Spool;

const LAST: u32 = u32::MAX;

#[tokio::test]
async fn a_stray_file_with_the_last_number_stops_no_commit_and_is_left_alone() {
    for stray in ["directory", "empty", "text", "a copy of another segment"] {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        commit(&spool, accepted(1, 100)).await;
        drop(spool);
        let journal = directory.path().join("spool/journal");
        let path = journal.join(format!("{LAST}.seg"));
        make(stray, &path, &journal);
        let before = fs::read(&path).ok();
        for start in 0..3 {
            let (spool, report) = open(directory.path());
            let [damage] = &report.damaged[..] else { panic!("{stray}: {report:?}") };
            assert_eq!((damage.segment, &damage.copy), (LAST, &None), "{stray}");
            commit(&spool, accepted(start + 2, 100)).await;
            assert!(spool.is_healthy());
            drop(spool);
            assert_eq!(fs::read(&path).ok(), before, "{stray}");
        }
        let (spool, _) = open(directory.path());
        assert_eq!(spool.ids(), [1, 2, 3, 4].map(id), "{stray}");
        assert_whole(&spool, 4, 100).await;
    }
}

fn make(stray: &str, path: &Path, journal: &Path) {
    match stray {
        "directory" => fs::create_dir(path).unwrap(),
        "empty" => fs::write(path, "").unwrap(),
        "text" => fs::write(path, "not a segment\n".repeat(1000)).unwrap(),
        _ => drop(fs::copy(journal.join("00000001.seg"), path).unwrap()),
    }
}

#[tokio::test]
async fn a_stray_spare_with_the_last_number_is_in_nobodys_way() {
    for directory_too in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()));
        let journal = directory.path().join("spool/journal");
        fs::remove_dir_all(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        make(
            if directory_too { "directory" } else { "empty" },
            &journal.join(format!("{LAST}.spare")),
            &journal,
        );
        let (spool, _) = open(directory.path());
        assert!(spool.is_healthy());
        commit(&spool, accepted(1, 100)).await;
    }
}
