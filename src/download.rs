//! Downloads of a video to a file.

use std::{
    io::{Seek, Write},
    mem,
    path::Path,
};

use crate::{
    client::Client,
    error::Error,
    generation::{Generation, Video},
    http::BUFFER_SIZE,
    part_file::{Lock, PartFile},
};

/// How far a call is, for its callback.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The server responded to the request, or to a poll.
    Generation(&'a Generation),
    /// Bytes of the video were written to disk.
    #[non_exhaustive]
    Download {
        /// The number of bytes written.
        done: u64,
        /// The number of all bytes, if known.
        total: Option<u64>,
    },
}

impl Client {
    /// Downloads a video to a file: in the end the file at `path` is complete, or as it was before.
    ///
    /// Writes to `<path>.part`, syncs, and renames; `<path>.lock` keeps other processes and
    /// threads out meanwhile. Otherwise as [`VideoReader`](crate::VideoReader), and starts over if the file changed on
    /// the server. A part that a killed process left is not resumed. `on_progress` gets
    /// [`Progress::Download`].
    ///
    /// # Errors
    /// With the generation's id: [`Error::Download`] if the file server does not give the video,
    /// [`Error::File`] if it can't be written, or if another process holds the file's lock for
    /// longer than [`poll_timeout`](crate::ClientBuilder::poll_timeout), [`Error::Shutdown`].
    pub fn download_video(
        &self,
        video: &Video,
        path: impl AsRef<Path>,
        mut on_progress: impl FnMut(Progress<'_>),
    ) -> Result<(), Error> {
        let (path, id) = (path.as_ref(), Some(video.generation_id.as_str()));
        let in_file = |cause| Error::file(path, id, cause);
        let (settings, shutdown) = (&self.inner.settings, &self.inner.api.shutdown);
        let lock = Lock::acquire(path, settings.poll_timeout, shutdown, id)?;
        let (part, _) = self.download_to(path, video, &mut on_progress)?;
        lock.check().map_err(in_file)?;
        part.persist().map_err(in_file)
    }

    /// Downloads a video to a part file of `path`. Returns its size, too.
    pub(crate) fn download_to(
        &self,
        path: &Path,
        video: &Video,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(PartFile, u64), Error> {
        let in_file = |cause| Error::file(path, Some(&video.generation_id), cause);
        let mut part = PartFile::create(path).map_err(in_file)?;
        let mut reader = self.open_video(video);
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let mut read = reader.read_some(&mut buffer);
            if let Err(Error::Download { path: file, .. }) = &mut read {
                *file = Some(path.to_owned());
            }
            let count = read?;
            if mem::take(&mut reader.has_restarted) {
                part.file().set_len(0).map_err(in_file)?;
                part.file().rewind().map_err(in_file)?;
            }
            if count == 0 {
                part.sync().map_err(in_file)?;
                return Ok((part, reader.known.position));
            }
            part.file().write_all(&buffer[..count]).map_err(in_file)?;
            let (done, known) = (reader.given(), &reader.known);
            let total = known.total.or(known.file_size);
            on_progress(Progress::Download { done, total });
        }
    }
}
