//! Converts panics of GPU runtimes into errors.
//!
//! The runtimes report some failures by a panic. [`guard`] catches it, and a panic hook calls
//! [`note`] to learn that the panic need not be printed.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Name prefix of the threads that the runtime starts.
const RUNTIME_THREAD: &str = "DS";

thread_local! {
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// Message of the first panic; later panics are its consequences.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Runs a function that may panic, and returns the message of the panic as an error.
///
/// # Errors
/// The message of the first panic inside `run`.
pub fn guard<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    GUARDS.set(GUARDS.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    GUARDS.set(GUARDS.get() - 1);
    outcome.map_err(|panic| {
        let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.or(text(&*panic)).unwrap_or_else(|| "a panic in the runtime".into())
    })
}

/// Records a panic that becomes an error, and returns whether it is one. For panic hooks.
pub fn note(panic: &PanicHookInfo) -> bool {
    if !is_guarded() {
        return false;
    }
    let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    if first.is_none() {
        *first = text(panic.payload());
    }
    true
}

fn text(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
}

/// Returns whether a panic on this thread becomes an error.
pub fn is_guarded() -> bool {
    let thread = std::thread::current();
    GUARDS.get() > 0 || thread.name().is_some_and(|name| name.starts_with(RUNTIME_THREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_guarded_inside_guards_only() {
        assert!(!is_guarded());
        let inner = guard(|| {
            let caught = guard(|| std::panic::resume_unwind(Box::new("lost")));
            (is_guarded(), caught.map(|(): ()| ()))
        });
        assert_eq!(inner, Ok((true, Err("lost".to_string()))));
        assert!(!is_guarded());
    }
}
