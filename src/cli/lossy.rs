//! Log lines through a bounded queue to a thread that writes them. Where that cannot keep up, lines are dropped, and
//! how many is said in the log as soon as there is room again.

use crate::config::LogFormat;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// Dropped, it writes what is in the queue, for a second at most.
pub struct Lossy {
    lines: Lines,
    _guard: WorkerGuard,
}

impl Lossy {
    pub fn new(out: impl Write + Send + 'static, format: LogFormat) -> Lossy {
        Lossy::bounded(out, format, QUEUE)
    }

    fn bounded(out: impl Write + Send + 'static, format: LogFormat, queue: usize) -> Lossy {
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(queue).thread_name("log");
        let (out, guard) = builder.finish(out);
        let dropped = out.error_counter();
        Lossy { lines: Lines { out, dropped, said: Arc::default(), format }, _guard: guard }
    }

    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

/// Takes lines and never waits.
#[derive(Clone)]
pub struct Lines {
    out: NonBlocking,
    dropped: ErrorCounter,
    /// How many of the dropped lines the log has reported.
    said: Arc<AtomicUsize>,
    format: LogFormat,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.dropped.dropped_lines();
        let written = self.out.write(line)?;
        // Only where there is room: a notice that is dropped would count itself.
        let said = self.said.load(Ordering::Relaxed);
        if before > said
            && self.dropped.dropped_lines() == before
            && self.said.compare_exchange(said, before, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let _ = self.out.write(notice(before - said, self.format).as_bytes())?;
        }
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

fn notice(dropped: usize, format: LogFormat) -> String {
    let why = "whoever reads the log did not keep up";
    match format {
        LogFormat::Pretty => format!("WARN bulkhead::log: {dropped} log lines were dropped: {why}\n"),
        LogFormat::Json => {
            let fields = serde_json::json!({ "message": format!("log lines were dropped: {why}"), "dropped": dropped });
            format!("{}\n", serde_json::json!({ "level": "WARN", "target": "bulkhead::log", "fields": fields }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    /// Takes each line when it is told to, as a slow reader would.
    struct Slow {
        began: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        log: Arc<Mutex<String>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.began.send(());
            let _ = self.go.recv(); // the test is over: on
            self.log.lock().unwrap().push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_counted_and_said() {
        for (format, said) in [(LogFormat::Pretty, "3 log lines were dropped"), (LogFormat::Json, "\"dropped\":3")] {
            let ((began, begun), (free, go)) = (mpsc::channel(), mpsc::channel());
            let log: Arc<Mutex<String>> = Arc::default();
            let lossy = Lossy::bounded(Slow { began, go, log: log.clone() }, format, 2);
            let mut lines = lossy.lines();
            lines.write_all(b"in hand\n").unwrap();
            begun.recv().unwrap();
            for n in 0..5 {
                lines.write_all(format!("line {n}\n").as_bytes()).unwrap(); // two fit, three do not; none waits
            }
            for _ in 0..2 {
                free.send(()).unwrap();
                begun.recv().unwrap(); // the next one is in hand: there is room for another two
            }
            lines.write_all(b"later\n").unwrap();
            drop(free);
            drop(lossy);
            let log = log.lock().unwrap();
            assert!(log.starts_with("in hand\nline 0\nline 1\nlater\n") && log.contains(said), "{log}");
            assert_eq!(log.lines().count(), 5, "{log}");
        }
    }
}
