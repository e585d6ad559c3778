//! What the control socket can ask of the spool.

use std::{collections::BTreeSet, io, sync::Arc};

use empath_control::{
    Answers, Checked, Discarded, Failure, FailureCode, Finding, Kept, KeptSegment, Piece, SpoolStats,
};
use empath_spool::{Damage, Metrics, Quarantine, Spool, Usage, Verification};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// Most messages that are named for one damaged range: they fit into one answer.
const MAX_NAMED: usize = 100_000;

/// Most segments that are named in the statistics.
const MAX_SEGMENTS: usize = 100;

/// The spool as the control socket sees it.
pub struct SpoolOperations {
    spool: Arc<dyn Spool>,
    metrics: Metrics,
    /// One check of the spool at a time: each reads all of it.
    check: Arc<Semaphore>,
}

impl SpoolOperations {
    /// Operations on a spool that keeps these metrics.
    pub fn new(spool: Arc<dyn Spool>, metrics: Metrics) -> Self {
        Self { spool, metrics, check: Arc::new(Semaphore::new(1)) }
    }

    pub(super) async fn stats(&self, answers: &mut Answers) -> Result<(), Failure> {
        let spool = Arc::clone(&self.spool);
        let looked = spawn_blocking(move || {
            let damaged = spool
                .quarantine()
                .map_or(Ok((0, 0)), |quarantine| Ok((quarantine.list()?.len() as u64, quarantine.octets()?)));
            (spool.free().ok(), damaged)
        });
        let (free, damaged) = looked.await.map_err(stopped)?;
        let (damaged, damaged_octets) = damaged.map_err(|failure| failed(&failure))?;
        let kept = self.spool.kept();
        let Usage { journal, live, large } = self.metrics.usage();
        let bounded = |n: &u64| *n != u64::MAX;
        let stats = SpoolStats {
            messages: self.spool.len() as u64,
            journal_octets: journal,
            live_octets: live,
            large_octets: large,
            free_octets: free.map(|free| free.octets).filter(bounded),
            free_inodes: free.map(|free| free.inodes).filter(bounded),
            damaged,
            damaged_octets,
            kept: kept.len() as u64,
            kept_segments: kept.into_iter().take(MAX_SEGMENTS).map(shown).collect(),
            healthy: self.spool.is_healthy(),
        };
        answers.send(&stats).await
    }

    pub(super) async fn verify(&self, answers: &mut Answers) -> Result<(), Failure> {
        let Ok(turn) = Arc::clone(&self.check).try_acquire_owned() else {
            let message = "a check of the spool is under way; ask again when it has ended";
            return Err(Failure::new(FailureCode::Refused, message));
        };
        let spool = Arc::clone(&self.spool);
        // A task of its own: reading can't be given up, so that the turn lasts longer than a client that goes away.
        let check = tokio::spawn(async move {
            let verification = spool.verify().await;
            drop(turn);
            verification
        });
        let verification = answers.during(check).await?.map_err(stopped)?;
        for finding in findings(verification) {
            answers.send(&finding).await?;
        }
        Ok(())
    }

    pub(super) async fn damaged(&self, answers: &mut Answers) -> Result<(), Failure> {
        let Some(quarantine) = self.spool.quarantine() else {
            return Ok(());
        };
        let kept = spawn_blocking(move || quarantine.list()).await.map_err(stopped)?;
        for kept in kept.map_err(|failure| failed(&failure))? {
            let empath_spool::Kept { name, octets, report, messages, problem } = kept;
            let report = report.into_iter().collect();
            answers.send(&Kept { name, octets, report, messages, problem }).await?;
        }
        Ok(())
    }

    /// Piece by piece: the client's pace bounds what is in memory.
    pub(super) async fn export(&self, name: String, answers: &mut Answers) -> Result<(), Failure> {
        let quarantine = self.quarantine(&name)?;
        let mut at = 0;
        loop {
            let (quarantine, name) = (quarantine.clone(), name.clone());
            let piece = spawn_blocking(move || quarantine.piece(&name, at).map_err(|e| named(&name, &e)));
            let octets = piece.await.map_err(stopped)??;
            if octets.is_empty() {
                return Ok(());
            }
            let next = at + octets.len() as u64;
            answers.send(&Piece { at, octets }).await?;
            at = next;
        }
    }

    pub(super) async fn discard(&self, names: Vec<String>, answers: &mut Answers) -> Result<(), Failure> {
        let names: BTreeSet<String> = names.into_iter().collect();
        let quarantine = self.quarantine(names.first().map_or("", String::as_str))?;
        let discarded = spawn_blocking(move || discard(&quarantine, &names));
        answers.send(&discarded.await.map_err(stopped)??).await
    }

    fn quarantine(&self, name: &str) -> Result<Quarantine, Failure> {
        self.spool.quarantine().ok_or_else(|| unknown(name))
    }
}

/// All names are looked at first: a misspelling changes nothing.
fn discard(quarantine: &Quarantine, names: &BTreeSet<String>) -> Result<Discarded, Failure> {
    let kept: BTreeSet<_> =
        quarantine.list().map_err(|failure| failed(&failure))?.into_iter().map(|kept| kept.name).collect();
    if let Some(name) = names.difference(&kept).next() {
        return Err(unknown(name));
    }
    for name in names {
        quarantine.discard(name).map_err(|failure| named(name, &failure))?;
        tracing::info!(name, "what was kept of damage was discarded");
    }
    Ok(Discarded { discarded: names.len() as u64 })
}

