//! Credentials at rest: XChaCha20-Poly1305 under a key that is in a file of its own, or derived from a passphrase that is
//! given at each start.
//!
//! The database alone (a copy, a backup, a support bundle) thus tells no secret. A sealed secret is bound to its
//! credential's name, kind and user: in another place it does not open.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::password::derive_key;
use super::token::random;
use super::{Credential, NewCredential, Secret};
use crate::store::{SealedCredential, Store, VaultLock};
use crate::{Error, ErrorKind, LockedDataDirectory, Result, Timestamp};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const SALT_BYTES: usize = 16;
/// What a sealed text begins with, for the day there is another way.
const REVISION: u8 = 1;
/// What is sealed to know the key again.
const PROOF: &[u8] = b"vconverter credentials";

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// What opens the credentials.
#[derive(Clone, Debug, Default)]
pub struct Unlock {
    /// The passphrase; without one a key file is used, and made at first.
    pub passphrase: Option<Secret>,
    /// Forget all credentials, where the key or passphrase is lost.
    pub forget: bool,
}

/// Seals and opens credentials.
pub struct Vault {
    key: Key,
}

impl Vault {
    /// The vault of a data directory and its store. With a passphrase where there was a key file, all is sealed anew and
    /// the file removed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where key file or passphrase are missing or wrong; [`ErrorKind::Io`],
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::Storage`].
    pub fn open(directory: &LockedDataDirectory, store: &Store, unlock: &Unlock) -> Result<Self> {
        let path = directory.credentials_key();
        if unlock.forget {
            store.forget_credentials()?;
        }
        match (store.vault_lock()?, &unlock.passphrase) {
            (None, None) => {
                let key = match load_key(&path)? {
                    Some(key) => key,
                    None => create_key(&path)?,
                };
                Self { key }.take_into_use(store, None, &[])
            }
            (None, Some(passphrase)) => {
                let salt = random::<SALT_BYTES>()?;
                Self { key: derive_key(passphrase, &salt)? }.take_into_use(store, Some(salt.into()), &[])
            }
            (Some(VaultLock { salt: None, proof }), passphrase) => {
                let remedy = "put it back from a backup, or start once with --forget-credentials and set them again";
                let key = load_key(&path)?.ok_or_else(|| {
                    let context = format!("{}: the key of the credentials is missing: {remedy}", path.display());
                    Error::new(ErrorKind::Invalid, context)
                })?;
                let vault = Self { key };
                if !vault.fits(&proof) {
                    let context = format!("{}: this key is not the credentials' own: {remedy}", path.display());
                    return Err(Error::new(ErrorKind::Invalid, context));
                }
                match passphrase {
                    None => Ok(vault),
                    Some(passphrase) => vault.change_to(passphrase, store, &path),
                }
            }
            (Some(VaultLock { salt: Some(salt), proof }), Some(passphrase)) => {
                let vault = Self { key: derive_key(passphrase, &salt)? };
                if !vault.fits(&proof) {
                    return Err(Error::new(ErrorKind::Invalid, "the passphrase of the credentials is wrong"));
                }
                Ok(vault)
            }
            (Some(VaultLock { salt: Some(_), .. }), None) => {
                let context = "the credentials are locked with a passphrase: give it with --passphrase-file";
                Err(Error::new(ErrorKind::Invalid, context))
            }
        }
    }

    /// Seals a credential. Its times are set by the store.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for one that cannot be, [`ErrorKind::Io`] without random numbers.
    pub fn seal(&self, name: &str, new: &NewCredential) -> Result<SealedCredential> {
        new.check(name)?;
        let about = Credential {
            name: name.into(),
            kind: new.kind,
            user: new.user.clone(),
            created_at: Timestamp(0),
            changed_at: Timestamp(0),
        };
        let sealed = self.encrypt(new.secret.expose().as_bytes(), &place_of(&about))?;
        Ok(SealedCredential { about, sealed })
    }

    /// The secret of a credential.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] where it was sealed with another key, for another credential, or is damaged.
    pub fn open_credential(&self, credential: &SealedCredential) -> Result<Secret> {
        let damaged = || {
            let name = &credential.about.name;
            Error::new(ErrorKind::Storage, format!("credential {name} cannot be opened: set it again"))
        };
        let open = self.decrypt(&credential.sealed, &place_of(&credential.about)).ok_or_else(damaged)?;
        let text = std::str::from_utf8(&open).map_err(|_| damaged())?;
        Ok(Secret::new(text.to_owned()))
    }

    fn take_into_use(self, store: &Store, salt: Option<Vec<u8>>, sealed: &[SealedCredential]) -> Result<Self> {
        let proof = self.encrypt(PROOF, b"proof")?;
        store.lock_vault(&VaultLock { salt, proof }, sealed)?;
        Ok(self)
    }

    fn change_to(self, passphrase: &Secret, store: &Store, key_file: &Path) -> Result<Self> {
        let salt = random::<SALT_BYTES>()?;
        let next = Self { key: derive_key(passphrase, &salt)? };
        let mut all = store.credentials()?;
        for credential in &mut all {
            let secret = self.open_credential(credential)?;
            credential.sealed = next.encrypt(secret.expose().as_bytes(), &place_of(&credential.about))?;
        }
        let next = next.take_into_use(store, Some(salt.into()), &all)?;
        std::fs::remove_file(key_file)
            .map_err(|e| Error::io(format!("{}: the old key cannot be removed", key_file.display()), e))?;
        Ok(next)
    }

    fn fits(&self, proof: &[u8]) -> bool {
        self.decrypt(proof, b"proof").is_some_and(|open| *open == PROOF)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.key).into())
    }

    fn encrypt(&self, text: &[u8], place: &[u8]) -> Result<Vec<u8>> {
        let nonce = random::<NONCE_BYTES>()?;
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: text, aad: place })
            .map_err(|_| Error::new(ErrorKind::Io, "a credential cannot be encrypted"))?;
        Ok([&[REVISION][..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, sealed: &[u8], place: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&REVISION, rest) = sealed.split_first()? else { return None };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place }).ok().map(Zeroizing::new)
    }
}

/// What a sealed secret is bound to. None of the parts holds a control character.
fn place_of(about: &Credential) -> Vec<u8> {
    format!("credential\n{}\n{}\n{}", about.name, about.kind, about.user).into_bytes()
}

fn load_key(path: &Path) -> Result<Option<Key>> {
    let shown = path.display();
    let unreadable = |e| Error::io(format!("{shown}: the key of the credentials cannot be read"), e);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        let context = format!("{shown}: expected mode 0600, found {mode:04o}: others may have read the key");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if metadata.len() != KEY_BYTES as u64 {
        let context = format!("{shown}: expected {KEY_BYTES} bytes, found {}", metadata.len());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    file.read_exact(&mut *key).map_err(unreadable)?;
    Ok(Some(key))
}

/// It is on disk, whole, before anything is sealed with it.
fn create_key(path: &Path) -> Result<Key> {
    let shown = path.display();
    let unwritten = |e| Error::io(format!("{shown}: the key of the credentials cannot be written"), e);
    let key = Zeroizing::new(random::<KEY_BYTES>()?);
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(unwritten)?;
    file.write_all(&*key).and_then(|()| file.sync_all()).map_err(unwritten)?;
    std::fs::rename(&beside, path).map_err(unwritten)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritten)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::DataDirectory;
    use crate::trust::CredentialKind;

    struct House {
        _folder: tempfile::TempDir,
        directory: LockedDataDirectory,
        store: Store,
    }

    fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(folder.path().join("data")).lock().unwrap();
        let store = Store::open(&directory.database()).unwrap();
        House { _folder: folder, directory, store }
    }

    impl House {
        fn open(&self, passphrase: Option<&str>) -> Result<Vault> {
            let passphrase = passphrase.map(|text| Secret::new(text.into()));
            Vault::open(&self.directory, &self.store, &Unlock { passphrase, forget: false })
        }

        fn secret(&self, vault: &Vault) -> Result<String> {
            vault.open_credential(&self.store.credentials().unwrap()[0]).map(|secret| secret.expose().to_owned())
        }
    }

    fn new() -> NewCredential {
        NewCredential {
            kind: CredentialKind::SshPassword,
            user: "root".into(),
            secret: Secret::new("s3cret-of-web1".into()),
        }
    }

    #[test]
    fn the_files_of_the_store_do_not_hold_the_secret_and_the_key_file_opens_it() {
        let house = house();
        let vault = house.open(None).unwrap();
        house.store.set_credential(&vault.seal("web1", &new()).unwrap(), "uid 0").unwrap();
        let mut seen = 0;
        for file in std::fs::read_dir(house.directory.path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"s3cret"), "{}", path.display());
            seen += bytes.len();
        }
        assert!(seen > 4096, "{seen} bytes were looked at");
        let key = house.directory.credentials_key();
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = house.open(None).unwrap();
        assert_eq!(house.secret(&again).unwrap(), "s3cret-of-web1");
        let line = &house.store.audit(1).unwrap()[0];
        assert_eq!((line.action.as_str(), line.detail.as_str()), ("credential set", "ssh-password root"));
    }

    #[test]
    fn a_sealed_secret_opens_in_its_own_place_only() {
        let house = house();
        let vault = house.open(None).unwrap();
        let good = vault.seal("web1", &new()).unwrap();
        let damages: [fn(&mut SealedCredential); 6] = [
            |c| c.about.name = "web2".into(),
            |c| c.about.user = "admin".into(),
            |c| c.about.kind = CredentialKind::SshKey,
            |c| c.sealed[30] ^= 1,
            |c| c.sealed.truncate(20),
            |c| c.sealed.clear(),
        ];
        for (number, damage) in damages.iter().enumerate() {
            let mut credential = good.clone();
            damage(&mut credential);
            assert_eq!(vault.open_credential(&credential).unwrap_err().kind, ErrorKind::Storage, "{number}");
        }
        assert_eq!(vault.open_credential(&good).unwrap().expose(), "s3cret-of-web1");
        assert_ne!(vault.seal("web1", &new()).unwrap().sealed, good.sealed, "each has its nonce");
    }

    #[test]
    fn a_lost_or_foreign_key_is_one_clear_error_and_can_be_given_up() {
        let house = house();
        let vault = house.open(None).unwrap();
        house.store.set_credential(&vault.seal("web1", &new()).unwrap(), "uid 0").unwrap();
        let key = house.directory.credentials_key();
        let kept = std::fs::read(&key).unwrap();
        std::fs::write(&key, [7; 32]).unwrap();
        let foreign = house.open(None).err().unwrap();
        std::fs::remove_file(&key).unwrap();
        let lost = house.open(None).err().unwrap();
        println!("{foreign}\n{lost}");
        assert!(foreign.to_string().contains("not the credentials' own") && lost.to_string().contains("missing"));
        std::fs::write(&key, &kept).unwrap();
        let open_to_all = house.open(None).err().unwrap();
        assert!(open_to_all.to_string().contains("expected mode 0600"), "{open_to_all}");
        std::fs::remove_file(&key).unwrap();
        let unlock = Unlock { passphrase: None, forget: true };
        Vault::open(&house.directory, &house.store, &unlock).unwrap();
        assert!(house.store.credentials().unwrap().is_empty());
        house.open(None).unwrap();
    }

    #[test]
    fn a_passphrase_takes_the_place_of_the_key_file_and_is_needed_from_then_on() {
        let house = house();
        let vault = house.open(None).unwrap();
        house.store.set_credential(&vault.seal("web1", &new()).unwrap(), "uid 0").unwrap();
        let vault = house.open(Some("a long enough phrase")).unwrap();
        assert_eq!(house.secret(&vault).unwrap(), "s3cret-of-web1");
        assert!(!house.directory.credentials_key().exists());
        for wrong in [None, Some("another phrase")] {
            assert_eq!(house.open(wrong).err().unwrap().kind, ErrorKind::Invalid);
        }
        let vault = house.open(Some("a long enough phrase")).unwrap();
        assert_eq!(house.secret(&vault).unwrap(), "s3cret-of-web1");
    }

    #[test]
    fn what_cannot_be_a_credential_is_refused() {
        let house = house();
        let vault = house.open(None).unwrap();
        let empty = NewCredential { secret: Secret::new(String::new()), ..new() };
        let nobody = NewCredential { user: String::new(), ..new() };
        let control = NewCredential { user: "a\nb".into(), ..new() };
        for (name, new) in [("", &new()), ("a/b", &new()), ("a", &empty), ("a", &nobody), ("a", &control)] {
            assert_eq!(vault.seal(name, new).unwrap_err().kind, ErrorKind::Invalid, "{name}");
        }
    }
}
