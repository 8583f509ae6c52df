//! The one polling loop, over closures; and the pauses, which a shutdown ends.

use std::{
    fmt,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    error::Error,
    generation::{Generation, Video},
};

/// A call that failed and will be tried again: what
/// [`on_retry`](crate::ClientBuilder::on_retry) gets.
///
/// Its `Display` is one line: what went wrong, and when the next try is.
#[derive(Debug)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// Why the call failed.
    pub error: &'a Error,
    /// The time until the next try.
    pub pause: Duration,
}

impl fmt::Display for Retry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cause, pause) = (self.error.cause(), self.pause);
        write!(f, "{cause}; trying again in {pause:.0?}")
    }
}

/// Whether the client was shut down. All pauses of a client wait here.
#[derive(Default)]
pub(crate) struct Shutdown {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// An error if the client was shut down.
    pub(crate) fn check(&self, generation_id: Option<&str>) -> Result<(), Error> {
        if !*self.lock() {
            return Ok(());
        }
        let generation_id = generation_id.map(str::to_owned);
        Err(Error::Shutdown { generation_id })
    }

    /// Waits for this time. An error as soon as the client is shut down.
    pub(crate) fn pause(&self, time: Duration, generation_id: Option<&str>) -> Result<(), Error> {
        let is_unset = |is_set: &mut bool| !*is_set;
        drop(self.changed.wait_timeout_while(self.lock(), time, is_unset));
        self.check(generation_id)
    }
}

