//! Final delivery into Maildirs: a file in `tmp`, synced, then renamed to `new`.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use empath_common::{Domain, ForwardPath, MessageId, ReversePath};
use empath_smtp::client::Source;

/// Why a message could not be put into a Maildir.
#[derive(Debug, thiserror::Error)]
pub enum MaildirError {
    /// The file system has no names as long as the recipient's.
    #[error("the address is too long for a directory: {path}")]
    NameTooLong {
        /// The file or directory.
        path: PathBuf,
    },
    /// No space, inodes or quota.
    #[error("there is no space for {path}: {source}")]
    Full {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another failure of the file system.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The content could not be read to its end.
    #[error("the content cannot be read")]
    Unreadable,
    /// The runtime ended first.
    #[error("the writer of the Maildir was stopped")]
    Stopped,
}

/// What is wrong with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Braces around something else.
    #[error("has a placeholder other than {{address}}, {{local}} and {{domain}}")]
    Placeholder,
    /// Everybody's mail would lie in one directory.
    #[error("needs {{address}} or {{local}}, so that every recipient has a directory of their own")]
    NotPersonal,
    /// No text.
    #[error("is not a path of UTF-8 text")]
    NotText,
}

const PLACEHOLDERS: [&str; 3] = ["{address}", "{local}", "{domain}"];

/// Whether a path can be used as a template.
pub(crate) fn check_template(template: &Path) -> Result<(), TemplateError> {
    let text = template.to_str().ok_or(TemplateError::NotText)?;
    let rest = PLACEHOLDERS.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
    if rest.contains(['{', '}']) {
        return Err(TemplateError::Placeholder);
    }
    if !text.contains("{address}") && !text.contains("{local}") {
        return Err(TemplateError::NotPersonal);
    }
    Ok(())
}

/// The Maildir of a recipient. `hostname` is the domain of the bare `<Postmaster>` (RFC 5321 §4.5.1).
///
/// No address leads out of the place that the template gives it: an octet that has a meaning in a path is
/// written `%XX`. Spellings of one address have one directory (RFC 5321 §4.1.2).
pub(crate) fn directory(template: &Path, recipient: &ForwardPath, hostname: &Domain) -> PathBuf {
    let (local, domain) = match recipient.mailbox() {
        None => ("postmaster".to_owned(), hostname.to_string()),
        Some(mailbox) => (name(&mailbox.canonical_local_part()), name(&mailbox.host().to_string())),
    };
    let text = template.to_string_lossy();
    let mut path = String::with_capacity(text.len() + local.len() + domain.len());
    let mut rest = &*text;
    // One pass, so that braces in an address are not taken for a placeholder.
    while let Some(at) = rest.find('{') {
        let (before, placeholder) = rest.split_at(at);
        path.push_str(before);
        let length = placeholder.find('}').map_or(placeholder.len(), |end| end + 1);
        let (placeholder, after) = placeholder.split_at(length);
        match placeholder {
            "{address}" => path.extend([&local, "@", &domain]),
            "{local}" => path.push_str(&local),
            "{domain}" => path.push_str(&domain),
            other => path.push_str(other),
        }
        rest = after;
    }
    path.push_str(rest);
    path.into()
}

/// One component of a path from untrusted text. Distinct texts have distinct names.
fn name(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            // Neither `.`, `..` nor a hidden file.
            '.' if at == 0 => safe.push_str("%2E"),
            c if c == '/' || c == '%' || c.is_ascii_control() => {
                let _ = write!(safe, "%{:02X}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Writes the message into `directory`, piece by piece; when this returns it survives power loss.
///
/// `name` tells the recipients of one message apart: two of them may share a directory. A repetition of the same
/// delivery replaces its own file and nothing else.
pub(crate) async fn deliver(
    directory: PathBuf,
    (id, number): (MessageId, u32),
    reverse_path: &ReversePath,
    mut content: impl Source,
) -> Result<(), MaildirError> {
    // RFC 5321 §4.4: final delivery puts the reverse-path at the top. The content follows octet for octet.
    let top = format!("Return-Path: {reverse_path}\r\n");
    let mut mail =
        blocking(move || Mail::create(&directory, &format!("{id}.{number}"), top.as_bytes())).await?;
    while let Some(piece) = content.next().await.map_err(|_| MaildirError::Unreadable)? {
        mail = blocking(move || mail.write(&piece).map(|()| mail)).await?;
    }
    blocking(move || mail.finish()).await
}

/// Runs what waits for the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MaildirError> + Send + 'static,
) -> Result<T, MaildirError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(MaildirError::Stopped))
}

