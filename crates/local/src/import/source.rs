//! Files of an import: a file, an export of DynamoDB to S3, or a folder with files, read line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

/// The longest line: an item of 400 KB takes less, even if JSON escapes each of its bytes.
const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;
/// The size of the buffers of files.
const BUFFER_BYTES: usize = 64 * 1024;
/// The file of an export that lists its data files.
const MANIFEST: &str = "manifest-files.json";
/// The file of an export that describes it.
const SUMMARY: &str = "manifest-summary.json";
/// The folder of an export, or of several exports, that contains the data files.
const DATA: &str = "data";
/// The folder in which S3 stores the exports of all tables.
const EXPORTS: &str = "AWSDynamoDB";
/// The endings of data files.
const ENDINGS: [&str; 9] =
    [".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz", ".json.zst", ".ndjson.zst", ".jsonl.zst"];
/// The first bytes of formats that are not JSON lines, and the fix.
const FOREIGN: [(&[u8], &str); 5] = [
    (&[0xE0, 0x01, 0x00, 0xEA], "Amazon Ion: export the table with --export-format DYNAMODB_JSON (the default)"),
    (b"$ion_1_0", "Amazon Ion: export the table with --export-format DYNAMODB_JSON (the default)"),
    (b"PAR1", "Parquet: write one item in DynamoDB JSON on each line"),
    (b"PK\x03\x04", "a zip archive: extract it, and pass the file in it"),
    (b"BZh", "a bzip2 file: decompress it, or compress it with gzip or zstd"),
];

/// A file of an import that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportSourceError {
    /// The path does not exist or cannot be read.
    #[error("cannot read {}: {source}: pass a file, or the folder of an export", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder contains no data.
    #[error(
        "{} contains no {MANIFEST} and no file that ends in .json, .ndjson or .jsonl, or in .gz or .zst after it{hint}",
        path.display()
    )]
    NoData {
        /// The folder.
        path: PathBuf,
        /// Another folder to pass, if one was found.
        hint: String,
    },
    /// The manifest of an export is not valid, or is that of another kind of export.
    #[error("{}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The problem and its fix.
        problem: String,
    },
    /// The file has another format.
    #[error("{} is {format}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format and the fix.
        format: &'static str,
    },
    /// The file ends within a line, or its compressed data is invalid.
    #[error("{} is corrupt or incomplete after line {line} ({source}): copy it again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Number of lines that were read before.
        line: u64,
        /// The error of the decoder.
        source: io::Error,
    },
    /// A line is longer than an item can be.
    #[error(
        "{}:{line}: the line is longer than {MAX_LINE_BYTES} bytes, the limit of an item: write one item on each line",
        path.display()
    )]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
    },
    /// A line is not UTF-8.
    #[error("{}:{line}: not UTF-8: write the file as JSON in UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
    },
    /// A data file of an export has another number of items than its manifest says.
    #[error("{} has {found} items, but {MANIFEST} says {expected}: copy it again", path.display())]
    Count {
        /// The data file.
        path: PathBuf,
        /// The number in the file.
        found: u64,
        /// The number in the manifest.
        expected: u64,
    },
}

/// A data file, and the number of its items if a manifest says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DataFile {
    path: PathBuf,
    items: Option<u64>,
}

/// The files of an import, in the order in which they are read.
pub struct ImportSource {
    path: PathBuf,
    files: Vec<DataFile>,
    bytes: u64,
    /// The index of the file after the current one.
    next: usize,
    current: Option<OpenFile>,
    line: Vec<u8>,
    bytes_read: Arc<AtomicU64>,
}

/// The file that is read now.
struct OpenFile {
    file: DataFile,
    reader: Box<dyn BufRead + Send>,
    /// Number of lines that were read.
    lines: u64,
    /// Number of items among them.
    items: u64,
}

/// A line of a file.
pub(super) struct SourceLine<'a> {
    pub(super) path: &'a Path,
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) text: &'a str,
}

