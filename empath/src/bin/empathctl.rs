//! `empathctl`: asks a running daemon over its control socket.

use std::process::ExitCode;

fn main() -> ExitCode {
    empath::ctl::run()
}