/// A file in `tmp`, on its way to `new`.
struct Mail {
    file: File,
    tmp: PathBuf,
    new: PathBuf,
}

impl Mail {
    fn create(directory: &Path, name: &str, top: &[u8]) -> Result<Self, MaildirError> {
        for name in ["tmp", "new", "cur"] {
            create(&directory.join(name))?;
        }
        let (tmp, new) = (directory.join("tmp").join(name), directory.join("new").join(name));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&tmp).map_err(|source| failed(&tmp, source))?;
        let mut mail = Self { file, tmp, new };
        mail.write(top)?;
        Ok(mail)
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), MaildirError> {
        self.file.write_all(octets).map_err(|source| failed(&self.tmp, source))
    }

    fn finish(self) -> Result<(), MaildirError> {
        self.file.sync_all().map_err(|source| failed(&self.tmp, source))?;
        fs::rename(&self.tmp, &self.new).map_err(|source| failed(&self.new, source))?;
        self.new.parent().map_or(Ok(()), sync)
    }
}

/// Nothing stays of what was not finished. After a rename there is nothing by that name.
impl Drop for Mail {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.tmp);
    }
}

/// Creates a directory with its parents, each entry synced in the directory above.
fn create(path: &Path) -> Result<(), MaildirError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync),
        // Another delivery was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

fn sync(directory: &Path) -> Result<(), MaildirError> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|file| file.sync_all()).map_err(|source| failed(directory, source))
}

