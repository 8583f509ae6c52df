//! Whose video stands at a path, and which attempt speaks for a request. Pure.

use crate::{
    http::url::is_loopback,
    ledger,
    receipt::{Attempt, Receipt},
    reply::Excerpt,
};

/// Who looks at a receipt: a client of this host, or a program without a client.
#[derive(Clone, Copy)]
pub(crate) enum Viewer<'a> {
    ClientOf(&'a str),
    NoClient,
}

impl Viewer<'_> {
    /// Whether this attempt exists for the viewer: a simulator's exists for its own clients alone.
    pub(crate) fn sees(self, attempt: &Attempt) -> bool {
        match self {
            Viewer::ClientOf(host) => {
                !attempt.is_simulated() || attempt.host.as_deref() == Some(host)
            }
            Viewer::NoClient => !attempt.is_simulated(),
        }
    }

    /// Whether the viewer takes a simulator's video for a video.
    fn is_simulated(self) -> bool {
        matches!(self, Viewer::ClientOf(host) if is_loopback(host))
    }
}

/// What stands at the path of a video file.
#[derive(Debug, PartialEq)]
pub(crate) enum Standing {
    Absent,
    /// The request's video, at its full size: that of this attempt.
    Current(usize),
    /// A video that was paid for, but not that. The text says what it is.
    Another(String),
    /// A file that no attempt explains.
    Foreign,
}

/// Decides what a file of this size is.
pub(crate) fn standing(
    receipt: &Receipt,
    fingerprint: &str,
    size: Option<u64>,
    viewer: Viewer<'_>,
) -> Standing {
    let Some(size) = size else {
        return Standing::Absent;
    };
    let find = |id: &Option<String>| id.as_deref().and_then(|id| receipt.find(id));
    let is_full = |index: &usize| receipt.attempts[*index].bytes == Some(size);
    let saving = find(&receipt.saved.saving).filter(is_full);
    let Some(index) = saving.or_else(|| find(&receipt.saved.saved)) else {
        return Standing::Foreign;
    };
    let attempt = &receipt.attempts[index];
    let is_open = attempt.entry().is_open();
    Standing::Another(if attempt.is_simulated() && !viewer.is_simulated() {
        "a video that the simulator made".to_owned()
    } else if attempt.fingerprint != fingerprint {
        let prompt = attempt.prompt.as_deref().unwrap_or(&attempt.model);
        format!("the video of another request, \"{}\"", Excerpt(prompt))
    } else if !is_open {
        "the video of an attempt that was given up".to_owned()
    } else if !is_full(&index) {
        let bytes = attempt.bytes.unwrap_or_default();
        format!("not this video as it was saved: it has {size} bytes instead of {bytes}")
    } else {
        return Standing::Current(index);
    })
}

/// The attempt that speaks for a request. Without a client, a simulator's only if there is no other.
pub(crate) fn current(receipt: &Receipt, fingerprint: &str, viewer: Viewer<'_>) -> Option<usize> {
    let attempts = receipt.attempts.iter();
    let of_request = attempts.map(|attempt| (attempt, attempt.fingerprint == fingerprint));
    let entry = |(attempt, is_it): (&Attempt, bool)| is_it.then(|| attempt.entry());
    let seen = of_request
        .clone()
        .map(|(a, is_it)| entry((a, is_it && viewer.sees(a))));
    ledger::current(seen).or_else(|| match viewer {
        Viewer::NoClient => ledger::current(of_request.map(entry)),
        Viewer::ClientOf(_) => None,
    })
}

/// An attempt of another request for the same file that may be paid for, and was never saved.
pub(crate) fn unsaved<'r>(
    receipt: &'r Receipt,
    fingerprint: &str,
    viewer: Viewer<'_>,
) -> Option<&'r Attempt> {
    let is_saving =
        |attempt: &Attempt| receipt.saved.saving.as_ref() == Some(&attempt.client_request_id);
    receipt.attempts.iter().rev().find(|attempt| {
        attempt.fingerprint != fingerprint
            && (attempt.bytes.is_none() || is_saving(attempt))
            && attempt.entry().is_open()
            && viewer.sees(attempt)
    })
}
