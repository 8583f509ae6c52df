//! Whose video stands at a path, and which attempt speaks for a request. Pure.

use crate::{
    http::{file::is_video, url::is_loopback},
    ledger,
    receipt::{Attempt, Receipt},
    reply::Excerpt,
};

/// Who looks at a receipt: the client of a host, or a program without a client; and for which
/// request.
#[derive(Clone)]
pub(crate) struct Viewer {
    pub(crate) fingerprint: String,
    pub(crate) host: Option<String>,
}

impl Viewer {
    /// Whether this attempt exists for the viewer: a simulator's exists for its own clients alone.
    fn sees(&self, attempt: &Attempt) -> bool {
        !attempt.is_simulated() || (self.host.is_some() && self.host == attempt.host)
    }

    /// Whether it is an attempt of the request, which exists for the viewer.
    pub(crate) fn wants(&self, attempt: &Attempt) -> bool {
        attempt.fingerprint == self.fingerprint && self.sees(attempt)
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

/// Decides what a file of this size, which begins with these bytes, is.
pub(crate) fn standing(receipt: &Receipt, file: Option<(u64, &[u8])>, viewer: &Viewer) -> Standing {
    let Some((size, start)) = file else {
        return Standing::Absent;
    };
    let find = |id: &Option<String>| id.as_deref().and_then(|id| receipt.find(id));
    let is_full = |index: &usize| receipt.attempts[*index].bytes == Some(size);
    let saving = find(&receipt.saved.saving).filter(is_full);
    let Some(index) = saving.or_else(|| find(&receipt.saved.saved)) else {
        return Standing::Foreign;
    };
    let attempt = &receipt.attempts[index];
    let bytes = attempt.bytes.unwrap_or_default();
    // A part of a video begins like one.
    if bytes != size && size > 0 && !is_video(start) {
        return Standing::Foreign;
    }
    Standing::Another(
        if attempt.is_simulated() && !viewer.host.as_deref().is_some_and(is_loopback) {
            "a video that the simulator made".to_owned()
        } else if attempt.fingerprint != viewer.fingerprint {
            let prompt = attempt.prompt.as_deref().unwrap_or(&attempt.model);
            format!("the video of another request, \"{}\"", Excerpt(prompt))
        } else if !attempt.is_open() {
            "the video of an attempt that was given up".to_owned()
        } else if bytes != size {
            format!("a file of another size than this video ({size} bytes instead of {bytes})")
        } else {
            return Standing::Current(index);
        },
    )
}

/// The attempt that speaks for a request. Without a client, a simulator's only if there is no other.
pub(crate) fn current<'r>(receipt: &'r Receipt, viewer: &Viewer) -> Option<&'r Attempt> {
    let current = |wants: &dyn Fn(&Attempt) -> bool| {
        let entry = |attempt: &Attempt| wants(attempt).then(|| attempt.entry());
        let index = ledger::current(receipt.attempts.iter().map(entry))?;
        Some(&receipt.attempts[index])
    };
    let of_any = || current(&|attempt| attempt.fingerprint == viewer.fingerprint);
    let simulated = || of_any().filter(|_| viewer.host.is_none());
    current(&|attempt| viewer.wants(attempt)).or_else(simulated)
}

/// An attempt of another request for the same file that may be paid for, and was never saved.
pub(crate) fn unsaved<'r>(receipt: &'r Receipt, viewer: &Viewer) -> Option<&'r Attempt> {
    receipt.attempts.iter().rev().find(|attempt| {
        let is_saving = receipt.saved.saving.as_ref() == Some(&attempt.client_request_id);
        attempt.fingerprint != viewer.fingerprint
            && (attempt.bytes.is_none() || is_saving)
            && attempt.is_open()
            && viewer.sees(attempt)
    })
}
