//! What the types of filters cannot say.

use daemon::config::Decoder;
use dataplane::filter::{attack, network};

use super::{check_match, check_path, is_token};
use crate::config::filter::{Attacks, Rule};
use crate::config::{Filter, Match};

/// Checks one of the filters that decide; `at` is its place.
pub(super) fn check(at: &str, filter: &Filter, decoder: &mut Decoder) {
    match filter {
        Filter::Rules(rules) => check_rules(&format!("{at}.rules"), rules, decoder),
        Filter::Attacks(attacks) => check_attacks(&format!("{at}.attacks"), attacks, decoder),
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

fn check_attacks(at: &str, attacks: &Attacks, decoder: &mut Decoder) {
    if attacks.threshold == 0 {
        decoder.refuse_at(&format!("{at}.threshold"), "must be at least 1");
    }
    for (index, exclusion) in attacks.exclude.iter().enumerate() {
        let at = format!("{at}.exclude[{index}]");
        check_path(&format!("{at}.path"), exclusion.path.as_ref(), decoder);
        for (index, name) in exclusion.rules.iter().enumerate() {
            if !attack::is_known(name) {
                decoder.refuse_at(&format!("{at}.rules[{index}]"), format!("there is no rule and no group `{name}`"));
            }
        }
        if exclusion.path.is_none() && exclusion.rules.is_empty() && exclusion.parameters.is_empty() {
            decoder.refuse_at(&at, "excludes everything: use `mode: \"off\"` for that");
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
