//! Objects as files: the bytes of an object are at its path in its bucket's folder, its attributes as JSON at the same
//! path below `.objects`. [`ObjectFiles`]
//!
//! A body is received into a temporary file and verified there. Only then does it replace the object, so that a
//! rejected or interrupted upload changes nothing. Bytes and attributes are replaced by two renames. The attributes
//! contain the size and the modification time of their bytes, so attributes of other bytes are detected and ignored.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use millrace_shared::hash::to_hex;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5, Sha256};
use s3s::dto::{Checksum, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::condition::WriteCondition;
use super::file_name::{folder_path, key_at, object_path};

/// Folders of the store itself. The name of a bucket never begins with a dot.
const ATTRIBUTES: &str = ".objects";
const INCOMING: &str = ".incoming";
const UPLOADS: &str = ".uploads";

const UPLOAD_ID_CHARS: usize = 32;

/// The attributes of an object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ObjectAttributes {
    /// The size of the file that these attributes describe.
    size: u64,
    /// The modification time of the file in nanoseconds since the epoch.
    ///
    /// If the file has another size or time, these attributes are ignored, unless its bytes have the `ETag`: the file
    /// was replaced by another program, or the process ended between the renames of bytes and attributes.
    modified_nanos: i128,
    pub(super) etag: String,
    pub(super) checksums: ObjectChecksums,
    pub(super) headers: ObjectHeaders,
}

/// Headers that a client may set on an object, and that reads return.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ObjectHeaders {
    pub(super) metadata: Option<HashMap<String, String>>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) expires: Option<Timestamp>,
    pub(super) website_redirect_location: Option<String>,
}

/// Checksums in base64, the format of the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ObjectChecksums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

/// An existing object.
#[derive(Debug)]
pub(super) struct StoredObject {
    pub(super) file: std::fs::File,
    pub(super) size: u64,
    pub(super) modified: OffsetDateTime,
    pub(super) attributes: ObjectAttributes,
}

/// Expected properties of a body.
#[derive(Debug, Default)]
pub(super) struct ExpectedBody {
    pub(super) length: Option<i64>,
    pub(super) md5: Option<String>,
    /// In hexadecimal, the format of the signature.
    pub(super) sha256: Option<String>,
    pub(super) checksums: ObjectChecksums,
    /// An algorithm whose checksum is computed even if no expected value is set.
    pub(super) algorithm: Option<String>,
}

/// A body that has been received and verified, but is not stored under a key yet.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    file: NamedTempFile,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) checksums: ObjectChecksums,
}

/// A multipart upload that is not complete.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PendingUpload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) headers: ObjectHeaders,
}

/// A part of a multipart upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredPart {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
}

impl StoredPart {
    pub(super) fn etag(&self) -> String {
        to_hex(&self.md5)
    }
}

/// The directory of all buckets.
#[derive(Debug)]
pub(super) struct ObjectFiles {
    root: PathBuf,
    /// Locked while the object of a key is read or changed, since bytes and attributes are two files.
    changing: Mutex<()>,
}

