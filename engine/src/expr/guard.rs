//! A panic while an expression is planned or computed is an error of that expression, as any other.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::error::DataFusionError;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and counted, so that it need not be reported as the program's end.
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

/// Computes something; a panic is an error.
pub(crate) fn guarded<T>(compute: impl FnOnce() -> Result<T, DataFusionError>) -> Result<T, DataFusionError> {
    let before = IS_GUARDED.replace(true);
    // Expressions hold no state that a panic could leave half changed.
    let computed = catch_unwind(AssertUnwindSafe(compute));
    IS_GUARDED.set(before);
    computed.unwrap_or_else(|payload| {
        let message = panic_message(payload.as_ref());
        Err(DataFusionError::Execution(format!("the expression panicked: {message}")))
    })
}

/// What a panic says.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
