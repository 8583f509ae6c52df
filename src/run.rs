//! One run of a video file: does what the ledger says, and tells it what came of that.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    client::{Client, Sent},
    download::Progress,
    error::{ApiError, Error, is_transient_status, way_out},
    generation::{Cost, Generation, Usage, Video},
    ledger::{Action, Event, State, step},
    part_file::{Lock, PartFile, make_folder},
    receipt::{Attempt, Receipt, Saved},
    reply::Excerpt,
    request::new_request_id,
    standing::{Viewer, current, unsaved},
    target::Target,
};

/// How far the usage log reaches back.
const LOG_REACH: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) struct Run<'a> {
    target: &'a Target,
    client: &'a Client,
    lock: Lock,
    fingerprint: String,
    receipt_path: PathBuf,
    /// What this run knows, which is more than what is on disk while that can't be written.
    known: Receipt,
    /// Whether this run wrote whose video the file is.
    has_saved: bool,
    /// The client request id of the attempt that this run works at.
    id: String,
    /// This run's own request, if the server rejected it.
    rejection: Option<ApiError>,
    /// Whether this run lost the response to its own request.
    has_lost: bool,
    video: Option<Video>,
    on_progress: &'a mut dyn FnMut(Progress<'_>),
}

/// What a response adds to an attempt, the state and the cost aside.
#[derive(Default)]
struct Heard {
    id: Option<String>,
    usage: Option<Usage>,
    failure: Option<String>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        target: &'a Target,
        client: &'a Client,
        lock: Lock,
        fingerprint: String,
        known: Receipt,
        on_progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, Error> {
        Ok(Run {
            target,
            client,
            lock,
            fingerprint,
            receipt_path: target.receipt_path()?,
            known,
            has_saved: false,
            id: String::new(),
            rejection: None,
            has_lost: false,
            video: None,
            on_progress,
        })
    }

    /// Acts until the file is current, or nothing more can be done.
    pub(crate) fn finish(&mut self) -> Result<Attempt, Error> {
        let mut next = self.start()?;
        loop {
            next = match next {
                Action::Post => self.post()?,
                Action::LookUp => self.look_up()?,
                Action::Poll => self.poll()?,
                Action::Download => self.download()?,
                Action::Stop | Action::DeadEnd => return Ok(self.attempt().clone()),
            }
        }
    }

