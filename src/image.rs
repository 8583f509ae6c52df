use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::error::Error;

/// A bound of this crate: the vendor publishes none.
const MAX_SIZE: u64 = 20 * 1024 * 1024;

/// A PNG, JPEG or WebP file as a Base64 data URL, for
/// [`VideoRequest::image_url`](crate::VideoRequest::image_url). Feature `image-file`.
///
/// The format is detected from the file's first bytes, not from its name. The file may have at
/// most 20 MiB.
///
/// ```no_run
/// use aimlapi_video::{VideoRequest, image_file};
///
/// let request = VideoRequest::new("The cat wakes and yawns")
///     .model("google/veo-3.0-i2v")
///     .image_url(image_file("cat.jpg")?);
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
///
/// # Errors
/// [`Error::File`] if the file can't be read, is not a regular file, is larger than 20 MiB, or has
/// another format.
pub fn image_file(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let bytes = match path.metadata() {
        // A pipe would block, and a device may never end.
        Ok(file) if !file.is_file() => Err(invalid("not a regular file")),
        Ok(file) if file.len() > MAX_SIZE => {
            let reason = "larger than 20 MiB: make it smaller, or give its URL";
            Err(invalid(reason))
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    let url = bytes.and_then(|bytes| {
        let reason = "neither PNG nor JPEG nor WebP, judging by its first bytes";
        let media_type = media_type(&bytes).ok_or_else(|| invalid(reason))?;
        let base64 = STANDARD.encode(&bytes);
        Ok(format!("data:{media_type};base64,{base64}"))
    });
    url.map_err(|cause| Error::file(path, None, cause))
}

fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        _ if bytes.starts_with(b"RIFF") && bytes.get(8..12)? == b"WEBP" => Some("image/webp"),
        _ => None,
    }
}
