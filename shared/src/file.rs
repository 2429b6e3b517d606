//! Files at paths that a user chose: [`replace_file`] and [`regular_file`].

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns the path of the regular file that `path` names, or `path` if nothing exists there. Symbolic links are
/// followed.
///
/// # Errors
/// Names what is there instead of a regular file: a folder, a device, a pipe, a socket, or a link to nothing. Only a
/// regular file may be read to its end, and be replaced.
pub fn regular_file(path: &Path) -> io::Result<PathBuf> {
    let is_link = match fs::symlink_metadata(path) {
        Ok(found) => found.is_symlink(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path.to_owned()),
        Err(error) => return Err(error),
    };
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if is_link && error.kind() == ErrorKind::NotFound => {
            return Err(refusal("is a symbolic link to a file that does not exist"));
        }
        Err(error) => return Err(error),
    };
    let found = fs::metadata(&target)?;
    if found.is_file() {
        return Ok(if is_link { target } else { path.to_owned() });
    }
    Err(refusal(if found.is_dir() {
        "is a folder and not a file"
    } else {
        "is a device, a pipe or a socket and not a file"
    }))
}

fn refusal(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, problem)
}

/// Creates a file, or replaces the content of a regular file. The content is written to a temporary file in the same
/// folder, which is then renamed, so that the file is complete at any time, even if the disk is full. A new file is
/// readable by its owner only; a replaced one keeps its permissions.
///
/// # Errors
/// As [`regular_file`]; or the error of the operating system. The file is then unchanged.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let target = regular_file(path)?;
    let Some(name) = target.file_name() else { return Err(refusal("has no file name")) };
    let mut options = OpenOptions::new();
    // The content may contain a password: a new file is readable by its owner only.
    options.write(true).create_new(true).mode(0o600);
    let (temporary, mut file) = loop {
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = target.with_file_name(temporary_name);
        match options.open(&temporary) {
            // Of a process with the same ID that was killed, such as a former one in the same container.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => break (temporary, opened?),
        }
    };
    let permissions = fs::metadata(&target).ok().map(|former| former.permissions());
    let written = permissions
        .map_or(Ok(()), |permissions| file.set_permissions(permissions))
        .and_then(|()| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, &target));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn file_is_created_and_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for content in ["first", "", "second"] {
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace_file(&folder.path().join("b/c"), b"").is_err());
    }

    #[test]
    fn new_file_is_private_and_a_replaced_one_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace_file(&path, b"a").unwrap();
        assert_eq!(mode(), 0o600);
        for kept in [0o400, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
            replace_file(&path, b"b").unwrap();
            assert_eq!(mode(), kept);
        }
    }

    #[test]
    fn temporary_file_of_a_killed_process_does_not_prevent_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for number in 0..50 {
            fs::write(folder.path().join(format!(".a.{}-{number}.tmp", std::process::id())), "left").unwrap();
        }
        replace_file(&path, b"content").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    }

    #[test]
    fn symbolic_link_is_followed_and_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        symlink("elsewhere/target", &link).unwrap();
        let refused = replace_file(&link, b"a").unwrap_err().to_string();
        assert!(refused.contains("is a symbolic link to a file that does not exist"), "{refused}");
        fs::write(folder.path().join("elsewhere/target"), "former").unwrap();
        replace_file(&link, b"latter").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(folder.path().join("elsewhere/target")).unwrap(), "latter");
        replace_file(&path, b"a").unwrap();
    }

    #[test]
    fn other_than_a_regular_file_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, link) = (folder.path().join("socket"), folder.path().join("null"));
        let _listener = UnixListener::bind(&socket).unwrap();
        // A link: if this test fails, the device of the machine stays a device.
        symlink("/dev/null", &link).unwrap();
        for (path, part) in
            [(folder.path(), "is a folder"), (&socket, "is a device, a pipe or a socket"), (&link, "is a device")]
        {
            let refused = replace_file(path, b"content").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains(part), "{refused}");
        }
        assert!(fs::metadata(&link).unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    }
}