impl ImportSource {
    /// Finds the files of a path: a file, a folder of an export, or a folder with data files. No item is read.
    ///
    /// # Errors
    /// [`ImportSourceError`] if the path cannot be read, or if a folder has no data files or not those of its manifest.
    pub fn open(path: &Path) -> Result<Self, ImportSourceError> {
        let files =
            if size(path)?.is_none() { files_in(path)? } else { vec![DataFile { path: path.to_owned(), items: None }] };
        let mut bytes = 0;
        for file in &files {
            let Some(size) = size(&file.path)? else {
                return Err(unreadable(&file.path)(io::Error::from(io::ErrorKind::IsADirectory)));
            };
            bytes += size;
            reader(&file.path, Arc::default())?;
        }
        let (next, current, line, bytes_read) = (0, None, Vec::new(), Arc::default());
        Ok(Self { path: path.to_owned(), files, bytes, next, current, line, bytes_read })
    }

    /// Returns the path that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of all files as they are stored, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of bytes that were read from the files.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Counts the last line as an item, for the comparison with the manifest.
    pub(super) fn count_item(&mut self) {
        if let Some(current) = &mut self.current {
            current.items += 1;
        }
    }

    /// Reads the next line; `None` after the last line of the last file.
    pub(super) fn next_line(&mut self) -> Result<Option<SourceLine<'_>>, ImportSourceError> {
        loop {
            let current = match self.current.take() {
                Some(current) => current,
                None => match self.files.get(self.next) {
                    Some(file) => {
                        self.next += 1;
                        let reader = reader(&file.path, Arc::clone(&self.bytes_read))?;
                        OpenFile { file: file.clone(), reader, lines: 0, items: 0 }
                    }
                    None => return Ok(None),
                },
            };
            let current = self.current.insert(current);
            self.line.clear();
            if current.read_line(&mut self.line)? {
                break;
            }
            current.check_count()?;
            self.current = None;
        }
        let Some(current) = &self.current else { return Ok(None) };
        let (path, number) = (current.file.path.as_path(), current.lines);
        match std::str::from_utf8(&self.line) {
            Ok(text) => {
                // Some editors start a file with it.
                let text = if number == 1 { text.trim_start_matches('\u{FEFF}') } else { text };
                Ok(Some(SourceLine { path, number, text }))
            }
            Err(_) => Err(ImportSourceError::NotUtf8 { path: path.to_owned(), line: number }),
        }
    }
}

impl OpenFile {
    /// Reads a line into `line`; returns false at the end of the file.
    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<bool, ImportSourceError> {
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', line);
        let path = || self.file.path.clone();
        match read {
            Err(source) => return Err(ImportSourceError::Corrupt { path: path(), line: self.lines, source }),
            Ok(0) => return Ok(false),
            Ok(_) => self.lines += 1,
        }
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            return Err(ImportSourceError::LongLine { path: path(), line: self.lines });
        }
        Ok(true)
    }

    fn check_count(&self) -> Result<(), ImportSourceError> {
        match self.file.items {
            Some(expected) if expected != self.items => {
                Err(ImportSourceError::Count { path: self.file.path.clone(), found: self.items, expected })
            }
            _ => Ok(()),
        }
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ImportSourceError {
    let path = path.to_owned();
    move |source| ImportSourceError::Unreadable { path, source }
}

/// Returns the size of a file in bytes; `None` for a folder.
fn size(path: &Path) -> Result<Option<u64>, ImportSourceError> {
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    Ok((!metadata.is_dir()).then_some(metadata.len()))
}

/// Returns a reader of the decompressed file, whose format its first bytes decide.
fn reader(path: &Path, bytes_read: Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>, ImportSourceError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let mut file = BufReader::with_capacity(BUFFER_BYTES, CountedFile { file, bytes_read });
    let start = file.fill_buf().map_err(unreadable(path))?;
    check_format(path, start)?;
    let decoder: Box<dyn Read + Send> = if start.starts_with(&[0x1F, 0x8B]) {
        Box::new(MultiGzDecoder::new(file))
    } else if start.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
        Box::new(zstd::Decoder::with_buffer(file).map_err(unreadable(path))?)
    } else {
        return Ok(Box::new(file));
    };
    let mut content = BufReader::with_capacity(BUFFER_BYTES, decoder);
    let start = content.fill_buf();
    let start = start.map_err(|source| ImportSourceError::Corrupt { path: path.to_owned(), line: 0, source })?;
    check_format(path, start)?;
    Ok(Box::new(content))
}

