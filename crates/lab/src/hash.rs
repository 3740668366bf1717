//! Hash of a whole disk image: that a source was not touched.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::{Error, Result};

/// XXH3 (128 bits) of a file's whole content, holes as zeros.
pub fn hash_file(path: &Path) -> Result<u128> {
    let mut file = File::open(path).map_err(|e| Error::file(path, e))?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 4 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.digest128()),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::file(path, e)),
        }
    }
}
