//! The door: from a name and password, a cookie or a token to a [`Caller`], and what administrators change of that.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::password::verify_password;
use super::{Caller, Credential, NewCredential, Proof, Role, Secret, SetupCode, Throttle, Token, Vault, hash_password};
use crate::store::{ApiToken, NewApiToken, NewSession, NewUser, SessionBounds, Store, User, UserChange};
use crate::{Error, ErrorKind, Result, Timestamp};

/// A session ends after this long without a request, in milliseconds.
const SESSION_IDLE_MS: i64 = 2 * 60 * 60 * 1000;
/// A session ends after this long, whatever is done with it.
const SESSION_LIFE_MS: i64 = 12 * 60 * 60 * 1000;
/// The longest name of a user, or of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Days that a token lasts where nothing is said, and at most.
const TOKEN_DAYS_DEFAULT: u32 = 90;
const TOKEN_DAYS_MAX: u32 = 3650;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What setting up counts as among the names that are tried; no user's name has a space.
const SETUP: &str = "setup code";

/// What time it is; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Users, sessions, tokens and credentials of a controller.
pub struct Access {
    store: Arc<Store>,
    vault: Vault,
    throttle: Mutex<Throttle>,
    /// Of API tokens that are none.
    wrong_tokens: Mutex<Throttle>,
    setup_code: Mutex<Option<SetupCode>>,
    clock: Clock,
}

/// A session that has just begun.
pub struct Login {
    /// The cookie's content. It is shown this once.
    pub token: Token,
    /// Whose it is.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

impl Access {
    /// For this store and vault.
    pub fn new(store: Arc<Store>, vault: Vault, clock: Clock) -> Self {
        Self {
            store,
            vault,
            throttle: Mutex::default(),
            wrong_tokens: Mutex::default(),
            setup_code: Mutex::default(),
            clock,
        }
    }

    /// Whether there is no user yet.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn needs_setup(&self) -> Result<bool> {
        self.store.has_users().map(|some| !some)
    }

    /// The code that makes the first administrator, for whoever started the controller; `None` where there is a user.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::Io`] without random numbers.
    pub fn make_setup_code(&self) -> Result<Option<SetupCode>> {
        let code = if self.needs_setup()? { Some(SetupCode::new((self.clock)())?) } else { None };
        locked(&self.setup_code).clone_from(&code);
        Ok(code)
    }

    /// Makes the first administrator and logs them in.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where there are users, [`ErrorKind::Unauthenticated`] for a wrong code or an old one,
    /// [`ErrorKind::TooMany`] after wrong ones, [`ErrorKind::Invalid`] for a name or password that cannot be one.
    pub fn set_up(&self, code: &str, name: &str, password: &Secret, address: Option<IpAddr>) -> Result<Login> {
        let now = (self.clock)();
        if !self.needs_setup()? {
            return Err(Error::new(ErrorKind::Conflict, "there are users already: log in"));
        }
        self.attempt(SETUP, address, now)?;
        let wanted = locked(&self.setup_code).clone();
        if !wanted.as_ref().is_some_and(|wanted| wanted.fits(code, now)) {
            let over = wanted.is_none_or(|wanted| wanted.is_over(now));
            self.store.write_audit("nobody", "setup refused", "", &from(address))?;
            let context = match over {
                true => "the setup code is over: start the controller again for another, or use `vconverter users add`",
                false => "the setup code is wrong: it is in the output of `vconverter serve`",
            };
            return Err(Error::new(ErrorKind::Unauthenticated, context));
        }
        locked(&self.throttle).succeeded(SETUP, address);
        let name = user_name(name)?;
        let hash = hash_password(password)?;
        let new = NewUser { name: &name, role: Role::Administrator, password: &hash };
        self.store.add_user(new, true, "setup code")?;
        *locked(&self.setup_code) = None;
        self.begin_session(&name, &hash, address, now)
    }

