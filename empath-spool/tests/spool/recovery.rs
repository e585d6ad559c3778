//! What a start makes of what a crash or a bad disk left.

use std::{fs, path::Path};

use crate::support::{accepted, assert_whole, commit, copy, deferred, forget_contents, id, open, segments};
use empath_spool::{Batch, Entry, FileSpool, Report, Spool};

/// Octets up to the last that is not zero.
fn used(path: &Path) -> usize {
    fs::read(path).unwrap().iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)
}

/// A spool as it lies on disk in the middle of its work, with the newest segment changed.
fn reopen_changed(from: &Path, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, FileSpool, Report) {
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    let newest = segments(directory.path()).pop().unwrap();
    let mut octets = fs::read(&newest).unwrap();
    change(&mut octets);
    fs::write(&newest, octets).unwrap();
    let (spool, report) = open(directory.path());
    (directory, spool, report)
}

#[tokio::test]
async fn a_batch_cut_off_at_any_octet_is_absent_and_all_before_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 1..=3 {
        commit(&spool, accepted(number, 50)).await;
    }
    let newest = segments(directory.path()).pop().unwrap();
    let before = used(&newest);
    let batch = vec![accepted(4, 20), deferred(1, 0, 1), Entry::Removed(id(2))];
    spool.commit(Batch(batch)).await.unwrap();
    let after = used(&newest);
    assert!(after - before > 400, "the last batch is {before}..{after}");
    for cut in before..=after {
        let zeroed = cut % 2 == 0;
        let (_directory, spool, report) = reopen_changed(directory.path(), |octets| {
            if zeroed {
                octets[cut..].fill(0);
            } else {
                octets.truncate(cut);
            }
        });
        assert!(report.damaged.is_empty(), "cut at {cut}: {report:?}");
        let expected: &[u64] = if cut == after { &[1, 3, 4] } else { &[1, 2, 3] };
        assert_eq!(spool.ids(), expected.iter().copied().map(id).collect::<Vec<_>>(), "cut at {cut}");
        let attempts = spool.load(id(1)).await.unwrap().recipients[0].attempts;
        assert_eq!(attempts, u32::from(cut == after), "cut at {cut}");
        assert_whole(&spool, 3, 50).await;
    }
}

#[tokio::test]
async fn an_unfinished_write_stays_dropped_when_the_spool_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 50)).await;
    commit(&spool, accepted(2, 50)).await;
    let newest = segments(directory.path()).pop().unwrap();
    let last = used(&newest) - 1;
    let (crashed, spool, report) = reopen_changed(directory.path(), |octets| octets[last] ^= 1);
    assert!(report.unfinished > 0);
    commit(&spool, accepted(3, 50)).await;
    drop(spool);
    let (spool, report) = open(crashed.path());
    assert_eq!((report.unfinished, report.damaged.len()), (0, 0));
    assert_eq!(spool.ids(), [id(1), id(3)]);
}

/// Twelve segments with five messages each, closed in order.
async fn large_spool(directory: &Path) -> Vec<u64> {
    let (spool, _) = open(directory);
    for number in 0..60 {
        commit(&spool, accepted(number, 12_000)).await;
    }
    (0..60).collect()
}

