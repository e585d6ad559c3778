use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use empath_common::Problem;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    super::log, AuthAnswer, AuthConfig, AuthQuery, Secret, User, Verifier, edit, failures::Failures,
    password, prepare, store::Store,
};
use crate::sasl::sign;

/// Knows the users, and slows down those who guess.
///
/// Whether a user exists can be told neither from an answer nor from the time that it takes: for a name that nobody
/// has, the hash of somebody is checked all the same, and SCRAM is given a salt that is always the same for that name.
#[derive(Debug)]
pub struct Authenticator {
    store: Store,
    /// Of this process: what SCRAM keys are made of for names that nobody has.
    secret: [u8; 32],
    /// Stands in for nobody while there is no user at all.
    decoy: Arc<User>,
    failures: Mutex<Failures>,
    most_failures: u32,
    max_delay: Duration,
    /// Password checks that may run.
    slots: Arc<Semaphore>,
    /// Password checks that may run or wait.
    queue: Semaphore,
}

/// Addresses and users whose failures are known at a time; each takes some 40 octets.
const FAILURES: usize = 100_000;

/// Random octets in a nonce.
const NONCE: usize = 18;

impl Authenticator {
    /// Reads the users file of `config`: `None` without one, or everything that is wrong with it.
    pub fn load(config: &AuthConfig) -> Result<Option<Self>, Vec<Problem>> {
        let Some(file) = &config.users_file else {
            return Ok(None);
        };
        let problem = |message: String| Problem::new("users_file", message);
        let store = Store::load(file)
            .map_err(|errors| errors.iter().map(|error| problem(error.to_string())).collect::<Vec<_>>())?;
        let no_randomness = |_| vec![problem("the system gives no random octets".to_owned())];
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(no_randomness)?;
        let decoy = edit::decoy(&secret).map_err(|error| vec![problem(error.to_string())])?;
        Ok(Some(Self {
            store,
            secret,
            decoy: Arc::new(decoy),
            failures: Mutex::new(Failures::new(FAILURES)),
            most_failures: config.failures,
            max_delay: config.max_delay,
            slots: Arc::new(Semaphore::new(config.verifications)),
            queue: Semaphore::new(config.verifications.saturating_add(config.waiting)),
        }))
    }

    /// Answers what a session asks for a client at this address.
    pub async fn answer(&self, address: IpAddr, query: AuthQuery<'_>) -> AuthAnswer {
        if self.is_hopeless(address) {
            return AuthAnswer::TooMany;
        }
        match query {
            AuthQuery::Password(name, password) => {
                self.wait(address, name).await;
                self.password(address, name, password).await
            }
            AuthQuery::Keys(name) => {
                self.wait(address, name).await;
                self.keys(name).await
            }
            AuthQuery::Proof(name, right) => {
                let user = self.store.users().await.find(name).cloned();
                self.judge(address, name, user.filter(|_| right))
            }
        }
    }

    async fn password(&self, address: IpAddr, name: &str, password: &Secret) -> AuthAnswer {
        let Ok(_place) = self.queue.try_acquire() else {
            log::too_many_verifications();
            return AuthAnswer::Unavailable;
        };
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return AuthAnswer::Unavailable;
        };
        // Others from there may have failed while this one waited.
        if self.is_hopeless(address) {
            return AuthAnswer::TooMany;
        }
        let users = self.store.users().await;
        let user = users.find(name).cloned();
        let hashed = user.clone().or_else(|| users.any(self.number(name)).cloned());
        let hash = hashed.as_ref().unwrap_or(&self.decoy).hash.clone();
        let password = prepare::password(password);
        // The slot goes along: when the client leaves, the work goes on.
        let verified = spawn_blocking(move || {
            let verified = password::verify(&password, &hash);
            drop(slot);
            verified
        });
        match verified.await {
            Ok(Ok(right)) => self.judge(address, name, user.filter(|_| right)),
            Ok(Err(error)) => {
                log::verification_failed(&error);
                AuthAnswer::Unavailable
            }
            Err(error) => {
                log::verification_failed(&error);
                AuthAnswer::Unavailable
            }
        }
    }

    async fn keys(&self, name: &str) -> AuthAnswer {
        let users = self.store.users().await;
        let verifier = match users.find(name) {
            Some(user) => user.verifier.clone(),
            None => self.strange(name, &users.any(self.number(name)).unwrap_or(&self.decoy).verifier),
        };
        let mut nonce = [0; NONCE];
        match rand::fill(&mut nonce) {
            Ok(()) => AuthAnswer::Keys(verifier, STANDARD.encode(nonce)),
            Err(error) => {
                log::verification_failed(&error);
                AuthAnswer::Unavailable
            }
        }
    }

    fn judge(&self, address: IpAddr, name: &str, user: Option<Arc<User>>) -> AuthAnswer {
        if let Some(user) = user {
            return AuthAnswer::Accepted(user.identity.clone());
        }
        self.failures().add(address, name, Instant::now());
        AuthAnswer::Refused
    }

    async fn wait(&self, address: IpAddr, name: &str) {
        let delay = self.failures().delay(address, name, self.max_delay, Instant::now());
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    fn is_hopeless(&self, address: IpAddr) -> bool {
        self.failures().of_address(address, Instant::now()) >= self.most_failures
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that no password has, for a name that nobody has; they look like those of `model`.
    fn strange(&self, name: &str, model: &Verifier) -> Verifier {
        let part = |label: &str| sign(&self.secret, format!("{label} {name}").as_bytes());
        let salt = [part("salt"), part("more salt")].concat();
        let salt = salt.get(..model.salt.len()).unwrap_or(&salt).into();
        Verifier {
            iterations: model.iterations,
            salt,
            stored_key: part("stored key"),
            server_key: part("server key"),
        }
    }

    /// A number for a name, the same each time.
    fn number(&self, name: &str) -> u64 {
        sign(&self.secret, name.as_bytes())
            .iter()
            .take(8)
            .fold(0, |number, octet| number << 8 | u64::from(*octet))
    }
}
