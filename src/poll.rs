use std::{ops::ControlFlow, thread, time::Duration};

use crate::{Error, Generation, Status, Video, error::TimedOut};

/// How often to ask, and for how long at most.
///
/// ```
/// use std::time::Duration;
/// let patient = aimlapi_video::Polling::default().timeout(Duration::from_secs(3600));
/// assert_eq!(patient.interval, Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Polling {
    /// The pause between two polls. Defaults to 10 s, as in the vendor's example.
    pub interval: Duration,
    /// The time after which to give up. Defaults to 1000 s, as in the vendor's example.
    pub timeout: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Polling { interval: Duration::from_secs(10), timeout: Duration::from_secs(1000) }
    }
}

impl Polling {
    /// Sets the pause between two polls.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the time after which to give up.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// What a callback may return: nothing, to go on, or a [`ControlFlow`], to go on or stop.
pub trait IntoControlFlow: sealed::Sealed {
    #[doc(hidden)]
    fn into_control_flow(self) -> ControlFlow<()>;
}

impl IntoControlFlow for () {
    fn into_control_flow(self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl IntoControlFlow for ControlFlow<()> {
    fn into_control_flow(self) -> ControlFlow<()> {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for std::ops::ControlFlow<()> {}
}

/// The only place that sleeps.
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Asks `get` about a generation, with the time that is left, until it is over or the time is up.
pub(crate) fn poll(
    generation_id: &str,
    polling: &Polling,
    elapsed: impl Fn() -> Duration,
    mut sleep: impl FnMut(Duration),
    mut get: impl FnMut(Duration) -> Result<Generation, Error>,
    mut observe: impl FnMut(&Generation) -> ControlFlow<()>,
) -> Result<Video, Error> {
    let time_left = || polling.timeout.saturating_sub(elapsed());
    let mut last_status: Option<Status> = None;
    let mut failed_polls = 0;
    let mut last_failure = None;
    while !time_left().is_zero() {
        let mut pause = polling.interval;
        match get(time_left()) {
            Ok(mut generation) => {
                let flow = observe(&generation);
                if let Some(video) = generation.video.take() {
                    return Ok(video);
                }
                if generation.is_finished() {
                    return Err(Error::Failed(Box::new(generation)));
                }
                if flow.is_break() {
                    return Err(Error::Stopped { generation_id: generation_id.to_owned() });
                }
                last_status = Some(generation.status);
            }
            Err(error) if error.is_passing() => {
                pause = pause.max(error.retry_after().unwrap_or_default());
                failed_polls += 1;
                last_failure = Some(error);
            }
            Err(error) => return Err(error),
        }
        sleep(pause.min(time_left()));
    }
    Err(Error::TimedOut(Box::new(TimedOut {
        generation_id: generation_id.to_owned(),
        last_status,
        waited: elapsed(),
        failed_polls,
        last_failure,
    })))
}
