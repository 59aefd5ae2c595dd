//! How large the layers of an image are unpacked: they are read from the registry as they are kept and unpacked without
//! being stored. That costs transfer and processor time, so it is done for images of modest size, for a short time, and
//! two layers at once; where it would take more, the sizes stay unknown.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use image_factory_core::inspection::ImageFacts;
use tokio::task::JoinSet;

use super::client::Repository;

/// Of all layers together, compressed: unpacked in about a second.
const MAX_COMPRESSED_BYTES: u64 = 64 * 1024 * 1024;
const MAX_TIME: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 2;
/// zstd keeps so much of what it has unpacked in memory, as a power of two: enough for every level that is not "ultra".
const ZSTD_WINDOW_LOG: u32 = 25;

/// Sizes in bytes by the digest of the layer, those of them that could be found out.
pub async fn unpacked(repository: &Repository, images: &[ImageFacts]) -> BTreeMap<String, u64> {
    let layers: BTreeMap<&str, (&str, u64)> = images
        .iter()
        .flat_map(|image| &image.layers)
        .map(|layer| (layer.digest.as_str(), (layer.media_type.as_str(), layer.size_bytes)))
        .collect();
    let compressed = layers.values().fold(0, |sum: u64, (_, size)| sum.saturating_add(*size));
    if compressed > MAX_COMPRESSED_BYTES {
        return BTreeMap::new();
    }
    let left = layers.into_iter().map(|(digest, (media_type, size))| (digest.to_owned(), media_type.to_owned(), size));
    let left = Arc::new(Mutex::new(left.collect::<Vec<_>>()));
    let found = Arc::new(Mutex::new(BTreeMap::new()));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (mut repository, left, found) = (repository.clone(), Arc::clone(&left), Arc::clone(&found));
        tasks.spawn(async move {
            while let Some((digest, media_type, compressed)) = taken(&left, Vec::pop).flatten() {
                let unpacking = unpacked_size(&mut repository, &digest, &media_type, compressed);
                if let Some(size) = unpacking.await {
                    taken(&found, |found| found.insert(digest, size));
                }
            }
        });
    }
    let _ = tokio::time::timeout(MAX_TIME, async { while tasks.join_next().await.is_some() {} }).await;
    taken(&found, std::mem::take).unwrap_or_default()
}

/// What is under a lock that no thread holds for longer than this.
fn taken<T, R>(under_lock: &Mutex<T>, take: impl FnOnce(&mut T) -> R) -> Option<R> {
    under_lock.lock().ok().map(|mut value| take(&mut value))
}

/// None where the layer can't be read to its end, or is not what it says.
async fn unpacked_size(repository: &mut Repository, digest: &str, media_type: &str, compressed: u64) -> Option<u64> {
    let mut unpacking = Unpacking::of(media_type)?;
    let mut response = repository.stream(digest).await.ok()?;
    let mut left = compressed;
    while let Some(chunk) = response.chunk().await.ok()? {
        left = left.checked_sub(chunk.len() as u64)?;
        unpacking.write(&chunk).ok()?;
    }
    (left == 0).then_some(())?;
    unpacking.finish().ok()
}

/// Counts what it is given.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpacking {
    Plain(Count),
    Gzip(Box<MultiGzDecoder<Count>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Count>>),
}

impl Unpacking {
    /// By the media type alone: `application/vnd.oci.image.layer.v1.tar+gzip`, `…+zstd`, `….tar`, and Docker's
    /// `application/vnd.docker.image.rootfs.diff.tar.gzip`.
    fn of(media_type: &str) -> Option<Self> {
        let (_, form) = media_type.rsplit_once(".tar")?;
        match form {
            "" => Some(Self::Plain(Count(0))),
            "+gzip" | ".gzip" => Some(Self::Gzip(Box::new(MultiGzDecoder::new(Count(0))))),
            "+zstd" | ".zstd" => {
                let mut decoder = zstd::stream::write::Decoder::new(Count(0)).ok()?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).ok()?;
                Some(Self::Zstd(Box::new(decoder)))
            }
            _ => None,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(count) => count.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<u64> {
        match self {
            Self::Plain(count) => Ok(count.0),
            // Compares the checksum at its end, too.
            Self::Gzip(decoder) => decoder.finish().map(|count| count.0),
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                Ok(decoder.into_inner().0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("compresses");
        encoder.finish().expect("compresses")
    }

    fn size(media_type: &str, pieces: &[&[u8]]) -> Option<u64> {
        let mut unpacking = Unpacking::of(media_type)?;
        for piece in pieces {
            unpacking.write(piece).ok()?;
        }
        unpacking.finish().ok()
    }

    #[test]
    fn a_gzip_of_several_members_is_counted_to_its_end() {
        let two = [gzip(b"the first"), gzip(b"and the second")].concat();
        assert_eq!(size("application/vnd.docker.image.rootfs.diff.tar.gzip", &[&two]), Some(23));
    }

    #[test]
    fn what_is_cut_off_damaged_or_of_another_form_has_no_size() {
        let whole = gzip(&[7; 10_000]);
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        for (media_type, bytes) in [
            ("a.tar+gzip", &whole[..whole.len() - 3]),
            ("a.tar+gzip", &damaged[..]),
            ("a.tar+gzip", b"not gzip".as_slice()),
            ("a.tar+zstd", b"not zstd".as_slice()),
            ("a.tar+xz", &whole[..]),
            ("application/json", &whole[..]),
        ] {
            assert_eq!(size(media_type, &[bytes]), None, "{media_type} of {} bytes", bytes.len());
        }
    }

    proptest! {
        #[test]
        fn each_form_has_the_size_of_what_was_packed_however_it_arrives(
            content in prop::collection::vec(any::<u8>(), 0..5_000), piece in 1_usize..700
        ) {
            let zstd = zstd::encode_all(content.as_slice(), 3).expect("compresses");
            for (form, packed) in [("", content.clone()), ("+gzip", gzip(&content)), ("+zstd", zstd)] {
                let pieces: Vec<&[u8]> = packed.chunks(piece).collect();
                prop_assert_eq!(size(&format!("layer.v1.tar{form}"), &pieces), Some(content.len() as u64));
            }
        }
    }
}