fn check_format(path: &Path, start: &[u8]) -> Result<(), ImportSourceError> {
    match FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, format)) => Err(ImportSourceError::Format { path: path.to_owned(), format }),
        None => Ok(()),
    }
}

/// A file that counts the bytes that are read from it.
struct CountedFile {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestEntry {
    item_count: u64,
    data_file_s3_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportSummary {
    output_format: Option<String>,
    export_type: Option<String>,
}

/// Returns the data files of a folder.
fn files_in(folder: &Path) -> Result<Vec<DataFile>, ImportSourceError> {
    if folder.join(MANIFEST).exists() {
        return files_of_export(folder);
    }
    for parent in [folder.to_owned(), folder.join(DATA)] {
        let files = data_files(&parent)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    let exports = [folder.join(EXPORTS), folder.to_owned()].into_iter().filter(|parent| parent.is_dir());
    let mut exports: Vec<PathBuf> = exports.flat_map(|parent| folders_with_manifest(&parent)).collect();
    exports.sort_unstable();
    let hint = exports
        .first()
        .map_or_else(String::new, |first| format!(": pass the folder of one export, {}", first.display()));
    Err(ImportSourceError::NoData { path: folder.to_owned(), hint })
}

fn folders_with_manifest(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join(MANIFEST).exists()).collect()
}

/// Returns the files of a folder that have one of the endings, sorted by name; none if the folder does not exist.
fn data_files(folder: &Path) -> Result<Vec<DataFile>, ImportSourceError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && !name.starts_with("manifest-") && path.is_file() {
            files.push(DataFile { path, items: None });
        }
    }
    files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Returns the data files that the manifest of an export lists.
fn files_of_export(folder: &Path) -> Result<Vec<DataFile>, ImportSourceError> {
    let summary = folder.join(SUMMARY);
    if summary.exists() {
        let text = std::fs::read_to_string(&summary).map_err(unreadable(&summary))?;
        check_summary(&text).map_err(|problem| ImportSourceError::Manifest { path: summary, problem })?;
    }
    let manifest = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&manifest).map_err(unreadable(&manifest))?;
    let invalid = |problem: String| ImportSourceError::Manifest { path: manifest.clone(), problem };
    let mut files = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let entry: ManifestEntry = serde_json::from_str(line)
            .map_err(|error| invalid(format!("not the manifest of an export ({error}): copy it again")))?;
        let name = entry.data_file_s3_key.rsplit('/').next().unwrap_or_default();
        let candidates = [folder.join(DATA).join(name), folder.join(name)];
        let path = candidates.into_iter().find(|path| path.is_file());
        let path = path.ok_or_else(|| {
            invalid(format!("the data file {name} is missing in {}: copy it too", folder.join(DATA).display()))
        })?;
        files.push(DataFile { path, items: Some(entry.item_count) });
    }
    Ok(files)
}

fn check_summary(text: &str) -> Result<(), String> {
    let summary: ExportSummary =
        serde_json::from_str(text).map_err(|error| format!("not the summary of an export ({error}): copy it again"))?;
    match (summary.output_format.as_deref(), summary.export_type.as_deref()) {
        (Some(format), _) if format != "DYNAMODB_JSON" => Err(format!(
            "the export has the format {format}: export the table with --export-format DYNAMODB_JSON (the default)"
        )),
        (_, Some(kind)) if kind != "FULL_EXPORT" => Err(format!(
            "the export has the type {kind}, which contains changes, not items: export the table with --export-type \
             FULL_EXPORT (the default)"
        )),
        _ => Ok(()),
    }
}
