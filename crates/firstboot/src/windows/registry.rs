//! Keys and values below `HKEY_LOCAL_MACHINE`. Unsafe for the calls, which take buffers with lengths.
#![allow(unsafe_code)]

use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_SUCCESS};
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_LOCAL_MACHINE, KEY_READ, KEY_SET_VALUE, REG_DWORD, REG_EXPAND_SZ, REG_SZ, RegCloseKey, RegCreateKeyExW,
    RegDeleteTreeW, RegOpenKeyExW, RegQueryValueExW, RegSetValueExW,
};

use super::{code_error, from_wide, wide};
use crate::network::{RegistryData, RegistryValue};
use crate::{Error, Result};

/// Longest value that is read, in bytes.
const VALUE_BYTES_MAX: u32 = 64 << 10;

/// An open key.
pub(super) struct Key(HKEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the key is open, and this is its one owner.
        unsafe { RegCloseKey(self.0) };
    }
}

impl Key {
    /// The key that another call opened.
    ///
    /// # Safety
    /// It is open, and nobody else closes it.
    pub(super) unsafe fn from_raw(key: HKEY) -> Self {
        Self(key)
    }

    /// The key at `path`; `None` where there is none.
    pub(super) fn open(path: &str) -> Result<Option<Self>> {
        let mut key = std::ptr::null_mut();
        let text = wide(path);
        // SAFETY: the text ends with a zero, `key` is written to.
        match unsafe { RegOpenKeyExW(HKEY_LOCAL_MACHINE, text.as_ptr(), 0, KEY_READ, &raw mut key) } {
            ERROR_SUCCESS => Ok(Some(Self(key))),
            ERROR_FILE_NOT_FOUND => Ok(None),
            code => Err(code_error(format!("key {path}"), code)),
        }
    }

    /// Type and bytes of a value; `None` where there is none that can be read.
    fn bytes(&self, name: &str) -> Option<(u32, Vec<u8>)> {
        let (mut kind, mut length) = (0, VALUE_BYTES_MAX);
        let mut bytes = vec![0; VALUE_BYTES_MAX as usize];
        let name = wide(name);
        // SAFETY: the buffer is as long as `length` says; all else lives through the call.
        let code = unsafe {
            RegQueryValueExW(
                self.0,
                name.as_ptr(),
                std::ptr::null(),
                &raw mut kind,
                bytes.as_mut_ptr(),
                &raw mut length,
            )
        };
        bytes.truncate(length as usize);
        (code == ERROR_SUCCESS).then_some((kind, bytes))
    }

    /// A text, not expanded.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (kind, bytes) = self.bytes(name)?;
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        matches!(kind, REG_SZ | REG_EXPAND_SZ).then(|| from_wide(&units))
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let (kind, bytes) = self.bytes(name)?;
        (kind == REG_DWORD).then_some(())?;
        Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))
    }
}

/// Writes a value; its key is made where it is missing.
pub(super) fn set(value: &RegistryValue) -> Result<()> {
    let (kind, bytes) = match &value.data {
        RegistryData::Text(text) => (REG_SZ, text_bytes(text)),
        RegistryData::Number(number) => (REG_DWORD, number.to_le_bytes().to_vec()),
    };
    set_bytes(&value.key, value.name, kind, &bytes)
}

/// Writes a text that holds variables.
pub(super) fn set_expandable(key: &str, name: &str, text: &str) -> Result<()> {
    set_bytes(key, name, REG_EXPAND_SZ, &text_bytes(text))
}

fn text_bytes(text: &str) -> Vec<u8> {
    wide(text).into_iter().flat_map(u16::to_le_bytes).collect()
}

fn set_bytes(path: &str, name: &str, kind: u32, bytes: &[u8]) -> Result<()> {
    let mut key = std::ptr::null_mut();
    let text = wide(path);
    // SAFETY: the text ends with a zero, `key` is written to, what else can be left out is.
    let code = unsafe {
        RegCreateKeyExW(
            HKEY_LOCAL_MACHINE,
            text.as_ptr(),
            0,
            std::ptr::null(),
            0,
            KEY_SET_VALUE,
            std::ptr::null(),
            &raw mut key,
            std::ptr::null_mut(),
        )
    };
    if code != ERROR_SUCCESS {
        return Err(code_error(format!("key {path}"), code));
    }
    let (key, text) = (Key(key), wide(name));
    let length = u32::try_from(bytes.len()).map_err(|_| Error::new(crate::ErrorKind::Malformed, "value past 4 GiB"))?;
    // SAFETY: the buffer is as long as `length` says.
    match unsafe { RegSetValueExW(key.0, text.as_ptr(), 0, kind, bytes.as_ptr(), length) } {
        ERROR_SUCCESS => Ok(()),
        code => Err(code_error(format!("value {name} of {path}"), code)),
    }
}

/// Removes a key with all below it; whether it was there.
pub(super) fn delete_tree(path: &str) -> Result<bool> {
    let text = wide(path);
    // SAFETY: the text ends with a zero.
    match unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, text.as_ptr()) } {
        ERROR_SUCCESS => Ok(true),
        ERROR_FILE_NOT_FOUND => Ok(false),
        code => Err(code_error(format!("key {path}"), code)),
    }
}
