//! A file as a layer of an image: an archive of this one file under its path, without compression and without anything
//! that another machine or another hour would make different, so that the same file is the same layer.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06>

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use reqwest::Body;
use sha2::{Digest, Sha256};

use super::RegistryError;
use super::client::Content;

pub const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

const BLOCK: usize = 512;
/// What a header has room for, before and behind its longest prefix.
const MAX_NAME: usize = 100;
const MAX_PREFIX: usize = 155;
const CHUNK: usize = 256 * 1024;

/// A file on its way into an image.
#[derive(Debug)]
pub struct Layer {
    header: [u8; BLOCK],
    file: PathBuf,
    file_bytes: u64,
    /// Of the file alone.
    pub file_digest: String,
    /// Of the archive.
    pub digest: String,
}

impl Layer {
    /// Of a file, under a path in the image. Reads it once.
    pub fn of(file: &Path, path: &str) -> Result<Self, RegistryError> {
        let unreadable =
            |error: io::Error| RegistryError::NotMade(format!("failed to read {}: {error}", file.display()));
        let mut opened = File::open(file).map_err(unreadable)?;
        let found = opened.metadata().map_err(unreadable)?;
        let header = header(path, found.len(), is_executable(&found)).ok_or_else(|| {
            RegistryError::NotMade(format!(
                "the path {path:?} is too long for an image: at most {MAX_NAME} bytes behind its last /, and \
                 {MAX_PREFIX} before it"
            ))
        })?;
        let (mut whole, mut alone) = (Sha256::new_with_prefix(header), Sha256::new());
        let mut chunk = vec![0; CHUNK];
        loop {
            match opened.read(&mut chunk).map_err(unreadable)? {
                0 => break,
                length => {
                    whole.update(&chunk[..length]);
                    alone.update(&chunk[..length]);
                }
            }
        }
        if opened.stream_position().map_err(unreadable)? != found.len() {
            return Err(RegistryError::NotMade(format!("{} changed while it was read", file.display())));
        }
        whole.update(end(found.len()));
        let digest = |hash: Sha256| format!("sha256:{}", hex::encode(hash.finalize()));
        Ok(Self {
            header,
            file: file.to_owned(),
            file_bytes: found.len(),
            file_digest: digest(alone),
            digest: digest(whole),
        })
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

impl Content for Layer {
    fn size(&self) -> u64 {
        (BLOCK + end(self.file_bytes).len()) as u64 + self.file_bytes
    }

    fn body(&self) -> Result<Body, RegistryError> {
        let file = File::open(&self.file)
            .map_err(|error| RegistryError::NotMade(format!("failed to read {}: {error}", self.file.display())))?;
        let archive = io::Cursor::new(self.header).chain(file).chain(io::Cursor::new(end(self.file_bytes)));
        // Reading from the disk is short, and this process does nothing else.
        let chunks = futures::stream::try_unfold(archive, |mut archive| async move {
            let mut chunk = vec![0; CHUNK];
            let length = archive.read(&mut chunk)?;
            chunk.truncate(length);
            Ok::<_, io::Error>((length > 0).then_some((chunk, archive)))
        });
        Ok(Body::wrap_stream(chunks))
    }
}

/// The document that says what the other layers are, as a layer itself.
pub fn of_text(path: &str, text: &str) -> Option<Vec<u8>> {
    let bytes = text.len() as u64;
    Some([&header(path, bytes, false)?[..], text.as_bytes(), &end(bytes)].concat())
}

#[cfg(unix)]
fn is_executable(file: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.permissions().mode() & 0o100 != 0
}

/// What fills the last block, and the two empty ones at the end of an archive.
fn end(bytes: u64) -> Vec<u8> {
    let block = BLOCK as u64;
    let padding = usize::try_from(bytes.next_multiple_of(block) - bytes).unwrap_or_default();
    vec![0; padding + 2 * BLOCK]
}

/// Of an ordinary file, root's, of the year 1970. None for a path that has no room in it.
fn header(path: &str, bytes: u64, executable: bool) -> Option<[u8; BLOCK]> {
    let (prefix, name) = if path.len() <= MAX_NAME {
        ("", path)
    } else {
        // The longest prefix leaves the shortest name.
        path.match_indices('/')
            .map(|(at, _)| (&path[..at], &path[at + 1..]))
            .rfind(|(prefix, name)| prefix.len() <= MAX_PREFIX && name.len() <= MAX_NAME && !name.is_empty())?
    };
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, if executable { b"0000755\0" } else { b"0000644\0" });
    for (at, digits) in [(108, 7), (116, 7), (136, 11)] {
        put(at, format!("{:0digits$}\0", 0).as_bytes());
    }
    if bytes < 1 << 33 {
        put(124, format!("{bytes:011o}\0").as_bytes());
    } else {
        // Binary, as GNU's and star's archives have it.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &bytes.to_be_bytes());
    }
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    // The sum is taken with its own field full of blanks.
    put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn field(header: &[u8], at: usize, length: usize) -> String {
        String::from_utf8_lossy(&header[at..at + length]).trim_end_matches(['\0', ' ']).to_owned()
    }

    #[test]
    fn tar_reads_what_it_is_given() {
        use std::io::Write;
        let long = format!("{}/{}", "deep/er".repeat(20), "n".repeat(90));
        for (path, text) in [("out/disk.img", "juice\n"), (long.as_str(), ""), ("a", &"x".repeat(BLOCK) as &str)] {
            let archive = of_text(path, text).expect("it has room");
            assert_eq!(archive.len() % BLOCK, 0);
            let list = Command::new("tar").args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut list = list.expect("tar runs");
            list.stdin.take().expect("a pipe").write_all(&archive).expect("writes");
            let found = list.wait_with_output().expect("it ends");
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(found.starts_with("-rw-r--r-- 0/0") && found.trim_end().ends_with(path), "{found}");
            assert!(found.contains(&format!(" {} 1970-01-01", text.len())), "{found}");
        }
    }

    #[test]
    fn a_path_without_room_is_none_and_a_size_beyond_octal_is_binary() {
        assert!(header(&"n".repeat(MAX_NAME + 1), 0, false).is_none());
        assert!(header(&format!("{}/n", "p".repeat(MAX_PREFIX + 1)), 0, false).is_none());
        let large = header("disk.img", 1 << 33, true).expect("it has room");
        assert_eq!(large[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(field(&large, 100, 8), "0000755");
        assert_eq!(field(&header("disk.img", (1 << 33) - 1, true).expect("it has room"), 124, 12), "77777777777");
    }
}