    fn viewer(&self) -> Viewer<'a> {
        Viewer::ClientOf(&self.client.inner.api.base_url.host)
    }

    fn start(&mut self) -> Result<Action, Error> {
        let index = current(&self.known, &self.fingerprint, self.viewer());
        let attempt = index.map(|index| &self.known.attempts[index]);
        if let Some(attempt) = attempt {
            self.id = attempt.client_request_id.clone();
        }
        Ok(step(attempt.map(Attempt::entry), Event::Start).1)
    }

    /// Sends the request. Its entry is on disk before the request's body is sent.
    fn post(&mut self) -> Result<Action, Error> {
        let (client, request) = (self.client, &self.target.request);
        self.check_unsaved()?;
        let prefix = request.requested_id().map(|id| format!("{id}:"));
        self.id = prefix.unwrap_or_default() + &new_request_id();
        let host = &client.inner.api.base_url.host;
        let attempt = Attempt::new(request, self.fingerprint.clone(), self.id.clone(), host);
        let mut stopped = None;
        let sent = client.send(request, &attempt.client_request_id.clone(), &mut || {
            self.write_entry(&attempt).map_err(|error| {
                stopped = Some(error);
                io::Error::other("stopped before the body")
            })
        })?;
        match sent {
            Sent::Unsent(error) => self.not_sent(stopped.unwrap_or(error)),
            Sent::Accepted(generation) => self.accepted(&generation),
            Sent::Refused(error) => self.refused(error),
            Sent::Lost {
                generation_id: id,
                cost,
                cause,
            } => {
                self.has_lost = true;
                let event = Event::Lost {
                    id: id.is_some(),
                    cost,
                };
                let error = self.unknown(&cause);
                self.hear(
                    event,
                    Heard {
                        id,
                        failure: Some(cause),
                        ..Heard::default()
                    },
                    error,
                )
            }
        }
    }

    /// Another request for this file may be paid for: each half of a prompt that an editor saves
    /// must not be another payment.
    fn check_unsaved(&self) -> Result<(), Error> {
        let other = unsaved(&self.known, &self.fingerprint, self.viewer());
        let Some(other) = other.filter(|_| !self.target.may_replace) else {
            return Ok(());
        };
        let prompt = other.prompt.as_deref().unwrap_or(&other.model);
        let id = other
            .generation_id
            .as_deref()
            .unwrap_or(&other.client_request_id);
        let text = format!(
            "another request for this file may be paid for, and its video was never saved: \"{}\" \
             ({}). Change the request back, give that one up with VideoFile::give_up, or call \
             allow_replace(true)",
            Excerpt(prompt),
            Excerpt(id)
        );
        let (target, fingerprint) = (self.target, &self.fingerprint);
        let cause = io::Error::other(text);
        Err(target.refused(&self.known, fingerprint, self.viewer(), cause))
    }

    /// Runs when only the request's body is left to send: asks the ledger once more, and writes the
    /// entry. From then on, the next holder of the lock reads the entry, and sends nothing.
    fn write_entry(&mut self, attempt: &Attempt) -> Result<(), Error> {
        self.read()?;
        let index = current(&self.known, &self.fingerprint, self.viewer());
        let entry = index.map(|index| self.known.attempts[index].entry());
        if step(entry, Event::Start).1 != Action::Post {
            return Err(self.busy());
        }
        self.check_unsaved()?;
        let mut receipt = self.known.clone();
        // What was not charged, and names nothing, needs no memory once it is sent again.
        let is_needed = |known: &Attempt| {
            known.fingerprint != self.fingerprint
                || known.state != State::Failed
                || known.generation_id.is_some()
        };
        receipt.attempts.retain(is_needed);
        receipt.attempts.push(attempt.clone());
        receipt
            .check_size()
            .map_err(|error| self.in_receipt(error))?;
        self.known = receipt;
        self.write()?;
        self.check_alone()
    }

    /// Looks once more, right before the body is sent.
    fn check_alone(&self) -> Result<(), Error> {
        self.lock.check().map_err(|error| self.in_file(error))?;
        let disk = self.target.receipt()?;
        let open = disk.attempts.iter().filter(|attempt| {
            attempt.fingerprint == self.fingerprint
                && attempt.entry().is_open()
                && (!attempt.is_simulated() || attempt.host == self.attempt().host)
        });
        let ids: Vec<&str> = open
            .map(|attempt| attempt.client_request_id.as_str())
            .collect();
        if ids != [self.id.as_str()] {
            return Err(self.busy());
        }
        self.client.inner.api.shutdown.check(None)
    }

    fn busy(&self) -> Error {
        let text = "another process works at this file, although this one held the lock; nothing \
                    was sent here. Run this again";
        let cause = io::Error::new(io::ErrorKind::WouldBlock, text);
        Error::file(&self.target.path, None, cause)
    }

    fn not_sent(&mut self, error: Error) -> Result<Action, Error> {
        if self.known.find(&self.id).is_none() {
            return Err(error);
        }
        let failure = Some(error.cause());
        let written = self.learn(
            Event::NotSent,
            Heard {
                failure,
                ..Heard::default()
            },
        );
        Err(written.err().unwrap_or(error))
    }

    fn accepted(&mut self, generation: &Generation) -> Result<Action, Error> {
        let heard = Heard {
            id: Some(generation.id.clone()),
            usage: generation.usage,
            failure: None,
        };
        let action = self.learn(Event::Accepted(generation.cost), heard)?;
        (self.on_progress)(Progress::Generation(generation));
        Ok(action)
    }

    fn refused(&mut self, error: ApiError) -> Result<Action, Error> {
        let id = error.generation_id.clone();
        let event = Event::Refused {
            id: id.is_some(),
            cost: error.cost,
        };
        let failure = Some(error.cause());
        self.rejection = Some(error.clone());
        let heard = Heard {
            id,
            failure,
            ..Heard::default()
        };
        self.hear(event, heard, Error::Api(Box::new(error)))
    }

    /// Looks for the request in the usage log: once, and if its response was lost just now, again
    /// and again, since the log may be late.
    fn look_up(&mut self) -> Result<Action, Error> {
        let (client, start) = (self.client, Instant::now());
        let settings = &client.inner.settings;
        loop {
            let rows = client.find_log_rows(&self.id);
            let (cause, may_pass) = match rows {
                Ok(rows) if rows.count > 0 => {
                    let id = rows.generation_id;
                    let event = Event::InLog {
                        id: id.is_some(),
                        cost: rows.cost,
                    };
                    let rows = match rows.count {
                        1 => "a row of it".to_owned(),
                        count => format!("{count} rows of it"),
                    };
                    let error = self.unknown(&format!(
                        "{}; the usage log has {rows}, and names no generation that did not fail",
                        self.history()
                    ));
                    let heard = Heard {
                        id,
                        failure: None,
                        usage: None,
                    };
                    return self.hear(event, heard, error);
                }
                Ok(_) => (
                    format!("it is not in the usage log{}", self.log_reach()),
                    true,
                ),
                Err(error) => {
                    let cause = format!("looking it up failed: {}", error.cause());
                    (cause, error.is_transient())
                }
            };
            let error = self.unknown(&format!("{}; {cause}", self.history()));
            let time_left = settings.poll_timeout.saturating_sub(start.elapsed());
            if !may_pass || !self.has_lost || time_left.is_zero() {
                return self.hear(Event::NotInLog, Heard::default(), error);
            }
            let pause = settings.poll_interval.min(time_left);
            client.inner.on_retry(&error, pause);
            if client.inner.api.shutdown.pause(pause, None).is_err() {
                return Err(error);
            }
        }
    }

    /// What is known of a request without a generation's id.
    fn history(&self) -> String {
        let unrecorded = "the run that sent it ended before it recorded a response";
        self.attempt()
            .failure
            .clone()
            .unwrap_or_else(|| unrecorded.to_owned())
    }

    fn log_reach(&self) -> &'static str {
        match SystemTime::now().duration_since(self.attempt().sent) {
            Ok(age) if age > LOG_REACH => ", which reaches back 30 days: it was sent before that",
            _ => " so far",
        }
    }

    /// Waits for the generation.
    fn poll(&mut self) -> Result<Action, Error> {
        let (client, id) = (self.client, self.generation_id());
        let (mut cost, mut usage, mut stopped) = (Cost::Unsaid, None, None);
        let waited = client.wait(&id, &mut |generation| {
            if generation.is_finished() {
                (cost, usage) = (generation.cost, generation.usage);
            } else {
                let heard = Heard {
                    usage: generation.usage,
                    ..Heard::default()
                };
                let error = self.given_up();
                let heard = self.hear(Event::Pending(generation.cost), heard, error);
                if let Err(error) = heard {
                    stopped = Some(error);
                    return Err(Error::Shutdown {
                        generation_id: None,
                    });
                }
            }
            (self.on_progress)(Progress::Generation(generation));
            Ok(())
        });
        if let Some(error) = stopped {
            return Err(error);
        }
        match waited {
            Ok(video) => {
                self.video = Some(video);
                let heard = Heard {
                    usage,
                    ..Heard::default()
                };
                let error = self.given_up();
                self.hear(Event::Video(cost), heard, error)
            }
            Err(Error::Failed { generation, .. }) => self.failed(*generation),
            Err(error) => self.not_polled(error),
        }
    }

    fn failed(&mut self, mut generation: Generation) -> Result<Action, Error> {
        let (cost, own) = (generation.cost, generation.names_itself());
        let event = match generation.status.is_failure() {
            true => Event::Failure { own, cost },
            false => Event::Ended(cost),
        };
        let error = generation
            .error
            .as_ref()
            .map_or_else(|| generation.excerpt(), |e| e.to_string());
        let failure = Some(format!("status {}: {error}", generation.status));
        let heard = Heard {
            id: None,
            usage: generation.usage,
            failure,
        };
        generation.cost = cost.max(self.attempt().cost);
        let generation = Box::new(generation);
        self.hear(
            event,
            heard,
            Error::Failed {
                generation,
                receipt: None,
            },
        )
    }

    /// A poll that ended with an error.
    fn not_polled(&mut self, error: Error) -> Result<Action, Error> {
        let is_gone = |error: &ApiError| {
            let says_nothing = matches!(error.status, 401 | 403 | 429);
            (400..500).contains(&error.status)
                && !says_nothing
                && !is_transient_status(error.status)
        };
        match (&error, self.rejection.take()) {
            (Error::Api(gone), Some(mut rejection)) if gone.is_repeated => {
                // The id that the rejection named is none.
                rejection.generation_id = None;
                let error = Error::Api(Box::new(rejection));
                self.hear(Event::Gone { own: true }, Heard::default(), error)
            }
            (Error::Api(gone), _) if is_gone(gone) => {
                let failure = Some(gone.cause());
                let cause = error.to_string();
                let heard = Heard {
                    failure,
                    ..Heard::default()
                };
                let error = self.unknown(&cause);
                self.hear(Event::Gone { own: false }, heard, error)
            }
            _ => self.hear(Event::Odd, Heard::default(), error),
        }
    }

    /// Downloads the video to the file.
    fn download(&mut self) -> Result<Action, Error> {
        let Some(video) = self.video.take() else {
            return Ok(Action::Poll);
        };
        let path = &self.target.path;
        let part = PartFile::create(path).map_err(|error| self.in_file(error))?;
        let saved = self
            .client
            .download_to(part, &video, path, self.on_progress);
        let (part, bytes) = saved.map_err(|error| self.not_served(error))?;
        self.read()?;
        self.target
            .check_standing(&self.known, &self.fingerprint, self.viewer())?;
        self.has_saved = true;
        self.known.saved.saving = Some(self.id.clone());
        self.attempt_mut().bytes = Some(bytes);
        self.write()?;
        self.lock
            .check()
            .and_then(|()| part.persist())
            .map_err(|error| self.in_file(error))?;
        self.read()?;
        self.known.saved = Saved {
            saved: Some(self.id.clone()),
            saving: None,
        };
        self.write()?;
        Ok(Action::Stop)
    }

    /// A URL that is not served may never be served again.
    fn not_served(&self, error: Error) -> Error {
        match error {
            Error::Download {
                path,
                generation_id,
                cause,
            } if cause.kind() == io::ErrorKind::NotFound => {
                let text = format!("{cause}. {}", way_out(&self.receipt_path));
                let cause = io::Error::new(cause.kind(), text);
                Error::Download {
                    path,
                    generation_id,
                    cause,
                }
            }
            other => other,
        }
    }

    /// Tells the ledger what was learned, and what it says to do next. `error` is for the case that
    /// it says to stop.
    fn hear(&mut self, event: Event, heard: Heard, error: Error) -> Result<Action, Error> {
        match (self.learn(event, heard)?, error) {
            (Action::Stop, error) => Err(error),
            (Action::DeadEnd, Error::Failed { generation, .. }) => {
                let receipt = Some(self.receipt_path.clone());
                Err(Error::Failed {
                    generation,
                    receipt,
                })
            }
            (Action::DeadEnd, error) => Err(error),
            (action, _) => Ok(action),
        }
    }

    /// Reads the receipt, unites it with what this run knows, asks the ledger, and writes.
    fn learn(&mut self, event: Event, heard: Heard) -> Result<Action, Error> {
        let Heard {
            id: generation_id,
            usage,
            failure,
        } = heard;
        let attempt = self.attempt_mut();
        attempt.unite(Attempt {
            generation_id,
            usage,
            failure,
            ..attempt.clone()
        });
        let disk = self.read()?;
        let attempt = self.attempt_mut();
        let (entry, action) = step(Some(attempt.entry()), event);
        (attempt.state, attempt.cost) = (entry.state, entry.cost);
        if disk != self.known {
            self.write()?;
        }
        Ok(action)
    }

    /// Unites what is on disk with what this run knows. Returns what is on disk.
    fn read(&mut self) -> Result<Receipt, Error> {
        let id = self.known_generation_id();
        let disk = self.target.receipt().map_err(|error| match error {
            Error::File { path, cause, .. } if id.is_some() => {
                Error::file(&path, id.as_deref(), cause)
            }
            other => other,
        })?;
        let mut receipt = disk.clone();
        receipt.unite(&self.known);
        if self.has_saved || disk.attempts.is_empty() {
            receipt.saved = self.known.saved.clone();
        }
        self.known = receipt;
        Ok(disk)
    }

    fn write(&self) -> Result<(), Error> {
        let written = make_folder(&self.receipt_path);
        let written = written.and_then(|()| self.known.write(&self.receipt_path));
        written.map_err(|error| self.in_receipt(error))
    }

    fn attempt(&self) -> &Attempt {
        let index = self.known.find(&self.id).unwrap_or_default();
        &self.known.attempts[index]
    }

    fn attempt_mut(&mut self) -> &mut Attempt {
        let index = self.known.find(&self.id).unwrap_or_default();
        &mut self.known.attempts[index]
    }

    fn known_generation_id(&self) -> Option<String> {
        let index = self.known.find(&self.id)?;
        self.known.attempts[index].generation_id.clone()
    }

    fn generation_id(&self) -> String {
        self.known_generation_id().unwrap_or_default()
    }

    fn in_file(&self, error: io::Error) -> Error {
        Error::file(
            &self.target.path,
            self.known_generation_id().as_deref(),
            error,
        )
    }

    fn in_receipt(&self, error: io::Error) -> Error {
        Error::file(
            &self.receipt_path,
            self.known_generation_id().as_deref(),
            error,
        )
    }

    /// The error of a request of which nothing tells what became of it.
    fn unknown(&self, cause: &str) -> Error {
        let host = self.attempt().host.as_deref().unwrap_or("an unknown host");
        Error::OutcomeUnknown {
            client_request_id: self.id.clone(),
            generation_id: self.known_generation_id(),
            cause: format!("{cause} (the request went to {})", Excerpt(host)),
            receipt: Some(self.receipt_path.clone()),
        }
    }

    fn given_up(&self) -> Error {
        let text = "this attempt was given up while this run worked at it";
        self.in_receipt(io::Error::other(text))
    }
}
