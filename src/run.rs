//! One run of a video file: does what the ledger says, and tells it what came of that.

use std::{
    io::{self, ErrorKind::NotFound},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    api_error::{ApiError, is_transient_status},
    client::Client,
    download::Progress,
    error::{Error, way_out},
    generation::{Cost, Generation, Video},
    ledger::{Action, Event, State, step},
    part_file::Lock,
    receipt::{Attempt, Receipt},
    record::{Next, Record, about},
    reply::Excerpt,
    request::new_request_id,
    standing::{Viewer, current, unsaved},
};

/// How far the usage log reaches back.
const LOG_REACH: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) struct Run<'a> {
    pub(crate) client: &'a Client,
    pub(crate) lock: Lock,
    pub(crate) record: Record<'a>,
    pub(crate) on_progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Run<'_> {
    /// Acts until the file is current, or nothing more can be done.
    pub(crate) fn finish(&mut self) -> Result<Attempt, Error> {
        let (mut own, mut video) = (Own::default(), None);
        // The ledger's first word, about the attempt that speaks for the request.
        let mut next = step(self.record.attempt().map(Attempt::entry), Event::Start).1;
        loop {
            next = match (next, video.take()) {
                (Action::Post, _) => self.post(&mut own)?,
                (Action::LookUp, _) => self.look_up(own.is_lost)?,
                (Action::Download, Some(video)) => return self.download(&video),
                _ => self.poll(&mut own, &mut video)?,
            }
        }
    }

    /// Sends the request. Its entry is on disk before the request's body is sent.
    fn post(&mut self, own: &mut Own) -> Next {
        self.check_unsaved(&self.record.known)?;
        let (client, request) = (self.client, &self.record.target.request);
        let prefix = request.client_request_id.as_ref();
        let prefix = prefix.map(|id| format!("{id}:"));
        let id = prefix.unwrap_or_default() + &new_request_id();
        let Viewer { fingerprint, host } = &self.record.viewer;
        let attempt = Attempt::new(request, fingerprint, host.as_deref(), id.clone());
        self.record.id = id.clone();
        let mut stopped = None;
        let sent = client.send(request, &id, &mut || {
            self.write_entry(&attempt).map_err(|error| {
                stopped = Some(error);
                io::Error::other("stopped before the body")
            })
        });
        let (error, cost) = match sent {
            Ok(generation) => return self.accepted(&generation),
            Err(unaccepted) => unaccepted,
        };
        let id = error.generation_id().map(str::to_owned);
        let (has_id, cause) = (id.is_some(), error.cause());
        let (event, error) = match error {
            Error::Api(rejection) => {
                own.rejection = Some(rejection.clone());
                (Event::Refused { id: has_id, cost }, Error::Api(rejection))
            }
            Error::OutcomeUnknown { .. } => {
                own.is_lost = true;
                let error = self.record.unknown(&cause);
                (Event::Lost { id: has_id, cost }, error)
            }
            error => return Err(self.unsent(stopped.unwrap_or(error))),
        };
        let heard = |new: &mut Attempt| (new.generation_id, new.failure) = (id, Some(cause));
        self.hear(event, heard, error)
    }

    fn accepted(&mut self, generation: &Generation) -> Next {
        let (id, usage) = (Some(generation.id.clone()), generation.usage);
        let heard = |new: &mut Attempt| (new.generation_id, new.usage) = (id, usage);
        let action = self.record.learn(Event::Accepted(generation.cost), heard)?;
        (self.on_progress)(Progress::Generation(generation));
        Ok(action)
    }

    fn unsent(&mut self, error: Error) -> Error {
        if self.record.attempt().is_none() {
            return error;
        }
        let heard = |new: &mut Attempt| new.failure = Some(error.cause());
        let learned = self.record.learn(Event::NotSent, heard);
        learned.err().unwrap_or(error)
    }

    /// Another request for this file may be paid for: each half of a prompt that an editor saves
    /// must not be another payment.
    fn check_unsaved(&self, receipt: &Receipt) -> Result<(), Error> {
        let other = match unsaved(receipt, &self.record.viewer) {
            Some(other) if !self.record.target.may_replace => other,
            _ => return Ok(()),
        };
        let prompt = Excerpt(other.prompt.as_deref().unwrap_or(&other.model));
        let id = other.generation_id.as_ref();
        let id = Excerpt(id.unwrap_or(&other.client_request_id));
        let text = format!(
            "another request for this file may be paid for, and its video was never saved: \
             \"{prompt}\" ({id}). Change the request back, give that one up with \
             VideoFile::give_up, or call allow_replace(true)"
        );
        Err(self.record.refused(io::Error::other(text)))
    }

    /// Runs when only the request's body is left to send: asks the ledger once more, and writes the
    /// entry. From then on, the next holder of the lock reads the entry, and sends nothing.
    fn write_entry(&mut self, attempt: &Attempt) -> Result<(), Error> {
        let (mut record, viewer) = (self.record.clone(), &self.record.viewer);
        record.update(Some(&self.lock), |receipt| {
            let entry = current(receipt, viewer).map(Attempt::entry);
            if step(entry, Event::Start).1 != Action::Post {
                return Err(self.busy());
            }
            self.check_unsaved(receipt)?;
            // What was not charged, and names nothing, needs no memory once it is sent again.
            receipt.attempts.retain(|known| {
                let is_unnamed = known.generation_id.is_none();
                !(viewer.wants(known) && known.state == State::Failed && is_unnamed)
            });
            receipt.attempts.push(attempt.clone());
            let checked = receipt.check_size();
            checked.map_err(|error| self.record.in_receipt(error))
        })?;
        self.record = record;
        self.check_alone()
    }

    /// Looks once more, right before the body is sent.
    fn check_alone(&self) -> Result<(), Error> {
        let record = &self.record;
        self.lock.check().map_err(|error| record.in_file(error))?;
        let disk = record.target.receipt(None)?;
        let is_open = |attempt: &Attempt| record.viewer.wants(attempt) && attempt.is_open();
        let open = disk.attempts.iter().filter(|attempt| is_open(attempt));
        let mut ids = open.map(|attempt| &attempt.client_request_id);
        if ids.next() != Some(&record.id) || ids.next().is_some() {
            return Err(self.busy());
        }
        self.client.inner.api.shutdown.check(None)
    }

    fn busy(&self) -> Error {
        let text = "another process works at this file, although this one held the lock; nothing \
                    was sent here. Run this again";
        let cause = io::Error::new(io::ErrorKind::WouldBlock, text);
        Error::file(&self.record.target.path, None, cause)
    }

    /// Looks for the request in the usage log: once, and if its response was lost just now, again
    /// and again, since the log may be late.
    fn look_up(&mut self, is_lost: bool) -> Next {
        let (client, start) = (self.client, Instant::now());
        let settings = &client.inner.settings;
        loop {
            let (cause, may_appear) = match client.find_log_rows(&self.record.id) {
                Ok(rows) if rows.count > 0 => {
                    let (id, usage, cost) = (rows.generation_id, rows.usage, rows.cost);
                    let has_id = id.is_some();
                    let event = Event::InLog { id: has_id, cost };
                    let error = self.lost(format!(
                        "the usage log has it ({} of its rows), and names no generation that did \
                         not fail",
                        rows.count
                    ));
                    let heard = |new: &mut Attempt| (new.generation_id, new.usage) = (id, usage);
                    return self.hear(event, heard, error);
                }
                Ok(_) => (self.not_in_log(), true),
                Err(error) => {
                    let cause = format!("looking it up failed: {}", error.cause());
                    (cause, error.is_transient())
                }
            };
            let error = self.lost(cause);
            let time_left = settings.poll_timeout.saturating_sub(start.elapsed());
            if !is_lost || !may_appear || time_left.is_zero() {
                return self.hear(Event::NotInLog, |_| {}, error);
            }
            let pause = settings.poll_interval.min(time_left);
            client.inner.on_retry(&error, pause);
            if client.inner.api.shutdown.pause(pause, None).is_err() {
                return Err(error);
            }
        }
    }

    /// The error of a request whose response was lost, with what is known of that.
    fn lost(&self, found: String) -> Error {
        let attempt = self.record.attempt();
        let failure = attempt.and_then(|attempt| attempt.failure.as_deref());
        let unrecorded = "the run that sent it ended before it recorded a response";
        let failure = Excerpt(failure.unwrap_or(unrecorded));
        self.record.unknown(&format!("{failure}; {found}"))
    }

    fn not_in_log(&self) -> String {
        let sent = self.record.attempt().map(|attempt| attempt.sent);
        let reach = match sent.and_then(|sent| SystemTime::now().duration_since(sent).ok()) {
            Some(age) if age > LOG_REACH => ", which reaches back 30 days: it was sent before that",
            _ => " so far",
        };
        format!("it is not in the usage log{reach}")
    }

    /// Waits for the generation.
    fn poll(&mut self, own: &mut Own, video: &mut Option<Video>) -> Next {
        let client = self.client;
        let id = self.record.generation_id().unwrap_or_default().to_owned();
        let (mut cost, mut usage) = (Cost::Unsaid, None);
        let waited = client.wait(&id, &mut |generation| {
            (cost, usage) = (generation.cost, generation.usage);
            if !generation.is_finished() {
                let error = self.given_up();
                self.hear(Event::Pending(cost), |new| new.usage = usage, error)?;
            }
            (self.on_progress)(Progress::Generation(generation));
            Ok(())
        });
        match waited {
            Ok(found) => {
                *video = Some(found);
                self.hear(Event::Video(cost), |new| new.usage = usage, self.given_up())
            }
            Err(Error::Failed { generation, .. }) => self.failed(*generation),
            Err(error) => self.not_polled(error, own),
        }
    }

    fn failed(&mut self, mut generation: Generation) -> Next {
        let (cost, own) = (generation.cost, generation.names_itself());
        let event = match generation.status.is_failure() {
            true => Event::Failure { own, cost },
            false => Event::Ended(cost),
        };
        let (failure, usage) = (Some(generation.reason()), generation.usage);
        let heard = |new: &mut Attempt| (new.failure, new.usage) = (failure, usage);
        let known = self.record.attempt().map(|attempt| attempt.cost);
        generation.cost = cost.max(known.unwrap_or_default());
        self.hear(event, heard, Error::failed(generation, None))
    }

    /// Hears that a poll ended with an error.
    fn not_polled(&mut self, error: Error, own: &mut Own) -> Next {
        let Error::Api(gone) = &error else {
            return self.hear(Event::Odd, |_| {}, error);
        };
        let says_nothing = matches!(gone.status, 401 | 403) || is_transient_status(gone.status);
        match own.rejection.take() {
            Some(mut rejection) if gone.is_repeated => {
                // The id that the rejection named is none.
                rejection.generation_id = None;
                let error = Error::Api(rejection);
                self.hear(Event::Gone { own: true }, |_| {}, error)
            }
            _ if (400..500).contains(&gone.status) && !says_nothing => {
                let (failure, cause) = (Some(gone.cause()), error.to_string());
                let (event, error) = (Event::Gone { own: false }, self.record.unknown(&cause));
                self.hear(event, |new| new.failure = failure, error)
            }
            _ => self.hear(Event::Odd, |_| {}, error),
        }
    }

    /// Downloads the video to the file.
    fn download(&mut self, video: &Video) -> Result<Attempt, Error> {
        let (path, record) = (&self.record.target.path, &mut self.record);
        let saved = self.client.download_to(path, video, self.on_progress);
        let (part, bytes) = saved.map_err(|error| match error {
            // A URL that is not served may never be served again.
            Error::Download { cause, .. } if cause.kind() == NotFound => {
                let cause = io::Error::new(NotFound, format!("{cause}. {}", way_out(&record.path)));
                Error::download(Some(path), &video.generation_id, cause)
            }
            other => other,
        })?;
        record.save(bytes, Some(&self.lock))?;
        // Another program may have put a file there meanwhile.
        let checked = record.check_standing();
        let checked = checked.and_then(|()| self.lock.check());
        let saved = checked.and_then(|()| part.persist());
        saved.map_err(|error| record.in_file(error))?;
        record.save(bytes, None)?;
        record.attempt().cloned().ok_or_else(|| self.given_up())
    }

    /// Tells the ledger what was learned, and gives what it says to do next. `error` is for the case
    /// that it says to stop.
    fn hear(&mut self, event: Event, heard: impl FnOnce(&mut Attempt), error: Error) -> Next {
        let action = self.record.learn(event, heard)?;
        let current = current(&self.record.known, &self.record.viewer);
        let is_open = current.is_some_and(Attempt::is_open);
        let path = &self.record.path;
        match (action, error) {
            (Action::Post | Action::LookUp | Action::Poll | Action::Download, _) => Ok(action),
            (_, Error::Failed { generation, .. }) => {
                Err(Error::failed(*generation, is_open.then(|| path.clone())))
            }
            // Another attempt of the request is open.
            (_, error) if is_open && !error.may_be_charged() => {
                Err(about(path, current, io::Error::other(error.to_string())))
            }
            (_, error) => Err(error),
        }
    }

    fn given_up(&self) -> Error {
        let text = "this attempt was given up while this run worked at it";
        self.record.in_receipt(io::Error::other(text))
    }
}

/// What came of the request that this run sent itself.
#[derive(Default)]
struct Own {
    rejection: Option<Box<ApiError>>,
    is_lost: bool,
}
