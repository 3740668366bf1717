//! SIGINT and SIGTERM: the first asks for a safe point, the second ends the process at once.

use conversion::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Code, Failure, Result};

/// Both signals, which end nothing by themselves once this listens.
pub(crate) struct Signals {
    runtime: Runtime,
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    /// To be called before anybody is told that the program is up.
    pub(crate) fn listen() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (interrupts, terminations) = runtime
            .block_on(async {
                std::io::Result::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
            })
            .map_err(failed)?;
        Ok(Self { runtime, interrupts, terminations })
    }

    /// Returns at the first, even if it came before this call; the next ends the process.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn wait_to_stop(mut self) -> Result<()> {
        self.next();
        tracing::info!("stopping; tasks come to a safe point");
        self.in_thread(Self::exit_at_next)
    }

    /// Cancels at the first, and ends the process at the next; meanwhile the caller goes on.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn cancel_in_background(self, cancel: Cancel) -> Result<()> {
        self.in_thread(move |mut signals| {
            signals.next();
            cancel.cancel();
            signals.exit_at_next();
        })
    }

    fn exit_at_next(mut self) {
        self.next();
        std::process::exit(Code::Interrupted as i32);
    }

    fn next(&mut self) {
        let Self { runtime, interrupts, terminations } = self;
        runtime.block_on(async {
            tokio::select! { _ = interrupts.recv() => {}, _ = terminations.recv() => {} }
        });
    }

    fn in_thread(self, work: impl FnOnce(Self) + Send + 'static) -> Result<()> {
        std::thread::Builder::new().name("signals".into()).spawn(move || work(self)).map(drop).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::io("signals", &error)
}