    /// Begins a session. What was wrong is not said, and takes the same time.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::TooMany`] after failures, [`ErrorKind::Storage`].
    pub fn log_in(&self, name: &str, password: &Secret, address: Option<IpAddr>) -> Result<Login> {
        let now = (self.clock)();
        // A name that cannot be one is tried like any other, all of them under one.
        let name = user_name(name).unwrap_or_default();
        self.attempt(&name, address, now)?;
        let found = self.store.user(&name)?;
        let usable = found.as_ref().filter(|(user, _)| !user.disabled).map(|(_, hash)| hash.as_str());
        let (true, Some(hash)) = (verify_password(usable, password)?, usable) else {
            self.store.write_audit("nobody", "login refused", &name, &from(address))?;
            return Err(Error::new(ErrorKind::Unauthenticated, "name or password is wrong"));
        };
        let login = self.begin_session(&name, hash, address, now)?;
        locked(&self.throttle).succeeded(&name, address);
        Ok(login)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn log_out(&self, token: &Token) -> Result<()> {
        self.store.end_web_session(&token.hash())
    }

    /// Who holds this cookie; `None` for nobody by now. With `is_use` the session's time without use begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn caller_of_session(&self, token: &Token, is_use: bool) -> Result<Option<Caller>> {
        let now = (self.clock)();
        let found = self.store.web_session(&token.hash(), bounds(now), is_use.then_some(now))?;
        Ok(found.map(|(user, role)| Caller {
            actor: format!("user {user}"),
            role,
            user: Some(user),
            proof: Proof::Session { csrf_token: token.csrf() },
        }))
    }

