//! Database file of the engine: opens it safely, and adds indexes and triggers that the engine's stream table lacks.
//!
//! dynoxide queries the highest sequence number of a table on every streamed write and sorts the stream by number on
//! every read, both by an expression that none of its own indexes covers, so the cost of a write grows with the length
//! of the stream. Two expression indexes fix this. The engine also retains the records of a stream that no longer
//! exists and would return them as records of the next stream of a table with the same name; two triggers delete them
//! together with their stream. The indexes and triggers are created over a second connection. Therefore the in-memory
//! database uses `SQLite`'s `memdb` file system, in which a second connection of the process can open it by name. TTL
//! also uses a second connection.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dynoxide::Database;
use dynoxide::storage::Storage;
use rusqlite::{Connection, OpenFlags};

use super::DynamoDbEngineError;

/// The name of the database file in a data folder.
const FILE: &str = "dynamodb.sqlite";
/// The name of the file whose lock marks a data folder as in use.
const LOCK: &str = "lock";

const ADDED: &str = "
    CREATE INDEX IF NOT EXISTS stream_records_by_table
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER));
    CREATE INDEX IF NOT EXISTS stream_records_by_shard
        ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));
    CREATE TRIGGER IF NOT EXISTS stream_records_end_with_table AFTER DELETE ON _tables
        BEGIN DELETE FROM _stream_records WHERE table_name = OLD.table_name; END;
    CREATE TRIGGER IF NOT EXISTS stream_records_end_with_stream AFTER UPDATE OF stream_label ON _tables
        WHEN OLD.stream_label IS NOT NEW.stream_label
        BEGIN DELETE FROM _stream_records WHERE table_name = OLD.table_name; END;";

/// DynamoDB retains stream records for 24 hours, the engine retains them forever. The newest record of a table is not
/// deleted, so that the next sequence number is higher regardless of the clock.
const RETENTION: &str = "
    DELETE FROM _stream_records
    WHERE created_at < unixepoch() - 24 * 60 * 60
      AND id NOT IN (SELECT MAX(id) FROM _stream_records GROUP BY table_name)";

/// Opens a new database in the memory of this process, and a second connection to it.
pub(super) fn memory() -> Result<(Database, Storage), DynamoDbEngineError> {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let name = format!("file:/millrace-{}?vfs=memdb", OPENED.fetch_add(1, Ordering::Relaxed));
    let database = Database::new(&name)?;
    Connection::open(&name)?.execute_batch(ADDED)?;
    Ok((database, Storage::new(&name)?))
}

/// Locks a data folder and opens its database, which is created if it does not exist, and a second connection to it.
pub(super) fn open(folder: &Path) -> Result<(Database, Storage, File), DynamoDbEngineError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| DynamoDbEngineError::Folder { path, source }
    };
    if folder.exists() && !folder.is_dir() {
        return Err(at(folder)(std::io::Error::new(ErrorKind::NotADirectory, "is not a folder")));
    }
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let lock_path = folder.join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(DynamoDbEngineError::InUse(folder.to_path_buf())),
        Err(std::fs::TryLockError::Error(source)) => {
            return Err(DynamoDbEngineError::Folder { path: lock_path, source });
        }
    }
    // An absolute path, since SQLite parses a relative name that starts with `file:` as a URI.
    let path = std::path::absolute(folder.join(FILE)).map_err(at(folder))?;
    let unusable = |reason: String| DynamoDbEngineError::Unusable { path: path.clone(), reason };
    let name = path.to_str().ok_or_else(|| unusable("at a path that is not UTF-8".to_owned()))?;
    if holds_bytes(&path)? {
        inspect(&path).map_err(unusable)?;
    }
    let database = Database::new(name).map_err(|error| unusable(format!("rejected by the engine: {error}")))?;
    // This is the engine's name for `synchronous = NORMAL`; its default waits for the disk on every write. Since the
    // engine uses a write-ahead log, a power failure may then lose the last writes, but never corrupts the file.
    database.disable_bulk_loading()?;
    let second = Connection::open(&path)?;
    second.execute_batch(ADDED)?;
    second.execute_batch(RETENTION)?;
    Ok((database, Storage::new(name)?, lock))
}

