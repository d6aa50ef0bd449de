// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A file of `/proc` or `/sys` that is changed for a while.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Puts back what was there before when it goes.
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Takes note of what is there.
    pub fn keep(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let before = read(&path)?;
        Ok(Self { path, before })
    }

    /// What is there.
    pub fn get(&self) -> io::Result<String> {
        read(&self.path)
    }

    /// Takes note of what is there, and changes it.
    pub fn change(path: impl Into<PathBuf>, value: &str) -> io::Result<Self> {
        let setting = Self::keep(path)?;
        setting.set(value)?;
        Ok(setting)
    }

    /// Changes it.
    pub fn set(&self, value: &str) -> io::Result<()> {
        fs::write(&self.path, value)
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_owned())
}

impl Drop for Setting {
    fn drop(&mut self) {
        // What it was about may be gone.
        let _ = fs::write(&self.path, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_comes_back() {
        let path = std::env::temp_dir().join(format!("torture-setting-{}", std::process::id()));
        assert!(Setting::keep(&path).is_err());
        fs::write(&path, "old\n").unwrap();
        let setting = Setting::change(&path, "new").unwrap();
        assert_eq!(setting.get().unwrap(), "new");
        drop(setting);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_file(&path).unwrap();
    }
}
