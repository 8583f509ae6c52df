//! The file that is served as every video, whole and in ranges.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::response::Response;
use super::script::Received;

/// The file that is served as every video: 1280x720, eight seconds, with sound.
pub static CLIP: &[u8] = include_bytes!("clip.mp4");

#[derive(Default)]
pub(super) struct VideoFile {
    pub(super) bytes: Arc<[u8]>,
    tag: String,
}

impl VideoFile {
    pub(super) fn new(bytes: Arc<[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        VideoFile { bytes, tag }
    }

    /// The whole file, or the range that is asked for.
    pub(super) fn response(&self, request: &Received) -> Response {
        let size = self.bytes.len();
        let is_current = request.header("if-range").is_none_or(|tag| tag == self.tag);
        let range = request.header("range").filter(|_| is_current);
        let range = range.and_then(|range| parse_range(range, size));
        if range.is_some_and(|(start, _)| start >= size) {
            return Response::error(416, "Range Not Satisfiable", request.path())
                .with("content-range", format!("bytes */{size}"));
        }
        let mut response = Response::new(200, "video/mp4", Arc::clone(&self.bytes))
            .with("etag", self.tag.clone())
            .with("accept-ranges", "bytes".to_owned());
        if let Some((start, end)) = range {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            response = response.with("content-range", range);
            (response.status, response.range) = (206, start..end);
        }
        response
    }
}

/// The first byte, and the one after the last. `None` for what is not understood, which means the
/// whole file.
fn parse_range(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = last.parse().ok().or(last.is_empty().then_some(u64::MAX))?;
    let end = |offset: u64| offset.min(size as u64) as usize;
    (first <= last).then(|| (end(first), end(last.saturating_add(1))))
}