    /// Who holds this API token; `None` where it is unknown, over, revoked, or its owner may not log in.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn caller_of_token(&self, token: &Token) -> Result<Option<Caller>> {
        let found = self.store.use_api_token(&token.hash(), (self.clock)())?;
        Ok(found.map(|(token, role)| {
            let owner = token.user.as_ref().map(|user| format!("user {user}, ")).unwrap_or_default();
            Caller { actor: format!("{owner}token {}", token.name), role, user: token.user, proof: Proof::Token }
        }))
    }

    /// An API token came that is none. One cannot be guessed; but who tries for long is to wait between two tries.
    ///
    /// # Errors
    /// [`ErrorKind::TooMany`] after several from that address.
    pub fn note_wrong_token(&self, address: Option<IpAddr>) -> Result<()> {
        let Some(address) = address else { return Ok(()) };
        let attempt = locked(&self.wrong_tokens).attempt_from(address, (self.clock)());
        attempt.map_err(|wait_ms| Error::too_many("too many wrong tokens", wait_ms))
    }

    /// Makes a user.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name or password that cannot be one, [`ErrorKind::Conflict`] for a name that is
    /// taken, [`ErrorKind::Storage`].
    pub fn add_user(&self, name: &str, role: Role, password: &Secret, actor: &str) -> Result<User> {
        let name = user_name(name)?;
        let hash = hash_password(password)?;
        let user = self.store.add_user(NewUser { name: &name, role, password: &hash }, false, actor)?;
        *locked(&self.setup_code) = None;
        Ok(user)
    }

    /// Changes a user, as an administrator does.
    ///
    /// # Errors
    /// Those of [`Store::change_user`], and [`ErrorKind::Invalid`] for a password that cannot be one.
    pub fn change_user(
        &self,
        name: &str,
        role: Option<Role>,
        disabled: Option<bool>,
        password: Option<&Secret>,
        actor: &str,
    ) -> Result<User> {
        let password = password.map(hash_password).transpose()?;
        self.store.change_user(&user_name(name)?, &UserChange { role, disabled, password }, actor)
    }

    /// Changes a user's own password, who says the old one. All their sessions end, and another begins.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] where the old one is wrong, [`ErrorKind::TooMany`] after failures,
    /// [`ErrorKind::Invalid`] for a new one that cannot be one.
    pub fn change_own_password(
        &self,
        user: &str,
        old: &Secret,
        new: &Secret,
        address: Option<IpAddr>,
    ) -> Result<Login> {
        let now = (self.clock)();
        self.attempt(user, address, now)?;
        let hash = self.store.user(user)?.map(|(_, hash)| hash);
        if !verify_password(hash.as_deref(), old)? {
            self.store.write_audit(&format!("user {user}"), "new password refused", user, &from(address))?;
            return Err(Error::new(ErrorKind::Forbidden, "the old password is wrong"));
        }
        locked(&self.throttle).succeeded(user, address);
        let hash = hash_password(new)?;
        let change = UserChange { password: Some(hash.clone()), ..UserChange::default() };
        self.store.change_user(user, &change, &format!("user {user}"))?;
        self.begin_session(user, &hash, address, now)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// Those of [`Store::remove_user`].
    pub fn remove_user(&self, name: &str, actor: &str) -> Result<()> {
        self.store.remove_user(&user_name(name)?, actor)
    }

    /// Makes an API token for a caller: theirs, and not above their role. Whoever is an administrator may make one for
    /// another user. It is shown this once.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] for a role above the caller's or the user's; [`ErrorKind::Invalid`] for a name or number
    /// of days that cannot be; those of [`Store::add_api_token`].
    pub fn make_token(
        &self,
        caller: &Caller,
        name: &str,
        role: Role,
        days: Option<u32>,
        user: Option<&str>,
    ) -> Result<(ApiToken, Token)> {
        caller.require(role)?;
        let user = user.map(user_name).transpose()?.or_else(|| caller.user.clone());
        if user != caller.user {
            caller.require(Role::Administrator)?;
        }
        let days = days.unwrap_or(TOKEN_DAYS_DEFAULT);
        if !(1..=TOKEN_DAYS_MAX).contains(&days) {
            let context = format!("days of a token: expected 1 to {TOKEN_DAYS_MAX}, found {days}");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let name = name.trim();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let context = format!("name of a token: expected 1 to {NAME_BYTES_MAX} bytes, none of control");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let token = Token::for_api()?;
        let expires_at = Timestamp((self.clock)().0.saturating_add(i64::from(days) * DAY_MS));
        let new = NewApiToken { token: &token.hash(), name, user: user.as_deref(), role, expires_at };
        Ok((self.store.add_api_token(new, &caller.actor)?, token))
    }

    /// The tokens that a caller may see: theirs, or all.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn tokens(&self, caller: &Caller) -> Result<Vec<ApiToken>> {
        match (caller.role, &caller.user) {
            (Role::Administrator, _) => self.store.api_tokens(None),
            (_, Some(user)) => self.store.api_tokens(Some(user)),
            (_, None) => Ok(Vec::new()),
        }
    }

    /// Revokes a token: one of the caller's, or any for an administrator.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::Storage`].
    pub fn revoke_token(&self, id: &str, caller: &Caller) -> Result<()> {
        let of = match (caller.role, &caller.user) {
            (Role::Administrator, _) => None,
            (_, Some(user)) => Some(user.as_str()),
            (_, None) => return Err(Error::new(ErrorKind::NotFound, format!("no token {id}"))),
        };
        self.store.revoke_api_token(id, of, &caller.actor)
    }

    /// Keeps a credential, in the place of one of the same name.
    ///
    /// # Errors
    /// Those of [`Vault::seal`] and [`Store::set_credential`].
    pub fn set_credential(&self, name: &str, new: &NewCredential, actor: &str) -> Result<Credential> {
        self.store.set_credential(&self.vault.seal(name, new)?, actor)
    }

    /// All credentials, without their secrets.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn credentials(&self) -> Result<Vec<Credential>> {
        Ok(self.store.credentials()?.into_iter().map(|sealed| sealed.about).collect())
    }

    /// A credential with its secret, for whoever enters a source or target with it. No route returns it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn credential(&self, name: &str) -> Result<(Credential, Secret)> {
        let found = self.store.credentials()?.into_iter().find(|sealed| sealed.about.name == name);
        let sealed = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no credential {name}")))?;
        let secret = self.vault.open_credential(&sealed)?;
        Ok((sealed.about, secret))
    }

    fn begin_session(&self, name: &str, hash: &str, address: Option<IpAddr>, now: Timestamp) -> Result<Login> {
        let token = Token::for_session()?;
        let address = shown(address);
        let new = NewSession { token: &token.hash(), user: name, password: hash, address: &address };
        let role = self.store.begin_web_session(new, bounds(now), now)?;
        Ok(Login { token, name: name.into(), role })
    }

    fn attempt(&self, name: &str, address: Option<IpAddr>, now: Timestamp) -> Result<()> {
        locked(&self.throttle).attempt(name, address, now).map_err(|wait_ms| {
            tracing::info!(name, address = shown(address), wait_ms, "a login came too soon after failed ones");
            Error::too_many("too many failed logins", wait_ms)
        })
    }
}

/// A user's name in lower case.
///
/// # Errors
/// [`ErrorKind::Invalid`].
fn user_name(typed: &str) -> Result<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let begins_well = typed.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && typed.len() <= NAME_BYTES_MAX && typed.chars().all(is_part) {
        return Ok(typed.to_ascii_lowercase());
    }
    let context = format!("name of a user: expected 1 to {NAME_BYTES_MAX} letters, digits, or any of . _ - @");
    Err(Error::new(ErrorKind::Invalid, context))
}

