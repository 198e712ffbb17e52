//! Panics of a library as errors.
//!
//! The tokenizers library panics on some tokenizers that do not hang together, such as a
//! post-processor that names a token which is not there. Nothing a user can feed in may do that.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are caught, and so need no message of their own.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or the message of its panic. `work` must leave nothing half-changed that is
/// used after a panic.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    result.map_err(|payload| message(&*payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it does not hang together").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        assert_eq!(guard(|| 3), Ok(3));
        assert_eq!(guard(|| panic!("no {}", 1)), Err::<(), _>("no 1".into()));
        assert_eq!(guard(|| panic!("none")), Err::<(), _>("none".into()));
    }
}
