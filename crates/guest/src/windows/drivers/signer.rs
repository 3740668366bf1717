//! Who signed a catalog: the certificate that its signature names, out of those that lie in it.
//!
//! PKCS #7 SignedData (RFC 2315, section 9): certificates and the first SignerInfo stand behind the content; a signer is named by issuer
//! and serial number of an X.509 certificate (RFC 5280, section 4.1). Nothing is verified: whether the signature holds is
//! decided by the Windows that loads the driver.

use super::der::{BMP_STRING, CONTEXT_0, Der, OBJECT_ID, SEQUENCE, SET};
use crate::Result;

/// Certificates of one catalog that are looked at; a chain with its time stamps has less than ten.
const CERTIFICATES_MAX: usize = 64;
/// Parts of a name that are looked at.
const NAME_PARTS_MAX: usize = 64;

/// 2.5.4.10 and 2.5.4.3, an organization and a common name (X.520).
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Whose drivers Windows installs without asking: what its hardware laboratory signs, too, has this organization.
const MICROSOFT: &str = "Microsoft Corporation";

/// Who signed a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its organization, or else its common name, as the certificate has it.
    pub name: String,
    /// The certificate: X.509 in DER.
    pub certificate: Vec<u8>,
}

impl Signer {
    /// Whether Windows asks somebody before it installs a driver of this publisher, unless it is trusted already.
    pub fn is_asked_about(&self) -> bool {
        self.name != MICROSOFT
    }

    /// The signer that SignedData names, whose content was read; `None` where its certificate is not there.
    pub(super) fn read(signed: &mut Der<'_>) -> Result<Option<Self>> {
        let mut certificates = Vec::new();
        while let Some((tag, mut inner, _)) = signed.next_whole()? {
            match tag {
                CONTEXT_0 => {
                    while let Some((SEQUENCE, certificate, whole)) = inner.next_whole()? {
                        if certificates.len() < CERTIFICATES_MAX {
                            certificates.push((certificate, whole));
                        }
                    }
                }
                SET => {
                    let mut info = inner.enter(SEQUENCE)?;
                    info.any()?; // version
                    let mut named = info.enter(SEQUENCE)?;
                    let (issuer, serial) = (named.any()?.1.bytes, named.any()?.1.bytes);
                    for (certificate, whole) in certificates {
                        if let Some(name) = name_of(certificate, issuer, serial)? {
                            return Ok(Some(Self { name, certificate: whole.to_vec() }));
                        }
                    }
                    return Ok(None);
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The subject of a certificate, if it is the one of this issuer and serial number.
fn name_of(mut certificate: Der<'_>, issuer: &[u8], serial: &[u8]) -> Result<Option<String>> {
    let mut body = certificate.enter(SEQUENCE)?;
    let mut number = body.any()?;
    if number.0 == CONTEXT_0 {
        number = body.any()?; // the version stood before it
    }
    body.any()?; // algorithm
    let from = body.any()?.1.bytes;
    body.any()?; // validity
    let subject = body.enter(SEQUENCE)?;
    if (number.1.bytes, from) != (serial, issuer) {
        return Ok(None);
    }
    let found = part_of(subject, ORGANIZATION)?;
    Ok(Some(found.or(part_of(subject, COMMON_NAME)?).unwrap_or_else(|| "a publisher without a name".to_owned())))
}

/// A part of a name, fit for a screen.
fn part_of(mut name: Der<'_>, wanted: &[u8]) -> Result<Option<String>> {
    for _ in 0..NAME_PARTS_MAX {
        let Some((SET, mut parts)) = name.next()? else { break };
        while let Some((SEQUENCE, mut part)) = parts.next()? {
            let (OBJECT_ID, id) = part.any()? else { continue };
            let (kind, text) = part.any()?;
            if id.bytes == wanted {
                let text = match kind {
                    BMP_STRING => {
                        let units = text.bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                        String::from_utf16_lossy(&units.collect::<Vec<u16>>())
                    }
                    _ => String::from_utf8_lossy(text.bytes).into_owned(),
                };
                return Ok(Some(text.replace(char::is_control, "\u{fffd}")));
            }
        }
    }
    Ok(None)
}
