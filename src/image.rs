/// An image to send along: by its address, or from a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(String);

impl Image {
    /// An image at `url`: `https://…`, or a data URL. Also what `&str` and `String` turn into.
    pub fn from_url(url: impl Into<String>) -> Self {
        Image(url.into())
    }

    pub(crate) fn into_url(self) -> String {
        self.0
    }
}

impl<S: Into<String>> From<S> for Image {
    fn from(url: S) -> Self {
        Image(url.into())
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({})", crate::error::Short(&self.0))
    }
}

#[cfg(feature = "image-file")]
mod file {
    use std::{fs::File, io::Read, path::Path};

    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::Image;
    use crate::Error;

    impl Image {
        /// The largest file that [`from_file`](Self::from_file) takes: 20 MiB, a bound of this crate.
        pub const MAX_FILE_SIZE: u64 = 20 * 1024 * 1024;

        /// A PNG, JPEG or WebP image from a file, told by its bytes, not by its name. It is sent inside
        /// the request, as a Base64 data URL.
        ///
        /// # Errors
        /// [`Error::Invalid`], naming the file, if it can't be read, is not a file, is empty, larger
        /// than [`MAX_FILE_SIZE`](Self::MAX_FILE_SIZE), or of another format.
        pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
            let path = path.as_ref();
            let invalid = |fault: String| Error::Invalid(format!("image {}: {fault}", path.display()));
            let bytes = read(path).map_err(invalid)?;
            let kind = media_type(&bytes)
                .ok_or_else(|| invalid("neither PNG nor JPEG nor WebP, judging by its first bytes".to_owned()))?;
            let mut url = format!("data:{kind};base64,");
            STANDARD.encode_string(&bytes, &mut url);
            Ok(Image(url))
        }
    }

    fn read(path: &Path) -> Result<Vec<u8>, String> {
        let metadata = path.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("not a file".to_owned());
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(Image::MAX_FILE_SIZE + 1).read_to_end(&mut bytes))
            .map_err(|error| error.to_string())?;
        match bytes.len() as u64 {
            0 => Err("the file is empty".to_owned()),
            length if length > Image::MAX_FILE_SIZE => Err(format!(
                "larger than {} bytes: make the picture smaller, or give its address",
                Image::MAX_FILE_SIZE
            )),
            _ => Ok(bytes),
        }
    }

    fn media_type(bytes: &[u8]) -> Option<&'static str> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
            [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
            _ => None,
        }
    }
}
