//! The threads on which a module's callbacks run. They are few and belong to the module alone, so a callback that hangs
//! harms no other part; they are plain threads, so that it does not keep the process from ending either.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use empath_common::Answer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use crate::{abi::Validator, context::Context};

/// Threads of one module, and so the most of its calls that can hang.
pub(crate) const WORKERS: usize = 4;

pub(crate) struct Workers {
    calls: SyncSender<Call>,
    idle: Arc<Semaphore>,
    running: Arc<Running>,
}

/// When the call of each worker was due to start.
type Running = Mutex<[Option<Instant>; WORKERS]>;

struct Call {
    validator: Validator,
    context: Box<Context>,
    started: Instant,
    answer: oneshot::Sender<Option<Answer>>,
    /// Given back when the call has returned, however late.
    _permit: OwnedSemaphorePermit,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the module gave no answer within its deadline")]
    Late,
    #[error("the module gave an answer that is neither 0 nor 400 to 599")]
    Unknown,
}

impl Workers {
    pub(crate) fn start(module: &str) -> io::Result<Self> {
        let (calls, waiting) = sync_channel(WORKERS);
        let waiting = Arc::new(Mutex::new(waiting));
        let running = Arc::new(Running::default());
        for worker in 0..WORKERS {
            let (waiting, running) = (Arc::clone(&waiting), Arc::clone(&running));
            let name = format!("module-{module}");
            thread::Builder::new().name(name).spawn(move || work(worker, &waiting, &running))?;
        }
        Ok(Self { calls, idle: Arc::new(Semaphore::new(WORKERS)), running })
    }

    /// Whether every worker is in a call that has missed its deadline, so that waiting makes no sense.
    pub(crate) fn hang(&self, deadline: Duration) -> bool {
        let now = Instant::now();
        let overdue = |started: &Instant| now.saturating_duration_since(*started) >= deadline;
        lock(&self.running).iter().all(|started| started.as_ref().is_some_and(overdue))
    }

    /// Calls `validator` as soon as a worker is free.
    pub(crate) async fn call(
        &self,
        validator: Validator,
        context: Box<Context>,
        deadline: Duration,
    ) -> Result<Answer, NoAnswer> {
        let started = Instant::now();
        let until = started + deadline;
        let permit = timeout_at(until, Arc::clone(&self.idle).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(NoAnswer::Late);
        };
        let (answer, answered) = oneshot::channel();
        let call = Call { validator, context, started, answer, _permit: permit };
        // Whoever has a permit finds a place: there are as many places as permits.
        self.calls.try_send(call).map_err(|_| NoAnswer::Late)?;
        match timeout_at(until, answered).await {
            Ok(Ok(answer)) => answer.ok_or(NoAnswer::Unknown),
            _ => Err(NoAnswer::Late),
        }
    }
}

/// Runs calls until the module is dropped.
fn work(worker: usize, waiting: &Mutex<Receiver<Call>>, running: &Running) {
    let note = |started| {
        if let Some(mine) = lock(running).get_mut(worker) {
            *mine = started;
        }
    };
    loop {
        let next = lock(waiting).recv();
        let Ok(Call { validator, mut context, started, answer, _permit }) = next else {
            return;
        };
        note(Some(started));
        // SAFETY: the function came from the module's declaration, whose type the ABI version vouches for, and
        // modules are never unloaded; the context is ours alone and lives until the call has returned.
        let code = unsafe { validator(&raw mut *context) };
        note(None);
        // Nobody waits any more when the call was late.
        let _ = answer.send(context.answer(code));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