/// Calls `get` at each interval, with the time that is left, until the generation has finished, the
/// time is up, or something fails in a way that does not pass.
pub(crate) fn poll(
    generation_id: &str,
    (interval, timeout): (Duration, Duration),
    elapsed: impl Fn() -> Duration,
    mut pause: impl FnMut(Duration) -> Result<(), Error>,
    mut get: impl FnMut(Duration) -> Result<Generation, Error>,
    mut on_update: impl FnMut(&Generation) -> Result<(), Error>,
    mut on_retry: impl FnMut(&Error, Duration),
) -> Result<Video, Error> {
    let time_left = || timeout.saturating_sub(elapsed());
    let (mut last_status, mut last_error) = (None, None);
    let (mut has_response, mut was_missing) = (false, None);
    while !time_left().is_zero() {
        let mut time = interval;
        match get(time_left()) {
            Ok(generation) => {
                on_update(&generation)?;
                if generation.is_finished() {
                    return match generation.video {
                        Some(video) => Ok(video),
                        None => Err(Error::failed(generation, None)),
                    };
                }
                last_status = Some(generation.status);
                (has_response, was_missing) = (true, None);
            }
            Err(mut error) => {
                let is_network = matches!(error, Error::Network { .. });
                // Whether the server does not know the generation, and if so, says that itself.
                let is_missing = match &error {
                    Error::Api(error) if error.status == 404 => Some(error.is_documented),
                    _ => None,
                };
                // The service may not know a new id at once.
                let may_appear =
                    is_missing.is_some() && was_missing.is_none() && time < time_left();
                // A TLS handshake that is refused midway comes from a changed network, not from a
                // wrong configuration.
                let has_changed = is_network && has_response;
                if let Error::Api(error) = &mut error {
                    time = time.max(error.retry_after.unwrap_or_default());
                    error.is_repeated = is_missing == Some(true) && was_missing == is_missing;
                }
                if !(error.is_transient() || may_appear || has_changed) {
                    return Err(error);
                }
                (has_response, was_missing) = (has_response || !is_network, is_missing);
                on_retry(&error, time.min(time_left()));
                // A poll that the deadline cut says less than the one before.
                if last_error.is_none() || !time_left().is_zero() {
                    last_error = Some(error.cause());
                }
            }
        }
        pause(time.min(time_left()))?;
    }
    Err(Error::TimedOut {
        generation_id: generation_id.to_owned(),
        last_status,
        waited: elapsed(),
        last_error,
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api_error::ApiError,
        client::Client,
        reply::{RETRY_AFTER, Reply},
    };

    const SECOND: Duration = Duration::from_secs(1);

    const PENDING_WORDS: [&str; 6] = [
        "waiting",
        "active",
        "queued",
        "generating",
        "WAITING",
        "Queued",
    ];

    type Response = Result<Generation, Error>;

    #[derive(Debug)]
    struct Outcome {
        result: Result<Video, Error>,
        pauses: Vec<Duration>,
        /// The time that each poll was allowed to take.
        allowed: Vec<Duration>,
        seen: Vec<String>,
        retries: Vec<String>,
    }

    /// Polls a server that gives these responses, each after `response_time`, and the last one
    /// forever. Its clock is its own.
    fn run(
        interval: u64,
        timeout: u64,
        response_time: u64,
        responses: &[fn() -> Response],
    ) -> Outcome {
        let now = Cell::new(Duration::ZERO);
        let (mut pauses, mut allowed) = (Vec::new(), Vec::new());
        let (mut seen, mut retries) = (Vec::new(), Vec::new());
        let result = poll(
            "gen:1",
            (Duration::from_secs(interval), Duration::from_secs(timeout)),
            || now.get(),
            |pause| {
                pauses.push(pause);
                now.set(now.get() + pause);
                Ok(())
            },
            |left| {
                let number = allowed.len();
                allowed.push(left);
                now.set(now.get() + Duration::from_secs(response_time).min(left));
                responses[number.min(responses.len() - 1)]()
            },
            |generation| {
                seen.push(generation.status.to_string());
                Ok(())
            },
            |error, pause| retries.push(Retry { error, pause }.to_string()),
        );
        Outcome {
            result,
            pauses,
            allowed,
            seen,
            retries,
        }
    }

    fn poll_with_defaults(responses: &[fn() -> Response]) -> Outcome {
        run(10, 1000, 0, responses)
    }

    fn response(raw: Value) -> Response {
        let body = raw.to_string();
        let reply = Reply {
            status: 200,
            body,
            ..Reply::default()
        };
        Ok(Generation::read(&reply, Some("gen:1")).unwrap())
    }

    fn queued() -> Response {
        response(json!({"id": "gen:1", "status": "queued"}))
    }

    fn completed() -> Response {
        response(json!({"status": "completed", "video": {"url": "https://cdn.example/v.mp4"}}))
    }

    fn network(kind: io::ErrorKind) -> Response {
        Err(Error::Network {
            generation_id: Some("gen:1".to_owned()),
            cause: io::Error::new(kind, "reset by peer"),
        })
    }

    fn reset() -> Response {
        network(io::ErrorKind::ConnectionReset)
    }

    /// The TLS library refuses the server.
    fn refused_handshake() -> Response {
        network(io::ErrorKind::InvalidData)
    }

    fn rejected(status: u16, retry_after: Option<Duration>) -> Response {
        let retry_after = retry_after.map(|time| (RETRY_AFTER, time.as_secs().to_string()));
        let reply = Reply {
            status,
            headers: retry_after.into_iter().collect(),
            body: r#"{"message": "no"}"#.to_owned(),
            ..Reply::default()
        };
        let error = ApiError::read(&reply, Some("gen:1"), false);
        Err(Error::Api(Box::new(error)))
    }

    fn unexpected() -> Response {
        Err(Error::UnexpectedResponse {
            generation_id: Some("gen:1".to_owned()),
            reason: "it is about another generation".to_owned(),
        })
    }

    #[test]
    fn the_defaults_are_those_of_the_vendors_example() {
        let client = format!("{:?}", Client::builder("key"));
        assert!(
            client.contains("poll_interval: 10s, poll_timeout: 1000s"),
            "{client}"
        );
    }

    #[test]
    fn asks_at_once_and_then_at_each_interval_and_shows_each_response() {
        let outcome = poll_with_defaults(&[queued, queued, reset, completed]);
        assert_eq!(outcome.result.unwrap().url, "https://cdn.example/v.mp4");
        assert_eq!(outcome.pauses, [10 * SECOND; 3]);
        assert_eq!(outcome.seen, ["queued", "queued", "completed"]);
    }

    #[test]
    fn words_that_are_pending_or_unknown_continue_in_any_case() {
        for word in PENDING_WORDS.into_iter().chain(["brand-new-word", ""]) {
            let generation = json!({"id": "gen:1", "status": word, "video": null, "error": null});
            assert!(!response(generation).unwrap().is_finished(), "{word}");
        }
        // A word that comes in later must not strand a paid video.
        let upscaling: fn() -> Response = || response(json!({"status": "upscaling"}));
        assert!(poll_with_defaults(&[upscaling, completed]).result.is_ok());
        let outcome = poll_with_defaults(&[upscaling]);
        assert_eq!(outcome.pauses.len(), 100);
        assert_eq!(
            outcome.result.unwrap_err().to_string(),
            "generation gen:1 is not finished after 1000s, last status: upscaling. It may continue on \
             the server, and waiting for the same id again costs nothing"
        );
    }

    #[test]
    fn final_words_end_the_wait_in_any_case() {
        let words = "error failed cancelled canceled aborted expired rejected FAILED completed";
        for word in words.split(' ') {
            let generation = response(json!({"id": "gen:1", "status": word})).unwrap();
            assert!(generation.is_finished(), "{word}");
        }
        let outcome = poll_with_defaults(&[queued, || {
            response(json!({"id": "gen:1", "status": "Canceled"}))
        }]);
        assert_eq!(outcome.pauses.len(), 1);
        let error = outcome.result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "generation gen:1 ended without a video (status canceled); the vendor does not charge \
             failed generations"
        );
        assert_eq!(error.generation_id(), Some("gen:1"));
    }

    #[test]
    fn pending_words_are_pending_whatever_comes_beside_them() {
        for word in PENDING_WORDS {
            for beside in [
                json!({"error": {"name": "SafetyError", "message": "Not shown."}}),
                json!({"error": {"name": "", "message": "SUCCEED"}}),
                json!({"video": {"url": "https://v"}}),
            ] {
                let mut body = beside.clone();
                body["status"] = word.into();
                assert!(!response(body).unwrap().is_finished(), "{word} {beside}");
            }
        }
    }

    #[test]
    fn with_a_word_that_nobody_knows_a_video_or_an_error_that_says_something_ends_the_wait() {
        let says_nothing = json!({"status": "new", "error": {"name": "", "message": " "}});
        assert!(!response(says_nothing).unwrap().is_finished());
        let outcome = poll_with_defaults(&[|| {
            response(json!({"status": "new", "video": {"url": "https://v"}}))
        }]);
        assert_eq!(outcome.result.unwrap().url, "https://v");
        let outcome = poll_with_defaults(&[|| {
            let error = json!({"name": "SafetyError", "message": "Not shown."});
            response(json!({"id": "gen:1", "status": "new", "error": error}))
        }]);
        assert_eq!(
            outcome.result.unwrap_err().to_string(),
            "generation gen:1 ended without a video (status new): SafetyError: Not shown; it may have \
             been charged: ask the vendor, with this id"
        );
        assert_eq!(outcome.pauses, []);
    }

    #[test]
    fn transient_failures_are_tried_again_at_the_next_interval() {
        let failures: [fn() -> Response; 10] = [
            reset,
            || network(io::ErrorKind::TimedOut),
            unexpected,
            || rejected(408, None),
            || rejected(425, None),
            || rejected(429, None),
            || rejected(500, None),
            || rejected(502, None),
            || rejected(504, None),
            || rejected(599, None),
        ];
        for failure in failures {
            let outcome = poll_with_defaults(&[failure, failure, completed]);
            assert!(outcome.result.is_ok(), "{outcome:?}");
            assert_eq!(outcome.pauses, [10 * SECOND; 2]);
        }
    }

    #[test]
    fn permanent_failures_end_the_wait_at_once_with_the_id() {
        let failures: [fn() -> Response; 6] = [
            refused_handshake,
            || rejected(302, None),
            || rejected(400, None),
            || rejected(401, None),
            || rejected(403, None),
            || rejected(410, None),
        ];
        for failure in failures {
            let outcome = poll_with_defaults(&[failure, completed]);
            assert_eq!(outcome.pauses, []);
            assert_eq!(outcome.result.unwrap_err().generation_id(), Some("gen:1"));
        }
    }

    #[test]
    fn the_second_404_in_a_row_ends_the_wait() {
        let missing: fn() -> Response = || rejected(404, None);
        type Case<'a> = (&'a [fn() -> Response], bool, usize);
        let cases: [Case<'_>; 4] = [
            (&[missing, completed], true, 1),
            (&[missing, queued, missing, completed], true, 3),
            (&[missing, reset, missing, completed], true, 3),
            (&[queued, missing, missing, completed], false, 2),
        ];
        for (responses, is_ok, pauses) in cases {
            let outcome = poll_with_defaults(responses);
            assert_eq!(outcome.pauses.len(), pauses);
            assert_eq!(outcome.result.is_ok(), is_ok);
        }
        // No time is left for a second one.
        let outcome = run(10, 10, 0, &[missing]);
        assert_eq!(outcome.pauses, []);
        let Err(Error::Api(error)) = outcome.result else {
            panic!("{:?}", outcome.result)
        };
        assert_eq!((error.status, error.is_repeated), (404, false));
    }

    #[test]
    fn each_retry_is_a_line_and_the_time_until_the_next() {
        let outcome = poll_with_defaults(&[reset, || rejected(503, None), completed]);
        let lines = [
            "reset by peer; trying again in 10s",
            "status 503: no; trying again in 10s",
        ];
        assert_eq!(outcome.retries, lines);
    }

    #[test]
    fn a_poll_that_the_deadline_cut_does_not_hide_why_the_one_before_failed() {
        for (response_time, last) in [(5, "status 503: no"), (1, "reset by peer")] {
            let outcome = run(5, 12, response_time, &[|| rejected(503, None), reset]);
            let error = outcome.result.unwrap_err().to_string();
            let text = format!("last error: {last}.");
            assert!(error.contains(&text), "{error}");
        }
    }

    #[test]
    fn a_refused_handshake_is_transient_after_the_first_response_of_any_kind() {
        let first: [fn() -> Response; 3] = [queued, || rejected(503, None), unexpected];
        for first in first {
            let outcome = poll_with_defaults(&[first, refused_handshake, completed]);
            assert!(outcome.result.is_ok(), "{outcome:?}");
        }
        // A connection that broke was no response.
        let outcome = poll_with_defaults(&[reset, refused_handshake, completed]);
        assert!(outcome.result.is_err());
    }

    #[test]
    fn retry_after_is_honoured_and_clipped_to_the_deadline() {
        for (responses, pauses) in [
            ([|| rejected(429, Some(25 * SECOND)), completed], vec![25]),
            (
                [|| rejected(429, Some(Duration::ZERO)), completed],
                vec![10],
            ),
            (
                [queued, || rejected(503, Some(Duration::MAX))],
                vec![10, 990],
            ),
        ] as [([fn() -> Response; 2], Vec<u64>); 3]
        {
            let seconds = pauses.into_iter().map(Duration::from_secs);
            let outcome = poll_with_defaults(&responses);
            assert_eq!(outcome.pauses, seconds.collect::<Vec<_>>());
        }
    }

    #[test]
    fn neither_a_pause_nor_a_poll_runs_past_the_deadline() {
        let outcome = run(10, 25, 3, &[queued]);
        assert_eq!(outcome.allowed, [25 * SECOND, 12 * SECOND]);
        assert_eq!(outcome.pauses, [10 * SECOND, 9 * SECOND]);
        let Err(Error::TimedOut { waited, .. }) = outcome.result else {
            panic!("{outcome:?}")
        };
        assert_eq!(waited, 25 * SECOND);
    }

    #[test]
    fn no_time_at_all_is_no_poll_at_all() {
        let outcome = run(10, 0, 1, &[completed]);
        assert!(outcome.allowed.is_empty() && outcome.pauses.is_empty());
        assert_eq!(outcome.result.unwrap_err().generation_id(), Some("gen:1"));
    }

    #[test]
    fn the_longest_timeout_overflows_nothing() {
        let outcome = run(0, u64::MAX, 1, &[queued, completed]);
        assert!(outcome.result.is_ok());
        assert_eq!(outcome.pauses, [Duration::ZERO]);
    }

    #[test]
    fn a_timeout_shows_the_last_status_and_the_last_error() {
        let outcome = run(10, 30, 0, &[queued, reset]);
        assert_eq!(
            outcome.result.unwrap_err().to_string(),
            "generation gen:1 is not finished after 30s, last status: queued, last error: reset by \
             peer. It may continue on the server, and waiting for the same id again costs nothing"
        );
        let outcome = run(10, 30, 0, &[|| rejected(503, None)]);
        assert_eq!(
            outcome.result.unwrap_err().to_string(),
            "generation gen:1 is not finished after 30s, no poll succeeded, last error: status \
             503: no. It may continue on the server, and waiting for the same id again costs nothing"
        );
    }
}