fn holds_bytes(path: &Path) -> Result<bool, DynamoDbEngineError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DynamoDbEngineError::Folder { path: PathBuf::from(path), source }),
    }
}

/// Checks an existing file without writing to it, before the engine opens it: a corrupt file or another program's file
/// must stay unchanged, so that its content can still be recovered.
fn inspect(path: &Path) -> Result<(), String> {
    let foreign = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => "not a database".to_owned(),
        _ => format!("corrupt: {error}"),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(foreign)?;
    let ours: bool = connection
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_stream_records')", [], |row| row.get(0))
        .map_err(foreign)?;
    if !ours {
        return Err("another program's database".to_owned());
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(foreign)?;
    if verdict == "ok" { Ok(()) } else { Err(format!("corrupt: {}", verdict.replace('\n', " "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(folder: &Path) -> String {
        open(folder).err().unwrap().to_string()
    }

    #[test]
    fn file_in_place_of_the_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let expected = format!("data folder {}: is not a folder: choose another with --data", file.path().display());
        assert_eq!(reason(file.path()), expected);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_byte_for_byte_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(open(folder.path()).unwrap());
        let whole = std::fs::read(&path).unwrap();
        let cut = whole[..whole.len() / 2].to_vec();
        let mut scribbled = whole.clone();
        scribbled[5000..9000].fill(0xA5);
        for (corrupt, says) in
            [(b"{\"Users\": []}".repeat(400), "not a database"), (cut, "corrupt"), (scribbled, "corrupt")]
        {
            std::fs::write(&path, &corrupt).unwrap();
            let reason = reason(folder.path());
            assert!(reason.contains(says) && reason.contains("--data") && !reason.contains('\n'), "{reason}");
            assert_eq!(std::fs::read(&path).unwrap(), corrupt);
        }
    }

    #[test]
    fn another_programs_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Connection::open(folder.path().join(FILE)).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
        assert!(reason(folder.path()).contains("another program's database"));
    }

    #[test]
    fn a_folder_in_use_is_refused_until_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        assert!(reason(folder.path()).contains("is in use by another millrace"));
        drop(first);
        open(folder.path()).unwrap();
    }

    #[test]
    fn stream_records_older_than_a_day_are_gone_when_a_folder_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        let insert =
            "INSERT INTO _stream_records (table_name, event_name, keys_json, sequence_number, shard_id, created_at)
                      VALUES (?1, 'INSERT', '{}', ?2, 's', unixepoch() - ?3)";
        for (table, number, age_s) in [("old", 1, 90_000), ("old", 2, 90_000), ("new", 1, 90_000), ("new", 2, 60)] {
            connection.execute(insert, (table, number, age_s)).unwrap();
        }
        drop(open(folder.path()).unwrap());
        let list = "SELECT group_concat(table_name || sequence_number, ' ' ORDER BY id) FROM _stream_records";
        let kept: String = connection.query_row(list, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "old2 new2", "the newest of a table stays: the next number must be above it");
    }

    #[test]
    fn the_stream_table_is_read_by_the_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = open(folder.path()).unwrap();
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        for (query, index) in [
            ("SELECT MAX(CAST(sequence_number AS INTEGER)) FROM _stream_records WHERE table_name = 'a'", "by_table"),
            (
                "SELECT id FROM _stream_records WHERE table_name = 'a' AND shard_id = 's'
                 AND CAST(sequence_number AS INTEGER) > 5 ORDER BY CAST(sequence_number AS INTEGER) LIMIT 9",
                "by_shard",
            ),
        ] {
            let plan: String =
                connection.query_row(&format!("EXPLAIN QUERY PLAN {query}"), [], |row| row.get(3)).unwrap();
            assert!(plan.contains(index), "{plan}");
        }
        drop(kept);
    }
}
