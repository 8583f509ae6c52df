use std::{thread, time::Duration};

use crate::{Error, Generation, Video};

/// The only place that sleeps.
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Calls `get` with the time that is left until the generation has finished or the time is up.
pub(crate) fn poll(
    generation_id: &str,
    (interval, timeout): (Duration, Duration),
    elapsed: impl Fn() -> Duration,
    mut sleep: impl FnMut(Duration),
    mut get: impl FnMut(Duration) -> Result<Generation, Error>,
    mut on_update: impl FnMut(&Generation),
) -> Result<Video, Error> {
    let time_left = || timeout.saturating_sub(elapsed());
    let (mut last_status, mut last_error) = (None, None);
    let mut has_response = false;
    while !time_left().is_zero() {
        let mut pause = interval;
        match get(time_left()) {
            Ok(generation) => {
                on_update(&generation);
                match generation.video {
                    Some(video) => return Ok(video),
                    None if generation.is_finished() => {
                        return Err(Error::Failed(Box::new(generation)));
                    }
                    None => last_status = Some(generation.status),
                }
                has_response = true;
            }
            // A TLS handshake that is refused midway comes from a changed network, not from a
            // wrong configuration.
            Err(error)
                if error.is_transient()
                    || (has_response && matches!(error, Error::Network { .. })) =>
            {
                has_response |= !matches!(error, Error::Network { .. });
                if let Error::Api(error) = &error {
                    pause = pause.max(error.retry_after.unwrap_or_default());
                }
                last_error = Some(error.cause());
            }
            Err(error) => return Err(error),
        }
        sleep(pause.min(time_left()));
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
    use crate::Refusal;

    const SECOND: Duration = Duration::from_secs(1);

    /// Polls a server that gives these answers, each after `answer_time`, and then the last one for ever. Returns the
    /// result, the pauses, and the time each poll was allowed to take.
    fn run(
        polling: Polling,
        answer_time: Duration,
        answers: Vec<fn() -> Result<Generation, Error>>,
        observe: impl FnMut(&Generation) -> ControlFlow<()>,
    ) -> (Result<Video, Error>, Vec<Duration>, Vec<Duration>) {
        let now = Cell::new(Duration::ZERO);
        let (mut pauses, mut allowed) = (Vec::new(), Vec::new());
        let result = poll(
            "gen:1",
            &polling,
            || now.get(),
            |pause| {
                pauses.push(pause);
                now.set(now.get() + pause);
            },
            |left| {
                allowed.push(left);
                now.set(now.get() + answer_time.min(left));
                answers[(allowed.len() - 1).min(answers.len() - 1)]()
            },
            observe,
        );
        (result, pauses, allowed)
    }

    fn polled(
        answers: Vec<fn() -> Result<Generation, Error>>,
    ) -> (Result<Video, Error>, Vec<Duration>) {
        let (result, pauses, _) = run(Polling::default(), Duration::ZERO, answers, |_| {
            ControlFlow::Continue(())
        });
        (result, pauses)
    }

    fn answer(raw: Value) -> Result<Generation, Error> {
        Ok(Generation::from_json(raw, Some("gen:1")).unwrap())
    }

    fn queued() -> Result<Generation, Error> {
        answer(json!({"id": "gen:1", "status": "queued"}))
    }

    fn completed() -> Result<Generation, Error> {
        answer(
            json!({"id": "gen:1", "status": "completed", "video": {"url": "https://cdn.example/v.mp4"}}),
        )
    }

    fn unreachable() -> Result<Generation, Error> {
        let cause = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        Err(Error::Network {
            generation_id: Some("gen:1".to_owned()),
            cause,
        })
    }

    fn refused(status: u16, retry_after: Option<Duration>) -> Result<Generation, Error> {
        Err(Error::Refused(Box::new(Refusal {
            status,
            message: Some("no".to_owned()),
            request_id: None,
            retry_after,
            body: String::new(),
            generation_id: Some("gen:1".to_owned()),
        })))
    }

    #[test]
    fn the_defaults_are_those_of_the_vendors_example() {
        assert_eq!(
            Polling::default(),
            Polling {
                interval: 10 * SECOND,
                timeout: 1000 * SECOND
            }
        );
    }

    #[test]
    fn asks_at_once_and_then_at_each_interval() {
        let (video, pauses) = polled(vec![queued, queued, completed]);
        assert_eq!(video.unwrap().url, "https://cdn.example/v.mp4");
        assert_eq!(pauses, [10 * SECOND, 10 * SECOND]);
    }

    #[test]
    fn pending_words_of_any_case_go_on() {
        for word in [
            "waiting",
            "active",
            "queued",
            "generating",
            "WAITING",
            "Queued",
            "brand-new-word",
            "",
        ] {
            let generation =
                answer(json!({"id": "gen:1", "status": word, "video": null, "error": null}));
            let generation = generation.unwrap_or_else(|error| panic!("{word}: {error}"));
            assert!(!generation.is_finished(), "{word}");
        }
        // A word that nobody knows yet must not strand a paid video.
        let (video, pauses) = polled(vec![|| answer(json!({"status": "upscaling"})), completed]);
        assert!(video.is_ok());
        assert_eq!(pauses.len(), 1);
    }

    #[test]
    fn an_unknown_word_that_never_ends_reaches_the_deadline() {
        let (result, pauses) = polled(vec![|| answer(json!({"status": "upscaling"}))]);
        assert_eq!(pauses.len(), 100);
        assert_eq!(
            result.unwrap_err().to_string(),
            "generation gen:1 is not finished after 1000s, last status: upscaling. It goes on at the server, and \
             waiting for the same id again costs nothing"
        );
    }

    #[test]
    fn final_words_of_any_case_end_the_wait() {
        for word in [
            "error",
            "failed",
            "cancelled",
            "canceled",
            "aborted",
            "expired",
            "rejected",
            "FAILED",
            "completed",
        ] {
            let generation = answer(json!({"id": "gen:1", "status": word})).unwrap();
            assert!(generation.is_finished(), "{word}");
        }
        let (result, pauses) = polled(vec![queued, || answer(json!({"status": "Canceled"}))]);
        assert_eq!(pauses.len(), 1);
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "generation gen:1 is over without a video (status cancelled)"
        );
        assert_eq!(error.generation_id(), Some("gen:1"));
    }

    #[test]
    fn a_video_ends_the_wait_whatever_the_word() {
        let (video, _) = polled(vec![|| {
            answer(json!({"status": "generating", "video": {"url": "https://v"}}))
        }]);
        assert_eq!(video.unwrap().url, "https://v");
    }

    #[test]
    fn an_error_object_ends_the_wait_whatever_the_word() {
        let (result, pauses) = polled(vec![|| {
            answer(
                json!({"status": "generating", "error": {"name": "SafetyError", "message": "Not shown."}}),
            )
        }]);
        assert!(pauses.is_empty());
        assert_eq!(
            result.unwrap_err().to_string(),
            "generation gen:1 is over without a video (status generating): SafetyError: Not shown."
        );
    }

    #[test]
    fn completed_without_a_video_is_a_failure_not_a_wait() {
        let (result, pauses) = polled(vec![|| {
            answer(json!({"status": "completed", "video": null}))
        }]);
        assert!(pauses.is_empty());
        assert!(matches!(result, Err(Error::Failed(_))));
    }

    #[test]
    fn passing_failures_cost_a_tick() {
        let html = || {
            let (reason, body) = (crate::error::NOT_JSON, "<html>".to_owned());
            Err(Error::UnexpectedAnswer {
                generation_id: Some("gen:1".to_owned()),
                reason,
                body,
            })
        };
        let passing: [fn() -> Result<Generation, Error>; 9] = [
            unreachable,
            html,
            || refused(408, None),
            || refused(425, None),
            || refused(429, None),
            || refused(500, None),
            || refused(502, None),
            || refused(503, None),
            || refused(504, None),
        ];
        for failure in passing {
            let (video, pauses) = polled(vec![failure, failure, completed]);
            assert!(video.is_ok());
            assert_eq!(pauses, [10 * SECOND, 10 * SECOND]);
        }
    }

    #[test]
    fn final_failures_end_the_wait_at_once_with_the_id() {
        let certificate = || {
            let cause = io::Error::other("invalid peer certificate: UnknownIssuer");
            Err(Error::Certificate {
                generation_id: Some("gen:1".to_owned()),
                cause,
            })
        };
        let not_a_generation = || {
            let (reason, body) = ("it has no id", "[]".to_owned());
            Err(Error::UnexpectedAnswer {
                generation_id: Some("gen:1".to_owned()),
                reason,
                body,
            })
        };
        let finals: [fn() -> Result<Generation, Error>; 8] = [
            certificate,
            not_a_generation,
            || refused(302, None),
            || refused(400, None),
            || refused(401, None),
            || refused(403, None),
            || refused(404, None),
            || refused(410, None),
        ];
        for failure in finals {
            let (result, pauses) = polled(vec![failure, completed]);
            assert_eq!(result.unwrap_err().generation_id(), Some("gen:1"));
            assert!(pauses.is_empty());
        }
    }

    #[test]
    fn retry_after_is_honoured_and_clipped_to_the_deadline() {
        let (video, pauses) = polled(vec![|| refused(429, Some(25 * SECOND)), completed]);
        assert!(video.is_ok());
        assert_eq!(pauses, [25 * SECOND]);
        let (result, pauses) = polled(vec![queued, || refused(503, Some(Duration::MAX))]);
        assert_eq!(pauses, [10 * SECOND, 990 * SECOND]);
        assert!(matches!(result, Err(Error::TimedOut(_))));
    }

    #[test]
    fn a_short_retry_after_does_not_make_polls_denser() {
        let (_, pauses) = polled(vec![|| refused(429, Some(Duration::ZERO)), completed]);
        assert_eq!(pauses, [10 * SECOND]);
    }

    #[test]
    fn neither_a_pause_nor_a_poll_runs_past_the_deadline() {
        let polling = Polling::default()
            .interval(10 * SECOND)
            .timeout(25 * SECOND);
        let (result, pauses, allowed) = run(polling, 3 * SECOND, vec![queued], |_| {
            ControlFlow::Continue(())
        });
        assert_eq!(allowed, [25 * SECOND, 12 * SECOND]);
        assert_eq!(pauses, [10 * SECOND, 9 * SECOND]);
        let Err(Error::TimedOut(timed_out)) = result else {
            panic!("{result:?}")
        };
        assert_eq!(timed_out.waited, 25 * SECOND);
    }

    #[test]
    fn no_time_at_all_is_no_poll_at_all() {
        let polling = Polling::default().timeout(Duration::ZERO);
        let (result, pauses, allowed) = run(polling, SECOND, vec![completed], |_| {
            ControlFlow::Continue(())
        });
        assert!(allowed.is_empty() && pauses.is_empty());
        assert_eq!(result.unwrap_err().generation_id(), Some("gen:1"));
    }

    #[test]
    fn all_the_time_in_the_world_does_not_overflow() {
        let polling = Polling::default()
            .interval(Duration::ZERO)
            .timeout(Duration::MAX);
        let (video, pauses, _) = run(polling, SECOND, vec![queued, completed], |_| {
            ControlFlow::Continue(())
        });
        assert!(video.is_ok());
        assert_eq!(pauses, [Duration::ZERO]);
    }

    #[test]
    fn the_timeout_tells_how_the_polls_went() {
        let polling = Polling::default().timeout(30 * SECOND);
        let (result, ..) = run(polling, Duration::ZERO, vec![queued, unreachable], |_| {
            ControlFlow::Continue(())
        });
        assert_eq!(
            result.unwrap_err().to_string(),
            "generation gen:1 is not finished after 30s, last status: queued, failed polls: 2, the last: reset by peer. It \
             goes on at the server, and waiting for the same id again costs nothing"
        );
    }

    #[test]
    fn the_callback_sees_every_answer_and_can_stop_the_wait() {
        let mut seen = Vec::new();
        let answers: Vec<fn() -> Result<Generation, Error>> = vec![queued, unreachable, completed];
        let (video, ..) = run(Polling::default(), Duration::ZERO, answers, |generation| {
            seen.push(generation.status.clone());
            ControlFlow::Continue(())
        });
        assert!(video.is_ok());
        assert_eq!(seen, [Status::Queued, Status::Completed]);

        let (result, pauses, _) = run(Polling::default(), Duration::ZERO, vec![queued], |_| {
            ControlFlow::Break(())
        });
        assert!(pauses.is_empty());
        assert_eq!(
            result.unwrap_err().to_string(),
            "stopped by the caller; generation gen:1 goes on at the server, and waiting for it again costs nothing"
        );
    }

    #[test]
    fn a_video_is_not_thrown_away_by_a_callback_that_stops() {
        let (video, ..) = run(Polling::default(), Duration::ZERO, vec![completed], |_| {
            ControlFlow::Break(())
        });
        assert!(video.is_ok());
    }
}
