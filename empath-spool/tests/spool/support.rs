//! Messages to commit, and a spool in a temporary directory.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use empath_common::{Body, ByteSize, EnhancedStatus, Envelope, ForwardPath, MessageId, Reply, ReversePath};
use empath_metrics::Registry;
use empath_spool::{
    Attempt, Config, Content, Entry, FileSpool, Metrics, Progress, RecipientUpdate, Report, Spool, Status,
    Stored,
};
use jiff::Timestamp;

/// The id of the message with this number; ids rise with numbers.
pub(crate) fn id(number: u64) -> MessageId {
    MessageId::from_bytes((u128::from(number) << 64 | 7).to_be_bytes())
}

/// Content that only this message has, of `size` octets and a little.
pub(crate) fn content(number: u64, size: usize) -> Bytes {
    let mut content = format!("Subject: {number}\r\n\r\n").into_bytes();
    let mut rng = fastrand::Rng::with_seed(number);
    content.extend(std::iter::repeat_with(|| rng.u8(..)).take(size));
    content.extend(b"\r\n");
    content.into()
}

pub(crate) fn envelope(number: u64) -> Envelope {
    let recipient =
        |name: &str| ForwardPath::Mailbox(format!("{name}{number}@example.test").parse().unwrap());
    let mut envelope = Envelope::new(ReversePath::Null, recipient("bob"));
    envelope.add(ForwardPath::Postmaster, 10).unwrap();
    envelope.add(ForwardPath::Mailbox("\"carol c\"@[IPv6:2001:db8::1]".parse().unwrap()), 10).unwrap();
    if !number.is_multiple_of(3) {
        envelope.reverse_path = ReversePath::Mailbox("alice@müller.test".parse().unwrap());
    }
    envelope.body = if number.is_multiple_of(2) { Body::EightBitMime } else { Body::SevenBit };
    envelope.smtputf8 = number.is_multiple_of(5);
    envelope.received_at = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
    envelope.metadata.insert("x".to_owned(), number.to_string()).unwrap();
    envelope
}

pub(crate) fn accepted(number: u64, size: usize) -> Entry {
    Entry::Accepted {
        id: id(number),
        envelope: Arc::new(envelope(number)),
        content: content(number, size).into(),
    }
}

/// The nth attempt for a recipient has failed for now.
pub(crate) fn deferred(number: u64, recipient: u32, attempts: u32) -> Entry {
    let at = Timestamp::new(1_700_000_000 + i64::from(attempts), 0).unwrap();
    Entry::Progress(Progress {
        id: id(number),
        updates: vec![RecipientUpdate {
            recipient,
            status: Status::Deferred,
            attempts,
            next_attempt_at: Some(at),
            told_of_delay: false,
            untold: None,
            attempt: Some(Attempt {
                at,
                next_hop: "mx:example.test".to_owned(),
                host: Some("mx1.example.test[192.0.2.1]:25".to_owned()),
                reply: Some(Reply::new(451, (4, 3, 0), "later\nplease")),
                status: EnhancedStatus::new(4, 3, 0),
                detail: "451 4.3.0 later".to_owned(),
            }),
        }],
    })
}

pub(crate) fn config(directory: &Path) -> Config {
    Config { path: directory.join("spool"), segment_size: ByteSize(64 << 10), ..Config::default() }
}

pub(crate) fn metrics() -> Metrics {
    Metrics::new(&Registry::default())
}

/// Opens the spool below `directory`.
pub(crate) fn open(directory: &Path) -> (FileSpool, Report) {
    FileSpool::open(&config(directory), metrics()).expect("the spool opens")
}

pub(crate) async fn commit(spool: &dyn Spool, entry: Entry) {
    spool.commit(entry.into()).await.expect("the commit succeeds");
}

/// Checks that a message is there as `accepted` made it.
pub(crate) async fn assert_whole(spool: &dyn Spool, number: u64, size: usize) {
    let stored = spool.load(id(number)).await.expect("the envelope can be read");
    assert_eq!(*stored.envelope, envelope(number));
    assert_eq!(stored.size, content(number, size).len() as u64);
    let found = spool.content(id(number)).await.expect("the content can be read");
    assert_eq!(octets(&found).await, content(number, size));
}

/// All of some content.
pub(crate) async fn octets(content: &Content) -> Bytes {
    let (mut all, mut reader) = (Vec::new(), content.reader());
    while let Some(piece) = reader.next().await.expect("the content can be read") {
        all.extend_from_slice(&piece);
    }
    assert_eq!(all.len() as u64, content.len());
    all.into()
}

/// Everything that a spool says about its messages.
pub(crate) async fn everything(spool: &dyn Spool) -> BTreeMap<MessageId, (Stored, Bytes)> {
    let mut all = BTreeMap::new();
    for id in spool.ids() {
        let content = octets(&spool.content(id).await.unwrap()).await;
        all.insert(id, (spool.load(id).await.unwrap(), content));
    }
    all
}

/// The journal's files, by name.
pub(crate) fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let names =
        std::fs::read_dir(directory.join("spool/journal")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    segments.sort();
    segments
}

/// The files about what is in sealed segments.
pub(crate) fn contents(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory.join("spool/journal")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let mut contents: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "contents")).collect();
    contents.sort();
    contents
}

/// Makes the next start read all of the journal.
pub(crate) fn forget_contents(directory: &Path) {
    for path in contents(directory) {
        std::fs::remove_file(path).unwrap();
    }
}

/// Copies a spool as it lies on disk.
pub(crate) fn copy(from: &Path, to: &Path) {
    for part in ["spool/journal", "spool/large", "spool/damaged"] {
        std::fs::create_dir_all(to.join(part)).unwrap();
        for entry in std::fs::read_dir(from.join(part)).into_iter().flatten() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(part).join(entry.file_name())).unwrap();
        }
    }
}
