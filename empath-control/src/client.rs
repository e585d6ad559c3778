use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::{
    Failure, Request,
    wire::{Call, Line, MAX_ANSWER, Part, VERSION},
};

/// How long the daemon may take for one line.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// A connection to a daemon. Requests go one after another.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket.
    #[error("no daemon answers at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The daemon answered with a failure.
    #[error(transparent)]
    Refused(Failure),
    /// The connection broke within an answer.
    #[error("the connection to the daemon failed: {0}")]
    Broken(#[source] io::Error),
    /// The daemon took longer than a minute.
    #[error("the daemon has not answered for a minute")]
    Timeout,
    /// The answer is none that this version understands.
    #[error("the answer of the daemon is not understood: {0}")]
    Answer(#[source] serde_json::Error),
    /// The daemon speaks another version of the protocol.
    #[error("the daemon answers in version {0} of the control protocol, this is version {VERSION}")]
    Version(u64),
}

impl Client {
    /// Connects to the daemon whose control socket is at `path`.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(source) => Err(ClientError::Unreachable { path: path.to_owned(), source }),
        }
    }

    /// Sends a request. Its answer is read with [`next`](Self::next) until that says `None`.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(&Call { v: VERSION, request }).map_err(ClientError::Answer)?;
        line.push(b'\n');
        // Whom the daemon turns away is told why before the connection closes: the answer is worth more than the error.
        let _ = self.stream.get_mut().write_all(&line).await;
        Ok(())
    }

    /// The next object of the answer; `None` at its end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let line = timeout(READ_TIMEOUT, self.line()).await.map_err(|_| ClientError::Timeout)?;
            let line: Line<T> =
                serde_json::from_slice(&line.map_err(ClientError::Broken)?).map_err(ClientError::Answer)?;
            match line {
                Line { v, .. } if v != VERSION => return Err(ClientError::Version(v)),
                Line { part: Part::Wait(_), .. } => {}
                Line { part: Part::Ok(object), .. } => return Ok(Some(object)),
                Line { part: Part::End(_), .. } => return Ok(None),
                Line { part: Part::Error(failure), .. } => return Err(ClientError::Refused(failure)),
            }
        }
    }

    /// Sends a request that has one object as its answer.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.send(request).await?;
        let Some(object) = self.next().await? else {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        };
        while self.next::<serde_json::Value>().await?.is_some() {}
        Ok(object)
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).await?;
        if line.last() == Some(&b'\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
