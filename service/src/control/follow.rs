//! Telling a client how far the job is that it asked for.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::protocol::ControlReply;
use crate::job::{JobState, JobWatch};

/// How often it is told.
const EVERY: Duration = Duration::from_millis(500);

/// How long a client may take to read a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends how far a job is until it has ended, and then what came of it. The job goes on if the client
/// leaves.
pub(super) async fn follow(mut stream: UnixStream, mut job: JobWatch) -> io::Result<()> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let state = job.borrow_and_update().clone();
        let reply = match state {
            JobState::Running(progress) => ControlReply::progress(&progress),
            JobState::Ended(end) => return send(&mut stream, &ControlReply::ended(end)).await,
        };
        send(&mut stream, &reply).await?;
        let ended = |state: &JobState| matches!(state, JobState::Ended(_));
        ticks.reset();
        tokio::select! {
            // What it is given back cannot be held while a line is sent.
            is_lost = async { job.wait_for(ended).await.is_err() } => if is_lost {
                return send(&mut stream, &ControlReply::refused("the job was lost")).await;
            },
            _ = ticks.tick() => {}
        }
    }
}

async fn send(stream: &mut UnixStream, reply: &ControlReply) -> io::Result<()> {
    let sent = timeout(PATIENCE, stream.write_all(&reply.line())).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
