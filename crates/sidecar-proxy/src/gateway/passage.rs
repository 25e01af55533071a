//! `TCPRoute` and `TLSRoute`: what becomes of a listener's connections, as they are.

use daemon::config::tree::Mark;

use super::document::{ParentRef, TcpRoute, TcpRule, TlsRoute};
use super::{Found, Taking};
use crate::config::TcpRoute as Passage;

impl Taking<'_> {
    pub(super) fn tcp(&mut self, found: &Found<TcpRoute>) {
        let place = (found.at.as_str(), found.mark, found.namespace.as_deref());
        self.passage(place, &found.spec.parent_refs, None, &found.spec.rules);
    }

    pub(super) fn tls(&mut self, found: &Found<TlsRoute>) {
        let place = (found.at.as_str(), found.mark, found.namespace.as_deref());
        if found.spec.mode.is_some() {
            let message = "is no field of a TLSRoute but of a listener: one of the Proxy with `tls` ends TLS, one without passes it on";
            self.refuse(&format!("{}.spec.mode", found.at), message);
        }
        self.passage(place, &found.spec.parent_refs, Some(&found.spec.hostnames), &found.spec.rules);
    }

    /// `names`: what TLS must ask for; `None`: whether it is TLS is not looked at.
    fn passage(
        &mut self,
        (at, mark, namespace): (&str, Mark, Option<&str>),
        parents: &[ParentRef],
        names: Option<&[String]>,
        rules: &[TcpRule],
    ) {
        // Elsewhere such a route is for all listeners of its protocol; here a listener is one of TCP because a route says so.
        let whole = |parent: &ParentRef| parent.section_name.is_none() && parent.port.is_none();
        if let Some(index) = parents.iter().position(whole) {
            let message =
                "needs a sectionName or a port: which of the Proxy's listeners are for TCP, nothing else says";
            return self.refuse(&format!("{at}.spec.parentRefs[{index}]"), message);
        }
        let Some(listeners) = self.listeners(at, parents) else { return };
        let ([rule], false) = (rules, parents.is_empty()) else {
            return self.refuse(&format!("{at}.spec"), "must have exactly one rule, and parentRefs");
        };
        let backends = self.targets(&format!("{at}.spec.rules[0]"), &rule.backend_refs, namespace, false);
        for name in listeners {
            let Some(number) = self.spec.listeners.iter().position(|listener| listener.name == name) else { continue };
            let listener = &mut self.spec.listeners[number];
            if names.is_some() && listener.tls.is_some() {
                let message = format!(
                    "the listener `{name}` ends TLS (a Gateway's mode Terminate), and a TLSRoute passes it on: take a listener without `tls`, or a TCPRoute for what is inside"
                );
                self.refuse(&format!("{at}.spec.parentRefs"), &message);
                continue;
            }
            // Routes with names share a listener, which the check looks after; one that takes everything does not.
            if listener.tcp.is_some() || names.is_none() && !listener.tcp_routes.is_empty() {
                let message = format!("the listener `{name}` goes to a backend already");
                self.refuse(&format!("{at}.spec.parentRefs"), &message);
                continue;
            }
            let hosts = names.unwrap_or_default().to_vec();
            let passage = Passage { hosts, backends: backends.clone() };
            let place = format!("spec.listeners[{number}].tcpRoutes[{}]", listener.tcp_routes.len());
            listener.tcp_routes.push(passage);
            let mark = self.decoder.mark_of(&format!("{at}.spec")).unwrap_or(mark);
            self.decoder.place(place, mark);
        }
    }
}
