//! The end of the numbers that segments have.

use std::{path::Path, sync::Arc};

use empath_common::MessageId;
use empath_metrics::Registry;

use super::{
    disk::SimDisk,
    machine::{PATH, config},
};
use crate::{Batch, CommitError, Entry, Metrics, backlog::Class, engine::Engine, files::Files as _};

fn open(disk: &SimDisk) -> Engine {
    let metrics = Metrics::new(&Registry::default());
    Engine::open(Arc::new(disk.clone()), &config(8 << 10), metrics).unwrap().0
}

fn commit(engine: &mut Engine) -> Result<(), CommitError> {
    let mut committed = engine.shared.commit(Batch(vec![Entry::Removed(MessageId::from_bytes([7; 16]))]));
    engine.committer.turn();
    committed.0.try_recv().unwrap()
}

#[test]
fn behind_the_last_number_commits_are_refused_with_the_remedy_and_no_files_pile_up() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/mail")).unwrap();
    let mut engine = open(&disk);
    engine.committer.next = u32::MAX - 1;
    engine.committer.begin(0, Class::Outcome).unwrap();
    commit(&mut engine).unwrap();
    let names = || disk.files(&Path::new(PATH).join("journal")).into_iter().map(|(name, _)| name);
    assert!(names().any(|name| name == "4294967294.seg"));
    for _ in 0..2 {
        let before: Vec<_> = names().collect();
        for _ in 0..10 {
            let failure = engine.committer.begin(0, Class::Outcome).unwrap_err().to_string();
            assert!(failure.contains("4294967295.seg") && failure.contains("another directory"), "{failure}");
        }
        assert_eq!(names().collect::<Vec<_>>(), before);
        drop(engine);
        engine = open(&disk);
        assert!(!engine.shared.is_healthy());
        let refusal = commit(&mut engine).unwrap_err();
        assert!(
            matches!(&refusal, CommitError::Io(cause) if cause.to_string().contains("another directory"))
        );
    }
}
