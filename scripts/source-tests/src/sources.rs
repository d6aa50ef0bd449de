// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The project's files.

use std::fs;
use std::path::{Path, PathBuf};

/// A file and what is in it.
pub struct Source {
    /// Path from the project's root, to tell people.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What is in the file at `path`, from the root.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All Rust files in `folder`, a path from the root, and below.
pub fn rust_files(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                let path = path.display().to_string();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(!sources.is_empty(), "no sources in {folder}");
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}
