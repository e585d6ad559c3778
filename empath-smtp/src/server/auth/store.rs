use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

use super::{super::log, Users, UsersError};

/// The users file in use, read again when it has changed. If it is no good then, the users of before stay.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    users: Arc<Users>,
    /// The file when it was last read, whether or not that went well.
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

/// What changes when the file does.
type Stamp = (u64, u64, (i64, i64), (i64, i64));

/// How long the file is taken to be what it was. An idle daemon does not look at all.
const FRESH: Duration = Duration::from_millis(100);

impl Store {
    pub(super) fn load(file: &Path) -> Result<Self, Vec<UsersError>> {
        // Taken first: what changes while the file is read is noticed.
        let stamp = stamp(file);
        let users = Arc::new(Users::read(file)?);
        Ok(Self { file: file.to_path_buf(), current: Mutex::new(Current { users, stamp, looked: None }) })
    }

    /// The users at this moment.
    pub(super) async fn users(&self) -> Arc<Users> {
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if current.looked.is_some_and(|looked| now.duration_since(looked) < FRESH) {
            return Arc::clone(&current.users);
        }
        current.looked = Some(now);
        let (file, before) = (self.file.clone(), current.stamp);
        let look = move || {
            let stamp = stamp(&file);
            (stamp != before).then(|| (stamp, Users::read(&file)))
        };
        if let Ok(Some((stamp, read))) = spawn_blocking(look).await {
            current.stamp = stamp;
            match read {
                Ok(users) => {
                    log::users_changed(&self.file, users.iter().count());
                    current.users = Arc::new(users);
                }
                Err(errors) => errors.iter().for_each(|error| log::users_kept(error)),
            }
        }
        Arc::clone(&current.users)
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    let (modified, changed) =
        ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    Some((metadata.ino(), metadata.size(), modified, changed))
}
