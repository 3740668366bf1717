//! Who signed a boot loader, as far as firmware under Secure Boot asks.
//!
//! The certificate table is the fifth data directory of a program's optional header, and its address is one in the file
//! (Microsoft, "PE Format", attribute certificate table). The signature is not verified: the firmware does. Names are looked for
//! as they stand in the certificates, whose structure is of no interest here.

use crate::fallback_loader::LOADER_MAX;

/// Who signed a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderSignature {
    /// Nobody.
    None,
    /// Somebody else than Windows' own authorities: a shim, or a loader with a key of its machine's owner.
    Other,
    /// Microsoft Windows Production PCA 2011, whose key every firmware with Secure Boot has.
    Windows2011,
    /// Windows UEFI CA 2023 alone, whose key older firmware has not (Microsoft, "Windows Secure Boot certificate expiration and
    /// CA updates").
    Windows2023,
}

/// Names of Windows' own authorities in certificates.
const AUTHORITIES: [(&[u8], LoaderSignature); 2] = [
    (b"Microsoft Windows Production PCA 2011", LoaderSignature::Windows2011),
    (b"Windows UEFI CA 2023", LoaderSignature::Windows2023),
];

/// Magic numbers of optional headers, with the length of what is before their data directories.
const OPTIONAL_HEADERS: [(u16, usize); 2] = [(0x10b, 96), (0x20b, 112)];
/// Signature and COFF header.
const HEADERS_LENGTH: usize = 4 + 20;
/// The directory of the certificate table, in eights of bytes.
const CERTIFICATES: usize = 4;

impl LoaderSignature {
    /// Of a program's bytes; what is no program is signed by nobody.
    pub fn of(program: &[u8]) -> Self {
        let bounded = program.get(..usize::try_from(LOADER_MAX).unwrap_or(usize::MAX)).unwrap_or(program);
        let table = certificates(bounded).unwrap_or_default();
        let named = |name: &[u8]| table.windows(name.len()).any(|part| part == name);
        match AUTHORITIES.iter().find(|(name, _)| named(name)) {
            Some((_, signature)) => *signature,
            None if table.is_empty() => Self::None,
            None => Self::Other,
        }
    }
}

/// The certificate table of a program.
fn certificates(program: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = program.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let header = number(0x3c).filter(|_| program.starts_with(b"MZ"))?;
    let optional = header.checked_add(HEADERS_LENGTH)?;
    if program.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let magic: [u8; 2] = program.get(optional..optional.checked_add(2)?)?.try_into().ok()?;
    let (_, before) = OPTIONAL_HEADERS.iter().find(|(known, _)| *known == u16::from_le_bytes(magic))?;
    let entry = optional.checked_add(before + 8 * CERTIFICATES)?;
    let (start, length) = (number(entry)?, number(entry.checked_add(4)?)?);
    program.get(start..start.checked_add(length)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program for x86-64 with this certificate table.
    pub(crate) fn signed(table: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x40 + HEADERS_LENGTH + 240];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
        let optional = 0x40 + HEADERS_LENGTH;
        bytes[optional..optional + 2].copy_from_slice(&[0x0b, 0x02]);
        let entry = optional + 112 + 8 * CERTIFICATES;
        let (start, length) = (u32::try_from(bytes.len()).unwrap(), u32::try_from(table.len()).unwrap());
        bytes[entry..entry + 4].copy_from_slice(&start.to_le_bytes());
        bytes[entry + 4..entry + 8].copy_from_slice(&length.to_le_bytes());
        [bytes, table.to_vec()].concat()
    }

    #[test]
    fn windows_authorities_are_told_from_others() {
        let of = |table: &str| LoaderSignature::of(&signed(table.as_bytes()));
        assert_eq!(of("0.Microsoft Windows Production PCA 2011."), LoaderSignature::Windows2011);
        assert_eq!(of("0.Windows UEFI CA 2023."), LoaderSignature::Windows2023);
        // Firmware takes a program with two signatures by either of them.
        let both = of("0.Windows UEFI CA 2023.Microsoft Windows Production PCA 2011.");
        assert_eq!(both, LoaderSignature::Windows2011);
        assert_eq!((of("0.Example Ltd"), of("")), (LoaderSignature::Other, LoaderSignature::None));
        // A name in the program's own text is no signature.
        let text = [signed(b""), b"Windows UEFI CA 2023".to_vec()].concat();
        assert_eq!(LoaderSignature::of(&text), LoaderSignature::None);
    }

    #[test]
    fn debians_shim_is_signed_by_another_authority_of_microsofts() {
        match std::fs::read("/usr/lib/shim/shimx64.efi.signed") {
            Ok(shim) => assert_eq!(LoaderSignature::of(&shim), LoaderSignature::Other),
            Err(_) => println!("skipped: no shim (package shim-signed)"),
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512)) {
            let _ = LoaderSignature::of(&bytes);
        }

        #[test]
        fn any_changed_byte_is_survived(at in 0usize..400, byte in proptest::prelude::any::<u8>()) {
            let mut bytes = signed(b"Windows UEFI CA 2023");
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = LoaderSignature::of(&bytes);
        }
    }
}
