//! Why an incarnation ended, and how a panic becomes such a reason.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A start that failed; `why` goes into the tree.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    Normal,
    Shutdown,
    ShutdownWith(String),
    Failed(String),
    Panicked(String),
    Killed,
    Hung(String),
    /// Its start chose not to run; OTP's `ignore`.
    Ignored,
    /// Nothing ran there when it was asked about; OTP's `noproc`.
    NotRunning,
    /// A process that ended with that exit code, not 0.
    Code(i32),
    /// A process that aborted itself (SIGABRT).
    Aborted,
    /// A process that touched memory it must not (SIGSEGV, SIGBUS).
    Segfault,
    /// A process that the kernel killed because memory ran out.
    OutOfMemory,
    /// A process that another signal ended.
    Signal(i32),
    /// An actor of another node: the node is lost, or was started anew. OTP's `noconnection`.
    NodeDown,
    /// Another process holds what it does by now: an orderly end, after which it stands by. Older nodes do not know it:
    /// see [`Exit::on_the_wire`].
    Fenced(String),
}

impl Exit {
    /// For `?` on any error inside a handler that must end the incarnation.
    pub fn failed(why: impl std::fmt::Display) -> Exit {
        Exit::Failed(why.to_string())
    }

    /// As another node reads it, which may be of a version before [`Exit::Fenced`].
    pub fn on_the_wire(self) -> Exit {
        match self {
            Exit::Fenced(why) => Exit::ShutdownWith(format!("fenced off: {why}")),
            exit => exit,
        }
    }

    /// OTP's rule for transient children: anything but normal, shutdown and {shutdown, _}.
    pub fn is_abnormal(&self) -> bool {
        match self {
            Exit::Normal | Exit::Shutdown | Exit::ShutdownWith(_) | Exit::Ignored | Exit::Fenced(_) => false,
            Exit::Failed(_) | Exit::Panicked(_) | Exit::Killed | Exit::Hung(_) | Exit::NotRunning => true,
            Exit::Code(_) | Exit::Aborted | Exit::Segfault | Exit::OutOfMemory | Exit::Signal(_) => true,
            Exit::NodeDown => true,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Normal => f.write_str("normal"),
            Exit::Shutdown => f.write_str("shutdown"),
            Exit::ShutdownWith(why) => write!(f, "shutdown: {why}"),
            Exit::Failed(why) => write!(f, "failed: {why}"),
            Exit::Panicked(why) => write!(f, "panicked: {why}"),
            Exit::Killed => f.write_str("killed"),
            Exit::Hung(what) => write!(f, "hung: {what}"),
            Exit::Ignored => f.write_str("ignored"),
            Exit::NotRunning => f.write_str("not running"),
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Aborted => f.write_str("aborted (SIGABRT)"),
            Exit::Segfault => f.write_str("segmentation fault"),
            Exit::OutOfMemory => f.write_str("killed for memory"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::NodeDown => f.write_str("its node is down"),
            Exit::Fenced(why) => write!(f, "fenced off: {why}"),
        }
    }
}

thread_local! {
    /// How many [`catch`]es this thread is in: the hook speaks for the others only.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets [`catch`] learn where a panic happened. Panics elsewhere go to the hook that was there before.
pub(super) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(Cell::get) == 0 {
                return before(info);
            }
            let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
            let text = format!("{}{place}", words(info.payload()));
            LAST.with(|last| *last.borrow_mut() = Some(text));
        }));
    });
}

fn words(payload: &(dyn Any + Send)) -> String {
    if let Some(s) = payload.downcast_ref::<&'static str>() {
        (*s).to_string()
    } else if let Some(s) = payload.downcast_ref::<String>() {
        s.clone()
    } else {
        "a payload that is no text".to_string()
    }
}

/// Runs `f`; a panic in it comes back as its message and place.
pub(super) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            GUARDED.with(|g| g.set(g.get().saturating_sub(1)));
        }
    }
    GUARDED.with(|g| g.set(g.get() + 1));
    let _leave = Leave;
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = LAST.with(|last| last.borrow_mut().take()).unwrap_or_else(|| words(payload.as_ref()));
        // A payload may be any value, and its destructor may panic too: this thread must survive that.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_says_what_and_where() {
        install_hook();
        let text = catch(|| panic!("no {}", "way")).unwrap_err();
        assert!(text.starts_with("no way at ") && text.contains("exit.rs:"), "{text}");
    }

    #[test]
    fn only_orderly_reasons_are_not_abnormal() {
        let s = || "x".to_string();
        for (exit, abnormal) in [
            (Exit::Normal, false),
            (Exit::Shutdown, false),
            (Exit::ShutdownWith(s()), false),
            (Exit::Failed(s()), true),
            (Exit::Panicked(s()), true),
            (Exit::Killed, true),
            (Exit::Hung(s()), true),
            (Exit::Ignored, false),
            (Exit::NotRunning, true),
            (Exit::Code(1), true),
            (Exit::Aborted, true),
            (Exit::Segfault, true),
            (Exit::OutOfMemory, true),
            (Exit::Signal(15), true),
            (Exit::NodeDown, true),
            (Exit::Fenced(s()), false),
        ] {
            assert_eq!(exit.is_abnormal(), abnormal, "{exit}");
        }
    }
}
