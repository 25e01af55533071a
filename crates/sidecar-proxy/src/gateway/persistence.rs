//! What a rule says of further tries (GEP-1731) and of sessions (GEP-1619). What the proxy cannot keep is refused.

use daemon::config::Seconds;

use super::Taking;
use super::document::{CookieLifetime, RuleRetry, SessionPersistence, SessionType};
use crate::config::{Retries, RetryOn, Session, SessionCookie, SessionHeader};

impl Taking<'_> {
    pub(super) fn retry(&mut self, at: &str, one: &RuleRetry) -> Retries {
        for (index, code) in one.codes.iter().enumerate() {
            let at = format!("{at}.codes[{index}]");
            match code {
                500..=599 => {}
                400..=499 => {
                    self.refuse(&at, "is the client's fault, and would be the next time: only 5xx is tried again")
                }
                _ => self.refuse(&at, "must be from 500 to 599"),
            }
        }
        if one.attempts.is_some_and(|attempts| !(1..=10).contains(&attempts)) {
            self.refuse(&format!("{at}.attempts"), "must be from 1 to 10");
        }
        let own = Retries::default();
        let mut retries = Retries {
            attempts: one.attempts.unwrap_or(own.attempts),
            on: vec![RetryOn::Connect, RetryOn::Refused, RetryOn::Reset, RetryOn::Timeout],
            statuses: one.codes.clone(),
            ..own
        };
        if let Some(backoff) = one.backoff {
            // It is the least that must pass; a quarter more keeps those who failed together apart.
            (retries.min_backoff, retries.backoff) = (backoff, Seconds(backoff.0 / 4));
        }
        retries
    }

    /// `rule`: a name that no other rule has.
    pub(super) fn session(&mut self, at: &str, one: &SessionPersistence, rule: &str) -> Option<Session> {
        if one.idle_timeout.is_some() {
            self.refuse(
                &format!("{at}.idleTimeout"),
                "is not supported: nobody keeps count of when a session was last used",
            );
        }
        let lifetime = one.absolute_timeout.unwrap_or(Seconds::new(0));
        if one.absolute_timeout.is_some() && (lifetime.0.is_zero() || lifetime.0.subsec_nanos() != 0) {
            self.refuse(&format!("{at}.absoluteTimeout"), "must be whole seconds, at least one");
        }
        let excluded = match one.r#type {
            SessionType::Cookie => one.header.is_some().then_some("header"),
            SessionType::Header if one.cookie.is_some() => Some("cookie"),
            SessionType::Header => one.cookie_config.is_some().then_some("cookieConfig"),
        };
        if let Some(field) = excluded {
            self.refuse(&format!("{at}.{field}"), "is not for this type of session");
            return None;
        }
        let newer = [("cookie", one.cookie.is_some()), ("header", one.header.is_some())];
        if let Some((field, _)) = newer.iter().find(|(_, given)| *given)
            && (one.session_name.is_some() || one.cookie_config.is_some())
        {
            self.refuse(&format!("{at}.{field}"), "excludes sessionName and cookieConfig, which it has replaced");
            return None;
        }
        let own = || format!("session-{:08x}", dataplane::balance::hash(rule.as_bytes()) as u32);
        let name = one.session_name.clone().unwrap_or_else(own);
        if one.r#type == SessionType::Header {
            let name = one.header.as_ref().map_or(name, |header| header.name.clone());
            return Some(Session::Header(SessionHeader { name, lifetime }));
        }
        let place = if one.cookie.is_some() { "cookie" } else { "cookieConfig" };
        let config = one.cookie.as_ref().or(one.cookie_config.as_ref());
        let permanent = config.is_some_and(|config| config.lifetime_type == CookieLifetime::Permanent);
        if permanent && one.absolute_timeout.is_none() {
            self.refuse(&format!("{at}.{place}.lifetimeType"), "needs an absoluteTimeout");
        }
        Some(Session::Cookie(SessionCookie {
            name: config.and_then(|config| config.name.clone()).unwrap_or(name),
            path: config.map_or_else(|| "/".to_owned(), |config| config.path.clone()),
            lifetime,
            permanent,
            secure: false,
        }))
    }
}
