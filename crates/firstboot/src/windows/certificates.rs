//! Publishers of drivers that Windows trusts: the machine's store `TrustedPublisher`. Unsafe for the store's calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use machine::firstboot::StepResult;
use windows_sys::Win32::Foundation::CRYPT_E_EXISTS;
use windows_sys::Win32::Security::Cryptography::{
    CERT_STORE_ADD_NEW, CERT_STORE_PROV_SYSTEM_W, CERT_SYSTEM_STORE_LOCAL_MACHINE, CertAddEncodedCertificateToStore,
    CertCloseStore, CertOpenStore, X509_ASN_ENCODING,
};

use super::{last_error, wide};
use crate::{Error, Result};

/// Largest certificate, in bytes.
const CERTIFICATE_BYTES_MAX: u64 = 64 << 10;

/// Adds the certificate in `file`.
pub(super) fn trust_publisher(file: &Path) -> Result<StepResult> {
    let failed = |error| Error::io(file.display().to_string(), error);
    let mut bytes = Vec::new();
    File::open(file).and_then(|file| file.take(CERTIFICATE_BYTES_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    let name = wide("TrustedPublisher");
    // SAFETY: the name ends with a zero and is what this provider takes.
    let store =
        unsafe { CertOpenStore(CERT_STORE_PROV_SYSTEM_W, 0, 0, CERT_SYSTEM_STORE_LOCAL_MACHINE, name.as_ptr().cast()) };
    if store.is_null() {
        return Err(last_error("store of trusted publishers"));
    }
    let null = std::ptr::null_mut();
    // SAFETY: the store is open, the buffer is as long as said; the certificate is not asked for back.
    let done = unsafe {
        CertAddEncodedCertificateToStore(store, X509_ASN_ENCODING, bytes.as_ptr(), length, CERT_STORE_ADD_NEW, null)
    };
    let result = if done != 0 { Ok(StepResult::Done) } else { Err(last_error(file.display().to_string())) };
    // SAFETY: the store is open, and closed here alone.
    unsafe { CertCloseStore(store, 0) };
    match result {
        Err(Error { source: Some(source), .. }) if source.raw_os_error() == Some(CRYPT_E_EXISTS) => {
            Ok(StepResult::AlreadySo)
        }
        result => result,
    }
}
