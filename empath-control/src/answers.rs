use std::{pin::pin, time::Duration};

use serde::Serialize;
use tokio::{io::AsyncWriteExt as _, net::unix::OwnedWriteHalf, time::timeout};

use crate::{
    Failure, FailureCode,
    wire::{Line, MAX_ANSWER, Part, VERSION},
};

/// A client that takes nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a client hears that its request is being worked on: several times before it would give up.
const BEAT: Duration = Duration::from_secs(10);

/// Answers are gathered up to this size before they are sent.
const BATCH: usize = 64 << 10;

/// Where a handler puts its answers to one request. They are sent as they come, and the handler waits while the
/// client is slow, so it should hold nothing that others need.
#[derive(Debug)]
pub struct Answers {
    stream: OwnedWriteHalf,
    waiting: Vec<u8>,
}

impl Answers {
    pub(crate) fn new(stream: OwnedWriteHalf) -> Self {
        Self { stream, waiting: Vec::new() }
    }

    /// Sends one object. A handler ends with the failure of this: the client is gone, or the object too large.
    pub async fn send<T: Serialize + Sync>(&mut self, object: &T) -> Result<(), Failure> {
        self.line(&Line { v: VERSION, part: Part::Ok(object) }).await
    }

    /// Waits for work that may take longer than a client waits for an answer: it hears now and then that the work is
    /// under way. Fails when the client is gone; the work is dropped then.
    pub async fn during<T>(&mut self, work: impl Future<Output = T> + Send) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            if let Ok(done) = timeout(BEAT, work.as_mut()).await {
                return Ok(done);
            }
            self.line(&Line::<()> { v: VERSION, part: Part::Wait(true) }).await?;
            self.flush().await?;
        }
    }

    /// Ends the answer to one request.
    pub(crate) async fn finish(&mut self, outcome: Result<(), &Failure>) -> Result<(), Failure> {
        let part = match outcome {
            Ok(()) => Part::End(true),
            Err(failure) => Part::Error(failure.clone()),
        };
        self.line(&Line::<()> { v: VERSION, part }).await?;
        self.flush().await
    }

    /// Tells the client that nothing more comes.
    pub(crate) async fn close(&mut self) {
        // A client that is gone needs no telling.
        let _ = self.stream.shutdown().await;
    }

    async fn line<T: Serialize + Sync>(&mut self, line: &Line<T>) -> Result<(), Failure> {
        let start = self.waiting.len();
        let written = serde_json::to_writer(&mut self.waiting, line);
        self.waiting.push(b'\n');
        if written.is_err() || self.waiting.len() - start > MAX_ANSWER {
            self.waiting.truncate(start);
            return Err(Failure::new(
                FailureCode::TooLarge,
                "the answer is too large for the control protocol",
            ));
        }
        if self.waiting.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let sent = timeout(WRITE_TIMEOUT, self.stream.write_all(&self.waiting)).await;
        self.waiting.clear();
        self.waiting.shrink_to(BATCH);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Failure::gone()),
        }
    }
}
