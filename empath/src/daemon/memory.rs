//! Memory after a flood.

use std::{sync::Arc, time::Duration};

use empath_smtp::server::Connections;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

/// So long at least from one time to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Gives the memory of sessions back to the system when many have ended.
pub(super) async fn give_back(connections: Arc<Connections>, stop: CancellationToken) {
    let ebbs = async {
        loop {
            connections.ebb().await;
            sleep(PAUSE).await;
            // A failure is a panic of it, which costs nothing but the memory.
            let _ = spawn_blocking(empath_ffi::memory::give_back).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = ebbs => {}
    }
}
