//! Who signed a kernel module or an EFI program, by the names in its signature. Nothing is verified here: the kernel
//! and the firmware do that; this tells people whom they would have to trust.
//!
//! A signed module ends with a PKCS#7 message, a `struct module_signature` and a mark (Linux,
//! `include/linux/module_signature.h`, `scripts/sign-file.c`).

const MARK: &[u8] = b"~Module signature appended~\n";
const STRUCTURE: usize = 12;
/// id-at-commonName, 2.5.4.3 (X.520), as it stands in DER.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
/// X.520 `ub-common-name`.
const NAME_LENGTH_MAX: usize = 64;
const NAMES_MAX: usize = 64;

/// The name of a module's signer: `Debian Secure Boot CA`; `None` where it is not signed.
pub fn module_signer(module: &[u8]) -> Option<String> {
    let body = module.strip_suffix(MARK)?;
    let (body, structure) = body.split_at_checked(body.len().checked_sub(STRUCTURE)?)?;
    let length = u32::from_be_bytes(structure[8..].try_into().ok()?);
    let start = body.len().checked_sub(usize::try_from(length).ok()?)?;
    Some(common_names(&body[start..]).pop().unwrap_or_else(|| "an unnamed key".into()))
}

/// The common names in DER, in their order, each once. The message is not taken apart: the object identifier and a short
/// string behind it are unmistakable, and half a message still tells a name.
pub fn common_names(der: &[u8]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for at in der.windows(COMMON_NAME.len()).enumerate().filter(|(_, w)| *w == COMMON_NAME).map(|(at, _)| at) {
        let name = || {
            let [kind, length, rest @ ..] = der.get(at + COMMON_NAME.len()..)? else { return None };
            // UTF8String, PrintableString, TeletexString, IA5String
            let text = matches!(kind, 0x0c | 0x13 | 0x14 | 0x16);
            let length = usize::from(*length);
            let bytes = rest.get(..length).filter(|_| text && (1..=NAME_LENGTH_MAX).contains(&length))?;
            let name = String::from_utf8_lossy(bytes).into_owned();
            (!name.chars().any(char::is_control)).then_some(name)
        };
        if let Some(name) = name().filter(|name| !names.contains(name)) {
            names.push(name);
            if names.len() == NAMES_MAX {
                break;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Vec<u8> {
        let mut der = vec![0x30, 0x20];
        der.extend(COMMON_NAME);
        der.extend([0x0c, u8::try_from(name.len()).unwrap()]);
        der.extend(name.as_bytes());
        der
    }

    fn signed(name: &str) -> Vec<u8> {
        let der = named(name);
        let mut module = b"\x7fELF".to_vec();
        module.extend(&der);
        module.extend([0, 0, 2, 0, 0, 0, 0, 0]);
        module.extend(u32::try_from(der.len()).unwrap().to_be_bytes());
        module.extend(MARK);
        module
    }

    #[test]
    fn the_signer_is_told_by_name() {
        assert_eq!(module_signer(&signed("Debian Secure Boot CA")).as_deref(), Some("Debian Secure Boot CA"));
        assert_eq!(module_signer(b"\x7fELF"), None);
    }

    #[test]
    fn a_signature_longer_than_the_file_is_none() {
        let mut module = signed("x");
        let at = module.len() - MARK.len() - 4;
        module[at] = 0xff;
        assert_eq!(module_signer(&module), None);
        assert_eq!(module_signer(MARK), None);
    }

    #[test]
    fn names_are_told_once_and_in_order() {
        let der = [named("Root"), named("Signer"), named("Root"), named("a\nb"), COMMON_NAME.to_vec()].concat();
        assert_eq!(common_names(&der), ["Root", "Signer"]);
    }
}
