//! What the types of filters cannot say.

use daemon::config::Decoder;
use dataplane::filter::network;

use super::{check_match, is_token};
use crate::config::filter::Rule;
use crate::config::{Filter, Match};

/// Checks one of the filters that decide; `at` is its place.
pub(super) fn check(at: &str, filter: &Filter, decoder: &mut Decoder) {
    match filter {
        Filter::Rules(rules) => check_rules(&format!("{at}.rules"), rules, decoder),
        Filter::Sizes(_)
        | Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Rewrite(_)
        | Filter::Respond(_) => {}
    }
}

fn check_rules(at: &str, rules: &[Rule], decoder: &mut Decoder) {
    if rules.is_empty() {
        decoder.refuse_at(at, "needs at least one rule");
    }
    super::names(at, rules.iter().map(|one| one.name.as_str()), decoder);
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{at}[{index}]");
        networks(&format!("{at}.networks"), &rule.networks, decoder);
        methods(&format!("{at}.methods"), &rule.methods, decoder);
        let one =
            Match { path: rule.path.clone(), method: None, headers: rule.headers.clone(), query: rule.query.clone() };
        check_match(&at, &one, decoder);
        if !(400..=599).contains(&rule.status) {
            decoder.refuse_at(&format!("{at}.status"), "must be from 400 to 599");
        }
    }
}

pub(super) fn networks(at: &str, networks: &[String], decoder: &mut Decoder) {
    for (index, text) in networks.iter().enumerate() {
        if let Err(reason) = network::range(text) {
            decoder.refuse_at(&format!("{at}[{index}]"), reason);
        }
    }
}

fn methods(at: &str, methods: &[String], decoder: &mut Decoder) {
    for (index, method) in methods.iter().enumerate() {
        if !is_token(method) {
            decoder.refuse_at(&format!("{at}[{index}]"), "is no method");
        }
    }
}
