//! The receiving end: `Session` owns the protocol, the connection driver owns the socket.

mod intake;

pub use intake::{Draft, Intake, IntakeError};