fn bounds(now: Timestamp) -> SessionBounds {
    SessionBounds {
        begun_after: Timestamp(now.0.saturating_sub(SESSION_LIFE_MS)),
        used_after: Timestamp(now.0.saturating_sub(SESSION_IDLE_MS)),
    }
}

fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "the socket".to_owned(), |address| address.to_canonical().to_string())
}

fn from(address: Option<IpAddr>) -> String {
    format!("from {}", shown(address))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::DataDirectory;
    use crate::trust::Unlock;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    struct House {
        _folder: tempfile::TempDir,
        _directory: crate::LockedDataDirectory,
        access: Access,
        store: Arc<Store>,
        now: Arc<AtomicI64>,
    }

    fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(folder.path().join("data")).lock().unwrap();
        let store = Arc::new(Store::open(&directory.database()).unwrap());
        let vault = Vault::open(&directory, &store, &Unlock::default()).unwrap();
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let read = now.clone();
        let clock: Clock = Arc::new(move || Timestamp(read.load(Ordering::Relaxed)));
        let access = Access::new(store.clone(), vault, clock);
        House { _folder: folder, _directory: directory, access, store, now }
    }

    impl House {
        fn later(&self, ms: i64) {
            self.now.fetch_add(ms, Ordering::Relaxed);
        }

        fn with_ada(self) -> Self {
            self.access.add_user("Ada", Role::Administrator, &secret(GOOD), "uid 0").unwrap();
            self
        }

        fn log_in(&self, name: &str, password: &str) -> Result<Login> {
            self.access.log_in(name, &secret(password), address())
        }

        fn is_in(&self, token: &Token) -> bool {
            self.access.caller_of_session(token, true).unwrap().is_some()
        }
    }

    const GOOD: &str = "correct horse battery";

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    fn address() -> Option<IpAddr> {
        Some([192, 0, 2, 7].into())
    }

    fn kind<T>(result: Result<T>) -> ErrorKind {
        result.err().expect("it is refused").kind
    }

    #[test]
    fn the_setup_code_makes_one_administrator_once() {
        let house = house();
        let access = &house.access;
        assert!(access.needs_setup().unwrap());
        assert_eq!(kind(access.set_up("", "ada", &secret(GOOD), address())), ErrorKind::Unauthenticated);
        let code = access.make_setup_code().unwrap().unwrap().to_string();
        assert_eq!(kind(access.set_up("0000", "ada", &secret(GOOD), address())), ErrorKind::Unauthenticated);
        assert_eq!(kind(access.set_up(&code, "a b", &secret(GOOD), address())), ErrorKind::Invalid);
        assert_eq!(kind(access.set_up(&code, "ada", &secret("short"), address())), ErrorKind::Invalid);
        let login = access.set_up(&code, "Ada", &secret(GOOD), address()).unwrap();
        assert_eq!((login.name.as_str(), login.role), ("ada", Role::Administrator));
        assert!(house.is_in(&login.token));
        assert_eq!(kind(access.set_up(&code, "eve", &secret(GOOD), address())), ErrorKind::Conflict);
        assert!(access.make_setup_code().unwrap().is_none());
    }

    #[test]
    fn a_setup_code_is_over_after_an_hour() {
        let house = house();
        let code = house.access.make_setup_code().unwrap().unwrap().to_string();
        house.later(HOUR + 1);
        let error = house.access.set_up(&code, "ada", &secret(GOOD), address()).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unauthenticated);
        assert!(error.to_string().contains("over"), "{error}");
        assert!(house.access.needs_setup().unwrap());
    }

    #[test]
    fn a_wrong_password_an_unknown_name_and_a_disabled_user_are_refused_with_the_same_words() {
        let house = house().with_ada();
        house.access.add_user("bob", Role::Viewer, &secret(GOOD), "uid 0").unwrap();
        house.access.change_user("bob", None, Some(true), None, "uid 0").unwrap();
        let tries = [("ada", "wrong horse battery"), ("nobody", GOOD), ("bob", GOOD), ("a b\n", GOOD)];
        for (name, password) in tries {
            let error = house.log_in(name, password).err().unwrap();
            assert_eq!(
                (error.kind, error.to_string()),
                (ErrorKind::Unauthenticated, "name or password is wrong".into())
            );
        }
        let lines = house.store.audit(4).unwrap();
        assert!(lines.iter().all(|line| line.action == "login refused" && line.detail == "from 192.0.2.7"));
        assert_eq!(lines.iter().map(|line| line.subject.as_str()).collect::<Vec<_>>(), ["", "bob", "nobody", "ada"]);
        let login = house.log_in("ADA", GOOD).unwrap();
        assert_eq!(house.access.caller_of_session(&login.token, true).unwrap().unwrap().actor, "user ada");
        assert_eq!(house.store.audit(1).unwrap()[0].action, "logged in");
    }

    #[test]
    fn guessing_is_slowed_down_and_the_right_password_waits_too() {
        let house = house().with_ada();
        for _ in 0..5 {
            assert_eq!(kind(house.log_in("ada", "wrong horse battery")), ErrorKind::Unauthenticated);
        }
        let lines = house.store.audit(100).unwrap().len();
        for password in ["wrong horse battery", GOOD] {
            let error = house.log_in("ada", password).err().unwrap();
            assert_eq!((error.kind, error.to_string().contains("try again in 1 s")), (ErrorKind::TooMany, true));
        }
        assert_eq!(house.store.audit(100).unwrap().len(), lines, "what was not tried fills no log");
        house.later(1000);
        house.log_in("ada", GOOD).unwrap();
        house.later(1000);
        house.log_in("ada", GOOD).unwrap();
    }

    #[test]
    fn sessions_end_by_idling_by_age_and_by_logging_out() {
        let house = house().with_ada();
        let idle = house.log_in("ada", GOOD).unwrap().token;
        let used = house.log_in("ada", GOOD).unwrap().token;
        for _ in 0..11 {
            house.later(HOUR);
            assert!(house.is_in(&used));
        }
        assert!(!house.is_in(&idle));
        house.later(HOUR + 1);
        assert!(!house.is_in(&used), "twelve hours are the end");

        let watched = house.log_in("ada", GOOD).unwrap().token;
        house.later(HOUR + 1);
        assert!(house.access.caller_of_session(&watched, false).unwrap().is_some());
        house.later(HOUR);
        assert!(!house.is_in(&watched), "to be looked at is no use");

        let left = house.log_in("ada", GOOD).unwrap().token;
        house.access.log_out(&left).unwrap();
        assert!(!house.is_in(&left));
        house.access.log_out(&left).unwrap();
    }

    #[test]
    fn sessions_end_with_another_password_role_or_the_user() {
        let house = house().with_ada();
        let access = &house.access;
        access.add_user("bob", Role::Operator, &secret(GOOD), "uid 0").unwrap();
        let begin = || house.log_in("bob", GOOD).unwrap().token;

        let token = begin();
        access.change_user("bob", Some(Role::Viewer), None, None, "user ada").unwrap();
        assert!(!house.is_in(&token));
        let token = begin();
        access.change_user("bob", None, Some(true), None, "user ada").unwrap();
        assert!(!house.is_in(&token));
        access.change_user("bob", None, Some(false), None, "user ada").unwrap();
        assert!(!house.is_in(&token), "to be enabled again brings no session back");

        let token = begin();
        assert_eq!(
            kind(access.change_own_password("bob", &secret("wrong horse battery"), &secret(GOOD), address())),
            ErrorKind::Forbidden
        );
        assert!(house.is_in(&token));
        let next = access.change_own_password("bob", &secret(GOOD), &secret("another horse"), address()).unwrap();
        assert!(!house.is_in(&token) && house.is_in(&next.token));
        assert_eq!(kind(house.log_in("bob", GOOD)), ErrorKind::Unauthenticated);

        access.change_user("bob", None, None, Some(&secret(GOOD)), "user ada").unwrap();
        assert!(!house.is_in(&next.token));
        let token = begin();
        access.remove_user("bob", "user ada").unwrap();
        assert!(!house.is_in(&token));
    }

    #[test]
    fn of_many_sessions_the_oldest_end() {
        let house = house().with_ada();
        let first = house.log_in("ada", GOOD).unwrap().token;
        let mut last = None;
        for _ in 0..32 {
            house.later(1);
            last = Some(house.log_in("ada", GOOD).unwrap().token);
        }
        assert!(!house.is_in(&first) && house.is_in(&last.unwrap()));
    }

    #[test]
    fn a_token_may_no_more_than_its_owner_may_by_now() {
        let house = house().with_ada();
        let access = &house.access;
        access.add_user("bob", Role::Operator, &secret(GOOD), "uid 0").unwrap();
        let ada = access.caller_of_session(&house.log_in("ada", GOOD).unwrap().token, true).unwrap().unwrap();
        let bob = access.caller_of_session(&house.log_in("bob", GOOD).unwrap().token, true).unwrap().unwrap();
        assert_eq!(kind(access.make_token(&bob, "ci", Role::Administrator, None, None)), ErrorKind::Forbidden);
        assert_eq!(kind(access.make_token(&bob, "ci", Role::Viewer, None, Some("ada"))), ErrorKind::Forbidden);
        assert_eq!(kind(access.make_token(&ada, "ci", Role::Administrator, None, Some("bob"))), ErrorKind::Forbidden);
        for (name, days) in [("", None), ("ci", Some(0)), ("ci", Some(3651)), ("a\nb", None)] {
            assert_eq!(kind(access.make_token(&bob, name, Role::Viewer, days, None)), ErrorKind::Invalid);
        }
        let (about, token) = access.make_token(&bob, "ci", Role::Operator, None, None).unwrap();
        assert_eq!((about.expires_at.0 - house.now.load(Ordering::Relaxed)) / DAY_MS, 90);
        let of = |token: &Token| access.caller_of_token(token).unwrap();
        assert_eq!(of(&token).unwrap().actor, "user bob, token ci");
        assert_eq!(of(&token).unwrap().role, Role::Operator);
        access.change_user("bob", Some(Role::Viewer), None, None, "user ada").unwrap();
        assert_eq!(of(&token).unwrap().role, Role::Viewer);
        access.change_user("bob", Some(Role::Administrator), None, None, "user ada").unwrap();
        assert_eq!(of(&token).unwrap().role, Role::Operator, "its own bound stays");
        access.change_user("bob", None, Some(true), None, "user ada").unwrap();
        assert!(of(&token).is_none());
        access.change_user("bob", None, Some(false), None, "user ada").unwrap();

        assert!(access.tokens(&ada).unwrap().iter().any(|known| known.id == about.id && known.used_at.is_some()));
        house.later(90 * DAY_MS);
        assert!(of(&token).is_none(), "it is over");

        let (about, token) = access.make_token(&bob, "ci", Role::Viewer, Some(1), None).unwrap();
        access.revoke_token(&about.id, &ada).unwrap();
        assert!(of(&token).is_none());
        assert_eq!(kind(access.revoke_token(&about.id, &ada)), ErrorKind::Conflict);
        let (_, token) = access.make_token(&bob, "ci", Role::Viewer, Some(1), None).unwrap();
        access.remove_user("bob", "user ada").unwrap();
        assert!(of(&token).is_none());
    }

    #[test]
    fn nobody_sees_or_revokes_a_token_of_somebody_else() {
        let house = house().with_ada();
        let access = &house.access;
        access.add_user("bob", Role::Operator, &secret(GOOD), "uid 0").unwrap();
        let bob = Caller { user: Some("bob".into()), role: Role::Operator, ..Caller::on_socket(1000) };
        let root = Caller::on_socket(0);
        let (about, _) = access.make_token(&root, "all", Role::Administrator, None, None).unwrap();
        assert_eq!(about.user, None);
        assert!(access.tokens(&bob).unwrap().is_empty());
        assert_eq!(kind(access.revoke_token(&about.id, &bob)), ErrorKind::NotFound);
        let stranger = Caller { user: None, role: Role::Operator, ..Caller::on_socket(1000) };
        assert!(access.tokens(&stranger).unwrap().is_empty());
        assert_eq!(kind(access.revoke_token(&about.id, &stranger)), ErrorKind::NotFound);
    }

    #[test]
    fn a_credential_is_listed_without_its_secret_and_opened_for_use() {
        let house = house();
        let new: NewCredential =
            serde_json::from_str(r#"{"kind": "ssh-password", "user": "root", "secret": "s3cret-of-web1"}"#).unwrap();
        assert!(!format!("{new:?}").contains("s3cret"));
        house.access.set_credential("web1", &new, "uid 0").unwrap();
        let listed = serde_json::to_string(&house.access.credentials().unwrap()).unwrap();
        assert!(listed.contains("web1") && !listed.contains("s3cret") && !listed.contains("sealed"), "{listed}");
        let (about, opened) = house.access.credential("web1").unwrap();
        assert_eq!((about.user.as_str(), opened.expose()), ("root", "s3cret-of-web1"));
        assert_eq!(kind(house.access.credential("web2")), ErrorKind::NotFound);
        house.store.remove_credential("web1", "uid 0").unwrap();
        assert_eq!(kind(house.store.remove_credential("web1", "uid 0")), ErrorKind::NotFound);
    }
}
