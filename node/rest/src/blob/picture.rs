//! Pictures in other sizes: decoded, scaled and encoded on a thread of their own.
//!
//! Invariants: a picture is decoded only when its pixels fit `SOURCE_PIXELS_MAX`, which its head says before anything is
//! decoded; at most `SCALED_AT_ONCE_MAX` are worked on; a picture is never made larger than it is.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use bytes::Bytes;
use fast_image_resize::{ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use tokio::sync::Semaphore;

use super::answer::argument;

/// Most pixels of a source.
const SOURCE_PIXELS_MAX: u64 = 24_000_000;
/// Longest side of what is made, in pixels.
const SIDE_MAX: u32 = 8192;
/// What a decoder may allocate, in bytes.
const DECODE_BYTES_MAX: u64 = 256 << 20;
/// Pictures that a node scales at once.
const SCALED_AT_ONCE_MAX: usize = 2;
/// How long a request waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);
const JPEG_QUALITY: u8 = 85;

/// What a request asks of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// In pixels; 0 for whatever follows from the other one.
    width: u32,
    height: u32,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All of the picture, within the sizes.
    Fit,
    /// Exactly the sizes, cut at the longer side.
    Fill,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error("{0}")]
    Argument(String),
    #[error("a picture of {pixels} pixels is larger than the {max} that are scaled", max = SOURCE_PIXELS_MAX)]
    TooLarge { pixels: u64 },
    #[error("the blob is no jpeg, png, gif or webp picture, or is damaged: {0}")]
    Unreadable(String),
    #[error("too many pictures are being scaled")]
    Busy,
}

impl Wanted {
    /// None when the request asks for the picture as it is.
    pub(super) fn of(uri: &Uri) -> Result<Option<Self>, PictureError> {
        let side = |name: &str| match argument(uri, name) {
            None => Ok(0),
            Some(text) => text
                .parse()
                .ok()
                .filter(|side| *side <= SIDE_MAX)
                .ok_or_else(|| PictureError::Argument(format!("{name} is a number of pixels, at most {SIDE_MAX}"))),
        };
        let (width, height) = (side("width")?, side("height")?);
        let mode = match argument(uri, "mode").as_deref() {
            None | Some("" | "fit") => Mode::Fit,
            Some("fill") => Mode::Fill,
            Some(other) => return Err(PictureError::Argument(format!("{other:?} is no mode: fit or fill"))),
        };
        Ok(Some(Self { width, height, mode }).filter(|wanted| wanted.width > 0 || wanted.height > 0))
    }

    /// What tells this picture's entity tag from that of another size.
    pub(super) fn suffix(self) -> String {
        let mode = if self.mode == Mode::Fill { "fill" } else { "fit" };
        format!("-{}x{}-{mode}", self.width, self.height)
    }

    /// The sizes of what is made from a picture of these; None to leave it as it is.
    fn sizes(self, (width, height): (u32, u32)) -> Option<(u32, u32)> {
        let is_smaller = (self.width > 0 && self.width < width) || (self.height > 0 && self.height < height);
        if !is_smaller {
            return None;
        }
        let scaled = |side: u32, to: u32, of: u32| (u64::from(side) * u64::from(to) / u64::from(of)).max(1) as u32;
        Some(match (self.width, self.height, self.mode) {
            (to, 0, _) => (to, scaled(height, to, width)),
            (0, to, _) => (scaled(width, to, height), to),
            (w, h, Mode::Fill) => (w.min(width), h.min(height)),
            // The side that is the tighter one decides.
            (w, h, Mode::Fit) if u64::from(w) * u64::from(height) <= u64::from(h) * u64::from(width) => {
                (w, scaled(height, w, width))
            }
            (_, h, Mode::Fit) => (scaled(width, h, height), h),
        })
    }
}

/// Takes turns at scaling.
#[derive(Clone)]
pub(super) struct Pictures(Arc<Semaphore>);

impl Default for Pictures {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SCALED_AT_ONCE_MAX)))
    }
}

impl Pictures {
    /// The picture as it is wanted, and its media type. `source` gives the whole picture, once it is this one's turn.
    pub(super) async fn scale<E: From<PictureError>>(
        &self,
        wanted: Wanted,
        source: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<(Bytes, &'static str), E> {
        let turn = tokio::time::timeout(TURN_WAIT, Arc::clone(&self.0).acquire_owned()).await;
        let turn = turn.map_err(|_| PictureError::Busy)?.map_err(|_| PictureError::Busy)?;
        let bytes = source.await?;
        let scaled = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            scale(&bytes, wanted).map(|(scaled, media_type)| (scaled.unwrap_or(bytes), media_type))
        });
        Ok(scaled.await.map_err(|error| PictureError::Unreadable(error.to_string()))??)
    }
}