fn failed(path: &Path, source: io::Error) -> MaildirError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::InvalidFilename => MaildirError::NameTooLong { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            MaildirError::Full { path, source }
        }
        _ => MaildirError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use bytes::Bytes;
    use empath_common::Mailbox;

    use super::*;
    use crate::failure::Failure;

    const ID: [u8; 16] = [7; 16];

    fn hostname() -> Domain {
        "mx.home.test".parse().unwrap()
    }

    fn path(mailbox: &str) -> ForwardPath {
        ForwardPath::Mailbox(mailbox.parse::<Mailbox>().unwrap())
    }

    #[tokio::test]
    async fn the_content_is_stored_octet_for_octet_below_the_return_path() {
        let home = tempfile::tempdir().unwrap();
        let template = home.path().join("mail/{address}");
        let content = Bytes::from_static(b"Subject: x\r\n\r\n.dot\r\n\xff\0\r\n");
        let to = directory(&template, &path("alice@example.test"), &hostname());
        let id = MessageId::from_bytes(ID);
        let sender = "<bob@home.test>".parse().unwrap();
        deliver(to, (id, 0), &sender, content.clone()).await.unwrap();

        let new = home.path().join("mail/alice@example.test/new");
        let files: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().path()).collect();
        let expected = [b"Return-Path: <bob@home.test>\r\n".as_slice(), &content].concat();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read(&files[0]).unwrap(), expected);
        assert_eq!(fs::read_dir(new.with_file_name("tmp")).unwrap().count(), 0);
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn two_recipients_of_one_message_in_one_directory_get_two_files() {
        let home = tempfile::tempdir().unwrap();
        let id = MessageId::from_bytes(ID);
        for number in [0, 1] {
            let content = Bytes::from_static(b"x\r\n");
            deliver(home.path().to_owned(), (id, number), &ReversePath::Null, content).await.unwrap();
        }
        assert_eq!(fs::read_dir(home.path().join("new")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 0);
    }

    /// Content of three pieces, the last of which may be damaged.
    struct Pieces {
        left: u8,
        whole: bool,
    }

    impl Source for Pieces {
        async fn next(&mut self) -> io::Result<Option<Bytes>> {
            self.left -= 1;
            match self.left {
                0 if self.whole => Ok(None),
                0 => Err(io::ErrorKind::InvalidData.into()),
                _ => Ok(Some(Bytes::from_static(b"a line\r\n"))),
            }
        }
    }

    #[tokio::test]
    async fn content_that_comes_in_pieces_is_delivered_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let (id, null) = (MessageId::from_bytes(ID), ReversePath::Null);
        let files = |name| fs::read_dir(home.path().join(name)).unwrap().count();
        let damaged = Pieces { left: 4, whole: false };
        let outcome = deliver(home.path().to_owned(), (id, 0), &null, damaged).await.unwrap_err();
        assert_eq!(Failure::from(&outcome), Failure::unreadable());
        assert_eq!((files("tmp"), files("new")), (0, 0));
        deliver(home.path().to_owned(), (id, 0), &null, Pieces { left: 4, whole: true }).await.unwrap();
        let file = fs::read_dir(home.path().join("new")).unwrap().next().unwrap().unwrap();
        let expected = format!("Return-Path: <>\r\n{}", "a line\r\n".repeat(3));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected);
        assert_eq!(files("tmp"), 0);
    }

    #[test]
    fn no_address_leads_out_of_its_directory() {
        let table = [
            ("../../etc/x@test.example", "/m/%2E.%2F..%2Fetc%2Fx@test.example"),
            ("/etc/passwd@test.example", "/m/%2Fetc%2Fpasswd@test.example"),
            ("\"..\"@test.example", "/m/\"..\"@test.example"),
            ("\"../x\"@test.example", "/m/\"..%2Fx\"@test.example"),
            ("\".. /\\/\"@test.example", "/m/\".. %2F%2F\"@test.example"),
            ("\"a/b\"@test.example", "/m/a%2Fb@test.example"),
            ("\"bob\"@test.example", "/m/bob@test.example"),
            ("\"b\\ob\"@Test.Example", "/m/bob@test.example"),
            ("a%2F@test.example", "/m/a%252F@test.example"),
            ("{domain}@test.example", "/m/{domain}@test.example"),
            ("é@[192.0.2.1]", "/m/é@[192.0.2.1]"),
        ];
        for (address, expected) in table {
            let octets = format!("<{address}>");
            let Ok(recipient) = octets.parse::<ForwardPath>() else {
                // The grammar refuses it already; the name alone must still be safe.
                let (local, domain) = address.rsplit_once('@').unwrap();
                assert_eq!(format!("/m/{}@{}", name(local), name(domain)), expected);
                continue;
            };
            let to = directory(Path::new("/m/{address}"), &recipient, &hostname());
            assert_eq!(to, Path::new(expected), "{address}");
        }
        assert_eq!(name(".."), "%2E.");
        assert_eq!(name("."), "%2E");
        let bare = directory(Path::new("/m/{domain}/{local}"), &ForwardPath::Postmaster, &hostname());
        assert_eq!(bare, Path::new("/m/mx.home.test/postmaster"));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_fails_without_a_trace() {
        let home = tempfile::tempdir().unwrap();
        let blocked = home.path().join("alice");
        fs::write(&blocked, "a file where a directory is needed").unwrap();
        let id = MessageId::from_bytes(ID);
        let outcome = deliver(blocked.clone(), (id, 0), &ReversePath::Null, Bytes::new()).await;
        assert!(matches!(outcome, Err(MaildirError::Io { .. })));
        let long = home.path().join("x".repeat(300));
        let outcome = deliver(long, (id, 0), &ReversePath::Null, Bytes::new()).await;
        assert!(matches!(outcome, Err(MaildirError::NameTooLong { .. })));
        assert_eq!(fs::read(&blocked).unwrap(), b"a file where a directory is needed");
    }

    #[test]
    fn a_template_is_personal_and_has_known_placeholders() {
        for good in ["./var/mail/{address}", "/m/{domain}/{local}"] {
            assert_eq!(check_template(Path::new(good)), Ok(()));
        }
        for (bad, error) in [
            ("/m/{user}", TemplateError::Placeholder),
            ("/m/{address", TemplateError::Placeholder),
            ("/m/{domain}", TemplateError::NotPersonal),
        ] {
            assert_eq!(check_template(Path::new(bad)), Err(error), "{bad}");
        }
    }
}