#[tokio::test]
async fn one_flipped_bit_anywhere_harms_one_record_and_is_reported() {
    let original = tempfile::tempdir().unwrap();
    let numbers = large_spool(original.path()).await;
    assert!(segments(original.path()).len() > 10);
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        forget_contents(directory.path());
        let files = segments(directory.path());
        let which = rng.usize(..files.len());
        // The last 48 octets of the newest are the mark of an orderly end; without it nothing is lost.
        let end = used(&files[which]) - if which + 1 == files.len() { 48 } else { 0 };
        // Every third flip hits the records at the front: which segment this is, and the first head.
        let at = rng.usize(..if seed % 3 == 0 { 400.min(end) } else { end });
        let mut octets = fs::read(&files[which]).unwrap();
        octets[at] ^= 1 << rng.u8(..8);
        let flipped = octets.clone();
        fs::write(&files[which], octets).unwrap();

        let (spool, report) = open(directory.path());
        let context = format!("seed {seed}, segment {which}, octet {at}: {report:?}");
        let [damage] = &report.damaged[..] else { panic!("{context}") };
        let (from, length) =
            (usize::try_from(damage.offset).unwrap(), usize::try_from(damage.length).unwrap());
        assert!((from..from + length).contains(&at), "{context}");
        assert_eq!(
            fs::read(damage.copy.as_ref().unwrap()).unwrap(),
            flipped[from..from + length],
            "{context}"
        );
        let ids = spool.ids();
        let lost: Vec<_> = numbers.iter().copied().filter(|number| !ids.contains(&id(*number))).collect();
        assert!(lost.len() <= 1, "{context}");
        for number in numbers.iter().copied().filter(|number| !lost.contains(number)) {
            assert_whole(&spool, number, 12_000).await;
        }
        drop(spool);
        // The next start finds the same and copies nothing again.
        let (_spool, again) = open(directory.path());
        assert_eq!(again.damaged, report.damaged, "{context}");
        assert_eq!(fs::read_dir(directory.path().join("spool/damaged")).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn a_lost_block_names_the_messages_that_are_lost() {
    let original = tempfile::tempdir().unwrap();
    large_spool(original.path()).await;
    forget_contents(original.path());
    let file = &segments(original.path())[4];
    let mut octets = fs::read(file).unwrap();
    octets[20_000..24_096].fill(0);
    fs::write(file, octets).unwrap();
    let (spool, report) = open(original.path());
    let [damage] = &report.damaged[..] else { panic!("{report:?}") };
    let ids = spool.ids();
    let lost: Vec<_> = (0..60).map(id).filter(|id| !ids.contains(id)).collect();
    assert!(!lost.is_empty());
    assert!(damage.ids.iter().all(|id| lost.contains(id)) && !damage.ids.is_empty(), "{lost:?} {report:?}");
    let text = fs::read_to_string(damage.copy.as_ref().unwrap().with_extension("report")).unwrap();
    assert!(text.contains(&format!("message: {}", damage.ids[0])), "{text}");
}

#[tokio::test]
async fn a_segment_of_rubbish_is_kept_and_the_others_are_read() {
    let original = tempfile::tempdir().unwrap();
    large_spool(original.path()).await;
    let newest = segments(original.path()).pop().unwrap();
    let rubbish: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(9999).collect();
    fs::write(&newest, &rubbish).unwrap();
    let (spool, report) = open(original.path());
    assert!(spool.len() >= 50);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(fs::read(report.damaged[0].copy.as_ref().unwrap()).unwrap(), rubbish);
    commit(&spool, accepted(100, 10)).await;
    drop(spool);
    let (spool, _) = open(original.path());
    assert_whole(&spool, 100, 10).await;
}

#[tokio::test]
async fn content_that_looks_like_records_is_never_read_as_records() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (spool, _) = open(elsewhere.path());
    commit(&spool, accepted(50, 100)).await;
    let journal = fs::read(segments(elsewhere.path()).pop().unwrap()).unwrap();

    // A message whose content is a journal, with an epoch that its sender could choose but not guess.
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 100)).await;
    let at = used(&segments(directory.path()).pop().unwrap());
    let content = bytes::Bytes::copy_from_slice(&journal[..2000]);
    let Entry::Accepted { envelope, .. } = accepted(2, 0) else {
        return;
    };
    commit(&spool, Entry::Accepted { id: id(2), envelope, content: content.into() }).await;
    commit(&spool, accepted(3, 100)).await;
    // The damage opens the view on the content.
    let (_directory, spool, report) = reopen_changed(directory.path(), |octets| octets[at + 50] ^= 1);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(spool.ids(), [id(1), id(3)]);
}

#[tokio::test]
async fn a_damaged_message_found_later_is_an_error_of_that_message_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 1000)).await;
    commit(&spool, accepted(2, 1000)).await;
    let newest = segments(directory.path()).pop().unwrap();
    let mut octets = fs::read(&newest).unwrap();
    let last = used(&newest) - 10;
    octets[last] ^= 1;
    fs::write(&newest, octets).unwrap();
    assert!(spool.load(id(2)).await.is_ok(), "the envelope is whole");
    let failure = spool.content(id(2)).await.expect_err("the content is not");
    assert!(failure.to_string().contains("damaged on disk"), "{failure}");
    assert_whole(&spool, 1, 1000).await;
}
