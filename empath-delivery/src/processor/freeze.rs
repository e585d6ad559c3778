//! Domains that an operator has frozen, in a file of their own: they outlive the messages.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use empath_common::Domain;
use tokio::task::spawn_blocking;

use super::{Filter, Processor};
use crate::log;

impl Processor {
    /// Freezes the domains that a file names, one a line, and keeps them there from now on. Blocks; to be called before
    /// there is a message.
    pub fn keep_frozen_in(&self, path: PathBuf) -> io::Result<()> {
        let text = match fs::read_to_string(&path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let now = self.0.now();
        for line in text.lines() {
            match line.parse() {
                Ok(domain) => {
                    self.0.update(|queue| queue.freeze(&domain, now));
                }
                Err(_) => log::not_frozen(&path),
            }
        }
        *self.0.frozen_file.try_lock().map_err(io::Error::other)? = Some(path);
        Ok(())
    }

    /// Starts nothing more to a domain, also after a restart; what is in flight is finished, and what waits expires in its
    /// time. Whether that is new; when this answers, it is durable.
    pub async fn freeze(&self, domain: &Domain) -> io::Result<bool> {
        let file = self.0.frozen_file.lock().await;
        let now = self.0.now();
        let new = self.0.update(|queue| queue.freeze(domain, now));
        if new && let Err(failure) = store(file.as_deref(), self.frozen()).await {
            self.0.update(|queue| queue.thaw(domain));
            self.thawed(domain).await;
            return Err(failure);
        }
        drop(file);
        if new {
            log::frozen(domain);
        }
        Ok(new)
    }

    /// Lets mail to a domain go on; what is due starts at once. Whether it was frozen.
    pub async fn thaw(&self, domain: &Domain) -> io::Result<bool> {
        let file = self.0.frozen_file.lock().await;
        let mut frozen = self.frozen();
        let before = frozen.len();
        frozen.retain(|other| other != domain);
        if frozen.len() == before {
            return Ok(false);
        }
        store(file.as_deref(), frozen).await?;
        self.0.update(|queue| queue.thaw(domain));
        drop(file);
        log::thawed(domain);
        self.thawed(domain).await;
        Ok(true)
    }

    /// The domains that are frozen.
    pub fn frozen(&self) -> Vec<Domain> {
        self.0.lock().queue.frozen()
    }

    async fn thawed(&self, domain: &Domain) {
        let filter = Filter { domain: Some(domain.clone()), ..Filter::default() };
        let mut after = None;
        while let Some(page) = self.page(&filter, after).await {
            after = Some(page.last);
            let now = self.0.now();
            for message in &page.matching {
                self.0.update(|queue| queue.thawed(message.id, now));
            }
        }
    }
}

/// Without a file it is not durable: then neither are the messages.
async fn store(path: Option<&Path>, domains: Vec<Domain>) -> io::Result<()> {
    let Some(path) = path.map(Path::to_owned) else {
        return Ok(());
    };
    spawn_blocking(move || write(&path, &domains)).await.map_err(io::Error::other)?
}

/// There is always a whole file: the old one or the new one.
fn write(path: &Path, domains: &[Domain]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    for domain in domains {
        writeln!(file, "{domain}")?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_one_domain_a_line_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("frozen");
        for names in [&["one.test", "two.test"][..], &["one.test"], &[]] {
            let domains: Vec<Domain> = names.iter().map(|name| name.parse().unwrap()).collect();
            write(&path, &domains).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), names);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
        assert!(write(&directory.path().join("missing/frozen"), &[]).is_err());
    }
}