impl ObjectFiles {
    /// Opens the directory, and deletes partly received bodies of a process that has ended.
    pub(super) fn open(root: &Path) -> std::io::Result<Self> {
        let incoming = root.join(INCOMING);
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&incoming)?,
        }
        std::fs::create_dir_all(root.join(UPLOADS))?;
        Ok(Self { root: root.to_path_buf(), changing: Mutex::new(()) })
    }

    /// Returns the names of all buckets, each with its modification time.
    pub(super) fn buckets(&self) -> S3Result<Vec<(String, SystemTime)>> {
        let mut buckets = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(S3Error::internal_error)? {
            let entry = entry.map_err(S3Error::internal_error)?;
            let metadata = entry.metadata().map_err(S3Error::internal_error)?;
            if let Ok(name) = entry.file_name().into_string()
                && metadata.is_dir()
                && !name.starts_with('.')
            {
                buckets.push((name, metadata.modified().map_err(S3Error::internal_error)?));
            }
        }
        buckets.sort();
        Ok(buckets)
    }

    /// Returns the folder of an existing bucket.
    pub(super) fn bucket(&self, name: &str) -> S3Result<PathBuf> {
        let path = self.root.join(name);
        if path.is_dir() { Ok(path) } else { Err(s3_error!(NoSuchBucket, "bucket {name} does not exist")) }
    }

    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        match std::fs::create_dir(self.root.join(name)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(s3_error!(BucketAlreadyOwnedByYou)),
            Err(error) => Err(S3Error::internal_error(error)),
        }
    }

    /// Deletes a bucket without objects.
    pub(super) async fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let bucket = self.bucket(name)?;
        let _changing = self.changing.lock().await;
        if holds_a_file(&bucket).map_err(S3Error::internal_error)? {
            return Err(s3_error!(BucketNotEmpty, "bucket {name} contains objects: delete them first"));
        }
        remove(&self.root.join(ATTRIBUTES).join(name), |path| std::fs::remove_dir_all(path))?;
        remove(&bucket, |path| std::fs::remove_dir_all(path))
    }

    /// Returns the keys of the bucket in the folder of the prefix, in the order of their bytes; keys without the prefix
    /// may be among them.
    pub(super) fn keys(&self, bucket: &str, prefix: &str) -> S3Result<Vec<String>> {
        let bucket = self.bucket(bucket)?;
        let mut keys = Vec::new();
        let mut folders = vec![bucket.join(folder_path(prefix))];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                // No key has the prefix, or the folder was removed with its last key in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(S3Error::internal_error(error)),
            };
            for entry in entries {
                let entry = entry.map_err(S3Error::internal_error)?;
                if entry.file_type().map_err(S3Error::internal_error)?.is_dir() {
                    folders.push(entry.path());
                } else {
                    keys.extend(entry.path().strip_prefix(&bucket).ok().and_then(key_at));
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Returns the object of a key.
    pub(super) async fn find(&self, bucket: &str, key: &str) -> S3Result<StoredObject> {
        let folder = self.bucket(bucket)?;
        let _changing = self.changing.lock().await;
        self.open_if_exists(&folder, bucket, key)?.ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn open_if_exists(&self, folder: &Path, bucket: &str, key: &str) -> S3Result<Option<StoredObject>> {
        let file = match std::fs::File::open(folder.join(object_path(key))) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(S3Error::internal_error(error)),
        };
        let metadata = file.metadata().map_err(S3Error::internal_error)?;
        let modified = modification_time(&metadata)?;
        let known = std::fs::read(self.attributes_path(bucket, key)).ok();
        let known = known.and_then(|json| serde_json::from_slice::<ObjectAttributes>(&json).ok());
        let describes_file = |attributes: &ObjectAttributes| {
            attributes.size == metadata.len() && attributes.modified_nanos == modified.unix_timestamp_nanos()
        };
        let attributes = match known {
            Some(attributes) if describes_file(&attributes) => attributes,
            // A copied folder has the same bytes and other times.
            known => {
                let etag = to_hex(&md5_of(&file)?);
                let known = known.filter(|attributes| attributes.etag == etag);
                known.unwrap_or_else(|| ObjectAttributes { etag, ..ObjectAttributes::default() })
            }
        };
        Ok(Some(StoredObject { file, size: metadata.len(), modified, attributes }))
    }

    fn attributes_path(&self, bucket: &str, key: &str) -> PathBuf {
        let mut path = self.root.join(ATTRIBUTES).join(bucket).join(object_path(key)).into_os_string();
        path.push(".json");
        path.into()
    }

    /// Receives a body, and fails unless it has the expected properties.
    pub(super) async fn receive<S, E>(&self, mut body: S, expected: ExpectedBody) -> S3Result<ReceivedBody>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<StdError>,
    {
        let mut file = NamedTempFile::new_in(self.root.join(INCOMING)).map_err(S3Error::internal_error)?;
        let mut md5 = Md5::new();
        let mut sha256 = expected.sha256.as_ref().map(|_| Sha256::new());
        let mut hasher = expected.hasher()?;
        let mut size = 0_u64;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error.into()))?;
            md5.update(&bytes);
            hasher.update(&bytes);
            if let Some(sha256) = &mut sha256 {
                sha256.update(&bytes);
            }
            size += bytes.len() as u64;
            file.write_all(&bytes).map_err(S3Error::internal_error)?;
        }
        let md5 = md5.finalize();
        let checksums = ObjectChecksums::from(hasher.finalize());
        expected.verify(size, md5, sha256.map(Sha256::finalize).as_ref().map(|digest| &digest[..]), &checksums)?;
        Ok(ReceivedBody { file, size, md5, checksums })
    }

    /// Stores the body as the object of the key, if the condition is met.
    pub(super) async fn put(
        &self,
        (bucket, key): (&str, &str),
        body: ReceivedBody,
        (etag, headers): (String, ObjectHeaders),
        condition: &WriteCondition,
    ) -> S3Result<Timestamp> {
        let folder = self.bucket(bucket)?;
        // A rename preserves the modification time.
        let metadata = body.file.as_file().metadata().map_err(S3Error::internal_error)?;
        let modified_nanos = modification_time(&metadata)?.unix_timestamp_nanos();
        let attributes = ObjectAttributes { size: body.size, modified_nanos, etag, checksums: body.checksums, headers };
        let mut known = NamedTempFile::new_in(self.root.join(INCOMING)).map_err(S3Error::internal_error)?;
        serde_json::to_writer(&mut known, &attributes).map_err(S3Error::internal_error)?;

        let _changing = self.changing.lock().await;
        let there = self.open_if_exists(&folder, bucket, key)?;
        condition.check(there.as_ref().map(|object| object.attributes.etag.as_str()))?;
        let path = folder.join(object_path(key));
        persist(body.file, &path)?;
        persist(known, &self.attributes_path(bucket, key))?;
        modified(&path)
    }

    /// Deletes the object of a key, if there is one.
    ///
    /// Fails with 412 if the object's tag does not match `matching`, with 404 if `matching` is set and the key has no
    /// object.
    pub(super) async fn delete(&self, bucket: &str, key: &str, matching: Option<ETagCondition>) -> S3Result<()> {
        let folder = self.bucket(bucket)?;
        let _changing = self.changing.lock().await;
        // Only with a condition, since the lookup of a file without attributes reads the whole file.
        if matching.is_some() {
            let there = self.open_if_exists(&folder, bucket, key)?;
            let condition = WriteCondition { matching, none_matching: None };
            condition.check(there.as_ref().map(|object| object.attributes.etag.as_str()))?;
        }
        for (path, top) in [
            (folder.join(object_path(key)), folder),
            (self.attributes_path(bucket, key), self.root.join(ATTRIBUTES).join(bucket)),
        ] {
            remove(&path, |path| std::fs::remove_file(path))?;
            // Removes the parent folders that are empty now.
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&top) && *above != top);
            for above in above {
                if std::fs::remove_dir(above).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Starts a multipart upload, and returns its ID.
    pub(super) fn begin(&self, upload: &PendingUpload) -> S3Result<String> {
        self.bucket(&upload.bucket)?;
        // A name that is not in use.
        let folder =
            tempfile::Builder::new().prefix("").rand_bytes(UPLOAD_ID_CHARS).tempdir_in(self.root.join(UPLOADS));
        let folder = folder.map_err(S3Error::internal_error)?.keep();
        let id = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let json = serde_json::to_vec(upload).map_err(S3Error::internal_error)?;
        std::fs::write(folder.join("upload.json"), json).map_err(S3Error::internal_error)?;
        Ok(id)
    }

    /// Returns a pending upload of this key.
    pub(super) fn upload(&self, id: &str, (bucket, key): (&str, &str)) -> S3Result<PendingUpload> {
        let gone =
            || s3_error!(NoSuchUpload, "upload {id} of this key does not exist: completed, aborted or never started");
        let is_id = id.len() == UPLOAD_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let json = is_id.then(|| std::fs::read(self.root.join(UPLOADS).join(id).join("upload.json")).ok()).flatten();
        let upload = json.and_then(|json| serde_json::from_slice::<PendingUpload>(&json).ok()).ok_or_else(gone)?;
        if upload.bucket == bucket && upload.key == key { Ok(upload) } else { Err(gone()) }
    }

    /// Returns the pending uploads of a bucket, sorted by key and ID, with their start times.
    pub(super) fn uploads(&self, bucket: &str) -> S3Result<Vec<(PendingUpload, String, Timestamp)>> {
        self.bucket(bucket)?;
        let mut uploads = Vec::new();
        for entry in std::fs::read_dir(self.root.join(UPLOADS)).map_err(S3Error::internal_error)? {
            let path = entry.map_err(S3Error::internal_error)?.path();
            let upload = std::fs::read(path.join("upload.json")).ok();
            let upload = upload.and_then(|json| serde_json::from_slice::<PendingUpload>(&json).ok());
            if let (Some(upload), Some(id)) = (upload, path.file_name().and_then(|name| name.to_str()))
                && upload.bucket == bucket
            {
                uploads.push((upload, id.to_owned(), modified(&path.join("upload.json"))?));
            }
        }
        uploads.sort_by(|(one, one_id, _), (other, other_id, _)| (&one.key, one_id).cmp(&(&other.key, other_id)));
        Ok(uploads)
    }

    /// Stores a part of an upload.
    pub(super) fn put_part(&self, id: &str, number: i32, body: ReceivedBody) -> S3Result<StoredPart> {
        let folder = self.root.join(UPLOADS).join(id);
        let part = StoredPart { number, size: body.size, md5: body.md5 };
        let json = serde_json::to_vec(&part).map_err(S3Error::internal_error)?;
        body.file.persist(folder.join(format!("part-{number}"))).map_err(S3Error::internal_error)?;
        std::fs::write(folder.join(format!("part-{number}.json")), json).map_err(S3Error::internal_error)?;
        Ok(part)
    }

    /// Returns the stored parts of an upload, sorted by number, with their modification times.
    pub(super) fn parts(&self, id: &str) -> S3Result<Vec<(StoredPart, Timestamp)>> {
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(self.root.join(UPLOADS).join(id)).map_err(S3Error::internal_error)? {
            let path = entry.map_err(S3Error::internal_error)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.strip_prefix("part-").is_some_and(|part| part.strip_suffix(".json").is_some()) {
                let json = std::fs::read(&path).map_err(S3Error::internal_error)?;
                let part = serde_json::from_slice::<StoredPart>(&json).map_err(S3Error::internal_error)?;
                parts.push((part, modified(&path)?));
            }
        }
        parts.sort_by_key(|(part, _)| part.number);
        Ok(parts)
    }

    /// Joins the bytes of these parts to one body.
    pub(super) fn join(&self, id: &str, parts: &[StoredPart]) -> S3Result<ReceivedBody> {
        let mut file = NamedTempFile::new_in(self.root.join(INCOMING)).map_err(S3Error::internal_error)?;
        for part in parts {
            let path = self.root.join(UPLOADS).join(id).join(format!("part-{}", part.number));
            let mut part = std::fs::File::open(path).map_err(S3Error::internal_error)?;
            std::io::copy(&mut part, &mut file).map_err(S3Error::internal_error)?;
        }
        let size = parts.iter().map(|part| part.size).sum();
        Ok(ReceivedBody { file, size, md5: [0; 16], checksums: ObjectChecksums::default() })
    }

    /// Deletes an upload and its parts.
    pub(super) fn end(&self, id: &str) -> S3Result<()> {
        remove(&self.root.join(UPLOADS).join(id), |path| std::fs::remove_dir_all(path))
    }
}

