//! Panics that are errors: runtimes of GPUs fail by panics in places, which are caught and
//! told as errors. A panic hook asks here whether there is anything to tell.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Threads that the runtime starts are named so, with what they serve after it.
const RUNTIME_THREAD: &str = "DS";

thread_local! {
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// What the first of the panics said, which later ones follow from.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Runs what may panic by way of an error, and gives its reason then.
pub fn guard<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    GUARDS.set(GUARDS.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    GUARDS.set(GUARDS.get() - 1);
    outcome.map_err(|panic| {
        let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.or(text(&*panic)).unwrap_or_else(|| "a panic in the runtime".into())
    })
}

/// For a panic hook: notes a panic that becomes an error, and tells whether it is one.
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

/// Whether a panic on this thread is one that becomes an error.
pub fn is_guarded() -> bool {
    let thread = std::thread::current();
    GUARDS.get() > 0 || thread.name().is_some_and(|name| name.starts_with(RUNTIME_THREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_expected_inside_of_guards_only() {
        assert!(!is_guarded());
        let inner = guard(|| {
            let caught = guard(|| std::panic::resume_unwind(Box::new("lost")));
            (is_guarded(), caught.map(|(): ()| ()))
        });
        assert_eq!(inner, Ok((true, Err("lost".to_string()))));
        assert!(!is_guarded());
    }
}
