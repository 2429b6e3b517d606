//! Location of PostgreSQL's programs, and the user that they run as.

use std::fs;
use std::path::{Path, PathBuf};

/// Installation folders that are usually not on the PATH: Debian's, Homebrew's, Postgres.app's. Each contains one
/// folder per version.
const FOLDERS: [&str; 5] = [
    "/usr/lib/postgresql",
    "/opt/homebrew/opt",
    "/usr/local/opt",
    "/Applications/Postgres.app/Contents/Versions",
    "/usr/pgsql",
];

/// The programs of one version.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) pg_ctl: PathBuf,
}

impl PostgresPrograms {
    /// Returns the programs on the PATH, or else the newest version in the installation folders.
    #[must_use]
    pub fn find() -> Option<Self> {
        let on_path = std::env::split_paths(&path_variable()).find_map(|folder| Self::in_folder(&folder));
        on_path.or_else(|| {
            let versions = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
            let versions = versions.filter_map(|entry| Some(entry.ok()?.path()));
            let found = versions.filter_map(|version| Some((number(&version), Self::in_folder(&version.join("bin"))?)));
            found.max_by_key(|(version, _)| *version).map(|(_, programs)| programs)
        })
    }

    /// Resolves links, since the folder of a link may lack the other programs.
    fn in_folder(folder: &Path) -> Option<Self> {
        let folder = fs::canonicalize(folder.join("initdb")).ok()?.parent()?.to_owned();
        let [initdb, postgres, pg_ctl] = ["initdb", "postgres", "pg_ctl"].map(|name| folder.join(name));
        let programs = Self { initdb, postgres, pg_ctl };
        (programs.postgres.is_file() && programs.pg_ctl.is_file()).then_some(programs)
    }
}

fn path_variable() -> std::ffi::OsString {
    millrace_shared::environment::Environment::from_env().get("PATH").unwrap_or_default().into()
}

/// Returns the version in a folder's name: 15 for `/usr/lib/postgresql/15` and for `postgresql@15`.
fn number(folder: &Path) -> u32 {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digits: String = name.chars().skip_while(|letter| !letter.is_ascii_digit()).collect();
    digits.split('.').next().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Returns the user ID and group ID of `postgres`, or else of `nobody`.
pub(super) fn unprivileged_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|name| user_ids(&users, name))
}

fn user_ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_its_folder() {
        let of = |path: &str| number(Path::new(path));
        assert_eq!([of("/usr/lib/postgresql/15"), of("/opt/homebrew/opt/postgresql@16"), of("/x/latest")], [15, 16, 0]);
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users =
            "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:104:107:PostgreSQL:/var:/bin/sh\n";
        assert_eq!(user_ids(users, "postgres"), Some((104, 107)));
        assert_eq!(user_ids(users, "nobody"), None);
    }
}
