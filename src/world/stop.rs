//! Requests to stop: from Slurm (SIGUSR1 or SIGUSR2 some minutes before the time
//! limit, SIGTERM at it or at preemption) and from the keyboard (SIGINT).
//!
//! A request is only noted here; the loops ask for it and end where their state is
//! whole. A second SIGINT ends the process at once with exit code 130. Ranks may get
//! a signal at different moments, so a loop over ranks must decide by
//! [`StopFlag::agreed`], or by adding [`StopFlag::counts`] to a sum it makes anyway.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;

use super::World;
use crate::error::{Error, Fault, Result};

/// Why to stop. Where there are several reasons at once, the first listed counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Interrupt,
    Terminate,
    User1,
    User2,
}

impl StopReason {
    pub const ALL: [StopReason; 4] =
        [StopReason::Interrupt, StopReason::Terminate, StopReason::User1, StopReason::User2];

    /// The reason that any rank has, from the sum of [`StopFlag::counts`] over ranks.
    pub fn from_counts(summed: &[i64; Self::ALL.len()]) -> Option<StopReason> {
        Self::ALL.into_iter().zip(summed).find(|(_, count)| **count != 0).map(|(reason, _)| reason)
    }

    fn signal(self) -> i32 {
        match self {
            StopReason::Interrupt => SIGINT,
            StopReason::Terminate => SIGTERM,
            StopReason::User1 => SIGUSR1,
            StopReason::User2 => SIGUSR2,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Interrupt => "SIGINT",
            StopReason::Terminate => "SIGTERM",
            StopReason::User1 => "SIGUSR1",
            StopReason::User2 => "SIGUSR2",
        })
    }
}

/// Which stop requests this process has got. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    raised: [Arc<AtomicBool>; StopReason::ALL.len()],
}

impl StopFlag {
    /// Notes the four signals from now on, in place of ending the process by them:
    /// for commands that ask again and again.
    pub fn on_signals() -> Result<StopFlag> {
        let stop = StopFlag::default();
        for (reason, raised) in StopReason::ALL.into_iter().zip(&stop.raised) {
            watch(reason, raised).map_err(|error| cannot_watch(reason, &error))?;
        }
        Ok(stop)
    }

    /// Asks for a stop as a signal would: for time limits of our own, and tests.
    pub fn raise(&self, reason: StopReason) {
        self.raised[reason as usize].store(true, Ordering::SeqCst);
    }

    /// What this rank has been asked; other ranks may not know it yet.
    pub fn requested(&self) -> Option<StopReason> {
        StopReason::from_counts(&self.counts())
    }

    /// Returns an error if this rank was asked to stop: for loops whose finished outputs stay, and
    /// whose other ranks end with this one.
    ///
    /// # Errors
    /// `Interrupted` after SIGINT, `Stopped` after any other signal.
    pub fn refuse_if_requested(&self) -> Result<()> {
        match self.requested() {
            None => Ok(()),
            Some(StopReason::Interrupt) => Err(Error::Interrupted),
            Some(reason) => Err(Error::Stopped(Box::new(
                Fault::new(format!("stopped by {reason}"))
                    .advice("run the same command again to go on: finished outputs are kept"),
            ))),
        }
    }

    /// One word per [`StopReason`], 1 where it was raised on this rank.
    pub fn counts(&self) -> [i64; StopReason::ALL.len()] {
        self.raised.each_ref().map(|raised| i64::from(raised.load(Ordering::SeqCst)))
    }

    /// What any rank has been asked, the same answer on every rank. A collective.
    pub fn agreed(&self, world: &dyn World) -> Result<Option<StopReason>> {
        let mut counts = self.counts();
        world.all_reduce_sum(&mut counts)?;
        Ok(StopReason::from_counts(&counts))
    }
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error like any other, instead of
/// a signal that ends the process.
pub fn survive_file_size_limit() {
    // Without the handler such a write ends the process, which is what happens now anyway.
    let _ = flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

fn watch(reason: StopReason, raised: &Arc<AtomicBool>) -> std::io::Result<()> {
    if reason == StopReason::Interrupt {
        // Actions run in the order of their registration: the first SIGINT finds the
        // flag down here and raises it below, the second one ends the process.
        flag::register_conditional_shutdown(reason.signal(), 130, Arc::clone(raised))?;
    }
    flag::register(reason.signal(), Arc::clone(raised)).map(|_| ())
}

fn cannot_watch(reason: StopReason, error: &std::io::Error) -> Error {
    Fault::new(format!("cannot watch for {reason}: {error}")).environment()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Threads;

    #[test]
    fn a_request_to_one_rank_is_agreed_by_all() {
        let answers = Threads::run(4, |world| {
            let stop = StopFlag::default();
            if world.rank() == 2 {
                stop.raise(StopReason::User1);
            }
            stop.agreed(world)
        });
        for answer in answers {
            assert_eq!(answer.unwrap(), Some(StopReason::User1));
        }
    }

    #[test]
    fn nobody_stops_unasked() {
        for answer in Threads::run(3, |world| StopFlag::default().agreed(world)) {
            assert_eq!(answer.unwrap(), None);
        }
    }

    #[test]
    fn a_signal_is_noted_and_an_interrupt_counts_before_it() {
        let stop = StopFlag::on_signals().unwrap();
        assert_eq!(stop.requested(), None);
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(stop.requested(), Some(StopReason::User2));
        stop.raise(StopReason::Interrupt);
        assert_eq!(stop.clone().requested(), Some(StopReason::Interrupt));
    }

    #[test]
    fn reasons_stand_in_the_order_of_their_words() {
        for (index, reason) in StopReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
