//! The usage log (`GET /v2/logs`), where a generation is found whose response was lost.

use std::time::Instant;

use serde_json::Value;

use crate::{
    client::Client,
    error::Error,
    generation::{Cost, Usage, number, read_id},
    request::check_client_request_id,
};

/// The log gives at most 100 rows a page, and 429 past 200 requests a minute.
const PAGE: &str = "100";
const MAX_PAGES: usize = 100;

/// What the rows of one request say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct LogRows {
    pub(crate) count: usize,
    /// Of a row that did not fail.
    pub(crate) generation_id: Option<String>,
    /// Of a row that failed, and was charged.
    failed_id: Option<String>,
    /// The highest cost of all rows.
    pub(crate) cost: Cost,
    pub(crate) usage: Option<Usage>,
}

impl LogRows {
    fn add(&mut self, row: &Value) {
        let cost = &row["cost"];
        let of_row = match cost {
            Value::Object(cost) => cost.values().map(Cost::read).max().unwrap_or_default(),
            other => Cost::read(other),
        };
        let usage = Usage::new(number(&cost["credits"]), number(&cost["usd"]));
        if self.usage.is_none() || of_row > self.cost {
            self.usage = usage.or(self.usage);
        }
        self.cost = self.cost.max(of_row);
        self.count += 1;
        let id = read_id(&row["inference_id"]);
        match row["status"] == "failed" {
            false => self.generation_id = self.generation_id.take().or(id),
            true if of_row > Cost::Free => self.failed_id = self.failed_id.take().or(id),
            true => {}
        }
    }
}

impl Client {
    /// Looks up the id of a generation in the usage log of the last 30 days, by the client request
    /// id that it was sent with, and with the same key.
    ///
    /// `None` means: not found *so far*. The log can be late, so that never proves that nothing was
    /// charged. Of several rows with this client request id, one with an id that did not fail counts
    /// first, and one that failed free of charge does not count. Reads the newest 10,000 rows at
    /// most, and takes little longer than one
    /// [`request_timeout`](crate::ClientBuilder::request_timeout).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that can't have been sent; [`Error::Network`], [`Error::Api`];
    /// [`Error::UnexpectedResponse`], also if the end of the log was not reached;
    /// [`Error::Shutdown`]. None costs anything.
    pub fn find_generation_id(&self, client_request_id: &str) -> Result<Option<String>, Error> {
        check_client_request_id(client_request_id)?;
        let rows = self.find_log_rows(client_request_id)?;
        Ok(rows.generation_id.or(rows.failed_id))
    }

    pub(crate) fn find_log_rows(&self, client_request_id: &str) -> Result<LogRows, Error> {
        let (start, inner) = (Instant::now(), &self.inner);
        let (mut rows, mut seen) = (LogRows::default(), 0);
        for _ in 0..MAX_PAGES {
            let limit = inner.settings.request_timeout;
            let time = limit.saturating_sub(start.elapsed());
            if time.is_zero() {
                break;
            }
            let offset = seen.to_string();
            let query = [("period", "30d"), ("limit", PAGE), ("offset", &*offset)];
            let reply = inner.api.get("logs", &query, time, None)?;
            let log = reply.json().unwrap_or_default();
            let Some(page) = log.get("data").and_then(Value::as_array) else {
                let reason = reply.unexpected("it is not a usage log");
                return Err(Error::unexpected(None, reason));
            };
            let is_it = |row: &&Value| row["client_request_id"] == client_request_id;
            page.iter().filter(is_it).for_each(|row| rows.add(row));
            let has_more = log.pointer("/pagination/has_more") == Some(&Value::Bool(true));
            if rows.generation_id.is_some() || page.is_empty() || !has_more {
                return Ok(rows);
            }
            seen += page.len();
        }
        let reason = "the usage log has more pages than could be read in time";
        Err(Error::unexpected(None, reason.to_owned()))
    }
}