impl ExpectedBody {
    /// Returns a hasher for the checksums that are expected or requested.
    fn hasher(&self) -> S3Result<ChecksumHasher> {
        let given = &self.checksums;
        let wanted = |name: &str, given: &Option<String>| given.is_some() || self.algorithm.as_deref() == Some(name);
        if let Some(algorithm) = self.algorithm.as_deref()
            && !["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"].contains(&algorithm)
        {
            let known = "expected CRC32, CRC32C, CRC64NVME, SHA1 or SHA256";
            return Err(s3_error!(InvalidRequest, "unknown checksum algorithm {algorithm:?}: {known}"));
        }
        Ok(ChecksumHasher {
            crc32: wanted("CRC32", &given.crc32).then(Default::default),
            crc32c: wanted("CRC32C", &given.crc32c).then(Default::default),
            crc64nvme: wanted("CRC64NVME", &given.crc64nvme).then(Default::default),
            sha1: wanted("SHA1", &given.sha1).then(Default::default),
            sha256: wanted("SHA256", &given.sha256).then(Default::default),
        })
    }

    fn verify(&self, size: u64, md5: [u8; 16], sha256: Option<&[u8]>, computed: &ObjectChecksums) -> S3Result<()> {
        if let Some(length) = self.length
            && u64::try_from(length) != Ok(size)
        {
            return Err(s3_error!(IncompleteBody, "the body has {size} bytes, its declared length is {length}"));
        }
        if let Some(given) = &self.md5 {
            let digest = BASE64_STANDARD.decode(given).ok().filter(|digest| digest.len() == md5.len());
            let digest =
                digest.ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 {given:?} is not an MD5 in base64"))?;
            if digest != md5 {
                let own = BASE64_STANDARD.encode(md5);
                return Err(s3_error!(BadDigest, "Content-MD5 is {given}, the body's is {own}"));
            }
        }
        if let (Some(given), Some(sha256)) = (&self.sha256, sha256)
            && !given.eq_ignore_ascii_case(&to_hex(sha256))
        {
            let reason = format!("x-amz-content-sha256 is {given}, the body's is {}", to_hex(sha256));
            let mut error = S3Error::with_message(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()), reason);
            error.set_status_code(http::StatusCode::BAD_REQUEST);
            return Err(error);
        }
        let given = &self.checksums;
        for (name, given, own) in [
            ("crc32", &given.crc32, &computed.crc32),
            ("crc32c", &given.crc32c, &computed.crc32c),
            ("crc64nvme", &given.crc64nvme, &computed.crc64nvme),
            ("sha1", &given.sha1, &computed.sha1),
            ("sha256", &given.sha256, &computed.sha256),
        ] {
            if given.is_some() && given != own {
                let (given, own) = (given.as_deref().unwrap_or_default(), own.as_deref().unwrap_or_default());
                return Err(s3_error!(BadDigest, "checksum {name} is {given}, the body's is {own}"));
            }
        }
        Ok(())
    }
}

