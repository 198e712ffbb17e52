//! What the driver made of PTX, kept for the next time: a file each in the user's cache directory,
//! named by all that it depends on. Whatever goes wrong here costs a compilation and nothing else.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The directory, if the user has one.
pub struct Cache {
    folder: Option<PathBuf>,
}

/// Says what is in a file, and that it is all there: the digest of the rest is behind it.
const MAGIC: &[u8; 16] = b"waveloom cubin 1";

impl Cache {
    /// `waveloom/cubin` below `XDG_CACHE_HOME`, or what the system has in its place.
    pub fn of_user() -> Cache {
        Cache { folder: dirs::cache_dir().map(|folder| folder.join("waveloom").join("cubin")) }
    }

    /// The file for PTX that a driver (by its number for the release of CUDA) compiles for an
    /// architecture.
    fn file(&self, ptx: &[u8], driver: u32, architecture: &str) -> Option<PathBuf> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&driver.to_le_bytes());
        hasher.update(&(architecture.len() as u64).to_le_bytes());
        hasher.update(architecture.as_bytes());
        hasher.update(ptx);
        let digest = hasher.finalize();
        self.folder.as_ref().map(|folder| folder.join(format!("{}.cubin", digest.to_hex())))
    }

    /// What was kept, if it is there and whole.
    pub fn read(&self, ptx: &[u8], driver: u32, architecture: &str) -> Option<Vec<u8>> {
        let file = fs::read(self.file(ptx, driver, architecture)?).ok()?;
        let rest = file.strip_prefix(MAGIC)?;
        let (digest, cubin) = rest.split_at_checked(blake3::OUT_LEN)?;
        (blake3::hash(cubin).as_bytes() == digest).then(|| cubin.to_vec())
    }

    /// Keeps what was compiled. Another process sees all of it or nothing.
    pub fn write(&self, ptx: &[u8], driver: u32, architecture: &str, cubin: &[u8]) {
        let Some(path) = self.file(ptx, driver, architecture) else { return };
        // Without room or permission there is no cache, which is no error.
        let _ = self.try_write(path, cubin);
    }

    fn try_write(&self, path: PathBuf, cubin: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(blake3::hash(cubin).as_bytes())?;
        file.write_all(cubin)?;
        file.persist(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &std::path::Path) -> Cache {
        Cache { folder: Some(folder.join("not/there/yet")) }
    }

    #[test]
    fn keeps_by_all_that_matters() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.read(b"ptx", 12080, "sm_90"), None);
        cache.write(b"ptx", 12080, "sm_90", b"cubin");
        assert_eq!(cache.read(b"ptx", 12080, "sm_90").as_deref(), Some(&b"cubin"[..]));
        assert_eq!(cache.read(b"ptx.", 12080, "sm_90"), None);
        assert_eq!(cache.read(b"ptx", 12090, "sm_90"), None);
        assert_eq!(cache.read(b"ptx", 12080, "sm_90a"), None);
    }

    #[test]
    fn what_is_broken_is_as_if_it_were_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let path = cache.file(b"ptx", 1, "sm_80").unwrap();
        cache.write(b"ptx", 1, "sm_80", b"cubin");
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(cache.read(b"ptx", 1, "sm_80"), None, "{end} bytes");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(cache.read(b"ptx", 1, "sm_80"), None, "byte {at}");
        }
        cache.write(b"ptx", 1, "sm_80", b"again");
        assert_eq!(cache.read(b"ptx", 1, "sm_80").as_deref(), Some(&b"again"[..]));
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left");
    }

    #[test]
    fn without_a_directory_nothing_is_kept() {
        let none = Cache { folder: None };
        none.write(b"ptx", 1, "sm_80", b"cubin");
        assert_eq!(none.read(b"ptx", 1, "sm_80"), None);
        // A file is in the way.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("not"), "a directory").unwrap();
        let blocked = cache(folder.path());
        blocked.write(b"ptx", 1, "sm_80", b"cubin");
        assert_eq!(blocked.read(b"ptx", 1, "sm_80"), None);
    }
}