/// None when the picture stays as it is.
fn scale(bytes: &[u8], wanted: Wanted) -> Result<(Option<Bytes>, &'static str), PictureError> {
    let unreadable = |error: &dyn std::fmt::Display| PictureError::Unreadable(error.to_string());
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| unreadable(&error))?;
    let format = reader.format().ok_or_else(|| PictureError::Unreadable("its first bytes are of none".to_owned()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| unreadable(&error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > SOURCE_PIXELS_MAX {
        return Err(PictureError::TooLarge { pixels });
    }
    let orientation = decoder.orientation().map_err(|error| unreadable(&error))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(&error))?;
    picture.apply_orientation(orientation);
    let Some((width, height)) = wanted.sizes((picture.width(), picture.height())) else {
        return Ok((None, format.to_mime_type()));
    };
    let mut made = DynamicImage::new(width, height, picture.color());
    let options = match wanted.mode {
        Mode::Fit => ResizeOptions::new(),
        Mode::Fill => ResizeOptions::new().fit_into_destination(None),
    };
    Resizer::new().resize(&picture, &mut made, &options).map_err(|error| unreadable(&error))?;
    let mut encoded = Cursor::new(Vec::new());
    match format {
        ImageFormat::Jpeg => made.write_with_encoder(JpegEncoder::new_with_quality(&mut encoded, JPEG_QUALITY)),
        format => made.write_to(&mut encoded, format),
    }
    .map_err(|error| unreadable(&error))?;
    Ok((Some(encoded.into_inner().into()), format.to_mime_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &str) -> Option<Wanted> {
        Wanted::of(&format!("/3,01637037d6?{query}").parse().unwrap()).unwrap()
    }

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let picture = DynamicImage::ImageRgb8(image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x % 256) as u8, (y % 256) as u8, 7])
        }));
        let picture = if format == ImageFormat::Gif { picture.to_rgba8().into() } else { picture };
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn sizes_keep_the_shape_or_fill_and_never_grow() {
        let sizes = |query: &str| wanted(query).unwrap().sizes((400, 200));
        assert_eq!((sizes("width=100"), sizes("height=50")), (Some((100, 50)), Some((100, 50))));
        assert_eq!(sizes("width=100&height=100"), Some((100, 50)));
        assert_eq!(sizes("width=300&height=50&mode=fit"), Some((100, 50)));
        assert_eq!(sizes("width=100&height=100&mode=fill"), Some((100, 100)));
        assert_eq!(sizes("width=500&height=100&mode=fill"), Some((400, 100)));
        assert_eq!((sizes("width=400"), sizes("width=4000")), (None, None));
        assert_eq!((wanted(""), wanted("mode=fill")), (None, None));
        for query in ["width=x", "height=-1", "width=8193", "width=1&mode=cut"] {
            assert!(Wanted::of(&format!("/3,01637037d6?{query}").parse().unwrap()).is_err(), "{query}");
        }
    }

    #[test]
    fn every_format_stays_what_it_is() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            let (scaled, media_type) = scale(&picture(64, 32, format), wanted("width=16").unwrap()).unwrap();
            let scaled = scaled.unwrap();
            assert_eq!((image::guess_format(&scaled).unwrap(), media_type), (format, format.to_mime_type()));
            let found = image::load_from_memory(&scaled).unwrap();
            assert_eq!((found.width(), found.height()), (16, 8), "{format:?}");
            let (kept, _) = scale(&picture(8, 8, format), wanted("width=16").unwrap()).unwrap();
            assert!(kept.is_none());
        }
    }

    #[test]
    fn what_is_no_picture_or_too_large_a_one_is_refused() {
        let want = wanted("width=16").unwrap();
        assert!(matches!(scale(b"not a picture at all", want), Err(PictureError::Unreadable(_))));
        let png = picture(64, 64, ImageFormat::Png);
        assert!(matches!(scale(&png[..png.len() / 2], want), Err(PictureError::Unreadable(_))));
        // A head that promises more pixels than are decoded: refused before anything is allocated.
        let mut bomb = png;
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(scale(&bomb, want).is_err());
        let wide = picture(6001, 4000, ImageFormat::Png);
        assert!(matches!(scale(&wide, want), Err(PictureError::TooLarge { pixels: 24_004_000 })));
    }
}