impl From<Checksum> for ObjectChecksums {
    fn from(computed: Checksum) -> Self {
        Self {
            crc32: computed.checksum_crc32,
            crc32c: computed.checksum_crc32c,
            crc64nvme: computed.checksum_crc64nvme,
            sha1: computed.checksum_sha1,
            sha256: computed.checksum_sha256,
        }
    }
}

impl ObjectChecksums {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the algorithm of one of the checksums that are set.
    pub(super) fn algorithm(&self) -> Option<&'static str> {
        let all = [
            ("CRC32", &self.crc32),
            ("CRC32C", &self.crc32c),
            ("CRC64NVME", &self.crc64nvme),
            ("SHA1", &self.sha1),
            ("SHA256", &self.sha256),
        ];
        all.into_iter().find(|(_, sum)| sum.is_some()).map(|(name, _)| name)
    }
}

/// Returns the `ETag` of a multipart object: the digest of the parts' digests, and the number of parts.
pub(super) fn etag_of_parts(parts: &[StoredPart]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&part.md5);
    }
    format!("{}-{}", to_hex(&md5.finalize()), parts.len())
}

fn md5_of(mut file: &std::fs::File) -> S3Result<[u8; 16]> {
    struct Hashing(Md5);
    impl Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hashing = Hashing(Md5::new());
    std::io::copy(&mut file, &mut hashing).map_err(S3Error::internal_error)?;
    std::io::Seek::rewind(&mut file).map_err(S3Error::internal_error)?;
    Ok(hashing.0.finalize())
}

fn modification_time(metadata: &std::fs::Metadata) -> S3Result<OffsetDateTime> {
    metadata.modified().map(OffsetDateTime::from).map_err(S3Error::internal_error)
}

fn modified(path: &Path) -> S3Result<Timestamp> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.map(Timestamp::from).map_err(S3Error::internal_error)
}

fn persist(file: NamedTempFile, path: &Path) -> S3Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(S3Error::internal_error)?;
    }
    file.persist(path).map(drop).map_err(S3Error::internal_error)
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> S3Result<()> {
    match how(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(S3Error::internal_error(error)),
        _ => Ok(()),
    }
}

fn holds_a_file(folder: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_a_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}
