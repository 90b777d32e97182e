//! Ends a process without other ranks when it makes no progress, since no other rank monitors it.

use super::findings::advice;
use super::state::{ReadingOf, SILENT_SHARE, WatchState, pause_of};
use crate::error::{Error, Fault, Result};
use crate::terminal::print_error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starts a thread that ends this process with exit code 5 after half of the deadline without
/// progress. Time during which the process itself was stopped does not count.
pub(super) fn start(
    shared: Arc<WatchState>,
    deadline: Duration,
    reading: ReadingOf,
) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("watchdog".to_string())
        .spawn(move || run(&shared, deadline, &reading))
        .map_err(|error| Fault::new("cannot start a thread").found(error).environment())
}

fn run(shared: &WatchState, deadline: Duration, reading: &ReadingOf) {
    let (pause, limit) = (pause_of(deadline), deadline.mul_f64(SILENT_SHARE));
    let (mut ticks, mut idle) = (shared.ticks.load(Ordering::Relaxed), Duration::ZERO);
    let mut turn = Instant::now();
    while !shared.is_over(pause) {
        let elapsed = turn.elapsed().min(2 * pause);
        turn = Instant::now();
        let now = shared.ticks.load(Ordering::Relaxed);
        idle = if now == ticks { idle + elapsed } else { Duration::ZERO };
        ticks = now;
        if idle >= limit {
            let error = stuck(idle, reading(0).as_deref());
            print_error(&error);
            signal_hook::low_level::exit(i32::from(error.exit_code()));
        }
    }
}

fn stuck(idle: Duration, file: Option<&str>) -> Error {
    let found = format!("no progress for {:.1} s", idle.as_secs_f64());
    let fault = Fault::new("the work has stopped").found(match file {
        Some(file) => format!("{found} while reading {file}"),
        None => found,
    });
    fault.advice(advice(file.is_some())).environment()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_the_file_that_was_read() {
        let error = stuck(Duration::from_secs(3), Some("night-1/run-7.h5"));
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("no progress for 3.0 s while reading night-1/run-7.h5"), "{text}");
        assert!(text.contains("child process"), "{text}");
    }
}