/// What is wrong, and at the end what was checked.
pub(crate) fn findings(verification: Verification) -> impl Iterator<Item = Finding> {
    let summary = Checked {
        clean: verification.is_clean(),
        segments: verification.segments as u64,
        records: verification.records,
        octets: verification.octets,
        large: verification.large as u64,
        unfinished: verification.unfinished,
        damaged: verification.damaged.len() as u64,
        unreadable: verification.unreadable.len() as u64,
        kept: verification.kept.len() as u64,
    };
    let damaged = verification.damaged.into_iter().map(|damage| {
        let Damage { segment, offset, length, reason, ids: mut messages, .. } = damage;
        messages.truncate(MAX_NAMED);
        Finding::Damage { segment, offset, length, reason: reason.to_string(), messages }
    });
    let unreadable =
        verification.unreadable.into_iter().map(|(id, reason)| Finding::Unreadable { id, reason });
    let kept = verification.kept.into_iter().map(|kept| Finding::Kept(shown(kept)));
    damaged.chain(unreadable).chain(kept).chain([Finding::Summary(summary)])
}

fn shown(kept: empath_spool::KeptSegment) -> KeptSegment {
    let empath_spool::KeptSegment { segment, path, reason } = kept;
    KeptSegment { segment, path: path.display().to_string(), reason: reason.to_string() }
}

fn unknown(name: &str) -> Failure {
    Failure::new(FailureCode::NotFound, format!("nothing of the name {name} is kept"))
}

fn named(name: &str, failure: &io::Error) -> Failure {
    match failure.kind() {
        io::ErrorKind::NotFound => unknown(name),
        _ => Failure::new(FailureCode::Failed, format!("{name}: {failure}")),
    }
}

fn failed(failure: &io::Error) -> Failure {
    Failure::new(FailureCode::Failed, format!("the spool cannot be read: {failure}"))
}

fn stopped(failure: JoinError) -> Failure {
    failed(&io::Error::other(failure))
}

#[cfg(test)]
mod tests {
    use empath_common::MessageId;
    use empath_control::{Client, ClientError, ControlServer, Handler, Request};
    use empath_metrics::Registry;
    use empath_spool::{DamageReason, KeptReason, MemorySpool, Verifying};
    use empath_testkit::spool::{HookedSpool, Hooks};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// It is checked when the test says so, and then found damaged.
    struct Slow {
        checked: Semaphore,
    }

    impl Hooks for Slow {
        fn verify<'a>(&'a self, _: &'a MemorySpool) -> Verifying<'a> {
            Box::pin(async move {
                self.checked.acquire().await.unwrap().forget();
                let ids = vec![MessageId::from_bytes([0; 16]); MAX_NAMED + 1];
                let (reason, copy) = (DamageReason::Unreadable, None);
                let damage = Damage { segment: 1, offset: 2, length: 3, reason, ids, more_ids: 0, copy };
                Verification { damaged: vec![damage], ..Verification::default() }
            })
        }

        fn kept(&self, _: &MemorySpool) -> Vec<empath_spool::KeptSegment> {
            let kept = |segment| empath_spool::KeptSegment {
                segment,
                path: format!("{segment:08}.seg").into(),
                reason: KeptReason::Unreadable,
            };
            (1..1000).map(kept).collect()
        }
    }

    struct Daemon(SpoolOperations);

    impl Handler for Daemon {
        async fn handle(&self, request: Request, answers: &mut Answers) -> Result<(), Failure> {
            match request {
                Request::SpoolVerify {} => self.0.verify(answers).await,
                _ => self.0.stats(answers).await,
            }
        }
    }

    #[tokio::test]
    async fn one_check_runs_at_a_time_whatever_becomes_of_who_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let spool =
            Arc::new(HookedSpool { memory: MemorySpool::new(), hooks: Slow { checked: Semaphore::new(0) } });
        let operations = SpoolOperations::new(Arc::clone(&spool) as _, Metrics::new(&Registry::default()));
        let check = Arc::clone(&operations.check);
        let server = ControlServer::bind(&path).unwrap();
        tokio::spawn(server.serve(Arc::new(Daemon(operations)), CancellationToken::new()));
        let mut first = Client::connect(&path).await.unwrap();
        first.send(&Request::SpoolVerify {}).await.unwrap();
        while check.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        drop(first);

        let mut client = Client::connect(&path).await.unwrap();
        for _ in 0..2 {
            match client.ask::<Finding>(&Request::SpoolVerify {}).await {
                Err(ClientError::Refused(Failure { code: FailureCode::Refused, message })) => {
                    assert!(message.contains("under way"), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
        // Others are not held up.
        let stats: SpoolStats = client.ask(&Request::SpoolStats {}).await.unwrap();
        assert_eq!((stats.messages, stats.free_octets, stats.damaged), (0, None, 0));
        assert_eq!((stats.kept, stats.kept_segments.len()), (999, MAX_SEGMENTS));
        assert_eq!(stats.kept_segments[0].path, "00000001.seg");

        spool.hooks.checked.add_permits(2);
        drop(check.acquire().await.unwrap());
        client.send(&Request::SpoolVerify {}).await.unwrap();
        let Some(Finding::Damage { messages, .. }) = client.next().await.unwrap() else {
            panic!("the damage comes first");
        };
        assert_eq!(messages.len(), MAX_NAMED);
        let Some(Finding::Summary(summary)) = client.next().await.unwrap() else {
            panic!("the summary comes last");
        };
        assert_eq!((summary.clean, summary.damaged), (false, 1));
        assert_eq!(client.next::<Finding>().await.unwrap(), None);
    }
}
